"""What a model can be computed on here, by the names that PyTorch has for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import asdict, frozen

from stackconf import Because, because, size_text

if TYPE_CHECKING:
    from stackconf import Accelerator, Hardware

_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
"""Instruction sets with which a processor computes in bfloat16 instead of unpacking it."""
_TORCH = {"nvidia": "cuda", "amd": "cuda", "intel": "xpu", "apple": "mps"}


@frozen
class Place:
    """A processor or a card, or the part of one that the provider may use. Memory in bytes."""

    device: str
    """As PyTorch names it in this process: `cpu`, `cuda:1`, `mps`, `xpu:0`."""
    name: str | None = None
    memory_bytes: int | None = None
    """What of it may be used; `None` where it is unknown."""
    compute_capability: tuple[int, int] | None = None
    vendor: str = ""
    unified: bool = False
    """It has no memory of its own."""
    bfloat16: bool = False
    """A processor that computes in it."""

    @property
    def kind(self) -> str:
        """The device without its number.

        >>> Place("cuda:1").kind
        'cuda'
        """
        return self.device.partition(":")[0]

    def __str__(self) -> str:
        return self.name or self.device


def places(hardware: Hardware) -> Because[list[dict[str, object]]] | None:
    """What this process may compute on: the cards in the driver's order, and the processor last.

    `None` where nothing is known of the machine. What is free at the moment is left out: a plan must not
    depend on it.

    >>> from stackconf import simulate
    >>> places(simulate("l4,cpu=8,memory=32GiB")).reason
    'cuda (NVIDIA L4, 22.5 GiB); cpu (32 GiB)'
    """
    found = [place for card in hardware.visible_accelerators if (place := _of(card, hardware)) is not None]
    usable = hardware.memory.usable_bytes
    if usable is None and not found and hardware.cpu.usable_cores is None:
        return None
    isa = hardware.cpu.isa or frozenset()
    found.append(Place("cpu", hardware.cpu.model, usable, bfloat16=bool(isa & _BFLOAT16)))
    return because([_entry(place) for place in found], "; ".join(map(_told, found)))


def _of(card: Accelerator, hardware: Hardware) -> Place | None:
    name = _TORCH.get(card.vendor)
    if name is None or (card.mig_enabled and not card.mig):
        return None
    if card.mig_enabled:
        part = next((each for each in card.mig if each.visible), card.mig[0])
        label = f"{card.name or card.vendor} MIG {part.profile or 'instance'}"
        return Place(_numbered(name, card), label, part.memory_bytes, card.compute_capability, card.vendor)
    unified, memory = card.memory_kind == "unified", card.memory_bytes
    if unified or card.vendor == "apple":
        usable = hardware.memory.usable_bytes
        return Place(
            _numbered(name, card),
            card.name,
            None if usable is None else int(usable * card.share),
            card.compute_capability,
            card.vendor,
            unified=True,
        )
    return Place(_numbered(name, card), card.name, memory, card.compute_capability, card.vendor)


def _numbered(name: str, card: Accelerator) -> str:
    """With the number that programs of this process have for the card, where that is certain."""
    return name if name == "mps" or card.ordinal is None else f"{name}:{card.ordinal}"


def _entry(place: Place) -> dict[str, object]:
    entry: dict[str, object] = asdict(place)
    capability = place.compute_capability
    entry["compute_capability"] = None if capability is None else f"{capability[0]}.{capability[1]}"
    return {key: value for key, value in entry.items() if value not in (None, False, "")}


def _told(place: Place) -> str:
    memory = "of unknown memory" if place.memory_bytes is None else size_text(place.memory_bytes)
    shared = " of the host's memory" if place.unified and place.memory_bytes is not None else ""
    return f"{place.device} ({', '.join(filter(None, [place.name, memory + shared]))})"
