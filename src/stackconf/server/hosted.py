"""The stack that a server hosts: read under a lock, applied beside that, told in bytes made once.

Two views of one stack share a file, a store and the plugins: the one in front answers and
registers, the other applies, so that a long apply keeps nobody waiting.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from threading import Lock, RLock
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import evolve, frozen

from stackconf.errors import Conflict, InvalidConfig, StackconfError, StalePlan
from stackconf.hardware.discovery import fingerprint
from stackconf.packing import spelled
from stackconf.server.applies import Applies, Running

if TYPE_CHECKING:
    from pydantic import BaseModel
    from starlette.requests import Request

    from stackconf.plan import Plan
    from stackconf.runtimes import RuntimeServer
    from stackconf.stack import Stack
    from stackconf.store.base import Store


_MOVING = frozenset({"providers"})
"""Bodies that tell how an apply goes: while one runs, they are made anew each time."""

Mark: TypeAlias = tuple[int, int]
"""The head revision, and how often something else than it has changed."""

FileMark: TypeAlias = tuple[int, int, int] | None
"""What tells one content of a file from another, `None` where there is none."""


Opening: TypeAlias = Callable[["Store | None"], "Stack"]
"""Opens the stack anew: on the store given, or on its own."""

ONLY_AT_START = "only-at-start"
"""The code of what a runtime's server does not read again."""

_log = logging.getLogger(__name__)


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
    >>> rendered({"limit": float("inf")}, 3).body
    b'{"limit":"inf"}'
    """
    text = json.dumps(spelled(data), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    body = text.encode(errors="backslashreplace")
    return Rendered(body, f'"{revision}-{blake2b(body, digest_size=8).hexdigest()}"', revision)


@frozen
class _Kept:
    """A body that was made: of which state, and of which files that configurations refer to."""

    mark: Mark
    files: Mapping[str, FileMark]
    made: Rendered

    def holds(self, mark: Mark) -> bool:
        """Whether it would be the same now."""
        return self.mark == mark and all(_file_mark(name) == each for name, each in self.files.items())


@frozen
class FileState:
    """The stack file that is served: when it was read (UTC, ISO 8601), and what is wrong with the one
    that is there now, if that could not be taken.
    """

    read_at: str
    problem: StackconfError | None = None
    tried_at: str = ""


class Hosted:
    """One stack in one process. Any thread may call."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._lock = RLock()
        self._front = opening(None)
        self._glance = self._front.store.beside()
        """Tells the head to the event loop, which must not wait while a thread writes."""
        self._reloading = Lock()
        self.file = FileState(_now())
        self._generation = 0
        self._cache: dict[str, _Kept] = {}
        self.applies = Applies()

    @contextmanager
    def stack(self) -> Iterator[Stack]:
        """The stack in front, for as long as nobody else is to have it."""
        with self._lock:
            yield self._front

    def runtime_server(self) -> RuntimeServer | None:
        """The server of the stack's runtime, to be started; `None` where there is none."""
        with self._lock:
            return self._front.manager.registry.runtime_server()

    def wanted(self) -> dict[str, BaseModel]:
        """The effective configuration of each provider at the head revision. Raises `InvalidConfig`."""
        with self._lock:
            resolution = self._front.resolution
        if resolution.errors:
            count = len(resolution.errors)
            noun = "error" if count == 1 else "errors"
            raise InvalidConfig(f"{self.name} is not served: {count} {noun}", resolution.errors)
        found = {key: each.config for key, each in resolution.providers.items()}
        return {key: config for key, config in found.items() if config is not None}

    @property
    def revision(self) -> int:
        """The head revision, as of now."""
        return self._glance.head()

    def once(self, name: str, make: Callable[[Stack], object]) -> Rendered:
        """A body that is the same until another revision is there, something was applied, or a file to
        which a configuration refers is another one.
        """
        with self._lock:
            found = self.at_hand(name)
            if found is not None:
                return found
            front = self._front
            mark = (front.revision, self._generation)
            manager = front.manager
            referred = manager.files_referred(manager.overlays(front.store.read().state))
            files = {each: _file_mark(each) for each in referred}
            made = rendered(make(front), mark[0])
            if front.revision == mark[0]:
                self._cache[name] = _Kept(mark, files, made)
            return made

    def at_hand(self, name: str) -> Rendered | None:
        """That body, if it has been made; what is asked for most is answered without a thread."""
        kept = self._cache.get(name)
        if kept is None or (name in _MOVING and self.applies.running is not None):
            return None
        return kept.made if kept.holds((self._glance.head(), self._generation)) else None

    def reload(self) -> None:
        """Read the stack file again. One that is wrong changes nothing: the old one goes on, and
        `file` says what is wrong. Nothing is applied; the plan is logged. One at a time, so that the
        last one read counts.
        """
        with self._reloading:
            self._reload()

    def _reload(self) -> None:
        try:
            new = self._opened_anew()
            errors = new.resolution.errors
            if errors:
                raise InvalidConfig.of(errors)
            plan = new.plan()
        except StackconfError as error:
            self.file = evolve(self.file, problem=error, tried_at=_now())
            _log.error("the stack file was not taken, the old one goes on: %s", error)
            return
        with self._lock:
            self._front = new
            new.bind()
            self._generation += 1
            self.file = FileState(_now())
        would = ", ".join(f"{each.kind} {each.provider.key}" for each in plan.changes)
        _log.info("read %s again; an apply would: %s", self.name, would or "change nothing")
        for issue in new.issues:
            if issue.code == ONLY_AT_START:
                _log.warning("%s", issue)

    def _opened_anew(self) -> Stack:
        """The stack on its file as it is now, while the store does as the old one says."""
        with self._lock:
            try:
                return self._opening(self._front.store)
            finally:
                self._front.bind()

    @property
    def name(self) -> str:
        """The stack file's name."""
        return self._front.name

    @contextmanager
    def hosting(self, address: str) -> Iterator[None]:
        """Be the process that hosts it."""
        store = self._front.store
        with store.hosting(address):
            with self._lock:
                store.ensure()  # a plan in a file is for one store, which must have its name
                self._front.manager.load()
            yield

    def begin_anew(self) -> None:
        """Forget what lived in the process that hosted it before: it has ended with that."""
        with self._lock:
            self._front.manager.begin_hosting(self._front.store)

    def last_applied(self) -> dict[str, BaseModel] | None:
        """The configurations that were applied last, by provider; `None` where they cannot be had."""
        with self._lock:
            return self._front.manager.last_applied(self._front.store)

    def pending(self) -> tuple[str, ...]:
        """The providers that could not be reached when the head revision was applied."""
        return self._front.manager.pending(self._front.store)

    def retry(self, *, actor: str, expected_revision: int | None = None) -> Running:
        """Begin to try again what is pending. Raises as `apply` does."""

        def run(stack: Stack, observer: Any) -> Any:
            if expected_revision is not None:
                self.expect(expected_revision)
            return stack.manager.retry(stack.store, actor=actor, observer=observer)

        if expected_revision is not None:
            self.expect(expected_revision)
        return self._begin(run, actor, 0.0)

    def expect(self, revision: int) -> None:
        """Raise `Conflict` where the head is another revision."""
        head = self.revision
        if head != revision:
            raise Conflict(revision, head)

    def apply(
        self,
        plan: Plan | None = None,
        *,
        actor: str,
        require_healthy: bool = False,
        expected_revision: int | None = None,
        wait: float = 0.0,
    ) -> Running:
        """Begin an apply of the head revision, which is `expected_revision` where that is given. Raises
        `ApplyBusy` as `Applies.start` does, and `Conflict` as `expect` does: at once where it can be
        told, and otherwise, with nothing touched, out of the apply.
        """

        def apply(stack: Stack, given: Plan | None, observer: Any) -> Any:
            return stack.apply(given, require_healthy=require_healthy, actor=actor, observer=observer)

        def run(stack: Stack, observer: Any) -> Any:
            if expected_revision is None:
                return apply(stack, plan, observer)
            made = plan or self._planned(stack, expected_revision)
            try:
                return apply(stack, made, observer)
            except StalePlan:
                self.expect(expected_revision)
                if plan is not None:
                    raise
            # What moved is not the revision but the machine or a secret: nobody asked to be told.
            return apply(stack, self._planned(stack, expected_revision), observer)

        if expected_revision is not None:
            self.expect(expected_revision)
        return self._begin(run, actor, wait)

    def _planned(self, stack: Stack, expected_revision: int) -> Plan:
        made = stack.plan()
        if made.base_revision != expected_revision:
            raise Conflict(expected_revision, made.base_revision)
        return made

    def recover(self, *, actor: str, expected_revision: int | None = None, wait: float = 0.0) -> Running:
        """Begin to take back what an attempt that was cut off left behind. Raises as `apply` does."""

        def run(stack: Stack, observer: Any) -> Any:
            if expected_revision is not None:
                self.expect(expected_revision)
            return stack.recover(actor=actor, observer=observer)

        if expected_revision is not None:
            self.expect(expected_revision)
        return self._begin(run, actor, wait)

    def _begin(self, run: Callable[[Stack, Any], Any], actor: str, wait: float) -> Running:
        def work(observer: Any) -> Any:
            with self._lock:  # it may look at the machine first, as who reads may
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

    def close(self) -> None:
        """Close the stack, after the apply that runs; it is taken back."""
        self.applies.close(0.0)
        with self._lock:
            self._front.close()
            self._glance.close()


def _file_mark(name: str) -> FileMark:
    try:
        status = os.stat(name)  # noqa: PTH116 (asked with every read)
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def hosted_of(request: Request) -> Hosted:
    """The stack that the application of a request hosts."""
    hosted: Hosted = request.app.state.stackconf
    return hosted
