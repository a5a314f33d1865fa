"""What went wrong with a store, in one line: damage, a full disk, a folder that cannot be written,
another process that holds it.

SQLite's codes are from https://www.sqlite.org/rescode.html.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stackconf.errors import StoreDamaged, StoreError

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""`SQLITE_ERROR` is a table, a column or a trigger that is not there: our statements are fine."""
_DAMAGE_EXTENDED = {sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS}
_UNREACHABLE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}
_WAL_SUFFIX = "-wal"
_LOCKS = Path("/proc/locks")
_FIELDS = 8
_ROOM = 16 * 2**10
"""Bytes that the smallest change may need."""
_SMALLEST = 512
"""SQLite's smallest page, in bytes."""


class Unreadable(Exception):
    """What a row holds is not what a stackconf writes there."""


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Raise `Unreadable` when what is decoded here has another shape than was written."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise Unreadable(f"is damaged: {what} cannot be read") from error


def store_error(path: Path, error: Exception, *, waited: float = 0.0) -> StoreError:
    """The error that people see for one of SQLite, of the system, or of our own decoding."""
    if isinstance(error, Unreadable):
        return StoreDamaged(path, str(error))
    if not isinstance(error, sqlite3.Error):
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        return StoreError(f"store {path}: {reason}")
    text = " ".join(str(error).split())
    extended = getattr(error, "sqlite_errorcode", None)
    code = None if extended is None else extended & 0xFF
    if code in _DAMAGE or extended in _DAMAGE_EXTENDED or text.startswith("Could not decode"):
        return StoreDamaged(path, f"is damaged: {text}")
    if code == sqlite3.SQLITE_BUSY:
        text = _busy(path, waited)
    elif code == sqlite3.SQLITE_FULL:
        text = f"{text}; nothing was written: make room and try again"
    elif code in _UNREACHABLE:
        text = _why_unreachable(path) or text
    return StoreError(f"store {path}: {text}")


def refuse_torn(path: Path) -> None:
    """Raise `StoreDamaged` where to open the file would lose something.

    SQLite takes an empty file for a new database and removes the write-ahead log beside it; and a
    recovery that was cut off has to be ended before anything else.
    """
    if recovering_folder(path).exists():
        problem = "is being recovered, or a recovery of it was cut off"
        raise StoreDamaged(path, problem)
    if 0 < _size(path) < _SMALLEST and path.is_file():  # SQLite would take it for a new database too
        raise StoreDamaged(path, f"is damaged: {_size(path)} bytes are no store")
    if _size(path) == 0 and _size(path.with_name(path.name + _WAL_SUFFIX)) > 0:
        raise StoreDamaged(path, "is damaged: it is empty or gone, and its write-ahead log is still there")


def recovering_folder(path: Path) -> Path:
    """The folder in which a store is recovered. While it is there, nobody opens the store."""
    return path.with_name(f".{path.name}.recovering")


def lock_holders(path: Path) -> list[int]:
    """The other processes that hold a lock on a file, as far as `/proc/locks` tells.

    The file is not opened: to close it again would drop SQLite's own locks on it (POSIX locks belong
    to the process, https://www.sqlite.org/howtocorrupt.html section 2.2).
    """
    try:
        status = path.stat()
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    found: dict[int, None] = {}
    for line in lines:
        fields = line.replace("->", " ").split()
        if len(fields) >= _FIELDS and wanted in fields:
            with suppress(ValueError):
                found[int(fields[fields.index(wanted) - 1])] = None
    return [pid for pid in found if pid > 0 and pid != os.getpid()]


def why_unwritable(path: Path) -> str:
    """What speaks against writing to a store now, as far as can be told without trying; "" for nothing."""
    folder = next((each for each in path.parents if each.is_dir()), path.parent)
    try:
        status = os.statvfs(folder)
    except OSError as error:
        return f"store {path}: {error.strerror}"
    why = _why_unreachable(folder / path.name)
    if not why and status.f_bavail * status.f_frsize < _ROOM:
        why = f"the file system of {folder} is full"
    return f"store {path}: {why}" if why else ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _busy(path: Path, waited: float) -> str:
    holders = lock_holders(path.with_name(path.name + "-shm"))
    who = f"process {', '.join(map(str, holders))}" if holders else "another process"
    return f"it is locked: {who} holds it, and did not let go within {waited:g} s; try again"


def _why_unreachable(path: Path) -> str:
    """What the system has against it, where that can be told."""
    folder = path.parent
    if not folder.is_dir():
        return f"the folder {folder} is not there"
    flags = os.statvfs(folder).f_flag
    if flags & os.ST_RDONLY:
        return f"the file system of {folder} is read-only"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"the folder {folder} cannot be written"
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return "the file cannot be written"
    return ""
