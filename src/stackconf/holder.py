"""What the providers of this process run on: exchanged by an apply, and put back by its undo.

For plugins whose provider lives in the process itself: an engine, a connection pool, a client. A
provider on a server asks that server instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from threading import RLock
from typing import Generic, TypeVar

from attrs import define, field, frozen

from stackconf.errors import StackconfError
from stackconf.types import Applied

T = TypeVar("T")

_log = logging.getLogger(__name__)


@define(eq=False)
class _Entry(Generic[T]):
    """A value in force or retired; `ended` is set once it has been closed."""

    value: T
    check: Callable[[], str | None] | None
    ended: bool = False


class Holder(Generic[T]):
    """One value for each provider of this process, keyed `api/provider_id`.

    What a swap replaces is retired and not closed: work that began in it is finished, and an undo
    has it back exactly as it was. The provider's next change closes it.

    `close` ends a value that is no longer needed. `discard` ends one that an undo took back,
    where that differs (a file that it made is removed); it is `close` where it is not given.
    `install` is told `(provider, value)` whenever another value is about to be in force, `None`
    for none, for what has to be set beyond the holder. Any thread may call.

    >>> pools: Holder[list[int]] = Holder(close=list.clear)
    >>> first = pools.swap("inference/tiny", [1, 2])
    >>> change = pools.swap("inference/tiny", [3])
    >>> pools.current("inference/tiny"), change.check()
    ([3], None)
    >>> change.undo()
    >>> pools.current("inference/tiny"), change.check_undo()
    ([1, 2], None)
    """

    def __init__(
        self,
        *,
        close: Callable[[T], object] | None = None,
        discard: Callable[[T], object] | None = None,
        install: Callable[[str, T | None], object] | None = None,
    ) -> None:
        self._close = close or _nothing
        self._discard = discard or self._close
        self._install = install or _nothing
        self._lock = RLock()
        self._in_force: dict[str, _Entry[T]] = {}
        self._retired: dict[str, _Entry[T]] = {}

    @property
    def providers(self) -> tuple[str, ...]:
        """The providers that have a value in force, in the order they got one first."""
        return tuple(self._in_force)

    def current(self, provider: str) -> T | None:
        """The value in force for a provider, or `None`."""
        entry = self._in_force.get(provider)
        return None if entry is None else entry.value

    def swap(self, provider: str, new: T | None, *, check: Callable[[], str | None] | None = None) -> Swap[T]:
        """Put `new` in force; `None` takes the provider out.

        `check` returns what is wrong with `new`, or `None`. It is kept with it, and asked as well when
        an undo has brought it back. Raises what `install` raises, and nothing is changed then.
        """
        fresh = None if new is None else _Entry(new, check)
        with self._lock:
            before = self._in_force.get(provider)
            self._put(provider, fresh)
            expired = self._retire(provider, before, fresh)
        if expired is not None:
            self._end(expired)
        return Swap(
            provider,
            before,
            fresh,
            now=lambda: self._in_force.get(provider),
            take_back=lambda: self._take_back(provider, before, fresh),
        )

    def clear(self) -> None:
        """Take every provider out and close everything: at the end of a process, and in tests."""
        with self._lock:
            entries = [*self._in_force.values(), *self._retired.values()]
            ended = {id(entry.value): entry for entry in entries}.values()
            for provider in self.providers:
                self._put(provider, None)
            self._retired.clear()
        for entry in ended:
            self._end(entry)

    def _put(self, provider: str, entry: _Entry[T] | None) -> None:
        before = self._in_force.get(provider)
        if entry is before:
            return
        try:
            self._install(provider, None if entry is None else entry.value)
        except BaseException:
            with suppress(Exception):  # the first failure is the one to tell
                self._install(provider, None if before is None else before.value)
            raise
        if entry is None:
            del self._in_force[provider]
        else:
            self._in_force[provider] = entry

    def _retire(self, provider: str, before: _Entry[T] | None, fresh: _Entry[T] | None) -> _Entry[T] | None:
        # A provider whose type changes leaves and joins in one apply, and both are undone if that
        # fails: a join after a leave keeps what the leave retired.
        if before is None:
            return None
        needed = [before.value] if fresh is None else [before.value, fresh.value]
        expired = self._retired.get(provider)
        self._retired[provider] = before
        if expired is None or any(expired.value is value for value in needed):
            return None
        return expired

    def _end(self, entry: _Entry[T]) -> None:
        """Close a value that nobody needs; its failure must not fail the change that replaced it."""
        if entry.ended:
            return
        entry.ended = True
        try:
            self._close(entry.value)
        except Exception as error:  # noqa: BLE001 - a plugin's own
            _log.warning("could not close %s: %s", type(entry.value).__name__, error)

    def _take_back(self, provider: str, before: _Entry[T] | None, fresh: _Entry[T] | None) -> None:
        with self._lock:
            now = self._in_force.get(provider)
            if now is before:
                return
            if now is not fresh:
                raise StackconfError(f"{_anew(provider)}; that is kept")
            if before is not None and before.ended:
                raise StackconfError(f"what {provider} of this process had before is closed by now")
            self._put(provider, before)
        if fresh is not None and (before is None or before.value is not fresh.value):
            fresh.ended = True
            self._discard(fresh.value)


@frozen(eq=False)
class Swap(Generic[T]):
    """One exchange of a provider's value, with what an `Applied` needs to say about it."""

    provider: str
    _before: _Entry[T] | None = field(repr=False)
    _fresh: _Entry[T] | None = field(repr=False)
    _now: Callable[[], _Entry[T] | None] = field(repr=False)
    _take_back: Callable[[], None] = field(repr=False)

    @property
    def before(self) -> T | None:
        """What was in force before, or `None`."""
        return None if self._before is None else self._before.value

    def undo(self) -> None:
        """Put back what was in force before, and discard what this swap brought. Again: nothing.

        Raises `StackconfError` where the provider has been configured anew since; that stays.
        """
        self._take_back()

    def check(self) -> str | None:
        """`None` while what this swap brought is in force and healthy, otherwise what is wrong."""
        return _wrong(self._fresh) if self._now() is self._fresh else _anew(self.provider)

    def check_undo(self) -> str | None:
        """`None` when what was in force before is so again and healthy, otherwise what is wrong."""
        if self._now() is not self._before:
            return f"{self.provider} of this process does not have again what it had before"
        return _wrong(self._before)

    def applied(self, detail: str, *, undo: Callable[[], object] | None = None) -> Applied:
        """What `apply_config` returns for this swap. `undo` is called once the swap is undone."""

        def both() -> None:
            self.undo()
            if undo is not None:
                undo()

        return Applied(detail, undo=both, check=self.check, check_undo=self.check_undo)


def _wrong(entry: _Entry[T] | None) -> str | None:
    return None if entry is None or entry.check is None else entry.check()


def _anew(provider: str) -> str:
    return f"{provider} of this process has been configured anew since"


def _nothing(*_: object) -> None:
    """Nothing to close or to set."""
