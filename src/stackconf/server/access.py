"""What stands before every route: who asks, from where, how much, and for how long.

Without tokens only this machine is served, and only under its own names: a page in a browser could
otherwise reach it through a name of its own (DNS rebinding), or by sending a form here. With tokens
every request needs one, but for those that say no more than that the server is alive.
"""

from __future__ import annotations

import asyncio
import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from attrs import field, frozen
from starlette.exceptions import HTTPException

from stackconf.server.asked import YAML_TYPES
from stackconf.server.problems import plain
from stackconf.server.tokens import Tokens

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from stackconf.server.tokens import Token

ONLY_LOOKING = frozenset({"/v1/compare"})
"""What a body is sent to that changes nothing."""
OPEN_PATHS = frozenset(
    f"{prefix}/{name}" for prefix in ("/v1", "/v1alpha/admin") for name in ("health", "version")
)
"""What needs no token."""
_DENIED = "/problems/access-denied"
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_ONCE = ("host", "authorization", "content-type", "content-encoding", "origin", "if-match", "stackconf-actor")
"""Headers that two readers could understand differently when they are there twice."""
_HOST = re.compile(r"(\[[0-9a-f.:]+(?:%[0-9a-z._~%-]+)?\]|[0-9a-z_.-]+)(?::[0-9]*)?", re.IGNORECASE)
_OWN_SITE = frozenset({"same-origin", "none"})
_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain"})
_BODY_TYPES = frozenset({"application/json", *YAML_TYPES})


@frozen
class Limits:
    """How much one request may bring: `body` in bytes, `seconds` for the whole body to arrive."""

    body: int = 4 * 2**20
    seconds: float = 10.0


@frozen
class Rules:
    """Who is served. `hosts` are the names under which this server may be asked, beside its own.
    `only_here`: nobody but this machine, though the address can be reached from others.
    """

    tokens: Tokens = field(factory=Tokens)
    hosts: frozenset[str] = frozenset()
    only_here: bool = False
    limits: Limits = field(factory=Limits)


@lru_cache(256)
def is_loopback(host: str) -> bool:
    """Whether an address or a name is this machine's own.

    >>> is_loopback("127.0.0.1"), is_loopback("[::1]"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    name = host.lower().rstrip(".")
    if name in _LOCAL_NAMES or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback and getattr(address, "scope_id", None) is None


class Guard:
    """The application behind its rules; what breaks one is answered here, and reaches no route."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        token = self._rules.tokens.of(headers.get("authorization", "")) if self._rules.tokens else None
        scope.setdefault("state", {})["token"] = None if token is None else token.name
        refused = self._refused(scope, headers, token)
        if refused is not None:
            await refused(scope, receive, send)
            return
        body = _Body(receive, self._rules.limits)
        if scope["method"] != "HEAD":
            await self._app(scope, body, send)
            return
        # As GET; the server that asked for it leaves the body out.
        inner = {**scope, "method": "GET"}
        await self._app(inner, body, _head_only(send))
        scope["route"] = inner.get("route")

    def _refused(self, scope: Scope, headers: dict[str, str], token: Token | None) -> Response | None:
        if "\n" in scope["path"]:  # which the routes' patterns take for the end of the path
            return plain(404, "Not Found", "there is nothing at a path with a line end in it")
        twice = _twice(scope, headers)
        if twice:
            return plain(400, "Bad Request", f"the header {twice} is there twice")
        if _name_of(headers.get("host", "")) is None:
            return plain(400, "Bad Request", "the header Host is not the name of a host")
        from_elsewhere = self._from_another_machine(scope) or self._from_elsewhere(headers)
        if from_elsewhere:
            return plain(403, "Forbidden", from_elsewhere)
        if self._rules.tokens and scope["path"] not in OPEN_PATHS:
            refused = _without_right(scope, token)
            if refused is not None:
                return refused
        return _wrong_body(scope["method"], headers, self._rules.limits)

    def _from_another_machine(self, scope: Scope) -> str:
        client = scope["client"]
        if self._rules.only_here and client is not None and not is_loopback(client[0]):
            return "the configuration is told to this machine only; `serve --token-file` lets others ask"
        return ""

    def _from_elsewhere(self, headers: dict[str, str]) -> str:
        """Why a request is not from who it should be; "" if it may be."""
        host = headers.get("host", "")
        name = _name_of(host) or ""
        known = is_loopback(name) or name in self._rules.hosts
        if not known and (self._rules.hosts or not self._rules.tokens):
            return f"this server is not asked as `{name[:80]}`; `serve --allow-host` names more"
        origin = headers.get("origin")
        if origin is not None and (not host or origin.lower().partition("://")[2] != host.lower()):
            return "a page of another origin may not ask this server"
        if headers.get("sec-fetch-site", "none").lower() not in _OWN_SITE:
            return "a page of another site may not ask this server"
        return ""


def changes(scope: Scope) -> bool:
    """Whether a request asks for a change."""
    return scope["method"] not in _READING and scope["path"] not in ONLY_LOOKING


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _twice(scope: Scope, headers: dict[str, str]) -> str:
    """A header that is given twice and may not be; "" if there is none."""
    if len(headers) == len(scope["headers"]):
        return ""
    names = [name.decode("latin-1") for name, _ in scope["headers"]]
    return next((name.title() for name in _ONCE if names.count(name) > 1), "")


@lru_cache(256)
def _name_of(host: str) -> str | None:
    """The name in a `Host` header, without the port and a last dot; `None` if it cannot be one.

    >>> [_name_of(each) for each in ("LocalHost.:80", "[::1]:80", "", "a@b", "a/b")]
    ['localhost', '[::1]', '', None, None]
    """
    found = _HOST.fullmatch(host)
    if found is None:
        return None if host else ""
    return found[1].lower().rstrip(".")


def _head_only(send: Send) -> Send:
    """`send` for an answer of which only the head goes out, and which ends with it."""
    over = False

    async def head(message: Message) -> None:
        nonlocal over
        if over:
            return
        if message["type"] == "http.response.body":
            over, message = True, {"type": "http.response.body", "body": b""}
        await send(message)

    return head


def _without_right(scope: Scope, token: Token | None) -> Response | None:
    if token is None:
        answer = plain(401, "Unauthorized", "this server wants a bearer token", type=_DENIED)
        answer.headers["WWW-Authenticate"] = 'Bearer realm="stackconf"'
        return answer
    looks = scope["method"] in _READING or scope["path"] in ONLY_LOOKING
    if not token.may("read" if looks else "write"):
        detail = f"the token `{token.name}` may only read"
        return plain(403, "Forbidden", detail, type=_DENIED)
    return None


def _wrong_body(method: str, headers: dict[str, str], limits: Limits) -> Response | None:
    length = headers.get("content-length", "0")
    has_body = length != "0" or "transfer-encoding" in headers
    if method in _READING or not has_body:
        return None
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        return plain(415, "Unsupported Media Type", "the body is sent as it is, without a Content-Encoding")
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _BODY_TYPES:
        return plain(415, "Unsupported Media Type", "the body is application/json or application/yaml")
    if not length.isdecimal() or int(length) > limits.body:
        return plain(413, "Content Too Large", _too_large(limits))
    return None


def _too_large(limits: Limits) -> str:
    return f"a body has at most {limits.body} bytes"


class _Body:
    """A request's body as it comes in: not more of it, and not slower, than the limits allow."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self._bytes = 0
        self._until: float | None = None
        self._complete = False

    async def __call__(self) -> Message:
        """The next part."""
        if self._complete:
            return await self._receive()
        loop = asyncio.get_running_loop()
        if self._until is None:
            self._until = loop.time() + self._limits.seconds
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            detail = f"the body did not arrive within {self._limits.seconds:g} s"
            raise HTTPException(408, detail) from error
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._limits.body:
            raise HTTPException(413, _too_large(self._limits))
        self._complete = not message.get("more_body", False)
        return message
