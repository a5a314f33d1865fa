"""What does not fit, and what would."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve

from stackconf import size_text
from stackconf_llama_cpp.machine import Machine, cards_text
from stackconf_llama_cpp.memory import BITS, cache, weights
from stackconf_llama_cpp.search import HOST_SHARE, MARGIN_BYTES, Case, again, answer, options

SMALLER = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")


def misfit(case: Case) -> str:
    """What does not fit where, in one line."""
    last = options(case)[-1]
    slots = last.slots(last.least)
    needs = f"{size_text(case.weights.total)} weights, {size_text(case.cache.size(slots))} cache for"
    needs += f" {slots.context} tokens and {size_text(case.compute(slots))} for computing"
    have = []
    if case.rooms:
        have.append(f"{size_text(sum(case.rooms))} on {cards_text(case.cards)}")
    if case.host_room is not None:
        have.append(f"{size_text(case.host_room)} of main memory")
    wanted = case.asked.n_gpu_layers
    layers = f" with {wanted} of {case.units} layers on the devices" if wanted and case.rooms else ""
    return f"does not fit{layers}: {needs}; there are {' and '.join(have)}"


def advice(case: Case, machine: Machine) -> str:
    """What would fit instead: other settings, other weights, or more memory."""
    ideas = "; or ".join(_ideas(case, machine))
    return f"{ideas} would do" if ideas else "more memory or a smaller model is needed"


def _ideas(case: Case, machine: Machine) -> Iterator[str]:
    yield from _other_settings(case, machine)
    yield from _other_weights(case)
    asked = case.asked
    if asked.cache_type_k is None and asked.cache_type_v is None and case.flash:
        smaller = cache(case.shape, type_k="q8_0", type_v="q8_0", ubatch=case.ubatch).value
        if smaller is not None and answer(evolve(case, cache=smaller)) is not None:
            yield "a KV cache of type q8_0"
    if case.host_room is not None and not case.rooms:
        last = options(case)[-1]
        need = case.in_main_memory(last.slots(last.least)).host
        yield f"{size_text(max(need + MARGIN_BYTES, int(need / HOST_SHARE)))} of main memory"


def _other_settings(case: Case, machine: Machine) -> Iterator[str]:
    """What somebody set, left out one by one."""
    asked = case.asked
    if asked.n_gpu_layers is not None:
        found = answer(again(case, evolve(asked, n_gpu_layers=None), machine))
        if found is not None:
            yield f"{found.gpu_layers} layers"
    if asked.ctx_size is not None:
        found = answer(again(case, evolve(asked, ctx_size=None), machine))
        if found is not None:
            yield f"a context of at most {found.slots.context}"
    elif asked.parallel is not None:
        found = answer(again(case, evolve(asked, parallel=None), machine))
        if found is not None:
            yield "1 slot" if found.slots.count == 1 else f"{found.slots.count} slots"


def _other_weights(case: Case) -> Iterator[str]:
    """The largest of the usual quantisations that is smaller and fits."""
    stored = case.shape.quantisation.label if case.shape.quantisation else None
    bits = case.weights.total * 8 / (case.shape.parameters or 1)
    have = BITS.get(case.asked.quantization or stored or "", bits)
    bare = evolve(case.shape, weight_bytes=None, layer_bytes=None)
    for label in SMALLER:
        smaller = weights(bare, label).value if BITS[label] < have else None
        if smaller is not None and answer(evolve(case, weights=smaller)) is not None:
            yield f"{label} weights, {size_text(smaller.total)}"
            return
