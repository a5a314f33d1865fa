"""What is wrong with a configuration beyond what its class can express."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stackconf import Issue
from stackconf_models import Device, choose_dtype

if TYPE_CHECKING:
    from stackconf_sentence_transformers.config import SentenceTransformersConfig
    from stackconf_sentence_transformers.sizing import Sizing


def issues(config: SentenceTransformersConfig) -> Iterator[Issue]:
    """Everything about `config` that a person should know before it is applied."""
    told = config.told
    if told.problem:
        yield Issue(f"the model does not fit: {told.problem}", path=_model(config), hint=told.advice)
    if config.source is not None and told.model is None:
        yield Issue(
            told.unknown, level="warning", path=_model(config), hint="until then nothing is sized for it"
        )
    yield from _about_the_machine(config, told)
    yield from _about_the_model(config, told)
    yield from _about_prompts(config)


def _model(config: SentenceTransformersConfig) -> str:
    return "model" if config.model_path is None else "model_path"


def _about_the_machine(config: SentenceTransformersConfig, told: Sizing) -> Iterator[Issue]:
    places = config.places
    names = [place.device for place in places or ()]
    kinds = [place.kind for place in places or ()]
    if places is not None and config.device is not None and config.device not in {*names, *kinds}:
        yield Issue(
            f"`{config.device}` is not there, or not for this provider",
            path="device",
            hint=f"use {' or '.join(names)}",
        )
    cards = sum(kind != "cpu" for kind in kinds)
    on_cpu = told.place is not None and told.place.kind == "cpu"
    if (
        config.processes is not None
        and places is not None
        and not on_cpu
        and config.processes > max(cards, 1)
    ):
        yield Issue(
            f"{config.processes} processes share {cards} card{'s' * (cards != 1)}, and each loads the model",
            level="warning",
            path="processes",
            hint=f"use at most {max(cards, 1)}",
        )
    if told.fitting is not None and config.batch_size is not None and config.batch_size > told.fitting:
        yield Issue(
            f"{config.batch_size} texts of {config.max_seq_length} tokens at once do not fit into "
            f"the memory of {told.place}",
            level="warning",
            path="batch_size",
            hint=f"use at most {told.fitting}",
        )
    place = told.place
    if config.dtype == "bfloat16" and told.model is not None and place is not None:
        device = Device(place.name, place.memory_bytes, place.compute_capability, place.vendor)
        best = choose_dtype(told.model.shape, device)
        if place.vendor == "nvidia" and place.compute_capability and best.value != "bfloat16":
            yield Issue(best.reason, level="warning", path="dtype", hint=f"use {best.value or 'float32'}")


def _about_the_model(config: SentenceTransformersConfig, told: Sizing) -> Iterator[Issue]:
    model = told.model
    if model is None:
        return
    length = config.max_seq_length
    if length is not None and model.positions is not None and length > model.positions:
        yield Issue(
            f"{model.name} takes at most {model.positions} tokens",
            path="max_seq_length",
            hint=f"use at most {model.max_seq_length or model.positions}",
        )
    elif length is not None and model.max_seq_length is not None and length > model.max_seq_length:
        yield Issue(
            f"{model.name} was made for texts of at most {model.max_seq_length} tokens",
            level="warning",
            path="max_seq_length",
            hint=f"use at most {model.max_seq_length}",
        )
    width = model.shape.hidden_size
    if config.truncate_dim is not None and width is not None and config.truncate_dim > width:
        yield Issue(
            f"an embedding of {model.name} has {width} values",
            level="warning",
            path="truncate_dim",
            hint=f"use less than {width}",
        )
    if model.own_code and not config.trust_remote_code:
        yield Issue(
            f"{model.name} brings its own code; without it only transformers 5 and later may load it",
            level="warning",
            path="trust_remote_code",
            hint="an operator who trusts its publisher may set it to true",
        )


def _about_prompts(config: SentenceTransformersConfig) -> Iterator[Issue]:
    name, prompts = config.default_prompt_name, config.prompts
    if name is not None and prompts is not None and name not in prompts:
        yield Issue(
            f"there is no prompt `{name}`", path="default_prompt_name", hint=f"use {' or '.join(prompts)}"
        )
