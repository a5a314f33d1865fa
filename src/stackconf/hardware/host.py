"""The built-in host plugin: processors, memory, operating system, from files alone.

Everything is read below one root, so a folder with another machine's /proc, /sys and /etc gives
that machine's facts. On systems without these files psutil answers what it can.

Sources: proc(5), the kernel's Documentation/admin-guide/cputopology.rst and
Documentation/ABI/stable/sysfs-devices-node; util-linux lscpu for the names of ARM cores.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import evolve, frozen

from stackconf.hardware.cgroup import Cgroups, read_cgroups
from stackconf.hardware.facts import Cpu, Fact, Host, Limit, Memory, NumaNode
from stackconf.hardware.files import Files, chosen_root, cpu_list, whole_number
from stackconf.hookspecs import hookimpl

stackconf_api = 1

KIB = 1024
SYS_CPU = "/sys/devices/system/cpu"
SYS_NODE = "/sys/devices/system/node"

X86_ISA = frozenset(
    {
        "sse4_1",
        "sse4_2",
        "ssse3",
        "avx",
        "avx2",
        "f16c",
        "fma",
        "bmi2",
        "gfni",
        "avx_vnni",
        "avx_vnni_int8",
        "avx_vnni_int16",
        "avx_ne_convert",
        "avx_ifma",
        "avx512f",
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512vl",
        "avx512ifma",
        "avx512vbmi",
        "avx512_vbmi2",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "avx512_bitalg",
        "avx512_vpopcntdq",
        "avx10_1",
        "avx10_2",
        "amx_tile",
        "amx_int8",
        "amx_bf16",
        "amx_fp16",
        "amx_complex",
    }
)
"""The kernel's own flag names, those that inference kernels choose by."""

ARM_ISA = {
    "asimd": "neon",
    "neon": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fp16",
    "bf16": "bf16",
    "i8mm": "i8mm",
    "sve": "sve",
    "sve2": "sve2",
    "svebf16": "svebf16",
    "svei8mm": "svei8mm",
    "sme": "sme",
    "sme2": "sme2",
}
"""The kernel's hwcap names -> the names compilers and inference libraries use."""

ARM_VENDORS = {
    0x41: "ARM",
    0x46: "FUJITSU",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    0x51: "Qualcomm",
    0x61: "Apple",
    0xC0: "Ampere",
}
ARM_CORES = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD84): "Neoverse-V3",
    (0x41, 0xD85): "Cortex-X925",
    (0x41, 0xD87): "Cortex-A725",
    (0x41, 0xD8E): "Neoverse-N3",
    (0x46, 0x001): "A64FX",
    (0x48, 0xD01): "TaiShan-v110",
    (0xC0, 0xAC3): "Ampere-1",
    (0xC0, 0xAC4): "Ampere-1a",
}

INITIAL_NAMESPACES = {"pid": 0xEFFFFFFC, "ipc": 0xEFFFFFFF, "uts": 0xEFFFFFFE}
"""Inode numbers of the namespaces that the kernel starts with (include/linux/proc_ns.h)."""

CONTAINER_GROUPS = (
    ("kubernetes", re.compile(r"/kubepods")),
    ("docker", re.compile(r"/docker[/-][0-9a-f]{12,}|/docker/")),
    ("podman", re.compile(r"/libpod-|/libpod_parent")),
    ("lxc", re.compile(r"/lxc[./]|/lxc\.payload")),
    ("containerd", re.compile(r"cri-containerd|/containerd")),
)


@hookimpl
def discover_hardware() -> Iterable[Fact]:
    """Host, processors and memory of this machine, or of the one below `STACKCONF_HARDWARE_ROOT`."""
    return read_host(chosen_root())


def read_host(root: Path = Path("/")) -> list[Fact]:
    """`Host`, `Cpu`, `Memory` and the `Problem`s met on the way; never raises for what it reads.

    Amounts that this process may use are upper bounds: a limit that could not be read is a
    `Problem` about `cpu.limits` or `memory.limits`.
    """
    files = Files(root)
    if files.real and not sys.platform.startswith("linux"):
        return _without_proc(files)
    groups = read_cgroups(files)
    processors = _processors(files.text("/proc/cpuinfo", "cpu") or "")
    host = _host(files, groups, processors)
    cpu = _cpu(files, groups, processors, host.architecture)
    memory = _memory(files, groups)
    return [host, cpu, memory, *files.problems]


# ---------------------------------------------------------------------------------- processors


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


def _cpu(
    files: Files, groups: Cgroups, processors: Sequence[Mapping[str, str]], architecture: str | None
) -> Cpu:
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
        model=_model(processors),
        vendor=_vendor(processors),
        architecture=architecture,
        sockets=topology.sockets,
        physical_cores=topology.physical_cores,
        logical_cores=logical,
        affinity=affinity,
        usable_physical_cores=_usable_physical(topology, affinity, quotas),
        usable_cores=usable,
        limits=tuple(sorted(limits, key=lambda limit: limit.amount)),
        bound_by=bound_by,
        isa=_isa(files, processors),
        numa=_numa(files),
    )


def _usable_physical(
    topology: _Topology, affinity: Sequence[int] | None, quotas: Sequence[Limit]
) -> int | None:
    cores = topology.cores_among(affinity or topology.online)
    if cores is None or not quotas:
        return cores
    return max(1, min(cores, int(quotas[0].amount)))


def _processors(text: str) -> list[dict[str, str]]:
    """The blocks of /proc/cpuinfo; one block may also describe the whole machine."""
    blocks = []
    for block in re.split(r"\n\s*\n", text):
        pairs = (line.partition(":") for line in block.splitlines())
        fields = {name.strip(): value.strip() for name, colon, value in pairs if colon}
        if fields:
            blocks.append(fields)
    return blocks


def _topology(files: Files, processors: Sequence[Mapping[str, str]]) -> _Topology:
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


def _online(files: Files, processors: Sequence[Mapping[str, str]]) -> tuple[int, ...] | None:
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


def _place(files: Files, cpu: int, fields: Mapping[str, str]) -> tuple[object | None, str | None]:
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
            allowed = tuple(cpu for cpu in allowed if cpu in set(narrower)) or allowed
    if not allowed:
        files.problem(fact, "unsupported", f"{path} does not say where this process may run")
    return allowed or None


def _model(processors: Sequence[Mapping[str, str]]) -> str | None:
    for name in ("model name", "Processor", "cpu", "uarch"):
        for fields in processors:
            if fields.get(name):
                return fields[name]
    cores = dict.fromkeys(filter(None, map(_arm_core, processors)))
    return " + ".join(cores) or None


def _arm_core(fields: Mapping[str, str]) -> str | None:
    implementer, part = _hexadecimal(fields.get("CPU implementer")), _hexadecimal(fields.get("CPU part"))
    if implementer is None or part is None:
        return None
    known = ARM_CORES.get((implementer, part))
    return known or f"{ARM_VENDORS.get(implementer, f'implementer 0x{implementer:02x}')} part 0x{part:03x}"


def _vendor(processors: Sequence[Mapping[str, str]]) -> str | None:
    for fields in processors:
        if fields.get("vendor_id"):
            return fields["vendor_id"]
        implementer = _hexadecimal(fields.get("CPU implementer"))
        if implementer is not None:
            return ARM_VENDORS.get(implementer)
    return None


def _hexadecimal(text: str | None) -> int | None:
    return int(text, 16) if text and re.fullmatch(r"0x[0-9a-fA-F]{1,8}", text) else None


def _isa(files: Files, processors: Sequence[Mapping[str, str]]) -> frozenset[str] | None:
    """What every CPU can do, so that a thread may run on any of them."""
    common: frozenset[str] | None = None
    for fields in processors:
        own = _isa_of(fields)
        if own is not None:
            common = own if common is None else common & own
    if common is None:
        files.problem("cpu.isa", "unsupported", "/proc/cpuinfo lists no instruction sets")
    return common


def _isa_of(fields: Mapping[str, str]) -> frozenset[str] | None:
    if "flags" in fields:
        return frozenset(fields["flags"].split()) & X86_ISA
    if "Features" in fields:
        return frozenset(ARM_ISA[name] for name in fields["Features"].split() if name in ARM_ISA)
    if fields.get("isa", "").startswith("rv"):
        # RISC-V: single letters up to the first underscore; `v` is the vector extension.
        return frozenset({"rvv"} if "v" in fields["isa"].partition("_")[0][4:] else ())
    return None


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
        amount = re.search(r"MemTotal:\s*([0-9]+) kB", text or "")
        nodes.append(NumaNode(number, listed or (), int(amount[1]) * KIB if amount else None))
    if not nodes:
        files.problem("cpu.numa", "unsupported", f"{SYS_NODE} lists no nodes")
        return None
    return tuple(sorted(nodes, key=lambda node: node.number))


# -------------------------------------------------------------------------------------- memory


def _memory(files: Files, groups: Cgroups) -> Memory:
    text = files.text("/proc/meminfo", "memory") or ""
    total, available = _kilobytes(text, "MemTotal"), _kilobytes(text, "MemAvailable")
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
        swap_bytes=_kilobytes(text, "SwapTotal"),
    )


def _kilobytes(text: str, name: str) -> int | None:
    match = re.search(rf"^{name}:\s*([0-9]+) kB$", text, re.MULTILINE)
    return int(match[1]) * KIB if match else None


# ---------------------------------------------------------------------------------------- host


def _host(files: Files, groups: Cgroups, processors: Sequence[Mapping[str, str]]) -> Host:
    kernel = _line(files, "/proc/sys/kernel/osrelease", "host.kernel")
    wsl = _wsl(files, kernel)
    return Host(
        os=_line(files, "/proc/sys/kernel/ostype", "host.os") or (os.uname().sysname if files.real else None),
        os_release=_os_release(files),
        kernel=kernel or (os.uname().release if files.real else None),
        architecture=_architecture(files, processors),
        container=_container(files, wsl),
        wsl=wsl,
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


def _architecture(files: Files, processors: Sequence[Mapping[str, str]]) -> str | None:
    told = _line(files, "/proc/sys/kernel/arch", "host.architecture")
    if told or files.real:
        return told or os.uname().machine
    for fields in processors:
        if "lm" in fields.get("flags", "").split():
            return "x86_64"
        if fields.get("CPU architecture") == "8":
            return "aarch64"
    return None


def _wsl(files: Files, kernel: str | None) -> int | None:
    """1 or 2, from the kernel's name: `4.4.0-22621-Microsoft`, `5.15.90.1-microsoft-standard-WSL2`."""
    if kernel is None:
        return None
    if "microsoft" in kernel.lower():
        return 1 if kernel.endswith("-Microsoft") and kernel.startswith(("3.", "4.4.")) else 2
    # A kernel that the user built has another name, yet Windows' interpreter is registered.
    own = any(files.exists(f"/proc/sys/fs/binfmt_misc/{name}") for name in ("WSLInterop", "WSLInterop-late"))
    return 2 if own or "WSL2" in kernel else 0


def _container(files: Files, wsl: int | None) -> str | None:
    """The kind of container, `""` when certainly none, `None` when nothing tells.

    In the kernel's first namespaces there is no container, whatever an image left lying about:
    virtual machines are built from images that contain `/.dockerenv`. A distribution under WSL
    has namespaces of its own and is no container.
    """
    initial = _initial_namespaces(files)
    if initial:
        return ""
    marked = _marked(files)
    if marked:
        return marked
    # systemd as PID 1 says in /run/systemd/container, any other manager in `container=`.
    told = files.exists("/run/systemd/system") or _environment(files, "/proc/1/environ")
    if wsl or (told and initial is None):
        return ""
    reason = "nothing tells a container from a host here"
    if initial is False:
        reason = "a PID namespace of its own, of a kind that nothing names"
    files.problem("host.container", "unsupported", reason)
    return None


def _initial_namespaces(files: Files) -> bool | None:
    """Whether this process is in the first PID, IPC and UTS namespaces, `None` if unknown.

    `False` only where its PID namespace is a later one, as in containers and desktop sandboxes.
    """
    own = {name: files.link(f"/proc/self/ns/{name}") for name in INITIAL_NAMESPACES}
    if all(own[name] == f"{name}:[{number}]" for name, number in INITIAL_NAMESPACES.items()):
        return True
    pid = own["pid"]
    return None if pid is None or pid == f"pid:[{INITIAL_NAMESPACES['pid']}]" else False


def _marked(files: Files) -> str | None:
    surroundings = _environment(files, "/proc/self/environ") + _environment(files, "/proc/1/environ")
    if files.exists("/var/run/secrets/kubernetes.io") or any(
        entry.startswith("KUBERNETES_SERVICE_HOST=") for entry in surroundings
    ):
        return "kubernetes"
    groups = f"{files.text('/proc/self/cgroup', 'host.container') or ''}\n{_mounted_groups(files)}"
    named = next((kind for kind, pattern in CONTAINER_GROUPS if pattern.search(groups)), None)
    if named == "kubernetes":
        return named
    if files.exists("/run/.containerenv"):
        return "podman"
    if files.exists("/.dockerenv"):
        return "docker"
    told = [entry.removeprefix("container=") for entry in surroundings if entry.startswith("container=")]
    told.append((Files(files.root).text("/run/systemd/container", "host.container") or "").strip())
    return next((kind for kind in told if kind not in {"", "wsl"}), None) or named


def _mounted_groups(files: Files) -> str:
    text = files.text("/proc/self/mountinfo", "host.container") or ""
    return "\n".join(line for line in text.splitlines() if " - cgroup" in line)


def _environment(files: Files, path: str) -> list[str]:
    # Reading another process's environment is often refused, which is no problem worth a line.
    text = Files(files.root).text(path, "host.container") or ""
    return [entry for entry in text.split("\0") if entry]


# --------------------------------------------------------------------------- without /proc, /sys


def _without_proc(files: Files) -> list[Fact]:
    """On macOS and Windows: what psutil and the standard library say."""
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
    for fact in ("cpu.sockets", "cpu.numa", "cpu.vendor") + (() if cpu.isa else ("cpu.isa",)):
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
        container="",
        wsl=0,
        cgroup="none",
    )
    return [host, cpu, memory, *files.problems]
