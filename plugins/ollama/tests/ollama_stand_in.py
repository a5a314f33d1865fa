"""A stand-in for an Ollama server, following https://github.com/ollama/ollama/blob/main/docs/api.md.

What it answers, its error bodies (`{"error": "model 'x' not found"}`, 404), the reload when the
options of a loaded model change, the cap of the context at what the model was trained with, and
the refusal of models that only embed are those of `server/routes.go` and `server/sched.go`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

from stackconf.testing import serve
from stackconf_ollama.config import keep_alive_seconds

DEFAULT_CONTEXT = 4096
DEFAULT_KEEP_ALIVE = 300

Fault = Callable[[BaseHTTPRequestHandler], None]


class OllamaStandIn:
    """One server. `loaded` maps full model names to the options they run with."""

    def __init__(self, models: dict[str, int], embedding: tuple[str, ...] = ()) -> None:
        self.trained_context = models
        self.embedding = embedding
        self.version = "0.12.3"
        self.loaded: dict[str, dict[str, Any]] = {}
        self.expires: dict[str, datetime] = {}
        self.sessions: dict[str, float] = {}
        self.remote: dict[str, str] = {}
        self.unload_delay = 0.0
        self.loads = 0
        self.largest_context = 2**24
        self.tells_context = True
        self.requests: list[tuple[str, str, Any, dict[str, str]]] = []
        self.faults: dict[str, Fault] = {}
        self.stopping = threading.Event()
        self.url = ""

    def paths(self) -> list[str]:
        return [path for _, path, _, _ in self.requests]

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        routes: dict[tuple[str, str], Callable[[Any], tuple[int, Any]]] = {
            ("GET", "/api/version"): lambda _: (200, {"version": self.version}),
            ("GET", "/api/tags"): self._tags,
            ("GET", "/api/ps"): self._ps,
            ("POST", "/api/generate"): self._generate,
            ("POST", "/api/embed"): self._embed,
        }
        route = routes.get((method, path))
        return route(body) if route else (404, "404 page not found")

    def _tags(self, _: Any) -> tuple[int, Any]:
        here = [{"name": name, "model": name} for name in self.trained_context]
        away = [{"name": name, "model": name, "remote_host": host} for name, host in self.remote.items()]
        return 200, {"models": here + away}

    def _ps(self, _: Any) -> tuple[int, Any]:
        now = datetime.now(UTC)
        for name in [name for name, moment in self.expires.items() if moment <= now]:
            self._drop(name)
        entries = []
        for name, options in self.loaded.items():
            entry = {"name": name, "model": name, "expires_at": self.expires[name].isoformat()}
            if self.tells_context:
                entry["context_length"] = options["num_ctx"]
            entries.append(entry)
        return 200, {"models": entries}

    def _generate(self, body: Any) -> tuple[int, Any]:
        name = self._known(body["model"])
        if name is None:
            return 404, {"error": f"model '{body['model']}' not found"}
        keep_alive = body.get("keep_alive")
        if not body.get("prompt") and keep_alive is not None and keep_alive_seconds(keep_alive) == 0:
            # The runner is told to go, and goes a moment later: even when a load came in between.
            timer = threading.Timer(self.unload_delay, self._drop, [name])
            timer.daemon = True
            timer.start()
            return 200, self._done(body["model"], "unload")
        if name in self.embedding:
            return 400, {"error": f'"{body["model"]}" does not support generate'}
        return self._load(name, body) or (200, self._done(body["model"], "load"))

    def _embed(self, body: Any) -> tuple[int, Any]:
        name = self._known(body["model"])
        if name is None:
            return 404, {"error": f"model '{body['model']}' not found"}
        return self._load(name, body) or (200, {"model": body["model"], "embeddings": []})

    def _load(self, name: str, body: Any) -> tuple[int, Any] | None:
        options = {"num_ctx": DEFAULT_CONTEXT, **(body.get("options") or {})}
        options["num_ctx"] = min(options["num_ctx"], self.trained_context[name])
        if self.loaded.get(name) != options:
            self._drop(name)
            if options["num_ctx"] > self.largest_context:
                return 500, {
                    "error": "model requires more system memory (90.1 GiB) than is available (8.0 GiB)"
                }
            self.loaded[name] = options
            self.loads += 1
        # A request that does not say leaves a loaded model's session as it is.
        if "keep_alive" in body:
            self.sessions[name] = keep_alive_seconds(body["keep_alive"])
        seconds = self.sessions.setdefault(name, DEFAULT_KEEP_ALIVE)
        # Go's longest duration is about 292 years; that is how Ollama says for ever.
        self.expires[name] = datetime.now(UTC) + timedelta(seconds=min(seconds, 292 * 365 * 86400))
        return None

    def _drop(self, name: str) -> None:
        self.loaded.pop(name, None)
        self.expires.pop(name, None)
        self.sessions.pop(name, None)

    def _known(self, model: str) -> str | None:
        name = model if ":" in model else f"{model}:latest"
        return name if name in self.trained_context else None

    def _done(self, model: str, reason: str) -> dict[str, Any]:
        # Nine digits after the second, as Go writes times.
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
        return {"model": model, "created_at": now, "response": "", "done": True, "done_reason": reason}


def _handler(stand_in: OllamaStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            stand_in.requests.append((self.command, self.path, body, dict(self.headers)))
            fault = stand_in.faults.get(self.path)
            if fault is not None:
                fault(self)
                return
            status, answer = stand_in.answer(self.command, self.path, body)
            text = answer if isinstance(answer, str) else json.dumps(answer)
            send(self, status, "text/plain" if isinstance(answer, str) else "application/json", text)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def send(handler: BaseHTTPRequestHandler, status: int, content_type: str, text: str) -> None:
    data = text.encode()
    handler.send_response(status)
    handler.send_header("Content-Type", content_type)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def hang(stand_in: OllamaStandIn) -> Fault:
    """Accept the request and never answer."""
    return lambda _: stand_in.stopping.wait(30) and None


def drip(stand_in: OllamaStandIn) -> Fault:
    """Send one byte at a time, for ever."""

    def fault(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not stand_in.stopping.wait(0.05):
            try:
                handler.wfile.write(b" ")
            except OSError:
                return

    return fault


def drip_headers(stand_in: OllamaStandIn) -> Fault:
    """Send one byte of a header at a time, for ever."""

    def fault(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not stand_in.stopping.wait(0.05):
            try:
                handler.wfile.write(b"y")
            except OSError:
                return

    return fault


def close(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True


def cut(handler: BaseHTTPRequestHandler) -> None:
    """Promise more than is sent."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"version":')
    handler.close_connection = True


def garbage(handler: BaseHTTPRequestHandler) -> None:
    """Speak something that is not HTTP."""
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    handler.close_connection = True


def status(code: int, content_type: str, text: str) -> Fault:
    return lambda handler: send(handler, code, content_type, text)


@contextmanager
def serving(stand_in: OllamaStandIn) -> Iterator[OllamaStandIn]:
    """Serve on a free port of this machine."""
    with serve(_handler(stand_in)) as stand_in.url:
        try:
            yield stand_in
        finally:
            stand_in.stopping.set()


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for a condition, and fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
