"""What llama.cpp may use of this machine, as settings that an operator can read and replace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from stackconf import Because, because, size_text

if TYPE_CHECKING:
    from stackconf import Accelerator, Hardware
    from stackconf_llama_cpp.config import Unit


@frozen
class Card:
    """One device of llama.cpp's: a card, or a MIG instance of one.

    `memory_bytes` is `None` where it is unknown; `unified`: it computes in main memory.
    """

    name: str | None = None
    memory_bytes: int | None = None
    capability: tuple[int, int] | None = None
    vendor: str = "nvidia"
    part_of_card: bool = False
    unified: bool = False
    uuid: str | None = None
    share: float = 1.0
    """Which part of main memory it may compute in, where it is `unified`."""

    def __str__(self) -> str:
        return self.name or f"{self.vendor} device"


@frozen
class Machine:
    """What there is to compute with. `None` is unknown; no `cards` are certainly none."""

    cards: tuple[Card, ...] | None = None
    cores: int | None = None
    memory_bytes: int | None = None
    memory_limited: bool | None = None
    """Whether a limit decides `memory_bytes`, and not the machine's total."""
    swap_bytes: int | None = None


def facts(hardware: Hardware) -> dict[str, Because[object]]:
    """The fields that come from the hardware; what is unknown is left out.

    >>> from stackconf import simulate
    >>> told = facts(simulate("l40s:2,cpu=32/64,memory=256GiB"))
    >>> [(name, each.reason) for name, each in told.items()]  # doctest: +NORMALIZE_WHITESPACE
    [('devices', '2 x NVIDIA L40S, 45 GiB each'), ('cores', '32 physical cores, one thread each'),
     ('memory_bytes', '256 GiB in all'), ('memory_limited', 'no limit is below the total')]
    """
    from stackconf import compute_threads

    found: dict[str, Because[object]] = {}
    listed = cards(hardware)
    if listed is not None:
        found["devices"] = _units(listed)
    threads, memory = compute_threads(hardware), hardware.memory
    if threads is not None:
        found["cores"] = because(threads.value, threads.reason)
    if memory.usable_bytes is not None:
        limited = memory.bound_by not in {None, "total"}
        size, limit = size_text(memory.usable_bytes), memory.bound_by
        found["memory_bytes"] = because(
            memory.usable_bytes, f"{size}, by {limit}" if limited else f"{size} in all"
        )
        found["memory_limited"] = because(limited, str(limit) if limited else "no limit is below the total")
    if memory.swap_bytes is not None:
        found["swap_bytes"] = because(memory.swap_bytes, f"{size_text(memory.swap_bytes)} of swap")
    return found


def cards(hardware: Hardware) -> tuple[Card, ...] | None:
    """The devices that a process on this machine may use, in the driver's order.

    Nothing where there is certainly none, `None` where that is not known. CUDA uses one MIG instance at
    most, so of those the largest is taken where there is no whole card. Of several vendors' cards, those
    of the one with the most memory: a build of llama.cpp is for one.
    """
    found = [card for accelerator in hardware.visible_accelerators for card in _of(accelerator)]
    if not found:
        return () if hardware.accelerators or hardware.certainly_no_accelerator else None
    sums: dict[str, int] = {}
    for card in found:
        sums[card.vendor] = sums.get(card.vendor, 0) + (card.memory_bytes or 0)
    best = max(sums, key=lambda vendor: sums[vendor])
    of_one = [card for card in found if card.vendor == best]
    whole = [card for card in of_one if not card.part_of_card]
    return tuple(whole or [max(of_one, key=lambda card: card.memory_bytes or 0)])


def _of(card: Accelerator) -> Iterator[Card]:
    own = Card(
        card.name,
        card.memory_bytes,
        card.compute_capability,
        card.vendor,
        unified=card.memory_kind == "unified",
        uuid=card.uuid,
        share=card.share if card.memory_kind == "unified" else 1.0,
    )
    if not (card.mig_enabled or card.mig):
        yield own
    for part in card.mig:
        name = f"{card.name or card.vendor} MIG {part.profile or 'instance'}"
        yield evolve(own, name=name, memory_bytes=part.memory_bytes, part_of_card=True, uuid=part.uuid)


def _units(listed: Iterable[Card]) -> Because[object]:
    """Equal neighbours together: their order is the one that `tensor_split` counts by."""
    entries: list[dict[str, object]] = []
    told: list[tuple[Card, int]] = []
    for card in listed:
        entry = _entry(card)
        if told and evolve(card, uuid=None) == evolve(told[-1][0], uuid=None):
            entries[-1]["count"] = told[-1][1] + 1
            told[-1] = (told[-1][0], told[-1][1] + 1)
            _add_uuid(entries[-1], card)
        else:
            entries.append(entry)
            told.append((card, 1))
    return because(entries, "; ".join(_told(card, count) for card, count in told) or "no accelerator")


def _entry(card: Card) -> dict[str, object]:
    major_minor = card.capability
    values: Mapping[str, object] = {
        "name": card.name,
        "count": 1,
        "memory_bytes": card.memory_bytes,
        "compute_capability": None if major_minor is None else f"{major_minor[0]}.{major_minor[1]}",
        "part_of_card": card.part_of_card or None,
        "unified": card.unified or None,
        "share": card.share if card.share != 1.0 else None,
        "vendor": None if card.vendor == "nvidia" else card.vendor,
        "uuids": None if card.uuid is None else [card.uuid],
    }
    return {key: value for key, value in values.items() if value is not None}


def _add_uuid(entry: dict[str, object], card: Card) -> None:
    known = entry.get("uuids")
    if isinstance(known, list) and card.uuid is not None:
        known.append(card.uuid)
    else:
        entry.pop("uuids", None)


def _told(card: Card, count: int) -> str:
    if card.unified:
        part = f"{card.share * 100:.4g} % of " if card.share != 1.0 else ""
        return f"{count} x {card}, in {part}main memory"
    if card.memory_bytes is None:
        return f"{count} x {card} of unknown memory"
    return f"{count} x {card}, {size_text(card.memory_bytes)}{' each' if count > 1 else ''}"


def as_cards(given: Iterable[Unit]) -> tuple[Card, ...]:
    """The devices that a setting lists, one for each."""
    return tuple(
        Card(
            each.name,
            each.memory_bytes,
            each.capability,
            each.vendor,
            each.part_of_card,
            each.unified,
            each.uuids[place] if each.uuids and len(each.uuids) == each.count else None,
            each.share,
        )
        for each in given
        for place in range(each.count)
    )


def cards_text(listed: Iterable[Card]) -> str:
    """Devices in a sentence, equal ones together.

    >>> cards_text([Card("NVIDIA L4")] * 2), cards_text([Card("NVIDIA L4"), Card("NVIDIA T4")])
    ('2 x NVIDIA L4', 'NVIDIA L4 and NVIDIA T4')
    """
    counts: dict[str, int] = {}
    for card in listed:
        counts[str(card)] = counts.get(str(card), 0) + 1
    return " and ".join(name if count == 1 else f"{count} x {name}" for name, count in counts.items())
