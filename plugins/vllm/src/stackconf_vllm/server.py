"""vLLM's HTTP API, as far as stackconf asks it: `GET /health` and `GET /v1/models`.

Follows https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from stackconf_remote.server import JsonServer, Rejected, Unreachable, headers_of, one_line, timeouts_of

if TYPE_CHECKING:
    from stackconf_vllm.config import RemoteVllmConfig

__all__ = ["Rejected", "Served", "Server", "Unreachable"]


@frozen
class Served:
    """One model, as `GET /v1/models` tells it."""

    name: str
    max_model_len: int | None = None
    """`None` for adapters, and for servers that do not say."""


@frozen
class Server(JsonServer):
    """One vLLM server. Every method raises `Unreachable` or `Rejected`, each one line."""

    product: ClassVar[str] = "vLLM"
    kind: ClassVar[str] = "a vLLM server"
    unauthorised: ClassVar[str] = "api_token"

    @classmethod
    def of(cls, config: RemoteVllmConfig, address: str) -> Server:
        """The server of a configuration."""
        headers = headers_of(config.token, config.network)
        return cls(address, *timeouts_of(config.network), headers, config.tls)

    def error_in(self, answer: Mapping[str, Any]) -> object:
        """OpenAI's form has an object there, with the message in it."""
        error = answer.get("error")
        return error.get("message") if isinstance(error, dict) else error

    def models(self) -> tuple[Served, ...]:
        """What it serves: its model under each of its names, and its adapters."""
        entries = self.ask("GET", "/v1/models").get("data")
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and isinstance(entry.get("id"), str) for entry in entries
        ):
            raise Rejected(f"{self.address}/v1/models does not answer like a vLLM server; check url")
        return tuple(Served(one_line(each["id"]), _whole(each.get("max_model_len"))) for each in entries)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
