"""Every error as RFC 9457 problem details, with all that the exception carries."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import Match

from stackconf.errors import StackconfError
from stackconf.packing import spelled
from stackconf.shapes.errors import CONTENT_TYPE, error_data, headers_of
from stackconf.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.routing import BaseRoute

_LONGEST_PATH = 200
_log = logging.getLogger(__name__)


def problem(data: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    """An answer that says what is wrong; `data` has its `status`."""
    body = json.dumps(spelled(data), separators=(",", ":"), allow_nan=False)
    return Response(body, data["status"], headers, CONTENT_TYPE)


def of_error(request: Request, error: StackconfError) -> Response:
    """The problem that an exception is."""
    data = error_data(error, if_match="if-match" in request.headers)
    if data["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.warning("%s %s: %s", request.method, request.url.path, error)
    return problem({**data, "instance": request.url.path}, headers_of(error))


def plain(status: int, title: str, detail: str = "", **more: Any) -> Response:
    """A problem that is no exception of stackconf: a wrong path, method or media type."""
    return problem({"type": "about:blank", "title": title, "status": status, "detail": detail, **more})


def _methods(request: Request, routes: Sequence[BaseRoute]) -> list[str]:
    """What the path of a request takes, whichever route serves it."""
    fitting = [each for each in routes if each.matches(request.scope)[0] is not Match.NONE]
    found = {method for route in fitting for method in getattr(route, "methods", None) or ()}
    return sorted(found | {"HEAD"} if "GET" in found else found)


def _nothing_there(request: Request, routes: Sequence[BaseRoute]) -> str:
    paths = dict.fromkeys(path for route in routes if (path := getattr(route, "path", "")))
    hint = did_you_mean(request.url.path[:_LONGEST_PATH], paths)
    return "there is nothing at this path; " + (hint or "/openapi.json says what there is")


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Have the application answer with problems. `routes` are all that it has. What is no problem of
    these goes on to who asked it.
    """
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    async def expected(request: Request, error: Exception) -> Response:
        assert isinstance(error, StackconfError)  # noqa: S101 (installed for those)
        return of_error(request, error)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        title = HTTPStatus(error.status_code).phrase
        detail = str(error.detail) if error.detail != title else ""
        if error.status_code == HTTPStatus.NOT_FOUND and not detail:
            detail = _nothing_there(request, routes)
        answer = plain(error.status_code, title, detail)
        answer.headers.update(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            answer.headers["Allow"] = ", ".join(_methods(request, routes))
        return answer

    async def invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        said = "; ".join(
            f"{'.'.join(map(str, each['loc'][1:])) or each['loc'][0]}: {each['msg']}"
            for each in error.errors()
        )
        return plain(422, "Unprocessable Content", said)

    app.add_exception_handler(StackconfError, expected)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
