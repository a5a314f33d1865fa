"""The built-in Intel plugin: cards with memory of their own, from the files of i915 and xe.

Graphics within a processor is none of these: it computes with the host's memory and says nothing
about itself that a setting could follow from.

Source: the kernel's Documentation/ABI/testing/sysfs-driver-intel-* and drivers/gpu/drm; the Level
Zero specification for ZE_AFFINITY_MASK, the DPC++ manual for ONEAPI_DEVICE_SELECTOR.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from stackconf.hardware.facts import Accelerator, Fact, Problem, Visibility
from stackconf.hardware.files import Files, chosen_root, whole_number
from stackconf.hardware.pci import DEVICES, INTEGRATED, INTEL, PciCard, cards_of, near
from stackconf.hookspecs import hookimpl

stackconf_api = 1

DETECTOR = "intel"
DRIVERS = frozenset({"i915", "xe"})
VARIABLES = ("ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR")
ELSEWHERE = frozenset({"vfio-pci", "pci-stub"})
"""Drivers that keep a card for a virtual machine."""


@hookimpl
def discover_hardware() -> Iterable[Fact]:
    """The visibility variables, then every Intel card of this machine."""
    return read_intel(Files(chosen_root(), DETECTOR), os.environ)


def read_intel(files: Files, environment: Mapping[str, str]) -> Iterator[Fact]:
    """`Visibility`, `Accelerator` and `Problem` facts; nothing at all where there is no Intel card."""
    cards = [card for card in cards_of(files, INTEL) if card.address != INTEGRATED]
    set_here = [name for name in VARIABLES if name in environment]
    if cards:
        for variable in set_here:
            yield Visibility(variable, environment[variable])
    served = [card for card in cards if card.driver in DRIVERS]
    for index, card in enumerate(served):
        yield _card(files, index, card, visible=None if set_here else True)
    for card in cards:
        if card.driver not in DRIVERS:
            yield Problem(DETECTOR, "accelerators", "error", _unserved(card))
    if served:
        reason = "the kernel has no names of cards"
        files.problem("accelerators.name", "unsupported", reason)
    yield from files.problems


def _card(files: Files, index: int, card: PciCard, *, visible: bool | None) -> Accelerator:
    node, cpus = near(files, card.address)
    memory = _memory(files, card.address)
    if memory is None:
        reason = f"card {index}: the {card.driver} driver does not say"
        files.problem("accelerators.memory_bytes", "unsupported", reason)
    if visible is None:
        reason = f"{' and '.join(VARIABLES)} are not worked out"
        files.problem("accelerators.visible", "unsupported", reason)
    return Accelerator(
        "intel",
        index=index,
        pci_bus_id=card.address,
        pci_device_id=card.device_id,
        memory_bytes=memory,
        memory_kind="dedicated",
        numa_node=node,
        near_cpus=cpus,
        visible=visible,
        ordinal=index if visible else None,
    )


def _memory(files: Files, address: str) -> int | None:
    """i915 has one amount for a card, xe one for each tile; older kernels have neither."""
    folder, fact = f"{DEVICES}/{address}", "accelerators.memory_bytes"
    for name in files.names(f"{folder}/drm", fact):
        whole = whole_number(files.text(f"{folder}/drm/{name}/lmem_total_bytes", fact))
        if whole:
            return whole
    tiles = [name for name in files.names(folder, fact) if name.startswith("tile")]
    sizes = [_hexadecimal(files.text(f"{folder}/{name}/physical_vram_size_bytes", fact)) for name in tiles]
    return sum(size for size in sizes if size) if sizes and all(sizes) else None


def _hexadecimal(text: str | None) -> int | None:
    """What xe writes: `0x0000000400000000`."""
    try:
        return int((text or "").strip(), 16) or None
    except ValueError:
        return None


def _unserved(card: PciCard) -> str:
    if card.driver in ELSEWHERE:
        return f"the Intel card at {card.address} is kept for a virtual machine (driver {card.driver})"
    what = f"its driver is {card.driver}" if card.driver else "no driver serves it"
    return f"there is an Intel card at {card.address}, yet {what}; load xe or i915 (`modprobe xe`)"
