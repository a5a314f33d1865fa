"""The cards, or parts of cards, that a model can be put on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

if TYPE_CHECKING:
    from stackconf import Accelerator, Hardware


@frozen
class Device:
    """One unit with memory of its own: a card, or a MIG instance of one. Memory in bytes.

    `memory_bytes` is `None` where it is unknown, as on machines with unified memory.
    """

    name: str | None = None
    memory_bytes: int | None = None
    compute_capability: tuple[int, int] | None = None
    vendor: str = "nvidia"
    free_bytes: int | None = None
    """At the moment of discovery; deciding by it makes a plan depend on the moment."""
    part_of_card: bool = False
    """A MIG instance: no other device can share a model with it."""
    share: float = 1.0
    """Which part of the device its memory is, where other providers have the rest."""
    whole_bytes: int | None = None
    """The memory of all of it where this is a part; engines that want a fraction count by that."""

    @property
    def whole(self) -> Device:
        """All of it, whoever has the rest.

        >>> Device("NVIDIA L4", 12_000, share=0.5, whole_bytes=24_000).whole.memory_bytes
        24000
        """
        return self if self.share >= 1 else evolve(self, memory_bytes=self.whole_bytes, share=1.0)

    @property
    def kind(self) -> tuple[str, str | None, tuple[int, int] | None]:
        """Devices of one kind can share a model by tensor parallelism."""
        return self.vendor, self.name, self.compute_capability

    def __str__(self) -> str:
        return self.name or f"{self.vendor} device"


def devices(hardware: Hardware) -> tuple[Device, ...]:
    """What this process may use, in the driver's order: MIG instances in place of cards cut into them.

    >>> from stackconf import Accelerator, Hardware
    >>> card = Accelerator("nvidia", name="NVIDIA L4", memory_bytes=23034 * 1024**2)
    >>> [str(device) for device in devices(Hardware(accelerators=(card,)))]
    ['NVIDIA L4']
    """
    return tuple(device for card in hardware.visible_accelerators for device in _of(card))


def _of(card: Accelerator) -> list[Device]:
    if card.mig_enabled or card.mig:
        return [
            Device(
                f"{card.name or card.vendor} MIG {part.profile or 'instance'}",
                part.memory_bytes,
                card.compute_capability,
                card.vendor,
                part_of_card=True,
                share=part.share,
                whole_bytes=part.whole_memory_bytes if part.share < 1 else None,
            )
            for part in card.mig
        ]
    return [
        Device(
            card.name,
            card.memory_bytes,
            card.compute_capability,
            card.vendor,
            card.free_bytes,
            share=card.share,
            whole_bytes=card.whole_memory_bytes if card.share < 1 else None,
        )
    ]
