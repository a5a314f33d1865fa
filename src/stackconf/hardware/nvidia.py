"""The built-in NVIDIA plugin: cards over NVML, identity first, every detail on its own.

NVML initialises no CUDA and takes no memory. Any call may fail on some card, driver or platform;
that costs the one field and gives one `Problem` for all the cards it failed on.

Sources: the NVML API reference; NVIDIA's go-nvlib for the names of MIG profiles; helper_cuda.h of
the CUDA samples for the cores of a multiprocessor.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from attrs import define, evolve, field

from stackconf.hardware.facts import Accelerator, Fact, MigInstance, Problem
from stackconf.hardware.files import Files, chosen_root, cpu_list, kibibytes, whole_number
from stackconf.hardware.nvml import (
    ADDRESSING_ATS,
    ADVICE,
    DETECTOR,
    DRIVER_NOT_LOADED,
    KINDS,
    LIBRARY_NOT_FOUND,
    NOT_FOUND,
    NOT_SUPPORTED,
    Nvml,
    decoded,
)
from stackconf.hardware.topology import with_links
from stackconf.hardware.visibility import seen, variables
from stackconf.hookspecs import hookimpl

stackconf_api = 1

VENDOR_ID = "0x10de"
MIB = 1024**2
GIB = 1024**3

CORES_PER_MULTIPROCESSOR = {
    (5, 0): 128,
    (5, 2): 128,
    (5, 3): 128,
    (6, 0): 64,
    (6, 1): 128,
    (6, 2): 128,
    (7, 0): 64,
    (7, 2): 64,
    (7, 5): 64,
    (8, 0): 64,
    (8, 6): 128,
    (8, 7): 128,
    (8, 9): 128,
    (9, 0): 128,
    (10, 0): 128,
    (10, 1): 128,
    (10, 3): 128,
    (11, 0): 128,
    (12, 0): 128,
    (12, 1): 128,
}

CPU_WORDS = 64
"""Of 64 CPUs each: more than any machine has."""

MAX_MIG = 64
"""More instances than any card can have."""


@hookimpl
def discover_hardware() -> Iterable[Fact]:
    """The visibility variables, then every NVIDIA card of this machine."""
    return read_nvidia(Files(chosen_root(), DETECTOR), os.environ)


def read_nvidia(files: Files, environment: Mapping[str, str]) -> Iterator[Fact]:
    """`Visibility`, `Accelerator` and `Problem` facts, each given as soon as it is known.

    NVML speaks of the machine this runs on; `files` gives the NUMA nodes of the cards and the
    host's memory to compare with. NVML is not shut down: the process ends, and a driver that is
    in trouble hangs there as well as anywhere.
    """
    yield from variables(environment)
    if "pynvml" not in sys.modules and not _library_is_here():
        yield _no_cards(files, LIBRARY_NOT_FOUND, "NVML_ERROR_LIBRARY_NOT_FOUND")
        return
    import pynvml  # type: ignore[import-untyped]

    if not hasattr(pynvml, "nvmlDeviceGetHandleByIndex"):
        reason = "another module named `pynvml` hides nvidia-ml-py; uninstall it and install nvidia-ml-py"
        yield Problem(DETECTOR, "accelerators", "error", reason)
        return
    nvml = Nvml(pynvml)
    try:
        pynvml.nvmlInit()
        count = int(pynvml.nvmlDeviceGetCount())
    except Exception as error:  # noqa: BLE001 - NVMLError, or ctypes' own about a broken library
        code = getattr(error, "value", None)
        if isinstance(code, int):
            yield _no_cards(files, code, nvml.name(code))
        else:
            yield Problem(DETECTOR, "accelerators", "error", f"nvmlInit: {type(error).__name__}: {error}")
        return
    if count == 0:
        yield Problem(DETECTOR, "accelerators", "absent", "the NVIDIA driver is loaded and has no cards")
    yield from _cards(files, nvml, count, environment)
    yield from nvml.problems()
    yield from files.problems


@define
class _Card:
    """A card with NVML's handles to it and to its MIG instances; no handle where NVML gave none."""

    index: int
    handle: Any
    known: Accelerator
    instances: list[tuple[Any, MigInstance]] = field(factory=list)

    def take(self, known: Accelerator) -> None:
        """Know more of it."""
        self.known = known
        self.instances = [(own, now) for (own, _), now in zip(self.instances, known.mig, strict=True)]


def _cards(files: Files, nvml: Nvml, count: int, environment: Mapping[str, str]) -> Iterator[Accelerator]:
    """Each card as far as it is known: what it is, then the details, then what lies between the
    cards. Whatever hangs, what came before it counts.
    """
    common = Accelerator(
        "nvidia",
        driver_version=nvml.text("driver_version", None, "nvmlSystemGetDriverVersion"),
        runtime_version=_runtime_version(nvml),
    )
    cards = [_identified(nvml, evolve(common, index=index), index) for index in range(count)]
    value, order = environment.get("CUDA_VISIBLE_DEVICES"), environment.get("CUDA_DEVICE_ORDER")
    for card, known in zip(cards, seen(value, order, [card.known for card in cards]), strict=True):
        card.take(known)
        yield card.known
    for card in cards:
        if card.handle is not None:
            card.take(_detailed(files, nvml, card))
            yield card.known
    yield from with_links(nvml, [(card.index, card.handle, card.known) for card in cards])


def _identified(nvml: Nvml, known: Accelerator, index: int) -> _Card:
    handle = nvml.ask("accelerators", index, "nvmlDeviceGetHandleByIndex", index)
    if handle is None:
        return _Card(index, None, known)
    pci = nvml.ask("pci_bus_id", index, "nvmlDeviceGetPciInfo", handle)
    enabled = _mig_enabled(nvml, handle, index)
    instances = _instances(nvml, handle, index) if enabled else []
    known = evolve(
        known,
        uuid=nvml.text("uuid", index, "nvmlDeviceGetUUID", handle),
        name=nvml.text("name", index, "nvmlDeviceGetName", handle),
        pci_bus_id=None if pci is None else decoded(pci.busId),
        pci_device_id=None if pci is None else _device_id(pci.pciDeviceId),
        mig_enabled=enabled,
        mig=tuple(instance for _, instance in instances),
    )
    return _Card(index, handle, known, instances)


def _detailed(files: Files, nvml: Nvml, card: _Card) -> Accelerator:
    handle, index = card.handle, card.index
    capability = nvml.ask("compute_capability", index, "nvmlDeviceGetCudaComputeCapability", handle)
    if capability is not None:
        capability = (int(capability[0]), int(capability[1]))
    total, free, kind = _memory(files, nvml, handle, index)
    return evolve(
        card.known,
        memory_bytes=total,
        free_bytes=free,
        memory_kind=kind,
        compute_capability=capability,
        multiprocessors=_multiprocessors(nvml, handle, index, capability),
        mig=tuple(_sized(nvml, own, one, index, total) for own, one in card.instances),
        numa_node=_numa_node(files, nvml, handle, card.known),
        near_cpus=_near_cpus(files, nvml, handle, card.known),
        memory_node=nvml.try_ask("nvmlDeviceGetNumaNodeId", handle),
    )


# ------------------------------------------------------------------------------------- details


def _runtime_version(nvml: Nvml) -> str | None:
    """`12040` is CUDA 12.4."""
    number = nvml.ask("runtime_version", None, "nvmlSystemGetCudaDriverVersion_v2")
    return f"{number // 1000}.{number % 1000 // 10}" if number else None


def _device_id(number: int) -> str | None:
    """NVML puts the device's number above the vendor's; PCI ids are written the other way round."""
    return f"{number & 0xFFFF:04x}:{number >> 16 & 0xFFFF:04x}" if number else None


def _memory(
    files: Files, nvml: Nvml, handle: Any, index: int
) -> tuple[int | None, int | None, Literal["dedicated", "unified"] | None]:
    """Total and free bytes, and whose memory it is.

    A card that shares the host's memory gives no amount (GB10), or the host's own. Whether it
    shares is taken from its addressing mode or its chip-to-chip link, never from its name; these
    alone do not say so, because a Grace Hopper has both and memory of its own.
    """
    fact, call = "memory_bytes", "nvmlDeviceGetMemoryInfo"
    info, code = nvml.result(call, handle, version=getattr(nvml.library, "nvmlMemory_v2", 2))
    if info is None:
        info, code = nvml.result(call, handle)  # drivers before 515 know the first version only
    total = int(info.total) if info is not None else None
    if total is not None and not 0 < total < 2**63:
        nvml.note(fact, index, "unsupported", f"{call} gives {total} bytes in all")
        total = None
    host = _host_memory(files)
    if total is not None and (host is None or not math.isclose(total, host, rel_tol=0.01)):
        return total, int(info.free), "dedicated"
    unified = total == host if total is not None else False
    unified = unified or _coherent(nvml, handle)
    if total is not None:
        return total, int(info.free), "unified" if unified else "dedicated"
    if unified and code == NOT_SUPPORTED:
        nvml.note(fact, index, "unsupported", f"it shares the host's memory ({nvml.name(code)} from {call})")
    elif code is not None:
        nvml.failed(fact, index, call, code)
    return None, None, "unified" if unified else None


def _coherent(nvml: Nvml, handle: Any) -> bool:
    if nvml.try_ask("nvmlDeviceGetAddressingMode", handle) == ADDRESSING_ATS:
        return True
    link = nvml.try_ask("nvmlDeviceGetC2cModeInfoV1", handle)
    return link is not None and bool(link.isC2cEnabled)


def _host_memory(files: Files) -> int | None:
    return kibibytes(files.text("/proc/meminfo", "memory") or "", "MemTotal")


def _multiprocessors(nvml: Nvml, handle: Any, index: int, capability: tuple[int, int] | None) -> int | None:
    cores = nvml.ask("multiprocessors", index, "nvmlDeviceGetNumGpuCores", handle)
    if cores is None or capability is None:
        return None
    each = CORES_PER_MULTIPROCESSOR.get(capability)
    if not cores or each is None or cores % each:
        shown = f"{capability[0]}.{capability[1]}"
        nvml.note("multiprocessors", index, "unsupported", f"{cores} cores of compute capability {shown}")
        return None
    return int(cores // each)


def _numa_node(files: Files, nvml: Nvml, handle: Any, card: Accelerator) -> int | None:
    """The node whose CPUs are nearest: sysfs, else NVML's memory affinity; -1 is "not said"."""
    if folder := _folder(card):
        node = whole_number(files.text(f"{folder}/numa_node", "accelerators.numa_node"))
        if node is not None:
            return node
    masks = nvml.ask("numa_node", card.index, "nvmlDeviceGetMemoryAffinity", handle, 16, 0)
    if masks is None:
        return None
    nodes = _bits(masks)
    if len(nodes) == 1:
        return nodes[0]
    nvml.note("numa_node", card.index, "unsupported", f"nvmlDeviceGetMemoryAffinity gives {len(nodes)} nodes")
    return None


def _near_cpus(files: Files, nvml: Nvml, handle: Any, card: Accelerator) -> tuple[int, ...] | None:
    """The CPUs that sysfs names, else NVML's affinity; none at all is "not said"."""
    if folder := _folder(card):
        cpus = cpu_list(files.text(f"{folder}/local_cpulist", "accelerators.near_cpus"))
        if cpus:
            return cpus
    masks = nvml.ask("near_cpus", card.index, "nvmlDeviceGetCpuAffinity", handle, CPU_WORDS)
    if masks is None:
        return None
    cpus = tuple(_bits(masks))
    if not cpus:
        nvml.note("near_cpus", card.index, "unsupported", "nvmlDeviceGetCpuAffinity gives no CPUs")
    return cpus or None


def _folder(card: Accelerator) -> str | None:
    """Where sysfs has the card."""
    match = re.fullmatch(r"([0-9A-Fa-f]+):([0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])", card.pci_bus_id or "")
    return f"/sys/bus/pci/devices/{int(match[1], 16):04x}:{match[2].lower()}" if match else None


def _bits(words: Iterable[int]) -> list[int]:
    return [64 * number + bit for number, word in enumerate(words) for bit in range(64) if word >> bit & 1]


# ----------------------------------------------------------------------------------------- MIG


def _mig_enabled(nvml: Nvml, handle: Any, index: int) -> bool | None:
    modes, code = nvml.result("nvmlDeviceGetMigMode", handle)
    if code == NOT_SUPPORTED:
        return False  # a card without the feature
    if modes is None:
        nvml.failed("mig_enabled", index, "nvmlDeviceGetMigMode", code)
        return None
    return bool(modes[0] == 1)


def _instances(nvml: Nvml, handle: Any, index: int) -> list[tuple[Any, MigInstance]]:
    most = nvml.ask("mig", index, "nvmlDeviceGetMaxMigDeviceCount", handle)
    found = []
    for number in range(min(int(most or 0), MAX_MIG)):
        own, code = nvml.result("nvmlDeviceGetMigDeviceHandleByIndex", handle, number)
        if own is not None:
            found.append((own, MigInstance(nvml.text("mig.uuid", index, "nvmlDeviceGetUUID", own))))
        elif code != NOT_FOUND:  # an empty place
            nvml.failed("mig", index, "nvmlDeviceGetMigDeviceHandleByIndex", code)
    return found


def _sized(nvml: Nvml, handle: Any, instance: MigInstance, index: int, card_bytes: int | None) -> MigInstance:
    memory = nvml.ask("mig.memory_bytes", index, "nvmlDeviceGetMemoryInfo", handle)
    attributes = nvml.ask("mig.profile", index, "nvmlDeviceGetAttributes", handle)
    return evolve(
        instance,
        memory_bytes=None if memory is None else int(memory.total) or None,
        multiprocessors=None if attributes is None else int(attributes.multiprocessorCount) or None,
        profile=None if attributes is None or card_bytes is None else _profile(attributes, card_bytes),
    )


def _profile(attributes: Any, card_bytes: int) -> str | None:
    """`1g.10gb`: its memory rounded up to eighths of the card's, as go-nvlib names profiles.

    A compute instance that has part of the slices has its own number before: `1c.3g.40gb`.
    """
    compute, graphics = int(attributes.computeInstanceSliceCount), int(attributes.gpuInstanceSliceCount)
    if not graphics or not attributes.memorySizeMB:
        return None
    eighths = math.ceil(int(attributes.memorySizeMB) * MIB / card_bytes * 8)
    part = f"{compute}c." if compute != graphics else ""
    return f"{part}{graphics}g.{round(eighths / 8 * math.ceil(card_bytes / GIB))}gb"


def _library_is_here() -> bool:
    """Whether the driver's library can be loaded, as pynvml would; its 8 000 lines cost ten times that."""
    if not sys.platform.startswith("linux"):
        return True  # pynvml looks in several places there
    import ctypes

    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def _no_cards(files: Files, code: int, name: str) -> Problem:
    """Why there is nothing to ask. A card on the bus means that something is there after all."""
    advice = f"; {ADVICE[code]}" if code in ADVICE else ""
    reason = f"{name} from nvmlInit"
    if code == LIBRARY_NOT_FOUND:
        reason = f"no NVIDIA driver library ({name})"
    elif code == DRIVER_NOT_LOADED:
        reason = f"no NVIDIA driver is loaded ({name})"
        if "microsoft" in (files.text("/proc/sys/kernel/osrelease", "accelerators") or "").lower():
            advice = "; under WSL the library in /usr/lib/wsl/lib must be found first"
    if code in {LIBRARY_NOT_FOUND, DRIVER_NOT_LOADED}:
        there = _on_the_bus(files)
        if not there:
            return Problem(DETECTOR, "accelerators", "absent", reason)
        reason = f"{reason}, yet there is an NVIDIA card at {', '.join(there)}"
    return Problem(DETECTOR, "accelerators", KINDS.get(code, "error"), f"{reason}{advice}")


def _on_the_bus(files: Files) -> list[str]:
    """The PCI addresses of NVIDIA's display controllers (class 0x03)."""
    folder, fact = "/sys/bus/pci/devices", "accelerators"
    return [
        address
        for address in files.names(folder, fact)
        if (files.text(f"{folder}/{address}/vendor", fact) or "").strip() == VENDOR_ID
        and (files.text(f"{folder}/{address}/class", fact) or "").startswith("0x03")
    ]
