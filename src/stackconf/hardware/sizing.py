"""Formulas from facts to figures that several providers share, each with its source.

A provider's `default_config` calls these and returns what they give: a `Because` with the value
and a reason that a person can check, or `None` where the facts do not carry an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackconf.types import Because, because

if TYPE_CHECKING:
    from stackconf.hardware.facts import Cpu, Hardware

GIB = 1024**3
MOST_PARTS = 10_000
"""The finest share that a reason tells exactly."""
_UNIT_STEP = 1024


def compute_threads(hardware: Hardware) -> Because[int] | None:
    """Threads for compute-bound work (matrix kernels): one per usable physical core.

    Two hyper-threads share one vector unit, and a thread more than the quota allows throttles
    all of them: 8 threads on a 4-CPU quota ran at 0.27 tokens/s, 4 threads at 12.07. Sources:
    llama.cpp `cpu_get_num_math`, https://github.com/ollama/ollama/issues/17916.

    >>> from stackconf.hardware.facts import Cpu, Hardware
    >>> box = Hardware(cpu=Cpu(physical_cores=16, logical_cores=32, usable_physical_cores=4,
    ...                        usable_cores=4.5, bound_by="cgroup v2 /app/cpu.max"))
    >>> compute_threads(box)
    Because(value=4, reason='4 usable of 16 physical cores (bound by cgroup v2 /app/cpu.max, 4.5 CPUs)')

    A quota that leaves a thread for each core takes none away:

    >>> box = Hardware(cpu=Cpu(physical_cores=8, logical_cores=16, usable_physical_cores=8,
    ...                        usable_cores=12.0, bound_by="cgroup v2 /app/cpu.max"))
    >>> compute_threads(box).reason
    '8 physical cores, one thread each'
    """
    cpu = hardware.cpu
    usable, total = cpu.usable_physical_cores, cpu.physical_cores
    if usable is None:
        return None
    if total is None or usable >= total:
        return because(usable, f"{usable} physical cores, one thread each")
    return because(usable, f"{usable} usable of {total} physical cores (bound by {_core_limit(cpu)})")


def _core_limit(cpu: Cpu) -> str:
    """What keeps the process from the other physical cores: the quota, or else its affinity."""
    quota = cpu.usable_cores
    if quota is not None and cpu.usable_physical_cores == max(1, int(quota)):
        return f"{cpu.bound_by or 'a limit'}, {quota:g} CPUs"
    return f"affinity, {len(cpu.affinity)} CPUs" if cpu.affinity is not None else "affinity"


def memory_share(hardware: Hardware, fraction: float, *, at_most: int) -> Because[int] | None:
    """A share of the memory this process may use, in bytes, never more than `at_most`.

    >>> from stackconf.hardware.facts import Hardware, Memory
    >>> box = Hardware(memory=Memory(total_bytes=64 * GIB, usable_bytes=16 * GIB,
    ...                              bound_by="cgroup v2 /app/memory.max"))
    >>> memory_share(box, 1 / 8, at_most=8 * GIB)
    Because(value=2147483648, reason='1/8 of 16 GiB usable memory')
    >>> memory_share(box, 3 / 4, at_most=64 * GIB).reason
    '3/4 of 16 GiB usable memory'
    >>> memory_share(box, 1 / 2, at_most=1 * GIB)
    Because(value=1073741824, reason='1/2 of 16 GiB usable memory, capped at 1 GiB')
    """
    usable = hardware.memory.usable_bytes
    if usable is None:
        return None
    from fractions import Fraction

    share = int(usable * fraction)
    part = f"{Fraction(fraction).limit_denominator(MOST_PARTS)} of {size_text(usable)} usable memory"
    if share <= at_most:
        return because(share, part)
    return because(at_most, f"{part}, capped at {size_text(at_most)}")


def size_text(size: int) -> str:
    """An amount of memory as people read it, in binary units.

    >>> size_text(64 * 1024**2), size_text(25_200_000_000), size_text(2 * GIB), size_text(512)
    ('64 MiB', '23.5 GiB', '2 GiB', '512 B')
    """
    amount = float(size)
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= _UNIT_STEP and len(units) > 1:
        amount /= _UNIT_STEP
        units.pop(0)
    text = f"{amount:.1f}".removesuffix(".0")
    return f"{text} {units[0]}"
