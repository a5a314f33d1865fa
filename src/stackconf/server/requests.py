"""The request log: one line for each request, with who asked and what came of it, and nothing secret.

Neither queries nor bodies are in it, and nothing that was sent can begin a line of its own.
"""

from __future__ import annotations

import logging
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from stackconf.redact import described, redact_text
from stackconf.server.asked import ACTOR_HEADER, actor_said
from stackconf.server.problems import plain

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger("stackconf.requests")
_ACTOR = ACTOR_HEADER.encode()
_LONGEST_PATH = 200
_FRAMES = 3


class Logged:
    """The whole application with a line in the log for each request. It never raises: what nobody
    caught is one line too, and a plain 500.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and say so."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if scope["state"].get("full"):
                await _busy(scope, receive, noting)
            else:
                await self._app(scope, receive, noting)
        except ClientDisconnect:
            pass  # in the middle of its body
        except Exception as error:  # noqa: BLE001 (a defect must not reach the log with all it carries)
            _log.error("%s %s %s at %s", scope["method"], path_of(scope), described(error), _where(error))
            if not status:
                await plain(500, "Internal Server Error", DEFECT)(scope, receive, noting)
        finally:
            if _log.isEnabledFor(logging.INFO):
                _tell(scope, status, perf_counter() - began)


DEFECT = "this is a defect of stackconf; its log says more"


def log_refused(status: int, title: str, client: tuple[str, int] | None) -> None:
    """A line for what was not even a request."""
    about = {"method": None, "path": None, "status": status, "ms": 0.0, **_from(client)}
    who = about["from"] or "-"
    _log.info("- - %d 0.0 ms %s %s", status, who, title.lower(), extra={"request": about})


def path_of(scope: Scope) -> str:
    """The path as it was sent, without a query, in printable ASCII and not too long."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    text = raw[: _LONGEST_PATH + 1].decode("latin-1")
    if not (text.isascii() and text.isprintable()):
        text = text.encode("unicode_escape").decode("ascii")
    if len(text) > _LONGEST_PATH:
        text = f"{text[:_LONGEST_PATH]}..."
    return redact_text(text)


def caller_of(scope: Scope) -> tuple[str, str | None]:
    """Who asks as they say it, and the name of their token."""
    said = next((value for name, value in scope["headers"] if name == _ACTOR), b"")
    return actor_said(said.decode("latin-1")) if said else "", scope["state"].get("token")


def _tell(scope: Scope, status: int, seconds: float) -> None:
    said, token = caller_of(scope)
    path, milliseconds = path_of(scope), round(seconds * 1000, 1)
    about = {
        "method": scope["method"],
        "path": path,
        "status": status or None,
        "ms": milliseconds,
        **_from(scope["client"]),
        "token": token,
        "actor": said,
    }
    who = f" {said}" if said else ""
    if token is not None:
        who += f" ({token})"
    _log.info(
        "%s %s %s %s ms %s%s",
        scope["method"],
        path,
        status or "-",
        milliseconds,
        about["from"] or "-",
        who,
        extra={"request": about},
    )


def _from(client: tuple[str, int] | None) -> dict[str, object]:
    return {"from": client[0] if client else None}


async def _busy(scope: Scope, receive: Receive, send: Send) -> None:
    answer = plain(503, "Service Unavailable", "too many connections are busy; try again")
    answer.headers["Retry-After"] = "1"
    answer.headers["Connection"] = "close"
    await answer(scope, receive, send)


def _where(error: BaseException) -> str:
    """The innermost places that an exception came through; its text may hold anything, they do not."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " > ".join(frames[-_FRAMES:])
