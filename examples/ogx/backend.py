"""A stand-in for Ollama, for machines that have none: it answers slowly, word by word, and says who it is.

`python backend.py 11434 first`, and in another terminal `python backend.py 11435 second`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "llama3.2:3b"
SECONDS = 0.5
"""Between two words."""


class Backend(BaseHTTPRequestHandler):
    """What of Ollama's protocol the servers use: which models there are, and chat as OpenAI has it."""

    protocol_version = "HTTP/1.1"
    name = "backend"

    def do_GET(self) -> None:
        """Ollama's own lists of models, and OpenAI's."""
        path = self.path.partition("?")[0]
        if path == "/v1/models":
            model = {"id": MODEL, "object": "model", "created": 1, "owned_by": "library"}
            self.answer({"object": "list", "data": [model]})
        elif path in ("/api/tags", "/api/ps"):
            self.answer({"models": [{"name": MODEL, "model": MODEL}]})
        elif path in ("/", "/api/version"):
            self.answer({"version": "0.0.0"})
        else:
            self.answer({"error": f"no {path} here"}, 404)

    def do_POST(self) -> None:
        """A chat completion, in one piece or as a stream."""
        given = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        if self.path != "/v1/chat/completions":
            self.answer({"error": f"no {self.path} here"}, 404)
            return
        words = [f"{number} from {self.name}\n" for number in range(1, 11)]
        about = {"id": "chatcmpl-1", "created": 1, "model": given["model"]}
        if given.get("stream"):
            self.stream(words, about | {"object": "chat.completion.chunk"})
            return
        message = {"role": "assistant", "content": words[0]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        self.answer(about | {"object": "chat.completion", "choices": [choice], "usage": usage})

    def stream(self, words: Iterable[str], about: dict[str, Any]) -> None:
        """Events, each of them a chunk of HTTP."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for word in words:
            self.event(about, {"role": "assistant", "content": word}, None)
            time.sleep(SECONDS)
        self.event(about, {}, "stop")
        self.chunk("data: [DONE]\n\n")
        self.chunk("")

    def event(self, about: dict[str, Any], delta: dict[str, str], reason: str | None) -> None:
        """One event of a stream."""
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        self.chunk(f"data: {json.dumps(about | {'choices': [choice]})}\n\n")

    def chunk(self, text: str) -> None:
        """One chunk; an empty one is the last."""
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def answer(self, data: dict[str, Any], status: int = 200) -> None:
        """An answer in one piece."""
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", _size: int | str = "-") -> None:
        """One line for each request, with the name."""
        print(f"{self.name}: {self.command} {self.path} {int(code)}", flush=True)


def main() -> None:
    """Serve until told to end."""
    if len(sys.argv) != 3:  # noqa: PLR2004
        sys.exit("usage: python backend.py PORT NAME")
    Backend.name = sys.argv[2]
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Backend)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
