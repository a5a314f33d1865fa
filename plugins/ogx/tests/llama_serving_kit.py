"""The real llama-stack, served by `stackconf serve`, and stand-ins for the Ollama behind it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

import httpx
import yaml

PROGRAM = "import sys; sys.argv[0] = 'stackconf'; from stackconf.cli.main import run; run()"
PATIENCE = 90.0
MODEL = "llama3.2:3b"
HIDDEN = ("sk-brave-canary", "sk-openai-canary")
"""The secrets of the stack: nobody may say them."""
CAN_LOAD = hasattr(sqlite3.Connection, "enable_load_extension")
"""Whether this Python has the SQLite that `inline::sqlite-vec` needs."""


class Ollama:
    """What Ollama answers, as far as llama-stack asks. Each answer begins with `name`.

    `gate` stands in the middle of every stream: while it is not set, streams wait there.
    """

    def __init__(self, name: str, *models: str, port: int = 0) -> None:
        self.name, self.models = name, list(models or (MODEL,))
        self.gate = Event()
        self.gate.set()
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._get(self)

            def do_POST(self) -> None:
                outer._post(self)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Be out of reach."""
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _get(self, request: BaseHTTPRequestHandler) -> None:
        details = {"format": "gguf", "family": "llama", "parameter_size": "3B", "quantization_level": "Q4"}
        tags = [
            {"model": each, "name": each, "digest": "x", "size": 1, "details": details}
            for each in self.models
        ]
        known = {
            "/api/tags": {"models": tags},
            "/api/ps": {"models": tags},
            "/v1/models": {
                "object": "list",
                "data": [{"id": each, "object": "model"} for each in self.models],
            },
        }
        _json(request, known.get(request.path, {}))

    def _post(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["content-length"])))
        self.asked.append(request.path)
        words = [f"{self.name} ", "one ", "two ", "three"]
        if request.path == "/v1/chat/completions":
            lines = [f"data: {json.dumps(_chunk(body['model'], each))}\n\n" for each in words]
            lines.append("data: [DONE]\n\n")
            whole = _completion(body["model"], "".join(words))
        else:
            parts = [_generated(body["model"], each, request.path, done=False) for each in words]
            parts.append(_generated(body["model"], "", request.path, done=True))
            lines = [json.dumps(each) + "\n" for each in parts]
            whole = _generated(body["model"], "".join(words), request.path, done=True)
        if body.get("stream"):
            self._stream(request, lines)
        else:
            _json(request, whole)

    def _stream(self, request: BaseHTTPRequestHandler, lines: list[str]) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        for number, line in enumerate(lines):
            if number == 2:  # in the middle
                self.gate.wait(PATIENCE)
            data = line.encode()
            request.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            request.wfile.flush()
        request.wfile.write(b"0\r\n\r\n")


@contextmanager
def hanging() -> Iterator[str]:
    """The address of somebody who takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def _json(request: BaseHTTPRequestHandler, answer: Any) -> None:
    data = json.dumps(answer).encode()
    request.send_response(200)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)


def _chunk(model: str, text: str) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}


def _completion(model: str, text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    head = {"id": "1", "object": "chat.completion", "created": 1, "model": model}
    return {**head, "choices": [choice], "usage": usage}


def _generated(model: str, text: str, path: str, *, done: bool) -> dict[str, Any]:
    said = {"message": {"role": "assistant", "content": text}} if path == "/api/chat" else {"response": text}
    ending = {"done_reason": "stop"} if done else {}
    return {"model": model, "created_at": "2026-01-01T00:00:00Z", **said, "done": done, **ending}


def stack(folder: Path, url: str) -> dict[str, Any]:
    """The stack of issue 993, with an Ollama at an address."""

    def store(name: str) -> dict[str, str]:
        return {"type": "sqlite", "db_path": str(folder / f"{name}.db")}

    def provider(provider_id: str, provider_type: str, **config: Any) -> dict[str, Any]:
        return {"provider_id": provider_id, "provider_type": provider_type, "config": config}

    vector_io = [provider("faiss", "inline::faiss", kvstore=store("faiss"))]
    if CAN_LOAD:
        vector_io.append(provider("sqlite-vec", "inline::sqlite-vec", db_path=str(folder / "vec.db")))
    agents = provider(
        "meta-reference", "inline::meta-reference", persistence_store=store("a"), responses_store=store("r")
    )
    telemetry = provider(
        "meta-reference",
        "inline::meta-reference",
        service_name="issue-993",
        sinks="sqlite",
        sqlite_db_path=str(folder / "trace.db"),
    )
    return {
        "version": "2",
        "image_name": "issue-993",
        "apis": [
            "agents",
            "inference",
            "safety",
            "scoring",
            "telemetry",
            "tool_runtime",
            "vector_io",
            "datasetio",
        ],
        "providers": {
            "inference": [provider("ollama", "remote::ollama", url=url)],
            "agents": [agents],
            "safety": [provider("llama-guard", "inline::llama-guard")],
            "scoring": [provider("braintrust", "inline::braintrust", openai_api_key="${env.LS_T_OPENAI}")],
            "datasetio": [
                provider("nvidia", "remote::nvidia", datasets_url="http://127.0.0.1:9"),  # has no shutdown
                provider("localfs", "inline::localfs", kvstore=store("datasets")),
            ],
            "telemetry": [telemetry],
            "tool_runtime": [
                provider("brave", "remote::brave-search", api_key="${env.LS_T_BRAVE}", max_results=3),
                provider("tavily", "remote::tavily-search", api_key="", max_results=3),
            ],
            "vector_io": vector_io,
        },
        "metadata_store": store("registry"),
        "models": [{"model_id": MODEL, "provider_id": "ollama", "model_type": "llm", "metadata": {}}],
        "tool_groups": [{"toolgroup_id": "builtin::websearch", "provider_id": "brave"}],
        "server": {"port": 18321},
    }


def environ(folder: Path) -> dict[str, str]:
    """The environment without this user's settings, with the secrets of the stack."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STACKCONF_")}
    return {
        **kept,
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "STACKCONF_CONFIG_HOME": str(folder / "settings"),
        "STACKCONF_DISABLED_PLUGINS": "host,nvidia,amd,intel,apple",
        "LS_T_BRAVE": HIDDEN[0],
        "LS_T_OPENAI": HIDDEN[1],
        "SQLITE_STORE_DIR": str(folder),
        "COLUMNS": "200",
    }


class Server:
    """A process that runs `stackconf serve --runtime llama-stack`."""

    def __init__(self, folder: Path, *options: str, **more: str) -> None:
        self.folder = folder
        (folder / "tmp").mkdir(exist_ok=True)
        self.log = folder / "serve.log"
        self.file = folder / "run.yaml"
        with self.log.open("wb") as log:
            command = [sys.executable, "-c", PROGRAM, "--runtime", "llama-stack", "serve", "-s", "run.yaml"]
            self.process = subprocess.Popen(
                [*command, "--port", "0", *options],
                cwd=folder,
                env={**environ(folder), **more},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        """All that it said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def url(self) -> str:
        """Where this machine reaches it."""
        port = self.until(r"serving .* at https?://\S+:(\d+)")[1]
        return f"http://127.0.0.1:{port}"

    def until(self, pattern: str, begin: int = 0) -> re.Match[str]:
        """Wait until it says something, after so many characters."""
        end = monotonic() + PATIENCE
        while monotonic() < end:
            ended = self.process.poll() is not None
            found = re.compile(pattern).search(self.text, begin)
            if found:
                return found
            assert not ended, f"it ended with {self.process.returncode}:\n{self.text}"
            sleep(0.05)
        raise AssertionError(f"it never said {pattern!r}:\n{self.text}")

    def http(self) -> httpx.Client:
        """A plain HTTP client for it."""
        return httpx.Client(base_url=self.url, timeout=PATIENCE)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    # -- what tests do with it ---------------------------------------------------------------------

    def register(self, wanted: dict[str, Any], **more: Any) -> httpx.Response:
        """Register a configuration and apply it: `{"inference/ollama": {"url": ...}}`."""
        config: dict[str, list[Any]] = {}
        for key, values in wanted.items():
            api, provider_id = key.split("/")
            config.setdefault(api, []).append({"provider_id": provider_id, "config": values})
        with self.http() as http:
            return http.post("/v1/configurations/register", json={"config": config, "apply": True, **more})

    def outcomes(self, answer: httpx.Response) -> dict[str, tuple[str, str]]:
        """How each provider fared: state, and what was said."""
        body = answer.json()
        report = body.get("report") or body
        return {
            each["provider"]: (each["state"], each.get("error") or each.get("detail") or "")
            for each in report["outcomes"]
        }

    def rewrite(self, data: dict[str, Any]) -> None:
        """Have another stack file read."""
        begin = len(self.text)
        self.file.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
        self.process.send_signal(signal.SIGHUP)
        self.until(r"read run.yaml again|the old one goes on", begin)

    def apply(self) -> httpx.Response:
        """Apply what is wanted."""
        with self.http() as http:
            return http.post("/v1/apply")

    def say(self, **options: Any) -> str:
        """What the model of the stack answers."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **options}
        with self.http() as http:
            answer = http.post("/v1/openai/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["choices"][0]["message"]["content"]
        return text


@contextmanager
def serving(folder: Path, data: dict[str, Any], *options: str, **more: str) -> Iterator[Server]:
    """A server on a stack in `folder`, which ends with the block. `more` is for its environment."""
    (folder / "run.yaml").write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    server = Server(folder, *options, **more)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait(PATIENCE)
