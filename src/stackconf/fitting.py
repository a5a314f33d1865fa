"""Which machine a configuration is for, and whether a machine is one: what a shipped file says under
`hardware:`, compared with facts.

    hardware:
      cards: {slug: [h100-80gb-sxm, h100-80gb-pcie], count: 8}
      cpu: 32
      memory: 256GiB

A card is told by the catalogue's slug (which comes from its PCI id, and from its name only letter by
letter), by its bytes, and by its compute capability. Cards count together only when they are of one
kind. What is not known of a machine is said to be unknown: it neither fits nor fails to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from attrs import field, frozen

from stackconf.hardware.sizing import size_text
from stackconf.suggest import did_you_mean

if TYPE_CHECKING:
    from stackconf.hardware.facts import Accelerator, Hardware

Verdict: TypeAlias = Literal["fits", "near", "unknown", "no"]
"""`near`: the right kind of machine, and something of it is missing. `unknown`: what would decide is
not known of this machine. `no`: another kind of machine."""

_ORDER: Mapping[Verdict, int] = {"fits": 0, "near": 1, "unknown": 2, "no": 3}
_KEYS = ("cards", "cpu", "memory")
_CARD_KEYS = ("slug", "vendor", "memory", "compute_capability", "count")
_MOST_CARDS = 1024


def _noun(count: int) -> str:
    return "card" if count == 1 else "cards"


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@frozen
class Cards:
    """So many cards of one kind, at least; `count` 0 is a machine without any."""

    count: int = 1
    slugs: tuple[str, ...] = field(default=(), converter=_texts)
    vendor: str = ""
    memory_bytes: int | None = None
    """Of each card, at least. Below the label: drivers keep some back."""
    compute_capability: tuple[int, int] | None = None

    def __str__(self) -> str:
        if not self.count:
            return "no card"
        kind = " or ".join(self.slugs) or f"{self.vendor} {_noun(self.count)}".strip()
        least = [f"{size_text(self.memory_bytes)}" if self.memory_bytes else ""]
        if self.compute_capability:
            least.append("compute capability {}.{}".format(*self.compute_capability))
        wanted = " and ".join(filter(None, least))
        return f"{self.count} {kind}" + (f" with at least {wanted}" if wanted else "")


@frozen
class Requirement:
    """The machine that a configuration is for; everything is a least amount."""

    cards: Cards | None = None
    cores: float | None = None
    """Usable CPUs."""
    memory_bytes: int | None = None
    """Usable main memory."""

    def __str__(self) -> str:
        parts = [
            str(self.cards) if self.cards else "",
            f"{self.cores:g} CPUs" if self.cores else "",
            f"{size_text(self.memory_bytes)} memory" if self.memory_bytes else "",
        ]
        return ", ".join(filter(None, parts)) or "any machine"


@frozen
class Fit:
    """Whether a machine is one that a configuration is for."""

    verdict: Verdict
    why: str = ""
    """What of the machine counts: `8 of 8 cards h100-80gb-sxm, 96 CPUs`."""
    missing: tuple[str, ...] = field(default=(), converter=_texts)
    """What the machine lacks, or what is not known of it; each a short phrase."""
    share: str = ""
    """How many of the machine's cards count, where other providers have the rest: `4 of 8 cards`."""

    def __str__(self) -> str:
        word = {"fits": "fits", "near": "near miss", "unknown": "cannot be told", "no": "no"}[self.verdict]
        told = self.why if self.verdict == "fits" else "; ".join(self.missing)
        share = f" (its share is {self.share})" if self.share else ""
        return f"{word}: {told}{share}" if told else f"{word}{share}"


def nearness(fit: Fit) -> tuple[int, int]:
    """The smaller, the nearer a machine is to what is asked."""
    return _ORDER[fit.verdict], len(fit.missing) if fit.verdict == "near" else 0


def demand(requirement: Requirement) -> tuple[int, int, int, float]:
    """How much a requirement asks for. Of two that fit, the one that asks for more says more about
    the machine: named models before amounts, more cards before fewer.
    """
    cards = requirement.cards or Cards(count=0)
    memory = (cards.memory_bytes or 0) + (requirement.memory_bytes or 0)
    return bool(cards.slugs), cards.count, memory, requirement.cores or 0.0


def read_requirement(data: object) -> Requirement:
    """What a file says under `hardware:`. Raises `ValueError` with one line.

    >>> print(read_requirement({"cards": {"slug": "l40s", "count": 4}, "memory": "128GiB"}))
    4 l40s, 128 GiB memory
    >>> read_requirement({"cards": {"slug": "l40", "cuont": 4}})
    Traceback (most recent call last):
    ValueError: hardware.cards has no key `cuont`; did you mean `count`?
    """
    given = _mapping(data, "hardware", _KEYS)
    cards = given.get("cards")
    cores = given.get("cpu")
    if cores is not None and (isinstance(cores, bool) or not isinstance(cores, (int, float)) or cores <= 0):
        raise ValueError(f"hardware.cpu is a number of CPUs, not {cores!r}")
    return Requirement(
        None if cards is None else _read_cards(cards),
        cores,
        _size(given.get("memory"), "hardware.memory"),
    )


def _read_cards(data: object) -> Cards:
    given = _mapping(data, "hardware.cards", _CARD_KEYS)
    count = given.get("count", 1)
    if type(count) is not int or not 0 <= count <= _MOST_CARDS:
        raise ValueError(f"hardware.cards.count is a whole number up to {_MOST_CARDS}, not {count!r}")
    slugs = given.get("slug", [])
    slugs = [slugs] if isinstance(slugs, str) else slugs
    if not isinstance(slugs, list) or not all(isinstance(each, str) for each in slugs):
        raise ValueError("hardware.cards.slug is a slug of the catalogue, or a list of them")
    _refuse_strangers(slugs)
    return Cards(
        count=count,
        slugs=tuple(slugs),
        vendor=str(given.get("vendor", "")),
        memory_bytes=_size(given.get("memory"), "hardware.cards.memory"),
        compute_capability=_capability(given.get("compute_capability")),
    )


def _refuse_strangers(named: Sequence[str]) -> None:
    from stackconf.hardware.catalog import slugs

    for slug in named:
        if slug not in slugs():
            hint = did_you_mean(slug, slugs()) or "`stackconf hardware --catalogue` lists them"
            raise ValueError(f"hardware.cards.slug: the catalogue has no `{slug}`; {hint}")


def _capability(value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    major, dot, minor = str(value).partition(".")
    if not dot or not (major + minor).isascii() or not (major + minor).isdigit():
        raise ValueError(f"hardware.cards.compute_capability is a text such as '8.9', not {value!r}")
    return int(major), int(minor)


def _size(value: object, where: str) -> int | None:
    from stackconf.hardware.simulation import read_size

    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{where} is an amount such as 128GiB, not {value!r}")  # noqa: TRY004 (a file's)
    try:
        return read_size(value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _mapping(data: object, where: str, keys: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} is a mapping with {', '.join(keys)}")  # noqa: TRY004 (a file's)
    for key in data:
        if key not in keys:
            hint = did_you_mean(str(key), keys) or f"there are {', '.join(keys)}"
            raise ValueError(f"{where} has no key `{key}`; {hint}")
    return data


@frozen
class _Finding:
    """One part of a requirement, compared."""

    verdict: Verdict
    text: str


def fit(requirement: Requirement, hardware: Hardware) -> Fit:
    """Compare a machine with what is asked of it.

    >>> from stackconf import simulate
    >>> wanted = read_requirement({"cards": {"slug": "h100-80gb-sxm", "count": 8}, "memory": "256GiB"})
    >>> print(fit(wanted, simulate("h100-80gb-sxm:8,cpu=96,memory=1TiB")))
    fits: 8 of 8 cards h100-80gb-sxm, 1 TiB memory
    >>> print(fit(wanted, simulate("h100-80gb-sxm:4,cpu=96,memory=128GiB")))
    near miss: 4 more cards h100-80gb-sxm; 128 GiB more memory
    >>> print(fit(wanted, simulate("l4:8,cpu=96")))
    no: a card h100-80gb-sxm, where there are 8 l4; how much memory there is
    """
    found = [
        finding
        for finding in (
            _compare_cards(requirement.cards, hardware),
            _amount(requirement.cores, hardware.cpu.usable_cores, "CPUs"),
            _memory(requirement.memory_bytes, hardware.memory.usable_bytes),
        )
        if finding is not None
    ]
    verdict: Verdict = "fits"
    for each in found:
        verdict = max(verdict, each.verdict, key=_ORDER.__getitem__)
    why = ", ".join(each.text for each in found if each.verdict == "fits")
    return Fit(verdict, why, tuple(each.text for each in found if each.verdict != "fits"))


def _amount(wanted: float | None, there: float | None, noun: str) -> _Finding | None:
    if wanted is None:
        return None
    if there is None:
        return _Finding("unknown", f"how many {noun} there are")
    if there < wanted:
        return _Finding("near", f"{wanted - there:g} more {noun}")
    return _Finding("fits", f"{there:g} {noun}")


def _memory(wanted: int | None, there: int | None) -> _Finding | None:
    if wanted is None:
        return None
    if there is None:
        return _Finding("unknown", "how much memory there is")
    if there < wanted:
        return _Finding("near", f"{size_text(wanted - there)} more memory")
    return _Finding("fits", f"{size_text(there)} memory")


def _compare_cards(wanted: Cards | None, hardware: Hardware) -> _Finding | None:
    if wanted is None:
        return None
    cards = hardware.visible_accelerators
    if not wanted.count:
        return _compare_none(hardware)
    if not cards:
        if hardware.certainly_no_accelerator or hardware.accelerators:
            none = "none of the cards is visible" if hardware.accelerators else "there is none"
            return _Finding("no", f"{wanted}, where {none}")
        return _Finding("unknown", "whether there are cards")
    compared = [_compare_kind(wanted, kind) for kind in _kinds(cards)]
    return min(compared, key=lambda each: _ORDER[each[0].verdict] * _MOST_CARDS - each[1])[0]


def _compare_none(hardware: Hardware) -> _Finding:
    """A machine to which there should be no card."""
    if hardware.accelerators:
        there = _listed(hardware.accelerators)
        return _Finding("no", f"it is for a machine without cards, and there are {there}")
    if not hardware.certainly_no_accelerator:
        return _Finding("unknown", "whether there are cards")
    return _Finding("fits", "no cards")


def _compare_kind(wanted: Cards, cards: Sequence[Accelerator]) -> tuple[_Finding, int]:
    """What cards of one kind are to a requirement, and how many they are."""
    first = cards[0]
    name = card_name(first)
    whole = [card for card in cards if not card.mig_enabled and not (card.share < 1 and wanted.slugs)]
    found = _compare_card(wanted, cards)
    if found is not None:
        return found, len(cards)
    if len(whole) < wanted.count:
        told = _told_apart(cards, whole)
        lack = wanted.count - len(whole)
        return _Finding("near", f"{lack} more {_noun(lack)} {name}{told}"), len(whole)
    return _Finding("fits", f"{wanted.count} of {len(whole)} cards {name}"), len(whole)


def _told_apart(cards: Sequence[Accelerator], whole: Sequence[Accelerator]) -> str:
    """Why some cards do not count: ` (1 is split into MIG instances)`."""
    split = len(cards) - len(whole)
    if not split:
        return ""
    why = "split into MIG instances" if any(card.mig_enabled for card in cards) else "only in part its own"
    return f" ({split} {'is' if split == 1 else 'are'} {why})"


def _compare_card(wanted: Cards, cards: Sequence[Accelerator]) -> _Finding | None:
    """What keeps cards of one kind from being the one that is asked for; `None`: they are."""
    checks = (_compare_model, _compare_capability, _compare_bytes)
    return next(filter(None, (check(wanted, cards) for check in checks)), None)


def _compare_model(wanted: Cards, cards: Sequence[Accelerator]) -> _Finding | None:
    card = cards[0]
    if wanted.vendor and card.vendor != wanted.vendor:
        return _Finding("no", f"a card of {wanted.vendor}, where there are {_listed(cards)}")
    if not wanted.slugs:
        return None
    if card.nominal is None:
        problem = f"which model `{card_name(card)}` is; the catalogue has no figures for it"
        return _Finding("unknown", problem)
    if card.nominal.slug not in wanted.slugs:
        return _Finding("no", f"a card {' or '.join(wanted.slugs)}, where there are {_listed(cards)}")
    return None


def _compare_capability(wanted: Cards, cards: Sequence[Accelerator]) -> _Finding | None:
    there, name = cards[0].compute_capability, card_name(cards[0])
    if wanted.compute_capability is None:
        return None
    least = "{}.{}".format(*wanted.compute_capability)
    if there is None:
        return _Finding("unknown", f"the compute capability of {name}; {least} is needed")
    if there < wanted.compute_capability:
        return _Finding("no", f"compute capability {least}, where {name} has {'{}.{}'.format(*there)}")
    return None


def _compare_bytes(wanted: Cards, cards: Sequence[Accelerator]) -> _Finding | None:
    there, name = cards[0].memory_bytes, card_name(cards[0])
    if wanted.memory_bytes is None:
        return None
    least = size_text(wanted.memory_bytes)
    if there is None:
        return _Finding("unknown", f"the memory of {name}; {least} is needed")
    if there < wanted.memory_bytes:
        return _Finding("near", f"{least} on a card, where {name} has {size_text(there)}")
    return None


def card_name(card: Accelerator) -> str:
    """What to call a card: its slug, or what the driver calls it."""
    if card.nominal is not None:
        return card.nominal.slug
    return card.name or card.pci_device_id or f"{card.vendor} card"


def _kinds(cards: Sequence[Accelerator]) -> list[list[Accelerator]]:
    return list(cards_by_kind(cards).values())


def cards_by_kind(cards: Sequence[Accelerator]) -> dict[tuple[object, ...], list[Accelerator]]:
    """Cards that are the same to a program: one model, one compute capability; in the driver's order.

    >>> from stackconf import simulate
    >>> [len(each) for each in cards_by_kind(simulate("l4:2,t4:1").accelerators).values()]
    [2, 1]
    """
    kinds: dict[tuple[object, ...], list[Accelerator]] = {}
    for card in cards:
        model = card.nominal.slug if card.nominal else (card.pci_device_id or card.name, card.memory_bytes)
        kinds.setdefault((card.vendor, model, card.compute_capability, card.share), []).append(card)
    return kinds


def _listed(cards: Sequence[Accelerator]) -> str:
    return " and ".join(f"{len(kind)} {card_name(kind[0])}" for kind in _kinds(cards))
