"""Answers: bytes with their entity tag, or nothing for who has them already."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.responses import Response

from stackconf.server.asked import is_known
from stackconf.server.hosted import Rendered, rendered

if TYPE_CHECKING:
    from starlette.requests import Request

JSON = "application/json"


def answer(request: Request, made: Rendered, *, status: int = 200, media_type: str = JSON) -> Response:
    """The body, or 304 without one where `If-None-Match` has its tag."""
    headers = {"ETag": made.etag, "Cache-Control": "no-cache"}
    # What is asked for on a condition is only spared where it would have been given: no 503 is.
    if status == HTTPStatus.OK and request.method in {"GET", "HEAD"} and is_known(request, made.etag):
        return Response(status_code=304, headers=headers)
    return Response(made.body, status, headers, media_type)


def told(request: Request, data: object, revision: int, *, status: int = 200) -> Response:
    """Data as an answer about a revision."""
    return answer(request, rendered(data, revision), status=status)
