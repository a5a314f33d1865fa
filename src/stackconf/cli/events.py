"""`stackconf apply --events`: what happens, one JSON object a line, as it happens.

A thread of its own writes. A reader that is slow or gone neither holds up an apply nor stops it;
that it is gone is the exit code's business, once the apply is over.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread
from time import sleep
from typing import TYPE_CHECKING, Any, BinaryIO

from stackconf.cli.failures import error_data
from stackconf.errors import ApplyError, StackconfError
from stackconf.redact import described
from stackconf.shapes.reports import event_data

if TYPE_CHECKING:
    from stackconf.apply import Progress


class Lines:
    """Standard output, a line at a time."""

    def __init__(self) -> None:
        sys.stdout.flush()
        buffer = sys.stdout.buffer
        # Not the buffered stream: a thread that waits in one holds a lock that exiting needs.
        self._stream: BinaryIO = getattr(buffer, "raw", buffer)
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._error: OSError | None = None
        self._thread = Thread(target=self._write, name="stackconf-lines", daemon=True)
        self._thread.start()

    def say(self, data: Mapping[str, Any]) -> None:
        """Write one object on a line of its own, soon. Never raises, never waits."""
        self._queue.put(json.dumps(data, default=str).encode() + b"\n")

    def progress(self, progress: Progress) -> None:
        """Say that a step begins or ends; an `Observer`."""
        self.say(event_data(progress))

    def close(self) -> None:
        """Wait until everything is written. Raises the `OSError` that kept it from being so."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        while (line := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._whole(line)
                except OSError as error:
                    self._error = error

    def _whole(self, line: bytes) -> None:
        while line:
            count = self._stream.write(line)
            line = line[count or 0 :]
            if not count:  # a pipe that does not block, and is full
                sleep(0.01)


@contextmanager
def streamed() -> Iterator[Lines]:
    """The lines while the block runs; the last one says what it raised."""
    lines = Lines()
    try:
        yield lines
    except ApplyError:
        raise
    except StackconfError as error:
        lines.say({"event": "error", **error_data(error)})
        raise
    except Exception as error:
        lines.say({"event": "error", "error": described(error), "issues": []})
        raise
    finally:
        lines.close()
