"""The built-in AMD plugin: what the kernel says of the cards, then what amdsmi adds where it works.

The amdgpu driver's files give identity, memory and links without any of AMD's libraries. `amdsmi`
is imported here, in the detector's own process, and after everything else was reported: without
ROCm its import prints and raises `KeyError`, and its first call is known to hang.

Sources: Documentation/gpu/amdgpu (sysfs), the kernel's kfd_topology.c and kfd_crat.h (types of
links), the amdsmi Python API reference, ROCm's "GPU isolation techniques" (visibility variables).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from attrs import evolve, frozen

from stackconf.hardware.amd_visibility import VARIABLES, seen
from stackconf.hardware.facts import Accelerator, Fact, Peer, Problem, Visibility
from stackconf.hardware.files import Files, chosen_root, whole_number
from stackconf.hardware.pci import AMD, DEVICES, cards_of, near, properties
from stackconf.hookspecs import hookimpl

stackconf_api = 1

DETECTOR = "amd"
NODES = "/sys/class/kfd/kfd/topology/nodes"
ROCM = "/opt/rocm/.info/version"
XGMI, PCIE = "11", "2"
MIB = 1024**2


@hookimpl
def discover_hardware() -> Iterable[Fact]:
    """The visibility variables, then every AMD card of this machine."""
    files = Files(chosen_root(), DETECTOR)
    return read_amd(files, os.environ, ask_library=files.real)


def read_amd(files: Files, environment: Mapping[str, str], *, ask_library: bool) -> Iterator[Fact]:
    """`Visibility`, `Accelerator` and `Problem` facts; nothing at all where there is no AMD card.

    amdsmi speaks of the machine this runs on; `ask_library` says whether the files are that one's.
    """
    nodes = [node for node in _nodes(files) if node.is_card]
    on_bus = list(cards_of(files, AMD))
    driven = [card for card in on_bus if card.driver in {None, "amdgpu"} and _has_memory(files, card.address)]
    if not nodes and not driven:
        if on_bus:
            where = ", ".join(card.address for card in on_bus)
            reason = f"there is an AMD card at {where}, yet the amdgpu driver does not serve it"
            yield Problem(DETECTOR, "accelerators", "error", f"{reason}; load it (`modprobe amdgpu`)")
        yield from files.problems
        return
    for variable in VARIABLES:
        if variable in environment:
            yield Visibility(variable, environment[variable])
    if nodes:
        found = [_from_node(files, number, node, nodes) for number, node in enumerate(nodes)]
    else:
        files.problem("accelerators.architecture", "unsupported", f"the kernel offers no {NODES}")
        found = [
            _from_bus(files, card.address, Accelerator("amd", index=number, pci_device_id=card.device_id))
            for number, card in enumerate(driven)
        ]
    cards = seen(environment, found)
    yield from cards
    if ask_library:
        cards = yield from _asked(files, cards)
    _tell_unknown(files, cards)
    yield from files.problems


# ----------------------------------------------------------------------------- the kernel's files


@frozen
class _Node:
    """One node of the kernel's topology of compute: a card, a part of one, or processors."""

    number: int
    known: Mapping[str, str]

    @property
    def is_card(self) -> bool:
        return self.count("simd_count") > 0

    def count(self, key: str) -> int:
        return whole_number(self.known.get(key)) or 0

    @property
    def address(self) -> str:
        """`location_id` is the bus, device and function as in a PCI address."""
        place = self.count("location_id") & 0xFFFF
        return f"{self.count('domain'):04x}:{place >> 8:02x}:{place >> 3 & 0x1F:02x}.{place & 7}"


def _nodes(files: Files) -> list[_Node]:
    numbers = sorted(int(name) for name in files.names(NODES, "accelerators") if name.isdecimal())
    return [_Node(number, properties(files, f"{NODES}/{number}/properties")) for number in numbers]


def _from_node(files: Files, index: int, node: _Node, nodes: Sequence[_Node]) -> Accelerator:
    unique = node.count("unique_id")
    if sum(other.count("unique_id") == unique for other in nodes) > 1:
        unique = 0  # older kernels give every part of a card the card's own
    each = node.count("simd_per_cu")
    card = Accelerator(
        "amd",
        index=index,
        uuid=f"GPU-{unique:016x}" if unique else None,
        pci_device_id=f"1002:{node.count('device_id'):04x}" if node.count("device_id") else None,
        architecture=_target(node.count("gfx_target_version")),
        multiprocessors=node.count("simd_count") // each if each else None,
        peers=_peers(files, node, nodes),
        memory_kind="unified" if node.count("cpu_cores_count") else None,
    )
    card = _from_bus(files, node.address, card)
    if sum(other.address == node.address for other in nodes) > 1:
        # Part of a card: what the bus says is about the whole.
        size = _bank(files, node)
        card = evolve(card, memory_bytes=size, free_bytes=None)
    return card


def _target(version: int) -> str | None:
    """`90402` is gfx942, `110000` is gfx1100: major, minor, and a stepping in hexadecimal.

    >>> _target(90402), _target(110000), _target(90010), _target(0)
    ('gfx942', 'gfx1100', 'gfx90a', None)
    """
    return f"gfx{version // 10000}{version // 100 % 100}{version % 100:x}" if version else None


def _bank(files: Files, node: _Node) -> int | None:
    """The memory of one node: the sum of its banks."""
    folder = f"{NODES}/{node.number}/mem_banks"
    sizes = [
        whole_number(properties(files, f"{folder}/{name}/properties").get("size_in_bytes")) or 0
        for name in files.names(folder, "accelerators.memory_bytes")
    ]
    return sum(sizes) or None


def _peers(files: Files, node: _Node, nodes: Sequence[_Node]) -> tuple[Peer, ...]:
    numbers = {other.number: index for index, other in enumerate(nodes)}
    links: dict[int, Literal["xgmi", "pcie"]] = {}
    direct: set[int] = set()
    for kind in ("io_links", "p2p_links"):
        folder = f"{NODES}/{node.number}/{kind}"
        for name in files.names(folder, "accelerators.peers"):
            known = properties(files, f"{folder}/{name}/properties")
            other = whole_number(known.get("node_to"))
            to = None if other is None else numbers.get(other)
            if to is None:
                continue
            if known.get("type") in {XGMI, PCIE}:
                links[to] = "xgmi" if known["type"] == XGMI else links.get(to, "pcie")
            direct.add(to)
    return tuple(
        Peer(index, links.get(index), direct=True if index in direct else None)
        for number, index in numbers.items()
        if number != node.number
    )


def _has_memory(files: Files, address: str) -> bool:
    return files.exists(f"{DEVICES}/{address}/mem_info_vram_total")


def _from_bus(files: Files, address: str, card: Accelerator) -> Accelerator:
    """What the driver's files at that address add."""
    folder = f"{DEVICES}/{address}"

    def size(name: str) -> int | None:
        return whole_number(files.text(f"{folder}/{name}", "accelerators.memory_bytes"))

    total, used = size("mem_info_vram_total") or None, size("mem_info_vram_used")
    node, cpus = near(files, address)
    vendor = (files.text(f"{folder}/mem_info_vram_vendor", "accelerators.memory_kind") or "").strip()
    kind = card.memory_kind or ("dedicated" if vendor not in {"", "unknown"} else None)
    if kind == "unified":
        files.problem(
            "accelerators.memory_bytes",
            "unsupported",
            f"card {card.index}: it shares the host's memory"
            + (f"; {total // MIB} MiB of it are set aside for it" if total else ""),
        )
        total = None
    return evolve(
        card,
        name=(files.text(f"{folder}/product_name", "accelerators.name") or "").strip() or None,
        pci_bus_id=address,
        memory_bytes=total,
        free_bytes=None if total is None or used is None else max(0, total - used),
        memory_kind=kind,
        numa_node=node,
        near_cpus=cpus,
        driver_version=(files.text("/sys/module/amdgpu/version", "accelerators.driver_version") or "").strip()
        or None,
        runtime_version=(files.text(ROCM, "accelerators.runtime_version") or "").strip().split("-")[0]
        or None,
    )


def _tell_unknown(files: Files, cards: Sequence[Accelerator]) -> None:
    """One reason for each fact that some card lacks."""
    why = {
        "name": "the card's files have no name; amdsmi, which comes with ROCm, has",
        "uuid": "the kernel gives no unique id",
        "memory_kind": "neither the kernel nor amdsmi says what memory it has",
        "driver_version": "the kernel's own amdgpu has no version",
        "runtime_version": f"ROCm is not at {ROCM}",
        "numa_node": "sysfs names none",
        "near_cpus": "sysfs names none",
    }
    for name, reason in why.items():
        lacking = [str(card.index) for card in cards if getattr(card, name) is None]
        if lacking:
            which = f"card{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}"
            files.problem(f"accelerators.{name}", "unsupported", f"{which}: {reason}")


# ---------------------------------------------------------------------------------------- amdsmi


def _asked(files: Files, cards: list[Accelerator]) -> Generator[Accelerator, None, list[Accelerator]]:
    """The cards with what amdsmi adds, each given again as soon as that is known."""
    from importlib.util import find_spec

    if find_spec("amdsmi") is None:
        return cards
    try:
        import amdsmi  # type: ignore[import-not-found,import-untyped,unused-ignore]

        amdsmi.amdsmi_init()
        handles = {str(amdsmi.amdsmi_get_gpu_device_bdf(one)).lower(): one for one in _handles(amdsmi)}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - without ROCm its import raises KeyError
        reason = f"{type(error).__name__}: {error}; what the kernel says counts"
        files.problem("accelerators.amdsmi", "unsupported", f"amdsmi cannot be used: {reason}")
        return cards
    more = []
    for card in cards:
        handle = handles.get(card.pci_bus_id or "")
        found = card if handle is None else _more(amdsmi, handle, card)
        if found != card:
            yield found
        more.append(found)
    return more


def _handles(amdsmi: Any) -> Sequence[Any]:
    found: Sequence[Any] = amdsmi.amdsmi_get_processor_handles()
    return found


def _more(amdsmi: Any, handle: Any, card: Accelerator) -> Accelerator:
    """What the kernel left open. The kernel's own word is not replaced."""
    asic = _told(amdsmi, "amdsmi_get_gpu_asic_info", handle)
    driver = _told(amdsmi, "amdsmi_get_gpu_driver_info", handle)
    memory = _memory_type(amdsmi, _told(amdsmi, "amdsmi_get_gpu_vram_info", handle).get("vram_type"))
    kind: Literal["dedicated", "unified"] | None = None
    if "DDR" in memory or "HBM" in memory:
        kind = "dedicated" if "GDDR" in memory or "HBM" in memory else "unified"
    return evolve(
        card,
        name=card.name or _text(asic.get("market_name")),
        driver_version=card.driver_version or _text(driver.get("driver_version")),
        memory_kind=card.memory_kind or kind,
    )


def _memory_type(amdsmi: Any, value: object) -> str:
    """The name of a type of memory, which amdsmi gives as the number in its enumeration."""
    try:
        return str(amdsmi.AmdSmiVramType(value).name).upper()
    except (AttributeError, ValueError, TypeError):
        return ""


def _told(amdsmi: Any, call: str, handle: Any) -> Mapping[str, Any]:
    try:
        told = getattr(amdsmi, call)(handle)
    except Exception:  # noqa: BLE001 - each call has its own way to say that it cannot
        return {}
    return told if isinstance(told, Mapping) else {}


def _text(value: object) -> str | None:
    """What amdsmi says; where it does not know it says `N/A`."""
    text = str(value or "").strip()
    return None if text.upper() in {"", "N/A", "UNKNOWN"} else text
