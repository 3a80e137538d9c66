"""The language of the course: plain English, folded answers, one meaning for each symbol, calls that exist."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
SYMBOLS = ROOT / "chapters" / "SYMBOLS.md"

# What a native author of a textbook would not write, and what they would.
WORDS = {
    r"dear(er|est)?": "expensive",
    r"shall": "should, is meant to",
    r"who(so)?ever": "anyone who, if you",
    r"anew": "again",
    r"mend(s|ed|ing)?": "fix",
    r"learnt": "learned, trained",
    r"throws? a coin|throws? the coin": "at random",
    r"hangs? together": "are related, depend on each other",
    r"derivatives? by": "derivative with respect to",
    r"tells? rightly": "predicts correctly",
    r"it is that of": "it is the …'s",
    r"cuttings": "crops",
    r"(network|model|u-net|unet|judge|encoder|discriminator|generator|eps|v) says": "predicts, outputs",
    r"(asks?|asked|asking) (the|a|each|every) (network|model|u-net|judge|encoder|discriminator)": "evaluate, query",
}


def unidiomatic(text):
    """Return the words of a text that a textbook would not have, each with what to write instead."""
    return [
        f"line {text.count(chr(10), 0, found.start()) + 1}: {found.group()!r}: write {better}"
        for pattern, better in WORDS.items()
        for found in re.finditer(rf"\b({pattern})\b", text, re.IGNORECASE)
    ]


def texts():
    """Yield (name, text) of everything that learners, teachers and contributors read."""
    for pattern in ("*.md", "*/*.md", "course.py", "benchmarks/*.py", "course_utils/**/*.py", "solutions/source/*.py"):
        for path in sorted(ROOT.glob(pattern)):
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")


def test_the_language_is_plain():
    found = [f"{name}: {problem}" for name, text in texts() for problem in unidiomatic(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text, words",
    [
        ("It is expensive.\nDear me.", ["line 2: 'Dear': write expensive"]),
        ("whoever asks the network, mends it", 3),
        ("We recommend an amendment; she learned; the dearth of coins.", 0),
    ],
)
def test_unidiomatic(text, words):
    found = unidiomatic(text)
    assert found == words if isinstance(words, list) else len(found) == words


def prose(path):
    """Yield the Markdown cells of a notebook."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            yield cell


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_what_is_to_be_predicted_has_a_folded_answer(path):
    cells = [cell for cell in prose(path) if "Predict first" in cell.source]
    assert cells, "a chapter lets its readers predict something"
    bare = [cell.id for cell in cells if "<details><summary>" not in cell.source.split("Predict first", 1)[1]]
    assert not bare, f"fold an answer (<details>) below the question in {bare}"


CELL = re.compile(r"\$([^$]+)\$")
NOT_IN_BRACKETS = re.compile(r",(?![^({\[]*[)}\]])|\\propto|=")


def symbols(cell):
    r"""Return the symbols in the first cell of a table's row: r"$Q, K$, $V(D, G)$" gives {"Q", "K", "V(D,G)"}."""
    parts = [part for formula in CELL.findall(cell) for part in NOT_IN_BRACKETS.split(formula)]
    return {re.sub(r"\\[,;!]|\s", "", part) for part in parts}


def rows(text):
    """Yield the cells of each row of the first table in a text whose head begins with `symbol`."""
    lines = iter(text.splitlines())
    for line in lines:
        if re.match(r"\| *symbol *\|", line):
            break
    next(lines, None)
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_symbols_are_read_from_tables():
    assert symbols(r"$Q, K$, $V(D, G)$, $\hat x_0 = o$") == {"Q", "K", "V(D,G)", r"\hatx_0", "o"}
    text = "| symbol | code |\n|:--|:--|\n| $p(x \\mid z)$ | `a` |\n| $z$ | `z` |\n\n| $t$ | `t` |"
    assert [symbols(first) for first, *_ in rows(text)] == [{r"p(x\midz)"}, {"z"}]


def test_each_symbol_has_one_meaning():
    """The table of the whole course has each symbol once, and names the chapters whose own tables have it."""
    used = {
        path.name[:2]: {symbol for cell in prose(path) for first, *_ in rows(cell.source) for symbol in symbols(first)}
        for path in CHAPTERS
    }
    named = {}
    for first, *_, chapters in rows(SYMBOLS.read_text(encoding="utf-8")):
        for symbol in symbols(first):
            assert symbol not in named, f"{symbol} stands in two rows of chapters/SYMBOLS.md"
            named[symbol] = set(chapters.split())
    for number, there in used.items():
        assert there == {symbol for symbol, chapters in named.items() if number in chapters}, f"chapter {number}"


CODE = re.compile(r"`([^`]+)`")
CALL = re.compile(r"\b(pipe|vae|unet|text_encoder)((?:\.\w+)+)(?=\()")
CLASS = re.compile(r"\b(\w+(?:Scheduler|Pipeline)|AutoencoderKL|UNet2D\w+Model)\b")


PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler", "safety_checker", "feature_extractor")


def missing(source):
    """Return which calls and classes of diffusers, named in a text's code spans, the installed version has not."""
    import diffusers
    import transformers

    parts = {
        "pipe": diffusers.StableDiffusionPipeline,
        "vae": diffusers.AutoencoderKL,
        "unet": diffusers.UNet2DConditionModel,
        "text_encoder": transformers.CLIPTextModel,
    }
    found = []
    for span in CODE.findall(source):
        for owner, names in CALL.findall(span):
            *way, name = names[1:].split(".")
            owner = way[-1] if way else owner
            if owner in parts and name not in PARTS and not hasattr(parts[owner], name):
                found.append(f"{owner}.{name}()")
        found += [name for name in CLASS.findall(span) if not hasattr(diffusers, name)]
    return found


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_what_prose_names_of_diffusers_is_there(path):
    assert not [f"{cell.id}: {name}" for cell in prose(path) for name in missing(cell.source)]


def test_missing():
    assert missing("`pipe.enable_vae_tilings()` and `pipe.vae.enable_tiling()`, `FastScheduler`") == [
        "pipe.enable_vae_tilings()",
        "FastScheduler",
    ]
    assert missing("`pipe.enable_model_cpu_offload()`; `unet.forward(x)`; `DDIMScheduler`") == []
