"""The cards of this machine, as a setting that an operator can read and replace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from stackconf import Because, because, size_text
from stackconf_models import Device, devices

if TYPE_CHECKING:
    from stackconf import Hardware
    from stackconf_vllm.config import Unit


def units(hardware: Hardware) -> Because[list[dict[str, object]]] | None:
    """What a process on this machine may compute on, equal devices together.

    An empty list where there is certainly no accelerator, `None` where that is not known. What is
    free at the moment is left out: a plan must not depend on it.

    >>> from stackconf import simulate
    >>> units(simulate("l40s:2")).reason
    '2 x NVIDIA L40S, 45 GiB each'
    """
    found = devices(hardware)
    if not found:
        if hardware.accelerators:
            return because([], "no accelerator is visible to this process")
        return because([], "no accelerator") if hardware.certainly_no_accelerator else None
    counts = Counter(
        (each.vendor, each.name, each.memory_bytes, each.compute_capability, each.part_of_card)
        for each in found
    )
    entries: list[dict[str, object]] = []
    for (vendor, name, memory, capability, part), count in counts.items():
        entry = {
            "name": name,
            "count": count,
            "memory_bytes": memory,
            "compute_capability": None if capability is None else f"{capability[0]}.{capability[1]}",
            "part_of_card": part or None,
            "vendor": None if vendor == "nvidia" else vendor,
        }
        entries.append({key: value for key, value in entry.items() if value is not None})
    return because(
        entries, "; ".join(_told(Device(*key[1:4], vendor=key[0]), n) for key, n in counts.items())
    )


def _told(device: Device, count: int) -> str:
    if device.memory_bytes is None:
        return f"{count} x {device} of unknown memory"
    return f"{count} x {device}, {size_text(device.memory_bytes)}{' each' if count > 1 else ''}"


def as_devices(given: Iterable[Unit]) -> tuple[Device, ...]:
    """The same for the formulas of stackconf-models, one for each."""
    return tuple(
        Device(
            each.name,
            each.memory_bytes,
            each.capability,
            each.vendor,
            part_of_card=each.part_of_card,
        )
        for each in given
        for _ in range(each.count)
    )
