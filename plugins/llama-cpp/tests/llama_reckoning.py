"""The sizes of `llama_sizes.txt`, reckoned a second time: plain loops over plain figures.

Nothing here is taken from the plugin. The figures are those of the models' `config.json`, the bits those
of `tools/quantize/README.md` of llama.cpp, the memory that of the cards' data sheets as drivers tell it.
"""

from __future__ import annotations

from attrs import frozen

MIB, GIB = 1024**2, 1024**3
Q4_K_M, Q6_K = 4.8944, 6.5625


@frozen
class Model:
    parameters: int
    layers: int
    width: int
    kv_width: int
    words: int
    longest: int
    tied: bool = False

    @property
    def output(self) -> float:
        return self.words * self.width * Q6_K / 8

    @property
    def input(self) -> float:
        return self.output if self.tied else self.words * self.width * Q4_K_M / 8

    @property
    def layer(self) -> float:
        outside = self.output + (0 if self.tied else self.input)
        return (self.parameters * Q4_K_M / 8 - outside) / self.layers

    @property
    def token(self) -> int:
        """f16 keys and values of every layer."""
        return 2 * 2 * self.kv_width * self.layers

    def computing(self, each: int) -> int:
        return 512 * (self.words + self.width) * 4 + 512 * each * 6


@frozen
class Box:
    """Memory in bytes: of each card less 1 GiB, and what a model may take of main memory."""

    rooms: tuple[int, ...]
    host: float
    cores: int


MODELS = {
    "Llama-3.1-8B-Instruct": Model(8_030_261_248, 32, 4096, 8 * 128, 128_256, 131_072),
    "Llama-3.3-70B-Instruct": Model(70_553_706_496, 80, 8192, 8 * 128, 128_256, 131_072),
    "Qwen2.5-0.5B-Instruct": Model(494_032_768, 24, 896, 2 * 64, 151_936, 32_768, tied=True),
}
T4, L4, L40S, RTX, H100 = (size * MIB - GIB for size in (15360, 23034, 46068, 24564, 81559))
MACHINES = {
    "cpu=8/16,memory=16GiB": Box((), 12 * GIB, 8),
    "cpu=16/32,memory=64GiB,quota=4,limit=16GiB": Box((), 12 * GIB, 4),
    "cpu=64/128,memory=256GiB": Box((), 192 * GIB, 64),
    "t4,cpu=8/16,memory=32GiB": Box((T4,), 24 * GIB, 8),
    "l4,cpu=8/16,memory=32GiB": Box((L4,), 24 * GIB, 8),
    "rtx-4090,cpu=16/32,memory=64GiB": Box((RTX,), 48 * GIB, 16),
    "l40s:2,cpu=32/64,memory=128GiB": Box((L40S,) * 2, 96 * GIB, 32),
    "rtx-4090,t4,cpu=16/32,memory=64GiB": Box((RTX, T4), 48 * GIB, 16),
    "h100-80gb-sxm:8,cpu=96/192,memory=1TiB": Box((H100,) * 8, 768 * GIB, 96),
}


@frozen
class Reckoned:
    layers: int
    context: int
    slots: int
    shared: bool
    cards: int = 0
    """How many are used."""


def reckon(model: Model, box: Box) -> Reckoned | None:
    """The best way with b11434, or `None` where there is none."""
    if not box.rooms:
        return in_main_memory(model, box)
    all_of_it = model.layers + 1
    ranked = sorted(box.rooms, reverse=True)
    for context, shared in ((4 * model.longest, False), (model.longest, True)):
        for count in range(1, len(ranked) + 1):
            if held(model, ranked[:count], context, shared=shared) == all_of_it:
                return Reckoned(all_of_it, context, 4, shared, count)
    for context in range(model.longest, 4095, -256):
        if held(model, box.rooms, context, shared=True) == all_of_it:
            slots = min(4, context // 4096)
            return Reckoned(all_of_it, context, slots, slots > 1, len(ranked))
    layers = held(model, box.rooms, 4096, shared=True)
    stay = (model.layers + 1 - layers) * (model.layer + model.token * 4096 / model.layers)
    if stay + model.input + model.computing(4096) > box.host:
        return None
    return Reckoned(layers, 4096, 1, False, len(ranked))


def in_main_memory(model: Model, box: Box) -> Reckoned | None:
    for context, shared in [(4 * model.longest, False)] + [
        (size, True) for size in range(model.longest, 4095, -256)
    ]:
        each = context if shared else context // 4
        weights = model.layers * model.layer + model.output + model.input
        if weights + model.token * context + model.computing(each) <= box.host:
            slots = min(4, context // 4096)
            return Reckoned(0, context, slots, shared and slots > 1)
    return None


def held(model: Model, rooms: list[int] | tuple[int, ...], context: int, *, shared: bool) -> int:
    """Layers, and the output as one, that cards hold: the last card takes the output and the last layers."""
    each = context if shared else context // 4
    layer = model.layer + model.token * context / model.layers
    found = 0
    for room in reversed(rooms):
        left = room - model.computing(each)
        if not found:
            if left < model.output:
                continue
            left, found = left - model.output, 1
        found += max(0, int(left // layer))
    return min(found, model.layers + 1)
