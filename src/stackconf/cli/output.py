"""What a person sees: lines, styles, tables and progress; and JSON for programs.

Data goes to standard output, talk (issues, progress, hints) to standard error. Styles are used only
where a person looks, and never carry meaning alone. What a file or a plugin wrote is shown with
its control characters made visible, so that it cannot drive the terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from stackconf.cli.options import Settings
    from stackconf.types import Issue

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_LEVELS = {"error": "red", "warning": "yellow", "ignored": "yellow"}
COSTS = {"in_place": "in place", "reload": "reload", "restart": "restart"}
"""Update classes in words."""

NOTHING = "-"
"""What a cell of a table shows that has nothing to show."""

_GAP = 2
_NARROWEST = 14
_PROSE = 24
"""A column of text is no narrower. A table that does not fit so is shown as records instead."""


class Screen:
    """One stream, and how to write on it.

    `width` is in columns, or `None` where nothing is wrapped: in a pipe or a file.
    """

    def __init__(self, stream: TextIO, color: str = "auto") -> None:
        self.stream = stream
        self.live = _is_terminal(stream)
        self.color = _wants_color(color, live=self.live)
        self.width = _width(stream) if self.live else None

    def style(self, text: str, *styles: str) -> str:
        """The text in these styles, where styles are wanted."""
        if not self.color or not text or not styles:
            return text
        codes = ";".join(_CODES[style] for style in styles)
        return f"\x1b[{codes}m{text}\x1b[0m"

    def line(self, text: str = "", *styles: str) -> None:
        """One line, never wrapped; control characters in it are made visible."""
        self.stream.write(self.style(visible(text), *styles) + "\n")

    def paragraph(self, text: str, *styles: str, indent: str = "", hang: str = "") -> None:
        """Text wrapped to the width; `indent` before its first line, `hang` before the others."""
        room = None if self.width is None else self.width - len(hang or indent)
        for number, part in enumerate(wrapped(visible(text), room)):
            before = hang or indent if number else indent
            self.stream.write(visible(before) + self.style(part, *styles) + "\n")

    def raw(self, text: str) -> None:
        """Text that is already as it should be: YAML, JSON, a script."""
        self.stream.write(text)

    def issue(self, issue: Issue) -> None:
        """One issue on one line, as `str(issue)`."""
        text = visible(str(issue))
        word = f"{issue.level}:"
        self.stream.write(text.replace(word, self.style(word, _LEVELS[issue.level]), 1) + "\n")

    def note(self, word: str, text: str) -> None:
        """`word: text`, the word styled by what it is: `error`, `warning`, `hint`."""
        styles = {"error": ("bold", "red"), "warning": ("yellow",), "hint": ("cyan",)}.get(word, ())
        self.stream.write(f"{self.style(word + ':', *styles)} {visible(text)}\n")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], *, indent: str = "") -> None:
        """Aligned columns; on a terminal wrapped to its width, or as records where it is too narrow."""
        rows = [[visible(cell) for cell in row] for row in rows]
        columns = list(zip(head, *rows, strict=True))
        fitting = _fitted(columns, None if self.width is None else self.width - len(indent))
        if fitting is None:
            self._records(head, rows, indent)
            return
        self._row(head, fitting, indent, "bold")
        for row in rows:
            self._row(row, fitting, indent)

    def _row(self, row: Sequence[str], widths: Sequence[int], indent: str, *styles: str) -> None:
        cells = [wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
        for number in range(max(map(len, cells))):
            parts = [cell[number] if number < len(cell) else "" for cell in cells]
            padded = [
                self.style(part, *styles) + " " * (width - display_width(part))
                for part, width in zip(parts, widths, strict=True)
            ]
            self.stream.write((indent + (" " * _GAP).join(padded)).rstrip() + "\n")

    def _records(self, head: Sequence[str], rows: Sequence[Sequence[str]], indent: str) -> None:
        label = max(map(len, head[1:]), default=0)
        for row in rows:
            self.paragraph(row[0], "bold", indent=indent, hang=f"{indent}  ")
            for name, cell in zip(head[1:], row[1:], strict=True):
                if cell not in {"", NOTHING}:
                    start = f"{indent}  {name:{label}}  "
                    self.paragraph(cell, indent=start, hang=" " * len(start))


def out(settings: Settings) -> Screen:
    """Standard output."""
    return Screen(sys.stdout, settings.color)


def err(settings: Settings) -> Screen:
    """Standard error; what stands on standard output by now comes before it."""
    sys.stdout.flush()
    return Screen(sys.stderr, settings.color)


def emit_json(data: object) -> None:
    """One JSON document on standard output."""
    import json

    sys.stdout.write(json.dumps(data, indent=2, default=str) + "\n")


def emit_yaml(data: object) -> None:
    """One YAML document on standard output, in the order given, long values on one line."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text = yaml.dump(
        _plain(data),
        Dumper=dumper,
        sort_keys=False,
        allow_unicode=True,
        width=2**30,
        default_flow_style=False,
    )
    sys.stdout.write(text)


def show_issues(settings: Settings, issues: Iterable[Issue], *, unmanaged: bool = False) -> bool:
    """Issues on standard error, one line each; whether one of them is an error.

    Providers that are left alone are only counted, unless `unmanaged`, or the user wants to know more.
    """
    screen = err(settings)
    wrong = unknown = False
    left_alone = 0
    for issue in issues:
        if issue.code == "unknown-type" and issue.level == "warning" and not (unmanaged or settings.verbose):
            left_alone += 1
            continue
        screen.issue(issue)
        wrong = wrong or issue.level == "error"
        unknown = unknown or (issue.code == "unknown-type" and issue.level == "error")
    if unknown:
        screen.note("hint", "--skip-unknown leaves providers of unknown types alone")
    if left_alone:
        screen.note("hint", f"{plural(left_alone, 'provider')} not managed, of unknown type; -v says which")
    return wrong


def value_text(value: object) -> str:
    """A value as a person writes it in YAML, on one line.

    >>> [value_text(each) for each in ("http://x", "0123", "", None, True, {"a": [1]})]
    ['http://x', '"0123"', '""', 'null', 'true', '{"a": [1]}']
    """
    import json

    if isinstance(value, str) and not _reads_otherwise(value):
        return value
    return json.dumps(_plain(value), ensure_ascii=False, default=str)


def local_time(at: str) -> str:
    """A moment (UTC, ISO 8601) as the person who looks has it on the clock, with the zone."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    except ValueError:
        return at


def plural(count: int, noun: str) -> str:
    """A count and its noun.

    >>> plural(1, "provider"), plural(2, "provider")
    ('1 provider', '2 providers')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def visible(text: str) -> str:
    r"""The text with control characters written out.

    >>> visible("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def display_width(text: str) -> int:
    """How many columns a text takes on a terminal.

    >>> display_width("abc"), display_width("日本")
    (3, 4)
    """
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def wrapped(text: str, width: int | None) -> list[str]:
    """The text in lines no wider than `width`, broken at spaces where that is possible."""
    if width is None or display_width(text) <= width:
        return [text]
    from textwrap import wrap

    return wrap(text, max(width, _NARROWEST), break_on_hyphens=False) or [""]


def _fitted(columns: Sequence[Sequence[str]], room: int | None) -> list[int] | None:
    """A width for each column: the widest give way, but no word is broken. `None`: it cannot be."""
    natural = [max(map(display_width, column)) for column in columns]
    if room is None:
        return natural
    room -= _GAP * (len(columns) - 1)
    least = [_least(column, width) for column, width in zip(columns, natural, strict=True)]
    for cap in range(max(natural), 0, -1):
        widths = [max(low, min(high, cap)) for low, high in zip(least, natural, strict=True)]
        if sum(widths) <= room:
            return widths
    return None


def _least(column: Sequence[str], width: int) -> int:
    """How narrow a column may become: its longest word, and room for a few words of prose."""
    words = max((display_width(word) for cell in column for word in cell.split()), default=0)
    return max(words, min(width, _PROSE))


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:
        return False


def _wants_color(choice: str, *, live: bool) -> bool:
    """`--color`, then NO_COLOR (https://no-color.org), then FORCE_COLOR, then whether it is a terminal."""
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    forced = os.environ.get("FORCE_COLOR")
    if forced:
        return forced not in {"0", "false"}
    return live


def _width(stream: TextIO) -> int | None:
    try:
        given = int(os.environ.get("COLUMNS", ""))
    except ValueError:
        given = 0
    if given > 0:
        return given
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


_WORDS = frozenset({"", "~", "null", "true", "false", "yes", "no", "on", "off"})


def _reads_otherwise(text: str) -> bool:
    """Whether YAML would read the bare text as something else, or a person would miss its ends."""
    if text.lower() in _WORDS or text != text.strip() or not text.isprintable():
        return True
    return text[0] in "{[\"'" or text.replace(".", "", 1).lstrip("+-").isdecimal()


def _plain(value: Any) -> Any:
    """Read-only mappings and tuples as what a dumper knows."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, str):
        return str(value)
    return value
