"""The plugin: Ollama as `inference/remote::ollama`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stackconf import Issue, ProviderType, hookimpl

if TYPE_CHECKING:
    from stackconf import Applied, Hardware
    from stackconf_ollama.config import OllamaConfig

stackconf_api = 1

provides = (
    ProviderType(
        "inference",
        "remote::ollama",
        "stackconf_ollama.config:OllamaConfig",
        description="Models served by Ollama, on this machine or another",
        accelerators=True,
    ),
)


@hookimpl
def default_config(hardware: Hardware) -> Mapping[str, object] | None:
    """Threads, and what else there is to compute with; the context follows in the config class.

    It depends on the model and on everything else that is set, which this hook does not see.
    """
    from stackconf_ollama.defaults import facts

    return facts(hardware) or None


@hookimpl
def validate_user_config(
    user_config: Mapping[str, object], config: OllamaConfig, hardware: Hardware
) -> list[Issue]:
    """What the class cannot see: another machine, another server, more threads than cores."""
    from stackconf_ollama.validation import issues

    return list(issues(user_config, config, hardware))


@hookimpl
def apply_config(config: OllamaConfig | None, previous: OllamaConfig | None) -> Applied | None:
    """Load the model with the derived options; see `stackconf_ollama.loading`."""
    from stackconf_ollama.loading import change, leave

    if config is None:
        return leave(previous) if previous is not None else None
    return change(config, previous)
