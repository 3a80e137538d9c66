"""What a learner reads, in the learner's language: COURSE_LANGUAGE (en, zh), or else that of the system.

Code speaks English, in ordinary strings and f-strings. Where text leaves the course (a message of a check, a line on
the terminal, the label of a control) `translated(text)` looks it up in `languages/LANGUAGE/*.po`. An entry is a whole
sentence; the values of an f-string stand in it as their expressions:

    msgid "got the shape {tuple(got.shape)}, expected {tuple(expected.shape)}."
    msgstr "得到的形状是 {tuple(got.shape)}，应为 {tuple(expected.shape)}。"

so that a finished English text is recognised, its values are taken out, translated if they are words themselves, and
put where the other language wants them. What has no entry stays English.
"""

import functools
import json
import locale
import os
import re
import sys
import textwrap
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

LANGUAGES = {"en": "English", "zh": "简体中文"}
FOLDER = Path(__file__).parent / "languages"
CHINESE = "\u3400-\u9fff"
PLACE = re.compile(r"\{([^{}]*)\}")
QUOTED = re.compile(r'^(?:msg\w+ )?("(?:[^"\\]|\\.)*")$', re.MULTILINE)
ENTRY = re.compile(r'^(msgid (?:".*"\n)+)(msgstr (?:".*"(?:\n|\Z))+)', re.MULTILINE)
CUTS = (re.compile(r"(\n)"), re.compile(r"(?<=[.:;!?])(\s+)"))  # between lines, between sentences


def language() -> str:
    """Return the language in use, a key of LANGUAGES: COURSE_LANGUAGE, the system's, or English.

    Raises ValueError for a COURSE_LANGUAGE that the course does not have.
    """
    wanted = os.environ.get("COURSE_LANGUAGE", "")
    if wanted:
        if wanted not in LANGUAGES:
            raise ValueError(f"expected COURSE_LANGUAGE to be one of {', '.join(LANGUAGES)}, got {wanted!r}")
        return wanted
    system = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), None) or locale.getlocale()[0]
    return "zh" if system and system.lower().startswith(("zh", "chinese")) else "en"


def text_width(text: str) -> int:
    """Return how many columns a line takes where a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def wrapped(text: str, columns: int) -> str:
    """Return a text broken into lines of at most so many columns, Chinese between any two characters."""
    if text_width(text) == len(text):
        return textwrap.fill(text, columns)
    lines = [""]
    for piece in re.findall(r"[!-~\u00a1-\u04ff]+|\n|.", text):  # a Latin word stays together
        if piece == "\n":
            lines.append("")
        elif text_width(lines[-1] + piece.rstrip()) > columns and lines[-1] and piece not in "，。；：！？、）”":
            lines.append(piece.lstrip())
        else:
            lines[-1] += piece
    return "\n".join(line.strip() for line in lines)


ENGLISH = re.compile(r"\b[a-z]{2,} [a-z]{2,}\b")  # words that are left in a value: another entry may suit better
PLURAL = re.compile(r"'e?s' (\*|if)")  # the expression that makes an English plural


LABEL = 0.5  # of a label, the share that must not be values: "times {verb}" is no entry for "times root of 6"


class Template(NamedTuple):
    """An entry with values: how it is recognised, its longest constant piece, its length, and its translation."""

    pattern: re.Pattern
    piece: str
    weight: int
    names: list[str]
    translation: str


class Catalogue(NamedTuple):
    """All entries of a language: texts as they are, and those with values, the most constant ones first."""

    texts: dict[str, str]
    templates: list[Template]


def is_chinese(text: str) -> bool:
    """Whether a text has Chinese characters."""
    return re.search(f"[{CHINESE}]", text) is not None


@functools.cache
def catalogue(name: str) -> Catalogue:
    """Return the entries of a language that have a translation."""
    texts, templates = {}, []
    for path in sorted((FOLDER / name).glob("*.po")):
        for english, translation in read_po(path).items():
            if PLACE.search(english):
                templates.append(_template(english, translation))
            else:
                texts[plain(english)] = plain(translation)
    return Catalogue(texts, sorted(templates, key=lambda template: -template.weight))


def read_po(path: Path) -> dict[str, str]:
    """Return the entries of a catalogue that have a translation, both without space at the ends.

    Babel, which writes these files, is not there yet when `course.py` sets the course up.
    """
    found = {}
    for entry in ENTRY.finditer(path.read_text(encoding="utf-8")):
        english, translation = ("".join(map(json.loads, QUOTED.findall(part))).strip() for part in entry.groups())
        if english and translation:
            found[english] = translation
    return found


def plain(text: str) -> str:
    """Return an entry without values as it is read: its doubled braces are single ones."""
    return text.replace("{{", "{").replace("}}", "}")


def _template(text: str, translation: str) -> Template:
    pieces = PLACE.split(text.replace("{{", "\0").replace("}}", "\1"))
    constant = [piece.replace("\0", "{").replace("\1", "}") for piece in pieces[::2]]
    names, any_sign = pieces[1::2], "(?s:.)" if "\n" in text else "."  # a value keeps to the lines of its entry
    pattern = re.escape(constant[0])
    for number, (name, after) in enumerate(zip(names, constant[1:], strict=True)):
        if PLURAL.match(name) or name.startswith(("list(", "tuple(")):
            value = "s?" if PLURAL.match(name) else r"[\[(][^\[\]()]*[\])]"
        elif name.startswith(("len(", "int(")):
            value = r"[\d,]+"
        elif number + 1 == len(names) and not after:
            value = rf"(?:(?!: got |\. [A-Z]){any_sign})*"  # at the end: no further than its own sentence
        else:
            value = any_sign + ("*?" if after else "*")  # of two values side by side the first one has it all
        pattern += f"({value})" + re.escape(after)
    weight = sum(map(len, constant))
    return Template(re.compile(pattern), max(constant, key=len), weight, names, translation)


def label(text: str) -> str:
    """Return a short label, such as the name of a control or of an axis, in the language in use.

    Besides the entries of all texts these have single words, in `languages/LANGUAGE/words.json`, which elsewhere may be
    names in code.
    """
    name = language()
    return text if name == "en" else words(name).get(text) or _translate(text, catalogue(name), LABEL)


@functools.cache
def words(name: str) -> dict[str, str]:
    """Return the single words of a language."""
    return json.loads((FOLDER / name / "words.json").read_text(encoding="utf-8"))


def translated(text: str, to: str | None = None) -> str:
    """Return a finished English text in a language (None: the one in use), or as it is where there is no entry."""
    name = language() if to is None else to
    return text if name == "en" or not text.strip() else _translate(text, catalogue(name))


def in_turn(texts: Iterable[str]) -> str:
    """Return several texts, one after the other, each in the language in use."""
    return re.sub("(?<=[。；：！？]) ", "", " ".join(map(translated, texts)))


def translate_errors() -> None:
    """From here on a notebook shows the messages of errors in the language in use, as far as there are entries."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None or language() == "en":
        return

    def show(shell, kind, error, trace, tb_offset=None):
        error.args = tuple(translated(part) if isinstance(part, str) else part for part in error.args)
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)

    shell.set_custom_exc((Exception,), show)


def _translate(text: str, entries: Catalogue, constant: float = 0.0) -> str:
    """Translate a text; entries with values must share so much of it, a share of its length, with it."""
    found = _whole(text, entries, constant)
    if found is not None:
        return found
    stripped = text.strip()
    if stripped != text:
        return text.replace(stripped, _translate(stripped, entries, constant), 1)
    for cut in CUTS:  # several entries, one after the other
        parts = cut.split(text)
        if len(parts) > 1:
            return _joined(parts, entries, constant)
    parts = text.split(", ")
    named = [_whole(part, entries, constant) for part in parts]
    return "，".join(map(str, named)) if len(parts) > 1 and None not in named else text


def _joined(parts: list[str], entries: Catalogue, constant: float) -> str:
    """Translate pieces with what separates them, as many together as make one entry."""
    done, at = "", 0
    while at < len(parts):
        for end in range(len(parts), at, -2):
            found = _whole("".join(parts[at:end]), entries, constant)
            if found is not None:
                break
        else:
            end = at + 1
            is_code = parts[at].startswith("    ")
            found = parts[at] if is_code else _translate(parts[at], entries, constant)
        space = parts[end] if end < len(parts) else ""
        done += found + ("" if space == " " and re.search("[。；：！？]$", found) else space)
        at = end + 1
    return done


def _whole(text: str, entries: Catalogue, constant: float = 0.0) -> str | None:
    """Return the translation of a text that is one entry, else None."""
    if text in entries.texts:
        return entries.texts[text]
    if text.endswith(".") and text[:-1] in entries.texts:
        return entries.texts[text[:-1]] + "。"
    best = None
    for template in entries.templates:
        suits = template.piece in text and template.weight >= constant * len(text)
        match = template.pattern.fullmatch(text) if suits else None
        if match:
            values = [_translate(value, entries) for value in match.groups()]
            found = _spaced(_filled(template.translation, dict(zip(template.names, values, strict=True))))
            if not any(map(ENGLISH.search, values)):
                return found
            best = best or found
    return best


def _spaced(text: str) -> str:
    """Put a blank between Chinese and Latin letters, and none between Chinese and Chinese."""
    text = re.sub(rf"(?<=[{CHINESE}])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9%])(?=[{CHINESE}])", " ", text)
    return re.sub(rf"(?<=[{CHINESE}，。；：？！]) (?=[{CHINESE}])", "", text)


def _filled(text: str, values: dict[str, str]) -> str:
    pieces = PLACE.split(text.replace("{{", "\0").replace("}}", "\1"))
    constant = [piece.replace("\0", "{").replace("\1", "}") for piece in pieces[::2]]
    named = [values.get(name, "") for name in pieces[1::2]]
    return "".join(part for pair in zip(constant, [*named, ""], strict=True) for part in pair)
