"""The Acme server: GET and PUT /settings. A real program, made up for this example."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

MOST_THREADS = 64


class AcmeServer(ThreadingHTTPServer):
    """Keeps settings. Refuses more than 64 threads, and strangers where it has a key."""

    def __init__(self, port: int = 0, api_key: str = "") -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.api_key = api_key
        self.settings: dict[str, object] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: AcmeServer

    def do_GET(self) -> None:
        self._answer(self._refusal() or (200, self.server.settings))

    def do_PUT(self) -> None:
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        refusal = self._refusal()
        if refusal is None and (wanted.get("threads") or 0) > MOST_THREADS:
            refusal = 400, {"error": f"threads must be at most {MOST_THREADS}"}
        if refusal is None:
            self.server.settings = wanted
        self._answer(refusal or (200, wanted))

    def _refusal(self) -> tuple[int, object] | None:
        key = self.server.api_key
        if key and self.headers["Authorization"] != f"Bearer {key}":
            return 401, {"error": "wrong key"}
        return None

    def _answer(self, answer: tuple[int, object]) -> None:
        status, data = answer
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def running(api_key: str = "") -> Iterator[AcmeServer]:
    """A server on a free port, in a thread of its own."""
    server = AcmeServer(api_key=api_key)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    AcmeServer(int(sys.argv[1]) if len(sys.argv) > 1 else 7860).serve_forever()
