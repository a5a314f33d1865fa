"""The HTTP server itself: uvicorn, with signals that end it and let its process go on to the end.

uvicorn raises a signal that it caught once more after it has shut down, which would end the process
before a running apply has.
"""

from __future__ import annotations

import signal
import ssl
from asyncio import get_running_loop, wait
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import TYPE_CHECKING

import uvicorn

from stackconf.server.connection import Connection

if TYPE_CHECKING:
    from socket import socket
    from types import FrameType

    from starlette.types import ASGIApp

    from stackconf.server.tls import Tls

_ENDING = (signal.SIGINT, signal.SIGTERM)
_LOOK = 0.1
"""Seconds in which it is noticed that it is to end before it has begun."""
_LAST_WORDS = 5.0
"""Seconds for what comes first to stop in the middle."""


class Listener(uvicorn.Server):
    """Serves an application until a signal. `ending` is called with the first; a second one stops
    waiting for answers that are on their way. `first` is awaited before it takes connections, `last`
    when it has none any more. With `websockets` the application gets those too.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        ending: Callable[[], None],
        seconds: float,
        tls: Tls | None = None,
        first: Callable[[], Coroutine[None, None, None]] | None = None,
        last: Callable[[], Awaitable[None]] | None = None,
        websockets: bool = False,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                http=Connection,
                ws="auto" if websockets else "none",
                proxy_headers=False,  # whoever asks could say any address
                access_log=False,
                server_header=False,
                ssl_certfile=None if tls is None else tls.certificate,
                ssl_keyfile=None if tls is None else str(tls.key),
                ssl_ca_certs=str(tls.authority) if tls is not None and tls.authority else None,
                ssl_cert_reqs=ssl.CERT_REQUIRED if tls is not None and tls.authority else ssl.CERT_NONE,
                ssl_ciphers=tls.ciphers or None if tls is not None else None,
                lifespan="off",
                timeout_graceful_shutdown=max(1, round(seconds)),
            )
        )
        self._ending = ending
        self._first, self._last = first, last
        self._told = False
        self._tls = tls

    def reload(self) -> None:
        """Have new connections use the certificate that is there now. Raises `InvalidConfig`."""
        if self._tls is not None and self.config.loaded and self.config.ssl is not None:
            self._tls.load(self.config.ssl)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; whether to end."""
        if counter % 10 == 0:
            now = get_running_loop().time()
            for each in [*self.server_state.connections]:
                if isinstance(each, Connection):
                    each.check(now)
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Take connections, once what comes first is done. Raises what that raises."""
        if self._first is None or await self._done(self._first()):
            await super().startup(sockets=sockets)

    async def _done(self, first: Coroutine[None, None, None]) -> bool:
        """Whether what comes first was done before somebody wanted an end."""
        task = get_running_loop().create_task(first)
        while not task.done() and not self.should_exit:
            await wait((task,), timeout=_LOOK)
        if task.done():
            task.result()
            return True
        task.cancel()
        await wait((task,), timeout=_LAST_WORDS)
        return False

    async def serve(self, sockets: list[socket] | None = None) -> None:
        """Serve, and end with what comes last, also where it did not come to serving."""
        try:
            await super().serve(sockets=sockets)
        finally:
            if self._last is not None:
                await self._last()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: `signals` does, and not only while the server runs."""
        yield

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Have signals end this server, also before it runs, if this is the main thread."""
        if current_thread() is not main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in _ENDING}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End; at once with a second Ctrl-C."""
        if not self._told:
            self._told = True  # first: another signal may come in the middle of this
            self._ending()
        super().handle_exit(sig, frame)
