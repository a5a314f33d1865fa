"""The processors: which CPUs run, which share a core, and how many of them this process may use.

Sources: the kernel's Documentation/admin-guide/cputopology.rst and
Documentation/ABI/stable/sysfs-devices-node; proc(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from stackconf.hardware.cpuinfo import Block, architecture, blocks, isa, model, vendor
from stackconf.hardware.facts import Cpu, Limit, NumaNode
from stackconf.hardware.files import Files, cpu_list, kibibytes, whole_number
from stackconf.hardware.kept import LEAST_CPUS

if TYPE_CHECKING:
    from stackconf.hardware.cgroup import Cgroups
    from stackconf.hardware.kept import Kept

SYS_CPU = "/sys/devices/system/cpu"
SYS_NODE = "/sys/devices/system/node"


@frozen
class _Topology:
    """The CPUs that run, and which of them share a physical core."""

    online: tuple[int, ...] | None
    core_of: Mapping[int, object]
    sockets: int | None

    @property
    def physical_cores(self) -> int | None:
        return self.cores_among(self.online)

    def cores_among(self, cpus: Sequence[int] | None) -> int | None:
        """How many physical cores `cpus` lie on; `None` if that is not known of each of them."""
        if not cpus or any(cpu not in self.core_of for cpu in cpus):
            return None
        return len({self.core_of[cpu] for cpu in cpus})


@frozen
class Processors:
    """What stays until the next boot, as long as the same CPUs are online."""

    topology: _Topology
    model: str | None = None
    vendor: str | None = None
    architecture: str | None = None
    """As far as their properties tell it."""
    isa: frozenset[str] | None = None


def read_processors(files: Files, kept: Kept | None = None) -> Processors:
    """The processors, from the kernel's files or from what was kept of these; what is not known is a
    problem of `files`, and then nothing is kept.
    """
    online = cpu_list(files.text(f"{SYS_CPU}/online", "cpu.logical_cores")) or ()
    if kept is not None and len(online) < LEAST_CPUS:
        kept = None
    found = None if kept is None else _of_kept(kept.processors(), online)
    if found is not None:
        return found
    problems = len(files.problems)
    listed = blocks(files.text("/proc/cpuinfo", "cpu") or "")
    topology = _topology(files, listed)
    found = Processors(topology, model(listed), vendor(listed), architecture(listed), isa(files, listed))
    if kept is not None and len(files.problems) == problems and topology.physical_cores is not None:
        kept.keep_processors(_to_keep(found))
    return found


def _to_keep(found: Processors) -> dict[str, object]:
    cores: dict[object, list[int]] = {}
    for cpu, core in found.topology.core_of.items():
        cores.setdefault(core, []).append(cpu)
    return {
        "cores": list(cores.values()),
        "sockets": found.topology.sockets,
        "model": found.model,
        "vendor": found.vendor,
        "architecture": found.architecture,
        "isa": None if found.isa is None else sorted(found.isa),
    }


def _of_kept(kept: Mapping[str, Any], online: tuple[int, ...]) -> Processors | None:
    """`None` unless it describes each of the CPUs that are online, and nothing else."""
    called, made_by, told = (kept.get(name) for name in ("model", "vendor", "architecture"))
    names, sockets, cores = kept.get("isa"), kept.get("sockets"), kept.get("cores")
    if not isinstance(cores, list) or not all(isinstance(core, list) for core in cores):
        return None
    if sorted(cpu for core in cores for cpu in core if type(cpu) is int) != list(online):
        return None
    if (
        any(text is not None and not isinstance(text, str) for text in (called, made_by, told))
        or type(sockets) is not int
    ):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    core_of = {cpu: number for number, core in enumerate(cores) for cpu in core}
    return Processors(_Topology(online, core_of, sockets), called, made_by, told, frozenset(names))


def read_cpu(files: Files, groups: Cgroups, processors: Processors, architecture: str | None) -> Cpu:
    """What the host has, beside what this process may use; what is not known is a problem of `files`."""
    topology = processors.topology
    logical = len(topology.online) if topology.online else None
    affinity = _affinity(files, groups, topology.online)
    bounds: list[tuple[float, str]] = []
    if logical is not None:
        bounds.append((float(logical), "cores"))
    if affinity is not None:
        bounds.append((float(len(affinity)), "affinity"))
    quotas = sorted(groups.cpu_limits, key=lambda limit: limit.amount)
    bounds += [(limit.amount, limit.source) for limit in quotas]
    usable, bound_by = min(bounds, key=lambda bound: bound[0], default=(None, None))
    limits = [Limit(*bound) for bound in bounds[1:] if logical is not None and bound[0] < logical]
    if logical is None:
        limits = [Limit(*bound) for bound in bounds]
    return Cpu(
        model=processors.model,
        vendor=processors.vendor,
        architecture=architecture,
        sockets=topology.sockets,
        physical_cores=topology.physical_cores,
        logical_cores=logical,
        affinity=affinity,
        usable_physical_cores=_usable_physical(topology, affinity, quotas),
        usable_cores=usable,
        limits=tuple(sorted(limits, key=lambda limit: limit.amount)),
        bound_by=bound_by,
        isa=processors.isa,
        numa=_numa(files),
    )


def _usable_physical(
    topology: _Topology, affinity: Sequence[int] | None, quotas: Sequence[Limit]
) -> int | None:
    cores = topology.cores_among(affinity or topology.online)
    if cores is None or not quotas:
        return cores
    return max(1, min(cores, int(quotas[0].amount)))


def _topology(files: Files, processors: Sequence[Block]) -> _Topology:
    online = _online(files, processors)
    by_number = {fields.get("processor", ""): fields for fields in processors}
    core_of: dict[int, object] = {}
    packages: set[str] = set()
    for cpu in online or ():
        core, package = _place(files, cpu, by_number.get(str(cpu), {}))
        if core is not None:
            core_of[cpu] = core
        if package is not None:
            packages.add(package)
    topology = _Topology(online, core_of, len(packages) or None)
    if topology.physical_cores is None:
        files.problem("cpu.physical_cores", "unsupported", "nothing says which CPUs share a physical core")
    if topology.sockets is None:
        files.problem("cpu.sockets", "unsupported", "nothing says which socket a CPU is in")
    return topology


def _online(files: Files, processors: Sequence[Block]) -> tuple[int, ...] | None:
    path = f"{SYS_CPU}/online"
    text = files.text(path, "cpu.logical_cores")
    online = cpu_list(text)
    if text is not None and not online:
        files.garbage(path, "cpu.logical_cores", text)
    if online:
        return online
    numbers = (whole_number(fields.get("processor")) for fields in processors)
    listed = sorted({number for number in numbers if number is not None})
    if not listed:
        files.problem("cpu.logical_cores", "error", f"neither {path} nor /proc/cpuinfo lists CPUs")
    return tuple(listed) or None


def _place(files: Files, cpu: int, fields: Block) -> tuple[object | None, str | None]:
    """What identifies the CPU's physical core, and its socket.

    The list of its siblings does so on every kernel; core numbers repeat between sockets and dies.
    """
    folder = f"{SYS_CPU}/cpu{cpu}/topology"
    package = _identifier(files.text(f"{folder}/physical_package_id", "cpu.sockets"))
    package = package or _identifier(fields.get("physical id"))
    for name in ("core_cpus_list", "thread_siblings_list"):
        siblings = cpu_list(files.text(f"{folder}/{name}", "cpu.physical_cores"))
        if siblings and cpu in siblings:
            return siblings, package
    core = _identifier(files.text(f"{folder}/core_id", "cpu.physical_cores"))
    core = core or _identifier(fields.get("core id"))
    return (None if core is None else (package, core)), package


def _identifier(text: str | None) -> str | None:
    # -1 is the kernel's "unknown".
    number = whole_number(text)
    return None if number is None else str(number)


def _affinity(files: Files, groups: Cgroups, online: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The CPUs the scheduler lets this process run on, those that are offline left out."""
    path, fact = "/proc/self/status", "cpu.affinity"
    match = re.search(r"^Cpus_allowed_list:[ \t]*(.*)$", files.text(path, fact) or "", re.MULTILINE)
    allowed = cpu_list(match[1]) if match else None
    if match and not allowed:
        files.garbage(path, fact, match[0])
    if not allowed and files.real and hasattr(os, "sched_getaffinity"):
        allowed = tuple(sorted(os.sched_getaffinity(0)))
    for narrower in (groups.cpuset, online):
        if allowed and narrower:
            allowed = tuple(sorted({*allowed} & {*narrower})) or allowed
    if not allowed:
        files.problem(fact, "unsupported", f"{path} does not say where this process may run")
    return allowed or None


def _numa(files: Files) -> tuple[NumaNode, ...] | None:
    nodes = []
    for name in files.names(SYS_NODE, "cpu.numa"):
        number = whole_number(name.removeprefix("node")) if name.startswith("node") else None
        if number is None:
            continue
        cpus = files.text(f"{SYS_NODE}/{name}/cpulist", "cpu.numa")
        listed = cpu_list(cpus)
        if cpus is not None and listed is None:
            files.garbage(f"{SYS_NODE}/{name}/cpulist", "cpu.numa", cpus)
        text = files.text(f"{SYS_NODE}/{name}/meminfo", "cpu.numa")
        amount = re.search(r"MemTotal:\s*[0-9]+ kB", text or "")  # after `Node 0 `
        nodes.append(NumaNode(number, listed or (), kibibytes(amount[0], "MemTotal") if amount else None))
    if not nodes:
        files.problem("cpu.numa", "unsupported", f"{SYS_NODE} lists no nodes")
        return None
    return tuple(sorted(nodes, key=lambda node: node.number))
