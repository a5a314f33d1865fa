"""A stand-in for `vllm serve --config FILE`, run as a program; vLLM itself is not installed here.

It reads the YAML file as vLLM does (https://docs.vllm.ai/en/latest/configuration/serve_args.html:
the long names of arguments) and answers `GET /health` (200, empty) and `GET /v1/models` (OpenAI's list,
with `root` and `max_model_len`) as `vllm/entrypoints/openai/api_server.py` does. With `VLLM_API_KEY` in
its environment, everything under `/v1` wants that bearer token, and `/health` does not.
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KNOWN = {
    "dtype",
    "gpu-memory-utilization",
    "host",
    "max-model-len",
    "max-num-batched-tokens",
    "max-num-seqs",
    "model",
    "port",
    "quantization",
    "served-model-name",
    "tensor-parallel-size",
}


class VllmStandIn(BaseHTTPRequestHandler):
    """One request. `arguments` is what the file said."""

    arguments: dict[str, Any]
    key: str | None = None

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200, None)
        elif self.key and self.headers.get("Authorization") != f"Bearer {self.key}":
            self.answer(401, {"error": "Unauthorized"})
        elif self.path == "/v1/models":
            self.answer(200, {"object": "list", "data": [self.card()]})
        else:
            self.answer(404, {"detail": "Not Found"})

    def card(self) -> dict[str, Any]:
        model = self.arguments["model"]
        return {
            "id": self.arguments.get("served-model-name", model),
            "object": "model",
            "owned_by": "vllm",
            "root": model,
            "parent": None,
            "max_model_len": self.arguments.get("max-model-len", 131072),
        }

    def answer(self, status: int, body: object) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


def main(file: str) -> None:
    import yaml

    arguments = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    unknown = arguments.keys() - KNOWN
    if unknown or "model" not in arguments:
        sys.exit(f"vllm: error: unrecognized arguments: {sorted(unknown)}")  # argparse's words
    handler = type("Handler", (VllmStandIn,), {"arguments": arguments, "key": os.environ.get("VLLM_API_KEY")})
    ThreadingHTTPServer(("127.0.0.1", int(arguments["port"])), handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
