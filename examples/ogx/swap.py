"""Changes the address of `inference/ollama` in the middle of a stream, and shows who answers what.

`python swap.py [SERVER ONE OTHER]`: the server at http://localhost:8321, and the two at 11434 and 11435.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any

USUAL = ("http://localhost:8321", "http://localhost:11434", "http://localhost:11435")
SECONDS = 60.0
BEFORE = 3
"""Words of the stream before the swap."""


class Server:
    """A real llama-stack or OGX server that stackconf hosts."""

    def __init__(self, url: str) -> None:
        self._url = url
        [model, *_] = self.asked("/v1/models")["data"]
        self.is_ogx = "id" in model
        self.field = "base_url" if self.is_ogx else "url"
        self._model = model["id"] if self.is_ogx else model["identifier"]
        self._chat = "/v1/chat/completions" if self.is_ogx else "/v1/openai/v1/chat/completions"

    def asked(self, path: str, body: object = None) -> Any:
        """The answer to a request, which is a POST where it has a body."""
        with self._open(path, body) as answer:
            return json.load(answer)

    def address(self) -> str:
        """Where the provider is now, as the server itself tells."""
        found: str = self.asked("/v1/providers/ollama")["config"][self.field]
        return found

    def swap(self, address: str) -> str:
        """Have the provider ask another address; what the apply says of it."""
        config = {"inference": [{"provider_id": "ollama", "config": {self.field: address}}]}
        self.asked("/v1/configurations/register", config)
        said = [each["error"] or each["detail"] for each in self.asked("/v1/apply", {})["outcomes"]]
        return ", ".join(said) or "nothing to change"

    def say(self) -> str:
        """What the model answers, in one piece."""
        text: str = self.asked(self._chat, self._question)["choices"][0]["message"]["content"]
        return text.strip()

    def stream(self) -> Iterator[str]:
        """What the model answers, as it comes."""
        with self._open(self._chat, {**self._question, "stream": True}) as answer:
            for line in answer:
                data = line.decode().removeprefix("data:").strip()
                if data.startswith("{"):
                    for choice in json.loads(data)["choices"]:
                        yield (choice["delta"].get("content") or "").strip()

    @property
    def _question(self) -> dict[str, Any]:
        return {"model": self._model, "messages": [{"role": "user", "content": "Count to ten."}]}

    def _open(self, path: str, body: object) -> HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"})  # noqa: S310
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=SECONDS)  # noqa: S310
        return answer


def show(server: Server, one: str, other: str) -> None:
    """A stream, and a swap in the middle of it."""
    path = "/v1" if server.is_ogx else ""
    before = server.address()
    after = (one if before.startswith(other) else other) + path
    words = 0
    for word in filter(None, server.stream()):
        print(f"  stream: {word}", flush=True)
        words += 1
        if words == BEFORE:
            print(f"{before} -> {after}: {server.swap(after)}")
            print(f"/v1/providers: {server.address()}")
            print(f"new request: {server.say()}", flush=True)
    print(f"the stream is at its end after {words} words")


def main() -> None:
    """Show it, or say in one line why not."""
    if len(sys.argv) not in (1, 4):
        sys.exit("usage: python swap.py [SERVER ONE OTHER]")
    url, one, other = sys.argv[1:] or USUAL
    try:
        show(Server(url), one, other)
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.url}: {error.read().decode()}")
    except OSError as error:
        sys.exit(f"{url}: {error}")


if __name__ == "__main__":
    main()
