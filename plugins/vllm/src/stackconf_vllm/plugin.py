"""The plugin: vLLM as `inference/remote::vllm` and `inference/inline::vllm`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stackconf import Issue, ProviderType, hookimpl

if TYPE_CHECKING:
    from stackconf import Applied, Because, Hardware, Provider
    from stackconf_vllm.config import InlineVllmConfig, RemoteVllmConfig

stackconf_api = 1


def _is_here(config: Mapping[str, Any]) -> bool:
    """Whether a server uses this machine's cards. Only the operator can say so, by naming its file."""
    return bool(config.get("config_file"))


provides = (
    ProviderType(
        "inference",
        "remote::vllm",
        "stackconf_vllm.config:RemoteVllmConfig",
        description="Models served by vLLM, on this machine or another",
        accelerators=_is_here,
    ),
    ProviderType(
        "inference",
        "inline::vllm",
        "stackconf_vllm.config:InlineVllmConfig",
        description="vLLM inside the stack's own process",
        accelerators=True,
    ),
)


@hookimpl
def default_config(provider: Provider, hardware: Hardware) -> Mapping[str, object] | None:
    """What the engine has to compute on; the sizes follow from it in the config class.

    They depend on the model and on everything else that is set, which this hook does not see.
    """
    from stackconf_vllm.units import selection, units

    found: dict[str, Because[Any] | None] = {"devices": units(hardware)}
    if provider.provider_type == "remote::vllm":
        found["visible_devices"] = selection(hardware)
    return {name: given for name, given in found.items() if given is not None} or None


@hookimpl
def validate_user_config(
    user_config: Mapping[str, object], config: RemoteVllmConfig | InlineVllmConfig
) -> list[Issue]:
    """What does not fit and what would, what a card cannot do, what has no effect."""
    from stackconf_vllm.validation import issues

    return list(issues(user_config, config))


@hookimpl
def apply_config(
    config: RemoteVllmConfig | InlineVllmConfig | None, previous: RemoteVllmConfig | InlineVllmConfig | None
) -> Applied | None:
    """Ask the server, or write its file and restart it; see `stackconf_vllm.applying`."""
    from stackconf_vllm.applying import change, leave

    return leave(previous) if config is None else change(config)
