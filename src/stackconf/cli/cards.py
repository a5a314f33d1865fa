"""The catalogue of cards, as a table with its sources, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import asdict

from stackconf.cli.output import NOTHING, Screen, emit_json, out
from stackconf.hardware.catalog import GIGA, MIB, TERA, Catalogue, Model, catalogue

if TYPE_CHECKING:
    from stackconf.cli.options import Settings
    from stackconf.hardware.facts import Figure, Nominal, Throughput

_TYPES = ("bf16", "fp16", "fp8")


def show(settings: Settings) -> None:
    """Print every card that the catalogue knows."""
    found = catalogue()
    if settings.json:
        emit_json(_data(found))
    else:
        _draw(out(settings), found, more=settings.verbose)


def figures_text(nominal: Nominal) -> str:
    """The key figures of a model in one line.

    >>> figures_text(catalogue().models["l40s"].nominal)
    '864 GB/s; BF16 362.05, FP8 733, INT8 733 TFLOP/s dense; PCIe 32 GB/s one way'
    >>> figures_text(catalogue().models["gh200-96gb"].nominal)
    'no figures known'
    """
    told = []
    if nominal.bandwidth.value is not None:
        told.append(f"{_amount(nominal.bandwidth, GIGA)} GB/s")
    rates = [f"{each.dtype.upper()} {_rate(each)}" for each in nominal.compute if each.flops.value]
    if rates:
        told.append(f"{', '.join(rates)} TFLOP/s dense")
    if nominal.link.value is not None:
        told.append(f"{_LINKS[str(nominal.link_kind)]} {_amount(nominal.link, GIGA)} GB/s one way")
    return "; ".join(told) or "no figures known"


_LINKS = {
    "nvlink": "NVLink",
    "nvlink-bridge": "NVLink bridge",
    "c2c": "NVLink-C2C",
    "infinity-fabric": "Infinity Fabric",
    "pcie": "PCIe",
    "None": "link",
}


def _draw(screen: Screen, found: Catalogue, *, more: bool) -> None:
    numbers = {source: str(number) for number, source in enumerate(found.sources.values(), 1)}
    head = ("card", "MiB", "GB/s", *map(str.upper, _TYPES), "CC", "link", "sources")
    rows = [_row(model, numbers) for model in found.models.values()]
    if more:
        head += ("PCI id", "name")
        models = found.models.values()
        rows = [(*row, *_keys(model)) for row, model in zip(rows, models, strict=True)]
    screen.table(head, rows)
    screen.line()
    types = ", ".join(map(str.upper, _TYPES))
    screen.paragraph(
        f"MiB: memory, as the driver reports it. GB/s: its bandwidth. {types}: 10^12 operations a second,"
        " dense. CC: CUDA compute capability. link: GB/s to other cards, one way."
    )
    hint = "" if more else " -v tells the reasons, the names and the PCI ids."
    screen.paragraph(
        f"{NOTHING}: unknown, or sources disagree. none: it has no such units. ?: from a weak source."
        f" ~: measured.{hint}"
    )
    if more:
        screen.line()
        for model in found.models.values():
            notes = [(what, figure.note) for what, figure in _figures(model)] + [("identity", model.note)]
            for what, note in notes:
                if note:
                    screen.paragraph(f"{model.slug}, {what}: {note}", hang="    ")
    screen.line()
    screen.line(f"Sources, read {found.gathered}", "bold")
    for source, number in numbers.items():
        screen.paragraph(source, indent=f"  {number:>2}  ", hang=" " * 6)


def _row(model: Model, numbers: dict[str, str]) -> tuple[str, ...]:
    nominal = model.nominal
    sources = dict.fromkeys(
        [model.identity, *(figure.source for _, figure in _figures(model) if figure.value)]
    )
    capability = NOTHING if model.capability is None else _amount(model.capability, 1)
    return (
        model.slug,
        _amount(nominal.memory_bytes, MIB),
        _amount(nominal.bandwidth, GIGA),
        *(_cell(nominal, dtype) for dtype in _TYPES),
        capability,
        _link(nominal),
        " ".join(sorted((numbers[source] for source in sources), key=int)),
    )


def _keys(model: Model) -> tuple[str, str]:
    """What a card is known by."""
    return (" ".join(model.pci_ids) or NOTHING, " or ".join(model.names))


def _figures(model: Model) -> list[tuple[str, Figure]]:
    """Every figure of a model with what it is of."""
    nominal = model.nominal
    capability = [] if model.capability is None else [("capability", model.capability)]
    return [
        ("memory", nominal.memory_bytes),
        ("bandwidth", nominal.bandwidth),
        *((each.dtype, each.flops) for each in nominal.compute),
        *capability,
        ("link", nominal.link),
    ]


def _cell(nominal: Nominal, dtype: str) -> str:
    if dtype in nominal.lacks:
        return "none"
    found = nominal.throughput(dtype)
    return NOTHING if found is None else _rate(found)


def _link(nominal: Nominal) -> str:
    amount = _amount(nominal.link, GIGA)
    return amount if amount == NOTHING else f"{amount} {_LINKS[str(nominal.link_kind)]}"


def _rate(each: Throughput) -> str:
    return ("~" if each.measured and each.flops.value else "") + _amount(each.flops, TERA)


def _amount(figure: Figure, unit: int) -> str:
    if figure.value is None:
        return NOTHING
    text = f"{figure.value / unit:.2f}".rstrip("0").rstrip(".") if unit != 1 else f"{figure.value}"
    return text + ("" if figure.verified else "?")


def _data(found: Catalogue) -> dict[str, Any]:
    return {
        "gathered": found.gathered,
        "sources": list(found.sources.values()),
        "cards": [
            {
                "slug": model.slug,
                "vendor": model.vendor,
                "names": list(model.names),
                "pci_ids": list(model.pci_ids),
                "identity_source": model.identity,
                "compute_capability": model.compute_capability and list(model.compute_capability),
                "compute_capability_source": None if model.capability is None else model.capability.source,
                "memory_kind": model.memory_kind,
                **{
                    key: value
                    for key, value in asdict(model.nominal).items()
                    if key not in {"slug", "matched_by"}
                },
                "note": model.note,
            }
            for model in found.models.values()
        ],
    }
