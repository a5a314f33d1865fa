"""How llama.cpp's server is sized for a model on a machine: each value with its reason, or why not.

what is set, the model, the machine  --size-->  Sizing
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import evolve, field, frozen

from stackconf import size_text
from stackconf_llama_cpp.advice import advice, misfit
from stackconf_llama_cpp.builds import OUTPUT_FIRST, SHARED_SLOTS, at_least
from stackconf_llama_cpp.machine import Card, Machine, cards_text
from stackconf_llama_cpp.memory import MIB, STEP, cache, compute_bytes, weights
from stackconf_llama_cpp.reasons import context_reason, layers_reason, nothing, parallel_reason
from stackconf_llama_cpp.search import (
    BATCH,
    CACHE_RAM_MIB,
    DEVICE_THREADS,
    FLASH_CAPABILITY,
    FLASH_HEADS,
    MICRO_BATCH,
    Asked,
    Case,
    Placed,
    answer,
    case_of,
)
from stackconf_models import ModelShape, find_model


@frozen
class Sizing:
    """The values that follow, and by field the reason of each or of its absence.

    `problem` says what does not fit and `advice` what would.
    """

    values: Mapping[str, object] = field(factory=dict)
    reasons: Mapping[str, str] = field(factory=dict)
    shape: ModelShape | None = None
    placed: Placed | None = None
    problem: str = ""
    advice: str = ""
    unknown: str = ""
    """Why the model's needs cannot be computed."""


def size(asked: Asked, machine: Machine) -> Sizing:
    """Derive what is not set from the model, the machine and what is set.

    >>> from stackconf_models import known_model
    >>> l4 = Card("NVIDIA L4", 23034 * MIB, (8, 9))
    >>> told = size(Asked("Llama-3.1-8B", "Q4_K_M", 11434), Machine((l4,), 16, 2**36))
    >>> [told.values[name] for name in ("n_gpu_layers", "ctx_size", "parallel", "kv_unified", "threads")]
    [33, 131072, 4, True, 4]
    """
    told = _without_model(asked, machine)
    if asked.model is None:
        return _with_batch_threads(_without(told, asked, "no model is set"), asked)
    found = find_model(asked.model)
    if found.value is None:
        return _with_batch_threads(_without(told, asked, found.reason), asked)
    told = _for_model(evolve(told, shape=found.value), found.value, asked, machine)
    return _with_batch_threads(told, asked)


def _with_batch_threads(told: Sizing, asked: Asked) -> Sizing:
    """llama-server has no variable for them, and takes as many as for generating."""
    if asked.threads_batch is not None:
        return told
    threads = asked.threads or told.values.get("threads")
    values = told.values if threads is None else {**told.values, "threads_batch": threads}
    return evolve(told, values=values, reasons={**told.reasons, "threads_batch": "as threads"})


def _without_model(asked: Asked, machine: Machine) -> Sizing:
    values: dict[str, object] = {}
    reasons: dict[str, str] = {}
    if asked.threads is None and machine.cores is not None:
        values["threads"] = machine.cores
        reasons["threads"] = f"one for each of {machine.cores} usable physical cores"
    elif asked.threads is None:
        reasons["threads"] = "not set: the usable cores are unknown"
    batch = asked.batch_size or BATCH
    if asked.batch_size is None:
        values["batch_size"] = max(batch, asked.ubatch_size or 0)
        reasons["batch_size"] = "llama.cpp's own" if values["batch_size"] == BATCH else "as ubatch_size"
    if asked.ubatch_size is None:
        values["ubatch_size"] = min(MICRO_BATCH, batch)
        reasons["ubatch_size"] = "llama.cpp's own; what computing takes grows with it"
    for name in ("cache_type_k", "cache_type_v"):
        if getattr(asked, name) is None:
            values[name], reasons[name] = "f16", "llama.cpp's own; q8_0 takes half, at some loss"
    return Sizing(values, reasons)


def _for_model(told: Sizing, shape: ModelShape, asked: Asked, machine: Machine) -> Sizing:
    loaded = weights(shape, asked.quantization)
    ubatch = asked.ubatch_size or min(MICRO_BATCH, asked.batch_size or BATCH)
    kept = cache(shape, type_k=asked.cache_type_k or "f16", type_v=asked.cache_type_v or "f16", ubatch=ubatch)
    if loaded.value is None or kept.value is None:
        return _without(told, asked, kept.reason if kept.value is None else loaded.reason)
    if machine.cards is None and asked.n_gpu_layers != 0:
        return _without(told, asked, "what there is to compute on is unknown; `stackconf hardware` says why")
    cards = machine.cards or ()
    flash, sure, why = _flash(shape, asked, cards)
    values, reasons = dict(told.values), dict(told.reasons)
    if asked.flash_attn is None:
        reasons["flash_attn"] = why
        if flash is not None:
            values["flash_attn"] = flash
    told = evolve(told, values=values, reasons=reasons)
    if compute_bytes(shape, ubatch=ubatch, context=STEP, flash=sure) is None:
        return _without(told, asked, f"the sizes of {shape.name} are unknown")
    case = case_of(shape, loaded.value, kept.value, asked, machine, flash=sure, ubatch=ubatch)
    return _with_answer(told, case, machine)


def _flash(shape: ModelShape, asked: Asked, cards: Sequence[Card]) -> tuple[str | None, bool, str]:
    """The value, whether memory is computed with it, and why."""
    able = _can_flash(shape, cards)
    if asked.flash_attn is not None:
        return None, asked.flash_attn == "on" or (asked.flash_attn == "auto" and able), ""
    if shape.architecture == "grok":
        return "off", False, "llama.cpp has none for Grok"
    if at_least(asked.build, SHARED_SLOTS):
        return "auto", able, f"b{asked.build} tries whether the device can"
    if able:
        where = f"{cards_text(cards[:1])} has" if cards else "processors have"
        return "on", True, f"{where} it for heads of {shape.head_dim}; older builds leave it off"
    return None, False, "not set: whether the device has it is unknown"


def _can_flash(shape: ModelShape, cards: Sequence[Card]) -> bool:
    if shape.architecture == "grok":
        return False
    if not cards:
        return True
    head = shape.head_dim if shape.head_dim is not None else 0
    if all(card.vendor == "apple" for card in cards):
        return head in FLASH_HEADS
    return head in FLASH_HEADS and all(
        card.vendor == "nvidia" and card.capability is not None and card.capability >= FLASH_CAPABILITY
        for card in cards
    )


def _with_answer(told: Sizing, case: Case, machine: Machine) -> Sizing:
    placed = answer(case)
    if placed is None and case.host_room is None and not case.rooms:
        return _without(told, case.asked, f"{nothing(case, machine)}, and main memory is unknown")
    if placed is None:
        problem = misfit(case)
        told = _without(told, case.asked, problem)
        return evolve(told, problem=problem, advice=advice(case, machine), unknown="")
    values, reasons = dict(told.values), dict(told.reasons)
    for name, value, reason in _values(case, placed, machine):
        if getattr(case.asked, name) is None:
            reasons[name] = reason
            if value is not None:
                values[name] = value
    return evolve(told, values=values, reasons=reasons, placed=placed)


def _values(case: Case, placed: Placed, machine: Machine) -> Iterator[tuple[str, object, str]]:
    slots = placed.slots
    yield "n_gpu_layers", _written_layers(case, placed), layers_reason(case, placed, machine)
    yield "ctx_size", slots.context, context_reason(case, placed)
    yield "parallel", slots.count, parallel_reason(slots)
    shared = "one cache, of which each slot may use all" if slots.shared else "each slot has its own part"
    yield "kv_unified", slots.shared, shared
    yield from _split(case, placed)
    yield from _few_threads(case, placed, machine)
    yield from _loading(case, placed, machine)
    most = max(placed.used, default=0)
    if most:
        yield "accelerator_bytes", most, f"the most that one device holds: {size_text(most)}"


def _written_layers(case: Case, placed: Placed) -> int:
    part = 0 < placed.gpu_layers < case.units
    return placed.gpu_layers - (part and not at_least(case.asked.build, OUTPUT_FIRST))


def _split(case: Case, placed: Placed) -> Iterator[tuple[str, object, str]]:
    if not case.rooms or len(case.rooms) < 2:  # noqa: PLR2004
        return
    taken = [place for place, count in enumerate(placed.counts) if count]
    names = [str(card) for card in case.cards]
    if len(taken) == 1 and case.asked.tensor_split is None:
        yield "split_mode", "none", f"{names[taken[0]]} alone holds it; more would only pass data on"
        yield "main_gpu", taken[0], "the device that holds it"
    elif taken:
        yield "split_mode", "layer", f"{len(taken)} devices, each with neighbouring layers"
        told = ", ".join(
            f"{count} on {names[place]} ({size_text(placed.used[place])})"
            for place, count in enumerate(placed.counts)
            if count
        )
        counts = list(placed.counts[: taken[-1] + 1])
        yield "tensor_split", [float(count) for count in counts], f"layers by device: {told}"


def _few_threads(case: Case, placed: Placed, machine: Machine) -> Iterator[tuple[str, object, str]]:
    if case.rooms and placed.gpu_layers == case.units and (machine.cores or 0) > DEVICE_THREADS:
        told = f"everything is on devices; more than {DEVICE_THREADS} of {machine.cores} cores are no faster"
        yield "threads", DEVICE_THREADS, told


def _loading(case: Case, placed: Placed, machine: Machine) -> Iterator[tuple[str, object, str]]:
    here, memory = placed.host_weights, machine.memory_bytes
    if memory is None:
        return
    limited, swap = bool(machine.memory_limited), machine.swap_bytes
    stays = placed.gpu_layers < case.units or case.unified
    size, all_of_it = size_text(here), size_text(memory)
    if limited and stays:
        told = f"{size} of weights under a limit of {all_of_it}"
        told += ": a mapped file's pages would be dropped and read again"
        yield "no_mmap", True, told
    else:
        yield "no_mmap", False, "the file is mapped: no limit binds" if stays else "all layers are on devices"
    if swap and stays and here <= memory // 2:
        told = f"{size_text(swap)} of swap, and {size} of weights are at most half of {all_of_it}"
        yield "mlock", True, f"{told}; the service needs LimitMEMLOCK=infinity"
    elif swap and stays:
        yield "mlock", False, f"{size} of weights are more than half of {all_of_it}"
    elif swap is None and stays:
        yield "mlock", None, "not set: whether there is swap is unknown"
    else:
        yield "mlock", False, "no swap" if stays else "all layers are on devices"
    spare = max(0, (case.host_room or 0) - placed.host) // MIB
    told = f"{size_text(spare * MIB)} of main memory left"
    yield (
        "cache_ram",
        min(CACHE_RAM_MIB, spare),
        told + (", llama.cpp's own at most" * (spare > CACHE_RAM_MIB)),
    )


_BY_MODEL = ("n_gpu_layers", "ctx_size", "parallel", "kv_unified")


def _without(told: Sizing, asked: Asked, why: str) -> Sizing:
    missing = [name for name in _BY_MODEL if getattr(asked, name) is None]
    return evolve(told, reasons={**told.reasons, **dict.fromkeys(missing, f"not set: {why}")}, unknown=why)
