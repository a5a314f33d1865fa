"""Ollama's HTTP API, as far as loading a model needs it.

Follows https://github.com/ollama/ollama/blob/main/docs/api.md.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from stackconf_remote.server import JsonServer, Rejected, Unreachable, headers_of, one_line, timeouts_of

if TYPE_CHECKING:
    from stackconf_ollama.config import OllamaConfig

__all__ = ["Rejected", "Running", "Server", "Unreachable", "full_name"]

POLL_SECONDS = 0.05


@frozen
class Running:
    """A loaded model, as `GET /api/ps` tells it."""

    name: str
    context_length: int | None = None
    """`None` from servers that do not say (before https://github.com/ollama/ollama/pull/11331)."""
    expires_at: datetime | None = None


def full_name(model: str) -> str:
    """The model's name with its tag, which is `latest` where none is given.

    >>> full_name("llama3.2"), full_name("registry:5000/a/b"), full_name("llama3.2:3b")
    ('llama3.2:latest', 'registry:5000/a/b:latest', 'llama3.2:3b')
    """
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


@frozen
class Server(JsonServer):
    """One Ollama server. Every method raises `Unreachable` or `Rejected`, each one line."""

    product: ClassVar[str] = "Ollama"
    kind: ClassVar[str] = "an Ollama server"
    most_bytes: ClassVar[int] = 16 * 1024**2

    @classmethod
    def of(cls, config: OllamaConfig) -> Server:
        """The server of a configuration; credentials go along only where they may."""
        network = config.network
        headers = headers_of(config.token, network) if config.may_see_credentials else {}
        return cls(config.address, *timeouts_of(network), headers, network.tls if network else None)

    def version(self) -> str:
        """The server's version, such as `0.12.3`."""
        version = self.ask("GET", "/api/version").get("version")
        if not isinstance(version, str) or not version:
            raise Rejected(f"{self.address} answers, but not like an Ollama server (no version); check url")
        return one_line(version, 40)

    def models(self) -> dict[str, str]:
        """The models on the server by full name, with the host that runs them: `""` is this server.

        A cloud model is listed by the server, and runs elsewhere.
        """
        return {
            full_name(entry["name"]): one_line(entry.get("remote_host") or "")
            for entry in self._list("/api/tags")
        }

    def running(self) -> dict[str, Running]:
        """The models in memory, by full name."""
        entries = [
            Running(full_name(entry["name"]), _whole(entry.get("context_length")), _moment(entry))
            for entry in self._list("/api/ps")
        ]
        return {entry.name: entry for entry in entries}

    def load(
        self, model: str, options: Mapping[str, int], keep_alive: int | str | None, timeout: float
    ) -> datetime | None:
        """Load a model with `options`; returns the server's clock at that moment, where it says.

        An empty prompt loads. Models that only embed refuse that, and are loaded by an embed
        request without input.
        """
        body: dict[str, Any] = {"model": model, "stream": False, "options": dict(options)}
        if keep_alive is not None:
            body["keep_alive"] = keep_alive
        try:
            answer = self.ask("POST", "/api/generate", body, timeout)
        except Rejected as error:
            if error.status != HTTPStatus.BAD_REQUEST or "does not support generate" not in str(error):
                raise
            del body["stream"]
            answer = self.ask("POST", "/api/embed", body, timeout)
        return _moment({"expires_at": answer.get("created_at")})

    def unload(self, model: str) -> bool:
        """Take a model out of memory; `False` where it stays for now, because a request uses it.

        An empty prompt with `keep_alive` 0 unloads, shortly after the answer: a load that comes
        before that would be undone by it, so this waits, at most as long as for an answer.
        """
        self.ask("POST", "/api/generate", {"model": model, "stream": False, "keep_alive": 0})
        deadline = time.monotonic() + self.read_seconds
        while full_name(model) in self.running():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _list(self, path: str) -> list[dict[str, Any]]:
        entries = self.ask("GET", path).get("models")
        # A server without models answers null in some versions.
        entries = [] if entries is None else entries
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries
        ):
            raise Rejected(f"{self.address}{path} does not answer like an Ollama server; check url")
        return entries


def _moment(entry: Mapping[str, Any]) -> datetime | None:
    text = entry.get("expires_at")
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
