"""What contradicts the machine, and what contradicts another of the three providers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from stackconf import Issue, size_text
from stackconf_instructlab.config import EvaluationConfig, GenerationConfig, TrainingConfig
from stackconf_instructlab.sizing import (
    BYTES_OF_OPTIMIZER,
    UTILIZATION,
    cards_to_serve,
    machine_of,
    serving_bytes,
    training_bytes,
    training_bytes_on_cpu,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stackconf import Hardware, Provider

CARDS = frozenset({"cuda", "hpu"})


def of_machine(config: BaseModel, hardware: Hardware) -> Iterator[Issue]:
    """What one provider asks for and the machine does not have, or asks for twice."""
    there = len(hardware.visible_accelerators)
    known = there > 0 or hardware.certainly_no_accelerator or bool(hardware.accelerators)
    path, wanted = _cards(config)
    if known and wanted > there:
        cards = "1 card" if there == 1 else f"{there} cards" if there else "no card"
        yield Issue(f"it takes {wanted}, and the machine has {cards}", path=path, hint=f"at most {there}")
    if isinstance(config, GenerationConfig):
        yield from _of_generation(config)
        if config.backend == "vllm":
            yield from _of_served("teacher", config.teacher_parameters, config, hardware)
    if isinstance(config, TrainingConfig):
        yield from _of_training(config)
        yield from _of_memory(config, hardware)
    if isinstance(config, EvaluationConfig):
        if config.gpus and config.device not in CARDS:
            yield Issue(f"{config.gpus} cards, and `device` is {config.device}", path="gpus", hint="use 0")
        yield from _of_served("judge", config.judge_parameters, config, hardware)


def _cards(config: BaseModel) -> tuple[str, int]:
    """The field that says how many cards it takes, and how many they are."""
    if isinstance(config, TrainingConfig):
        return "nproc_per_node", config.nproc_per_node if config.device in CARDS else 0
    return "gpus", config.gpus if isinstance(config, (GenerationConfig, EvaluationConfig)) else 0


def _of_served(
    who: str, parameters: float, config: GenerationConfig | EvaluationConfig, hardware: Hardware
) -> Iterator[Issue]:
    """A warning only: what runs beside the weights is an estimate, and they may be quantised."""
    found = machine_of(hardware)
    if not config.gpus or not found.cards or config.gpus > len(found.cards):
        return
    needed = serving_bytes(parameters, config.gpus)
    part = config.gpu_memory_utilization or UTILIZATION * found.share
    whole = found.memory / found.share
    if needed > part * whole:
        enough = cards_to_serve(parameters, whole * part / UTILIZATION, 1024)
        on = "its card" if config.gpus == 1 else f"each of its {config.gpus} cards"
        more = f"it fits on {enough} of them" if enough else "none of them would be enough"
        yield Issue(
            f"a {who} of {parameters / 1e9:g} billion weights takes about {size_text(needed)} of {on},"
            f" and {part:.3g} of a {found.name} is {size_text(int(part * whole))}",
            level="warning",
            path="gpus",
            hint=f"{more}; or take a smaller one and say so in `{who}_parameters`",
        )


def _of_generation(config: GenerationConfig) -> Iterator[Issue]:
    size = config.tensor_parallel_size or 1
    if config.backend == "llama-cpp" and size > 1:
        yield Issue("llama-cpp has no tensor parallelism", path="tensor_parallel_size", hint="use 1")
    if config.backend == "vllm" and size > max(1, config.gpus):
        yield Issue(
            f"a layer is shared by {size} cards, and the teacher takes {config.gpus}",
            path="tensor_parallel_size",
            hint="make the two the same",
        )


def _of_training(config: TrainingConfig) -> Iterator[Issue]:
    if config.max_batch_len < config.max_seq_len:
        yield Issue(
            f"a card takes {config.max_batch_len} tokens at once, and a sample may have {config.max_seq_len}",
            path="max_batch_len",
            hint=f"at least {config.max_seq_len}, or a smaller max_seq_len",
        )
    if config.effective_batch_size < config.nproc_per_node:
        yield Issue(
            f"{config.nproc_per_node} processes cannot share {config.effective_batch_size} samples of a step",
            path="effective_batch_size",
            hint=f"at least {config.nproc_per_node}",
        )
    if config.pipeline == "accelerated" and config.device not in CARDS:
        yield Issue(f"`accelerated` needs cards, and `device` is {config.device}", path="pipeline")
    if config.nproc_per_node > 1 and config.device not in CARDS:
        yield Issue(
            f"{config.nproc_per_node} processes, one for each card, and `device` is {config.device}",
            path="nproc_per_node",
            hint="use 1",
        )


def _of_memory(config: TrainingConfig, hardware: Hardware) -> Iterator[Issue]:
    """Warnings only: what training takes is an estimate."""
    if config.lora_rank or config.pipeline == "simple":
        return
    found, usable = machine_of(hardware), hardware.memory.usable_bytes
    tokens, weights = config.max_batch_len, f"training {config.parameters / 1e9:g} billion weights"
    if config.device not in CARDS:
        needed = training_bytes_on_cpu(config.parameters, tokens)
        if usable is not None and needed > usable:
            yield Issue(
                f"{weights} in fp32 takes about {size_text(needed)} of main memory, and there are"
                f" {size_text(usable)}",
                level="warning",
                path="pipeline",
                hint="use `simple`, a `lora_rank`, or a smaller student",
            )
        return
    if not found.cards:
        return
    needed = training_bytes(
        config.parameters, config.nproc_per_node, tokens, offloaded=config.cpu_offload_optimizer
    )
    if needed > found.memory:
        yield Issue(
            f"{weights} with {tokens} tokens at once takes about {size_text(needed)} of each card, and of a"
            f" {found.name} there are {size_text(found.memory)}",
            level="warning",
            path="max_batch_len",
            hint="use fewer tokens, more cards, a `lora_rank`, or a smaller student",
        )
    optimizer = int(config.parameters * BYTES_OF_OPTIMIZER)
    if config.cpu_offload_optimizer and usable is not None and optimizer > usable:
        yield Issue(
            f"{size_text(optimizer)} of optimizer state, and {size_text(usable)} of main memory",
            level="warning",
            path="cpu_offload_optimizer",
            hint="keep it on the cards, or train fewer weights",
        )


def between(provider: Provider, config: BaseModel, others: Mapping[Provider, BaseModel]) -> Iterator[Issue]:
    """What contradicts a provider that comes before: training looks at the generation, evaluation at
    both. Each contradiction is said once.
    """
    for other, theirs in others.items():
        if isinstance(config, TrainingConfig) and isinstance(theirs, GenerationConfig):
            yield from _training_on(config, other, theirs)
        if isinstance(config, EvaluationConfig) and isinstance(theirs, GenerationConfig):
            yield from _judged_beside(config, other, theirs)
        if isinstance(config, EvaluationConfig) and isinstance(theirs, TrainingConfig):
            yield from _evaluated(config, other, theirs)
        mine = getattr(config, "config_file", None)
        if mine is not None and mine == getattr(theirs, "config_file", None) and other.key < provider.key:
            yield Issue(f"{other.key} has the same file", path="config_file", hint="give each its own")


def _training_on(config: TrainingConfig, other: Provider, theirs: GenerationConfig) -> Iterator[Issue]:
    if theirs.max_seq_len > config.max_seq_len:
        yield Issue(
            f"{other.key} makes samples of up to {theirs.max_seq_len} tokens, and what is longer than"
            f" {config.max_seq_len} is not trained on",
            path="max_seq_len",
            hint=f"at least {theirs.max_seq_len} here, or at most {config.max_seq_len} there",
        )
    if theirs.gpus and config.device not in CARDS:
        yield Issue(
            f"{other.key} takes {theirs.gpus} cards, and training runs on {config.device}",
            path="device",
            hint="they run one after another on one machine; let both have the cards, or neither",
        )
    if config.device in CARDS and theirs.gpus > config.nproc_per_node:
        yield Issue(
            f"{other.key} takes {theirs.gpus} cards, and training leaves"
            f" {theirs.gpus - config.nproc_per_node} of them idle",
            level="warning",
            path="nproc_per_node",
        )


def _judged_beside(config: EvaluationConfig, other: Provider, theirs: GenerationConfig) -> Iterator[Issue]:
    if config.device != theirs.device:
        yield Issue(
            f"the judge is on {config.device}, and the teacher of {other.key} on {theirs.device}",
            path="device",
            hint="both are served by one engine on one machine; make them the same",
        )


def _evaluated(config: EvaluationConfig, other: Provider, theirs: TrainingConfig) -> Iterator[Issue]:
    if config.gpus and theirs.device not in CARDS:
        yield Issue(
            f"it takes {config.gpus} cards, and {other.key} trains on {theirs.device}",
            path="gpus",
            hint="use 0",
        )
    if config.max_seq_len < theirs.max_seq_len:
        yield Issue(
            f"{other.key} trains on samples of up to {theirs.max_seq_len} tokens, and the judge reads"
            f" {config.max_seq_len}",
            path="max_seq_len",
            hint=f"at least {theirs.max_seq_len}",
        )
