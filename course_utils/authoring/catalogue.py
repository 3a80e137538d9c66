"""The catalogues of `course_utils.language`: which texts of the code a learner reads, and bringing them up to date.

`python -m course_utils.authoring.catalogue` adds what is new to `languages/zh/*.po`, takes out what the code no longer
has, and says how much is still to translate.
"""

import ast
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from course_utils.language import FOLDER, LANGUAGES

PACKAGE = Path(__file__).resolve().parents[1]
WORDS = re.compile(r"[A-Za-z]{2,}")
# Which modules speak to the learner, by the catalogue that has their texts.
CATALOGUES: dict[str, tuple[str, ...]] = {
    **{f"exercises_{n:02}": (f"exercises/chapter_{n:02}.py", f"exercises/mistakes_{n:02}.py") for n in range(1, 17)},
    "engine": ("exercises/[!cm]*.py", "exercises/calls.py", "exercises/messages.py"),
    "tools": (
        "checkpoint.py",
        "cli.py",
        "doctor.py",
        "systems.py",
        "machine/*.py",
        "pipelines/png_info.py",
        "text/prompts.py",
        "data/folder.py",
        "data/picture_book/chinese.py",
        "metrics/families.py",
        "pipelines/model_folder.py",
        "pipelines/rectified_flow_models.py",
        "pipelines/stable_diffusion.py",
        "pipelines/steering.py",
    ),
    "setup": ("../course.py",),
    "widgets": ("widgets/*.py", "plotting.py", "studio/*.py", "site/films.py", "site/notebooks.py"),
}
# Which modules say no more to the learner than what they raise; these texts are the catalogue "errors".
RAISING = ("*.py", "data/**/*.py", "diffusion/*.py", "metrics/*.py", "models/*.py", "pipelines/*.py", "recipes/*.py",
           "text/*.py")  # fmt: skip


def texts_of(path: Path) -> list[str]:
    """Return the texts of a module that may be read by a learner, in order, each once.

    These are strings of at least two words, one of them a word of more than one letter, or any that an f-string puts
    together, and the first line of the docstring of an exercise or a command. Other docstrings, and keys, are not among
    them.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                skipped.add(first.value)
        if isinstance(node, ast.JoinedStr):
            skipped |= {part for part in ast.walk(node) if isinstance(part, ast.Constant)}
    found: dict[str, None] = {}
    for text in _texts(tree, skipped):
        found.setdefault(text)
    return list(found)


def raised_in(path: Path) -> list[str]:
    """Return the texts of the errors that a module raises, and of its constants that they name, in order, each once."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    raised = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    names = {part.id for node in raised for part in ast.walk(node) if isinstance(part, ast.Name)}
    named = [
        node for node in tree.body if isinstance(node, ast.Assign) and {getattr(node.targets[0], "id", "")} & names
    ]
    skipped = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    return list(dict.fromkeys(text for node in [*named, *raised] for text in _texts(node, skipped - {node})))


def _texts(tree: ast.AST, skipped: set) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef) and any(_shows_docstring(one) for one in node.decorator_list):
            yield _escaped((ast.get_docstring(node) or "").splitlines()[0])
        if isinstance(node, ast.JoinedStr):
            text = template_of(node)
            if len(WORDS.findall(re.sub(r"\{[^{}]*\}", "", text))) >= 1:
                yield text
            for value in node.values:
                if isinstance(value, ast.FormattedValue):  # words that its expression chooses from
                    yield from _texts(value, skipped - set(ast.walk(value.value)))
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str) and node not in skipped and is_sentence(node.value):
                yield _escaped(node.value)
        else:
            yield from _texts(node, skipped)


def _shows_docstring(decorator: ast.expr) -> bool:
    """Whether it makes an exercise or a command, whose docstring a learner reads."""
    return isinstance(decorator, ast.Call) and ast.unparse(decorator.func) in ("exercise", "app.command")


def is_sentence(text: str) -> bool:
    """Whether a string is likely to be read by people: two words or more, or one that begins with a capital letter."""
    words = WORDS.findall(text)
    return (len(words) >= 2 and " " in text.strip()) or bool(re.fullmatch(r"[A-Z][a-z]+[.:]?", text.strip()))


def template_of(node: ast.JoinedStr) -> str:
    """Return an f-string as the entry of a catalogue: its values as their expressions, in braces."""
    parts, number = [], 0
    for value in node.values:
        if isinstance(value, ast.Constant):
            parts.append(_escaped(str(value.value)))
        elif isinstance(value, ast.FormattedValue):
            expression = ast.unparse(value.value)
            if re.search(r"[{}\n]", expression) or len(expression) > 60:
                number += 1
                expression = f"value {number}"
            parts.append("{" + expression + "}")
    return "".join(parts)


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def entries() -> dict[str, dict[str, list[str]]]:
    """Return for each catalogue its texts, each with the modules that have it."""
    found: dict[str, dict[str, list[str]]] = {}
    speaking = {path for patterns in CATALOGUES.values() for path in modules(patterns)}
    ways = [*((name, texts_of, modules(patterns)) for name, patterns in CATALOGUES.items())]
    for name, read, paths in [*ways, ("errors", raised_in, modules(RAISING) - speaking)]:
        for path in sorted(paths):
            for text in read(path):
                found.setdefault(name, {}).setdefault(text, []).append(os.path.relpath(path, PACKAGE))
    return found


def modules(patterns: Iterable[str]) -> set[Path]:
    """Return the modules of the package that fit one of the patterns."""
    return {path.resolve() for pattern in patterns for path in PACKAGE.glob(pattern)}


def update(language: str) -> dict[str, tuple[int, int]]:
    """Bring the catalogues of a language up to date; return for each how many entries are translated, of how many."""
    from babel.messages.catalog import Catalog
    from babel.messages.pofile import read_po, write_po

    counts = {}
    for name, texts in entries().items():
        path = FOLDER / language / f"{name}.po"
        old = read_po(path.open("rb"), locale=language) if path.exists() else Catalog()
        new = Catalog(locale=language, project="Image generation", charset="utf-8", fuzzy=False)
        for text, modules in texts.items():
            known = old.get(text)
            new.add(text, known.string if known else "", locations=[(module, 0) for module in modules],
                    auto_comments=known.auto_comments if known else (),
                    user_comments=known.user_comments if known else ())  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            write_po(file, new, width=0, omit_header=True)
        counts[name] = (sum(bool(message.string) for message in new if message.id), len(texts))
    return counts


if __name__ == "__main__":
    for language in set(LANGUAGES) - {"en"}:
        for name, (done, all_) in update(language).items():
            print(f"{language} {name:13} {done} of {all_} translated")
