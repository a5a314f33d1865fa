"""What a long-running command tells while it runs: one line each on standard error, with the time."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import localtime, strftime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stackconf.cli.options import Settings

_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_LOGGERS = ("stackconf", "uvicorn", "asyncio")
"""Ours, and those of what a server runs in, which tell no more than warnings."""


@contextmanager
def logged(settings: Settings, form: str = "text") -> Iterator[None]:
    """Show what stackconf logs; with `--verbose` also what is for those who look for a fault. `form` is
    `text` or `json`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if form == "json" else _Lines(_FORMAT))
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(each.level, each.propagate) for each in loggers]
    for each in loggers:
        each.setLevel(logging.WARNING)
        each.addHandler(handler)
        each.propagate = False  # a runtime's server has handlers of its own at the root
    loggers[0].setLevel(logging.DEBUG if settings.verbose else logging.INFO)
    try:
        yield
    finally:
        for each, (level, propagate) in zip(loggers, before, strict=True):
            each.removeHandler(handler)
            each.setLevel(level)
            each.propagate = propagate


class _Lines(logging.Formatter):
    """Records on one line each, whatever is in them, with nothing in it that a terminal would obey. One
    of several requests has a line for each.
    """

    _second = 0
    _shown_second = ""

    def format(self, record: logging.LogRecord) -> str:
        """The line, or the lines."""
        record.levelname = record.levelname.lower()
        requests = getattr(record, "requests", None)
        if requests is None:
            return _shown(super().format(record))
        return "\n".join(f"{self._at(at)} {record.levelname} {_shown(text)}" for at, _, text in requests)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802, ARG002
        """The time as `2026-11-22 10:15:07,310`."""
        return self._at(record.created)

    def _at(self, seconds: float) -> str:
        whole = int(seconds)
        if whole != self._second:
            self._second, self._shown_second = whole, strftime("%Y-%m-%d %H:%M:%S", localtime(whole))
        return f"{self._shown_second},{int((seconds - whole) * 1000):03d}"


class _Json(logging.Formatter):
    """Records as JSON, one on a line; a request with all that is known of it beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, or the lines."""
        lines = getattr(record, "requests", None) or [(record.created, {}, record.getMessage())]
        return "\n".join(self._line(record.levelname.lower(), *each) for each in lines)

    def _line(self, level: str, seconds: float, about: dict[str, Any], text: str) -> str:
        at = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return json.dumps({"at": at, "level": level, "message": _shown(text), **about}, default=str)


def _shown(text: str) -> str:
    r"""A text on one line, without control characters.

    >>> _shown("one\n  two\x1b[31m")
    'one two\\x1b[31m'
    """
    if text.isprintable():
        return text
    line = " ".join(each.strip() for each in text.splitlines())
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in line
    )
