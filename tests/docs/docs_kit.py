"""Reading the documentation: its sections and its fenced blocks."""

from __future__ import annotations

import re
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"

_FENCE = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)


@frozen
class Block:
    """A fenced block: what stands after its backticks, and its text."""

    info: str
    text: str

    @property
    def language(self) -> str:
        return self.info.split(" ")[0]

    @property
    def file(self) -> str:
        """The file it shows a part of: the second word after the backticks."""
        return self.info.partition(" ")[2]


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    return [Block(match[2].strip(), match[3]) for match in _FENCE.finditer(text)]


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return _FENCE.sub("", text)


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next heading of the same or a higher level."""
    bare = _FENCE.sub(lambda match: re.sub(r"^#", " ", match[0], flags=re.MULTILINE), text)
    heading = re.search(rf"^(#+) {re.escape(title)}$", bare, re.MULTILINE)
    assert heading is not None, f"no heading {title!r}"
    following = re.search(rf"^#{{1,{len(heading[1])}}} ", bare[heading.end() :], re.MULTILINE)
    end = len(text) if following is None else heading.end() + following.start()
    return text[heading.end() : end]
