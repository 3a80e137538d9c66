"""The course's docstrings, which are plain text, as the reStructuredText that Sphinx expects."""

import re

CODE = re.compile(r"(``[^`]+``|`[^`\n]+`)")
BULLET = re.compile(r"[-*] ")


def as_rest(lines: list[str]) -> list[str]:
    """Return a docstring's lines for Sphinx: indented lines stand as they are, and what is in backticks is code."""
    result: list[str] = []
    block = ""  # the kind of block that the lines before belong to
    for line in lines:
        kind = "list" if BULLET.match(line) or (block == "list" and line.startswith("  ")) else "text"
        kind = "literal" if kind == "text" and line.startswith("  ") else kind
        if not line.strip():
            result.append("")
            continue
        if kind != block and result and result[-1]:
            result.append("")
        if kind == "literal" and block != kind:
            result += ["::", ""]
        result.append(f"    {line}" if kind == "literal" else _marked(line))
        block = kind
    return result


def _marked(line: str) -> str:
    mark = BULLET.match(line)
    start = "- " if mark else line[: len(line) - len(line.lstrip())]
    return start + "".join(map(_escaped, CODE.split(line[len(start) :])))


def _escaped(part: str) -> str:
    if CODE.fullmatch(part):
        return f"``{part.strip('`').strip()}``\\ "
    return re.sub(r"([\\*_|`]|(?<=\w):(?!//))", r"\\\1", part)  # FILE:NAME is no address
