"""The built-in host plugin: processors, memory, operating system, from files alone.

Everything is read below one root, so a folder with another machine's /proc, /sys and /etc gives
that machine's facts. On systems without these files psutil answers what it can.

Source: proc(5); see `processors`, `cgroup` and `container` for theirs.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from stackconf.hardware.cgroup import Cgroups, read_cgroups
from stackconf.hardware.container import container, wsl_version
from stackconf.hardware.facts import Fact, Host, Memory
from stackconf.hardware.files import Files, chosen_root, kibibytes
from stackconf.hardware.processors import Processors, read_cpu, read_processors
from stackconf.hookspecs import hookimpl

if TYPE_CHECKING:
    from stackconf.hardware.kept import Kept

stackconf_api = 1


@hookimpl
def discover_hardware() -> Iterable[Fact]:
    """Host, processors and memory of this machine, or of the one below `STACKCONF_HARDWARE_ROOT`."""
    return read_host(chosen_root())


def read_host(root: Path = Path("/"), kept: Kept | None = None) -> list[Fact]:
    """`Host`, `Cpu`, `Memory` and the `Problem`s met on the way; never raises for what it reads.

    Amounts that this process may use are upper bounds: a limit that could not be read is a
    `Problem` about `cpu.limits` or `memory.limits`. Of the processors, what was `kept` counts.
    """
    files = Files(root)
    if files.real and not sys.platform.startswith("linux"):
        from stackconf.hardware.without_proc import read_without_proc

        return read_without_proc(files)
    groups = read_cgroups(files)
    processors = read_processors(files, kept)
    host = _host(files, groups, processors)
    cpu = read_cpu(files, groups, processors, host.architecture)
    memory = _memory(files, groups)
    return [host, cpu, memory, *files.problems]


def _memory(files: Files, groups: Cgroups) -> Memory:
    text = files.text("/proc/meminfo", "memory") or ""
    total, available = kibibytes(text, "MemTotal"), kibibytes(text, "MemAvailable")
    if not total:
        files.problem("memory.total_bytes", "error", "/proc/meminfo has no MemTotal")
        total = None
    bounds = [] if total is None else [(float(total), "total")]
    limits = sorted(groups.memory_limits, key=lambda limit: limit.amount)
    bounds += [(limit.amount, limit.source) for limit in limits]
    usable, bound_by = min(bounds, key=lambda bound: bound[0], default=(None, None))
    free = [amount for amount in (available, groups.headroom_bytes) if amount is not None]
    return Memory(
        total_bytes=total,
        available_bytes=min(free, default=None),
        usable_bytes=None if usable is None else int(usable),
        limits=tuple(limits),
        bound_by=bound_by,
        swap_bytes=kibibytes(text, "SwapTotal"),
    )


def _host(files: Files, groups: Cgroups, processors: Processors) -> Host:
    kernel = _line(files, "/proc/sys/kernel/osrelease", "host.kernel")
    under = wsl_version(files, kernel)
    return Host(
        os=_line(files, "/proc/sys/kernel/ostype", "host.os") or (os.uname().sysname if files.real else None),
        os_release=_os_release(files),
        kernel=kernel or (os.uname().release if files.real else None),
        architecture=_architecture(files, processors),
        container=container(files, under),
        wsl=under,
        cgroup=groups.mode,
        cgroup_path=groups.path,
    )


def _line(files: Files, path: str, fact: str) -> str | None:
    return (files.text(path, fact) or "").strip() or None


def _os_release(files: Files) -> str | None:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        text = files.text(path, "host.os_release") or ""
        match = re.search(r"^PRETTY_NAME=(.*)$", text, re.MULTILINE)
        if match:
            return match[1].strip().strip("\"'") or None
    return None


def _architecture(files: Files, processors: Processors) -> str | None:
    told = _line(files, "/proc/sys/kernel/arch", "host.architecture")
    if told or files.real:
        return told or os.uname().machine
    return processors.architecture
