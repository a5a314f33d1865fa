"""Boxes with text on a grid of character cells, and how they find their places.

A `Block` is what is to be drawn; `placed` gives it and everything in it a place. Both renderers draw
the same `Scene`, so what holds for its boxes holds for both pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Literal, TypeAlias
from unicodedata import combining, east_asian_width

from attrs import field, frozen

Kind: TypeAlias = Literal["machine", "node", "socket", "card", "hidden", "instance"]

BORDER = 2
"""Columns of a box on either side that hold no text: its line and a space."""
GAP = 1
_LONGEST_GAUGE, _SHORTEST_GAUGE = 24, 6


@frozen
class Gauge:
    """A row with a bar of which a share is filled; with nothing before it, as wide as the box."""

    share: float
    text: str = ""


@frozen
class Link:
    """A row as wide as the box: what connects those above it."""

    text: str


Row: TypeAlias = str | Gauge | Link


def _rows(values: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(values)


def _blocks(values: Iterable[Block]) -> tuple[Block, ...]:
    return tuple(values)


@frozen
class Block:
    """A box that is to be drawn: rows of text, boxes inside, rows below them."""

    kind: Kind
    title: str
    rows: tuple[Row, ...] = field(default=(), converter=_rows)
    children: tuple[Block, ...] = field(default=(), converter=_blocks)
    foot: tuple[Row, ...] = field(default=(), converter=_rows)
    least: int = 12
    """The fewest columns of text inside."""
    most: int | None = None
    """The most columns of text inside, where more would only be empty."""
    beside: tuple[Block, ...] = field(default=(), converter=_blocks)
    """Boxes of another size than `children`, in rows of their own below them."""

    def fewest(self) -> int:
        """The fewest columns that the box and everything in it can do with."""
        inside = [child.fewest() for child in (*self.children, *self.beside)]
        return max([self.least, min(width(self.title), self.least), *inside]) + 2 * BORDER

    def widest(self) -> int | None:
        """How wide it may become."""
        return None if self.most is None else self.most + 2 * BORDER


@frozen
class Box:
    """A placed box, in cells; its border is inside. The title stands in its first row."""

    x: int
    y: int
    width: int
    height: int
    kind: Kind
    title: str
    depth: int


@frozen
class Text:
    """A placed line of text."""

    x: int
    y: int
    text: str


@frozen
class Bar:
    """A placed bar: a gauge filled in part, or a link, of which `share` is `None`."""

    x: int
    y: int
    width: int
    share: float | None
    text: str = ""


@frozen
class Scene:
    """Everything that is drawn, with its place. `title` and `description` are for who cannot see it."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    texts: tuple[Text, ...]
    bars: tuple[Bar, ...]
    title: str = ""
    description: str = ""


def placed(block: Block, columns: int, *, description: str = "") -> Scene:
    """The scene of a block, `columns` wide, or as wide as it has to be."""
    place = _Place()
    total = max(columns, block.fewest())
    height = place.put(block, 0, 0, total, 0)
    return Scene(
        total, height, tuple(place.boxes), tuple(place.texts), tuple(place.bars), block.title, description
    )


def width(text: str) -> int:
    """The columns that a text takes.

    >>> width("abc"), width("日本")
    (3, 4)
    """
    if text.isascii():
        return len(text)
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def plain(text: str) -> str:
    r"""The text with what is not printable as `?`; it may be from a driver or a plugin.

    >>> plain("L4\x1b[2J")
    'L4?[2J'
    """
    return "".join(char if char.isprintable() else "?" for char in text)


def fitted(text: str, room: int) -> str:
    """The text, shortened at its end where it does not fit.

    >>> fitted("a long title", 8)
    'a lon...'
    """
    if width(text) <= room:
        return text
    while text and width(text) > room - 3:
        text = text[:-1]
    return f"{text}..."


class _Place:
    """Gives places, from the top down."""

    def __init__(self) -> None:
        self.boxes: list[Box] = []
        self.texts: list[Text] = []
        self.bars: list[Bar] = []

    def put(self, block: Block, x: int, y: int, columns: int, depth: int) -> int:
        """Place a block; how many rows it takes."""
        at = len(self.boxes)
        inside = columns - 2 * BORDER
        row = self._rows(block.rows, x + BORDER, y + 1, inside)
        row = self._grid(block.children, x + BORDER, row, inside, depth + 1)
        row = self._grid(block.beside, x + BORDER, row, inside, depth + 1)
        row = self._rows(block.foot, x + BORDER, row, inside)
        title = fitted(plain(block.title), inside)
        self.boxes.insert(at, Box(x, y, columns, row - y + 1, block.kind, title, depth))
        return row - y + 1

    def _grid(self, children: Sequence[Block], x: int, y: int, room: int, depth: int) -> int:
        if not children:
            return y
        fewest = max(child.fewest() for child in children)
        across = columns_for(len(children), fewest, room)
        wide = (room - (across - 1) * GAP) // across
        most = [child.widest() for child in children]
        if None not in most:
            wide = min(wide, max(fewest, *(each or 0 for each in most)))
        for start in range(0, len(children), across):
            first = len(self.boxes)
            line = children[start : start + across]
            heights = [
                self.put(child, x + number * (wide + GAP), y, wide, depth)
                for number, child in enumerate(line)
            ]
            self._stretch(first, depth, y, max(heights))
            y += max(heights)
        return y

    def _stretch(self, first: int, depth: int, y: int, height: int) -> None:
        """Boxes side by side end on the same row."""
        for at in range(first, len(self.boxes)):
            box = self.boxes[at]
            if box.depth == depth and box.y == y:
                self.boxes[at] = Box(box.x, y, box.width, height, box.kind, box.title, depth)

    def _rows(self, rows: Iterable[Row], x: int, y: int, room: int) -> int:
        for row in rows:
            if isinstance(row, Link):
                self.bars.append(Bar(x, y, room, None, fitted(plain(row.text), room - 4)))
                y += 1
            elif isinstance(row, Gauge) and not row.text:
                self.bars.append(Bar(x, y, min(room, _LONGEST_GAUGE), row.share))
                y += 1
            else:
                y = self._text(row, x, y, room)
        return y

    def _text(self, row: str | Gauge, x: int, y: int, room: int) -> int:
        text = plain(row.text if isinstance(row, Gauge) else row)
        lines = _lines(text, room)
        for number, line in enumerate(lines):
            self.texts.append(Text(x, y + number, line))
        left = room - width(lines[-1]) - 2
        if isinstance(row, Gauge) and len(lines) == 1 and left >= _SHORTEST_GAUGE:
            self.bars.append(Bar(x + room - left, y, min(left, _LONGEST_GAUGE), row.share))
        return y + len(lines)


def _lines(text: str, room: int) -> list[str]:
    if width(text) <= room:
        return [text]
    # A character may be two columns wide, and none of a word that is too long is lost.
    safe = room if text.isascii() else room // 2
    return wrap(text, safe, break_on_hyphens=False) or [""]


def columns_for(count: int, fewest: int, room: int) -> int:
    """How many boxes stand side by side: as many as fit, in rows of the same length where possible.

    >>> columns_for(8, 16, 100), columns_for(7, 12, 72), columns_for(4, 90, 80)
    (4, 4, 1)
    """
    across = min(count, max(1, (room + GAP) // (fewest + GAP)))
    down = -(-count // across)
    return -(-count // down)
