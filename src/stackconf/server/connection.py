"""One connection: how large the head of a request may be, how long anything may take, how many there are.

uvicorn bounds none of these. Who sends a head a byte at a time, sends a body that nobody reads any
more, or takes no answer, is cut off; who only keeps a connection open makes room for who asks.
"""

from __future__ import annotations

import json
import logging
import resource
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from stackconf.server.requests import log_refused
from stackconf.shapes.errors import CONTENT_TYPE

if TYPE_CHECKING:
    import asyncio

HEAD_BYTES = 64 * 2**10
HEAD_SECONDS = 10.0
"""For the whole head of a request; the first one's time begins with the connection."""
LINGER_SECONDS = 5.0
"""For what is left of a body after its request was answered, so that the answer can be read."""
STALLED_SECONDS = 30.0
"""For an answer of which nothing was taken."""
MOST_CONNECTIONS = 1000
_OTHER_FILES = 100
"""Descriptors that are left for all but connections."""

_uvicorn = logging.getLogger("stackconf.server.uvicorn")
_uvicorn.setLevel(logging.ERROR)  # it warns of what is logged here as a request


def most_connections() -> int:
    """How many connections are served at once: fewer where the process may open few files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(1, min(MOST_CONNECTIONS, files - _OTHER_FILES))


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with these bounds; `check` is called about once a second."""

    most = most_connections()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = _uvicorn
        self._head_since: float | None = None
        self._head_bytes = 0
        self._body_open = False
        self._answered_at: float | None = None
        self._unsent = 0
        self._unsent_since = 0.0
        self._full = self._refused = False
        self.quiet_since = 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing is asked here now."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, in the place of an idle one where there are too many."""
        super().connection_made(transport)
        self._head_since = self.quiet_since = self.loop.time()
        if len(self.connections) > self.most:
            self._make_room()

    def _make_room(self) -> None:
        others = [each for each in self.connections if isinstance(each, Connection) and each is not self]
        idle = [each for each in others if each.idle]
        if idle:
            min(idle, key=lambda each: each.quiet_since).transport.abort()
        elif len(self.connections) > 2 * self.most:
            self.transport.abort()
        else:
            self._full = True

    def data_received(self, data: bytes) -> None:
        """Read on; a head that does not end is refused."""
        if self._refused:
            return
        super().data_received(data)
        if self._head_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.refuse(431, "Request Header Fields Too Large", f"a head has at most {HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """The head of a request begins."""
        super().on_message_begin()
        if self._head_since is None:
            self._head_since = self.loop.time()
        if self._full:
            self.scope["state"]["full"] = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; what comes after a chunked body in the same form is none."""
        if not self._body_open:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head has ended. What a target names as its host goes before `Host` (RFC 9112, 3.2.2)."""
        self._head_since, self._head_bytes, self._body_open = None, 0, True
        if not self.url.startswith(b"/"):
            self._name_host(httptools.parse_url(self.url))
        super().on_headers_complete()

    def _name_host(self, target: Any) -> None:
        if target.host:
            host = b"[%b]" % target.host if b":" in target.host else target.host
            authority = b"%b:%d" % (host, target.port) if target.port else host
            self.headers[:] = [each for each in self.headers if each[0] != b"host"] + [(b"host", authority)]

    def on_message_complete(self) -> None:
        """The body has ended."""
        self._body_open, self._answered_at = False, None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is out."""
        self.quiet_since = self.loop.time()
        if self._body_open:
            self._answered_at = self.quiet_since
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self.refuse(400, "Bad Request", msg.rstrip(".").lower().replace("http", "HTTP"))

    def refuse(self, status: int, title: str, detail: str) -> None:
        """Answer here and hang up; no route hears of it. What was asked before is answered first."""
        self._head_since, self._refused = None, True
        if not self.idle and not self._body_open:
            self.cycle.keep_alive = False
            return
        if not self.transport.is_closing() and (self.idle or not self._answers()):
            data = {"type": "about:blank", "title": title, "status": status, "detail": detail}
            body = json.dumps(data, separators=(",", ":")).encode()
            head = b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + head % (CONTENT_TYPE.encode(), len(body)) + body)
            log_refused(status, title, self.client)
        if not self.idle:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _answers(self) -> bool:
        """Whether an answer is on its way, or a request waits for that of the one before."""
        return self.cycle.response_started or bool(self.pipeline)

    def check(self, now: float) -> None:
        """Cut off who takes too long, by the loop's clock."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since > STALLED_SECONDS:
            self.transport.abort()
        if self._head_since is not None and now - self._head_since > HEAD_SECONDS:
            if self._head_bytes:
                self.refuse(408, "Request Timeout", f"a head arrives within {HEAD_SECONDS:g} s")
            else:
                self.transport.close()
        if self._answered_at is not None and now - self._answered_at > LINGER_SECONDS:
            self.transport.abort()
