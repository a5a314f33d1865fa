"""The cards of this machine, as a setting that an operator can read and replace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from stackconf import Because, because, size_text
from stackconf_models import Device, devices

if TYPE_CHECKING:
    from stackconf import Accelerator, Hardware
    from stackconf_vllm.config import Unit


def units(hardware: Hardware) -> Because[list[dict[str, object]]] | None:
    """What a process on this machine may compute on, equal devices together. Of a card that it shares
    the entry has the whole memory, and the `share` that is its own.

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
        (
            each.vendor,
            each.name,
            each.whole.memory_bytes,
            each.compute_capability,
            each.part_of_card,
            each.share,
        )
        for each in found
    )
    entries: list[dict[str, object]] = []
    for (vendor, name, memory, capability, part, share), count in counts.items():
        entry = {
            "name": name,
            "count": count,
            "memory_bytes": memory,
            "compute_capability": None if capability is None else f"{capability[0]}.{capability[1]}",
            "part_of_card": part or None,
            "vendor": None if vendor == "nvidia" else vendor,
            "share": None if share == 1 else share,
        }
        entries.append({key: value for key, value in entry.items() if value is not None})
    return because(
        entries, "; ".join(_told(Device(*key[1:4], vendor=key[0]), n, key[5]) for key, n in counts.items())
    )


def selection(hardware: Hardware) -> Because[str] | None:
    """What `CUDA_VISIBLE_DEVICES` of an engine's own service must say, so that it computes on its cards.

    `None` where it begins with them anyway, and where there is no name for them. Cards are named by
    number, which counts in the order of the bus (`CUDA_DEVICE_ORDER=PCI_BUS_ID`); of MIG instances CUDA
    uses one, and they have no number. Source: CUDA C Programming Guide, "CUDA Environment Variables".

    >>> from attrs import evolve
    >>> from stackconf import simulate
    >>> box = simulate("l40s:4")
    >>> selection(box) is None
    True
    >>> selection(evolve(box, accelerators=box.accelerators[2:]))
    Because(value='2,3', reason='cards 2,3 are its own, and CUDA begins with card 0')
    """
    cards = hardware.visible_accelerators
    if not cards or any(card.vendor != "nvidia" for card in cards):
        return None
    if any(card.mig_enabled or card.mig for card in cards):
        return _instance(cards)
    # First those of which it has most, as the sizes take them.
    indices = [card.index for card in sorted(cards, key=lambda card: -card.share)]
    if None in indices or indices == list(range(len(indices))):
        return None
    named = ",".join(map(str, indices))
    whose = "cards" if len(indices) > 1 else "card"
    are = "are" if len(indices) > 1 else "is"
    return because(named, f"{whose} {named} {are} its own, and CUDA begins with card 0")


def _instance(cards: Iterable[Accelerator]) -> Because[str] | None:
    parts = [(part, card) for card in cards for part in card.mig]
    # One that is sized by: the largest.
    best = max(parts, key=lambda each: each[0].memory_bytes or 0, default=None)
    if best is None:
        return None
    part, card = best
    if part.uuid is None:
        return None
    where = "a card" if card.index is None else f"card {card.index}"
    return because(part.uuid, f"a MIG instance of {where} is its own, and CUDA uses the first one otherwise")


def _told(device: Device, count: int, share: float) -> str:
    own = "" if share == 1 else f"{share:.4g} of {'each of ' if count > 1 else ''}"
    if device.memory_bytes is None:
        return f"{own}{count} x {device} of unknown memory"
    return f"{own}{count} x {device}, {size_text(device.memory_bytes)}{' each' if count > 1 else ''}"


def as_devices(given: Iterable[Unit]) -> tuple[Device, ...]:
    """The same for the formulas of stackconf-models, one for each."""
    return tuple(
        Device(
            each.name,
            None if each.memory_bytes is None else int(each.memory_bytes * each.share),
            each.capability,
            each.vendor,
            part_of_card=each.part_of_card,
            share=each.share,
            whole_bytes=each.memory_bytes if each.share < 1 else None,
        )
        for each in given
        for _ in range(each.count)
    )
