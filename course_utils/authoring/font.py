"""The course's own Chinese font: what of Noto Sans SC figures need, so that they look the same on every computer.

`python -m course_utils.authoring.font NotoSansCJK-Regular.ttc` writes it again, after words with new characters have
come. It has the most frequent 3,755 characters of GB 2312, all that the course's Chinese texts have, Latin and Greek
letters, and common signs. Its licence, the SIL Open Font License, lies beside it.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FONT = ROOT / "course_utils" / "fonts" / "CourseSansSC.otf"
FAMILY = "Course Sans SC"  # not Noto's own name, so that an installed one is never taken for this
# Latin, Greek, punctuation, superscripts, arrows and mathematics, shapes, Chinese punctuation
SIGNS = [(0x20, 0x7F), (0xA1, 0x180), (0x391, 0x3CA), (0x2010, 0x2040), (0x2070, 0x20A0), (0x2100, 0x2300),
         (0x25A0, 0x2600), (0x3000, 0x3020)]  # fmt: skip
FACE = "Noto Sans CJK SC"


def characters() -> set[int]:
    """Return the code points that the font is to have."""
    texts = [path.read_text(encoding="utf-8") for path in chinese_files()]
    level_1 = (bytes([high, low]).decode("gb2312") for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF)
               if (high, low) < (0xD7, 0xFA))  # fmt: skip
    signs = {code for first, end in SIGNS for code in range(first, end)}
    return {ord(one) for text in (*texts, *level_1) for one in text if one.isprintable()} | signs


def chinese_files() -> list[Path]:
    """Return all files of the course with Chinese text that figures and pages show."""
    return sorted([*ROOT.glob("solutions/source/zh/*.md"), *ROOT.glob("course_utils/languages/zh/*")])


def write(collection: Path) -> None:
    """Write the font from Noto's collection of fonts (.ttc, .otf)."""
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import TTCollection, TTFont

    faces = TTCollection(str(collection)).fonts if collection.suffix == ".ttc" else [TTFont(str(collection))]
    face = next(face for face in faces if face["name"].getDebugName(1) == FACE)
    options = Options(layout_features=[], name_IDs=[0, 1, 2, 3, 4, 6, 13, 14], notdef_outline=True, hinting=False)
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=characters())
    subsetter.subset(face)
    for record in face["name"].names:
        renamed = {1: FAMILY, 3: FAMILY, 4: FAMILY, 6: FAMILY.replace(" ", "")}.get(record.nameID)
        if renamed:
            record.string = renamed
    FONT.parent.mkdir(exist_ok=True)
    face.save(str(FONT))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
