"""How llama.cpp's server fits a model: first a shorter context, then fewer layers on the cards.

Source: llama.cpp `common/fit.cpp`. It measures; here the sizes come from the GGUF header.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from stackconf import Because, because, size_text
from stackconf_models.memory import KvCache, kv_cache

if TYPE_CHECKING:
    from stackconf_models.devices import Device
    from stackconf_models.shape import ModelShape

MIB = 1024**2
MARGIN_BYTES = 1024 * MIB
"""Kept free on each device. Source: `--fit-target`."""
LEAST_CONTEXT = 4096
"""A context is not shrunk below this. Source: `--fit-ctx`."""
CONTEXT_STEP = 256
MICRO_BATCH = 512
"""Tokens computed at once. Source: `--ubatch-size`."""


@frozen
class LlamaCppFit:
    """`gpu_layers` counts the output layer as one more, as `--n-gpu-layers` does.

    `fits` is false where not even main memory holds the rest, and `None` where that is unknown.
    """

    fits: bool | None
    gpu_layers: Because[int | None]
    context: Because[int | None]


@frozen
class _Case:
    """The sizes of one question, in bytes. `rooms` are what each device may hold."""

    layers: int
    weights: int
    layer: int
    output: int
    """What is no layer's: of it the cards take the output, on the one that holds the last layers."""
    cache: KvCache
    compute: int
    rooms: tuple[int, ...]
    longest: int
    mixture: bool

    @property
    def room(self) -> int:
        return sum(self.rooms)

    def used(self, context: int) -> int:
        """With everything on the devices."""
        return self.weights + self.cache.size(context) + self.compute * max(1, len(self.rooms))

    def waste(self) -> int:
        """Several devices hold whole layers only (of a mixture, whole tensors): half of one is lost."""
        count = len(self.rooms)
        return 0 if count < 2 else (count + 1) * self.layer // (6 if self.mixture else 2)  # noqa: PLR2004


def llama_cpp_fit(
    shape: ModelShape,
    cards: Sequence[Device],
    *,
    host_bytes: int | None = None,
    context: int | None = None,
    sequences: int = 1,
    value_bytes: int = 2,
) -> LlamaCppFit:
    """GPU layers and context for a GGUF model on these devices; none: in main memory.

    `host_bytes` is the main memory that may be used. `context`, of all `sequences` together, is the
    user's and kept; otherwise it starts at the model's own. Everything on the devices is tried
    first, then a context shrunk to a multiple of 256 (at least 4096), then layers are filled in from
    the last to the first, as many as fit. 1024 MiB stay free on each device. A device of unknown memory is
    not used. Computing takes 512 x (vocabulary + hidden size) x 4 bytes on each device: 258.5 MiB for
    Llama 3 8B, as llama.cpp logs it.

    >>> from stackconf_models import Device, known_model
    >>> from attrs import evolve
    >>> q4 = evolve(known_model("Llama-3.1-8B"), weight_bytes=4_920_000_000)
    >>> answer = llama_cpp_fit(q4, [Device("NVIDIA GeForce RTX 4060", 8188 * MIB)])
    >>> answer.gpu_layers.value, answer.context.value
    (33, 17664)
    """
    cache = kv_cache(shape, value_bytes=value_bytes, ahead=MICRO_BATCH)
    known = [card for card in cards if card.memory_bytes]
    compute, size = _compute(shape), shape.weight_bytes
    if cache.value is None or compute is None or size is None or shape.layers is None:
        why = cache.reason if cache.value is None else f"the sizes of {shape.name} are unknown"
        return LlamaCppFit(None, because(None, why), because(None, why))
    rooms = tuple((card.memory_bytes or 0) - MARGIN_BYTES for card in known)
    layer = max(shape.layer_bytes or [-(-size // (shape.layers + 1))])
    case = _Case(
        shape.layers,
        size,
        layer,
        size - sum(shape.layer_bytes) if shape.layer_bytes else layer,
        cache.value,
        compute,
        rooms,
        (shape.max_context or LEAST_CONTEXT) * sequences,
        shape.experts is not None,
    )
    if not rooms:
        return _on_host(case, context, sequences, host_bytes, cards)
    return _on_devices(case, context, sequences, host_bytes)


def _compute(shape: ModelShape) -> int | None:
    if shape.vocabulary is None or shape.hidden_size is None:
        return None
    return MICRO_BATCH * (shape.vocabulary + shape.hidden_size) * 4


def _on_devices(case: _Case, context: int | None, sequences: int, host_bytes: int | None) -> LlamaCppFit:
    wanted = context or case.longest
    rooms = f"{size_text(case.room)} on {len(case.rooms)} device{'s' * (len(case.rooms) > 1)}"
    begun = f"{size_text(case.weights)} weights, {case.cache}, {rooms}"
    if case.used(wanted) + case.waste() <= case.room:
        told = f"everything fits: {begun}"
        chosen: Because[int | None] = because(
            wanted, "the user's" if context else f"the model's own; {begun}"
        )
        return LlamaCppFit(True, because(case.layers + 1, told), chosen)
    if context is None:
        shrunk = _shrunk(case, case.room - case.waste(), sequences)
        if shrunk is not None:
            told = f"all {case.layers + 1} layers fit with a context of {shrunk}; {begun}"
            return LlamaCppFit(
                True, because(case.layers + 1, told), because(shrunk, f"shrunk to fit: {begun}")
            )
        wanted = min(case.longest, LEAST_CONTEXT * sequences)
    layers = _filled(case, wanted)
    rest = (
        case.weights - layers * case.layer + case.cache.size(wanted) * (case.layers - layers) // case.layers
    )
    host = f"{size_text(max(rest, 0))} stay in main memory"
    fits = None if host_bytes is None else rest <= host_bytes
    host += "" if fits is not False else f", which has {size_text(host_bytes or 0)} only"
    least: Because[int | None] = because(wanted, "the user's" if context else f"the least: {begun}")
    return LlamaCppFit(
        fits, because(layers, f"{layers} of {case.layers + 1} layers fit; {host}; {begun}"), least
    )


def _shrunk(case: _Case, room: int, sequences: int) -> int | None:
    """The longest context, a multiple of 256 for each sequence, that leaves everything in `room`."""
    tokens = case.cache.tokens(room - case.used(0))
    least, step = min(case.longest, LEAST_CONTEXT * sequences), CONTEXT_STEP * sequences
    if room < case.used(least):
        return None
    return case.longest if tokens is None else max(least, min(tokens, case.longest) // step * step)


def _filled(case: _Case, context: int) -> int:
    """How many layers the devices take, from the last to the first, each with its part of the cache.

    The output comes first and counts as one; a device that cannot take it takes nothing.
    """
    each = case.layer + -(-case.cache.size(context) // case.layers)
    filled = 0
    for room in reversed(case.rooms):
        left = room - case.compute
        if not filled:
            if left < case.output:
                continue
            left -= case.output
            filled = 1
        filled += min(case.layers + 1 - filled, max(0, left) // each)
    return filled


def _on_host(
    case: _Case, context: int | None, sequences: int, host_bytes: int | None, cards: Sequence[Device]
) -> LlamaCppFit:
    why = f"the memory of {cards[0]} is unknown, so it is not used" if cards else "no accelerator"
    none: Because[int | None] = because(0, why)
    wanted = context or case.longest
    if host_bytes is None:
        told = "the user's" if context else f"{why}, and main memory is unknown"
        return LlamaCppFit(None, none, because(context, told))
    room = host_bytes - MARGIN_BYTES
    begun = f"{size_text(case.weights)} weights, {case.cache}, {size_text(host_bytes)} main memory"
    if context is None and case.used(wanted) > room:
        wanted = _shrunk(case, room, sequences) or min(case.longest, LEAST_CONTEXT * sequences)
    fits = case.used(wanted) <= room
    told = "the user's" if context else begun if fits else f"the least; does not fit: {begun}"
    return LlamaCppFit(fits, none, because(wanted, told))
