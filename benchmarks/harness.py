"""Side by side: subjects measured in turn (A, B, A, B, ...) in one run, and compared as ratios.

CPU time, not wall time: of this process for functions, of the child for programs. A ratio is
formed within each round, between measurements that stand next to each other; the median of the
rounds is what counts. The ratio of the two best times is shown beside it: on a noisy machine the
truth is near both, or the run is worth nothing.
"""

from __future__ import annotations

import gc
import os
import resource
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import process_time
from typing import Literal

from attrs import frozen

Unit = Literal["x", "%", "ms", "us", "modules"]

SLICE = 0.03
"""How many seconds one measurement of a function lasts at least."""


@frozen
class Row:
    """One line of the table. `limit` is the budget, `None` where the figure only informs."""

    benchmark: str
    subject: str
    against: str
    median: float | None
    best: float | None
    unit: Unit = "x"
    limit: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the median is within the budget; `None` without one."""
        if self.limit is None or self.median is None:
            return None
        return self.median <= self.limit


@frozen
class Timing:
    """CPU seconds of one call, one figure a round."""

    seconds: Sequence[float]

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def over(self, base: Timing) -> tuple[float, float]:
        """The median of the ratios to `base`, round by round, and the ratio of the best times."""
        rounds = zip(self.seconds, base.seconds, strict=True)
        return statistics.median(mine / other for mine, other in rounds), self.best / base.best

    def minus(self, base: Timing) -> tuple[float, float]:
        """The median of the differences to `base`, and the difference of the best times."""
        rounds = zip(self.seconds, base.seconds, strict=True)
        return statistics.median(mine - other for mine, other in rounds), self.best - base.best


def time_functions(
    subjects: Mapping[str, Callable[[], object]], *, rounds: int = 15, once: bool = False
) -> dict[str, Timing]:
    """CPU time of one call of each function. With `once`, each is called only once a round."""
    counts = {name: 1 if once else _count(function) for name, function in subjects.items()}
    found: dict[str, list[float]] = {name: [] for name in subjects}
    gc.collect()
    gc.freeze()  # what earlier benchmarks left in memory is not for this one to be searched
    try:
        for _ in range(rounds):
            for name, function in subjects.items():
                gc.collect()
                found[name].append(_seconds(function, counts[name]) / counts[name])
    finally:
        gc.unfreeze()
    return {name: Timing(seconds) for name, seconds in found.items()}


def _seconds(function: Callable[[], object], count: int) -> float:
    started = process_time()
    for _ in range(count):
        function()
    return process_time() - started


def _count(function: Callable[[], object]) -> int:
    function()  # what only the first call pays is no part of the comparison
    count = 1
    while (seconds := _seconds(function, count)) < SLICE / 4:
        count *= 4
    return max(1, round(count * SLICE / seconds))


@frozen
class Program:
    """A program to run: its arguments, and what is added to the environment."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = {}
    folder: Path | None = None


def time_programs(subjects: Mapping[str, Program], *, rounds: int = 15) -> dict[str, Timing]:
    """CPU time (user and system) of each program. Raises when one does not exit with 0."""
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(rounds + 1):
        for name, program in subjects.items():
            seconds = _run(program)
            if turn:  # the first turn warms the file cache and writes the byte code
                found[name].append(seconds)
    return {name: Timing(seconds) for name, seconds in found.items()}


def _run(program: Program) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        program.arguments,
        check=True,
        capture_output=True,
        cwd=program.folder,
        env={**os.environ, **program.environment},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
