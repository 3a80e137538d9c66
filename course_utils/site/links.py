"""Where links lead: within the book, to a notebook to download, or to the course's files on GitHub."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
SOLVED = re.compile(r"^(solutions/.*)[.]ipynb$")  # for its download the name says that it is the solved one
GITHUB = re.compile(r"(?:git@github\.com:|(?:https|ssh)://(?:[^/@]+@)?github\.com/)([\w.-]+)/([\w.-]+?)(?:\.git)?/?")


@dataclass(frozen=True)
class Repository:
    """The course on GitHub. `name`: "OWNER/NAME", "" where it is on no host; `branch`: the one that is shown."""

    name: str = ""
    branch: str = "main"

    @property
    def address(self) -> str:
        """Where the course is; "" where that is on no host."""
        return self.name and f"https://github.com/{self.name}"

    def file(self, path: str) -> str:
        """The address of a file; "" where there is no host."""
        return self.name and f"{self.address}/blob/{self.branch}/{quote(path)}"

    def launchers(self, path: str) -> dict[str, str]:
        """Where a notebook runs in the browser, by name; {} where there is no host."""
        if not self.name:
            return {}
        return {
            "Colab": f"https://colab.research.google.com/github/{self.name}/blob/{self.branch}/{quote(path)}",
            "Binder": f"https://mybinder.org/v2/gh/{self.name}/{self.branch}?labpath={quote(path, safe='')}",
        }


def find_repository(root: Path, address: str = "") -> Repository:
    """Return the repository at an address, or ("") at that of `git remote`. Raises ValueError for no GitHub address."""
    found = GITHUB.fullmatch(address or said_by_git(root, "remote", "get-url", "origin"))
    if found is None and address:
        raise ValueError(f"Expected an address such as https://github.com/OWNER/NAME, got {address}")
    if found is None:
        return Repository()
    branch = said_by_git(root, "branch", "--show-current")
    return Repository("/".join(found.groups()), branch or "main")


def said_by_git(root: Path, *question: str) -> str:
    """What git answers, on one line; "" where it has no answer or is not installed."""
    try:
        answer = subprocess.run(["git", "-C", str(root), *question], capture_output=True, encoding="utf-8")
    except OSError:
        return ""
    return answer.stdout.strip()


def relinked(text: str, path: str, root: Path, pages: dict[str, str], repository: Repository) -> str:
    """Return Markdown whose links to the course's files lead to where these are in the book.

    path: the file that the text is from, such as "chapters/SYMBOLS.md". pages: the pages of the book, by their files.
    Links to files that are no pages lead to the repository; where there is none, their words stay without a link.
    """

    def relink(link: re.Match) -> str:
        mark, words, target = link.groups()
        file, _, place = target.partition("#")
        file = os.path.normpath(os.path.join(os.path.dirname(path), file)).replace(os.sep, "/")
        if "://" in target or not file or target.startswith("#") or not (root / file).is_file():
            return link.group()
        if mark:
            return f"![{' '.join(words.split())}](/{file})"
        if file in pages:
            return f"[{words}](/{pages[file]}{place and '#'}{place})"
        if file.endswith(".ipynb"):
            file = SOLVED.sub(r"\1_solved.ipynb", file)
            return f"[{words}](path:/{file})"
        return f"[{words}]({repository.file(file)})" if repository.name else words

    return LINK.sub(relink, text)
