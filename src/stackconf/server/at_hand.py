"""What is asked for most, answered before any route: bytes that were made for the head revision.

The routes stay what is documented and what makes those bytes; this only spares the way to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from stackconf.server.answers import JSON
from stackconf.server.asked import has

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from stackconf.server.hosted import Hosted, Rendered

_READS = frozenset({"GET", "HEAD"})


class AtHand:
    """The application, with short cuts: `paths` gives the name under which `Hosted.once` has a body."""

    def __init__(self, app: ASGIApp, hosted: Hosted, paths: Mapping[str, str]) -> None:
        self._app, self._hosted, self._paths = app, hosted, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at once, or go on to the route."""
        name = self._paths.get(scope["path"]) if scope["type"] == "http" else None
        if name is None or scope["method"] not in _READS or scope["query_string"]:
            await self._app(scope, receive, send)
            return
        made = self._hosted.at_hand(name)
        if made is None:
            await self._app(scope, receive, send)
            return
        known = has(_if_none_match(scope["headers"]), made.etag)
        body = b"" if known or scope["method"] == "HEAD" else made.body
        start = {
            "type": "http.response.start",
            "status": 304 if known else 200,
            "headers": _headers(made, whole=not known),
        }
        await send(start)
        await send({"type": "http.response.body", "body": body})


def _if_none_match(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    found = [value for name, value in headers if name == b"if-none-match"]
    return b",".join(found).decode("latin-1") if found else None


def _headers(made: Rendered, *, whole: bool) -> list[tuple[bytes, bytes]]:
    headers = [(b"etag", made.etag.encode()), (b"cache-control", b"no-cache")]
    if whole:
        headers += [(b"content-type", JSON.encode()), (b"content-length", b"%d" % len(made.body))]
    return headers
