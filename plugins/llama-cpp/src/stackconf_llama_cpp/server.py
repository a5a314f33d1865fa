"""llama.cpp's HTTP API, as far as stackconf asks it.

`GET /props`, `GET /v1/models`, `GET` and `POST /lora-adapters`. Follows `tools/server/README.md` of
https://github.com/ggml-org/llama.cpp, and was tried with the server of b11434.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from stackconf_llama_cpp.builds import build_number
from stackconf_remote.server import JsonServer, Rejected, Unreachable, headers_of, one_line, timeouts_of

if TYPE_CHECKING:
    from stackconf_llama_cpp.config import LlamaCppServerConfig

__all__ = ["Adapter", "Rejected", "Running", "Server", "Unreachable"]


@frozen
class Running:
    """What a server says about itself. `None` is what it does not say."""

    names: tuple[str, ...] = ()
    """What its model is called: its id, and its other names."""
    slots: int | None = None
    context: int | None = None
    """Of one slot."""
    model_path: str | None = None
    build: int | None = None

    def __str__(self) -> str:
        parts = [f"serves {', '.join(self.names) or 'no model'}"]
        if self.context is not None:
            several = f"{self.slots} slots of " if self.slots and self.slots > 1 else ""
            parts.append(f"{several}{self.context} tokens")
        if self.build is not None:
            parts.append(f"build {self.build}")
        return ", ".join(parts)


@frozen
class Adapter:
    """A LoRA adapter that the server has loaded."""

    id: int
    name: str
    """Of its file."""
    scale: float


@frozen
class Server(JsonServer):
    """One llama.cpp server. Every method raises `Unreachable` or `Rejected`, each one line."""

    product: ClassVar[str] = "llama.cpp"
    kind: ClassVar[str] = "a llama.cpp server"
    unauthorised: ClassVar[str] = "auth_credential"

    @classmethod
    def of(cls, config: LlamaCppServerConfig) -> Server:
        """The server of a configuration."""
        tls = config.network.tls if config.network else None
        return cls(
            config.address, *timeouts_of(config.network), headers_of(config.token, config.network), tls
        )

    def error_in(self, answer: Mapping[str, Any]) -> object:
        """OpenAI's form has an object there, with the message in it."""
        error = answer.get("error")
        return error.get("message") if isinstance(error, dict) else error

    def running(self) -> Running:
        """What it serves, and how. A server that shows no `/props` says its model only."""
        entries = self.ask("GET", "/v1/models").get("data")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise Rejected(f"{self.address}/v1/models does not answer like {self.kind}; check url")
        names = tuple(dict.fromkeys(name for entry in entries for name in _names(entry)))
        try:
            props = self.ask("GET", "/props")
        except Rejected as error:
            # Only /props wants the key.
            if error.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
                raise
            return Running(names)
        settings = props.get("default_generation_settings")
        path = props.get("model_path")
        return Running(
            names,
            _whole(props.get("total_slots")),
            _whole(settings.get("n_ctx")) if isinstance(settings, dict) else None,
            one_line(path) if isinstance(path, str) else None,
            build_number(str(props.get("build_info"))),
        )

    def adapters(self) -> tuple[Adapter, ...]:
        """The LoRA adapters that it was started with."""
        found = []
        for each in self.ask_list("GET", "/lora-adapters"):
            number, path, scale = (
                (each.get(key) for key in ("id", "path", "scale")) if isinstance(each, dict) else [None] * 3
            )
            if (
                not isinstance(number, int)
                or not isinstance(path, str)
                or not isinstance(scale, (int, float))
            ):
                raise Rejected(f"{self.address}/lora-adapters does not answer like {self.kind}; check url")
            found.append(Adapter(number, one_line(path.replace("\\", "/").rpartition("/")[2]), float(scale)))
        return tuple(found)

    def set_scales(self, scales: Mapping[int, float]) -> None:
        """How much each adapter counts, by its number; one that is not named counts nothing then."""
        self.ask(
            "POST", "/lora-adapters", [{"id": number, "scale": scale} for number, scale in scales.items()]
        )


def _names(entry: Mapping[str, Any]) -> list[str]:
    others = entry.get("aliases")
    names = [entry.get("id"), *(others if isinstance(others, list) else [])]
    return [one_line(name) for name in names if isinstance(name, str) and name]


def _whole(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None
