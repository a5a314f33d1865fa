"""Stand-ins for Brave Search and Tavily, following their documented protocols.

Brave: https://api-dashboard.search.brave.com/api-reference/web/search/get. A wrong key gets 422
with the code SUBSCRIPTION_TOKEN_INVALID, a missing one 422 with the code VALIDATION.
Tavily: https://docs.tavily.com/documentation/api-reference/endpoint/usage. A wrong key gets 401
with a `detail`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stackconf.testing import serve

BRAVE_KEY = "BSAgoodkey"
TAVILY_KEY = "tvly-goodkey"


class SearchStandIn:
    """Both services at one address. `forced` replaces every answer."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.forced: tuple[int, str, str] | None = None
        self.location = ""
        self.hang = False
        self.close = False
        self.stopping = threading.Event()
        self.url = ""

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, Any]:
        parts = urlsplit(path)
        if parts.path == "/res/v1/web/search":
            return self._brave(parse_qs(parts.query), headers.get("x-subscription-token"))
        if parts.path == "/usage":
            return self._tavily(headers.get("authorization", ""))
        return 404, {}

    def _brave(self, query: dict[str, list[str]], key: str | None) -> tuple[int, Any]:
        if key is None:
            return 422, {"type": "ErrorResponse", "error": {"code": "VALIDATION", "status": 422}}
        if key != BRAVE_KEY:
            code = "SUBSCRIPTION_TOKEN_INVALID"
            return 422, {"type": "ErrorResponse", "error": {"code": code, "status": 422, "detail": key}}
        if not query.get("q") or not 1 <= int(query.get("count", ["20"])[0]) <= 20:
            return 422, {"type": "ErrorResponse", "error": {"code": "VALIDATION", "status": 422}}
        return 200, {"type": "search", "web": {"type": "search", "results": []}}

    def _tavily(self, authorization: str) -> tuple[int, Any]:
        if authorization != f"Bearer {TAVILY_KEY}":
            return 401, {"detail": {"error": f"Your API key is wrong or missing. {authorization}"}}
        return 200, {"key": {"usage": 150, "limit": 1000}, "account": {"current_plan": "Bootstrap"}}


def _handler(stand_in: SearchStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            stand_in.requests.append((self.path, headers))
            if stand_in.hang:
                stand_in.stopping.wait(30)
            if stand_in.hang or stand_in.close:
                self.close_connection = True
                return
            if stand_in.forced is not None:
                self._send(*stand_in.forced)
                return
            status, body = stand_in.answer(self.path, headers)
            self._send(status, "application/json", json.dumps(body))

        def _send(self, status: int, content_type: str, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(text)))
            if stand_in.location:
                self.send_header("Location", stand_in.location)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def serving(stand_in: SearchStandIn, certificate: Path | None = None) -> Iterator[SearchStandIn]:
    """Serve on a free port of this machine, over TLS where a certificate (with its key) is given."""
    with serve(_handler(stand_in), certificate=certificate) as stand_in.url:
        try:
            yield stand_in
        finally:
            stand_in.stopping.set()
