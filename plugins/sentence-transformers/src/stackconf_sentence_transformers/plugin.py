"""The plugin: sentence-transformers as `inference/inline::sentence-transformers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stackconf import Issue, ProviderType, compute_threads, hookimpl

if TYPE_CHECKING:
    from stackconf import Applied, Hardware, Provider
    from stackconf_sentence_transformers.config import SentenceTransformersConfig

stackconf_api = 1

provides = (
    ProviderType(
        "inference",
        "inline::sentence-transformers",
        "stackconf_sentence_transformers.config:SentenceTransformersConfig",
        description="Embeddings computed in the stack's own process",
        accelerators="little",
    ),
)


@hookimpl
def default_config(hardware: Hardware) -> Mapping[str, object] | None:
    """What there is to compute on, and one thread for each usable physical core.

    The rest follows in the config class: it depends on the model, which this hook does not see.
    """
    from stackconf_sentence_transformers.devices import places

    found = {"devices": places(hardware), "threads": compute_threads(hardware)}
    return {name: value for name, value in found.items() if value is not None} or None


@hookimpl
def validate_user_config(config: SentenceTransformersConfig) -> list[Issue]:
    """What does not fit and what would, what the machine or the model does not have."""
    from stackconf_sentence_transformers.validation import issues

    return list(issues(config))


@hookimpl
def apply_config(provider: Provider, config: SentenceTransformersConfig | None) -> Applied:
    """Load the model in this process and prove it; see `stackconf_sentence_transformers.running`."""
    from stackconf_sentence_transformers.running import change, leave

    return leave(provider.key) if config is None else change(provider.key, config)
