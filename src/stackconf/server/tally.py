"""How often something happened and how long it took, counted where it happens and read elsewhere."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import TypeAlias

Key: TypeAlias = tuple[str, ...]


class Duration:
    """How many took how long: `counts` are those within each bound of their tally, and those above all."""

    __slots__ = ("counts", "seconds")

    def __init__(self, bounds: int) -> None:
        self.counts = [0] * (bounds + 1)
        self.seconds = 0.0


class Tally:
    """Durations by key. One thread adds to it; any may read what is there so far.

    >>> tally = Tally((0.1, 1.0))
    >>> tally.add(("GET",), 0.05)
    >>> tally.add(("GET",), 0.5)
    >>> [(key, counts, seconds) for key, counts, seconds in tally]
    [(('GET',), [1, 1, 0], 0.55)]
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        """Seconds, rising. A duration belongs to the first bound that is not below it."""
        self._found: dict[Key, Duration] = {}

    def add(self, key: Key, seconds: float) -> None:
        """Count one."""
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = Duration(len(self.bounds))
        found.counts[bisect_left(self.bounds, seconds)] += 1
        found.seconds += seconds

    def __iter__(self) -> Iterator[tuple[Key, list[int], float]]:
        """Each key with its counts (not yet summed up) and its seconds."""
        for key, found in list(self._found.items()):
            yield key, list(found.counts), found.seconds
