"""The processors: which CPUs run, which share a core, and how many of them this process may use.

Sources: the kernel's Documentation/admin-guide/cputopology.rst and
Documentation/ABI/stable/sysfs-devices-node; proc(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from stackconf.hardware.cpuinfo import Block, isa, model, vendor
from stackconf.hardware.facts import Cpu, Limit, NumaNode
from stackconf.hardware.files import Files, cpu_list, kibibytes, whole_number

if TYPE_CHECKING:
    from stackconf.hardware.cgroup import Cgroups

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


def read_cpu(files: Files, groups: Cgroups, processors: Sequence[Block], architecture: str | None) -> Cpu:
    """What the host has, beside what this process may use; what is not known is a problem of `files`."""
    topology = _topology(files, processors)
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
        model=model(processors),
        vendor=vendor(processors),
        architecture=architecture,
        sockets=topology.sockets,
        physical_cores=topology.physical_cores,
        logical_cores=logical,
        affinity=affinity,
        usable_physical_cores=_usable_physical(topology, affinity, quotas),
        usable_cores=usable,
        limits=tuple(sorted(limits, key=lambda limit: limit.amount)),
        bound_by=bound_by,
        isa=isa(files, processors),
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
