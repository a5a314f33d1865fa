"""The Configuration API at the address of another server: under its own paths, the other under all others.

Both need some paths, such as `/openapi.json`; those are the other's, whose clients know nothing of us.
Ours are under `/stackconf` then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX = "/stackconf"
"""Where the first page and the document are."""

_LONGEST = 3


class Beside:
    """`ours` for the routes whose templates are `paths`, `theirs` for everything else."""

    def __init__(self, ours: ASGIApp, theirs: ASGIApp, paths: Iterable[str]) -> None:
        self._ours, self._theirs = ours, theirs
        self._heads = {_head(path) for path in paths} - {()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand one request on."""
        path: str = scope.get("path", "")
        if scope["type"] != "http":  # none of ours is a websocket
            await self._theirs(scope, receive, send)
        elif path == PREFIX or path.startswith(f"{PREFIX}/"):
            inner = path.removeprefix(PREFIX) or "/"
            await self._ours({**scope, "path": inner, "raw_path": inner.encode()}, receive, send)
        elif self.is_ours(path):
            await self._ours(scope, receive, send)
        else:
            await self._theirs(scope, receive, send)

    def is_ours(self, path: str) -> bool:
        """Whether a path begins as one of our routes does.

        >>> both = Beside(print, print, ["/", "/v1/plan", "/v1/inspect/hardware", "/v1/explain/{key:path}"])
        >>> [both.is_ours(path) for path in ("/v1/plan", "/v1/explain/a/b", "/v1/models")]
        [True, True, False]
        """
        parts = path.split("/", _LONGEST + 1)[1 : _LONGEST + 1]
        heads = self._heads
        return tuple(parts[:2]) in heads or tuple(parts) in heads or tuple(parts[:1]) in heads


def _head(path: str) -> tuple[str, ...]:
    """The fixed parts at the beginning of a template, as many as are looked at."""
    fixed = path.partition("{")[0].strip("/")
    return tuple(fixed.split("/")[:_LONGEST]) if fixed else ()
