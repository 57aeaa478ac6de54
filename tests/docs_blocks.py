"""The blocks of the documentation, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NEEDS = re.compile(r"#[^\n]*\bneeds? (a GPU|the network)\b")
_FILE = re.compile(r"# ([\w./-]+\.(?:py|yaml))\b")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Name of its page.
        line: Line of its fence.
        language: Its info string.
        text: What stands in it.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def marked(self) -> bool:
        """Whether a comment says that it needs a GPU or the network."""
        return _NEEDS.search(self.text) is not None

    @property
    def file(self) -> str | None:
        """The file that it shows: its first line is then a comment with the name."""
        found = _FILE.match(self.text)
        return found[1] if found else None

    @property
    def commands(self) -> list[str]:
        """Its lines without comments, continued ones in one piece."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if shlex.split(line, comments=True)]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page.name, text.count("\n", 0, found.start()) + 1, found[1], found[2]) for found in _FENCE.finditer(text)
    ]


def outside(page: Path) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))
