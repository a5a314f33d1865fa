"""Where a server listens, and whom it serves there."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from stackconf.errors import InvalidConfig, StackconfError
from stackconf.server.tls import Tls
from stackconf.server.tokens import TOKEN_VARIABLE, Tokens

if TYPE_CHECKING:
    from stackconf.runtimes import Listens

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8420
GRACE_SECONDS = 30.0
ANYWHERE = ""
"""The host that stands for every address of this machine."""

_log = logging.getLogger(__name__)


@frozen
class Listening:
    """Where a server listens and whom it serves, and how long a running apply may still take at the
    end (seconds). Where `host` and `port` are `None` they are those of the stack's runtime, or the
    default. `hosts` are names under which it may be asked, beside this machine's own. `audit` is
    the file that gets a line for every change.
    """

    host: str | None = None
    port: int | None = None
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
        >>> Listening("").url
        'http://localhost:8420'
        """
        name = DEFAULT_HOST if self.host is None else self.host or "localhost"
        host = f"[{name}]" if ":" in name else name
        port = DEFAULT_PORT if self.port is None else self.port
        return f"{'http' if self.tls is None else 'https'}://{host}:{port}"

    @property
    def only_here(self) -> bool:
        """Whether nobody but this machine can ask."""
        from stackconf.server.access import is_loopback

        return self.host is None or is_loopback(self.host)

    @property
    def names(self) -> frozenset[str]:
        """The names that a `Host` may have beside this machine's own; any, where it is empty."""
        return self.hosts | {(self.host or "").lower()} - {""} if self.hosts else self.hosts


def checked(listening: Listening) -> Listening:
    """The same for a server that only tells configurations. Raises `InvalidConfig` where it may not."""
    if not listening.tokens and not listening.only_here:
        problem = f"{listening.host} can be reached from other machines, so it needs a token"
        raise InvalidConfig(f"{problem}: give --token-file FILE, or set {TOKEN_VARIABLE}")
    return _with_tls(listening)


def of_runtime(listening: Listening, listens: Listens) -> Listening:
    """The same for the server of a runtime: where its file says, unless told otherwise.

    The routes of its own are for whom it serves; without a token the configuration is told to this
    machine only. Raises `InvalidConfig` where it may not be served there.
    """
    tls, authority = listening.tls, Path(listens.authority) if listens.authority else None
    if tls is not None:  # whom the server wants to see certificates of does not depend on its own
        tls = evolve(tls, authority=authority, ciphers=listens.ciphers)
    elif listens.certificate and listens.key:
        tls = Tls(Path(listens.certificate), Path(listens.key), authority, listens.ciphers)
    port = listens.port if listening.port is None else listening.port
    host = listening.host
    if host is None:
        in_the_clear = tls is None and not listens.clear
        host = listens.host or (DEFAULT_HOST if in_the_clear else ANYWHERE)
    where = evolve(listening, host=host, port=port, tls=tls)
    if tls is None and not listens.clear and not where.only_here:
        problem = f"{where.url} would be served to other machines without TLS"
        hint = "say `tls_certfile` and `tls_keyfile` in `server:` of the stack file, or `insecure: true`"
        raise InvalidConfig(f"{problem}; {hint}, or give --host 127.0.0.1")
    return _with_tls(where)


def _with_tls(listening: Listening) -> Listening:
    if listening.tls is not None:
        listening.tls.check()
    return listening


def bound(listening: Listening) -> socket.socket:
    """The socket, listening before anything is applied: an address that is taken changes nothing."""
    if listening.tls is None and not listening.only_here:
        where = listening.host or "every address"
        _log.warning("%s is served without TLS: tokens and secrets can be read on the way", where)
    host = DEFAULT_HOST if listening.host is None else listening.host
    port = DEFAULT_PORT if listening.port is None else listening.port
    both = host == ANYWHERE and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
        raise StackconfError(f"cannot listen on {listening.url}: {reason}; choose another --port") from error
