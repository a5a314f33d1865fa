"""The request log: one line for each request, with who asked and what came of it, and nothing secret.

Neither queries nor bodies are in it, and nothing that was sent can begin a line of its own.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect

from stackconf.redact import described, redact_text
from stackconf.server.access import changes
from stackconf.server.asked import ACTOR_HEADER, actor_said
from stackconf.server.audit import Note
from stackconf.server.problems import plain
from stackconf.server.threads import in_thread

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from stackconf.server.audit import Audit

_log = logging.getLogger("stackconf.requests")
_ACTOR = ACTOR_HEADER.encode()
_LONGEST_PATH = 200
_FRAMES = 3
_TOGETHER_SECONDS = 0.05


class Logged:
    """The whole application with a line in the log for each request. It never raises: what nobody
    caught is one line too, and a plain 500.
    """

    def __init__(self, app: ASGIApp, audit: Audit | None = None) -> None:
        self._app, self._audit = app, audit
        self._lines = Lines()

    def close(self) -> None:
        """Have the last lines out."""
        self._lines.out()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and say so."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send, self._lines, self._audit if changes(scope) else None)
        try:
            if scope["state"].get("full"):
                await _busy(scope, receive, answer)
            else:
                await self._app(scope, receive, answer)
        except ClientDisconnect:
            pass  # in the middle of its body
        except Exception as error:  # noqa: BLE001 (a defect must not reach the log with all it carries)
            _log.error("%s %s %s at %s", scope["method"], path_of(scope), described(error), _where(error))
            if not answer.status:
                await plain(500, "Internal Server Error", DEFECT)(scope, receive, answer)
        finally:
            answer.end()


class _Answer:
    """`send`, which keeps what the log and the audit trail say of an answer."""

    __slots__ = ("_audit", "_began", "_lines", "_note", "_scope", "_send", "status")

    def __init__(self, scope: Scope, send: Send, lines: Lines, audit: Audit | None) -> None:
        self._scope, self._send, self._lines, self._audit = scope, send, lines, audit
        self._note = None if audit is None else Note()
        self._began = perf_counter()
        self.status = 0

    async def __call__(self, message: Message) -> None:
        """Send a part; the last one of a change after its line is in the audit trail."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        if self._note is not None:
            self._note.saw(message)
            if self._note.over:
                await in_thread(self._write)
        await self._send(message)

    def end(self) -> None:
        """Say what is still to be said: the answer is out, or nobody wants it any more."""
        if self._note is not None and not self._note.over:
            self._write()
        self._lines.add(self._scope, self.status, perf_counter() - self._began)

    def _write(self) -> None:
        if self._note is not None and self._audit is not None:
            about = _about(self._scope, self.status, perf_counter() - self._began)
            line, durable = self._note.line(about)
            self._audit.write(line, durable=durable)


DEFECT = "this is a defect of stackconf; its log says more"


class Lines:
    """The lines of the log, put out a few at a time: each by itself would cost more than a read."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, tuple[Scope, int, float]]] = []

    def add(self, scope: Scope, status: int, seconds: float) -> None:
        """A request that has been answered just now."""
        if not _log.isEnabledFor(logging.INFO):
            return
        self._waiting.append((time(), (scope, status, seconds)))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(_TOGETHER_SECONDS, self.out)

    def out(self) -> None:
        """Put out what waits."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            _put([(at, about := _about(*each), _text(about)) for at, each in waiting])


def log_refused(status: int, title: str, client: tuple[str, int] | None) -> None:
    """A line for what was not even a request."""
    about = {"method": None, "path": None, "status": status, "ms": 0.0, **_from(client)}
    _put([(time(), about, f"- - {status} 0.0 ms {about['from'] or '-'} {title.lower()}")])


def _put(lines: list[tuple[float, dict[str, Any], str]]) -> None:
    """One record for all of them, which has each with its own time (seconds since 1970) in `requests`."""
    _log.info("%s", "\n".join(text for _, _, text in lines), extra={"requests": lines})


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


def _text(about: dict[str, Any]) -> str:
    token, said = about["token"], about["actor"]
    who = f" {said}" if said else ""
    if token is not None:
        who += f" ({token})"
    status = about["status"] or "-"
    return f"{about['method']} {about['path']} {status} {about['ms']} ms {about['from'] or '-'}{who}"


def _about(scope: Scope, status: int, seconds: float) -> dict[str, Any]:
    said, token = caller_of(scope)
    return {
        "method": scope["method"],
        "path": path_of(scope),
        "status": status or None,
        "ms": round(seconds * 1000, 1),
        **_from(scope["client"]),
        "token": token,
        "actor": said,
    }


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
