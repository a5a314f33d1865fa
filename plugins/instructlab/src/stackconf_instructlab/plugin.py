"""The provider plugin of InstructLab's three parts, which run one after another on the same cards.

One flow, so that they have one share of the machine together and take turns with it. What one makes is
what the next reads, so their defaults follow each other, in the order of the api dependencies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from stackconf import Applied, Hardware, Issue, Provider, ProviderType, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stackconf_instructlab.config import EvaluationConfig, GenerationConfig, TrainingConfig

stackconf_api = 1

GENERATION, TRAINING, EVALUATION = "synthetic_data_generation", "post_training", "eval"
FLOW = "instructlab"
_TYPE = "inline::instructlab"
_CLASSES = "stackconf_instructlab.config"

provides = (
    ProviderType(
        GENERATION,
        _TYPE,
        f"{_CLASSES}:GenerationConfig",
        description="Synthetic data with a teacher model, as InstructLab makes them",
        accelerators=True,
        flow=FLOW,
    ),
    ProviderType(
        TRAINING,
        _TYPE,
        f"{_CLASSES}:TrainingConfig",
        description="Training on one machine, as InstructLab does it",
        api_dependencies=(GENERATION,),
        accelerators=True,
        flow=FLOW,
    ),
    ProviderType(
        EVALUATION,
        _TYPE,
        f"{_CLASSES}:EvaluationConfig",
        description="Evaluation with a judge model, as InstructLab does it",
        api_dependencies=(GENERATION, TRAINING),
        accelerators=True,
        flow=FLOW,
    ),
)


@hookimpl
def default_config(
    provider: Provider, hardware: Hardware, others: Mapping[Provider, BaseModel]
) -> Mapping[str, object]:
    """One set of formulas for all three, and what the ones before have, so that they agree on any machine
    and whatever a user sets. See `sizing`.
    """
    from stackconf_instructlab import sizing

    if provider.api == GENERATION:
        return sizing.generation(hardware)
    derive = sizing.training if provider.api == TRAINING else sizing.evaluation
    return derive(hardware, others)


@hookimpl
def validate_user_config(
    provider: Provider, config: BaseModel, hardware: Hardware, others: Mapping[Provider, BaseModel]
) -> Iterator[Issue]:
    """What contradicts the machine, or another of the three."""
    from stackconf_instructlab.agreement import between, of_machine

    yield from of_machine(config, hardware)
    yield from between(provider, config, others)


@hookimpl
def apply_config(
    provider: Provider, config: GenerationConfig | TrainingConfig | EvaluationConfig | None, previous: object
) -> Applied:
    """Write the values to the configuration's file, whole or not at all, and nothing else."""
    from stackconf_instructlab.files import apply

    return apply(provider, config, previous)
