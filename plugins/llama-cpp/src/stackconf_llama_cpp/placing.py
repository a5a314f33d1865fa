"""Which layers of a model go on which device, as llama.cpp's `load_tensors` puts them there.

The devices take the last layers, and the output after them; each device gets neighbours. Source:
`src/llama-model.cpp` of llama.cpp b11434. Amounts in bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

_HALVINGS = 20


@frozen
class Load:
    """What is to be put somewhere: each layer with its part of the cache, the output, and what every
    device that has some of it needs for computing.
    """

    layers: tuple[int, ...]
    output: int
    compute: int

    @property
    def units(self) -> tuple[int, ...]:
        """The layers and the output, in the model's order: what `--n-gpu-layers` counts."""
        return (*self.layers, self.output)


def most_layers(load: Load, rooms: Sequence[int]) -> int:
    """How many units the devices hold at most, from the last to the first.

    >>> most_layers(Load((100, 100, 100), output=50, compute=10), [120, 160])
    3
    """
    return sum(_packed(load, rooms, len(load.units)))


def spread(load: Load, rooms: Sequence[int], count: int) -> tuple[int, ...] | None:
    """How many of the last `count` units each device takes, so that the fullest is as empty as can be;
    `None` where they do not fit.

    >>> load = Load((100, 100, 100), output=50, compute=10)
    >>> spread(load, [400, 400], 4), spread(load, [400, 120], 4), spread(load, [150, 150], 4)
    ((2, 2), (3, 1), None)
    """
    if sum(_packed(load, rooms, count)) < count:
        return None
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if sum(_packed(load, [int(room * middle) for room in rooms], count)) < count:
            low = middle
        else:
            high = middle
    return _packed(load, [int(room * high) for room in rooms], count)


def used(load: Load, counts: Sequence[int]) -> tuple[int, ...]:
    """What each device holds with so many of the last units, in the devices' order.

    >>> used(Load((100, 100, 100), output=50, compute=10), [1, 2])
    (110, 160)
    """
    rest = list(load.units[len(load.units) - sum(counts) :])
    sizes = []
    for count in counts:
        mine, rest = rest[:count], rest[count:]
        sizes.append(sum(mine) + load.compute if mine else 0)
    return tuple(sizes)


def by_shares(shares: Sequence[float], count: int) -> tuple[int, ...]:
    """How many of the last `count` units each device takes with this `--tensor-split`.

    Source: `get_layer_buft_list`: unit k of n goes to the first device whose summed share is above k / n.

    >>> by_shares([3, 1], 33), by_shares([17, 16], 33)
    ((25, 8), (17, 16))
    """
    total = sum(shares)
    ends = [sum(shares[: place + 1]) / total for place in range(len(shares))]
    counts = [0] * len(shares)
    for unit in range(count):
        counts[next(place for place, end in enumerate(ends) if end > unit / count)] += 1
    return tuple(counts)


def _packed(load: Load, rooms: Sequence[int], count: int) -> tuple[int, ...]:
    """Fill the devices from the last to the first; what comes where nothing fits any more is left."""
    counts = [0] * len(rooms)
    units = load.units
    place = len(rooms) - 1
    left = rooms[place] - load.compute if rooms else 0
    for unit in reversed(units[len(units) - count :]):
        while place >= 0 and left < unit:
            place -= 1
            left = rooms[place] - load.compute if place >= 0 else 0
        if place < 0:
            break
        left -= unit
        counts[place] += 1
    return tuple(counts)
