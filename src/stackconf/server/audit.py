"""The audit trail: a line of JSON for each request that would change something, also a refused one.

It is written before the answer goes out, and is on the disk by then where something was changed. What
the change was is in the store, under the revision or the attempt that the line names; no value is here.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from stackconf.errors import StackconfError

if TYPE_CHECKING:
    from starlette.types import Message

_log = logging.getLogger(__name__)
_MOST_BODY = 16 * 2**20
_NAMED = ("name", "result", "revision", "restores", "attempt", "state", "apply")


class Audit:
    """The file that the lines are added to; another program may move it away at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._lock = Lock()

    def open(self) -> None:
        """Open the file, which is made for its owner alone. Raises `StackconfError`."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._follow()
        except OSError as error:
            reason = f"cannot write the audit trail {self._path}: {error.strerror}"
            raise StackconfError(f"{reason}; give another --audit-file") from error

    def write(self, line: dict[str, Any], *, durable: bool) -> None:
        """Add a line; a failure to do so is logged, since what it tells of has happened."""
        data = json.dumps(line, default=str).encode() + b"\n"
        try:
            with self._lock:
                self._follow()
                os.write(self._file, data)
                if durable:
                    os.fsync(self._file)
        except OSError as error:
            _log.error("cannot write the audit trail %s: %s", self._path, error.strerror)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            self._file = -1

    def _follow(self) -> None:
        """Have the file open that is at the path now."""
        if self._file >= 0:
            ours = os.fstat(self._file)
            try:
                there = self._path.stat()
            except FileNotFoundError:
                there = None
            if there is not None and (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                return
            os.close(self._file)
            self._file = -1
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


class Note:
    """What comes of one request: read from its answer, as it goes out."""

    def __init__(self) -> None:
        self._status = 0
        self._streams = False
        self._body = bytearray()
        self._found: dict[str, Any] = {}
        self.over = False

    def saw(self, message: Message) -> None:
        """Look at a part of the answer; `over` is whether it was the last one."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            types = [value for name, value in message["headers"] if name.lower() == b"content-type"]
            self._streams = bool(types) and types[0].startswith(b"text/event-stream")
            return
        body = message.get("body", b"")
        if self._streams:
            self._event(body)
        elif len(self._body) + len(body) <= _MOST_BODY:
            self._body += body
        self.over = not message.get("more_body", False)

    def _event(self, text: bytes) -> None:
        """An event of a stream is one part; the last ones say how it went."""
        kind, found, data = text.partition(b"\ndata: ")
        if found and kind.startswith((b"event: report", b"event: problem")):
            self._found |= _outcome(data)

    def line(self, about: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """The line, and whether something may have changed."""
        found = self._found if self._streams else _outcome(bytes(self._body))
        status = found.pop("status", None) or self._status
        if not status or (self._streams and not found):
            outcome = "unknown"  # who asked went away before the end
        elif status < HTTPStatus.BAD_REQUEST:
            outcome = "begun" if status == HTTPStatus.ACCEPTED else "done"
        else:
            outcome = "refused" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "failed"
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"at": at, "outcome": outcome, **about, **found}, outcome != "refused"


def _outcome(body: bytes) -> dict[str, Any]:
    """What an answer says of what was changed: names and numbers only.

    >>> _outcome(b'{"name":"a","revision":3,"plan":{},"report":{"attempt":2,"state":"applied"}}')
    {'name': 'a', 'revision': 3, 'attempt': 2, 'state': 'applied'}
    """
    try:
        data = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(data, dict):
        return {}
    if "type" in data and "title" in data:
        report = data.get("report")
        problem = {"problem": str(data["type"]).rpartition("/")[2], "status": data.get("status")}
        return {**problem, **_named(report)}
    return {**_named(data), **_named(data.get("report"))}


def _named(data: object) -> dict[str, Any]:
    found = data if isinstance(data, dict) else {}
    return {name: found[name] for name in _NAMED if isinstance(found.get(name), (str, int))}
