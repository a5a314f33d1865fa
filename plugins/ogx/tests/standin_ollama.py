"""A stand-in for Ollama: its documented protocol as far as upstream's adapters use it, and no model.

Every answer names the backend and repeats what it was asked, and a stream's chunks are counted and end
with a checksum, so that a client can tell a lost, cut, mixed or corrupted answer from a right one.

    python standin_ollama.py PORT NAME [--chunks N] [--delay SECONDS] [--models a,b]

It misbehaves when it is told to, until it is told otherwise:

    curl -d '{"fault": "breaks"}' http://127.0.0.1:PORT/fault
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

ENDS_WITH = "sum"
DIMENSIONS = 8
FAULTS = ("", "breaks", "ends early", "mixes", "refuses", "hangs")
"""How it can misbehave: a stream breaks off or ends in the middle, goes on in another backend's name, the
request is refused, or never answered.
"""


def pieces(name: str, asked: str, chunks: int) -> list[str]:
    """What a backend says to a question, piece by piece.

    >>> pieces("A", "7", 2)
    ['A/7/0 ', 'A/7/1 ', 'sum:047ed974f6']
    """
    said = [f"{name}/{asked}/{number} " for number in range(chunks)]
    return [*said, f"{ENDS_WITH}:{sha256(''.join(said).encode()).hexdigest()[:10]}"]


def wrong(text: str, asked: str, chunks: int) -> str:
    """What is wrong with an answer; "" if it is whole, to what was asked, and of one backend.

    >>> whole = "".join(pieces("A", "7", 2))
    >>> wrong(whole, "7", 2), wrong(whole, "8", 2), wrong(whole[:-3], "7", 2)
    ('', "not to 8: 'A/7/0 A/7/1 sum:047ed974f6'", "cut or mixed: 'A/7/0 A/7/1 sum:047ed97'")
    """
    name = text.partition("/")[0]
    if text == "".join(pieces(name, asked, chunks)):
        return ""
    return f"not to {asked}: {text!r}" if f"/{asked}/" not in text else f"cut or mixed: {text!r}"


def vector(name: str, text: object) -> list[float]:
    """What a backend makes of a text: other numbers for each backend and each text.

    >>> vector("A", "7") == vector("B", "7"), len(vector("A", "7"))
    (False, 8)
    """
    return [byte / 255 for byte in sha256(f"{name}/{text}".encode()).digest()[:DIMENSIONS]]


class Backend:
    """One stand-in."""

    def __init__(self, name: str, chunks: int, delay: float, models: list[str]) -> None:
        self._name, self._chunks, self._delay, self._models = name, chunks, delay, models
        self._counts = {"begun": 0, "ended": 0, "cut": 0}
        self._fault = ""

    def app(self) -> Starlette:
        """Its routes."""
        get, post = ["GET"], ["POST"]
        return Starlette(
            routes=[
                Route("/api/version", self._version, methods=get),
                Route("/api/ps", self._running, methods=get),
                Route("/api/tags", self._tags, methods=get),
                Route("/api/chat", self._chat, methods=post),
                Route("/api/generate", self._chat, methods=post),
                Route("/api/embed", self._embed, methods=post),
                Route("/v1/models", self._listed, methods=get),
                Route("/v1/chat/completions", self._completions, methods=post),
                Route("/v1/embeddings", self._embeddings, methods=post),
                Route("/counts", self._counted, methods=get),
                Route("/fault", self._told, methods=post),
            ]
        )

    async def _counted(self, _: Request) -> Response:
        return JSONResponse(self._counts)

    async def _told(self, request: Request) -> Response:
        fault = (await request.json())["fault"]
        if fault not in FAULTS:
            return JSONResponse({"error": f"it knows {', '.join(FAULTS)}"}, 400)
        self._fault = fault
        return JSONResponse({"fault": fault})

    async def _refusal(self) -> Response | None:
        if self._fault == "hangs":
            await asyncio.Event().wait()
        return JSONResponse({"error": "no"}, 503) if self._fault == "refuses" else None

    def _said(self, asked: str) -> list[str]:
        said = pieces(self._name, asked, self._chunks)
        if self._fault == "ends early":
            return said[: len(said) // 2]
        if self._fault == "mixes":
            return said[:1] + pieces(f"not{self._name}", asked, self._chunks)[1:]
        return said

    async def _version(self, _: Request) -> Response:
        return JSONResponse({"version": "0.9.9"})

    async def _running(self, _: Request) -> Response:
        return JSONResponse({"models": []})

    async def _tags(self, _: Request) -> Response:
        listed = [
            {"name": each, "model": each, "size": 1, "digest": "0", "details": {}} for each in self._models
        ]
        return JSONResponse({"models": listed})

    async def _listed(self, _: Request) -> Response:
        data = [{"id": each, "object": "model", "created": 1, "owned_by": "library"} for each in self._models]
        return JSONResponse({"object": "list", "data": data})

    async def _embed(self, request: Request) -> Response:
        given = (await request.json())["input"]
        texts = given if isinstance(given, list) else [given]
        return JSONResponse({"model": "x", "embeddings": [vector(self._name, each) for each in texts]})

    async def _embeddings(self, request: Request) -> Response:
        body = await request.json()
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        data = [
            {"object": "embedding", "index": place, "embedding": vector(self._name, each)}
            for place, each in enumerate(texts)
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return JSONResponse({"object": "list", "data": data, "model": body["model"], "usage": usage})

    async def _chat(self, request: Request) -> Response:
        """Ollama's own protocol: lines of JSON."""
        body = await request.json()
        asked = body.get("prompt") or body["messages"][-1]["content"]
        said = self._said(_number(asked))
        if refusal := await self._refusal():
            return refusal

        def line(text: str, *, done: bool) -> dict[str, Any]:
            told = {"model": body["model"], "created_at": "2026-01-01T00:00:00Z", "done": done}
            told |= {"done_reason": "stop"} if done else {}
            about = (
                {"response": text}
                if "prompt" in body
                else {"message": {"role": "assistant", "content": text}}
            )
            return told | about

        if not body.get("stream", True):
            self._counts["begun"] += 1
            await asyncio.sleep(self._delay)
            self._counts["ended"] += 1
            return JSONResponse(line("".join(said), done=True))
        lines = [line(each, done=False) for each in said] + [line("", done=True)]
        stream = self._slowly(json.dumps(each) + "\n" for each in lines)
        return StreamingResponse(stream, media_type="application/x-ndjson")

    async def _completions(self, request: Request) -> Response:
        """OpenAI's protocol: events."""
        body = await request.json()
        said = self._said(_number(body["messages"][-1]["content"]))
        if refusal := await self._refusal():
            return refusal
        about = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
        usage = {"prompt_tokens": 1, "completion_tokens": len(said), "total_tokens": 1 + len(said)}
        if not body.get("stream"):
            self._counts["begun"] += 1
            await asyncio.sleep(self._delay)
            self._counts["ended"] += 1
            message = {"role": "assistant", "content": "".join(said)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return JSONResponse({**about, "object": "chat.completion", "choices": [choice], "usage": usage})

        def event(delta: dict[str, str], reason: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            return (
                f"data: {json.dumps({**about, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"
            )

        events = [event({"role": "assistant", "content": each}) for each in said]
        stream = self._slowly(iter([*events, event({}, "stop"), "data: [DONE]\n\n"]))
        return StreamingResponse(stream, media_type="text/event-stream")

    async def _slowly(self, parts: Iterator[str]) -> AsyncIterator[str]:
        self._counts["begun"] += 1
        whole = False
        try:
            for number, each in enumerate(parts):
                if self._fault == "breaks" and number:
                    raise ConnectionAbortedError(self._fault)
                yield each
                await asyncio.sleep(self._delay)
            whole = True
        finally:
            self._counts["ended" if whole else "cut"] += 1


def _number(asked: object) -> str:
    """The last word of what was asked, which tells one request from another."""
    text = asked if isinstance(asked, str) else json.dumps(asked)
    return text.replace("<|eot_id|>", " ").split("#")[-1].split()[0].strip('"}]')


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="A stand-in for Ollama.")
    parser.add_argument("port", type=int)
    parser.add_argument("name")
    parser.add_argument("--chunks", type=int, default=5)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer and chunk")
    parser.add_argument("--models", default="llama3.2:3b")
    given = parser.parse_args()
    backend = Backend(given.name, given.chunks, given.delay, given.models.split(","))
    uvicorn.run(backend.app(), host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
