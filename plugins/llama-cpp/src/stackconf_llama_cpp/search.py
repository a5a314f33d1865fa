"""The way to run a model that fits: how many layers on which devices, with how much context.

As llama.cpp's own `common/fit.cpp` does it: everything on the devices if it fits, with a shorter
context if it must be, then as many of the last layers as fit. But it leaves what somebody set alone,
and it counts main memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from stackconf_llama_cpp.builds import SHARED_SLOTS, at_least
from stackconf_llama_cpp.memory import FLOAT, MIB, STEP, Cache, Slots, Weights, compute_bytes
from stackconf_llama_cpp.placing import Load, by_shares, most_layers, spread, used

if TYPE_CHECKING:
    from stackconf_llama_cpp.machine import Card, Machine
    from stackconf_models import ModelShape

GIB = 1024 * MIB
MARGIN_BYTES = 1024 * MIB
"""Kept free on each device, and in main memory. Source: `--fit-target`."""
HOST_SHARE = 0.75
"""The part of the usable main memory that one server takes at most: it is not alone on the machine."""
LEAST_CONTEXT = 4096
"""A context is not made shorter. Source: `--fit-ctx`."""
SLOTS = 4
"""Source: `n_parallel` in `tools/server/server.cpp` of b11434, where it is not set."""
BATCH, MICRO_BATCH = 2048, 512
"""Source: `--batch-size`, `--ubatch-size`."""
CACHE_RAM_MIB = 8192
"""Source: `--cache-ram`, https://github.com/ggml-org/llama.cpp/pull/16391."""
FLASH_HEADS = frozenset({40, 64, 72, 80, 96, 112, 128, 192, 256, 576})
"""Lengths of a head that CUDA's flash attention has code for. Source: `ggml/src/ggml-cuda/fattn.cu`."""
FLASH_CAPABILITY = (7, 0)
DEVICE_THREADS = 4
"""With every layer on devices, 4 threads of 7 were as fast as 7. Source: the table in
`docs/development/token_generation_performance_tips.md`."""


@frozen
class Asked:
    """What is set, by whoever it was; `None` is to be derived."""

    model: str | None = None
    quantization: str | None = None
    build: int | None = None
    n_gpu_layers: int | None = None
    ctx_size: int | None = None
    parallel: int | None = None
    kv_unified: bool | None = None
    batch_size: int | None = None
    ubatch_size: int | None = None
    threads: int | None = None
    threads_batch: int | None = None
    flash_attn: str | None = None
    cache_type_k: str | None = None
    cache_type_v: str | None = None
    split_mode: str | None = None
    main_gpu: int | None = None
    tensor_split: tuple[float, ...] | None = None
    mlock: bool | None = None
    no_mmap: bool | None = None
    cache_ram: int | None = None
    accelerator_bytes: int | None = None


@frozen
class Placed:
    """A way to run the model: `gpu_layers` counts the output as one, `counts` and `used` are by device."""

    slots: Slots
    gpu_layers: int
    counts: tuple[int, ...]
    used: tuple[int, ...]
    host: int
    """Bytes in main memory."""
    host_weights: int
    """Of these, weights."""


@frozen
class Option:
    """Slots to try: `count` of them (`None`: one for each 4096 tokens, at most four), with at most, or
    exactly (`fixed`), so many tokens in all.
    """

    count: int | None
    shared: bool
    most: int
    fixed: bool = False

    def slots(self, context: int) -> Slots:
        """The slots that so many tokens are shared out to."""
        if self.count is not None:
            return Slots(context, self.count, self.shared and self.count > 1)
        count = max(1, min(SLOTS, context // LEAST_CONTEXT))
        return Slots(context, count, count > 1)

    @property
    def step(self) -> int:
        """Each slot has a multiple of 256 tokens."""
        return STEP if self.shared or self.count is None else STEP * self.count

    @property
    def least(self) -> int:
        """The fewest tokens that are of use."""
        if self.fixed:
            return self.most
        parts = 1 if self.shared or self.count is None else self.count
        return min(self.most, LEAST_CONTEXT * parts)


@frozen
class Case:
    """One question: the model's parts, and the rooms for them."""

    shape: ModelShape
    weights: Weights
    cache: Cache
    flash: bool
    ubatch: int
    cards: tuple[Card, ...]
    rooms: tuple[int, ...]
    """Of each device, beside what stays free; empty where everything is in main memory."""
    memory_bytes: int | None
    asked: Asked
    unified: bool = False
    """The devices compute in main memory, so that all layers are on them and in `host_room`."""

    @property
    def host_room(self) -> int | None:
        """What the model may take of main memory."""
        memory = self.memory_bytes
        return None if memory is None else max(0, min(memory - MARGIN_BYTES, int(memory * HOST_SHARE)))

    @property
    def units(self) -> int:
        """The layers, and the output as one more."""
        return len(self.weights.layers) + 1

    def load(self, slots: Slots) -> Load:
        """What each layer takes, with its part of the cache."""
        count = len(self.weights.layers)
        each = -(-self.cache.size(slots) // count)
        return Load(
            tuple(size + each for size in self.weights.layers), self.weights.output, self.compute(slots)
        )

    def compute(self, slots: Slots) -> int:
        """What computing takes on each device."""
        return compute_bytes(self.shape, ubatch=self.ubatch, context=slots.each, flash=self.flash) or 0

    def placed(self, slots: Slots, gpu_layers: int, counts: tuple[int, ...]) -> Placed:
        """What is where with so many units on each device."""
        load = self.load(slots)
        stay = self.units - gpu_layers
        here = load.units[:stay]
        loaded = (*self.weights.layers, self.weights.output)[:stay]
        # With everything on devices, main memory only holds what goes into a batch.
        working = load.compute if stay else self.ubatch * (slots.each + (self.shape.hidden_size or 0)) * FLOAT
        return Placed(
            slots,
            gpu_layers,
            counts,
            used(load, counts),
            sum(here) + self.weights.input + working,
            sum(loaded) + self.weights.input,
        )

    def in_main_memory(self, slots: Slots) -> Placed:
        """Everything in main memory, whether processors or a unified device compute there."""
        placed = self.placed(slots, 0, ())
        return evolve(placed, gpu_layers=self.units) if self.unified else placed

    def on_cards(self, slots: Slots, gpu_layers: int, rooms: Sequence[int]) -> Placed | None:
        """So many units on the devices, or `None` where they do not fit."""
        load = self.load(slots)
        if self.asked.tensor_split is None:
            counts = spread(load, rooms, gpu_layers)
        else:
            counts = by_shares(self.asked.tensor_split, gpu_layers)
            counts = counts + (0,) * (len(rooms) - len(counts))
            held = used(load, counts)
            if len(counts) > len(rooms) or any(size > room for size, room in zip(held, rooms, strict=False)):
                return None
        return None if counts is None else self.placed(slots, gpu_layers, counts)

    def fits_host(self, placed: Placed) -> bool | None:
        """Whether main memory holds its part; `None` where that is unknown."""
        return None if self.host_room is None else placed.host <= self.host_room


def case_of(
    shape: ModelShape,
    loaded: Weights,
    kept: Cache,
    asked: Asked,
    machine: Machine,
    *,
    flash: bool,
    ubatch: int,
) -> Case:
    """The question that a machine and what is set make of a model."""
    cards = machine.cards or ()
    # A device of unknown memory keeps its place among the others, and gets nothing.
    known = [0 if card.unified else card.memory_bytes or 0 for card in cards]
    unified = any(card.unified for card in cards) and not any(known) and asked.n_gpu_layers != 0
    limit = asked.accelerator_bytes
    rooms = tuple(max(0, min(memory - MARGIN_BYTES, limit or memory)) for memory in known)
    rooms = rooms if any(known) and asked.n_gpu_layers != 0 else ()
    memory = machine.memory_bytes
    if unified and memory is not None:
        memory = int(memory * min(card.share for card in cards if card.unified))
    return Case(shape, loaded, kept, flash, ubatch, cards, rooms, memory, asked, unified)


def options(case: Case) -> list[Option]:
    """The slots to try, the ones wanted most first; the last one may be made shorter."""
    asked, longest = case.asked, case.shape.max_context or LEAST_CONTEXT
    sharing = at_least(asked.build, SHARED_SLOTS) and asked.kv_unified is not False
    if asked.ctx_size is not None:
        return [_of_context(asked, asked.ctx_size, longest, sharing=sharing)]
    if asked.parallel is not None:
        shared = bool(asked.kv_unified)
        return [Option(asked.parallel, shared, longest * (1 if shared else asked.parallel))]
    if asked.kv_unified:
        return [Option(None, True, longest)]
    whole = [Option(SLOTS, False, SLOTS * longest, fixed=True)]
    if sharing:
        return [*whole, Option(None, True, longest)]
    some = [Option(count, False, count * longest, fixed=True) for count in range(SLOTS - 1, 1, -1)]
    return [*whole, *some, Option(1, False, longest)]


def _of_context(asked: Asked, context: int, longest: int, *, sharing: bool) -> Option:
    if asked.parallel is not None:
        return Option(asked.parallel, bool(asked.kv_unified), context, fixed=True)
    whole = max(1, min(SLOTS, context // longest))
    if asked.kv_unified or (sharing and whole < SLOTS):
        return Option(None, True, context, fixed=True)
    return Option(whole, False, context, fixed=True)


def answer(case: Case) -> Placed | None:
    """The best way that fits, or `None`. Main memory that is unknown is taken to be enough."""
    tried = options(case)
    if not case.rooms:
        return _in_main_memory(case, tried)
    wanted = case.asked.n_gpu_layers
    count = case.units if wanted is None else min(wanted, case.units)
    for option in tried:
        found = _with_layers(case, option, count)
        if found is not None and case.fits_host(found) is not False:
            return found
    return None if wanted is not None else _partly(case, tried[-1])


def _in_main_memory(case: Case, tried: Sequence[Option]) -> Placed | None:
    for option in tried:
        if case.host_room is None and not option.fixed:
            return None
        context = _longest(option, lambda slots: case.fits_host(case.in_main_memory(slots)) is not False)
        if context is not None and (case.host_room is not None or case.asked.ctx_size is not None):
            return case.in_main_memory(option.slots(context))
    return None


def _with_layers(case: Case, option: Option, count: int) -> Placed | None:
    """The longest context with so many layers on the fewest devices."""
    *some, most = _some_rooms(case)
    for rooms in some:
        if _fits(case, option.slots(option.most), count, rooms):
            return case.on_cards(option.slots(option.most), count, rooms)
    context = _longest(option, lambda slots: _fits(case, slots, count, most))
    return None if context is None else case.on_cards(option.slots(context), count, most)


def _fits(case: Case, slots: Slots, count: int, rooms: Sequence[int]) -> bool:
    placed = case.on_cards(slots, count, rooms)
    return placed is not None and case.fits_host(placed) is not False


def _some_rooms(case: Case) -> Iterator[tuple[int, ...]]:
    """The rooms of the largest device only, of the two largest, and so on: fewer devices are faster."""
    asked = case.asked
    if asked.split_mode == "none":
        main = asked.main_gpu or 0
        yield tuple(room if place == main else 0 for place, room in enumerate(case.rooms))
        return
    if asked.tensor_split is None and asked.split_mode is None:
        order = sorted(
            range(len(case.rooms)), key=lambda place: (place != asked.main_gpu, -case.rooms[place])
        )
        for count in range(1, len(order)):
            taken = set(order[:count])
            yield tuple(room if place in taken else 0 for place, room in enumerate(case.rooms))
    yield case.rooms


def _longest(option: Option, fits: Callable[[Slots], bool]) -> int | None:
    """The most tokens of an option that fit, or `None` where not even the fewest do."""
    if fits(option.slots(option.most)):
        return option.most
    if option.fixed or not fits(option.slots(option.least)):
        return None
    low, high = option.least // option.step, -(-option.most // option.step)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(option.slots(middle * option.step)) else (low, middle)
    return max(option.least, low * option.step)


def _partly(case: Case, option: Option) -> Placed | None:
    """As many of the last layers as fit, with the least context; the others stay in main memory."""
    slots = option.slots(option.least)
    rooms = next(_some_rooms(case)) if case.asked.split_mode == "none" else case.rooms
    if case.asked.tensor_split is None:
        count = most_layers(case.load(slots), rooms)
    else:
        count = next(
            (each for each in range(case.units, 0, -1) if case.on_cards(slots, each, rooms) is not None), 0
        )
    placed = case.on_cards(slots, count, rooms) if count else case.placed(slots, 0, (0,) * len(rooms))
    return placed if placed is not None and case.fits_host(placed) is not False else None


def again(case: Case, asked: Asked, machine: Machine) -> Case:
    """The same question with other settings."""
    return case_of(case.shape, case.weights, case.cache, asked, machine, flash=case.flash, ubatch=case.ubatch)
