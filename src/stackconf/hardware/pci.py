"""The cards on the PCI bus, from sysfs alone: who made them and where they sit.

What stands in these files the kernel keeps itself; reading them asks no driver and no card.
Source: Documentation/ABI/testing/sysfs-bus-pci; pci_ids.h for the classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from threading import Lock

from attrs import frozen

from stackconf.hardware.files import Files, cpu_list, whole_number

DEVICES = "/sys/bus/pci/devices"
CARDS = ("0x03", "0x12")
"""Display controllers, and processing accelerators."""

NVIDIA, AMD, INTEL = "0x10de", "0x1002", "0x8086"
INTEGRATED = "0000:00:02.0"
"""Where Intel's graphics within a processor sits, always."""

FACT = "accelerators"


@frozen
class PciCard:
    """One card: its address `0000:3b:00.0`, its vendor's number, its `vendor:device` id, its driver."""

    address: str
    vendor: str
    device_id: str | None
    driver: str | None


def cards_of(files: Files, vendor: str) -> Iterator[PciCard]:
    """That vendor's cards in the order of their addresses."""
    for address in files.names(DEVICES, FACT):
        folder = f"{DEVICES}/{address}"
        kind = (files.text(f"{folder}/class", FACT) or "").strip()
        if not kind.startswith(CARDS) or (files.text(f"{folder}/vendor", FACT) or "").strip() != vendor:
            continue
        device = (files.text(f"{folder}/device", FACT) or "").strip().removeprefix("0x").lower()
        known = f"{vendor.removeprefix('0x')}:{device}" if device else None
        yield PciCard(address, vendor, known, properties(files, f"{folder}/uevent", "=").get("DRIVER"))


def near(files: Files, address: str) -> tuple[int | None, tuple[int, ...] | None]:
    """The NUMA node and the CPUs that a card is nearest to, as far as sysfs says."""
    folder = f"{DEVICES}/{address}"
    node = whole_number(files.text(f"{folder}/numa_node", "accelerators.numa_node"))
    return node, cpu_list(files.text(f"{folder}/local_cpulist", "accelerators.near_cpus")) or None


def properties(files: Files, path: str, between: str = " ", fact: str = FACT) -> Mapping[str, str]:
    """A file of lines `key value` (or `KEY=value`) as a mapping; empty where there is no such file."""
    lines = (files.text(path, fact) or "").splitlines()
    return {key: value.strip() for key, found, value in (line.partition(between) for line in lines) if found}


class Glance:
    """Which vendors' cards are here, looked up once for all who ask."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._lock = Lock()
        self._vendors: frozenset[str] | None = None

    @property
    def files(self) -> Files:
        """Where it looks."""
        return self._files

    def has(self, vendor: str) -> bool:
        """Whether a card of that vendor is on the bus; Intel's graphics within a processor is none."""
        with self._lock:
            if self._vendors is None:
                self._vendors = frozenset(self._look())
        return vendor in self._vendors

    def _look(self) -> Iterator[str]:
        for address in self._files.names(DEVICES, FACT):
            folder = f"{DEVICES}/{address}"
            if not (self._files.text(f"{folder}/class", FACT) or "").startswith(CARDS):
                continue
            vendor = (self._files.text(f"{folder}/vendor", FACT) or "").strip()
            if vendor != INTEL or address != INTEGRATED:
                yield vendor
