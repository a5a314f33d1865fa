"""The plugin: llama.cpp's server as `inference/remote::llama-cpp-server`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stackconf import Issue, ProviderType, hookimpl

if TYPE_CHECKING:
    from stackconf import Applied, Hardware
    from stackconf_llama_cpp.config import LlamaCppServerConfig

stackconf_api = 1


def _is_here(config: Mapping[str, Any]) -> bool:
    """Whether a server uses this machine's cards. Only the operator can say so, by naming its file."""
    return bool(config.get("config_file"))


provides = (
    ProviderType(
        "inference",
        "remote::llama-cpp-server",
        "stackconf_llama_cpp.config:LlamaCppServerConfig",
        description="A GGUF model served by llama.cpp, on this machine or another",
        accelerators=_is_here,
    ),
)


@hookimpl
def default_config(hardware: Hardware) -> Mapping[str, object]:
    """What there is to compute with; the sizes follow from it in the config class.

    They depend on the model and on everything else that is set, which this hook does not see.
    """
    from stackconf_llama_cpp.machine import facts

    return facts(hardware)


@hookimpl
def validate_user_config(user_config: Mapping[str, object], config: LlamaCppServerConfig) -> list[Issue]:
    """What does not fit and what would, what cannot work together, what has no effect."""
    from stackconf_llama_cpp.validation import issues

    return list(issues(user_config, config))


@hookimpl
def apply_config(
    config: LlamaCppServerConfig | None, previous: LlamaCppServerConfig | None
) -> Applied | None:
    """Ask the server, or write its file and restart it; see `stackconf_llama_cpp.applying`."""
    from stackconf_llama_cpp.applying import change, leave

    return leave(previous) if config is None else change(config)
