"""The Acme inference server for stackconf: provider type `inference/remote::acme`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from stackconf import Applied, Issue, ProviderType, compute_threads, hookimpl, memory_share, user_field

if TYPE_CHECKING:
    from stackconf import Hardware

stackconf_api = 1

MIB = 1024**2
GIB = 1024**3


class AcmeConfig(BaseModel):
    """The settings of one Acme server."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: str = user_field("http://127.0.0.1:7860", update="reload", description="Where the server listens")
    api_key: SecretStr | None = user_field(None, update="in_place", description="Sent as a bearer token")
    threads: int | None = Field(
        default=None,
        ge=1,
        description="Compute threads; null leaves it to the server",
        json_schema_extra={"user_field": True, "update": "reload"},
    )
    cache_bytes: int | None = user_field(None, ge=16 * MIB, update="in_place", description="Prompt cache")
    model_dir: str = Field(default="models", description="Where the server finds its models")


provides = (
    ProviderType("inference", "remote::acme", AcmeConfig, description="Models served by an Acme server"),
)


@hookimpl
def default_config(hardware: Hardware) -> Mapping[str, object]:
    """One thread for each usable core, and a sixteenth of the memory for prompts."""
    derived = {
        "threads": compute_threads(hardware),
        "cache_bytes": memory_share(hardware, 1 / 16, at_most=4 * GIB),
    }
    return {name: value for name, value in derived.items() if value is not None}


@hookimpl
def validate_user_config(config: AcmeConfig, hardware: Hardware) -> Iterator[Issue]:
    """What the class cannot see: the machine, and the parts of the URL."""
    if urlsplit(config.url).scheme != "http":
        yield Issue("is not an http URL", path="url", hint="such as http://127.0.0.1:7860")
    total = hardware.memory.usable_bytes
    if total is not None and config.cache_bytes is not None and config.cache_bytes > total // 2:
        yield Issue(
            "takes more than half of the usable memory", path="cache_bytes", hint=f"use at most {total // 2}"
        )


class Refused(Exception):
    """The server answered, and not with yes."""


@hookimpl
def apply_config(config: AcmeConfig | None, previous: AcmeConfig | None) -> Applied | None:
    """Give the server its settings; when the provider leaves, give it back its own."""
    target = config or previous
    if target is None:
        return None
    wanted = {} if config is None else config.model_dump(include={"threads", "cache_bytes", "model_dir"})
    try:
        before = _ask(target, "GET", "/settings")
        _ask(target, "PUT", "/settings", wanted)
    except OSError as error:
        return Applied(pending=f"cannot reach {target.url}: {error.strerror or error}")

    def undo() -> None:
        _ask(target, "PUT", "/settings", before)

    def wrong(expected: object) -> str | None:
        try:
            now = _ask(target, "GET", "/settings")
        except OSError as error:
            return f"no answer from {target.url}: {error.strerror or error}"
        return None if now == expected else "the server has other settings by now"

    return Applied(
        f"settings of {target.url} changed",
        undo=undo,
        check=lambda: wrong(wanted),
        check_undo=lambda: wrong(before),
    )


def _ask(config: AcmeConfig, method: str, path: str, body: Any = None) -> Any:
    """The server's answer. Raises `OSError` where it cannot be reached, `Refused` where it says no."""
    from http.client import OK, HTTPConnection

    parts = urlsplit(config.url)
    connection = HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=2)
    headers = {"Content-Type": "application/json"}
    if config.api_key is not None:
        headers["Authorization"] = f"Bearer {config.api_key.get_secret_value()}"
    try:
        connection.request(method, path, json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    if answer.status != OK:
        raise Refused(f"{method} {path}: status {answer.status}: {text}")
    return json.loads(text)
