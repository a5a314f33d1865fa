"""A stand-in for `llama-server`, run as a program; what it does was compared with the server of b11434.

It takes its arguments from `LLAMA_ARG_*` variables (`tools/server/README.md` of llama.cpp) and answers
`GET /health` (503 while it loads), `GET /v1/models`, `GET /props`, `GET` and `POST /lora-adapters`. With
`LLAMA_API_KEY` in its environment everything but the first two wants that bearer token. A variable that
it does not know is ignored, and a value that it cannot use ends it, as there.
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any

CACHE_TYPES = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"}
LOAD_MODES = {"auto", "none", "mmap", "mlock", "mmap+mlock", "dio"}
TRUE, FALSE = {"on", "enabled", "true", "1"}, {"off", "disabled", "false", "0"}


class LlamaStandIn(BaseHTTPRequestHandler):
    """One request. `variables` is its environment, `longest` the model's own context."""

    variables: dict[str, str]
    longest = 8192
    adapters: list[dict[str, Any]]
    ready = 0.0

    def do_GET(self) -> None:
        if monotonic() < self.ready:
            self.fail(503, "Loading model", "unavailable_error")
        elif self.path == "/health":
            self.answer(200, {"status": "ok"})
        elif self.path == "/v1/models":
            self.answer(200, {"object": "list", "data": [self.card()]})
        elif not self.known():
            self.fail(401, "Invalid API Key", "authentication_error")
        elif self.path == "/props":
            self.answer(200, self.props())
        elif self.path == "/lora-adapters":
            self.answer(200, self.adapters)
        else:
            self.fail(404, "File Not Found", "not_found_error")

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.known():
            self.fail(401, "Invalid API Key", "authentication_error")
        elif self.path != "/lora-adapters":
            self.fail(404, "File Not Found", "not_found_error")
        else:
            scales = {each["id"]: each["scale"] for each in sent}
            for each in self.adapters:
                each["scale"] = scales.get(each["id"], 0.0)
            self.answer(200, {"success": True})

    def known(self) -> bool:
        key = self.variables.get("LLAMA_API_KEY")
        return key is None or self.headers.get("Authorization") == f"Bearer {key}"

    def name(self) -> str:
        return self.variables.get("LLAMA_ARG_ALIAS") or self.variables["LLAMA_ARG_MODEL"]

    def card(self) -> dict[str, Any]:
        return {
            "id": self.name(),
            "aliases": [self.name()],
            "object": "model",
            "owned_by": "llamacpp",
            "meta": None,
        }

    def props(self) -> dict[str, Any]:
        count, shared = int(self.variables.get("LLAMA_ARG_N_PARALLEL", -1)), False
        if count < 0:
            count, shared = 4, True
        shared = shared or self.variables.get("LLAMA_ARG_KV_UNIFIED") in TRUE
        context = int(self.variables.get("LLAMA_ARG_CTX_SIZE", 0)) or self.longest
        each = context if shared else context // count
        return {
            "default_generation_settings": {"params": {}, "n_ctx": min(-(-each // 256) * 256, self.longest)},
            "total_slots": count,
            "model_alias": self.name(),
            "model_path": self.variables["LLAMA_ARG_MODEL"],
            "build_info": "b11434-stand-in",
        }

    def fail(self, status: int, message: str, kind: str) -> None:
        self.answer(status, {"error": {"code": status, "message": message, "type": kind}})

    def answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


def handler(variables: dict[str, str], *adapters: str) -> type[LlamaStandIn]:
    loaded = [{"id": number, "path": path, "scale": 1.0} for number, path in enumerate(adapters)]
    return type("Handler", (LlamaStandIn,), {"variables": variables, "adapters": loaded})


def refuse(variables: dict[str, str]) -> None:
    """What llama-server cannot use ends it."""
    for name in ("LLAMA_ARG_CACHE_TYPE_K", "LLAMA_ARG_CACHE_TYPE_V"):
        if variables.get(name, "f16") not in CACHE_TYPES:
            sys.exit(f"error while handling environment variable {name}")
    if variables.get("LLAMA_ARG_FLASH_ATTN", "auto") not in TRUE | FALSE | {"auto"}:
        sys.exit("error: unknown value for --flash-attn")
    if variables.get("LLAMA_ARG_LOAD_MODE", "auto") not in LOAD_MODES:
        sys.exit("invalid value")
    if Path(variables["LLAMA_ARG_MODEL"]).read_bytes()[:4] != b"GGUF":
        sys.exit("failed to load model")


def main(*arguments: str) -> None:
    variables = {name: value for name, value in os.environ.items() if name.startswith("LLAMA_")}
    refuse(variables)
    adapters = [each for each in arguments if each != "--lora"]
    own = handler(variables, *adapters)
    own.ready = monotonic() + 0.2
    ThreadingHTTPServer(("127.0.0.1", int(variables["LLAMA_ARG_PORT"])), own).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
