"""Why a size is what it is, so that a person can check it by hand."""

from __future__ import annotations

from stackconf import size_text
from stackconf_llama_cpp.builds import OUTPUT_FIRST, at_least
from stackconf_llama_cpp.machine import Machine, cards_text
from stackconf_llama_cpp.memory import STEP, Slots
from stackconf_llama_cpp.search import HOST_SHARE, LEAST_CONTEXT, MARGIN_BYTES, SLOTS, Case, Placed

_MANY = 10_000


def layers_reason(case: Case, placed: Placed, machine: Machine) -> str:
    """How many layers are on devices."""
    count, units = placed.gpu_layers, case.units
    if case.unified:
        return f"all {units}: {nothing(case, machine)}"
    if not case.rooms:
        return nothing(case, machine)
    where = cards_text(card for card, held in zip(case.cards, placed.used, strict=True) if held)
    if count == units:
        return f"all {units} ({units - 1} layers and the output) fit on {where}: {_share(case, placed)}"
    load = case.load(placed.slots)
    each = max(load.layers)
    old = "" if at_least(case.asked.build, OUTPUT_FIRST) else "; one less is written, as builds before "
    old += f"b{OUTPUT_FIRST} may count without the output" if old else ""
    return (
        f"{count} of {units}, the output ({size_text(load.output)}) first, then layers of {size_text(each)}"
        f" with their cache: {_share(case, placed)}; {size_text(placed.host)} in main memory"
        f"{', of which nothing is known' * (case.host_room is None)}{old if count else ''}"
    )


def _share(case: Case, placed: Placed) -> str:
    taken = [place for place, held in enumerate(placed.used) if held] or list(range(len(case.rooms)))
    held, room = sum(placed.used), sum(case.rooms[place] for place in taken)
    return f"{size_text(held)} of {size_text(room)}, with 1 GiB kept free{' on each' * (len(taken) > 1)}"


def nothing(case: Case, machine: Machine) -> str:
    """Why no layer is on a device."""
    if case.asked.n_gpu_layers == 0:
        return "no layer on a device"
    if case.unified:
        return f"{cards_text(machine.cards or ())} computes in main memory"
    if machine.cards:
        return f"the memory of {machine.cards[0]} is unknown, so it is not used"
    return "no accelerator"


def context_reason(case: Case, placed: Placed) -> str:
    """How long the context is: what is left of what, at how much a token."""
    slots, longest = placed.slots, case.shape.max_context
    text = f"{case.cache}; {_left(case, placed)}"
    if slots.each == longest and slots.context == longest * slots.count:
        whole = (
            "the model's own" if slots.count == 1 else f"the model's own {longest} for each of {slots.count}"
        )
        return f"{text}; {whole}"
    if slots.context == longest:
        return f"{text}; capped at the model's {longest}"
    part = 0 < placed.gpu_layers < case.units
    if case.asked.n_gpu_layers is None and (part or (case.rooms and not placed.gpu_layers)):
        return f"{text}; the least, so that more layers fit; set it for more"
    return f"{text}, in steps of {STEP}"


def _left(case: Case, placed: Placed) -> str:
    """What remains for the cache, and how many tokens that is."""
    load = case.load(placed.slots)
    if not case.rooms:
        room, where = case.host_room, f"of main memory ({_host(case)})"
        model, times = case.weights.total, 1
    elif placed.gpu_layers == case.units:
        taken = [place for place, held in enumerate(placed.used) if held]
        room = sum(case.rooms[place] for place in taken)
        model, times = case.weights.total - case.weights.input, len(taken)
        where = f"on {cards_text(case.cards[place] for place in taken)}, with 1 GiB kept free"
    else:
        return f"{size_text(case.cache.size(placed.slots))} for {placed.slots.context} tokens"
    if room is None:
        return f"{size_text(case.cache.size(placed.slots))} for {placed.slots.context} tokens"
    left = room - model - times * load.compute
    text = f"{size_text(left)} left of {size_text(room)} {where}"
    each = f"{times} x " if times > 1 else ""
    text += f", beside {size_text(model)} weights and {each}{size_text(load.compute)} for computing"
    tokens = left // case.cache.per_token if case.cache.per_token and not case.cache.sliding else None
    return text if tokens is None else f"{text}: {_count(tokens)} tokens"


def _host(case: Case) -> str:
    memory = case.memory_bytes or 0
    whole = size_text(memory)
    return f"{HOST_SHARE:g} x {whole}" if memory * (1 - HOST_SHARE) > MARGIN_BYTES else f"{whole} less 1 GiB"


def parallel_reason(slots: Slots) -> str:
    """How many slots there are."""
    if slots.count == 1:
        return f"one slot for {slots.context} tokens"
    if slots.shared:
        return f"llama.cpp's own {SLOTS}, one for each {LEAST_CONTEXT} tokens of the context that they share"
    return f"{slots.count} slots of {slots.each} tokens each"


def _count(tokens: int) -> str:
    return f"{tokens / 1000:.0f}k" if tokens >= _MANY else str(tokens)
