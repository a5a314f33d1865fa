"""A process that hosts a stack and answers over HTTP until it is told to end."""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

from attrs import evolve

from stackconf.errors import ApplyBusy, InvalidConfig, StackconfError
from stackconf.redact import described
from stackconf.server.hangups import Hangups
from stackconf.server.hosted import Hosted
from stackconf.server.lines import told_of
from stackconf.server.listening import bound, checked, of_runtime
from stackconf.server.retrying import keep_retrying
from stackconf.server.threads import in_thread

if TYPE_CHECKING:
    from types import FrameType

    from pydantic import BaseModel
    from starlette.types import ASGIApp

    from stackconf.runtimes import RuntimeServer
    from stackconf.server.applies import Running
    from stackconf.server.audit import Audit
    from stackconf.server.hosted import Opening
    from stackconf.server.listening import Listening

_LAST_ANSWERS = 5.0
"""Seconds for answers on their way out after the last apply has ended."""

_LOOK = 0.5
"""Seconds in which a thread that waits for something else notices that the process ends."""

_log = logging.getLogger(__name__)


def serve(opening: Opening, listening: Listening, *, apply: bool = True) -> None:
    """Host a stack until the process is told to end (SIGINT, SIGTERM).

    With `apply` it begins with one, which may fail: how it went is in `/v1/status`, and what cannot
    be reached is tried again. SIGHUP reads the stack file again. At the end an apply that runs has
    its grace, and is taken back after it. A stack with a runtime is served by the runtime's server,
    where its file says, with the Configuration API beside that server's own routes.

    Raises `InvalidConfig` where the file cannot be read, or is wrong for its runtime, `ApplyBusy` where
    another process hosts the stack, `StackconfError` where the address cannot be had or the runtime's
    server does not start.
    """
    try:
        import stackconf.server.listener  # noqa: F401 (and with it uvicorn)
    except ImportError as error:
        raise InvalidConfig("the server needs more packages: pip install 'stackconf[server]'") from error

    with _hangups() as asked, _uncollected() as started:
        hosted = Hosted(opening)
        try:
            runtime = hosted.runtime_server()
            where = checked(listening) if runtime is None else of_runtime(listening, runtime.listens)
            turns = _Turns(hosted, where, runtime, started, apply=apply)
            _serve(hosted, where, asked, runtime, turns)
        finally:
            hosted.close()
    _log.info("ended")


def _serve(
    hosted: Hosted, listening: Listening, asked: Hangups, runtime: RuntimeServer | None, turns: _Turns
) -> None:
    from stackconf.server.audit import Audit
    from stackconf.server.listener import Listener

    def ending() -> None:
        Thread(target=hosted.applies.close, args=(listening.grace,), name="stackconf-ending").start()

    audit = None if listening.audit is None else Audit(listening.audit)
    with bound(listening) as listener, _application(hosted, listening, runtime, audit) as app:
        turns.url = evolve(listening, port=listener.getsockname()[1]).url
        seconds = listening.grace + _LAST_ANSWERS
        server = Listener(
            app,
            ending=ending,
            seconds=seconds,
            tls=listening.tls,
            first=turns.first,
            last=turns.last,
            websockets=runtime is not None,
        )

        def reload() -> None:
            hosted.reload()
            try:
                server.reload()
            except InvalidConfig as error:
                _log.error("the certificate was not taken, the old one goes on: %s", error)

        with (
            server.signals(),
            hosted.hosting(turns.url),
            _reloading(reload, asked),
            _retrying(hosted, turns.begun),
        ):
            if audit is not None:
                audit.open()
            server.run(sockets=[listener])
            if not hosted.applies.close(listening.grace):
                _log.warning("the apply that ran was taken back")


class _Turns:
    """What is done on the event loop before connections are taken, and after the last one is gone."""

    def __init__(
        self,
        hosted: Hosted,
        listening: Listening,
        runtime: RuntimeServer | None,
        started: Callable[[], None],
        *,
        apply: bool,
    ) -> None:
        self.url = ""
        self.begun = Event()
        """Set once everything runs."""
        self._hosted, self._runtime, self._started = hosted, runtime, started
        self._grace, self._apply = listening.grace, apply
        self._configs = {} if runtime is None else hosted.wanted()

    async def first(self) -> None:
        """Have everything run that connections are for. Raises `StackconfError`."""
        hosted, runtime = self._hosted, self._runtime
        if runtime is None or await _started(runtime, hosted, self._configs):
            hosted.begin_anew()
        self._started()
        self.begun.set()
        if self._apply:
            _begin(hosted)
        _log.info("serving %s at %s", hosted.name, self.url)

    async def last(self) -> None:
        """End a runtime's server, after the apply that changes it."""
        if self._runtime is not None:
            await in_thread(lambda: self._hosted.applies.close(self._grace))
            await self._runtime.stop()


async def _started(runtime: RuntimeServer, hosted: Hosted, configs: Mapping[str, BaseModel]) -> bool:
    """Start a runtime's server; whether it runs with what is wanted. Where it refuses that, it is
    started with what was applied last, if that is something else.
    """
    try:
        await runtime.start(configs)
    except StackconfError as error:
        last = hosted.last_applied()
        if last is None or last == configs:
            raise
        _log.error("%s", error)
        await runtime.start(last)
        _log.warning("%s was started with what was applied last", hosted.name)
        return False
    return True


@contextmanager
def _application(
    hosted: Hosted, listening: Listening, runtime: RuntimeServer | None, audit: Audit | None
) -> Iterator[ASGIApp]:
    """The Configuration API with its log and audit trail, beside a runtime's server if there is one."""
    from stackconf.server.access import Rules
    from stackconf.server.app import create_app, own_paths
    from stackconf.server.beside import PREFIX, Beside
    from stackconf.server.requests import Logged

    only_here = not listening.tokens and not listening.only_here
    rules = Rules(listening.tokens, listening.names, only_here=only_here)
    ours = Logged(create_app(hosted, rules, prefix=None if runtime is None else PREFIX), audit)
    theirs = None if runtime is None or runtime.logs_requests else Logged(runtime)
    try:
        yield ours if runtime is None else Beside(ours, theirs or runtime, own_paths())
    finally:
        for each in (ours, theirs):
            if each is not None:
                each.close()
        if audit is not None:
            audit.close()


def _begin(hosted: Hosted) -> None:
    try:
        running = hosted.apply(actor="serve")
    except ApplyBusy:  # it is told to end before it has begun
        return
    Thread(target=_tell, args=(running,), name="stackconf-first-apply").start()


def _tell(running: Running) -> None:
    try:
        report = running.report()
    except StackconfError as error:
        _log.error("%s", error)
    else:
        _log.info("%s", told_of(report))


@contextmanager
def _uncollected() -> Iterator[Callable[[], None]]:
    """Until what is yielded is called, no garbage is looked for: what a process imports and makes when it
    starts stays, and looking through all of it again and again takes a sixth of a runtime's start.
    """

    def started() -> None:
        gc.freeze()
        gc.enable()

    gc.disable()
    try:
        yield started
    finally:
        gc.enable()


@contextmanager
def _hangups() -> Iterator[Hangups]:
    """What SIGHUP asks for. From here on it ends no process, also while that still begins."""
    asked = Hangups()

    def again(_number: int, _frame: FrameType | None) -> None:
        asked.ask()

    before = signal.signal(signal.SIGHUP, again)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGHUP, before)


@contextmanager
def _reloading(reload: Callable[[], None], asked: Hangups) -> Iterator[None]:
    """Read the files again whenever it is asked for: once for all who asked meanwhile."""
    stop = Event()

    def work() -> None:
        while not stop.is_set():
            if asked.wait(_LOOK):
                try:
                    reload()
                except Exception as error:  # noqa: BLE001 (the next SIGHUP is to be heard)
                    _log.error("reading the stack file again: %s", described(error))

    thread = Thread(target=work, name="stackconf-reload")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _retrying(hosted: Hosted, begun: Event) -> Iterator[None]:
    stop = Event()

    def work() -> None:
        while not stop.is_set():
            if begun.wait(_LOOK):
                keep_retrying(hosted, stop)

    thread = Thread(target=work, name="stackconf-retrying")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
