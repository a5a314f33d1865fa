"""What is published about models of cards: bandwidth, dense compute, links, exact amounts of memory.

NVML knows neither bandwidth nor compute. The figures stand in `catalog.json`, each with its
source, the day it was taken from there, and what it means: compute is for dense matrices, with the
type of the sums; links are one way; memory is what the driver reports, not the label on the box.
Where sources disagree the figure is unknown, and a figure from a weak source is marked.

A card is found by its PCI id, then by its exact name. Names are never parsed: the driver calls one
H100 NVL "NVIDIA Graphics Device", and "L4" is within "L40S".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from attrs import evolve, frozen

from stackconf.hardware.facts import (
    CATALOGUE,
    Accelerator,
    Figure,
    Hardware,
    Nominal,
    Problem,
    Throughput,
)

FORMAT = 1
MIB = 1024**2
GIGA, TERA = 10**9, 10**12

SAME_MEMORY = 0.10
"""How far a card's memory may be from its model's: error correction takes 6.5 %, drivers differ by
2.5 %. What is further off is a part of a card (a virtual GPU), and the figures are the whole one's.
"""


@frozen
class Model:
    """One model of card, as the catalogue has it."""

    slug: str
    vendor: str
    names: tuple[str, ...]
    """What the driver calls it, letter by letter."""
    pci_ids: tuple[str, ...]
    """`vendor:device`, lower case."""
    identity: str
    """Who says so."""
    capability: Figure | None
    """The CUDA compute capability as a decimal, `9.0`; `None` where there is no such thing."""
    compute_capability: tuple[int, int] | None
    memory_kind: Literal["dedicated", "unified"]
    nominal: Nominal
    note: str = ""


@frozen
class Catalogue:
    """All models, and the sources that they name."""

    models: Mapping[str, Model]
    """By slug, in the file's order."""
    sources: Mapping[str, str]
    """What each source is, and where."""
    gathered: str


def with_figures(hardware: Hardware) -> Hardware:
    """The same machine, each card with its model's figures, or a `Problem` that says why not.

    A card that has figures keeps them. Reads the catalogue only where there is a card.
    """
    if not any(card.nominal is None for card in hardware.accelerators):
        return hardware
    cards: list[Accelerator] = []
    problems = [each for each in hardware.problems if each.detector != CATALOGUE]
    for number, card in enumerate(hardware.accelerators):
        found = card.nominal or figures_of(card)
        if isinstance(found, str):
            known = card.uuid or card.pci_bus_id or str(number if card.index is None else card.index)
            problems.append(Problem(CATALOGUE, f"accelerators.{known}.nominal", "absent", found))
        else:
            card = evolve(card, nominal=found)  # noqa: PLW2901 - the same card with more in it
        cards.append(card)
    problems.sort(key=lambda one: (one.detector, one.fact, one.kind, one.reason))
    return evolve(hardware, accelerators=tuple(cards), problems=tuple(problems))


def figures_of(card: Accelerator) -> Nominal | str:
    """The figures of a card's model, or why there are none.

    >>> figures_of(Accelerator("nvidia", name="NVIDIA L4", pci_device_id="10DE:27B8")).slug
    'l4'
    >>> figures_of(Accelerator("nvidia", name="NVIDIA L400"))
    'no figures for a card with no PCI id and the name `NVIDIA L400`; the catalogue does not have it'
    """
    model, by = _model_of(card)
    if model is None:
        identity = f"the PCI id {card.pci_device_id}" if card.pci_device_id else "no PCI id"
        name = f"the name `{card.name}`" if card.name else "no name"
        return f"no figures for a card with {identity} and {name}; the catalogue does not have it"
    nominal, read = model.nominal.memory_bytes.value, card.memory_bytes
    if nominal is not None and read is not None and not math.isclose(read, nominal, rel_tol=SAME_MEMORY):
        return (
            f"it has {read // MIB} MiB, and `{model.slug}` has {int(nominal) // MIB} MiB: "
            "the figures of a whole card are not those of a part"
        )
    return evolve(model.nominal, matched_by=by)


def _model_of(card: Accelerator) -> tuple[Model | None, Literal["pci", "name"]]:
    models = catalogue().models.values()
    identity = (card.pci_device_id or "").lower()
    same_id = [model for model in models if identity in model.pci_ids]
    if len(same_id) == 1:
        return same_id[0], "pci"
    named = [model for model in same_id or models if card.name in model.names]
    return (named[0] if len(named) == 1 else None), "name"


@cache
def catalogue() -> Catalogue:
    """The catalogue, read when it is first asked for.

    >>> model = catalogue().models["h100-80gb-sxm"]
    >>> int(model.nominal.memory_bytes.value) // MIB, model.nominal.bandwidth.value / GIGA
    (81559, 3350.0)
    >>> bf16 = model.nominal.throughput("bf16")
    >>> bf16.flops.value / TERA, bf16.accumulate, bf16.flops.verified
    (989.0, 'fp32', True)
    """
    import json

    data = json.loads(Path(__file__).with_name("catalog.json").read_bytes())
    if data["format"] != FORMAT:
        raise RuntimeError(f"catalog.json has format {data['format']}, and this code reads {FORMAT}")
    sources = {name: _cited(each) for name, each in data["sources"].items()}
    reading = _Reading(sources, data["gathered"])
    models = {entry["slug"]: reading.model(entry) for entry in data["cards"]}
    return Catalogue(models, sources, data["gathered"])


def _cited(source: Mapping[str, str]) -> str:
    return ", ".join(source[key] for key in ("title", "url", "date") if key in source)


@frozen
class _Reading:
    sources: Mapping[str, str]
    gathered: str

    def model(self, entry: Mapping[str, Any]) -> Model:
        capability = entry["capability"]
        pair = None if capability is None else (capability["value"][0], capability["value"][1])
        number = None if pair is None else float(f"{pair[0]}.{pair[1]}")
        link = entry["link_gb_s"]
        nominal = Nominal(
            slug=entry["slug"],
            matched_by="slug",
            memory_bytes=self.figure(entry["memory_mib"], MIB),
            bandwidth=self.figure(entry["bandwidth_gb_s"], GIGA),
            link=self.figure(link, GIGA),
            link_kind=link.get("kind"),
            compute=tuple(self.throughputs(entry["compute_tflop_s"])),
            lacks=entry["lacks"],
        )
        return Model(
            slug=entry["slug"],
            vendor=entry["vendor"],
            names=tuple(entry["names"]),
            pci_ids=tuple(entry["pci"]),
            identity=self.sources[entry["identity"]],
            capability=None if capability is None else self.figure({**capability, "value": number}, 1),
            compute_capability=pair,
            memory_kind=entry["memory_kind"],
            nominal=nominal,
            note=entry.get("note", ""),
        )

    def figure(self, entry: Mapping[str, Any], unit: int) -> Figure:
        value = entry["value"]
        return Figure(
            value=None if value is None else _exact(value, unit),
            source=self.sources[entry["source"]],
            gathered=self.gathered,
            verified=entry.get("verified", True),
            note=entry.get("note", ""),
        )

    def throughputs(self, entry: Mapping[str, Any]) -> Iterator[Throughput]:
        for dtype, each in entry.items():
            figure = self.figure(each, TERA)
            yield Throughput(dtype, figure, each["accumulate"], each.get("measured", False))


def _exact(value: float, unit: int) -> float:
    """The amount without the error of a binary fraction: 362.05 tera are 362 050 000 000 000."""
    whole = round(value * unit)
    return whole if math.isclose(whole, value * unit) and unit != 1 else value


def slugs() -> Sequence[str]:
    """Every model's slug, in the catalogue's order."""
    return tuple(catalogue().models)
