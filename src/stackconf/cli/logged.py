"""What a long-running command tells while it runs: one line each on standard error, with the time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackconf.cli.options import Settings

_FORMAT = "%(asctime)s %(levelname)s %(message)s"


@contextmanager
def logged(settings: Settings) -> Iterator[None]:
    """Show what stackconf logs; with `--verbose` also what is for those who look for a fault."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines(_FORMAT))
    logger = logging.getLogger("stackconf")
    before = logger.level
    logger.setLevel(logging.DEBUG if settings.verbose else logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Lines(logging.Formatter):
    """Records on one line each, whatever is in them."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        record.levelname = record.levelname.lower()
        text = super().format(record)
        return " ".join(text.splitlines())
