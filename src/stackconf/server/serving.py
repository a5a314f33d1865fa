"""A process that hosts a stack and answers over HTTP until it is told to end."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from stackconf.errors import ApplyBusy, InvalidConfig, StackconfError
from stackconf.redact import described
from stackconf.server.hangups import Hangups
from stackconf.server.hosted import Hosted
from stackconf.server.lines import told_of
from stackconf.server.retrying import keep_retrying
from stackconf.server.tokens import TOKEN_VARIABLE, Tokens

if TYPE_CHECKING:
    from pathlib import Path
    from socket import socket
    from types import FrameType

    from stackconf.server.applies import Running
    from stackconf.server.hosted import Opening
    from stackconf.server.tls import Tls

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8420
GRACE_SECONDS = 30.0
_LAST_ANSWERS = 5.0
"""Seconds for answers on their way out after the last apply has ended."""

_LOOK = 0.5
"""Seconds in which a thread that waits for SIGHUP notices that the process ends."""

_log = logging.getLogger(__name__)


@frozen
class Listening:
    """Where a server listens and whom it serves, and how long a running apply may still take at the
    end (seconds). `hosts` are names under which it may be asked, beside this machine's own. `audit` is
    the file that gets a line for every change.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    grace: float = GRACE_SECONDS
    tokens: Tokens = field(factory=Tokens)
    hosts: frozenset[str] = frozenset()
    tls: Tls | None = None
    audit: Path | None = None

    @property
    def url(self) -> str:
        """The address as people write it.

        >>> Listening("::1").url
        'http://[::1]:8420'
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.tls is None else 'https'}://{host}:{self.port}"

    @property
    def names(self) -> frozenset[str]:
        """The names that a `Host` may have beside this machine's own; any, where it is empty."""
        return self.hosts | {self.host.lower()} if self.hosts else self.hosts


def serve(opening: Opening, listening: Listening, *, apply: bool = True) -> None:
    """Host a stack until the process is told to end (SIGINT, SIGTERM).

    With `apply` it begins with one, which may fail: how it went is in `/v1/status`, and what cannot
    be reached is tried again. SIGHUP reads the stack file again. At the end an apply that runs has
    its grace, and is taken back after it. Raises `InvalidConfig` where the file cannot be read,
    `ApplyBusy` where another process hosts the stack, `StackconfError` where the address cannot be
    had.
    """
    try:
        import stackconf.server.listener  # noqa: F401 (and with it uvicorn)
        from stackconf.server.access import is_loopback
    except ImportError as error:
        raise InvalidConfig("the server needs more packages: pip install 'stackconf[server]'") from error

    if not listening.tokens and not is_loopback(listening.host):
        problem = f"{listening.host} can be reached from other machines, so it needs a token"
        raise InvalidConfig(f"{problem}: give --token-file FILE, or set {TOKEN_VARIABLE}")
    if listening.tls is not None:
        listening.tls.check()
    elif not is_loopback(listening.host):
        _log.warning("%s is served without TLS: tokens and secrets can be read on the way", listening.host)
    with _hangups() as asked:
        _serve(Hosted(opening), listening, asked, apply=apply)
    _log.info("ended")


def _serve(hosted: Hosted, listening: Listening, asked: Hangups, *, apply: bool) -> None:
    from stackconf.server.access import Rules
    from stackconf.server.app import create_app
    from stackconf.server.audit import Audit
    from stackconf.server.listener import Listener
    from stackconf.server.requests import Logged

    audit = None if listening.audit is None else Audit(listening.audit)

    def ending() -> None:
        Thread(target=hosted.applies.close, args=(listening.grace,), name="stackconf-ending").start()

    try:
        with _bound(listening) as listener:
            url = evolve(listening, port=listener.getsockname()[1]).url
            app = create_app(hosted, Rules(listening.tokens, listening.names))
            seconds = listening.grace + _LAST_ANSWERS
            logged = Logged(app, audit)
            server = Listener(logged, ending=ending, seconds=seconds, tls=listening.tls)

            def reload() -> None:
                hosted.reload()
                try:
                    server.reload()
                except InvalidConfig as error:
                    _log.error("the certificate was not taken, the old one goes on: %s", error)

            with server.signals(), hosted.hosting(url), _reloading(reload, asked), _retrying(hosted):
                if audit is not None:
                    audit.open()
                if apply:
                    _begin(hosted)
                _log.info("serving %s at %s", hosted.name, url)
                server.run(sockets=[listener])
                logged.close()
                if not hosted.applies.close(listening.grace):
                    _log.warning("the apply that ran was taken back")
    finally:
        hosted.close()
        if audit is not None:
            audit.close()


def _bound(listening: Listening) -> socket:
    """The socket, listening before anything is applied: an address that is taken changes nothing."""
    import os
    import socket

    family = socket.AF_INET6 if ":" in listening.host else socket.AF_INET
    try:
        return socket.create_server((listening.host, listening.port), family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
        raise StackconfError(f"cannot listen on {listening.url}: {reason}; choose another --port") from error


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
def _retrying(hosted: Hosted) -> Iterator[None]:
    stop = Event()
    thread = Thread(target=keep_retrying, args=(hosted, stop), name="stackconf-retrying")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
