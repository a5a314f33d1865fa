"""What a long-running command tells while it runs: one line each on standard error, with the time."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

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
    before = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.WARNING)
        each.addHandler(handler)
    loggers[0].setLevel(logging.DEBUG if settings.verbose else logging.INFO)
    try:
        yield
    finally:
        for each, level in zip(loggers, before, strict=True):
            each.removeHandler(handler)
            each.setLevel(level)


class _Lines(logging.Formatter):
    """Records on one line each, whatever is in them, with nothing in it that a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        record.levelname = record.levelname.lower()
        return _shown(super().format(record))


class _Json(logging.Formatter):
    """Records as JSON, one on a line; a request with all that is known of it beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        data = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": _shown(record.getMessage()),
            **getattr(record, "request", {}),
        }
        return json.dumps(data, default=str)


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
