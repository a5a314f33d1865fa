"""A scene as lines of text, in box drawing characters or in ASCII."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from stackconf.hardware.picture.scene import width

if TYPE_CHECKING:
    from stackconf.hardware.picture.scene import Bar, Box, Scene


@frozen
class _Strokes:
    corners: str
    across: str
    down: str
    dashed: str
    full: str
    empty: str
    link: str


_UNICODE = _Strokes("┌┐└┘", "─", "│", "┆", "█", "░", "═")
_ASCII = _Strokes("++++", "-", "|", ":", "#", ".", "=")
_WIDE = ""
"""What stands in the cell after a character of two columns: nothing."""


def to_text(scene: Scene, *, encoding: str | None = None) -> list[str]:
    r"""The lines of the picture. In ASCII where `encoding` has no characters to draw boxes with.

    >>> from stackconf.hardware.picture.scene import Block, placed
    >>> scene = placed(Block("card", "card 0", ["L4", "22.5 GiB"]), 18)
    >>> print("\n".join(to_text(scene, encoding="ascii")))
    + card 0 --------+
    | L4             |
    | 22.5 GiB       |
    +----------------+
    """
    strokes = _strokes(encoding)
    cells = [[" "] * scene.width for _ in range(scene.height)]
    for box in scene.boxes:
        _box(cells, box, strokes)
    for text in scene.texts:
        _write(cells, text.x, text.y, text.text)
    for bar in scene.bars:
        _bar(cells, bar, strokes)
    lines = ["".join(row).rstrip() for row in cells]
    return [_encodable(line, encoding) for line in lines]


def _strokes(encoding: str | None) -> _Strokes:
    if encoding is None:
        return _UNICODE
    drawn = "┌┐└┘─│┆█░═"
    return _UNICODE if _encodes(drawn, encoding) else _ASCII


def _encodes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeError, LookupError):
        return False
    return True


def _encodable(line: str, encoding: str | None) -> str:
    if encoding is None or _encodes(line, encoding):
        return line
    return line.encode("ascii", "replace").decode("ascii")


def _box(cells: list[list[str]], box: Box, strokes: _Strokes) -> None:
    left, right = box.x, box.x + box.width - 1
    top, bottom = box.y, box.y + box.height - 1
    down = strokes.dashed if box.kind == "hidden" else strokes.down
    for x in range(left, right + 1):
        cells[top][x] = cells[bottom][x] = strokes.across
    for y in range(top + 1, bottom):
        cells[y][left] = cells[y][right] = down
    places = ((top, left), (top, right), (bottom, left), (bottom, right))
    for (y, x), corner in zip(places, strokes.corners, strict=True):
        cells[y][x] = corner
    if box.title:
        _write(cells, left + 1, top, f" {box.title} ")


def _write(cells: list[list[str]], x: int, y: int, text: str) -> None:
    for char in text:
        cells[y][x] = char
        for extra in range(1, width(char)):
            cells[y][x + extra] = _WIDE
        if width(char) == 0:  # it belongs to the character before it
            cells[y][x] = " "
            cells[y][x - 1] += char
        x += width(char)


def _bar(cells: list[list[str]], bar: Bar, strokes: _Strokes) -> None:
    if bar.share is None:
        text = f" {bar.text} "
        before = (bar.width - width(text)) // 2
        _write(cells, bar.x, bar.y, strokes.link * bar.width)
        _write(cells, bar.x + before, bar.y, text)
        return
    full = filled(bar.share, bar.width)
    _write(cells, bar.x, bar.y, strokes.full * full + strokes.empty * (bar.width - full))


def filled(share: float, cells: int) -> int:
    """How many cells of a gauge are full: none only where nothing is, all only where everything is.

    >>> filled(0.001, 10), filled(0.999, 10), filled(0.5, 10), filled(2, 10)
    (1, 9, 5, 10)
    """
    if share <= 0 or share >= 1:
        return 0 if share <= 0 else cells
    return min(max(round(share * cells), 1), cells - 1)
