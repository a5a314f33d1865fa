"""From a machine to the values of the three providers, by one set of formulas, so that they agree.

The figures are those of InstructLab's system profiles (`src/instructlab/profiles`) and code, and where
these say nothing, what follows from them:

* processes: one for each card of one kind;
* the teacher is Mixtral 8x7B and the judge Prometheus 8x7B, 46.7e9 weights in bf16 each, served by vLLM
  with 0.9 of each card: by as many cards as the largest power of two up to 4, which is what the profiles
  have, or by more where these do not hold it;
* state of training a weight on cards, in bytes: 2 for the weight and 2 for its gradient in bf16, and 12
  for Adam's in fp32 (a copy and two moments), divided among the processes. On a processor: 4 and 4, as
  `model/full_train.py` trains in fp32 with Adafactor;
* 880 KiB of a card for each token at once, beside 3 GiB for the rest: the most with which the 54 000
  tokens of the profile for 4 cards with 80 GB hold. In fp32 twice that. At most 60 000 tokens, the most
  that any profile has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from attrs import field, frozen

from stackconf import because, size_text

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stackconf import Accelerator, Hardware, Provider

    Others: TypeAlias = Mapping[Provider, BaseModel]

GIB, KIB = 1024**3, 1024
STUDENT = 8e9
SERVED = 46.7e9
BYTES_SERVED = 2
SERVING_RESERVE = 2 * GIB
"""Of each card, for what runs beside the weights: a few requests' KV cache and activations."""
UTILIZATION = 0.9
BYTES_KEPT = 4
"""Of each weight on the cards: itself and its gradient."""
BYTES_OF_OPTIMIZER = 12
BYTES_IN_FP32 = 8
BYTES_PER_TOKEN = 880 * KIB
RESERVE = 3 * GIB
MOST_BATCH, LEAST_BATCH, ENOUGH, ON_A_CPU = 60_000, 4_096, 30_000, 5_000
"""Tokens: the most of any profile, one longest sample, the least of any profile with cards, a CPU's."""
TEACHER_CARDS = 4
EFFECTIVE = ((4, 128), (2, 96), (1, 64))
"""Processes, at least, and the effective batch of the profiles with so many."""
CPUS = 10
BF16 = (8, 0)


def _cards(values: Sequence[Accelerator]) -> tuple[Accelerator, ...]:
    return tuple(values)


@frozen
class Machine:
    """What of a machine the three providers go by."""

    cards: tuple[Accelerator, ...] = field(default=(), converter=_cards)
    """The most cards of one kind that can train: visible, whole, with memory that is known."""
    unknown: str = ""
    """Why it cannot be said what is there; then nothing is derived."""

    @property
    def memory(self) -> int:
        """What they may use of each card, in bytes."""
        return min((card.memory_bytes or 0 for card in self.cards), default=0)

    @property
    def share(self) -> float:
        """The part of each card that they may use."""
        return min((card.share for card in self.cards), default=1.0)

    @property
    def name(self) -> str:
        """What the cards are."""
        first = self.cards[0]
        return first.nominal.slug if first.nominal else first.name or f"{first.vendor} card"


def machine_of(hardware: Hardware) -> Machine:
    """The cards to go by.

    >>> from stackconf import simulate
    >>> found = machine_of(simulate("l40s:4,t4,cpu=32"))
    >>> len(found.cards), found.name
    (4, 'l40s')
    """
    kinds: dict[object, list[Accelerator]] = {}
    for card in hardware.visible_accelerators:
        if _trains(card):
            model = card.nominal.slug if card.nominal else (card.pci_device_id or card.name)
            kinds.setdefault((model, card.compute_capability), []).append(card)
    if kinds:
        return Machine(max(kinds.values(), key=lambda same: sum(card.memory_bytes or 0 for card in same)))
    if hardware.visible_accelerators or hardware.accelerators or hardware.certainly_no_accelerator:
        return Machine()
    return Machine(unknown="it is not known which cards there are")


def _trains(card: Accelerator) -> bool:
    """bf16 is needed, and memory that is known and not the host's. An AMD card has no CUDA number."""
    known = card.vendor == "amd" or (card.compute_capability is not None and card.compute_capability >= BF16)
    return known and bool(card.memory_bytes) and card.memory_kind != "unified" and not card.mig_enabled


def serving_bytes(parameters: float, cards: int) -> int:
    """What a model takes of each of the cards that serve it.

    >>> round(serving_bytes(46.7e9, 4) / 1024**3, 1)  # more than 0.9 of an L4, and less than of an L40S
    23.7
    """
    return int(parameters * BYTES_SERVED / cards) + SERVING_RESERVE


def cards_to_serve(parameters: float, memory: float, most: int) -> int | None:
    """As many cards of so much memory as serve a model; `None` where `most` do not hold it."""
    powers = [1 << number for number in range(most.bit_length())]
    usual = max((power for power in powers if power <= TEACHER_CARDS), default=1)
    holding = [power for power in powers if serving_bytes(parameters, power) <= UTILIZATION * memory]
    return next((power for power in holding if power >= usual), None)


def training_bytes(parameters: float, processes: int, tokens: int, *, offloaded: bool) -> int:
    """What training all weights takes of each card."""
    each = BYTES_KEPT + (0 if offloaded else BYTES_OF_OPTIMIZER)
    return int(parameters * each / processes) + RESERVE + tokens * BYTES_PER_TOKEN


def training_bytes_on_cpu(parameters: float, tokens: int) -> int:
    """What training all weights takes of the main memory on a processor."""
    return int(parameters * BYTES_IN_FP32) + RESERVE + tokens * BYTES_PER_TOKEN * 2


def generation(hardware: Hardware) -> Mapping[str, object]:
    """Defaults of the data generation.

    >>> from stackconf import simulate
    >>> generation(simulate("l4:8"))["gpus"].reason
    '87 GiB of the teacher on 8 of 8 l4: 4 would not hold it'
    """
    found = machine_of(hardware)
    values: dict[str, object] = {}
    cores = hardware.cpu.usable_physical_cores
    if cores is not None and cores < CPUS:
        values["num_cpus"] = because(cores, f"{cores} usable physical cores; InstructLab's {CPUS} would wait")
    if found.unknown:
        return values
    if not found.cards:
        return {**values, "pipeline": because("simple", "no card that a teacher can be served on")}
    count, names = len(found.cards), f"{len(found.cards)} {found.name}"
    weights = size_text(int(SERVED * BYTES_SERVED))
    size = cards_to_serve(SERVED, found.memory, count)
    if size is None:
        lacks = f"{weights} of the full pipeline's teacher do not fit on {names}"
        return {
            **values,
            "device": because("cuda", names),
            "pipeline": because("simple", f"{lacks}; this one has a small, quantised one"),
            "gpus": because(1, "enough for the simple pipeline's teacher"),
        }
    why = f"{weights} of the teacher on {size} of {names}: "
    if size > TEACHER_CARDS:
        why += f"{size // 2} would not hold it"
    else:
        why += f"a power of two up to {TEACHER_CARDS}, as InstructLab has it"
    share = found.share
    much = f"vLLM's own {UTILIZATION}" if share == 1 else f"{UTILIZATION} of {share:.3g} of each card"
    return {
        **values,
        "device": because("cuda", names),
        "backend": because("vllm", names),
        "gpus": because(size, why),
        "gpu_memory_utilization": because(round(UTILIZATION * share, 4), much),
    }


def training(hardware: Hardware, others: Others | None = None) -> Mapping[str, object]:
    """Defaults of the training of a student with 8e9 weights, on what is generated.

    >>> from stackconf import simulate
    >>> found = training(simulate("a100-40gb-sxm:8,cpu=96,memory=1TiB"))
    >>> found["max_batch_len"].value, found["cpu_offload_optimizer"].value
    (39000, True)
    """
    from stackconf_instructlab.config import GenerationConfig

    samples, longest = _longest(others, GenerationConfig, "what {} makes")
    found = machine_of(hardware)
    if not found.unknown and found.cards:
        return {**samples, **_on_cards(hardware, found, longest)}
    values: dict[str, object] = dict(samples)
    if longest > ON_A_CPU:
        values["max_batch_len"] = because(longest, "one sample")
    if found.unknown:
        return values
    values["effective_batch_size"] = because(64, "no card that can train; InstructLab's value for a CPU")
    usable = hardware.memory.usable_bytes
    needed = training_bytes_on_cpu(STUDENT, max(longest, ON_A_CPU))
    if usable is not None and usable < needed:
        why = f"training all weights in fp32 takes about {size_text(needed)}, and there are"
        values["pipeline"] = because("simple", f"{why} {size_text(usable)} of main memory")
    return values


def _longest(others: Others | None, kind: type[BaseModel], reason: str) -> tuple[dict[str, object], int]:
    """The longest sample of the providers of a kind that come before, as a default; 0 without any."""
    theirs = {each.key: config for each, config in (others or {}).items() if isinstance(config, kind)}
    lengths = {key: int(getattr(config, "max_seq_len", 0)) for key, config in theirs.items()}
    if not lengths:
        return {}, 0
    key = max(sorted(lengths), key=lengths.__getitem__)
    return {"max_seq_len": because(lengths[key], reason.format(key))}, lengths[key]


def _on_cards(hardware: Hardware, found: Machine, longest: int) -> Mapping[str, object]:
    count = len(found.cards)
    effective = next(batch for least, batch in EFFECTIVE if count >= least)
    return {
        "device": because("cuda", f"{count} {found.name}"),
        "pipeline": because("accelerated", f"{count} {found.name}"),
        "nproc_per_node": because(count, f"one for each of {count} {found.name}"),
        "effective_batch_size": because(
            max(effective, count), f"InstructLab's value for {count} processes, at least one sample for each"
        ),
        **_memory(hardware, found, max(longest, LEAST_BATCH)),
    }


def _memory(hardware: Hardware, found: Machine, least: int) -> Mapping[str, object]:
    """Tokens at once, at least one sample, and where the optimizer is kept."""
    count = len(found.cards)
    on_cards = int(STUDENT * (BYTES_KEPT + BYTES_OF_OPTIMIZER) / count)
    kept = int(STUDENT * BYTES_KEPT / count)
    optimizer = int(STUDENT * BYTES_OF_OPTIMIZER)
    usable = hardware.memory.usable_bytes
    tight = _tokens(found.memory - on_cards) < ENOUGH
    has_room = usable is not None and usable >= 2 * optimizer
    offload = tight and has_room
    state = kept if offload else on_cards
    raw = _tokens(found.memory - state)
    tokens = max(least, min(MOST_BATCH, raw // 1000 * 1000))
    what = "weights and gradients" if offload else "weights, gradients and optimizer"
    taken = f"{size_text(found.memory)} of each {found.name} less {size_text(state)}, 1/{count} of {what}"
    bound = f", at most {MOST_BATCH}" if raw > MOST_BATCH else ""
    if raw < least:
        bound = f": {max(raw, 0)}, which is less than one sample of {least}; train fewer weights or LoRA"
    room = f"{size_text(usable)} of main memory" if usable is not None else "an unknown amount of main memory"
    where = (
        f"{size_text(optimizer)} of optimizer state leave too few tokens on the cards, and fit into {room}"
        if offload
        else f"{size_text(optimizer)} of optimizer state fit beside {tokens} tokens"
        if not tight
        else f"{size_text(optimizer)} of optimizer state would not fit twice into {room}"
    )
    each = size_text(BYTES_PER_TOKEN)
    return {
        "max_batch_len": because(tokens, f"{taken}, and less 3 GiB, at {each} for a token{bound}"),
        "cpu_offload_optimizer": because(offload, where),
    }


def _tokens(room: int) -> int:
    return (room - RESERVE) // BYTES_PER_TOKEN


def evaluation(hardware: Hardware, others: Others | None = None) -> Mapping[str, object]:
    """Defaults of the evaluation: the judge reads what was trained on, on the cards that the teacher had.
    Without a generation in the stack, on those that it would have had.
    """
    from stackconf_instructlab.config import GenerationConfig, TrainingConfig

    read, longest = _longest(others, TrainingConfig, "what {} trains on")
    if not longest:
        read, _ = _longest(others, GenerationConfig, "what {} makes")
    teachers = {key: each for key, each in (others or {}).items() if isinstance(each, GenerationConfig)}
    if teachers:
        key, theirs = max(teachers.items(), key=lambda pair: (pair[1].gpus, pair[0].key))
        same = f"the judge is served where the teacher of {key.key} was"
        values: dict[str, object] = {
            "device": because(theirs.device, same),
            "gpus": because(theirs.gpus, same),
        }
        if theirs.gpu_memory_utilization is not None:
            values["gpu_memory_utilization"] = because(theirs.gpu_memory_utilization, same)
        return {**read, **values}
    alone = generation(hardware)
    kept = {name: alone[name] for name in ("device", "gpus", "gpu_memory_utilization") if name in alone}
    return {**read, **kept}
