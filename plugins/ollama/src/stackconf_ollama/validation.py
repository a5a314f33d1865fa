"""What is wrong with a configuration beyond what its class can express."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stackconf import Issue
from stackconf_ollama.defaults import threads
from stackconf_remote.network import is_this_machine

if TYPE_CHECKING:
    from stackconf import Hardware
    from stackconf.types import Level
    from stackconf_ollama.config import OllamaConfig


def issues(user_config: Mapping[str, object], config: OllamaConfig, hardware: Hardware) -> Iterator[Issue]:
    """Every warning about `config`; the addresses themselves were checked by the class."""
    yield from _about_addresses(user_config, config)
    if config.model is None:
        yield from _about_unused(user_config)
    elif is_this_machine(config.address):
        yield from _about_threads(config, hardware)
        yield from _about_fit(config)
    else:
        yield from _about_another_machine(user_config, config, hardware)


def _about_addresses(user_config: Mapping[str, object], config: OllamaConfig) -> Iterator[Issue]:
    parts = urlsplit(config.address)
    if parts.scheme.lower() == "http" and parts.port is None and "url" in user_config:
        yield Issue(
            "the address has no port, so port 80 is used",
            level="warning",
            path="url",
            hint="Ollama itself listens on port 11434",
        )
    if config.has_credentials and not config.may_see_credentials:
        yield Issue(
            f"credentials are not sent to {config.address}, for base_url does not name that server",
            level="warning",
            path="url",
            hint=f"an operator may set base_url to {config.openai_url}",
        )
    if config.base_url is not None and "url" not in user_config and not config.may_see_credentials:
        yield Issue(
            f"url ({config.address}) and base_url name two servers; url decides",
            level="warning",
            path="base_url",
            hint="remove one of the two",
        )


def _about_unused(user_config: Mapping[str, object]) -> Iterator[Issue]:
    options = ("num_ctx", "num_thread", "num_batch", "num_gpu", "keep_alive")
    for name in options:
        if user_config.get(name) is not None:
            yield Issue("has no effect while no model is set", level="warning", path=name, hint="set model")


def _about_threads(config: OllamaConfig, hardware: Hardware) -> Iterator[Issue]:
    best = threads(hardware)
    if best is not None and config.num_thread is not None and config.num_thread > best.value:
        yield Issue(
            f"{config.num_thread} threads wait for each other on this machine: {best.reason}",
            level="warning",
            path="num_thread",
            hint=f"use at most {best.value}",
        )


def _about_another_machine(
    user_config: Mapping[str, object], config: OllamaConfig, hardware: Hardware
) -> Iterator[Issue]:
    """Values that this machine's hardware gives, though the model runs elsewhere."""
    best = threads(hardware)
    if best is not None and "num_thread" not in user_config and config.num_thread == best.value:
        yield Issue(
            f"{best.value} follows from this machine's hardware, but Ollama runs at {config.address}",
            level="warning",
            path="num_thread",
            hint="set it for that machine, or to null to leave it to the server",
        )


def _about_fit(config: OllamaConfig) -> Iterator[Issue]:
    told = config.told
    if told.problem:
        path = "num_ctx" if config.num_ctx is not None and "num_ctx" not in told.values else "model"
        # Ollama refuses what its memory does not hold; what is slow is the person's choice.
        level: Level = "error" if told.certain else "warning"
        yield Issue(told.problem, level=level, path=path, hint=told.advice)
    longest = told.shape.max_context if told.shape else None
    if longest is not None and config.num_ctx is not None and config.num_ctx > longest:
        yield Issue(
            f"{config.num_ctx} is longer than the model's own context, and the server takes that",
            level="warning",
            path="num_ctx",
            hint=f"use at most {longest}",
        )
