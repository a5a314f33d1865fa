"""One apply at a time: a lock on a file, which the kernel takes away from a process that is killed.

The lock is `flock`'s and the file only says who holds it, so a file that was left behind keeps
nobody out. It holds between threads as between processes, because each holder opens the file anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep

from stackconf.errors import ApplyBusy
from stackconf.store.base import Holder

_GLANCE = 0.2
"""Seconds for which even the impatient try: a reader that asks who holds it does so for a moment."""

_NOBODY_KNOWN = Holder(0, "", "")

_held: set[int] = set()
"""The open locks of this process. A child that it forks must not hold them longer than it does."""


@contextmanager
def exclusive(path: Path, actor: str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock. Raises `ApplyBusy` when another holds it after `wait` seconds, `OSError` when
    the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    _held.add(descriptor)
    try:
        _acquire(descriptor, path, wait)
        try:
            _say_who(descriptor, Holder(os.getpid(), actor, datetime.now(UTC).isoformat(timespec="seconds")))
            yield
        finally:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def holder(path: Path) -> Holder | None:
    """Who holds the lock, or `None`; a process whose name cannot be read has number 0."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _who(descriptor)
    finally:
        os.close(descriptor)
    return None


def _acquire(descriptor: int, path: Path, wait: float) -> None:
    import fcntl

    until = monotonic() + max(wait, _GLANCE)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if monotonic() > until:
                raise ApplyBusy(_busy(_who(descriptor), path)) from error
            sleep(0.02)
        else:
            return


def _busy(who: Holder, path: Path) -> str:
    by = f" by {who.actor}" if who.actor else ""
    since = f" since {who.since[:19].replace('T', ' ')} UTC" if who.since else ""
    process = f" (process {who.pid})" if who.pid else f" (it holds {path})"
    return f"another apply of this stack is running{by}{since}{process}; wait for it to end"


def _say_who(descriptor: int, who: Holder) -> None:
    os.ftruncate(descriptor, 0)
    text = json.dumps({"pid": who.pid, "actor": who.actor, "since": who.since})
    os.pwrite(descriptor, text.encode(), 0)


def _who(descriptor: int) -> Holder:
    """Who wrote their name last. That is nobody if they were killed, and whoever has the lock now has
    not written theirs yet.
    """
    try:
        data = json.loads(os.pread(descriptor, 4096, 0))
        who = Holder(int(data["pid"]), str(data["actor"]), str(data["since"]))
    except (ValueError, KeyError, TypeError):  # it is being written just now
        return _NOBODY_KNOWN
    return who if _is_alive(who.pid) else _NOBODY_KNOWN


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def _let_go_in_child() -> None:
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)
