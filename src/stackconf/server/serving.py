"""A process that hosts a stack and answers over HTTP until it is told to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import frozen

from stackconf.errors import InvalidConfig
from stackconf.server.hosted import Hosted

if TYPE_CHECKING:
    from stackconf.stack import Stack

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8420
GRACE_SECONDS = 30.0


@frozen
class Listening:
    """Where a server listens, and how long a running apply may still take at the end (seconds)."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    grace: float = GRACE_SECONDS

    @property
    def url(self) -> str:
        """The address as people write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def serve(opening: Callable[[], Stack], listening: Listening, *, apply: bool = True) -> None:
    """Host a stack until the process is told to end (SIGINT, SIGTERM).

    With `apply` it begins with one, which may fail: what was wrong is told in `/v1/ready`. Raises
    `InvalidConfig` where the address cannot be had, `ApplyBusy` where another process hosts it.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise InvalidConfig("the server needs more packages: pip install 'stackconf[server]'") from error
    from stackconf.server.app import create_app

    hosted = Hosted(opening)
    with hosted.stack() as stack:
        store, manager = stack.store, stack.manager
    try:
        with store.hosting(listening.url):
            manager.begin_hosting(store)
            if apply:
                hosted.apply(actor="server start")
            config = uvicorn.Config(
                create_app(hosted), host=listening.host, port=listening.port, log_level="warning"
            )
            uvicorn.Server(config).run()
    finally:
        hosted.close(listening.grace)
