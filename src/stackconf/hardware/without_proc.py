"""The host on systems without /proc and /sys (macOS, Windows, BSD): what psutil says."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from attrs import evolve

from stackconf.hardware.facts import Cpu, Fact, Host, Limit, Memory

if TYPE_CHECKING:
    from stackconf.hardware.files import Files


def read_without_proc(files: Files) -> list[Fact]:
    """`Host`, `Cpu`, `Memory` and a `Problem` for each fact that psutil and the standard library lack."""
    import platform

    import psutil

    logical, physical = psutil.cpu_count(), psutil.cpu_count(logical=False)
    affinity = None
    if hasattr(psutil.Process, "cpu_affinity"):
        affinity = tuple(sorted(psutil.Process().cpu_affinity() or ())) or None
    usable = len(affinity) if affinity else logical
    total = int(psutil.virtual_memory().total)
    architecture = platform.machine() or None
    cpu = Cpu(
        model=platform.processor() or None,
        architecture=architecture,
        physical_cores=physical,
        logical_cores=logical,
        affinity=affinity,
        usable_physical_cores=None if physical is None or usable is None else min(physical, usable),
        usable_cores=None if usable is None else float(usable),
        bound_by="affinity" if usable is not None and logical is not None and usable < logical else "cores",
        isa=frozenset({"neon"}) if architecture == "arm64" else None,
    )
    if cpu.bound_by == "affinity" and cpu.usable_cores is not None:
        cpu = evolve(cpu, limits=(Limit(cpu.usable_cores, "affinity"),))
    unread = ["cpu.sockets", "cpu.numa", "cpu.vendor"]
    unread += [] if cpu.isa else ["cpu.isa"]
    unread += [] if sys.platform == "darwin" else ["host.container"]
    for fact in unread:
        files.problem(fact, "unsupported", f"not read on {platform.system()}")
    memory = Memory(
        total_bytes=total,
        available_bytes=int(psutil.virtual_memory().available),
        usable_bytes=total,
        bound_by="total",
        swap_bytes=int(psutil.swap_memory().total),
    )
    host = Host(
        os=platform.system() or None,
        os_release=platform.platform(),
        kernel=platform.release() or None,
        architecture=architecture,
        container="" if sys.platform == "darwin" else None,
        wsl=0,
        cgroup="none",
    )
    return [host, cpu, memory, *files.problems]
