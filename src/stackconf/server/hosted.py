"""The stack that a server hosts: read under a lock, applied beside that, told in bytes made once.

Two views of one stack share a file, a store and the plugins: the one in front answers and
registers, the other applies, so that a long apply keeps nobody waiting.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from threading import RLock
from typing import TYPE_CHECKING, Any

from attrs import frozen

from stackconf.errors import Conflict
from stackconf.hardware.discovery import fingerprint
from stackconf.server.applies import Applies, Running

if TYPE_CHECKING:
    from starlette.requests import Request

    from stackconf.plan import Plan
    from stackconf.stack import Stack


@frozen
class Rendered:
    """A body as it goes out, and its entity tag: `"REVISION-DIGEST"`, quotes included."""

    body: bytes
    etag: str
    revision: int


def rendered(data: object, revision: int) -> Rendered:
    """Data as the body of an answer about a revision.

    >>> rendered({"providers": {}}, 3).body
    b'{"providers":{}}'
    """
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str)
    body = text.encode()
    return Rendered(body, f'"{revision}-{blake2b(body, digest_size=8).hexdigest()}"', revision)


class Hosted:
    """One stack in one process. Any thread may call."""

    def __init__(self, opening: Callable[[], Stack]) -> None:
        self._opening = opening
        self._lock = RLock()
        self._front = opening()
        self._generation = 0
        self._cache: dict[str, tuple[tuple[int, int], Rendered]] = {}
        self.applies = Applies()

    @contextmanager
    def stack(self) -> Iterator[Stack]:
        """The stack in front, for as long as nobody else is to have it."""
        with self._lock:
            yield self._front

    @property
    def revision(self) -> int:
        """The head revision, as of now."""
        return self._front.store.head()

    def once(self, name: str, make: Callable[[Stack], object]) -> Rendered:
        """A body that is the same until another revision is there, or something was applied."""
        with self._lock:
            found = self.at_hand(name)
            if found is not None:
                return found
            mark = (self._front.revision, self._generation)
            made = rendered(make(self._front), mark[0])
            if self._front.revision == mark[0]:
                self._cache[name] = mark, made
            return made

    def at_hand(self, name: str) -> Rendered | None:
        """That body, if it has been made; what is asked for most is answered without a thread."""
        known = self._cache.get(name)
        if known is None or known[0] != (self._front.store.head(), self._generation):
            return None
        return known[1]

    def expect(self, revision: int) -> None:
        """Raise `Conflict` where the head is another revision."""
        head = self.revision
        if head != revision:
            raise Conflict(revision, head)

    def apply(
        self, plan: Plan | None = None, *, actor: str, require_healthy: bool = False, wait: float = 0.0
    ) -> Running:
        """Begin an apply of the head revision. Raises `ApplyBusy` as `Applies.start` does."""

        def run(stack: Stack, observer: Any) -> Any:
            return stack.apply(plan, require_healthy=require_healthy, actor=actor, observer=observer)

        return self._begin(run, actor, wait)

    def recover(self, *, actor: str, wait: float = 0.0) -> Running:
        """Begin to take back what an attempt that was cut off left behind."""

        def run(stack: Stack, observer: Any) -> Any:
            return stack.recover(actor=actor, observer=observer)

        return self._begin(run, actor, wait)

    def _begin(self, run: Callable[[Stack, Any], Any], actor: str, wait: float) -> Running:
        def work(observer: Any) -> Any:
            behind = self._front.beside()
            try:
                return run(behind, observer)
            finally:
                self._applied(behind)

        return self.applies.start(work, actor, wait=wait)

    def _applied(self, behind: Stack) -> None:
        with self._lock:
            if fingerprint(behind.hardware) != fingerprint(self._front.hardware):
                self._front.manager.look_again()
            self._generation += 1

    def close(self, grace: float) -> bool:
        """Let a running apply end, or take it back after `grace` seconds; whether it ended by itself."""
        ended = self.applies.close(grace)
        with self._lock:
            self._front.close()
        return ended


def hosted_of(request: Request) -> Hosted:
    """The stack that the application of a request hosts."""
    hosted: Hosted = request.app.state.stackconf
    return hosted
