"""A scene as a standalone SVG: no script, nothing from elsewhere, for light and dark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackconf.hardware.picture.scene import width

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackconf.hardware.picture.scene import Bar, Box, Scene, Text

CELL, ROW = 8.4, 20
"""Of a cell, in the units of the view box. A monospaced character is 0.6 of its size wide."""
_INSET = 2
_BASE = 14
"""From the top of a row to the line on which its text stands."""
_MARGIN = 8

_STYLE = """\
text{font:14px ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#1c2128;white-space:pre}
.title{font-weight:600}
.page{fill:#ffffff}
.box{stroke:#57606a;stroke-width:1}
.machine{fill:#f6f8fa}.node,.socket{fill:#eaeef2}.card,.instance{fill:#ffffff}
.hidden{fill:#ffffff;stroke-dasharray:4 3}
.track{fill:#d0d7de}.full{fill:#0a62c9}
.link{stroke:#1a7f37;stroke-width:3}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}
.page{fill:#0d1117}
.box{stroke:#8b949e}
.machine{fill:#161b22}.node,.socket{fill:#21262d}.card,.instance,.hidden{fill:#0d1117}
.track{fill:#30363d}.full{fill:#58a6ff}
.link{stroke:#3fb950}
}"""


def to_svg(scene: Scene) -> str:
    """The picture as the text of an SVG file."""
    wide, high = scene.width * CELL + 2 * _MARGIN, scene.height * ROW + 2 * _MARGIN
    size = f'width="{_n(wide)}" height="{_n(high)}"'
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(wide)} {_n(high)}" {size}'
            ' role="img" aria-labelledby="title desc">'
        ),
        f'<title id="title">{_escaped(scene.title)}</title>',
        f'<desc id="desc">{_escaped(scene.description)}</desc>',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" {size}/>',
        f'<g transform="translate({_MARGIN} {_MARGIN})">',
        *(line for box in scene.boxes for line in _box(box)),
        *(line for bar in scene.bars for line in _bar(bar)),
        *(_text(text) for text in scene.texts),
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _box(box: Box) -> Iterator[str]:
    yield (
        f'<rect class="box {box.kind}" x="{_n(box.x * CELL + _INSET)}" y="{_n(box.y * ROW + _INSET)}"'
        f' width="{_n(box.width * CELL - 2 * _INSET)}" height="{_n(box.height * ROW - 2 * _INSET)}" rx="4"/>'
    )
    if box.title:
        yield _written(box.x + 2, box.y, box.title, "title")


def _bar(bar: Bar) -> Iterator[str]:
    x, top, wide = bar.x * CELL, bar.y * ROW, bar.width * CELL
    if bar.share is None:
        middle = top + ROW / 2
        gap = width(bar.text) + 2
        before = (bar.width - gap) // 2
        for left, right in ((x, x + before * CELL), (x + (before + gap) * CELL, x + wide)):
            if right > left:
                yield (
                    f'<line class="link" x1="{_n(left)}" y1="{_n(middle)}" x2="{_n(right)}"'
                    f' y2="{_n(middle)}"/>'
                )
        yield _written(bar.x + before + 1, bar.y, bar.text)
        return
    full = wide * min(max(bar.share, 0.0), 1.0)
    place = f'x="{_n(x)}" y="{_n(top + 5)}" height="10" rx="2"'
    yield f'<rect class="track" {place} width="{_n(wide)}"/>'
    if full:
        yield f'<rect class="full" {place} width="{_n(full)}"/>'


def _text(text: Text) -> str:
    return _written(text.x, text.y, text.text)


def _written(column: int, row: int, text: str, kind: str = "") -> str:
    """A text that takes just its columns, whatever font is there."""
    named = f' class="{kind}"' if kind else ""
    return (
        f'<text{named} x="{_n(column * CELL)}" y="{_n(row * ROW + _BASE)}"'
        f' textLength="{_n(width(text) * CELL)}" lengthAdjust="spacingAndGlyphs">{_escaped(text)}</text>'
    )


def _escaped(text: str) -> str:
    # Every text was made printable, so there is no character that XML cannot hold. The library's own
    # `escape` brings either a web client or a table of 2 000 entities with it.
    printable = "".join(char if char.isprintable() else "?" for char in text)
    return printable.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
