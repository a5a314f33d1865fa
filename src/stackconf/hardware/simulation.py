"""A machine that is not here, from one line: `h100-80gb-sxm:8,cpu=96/192,memory=1TiB`.

    expression := part ("," part)*
    part       := card [":" count]  |  key "=" value

A card is a slug of the catalogue. What the expression does not say is unknown, with a problem that
says so; only that there are no other cards than those named is certain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from stackconf._version import __version__
from stackconf.errors import InvalidConfig
from stackconf.hardware.catalog import catalogue
from stackconf.hardware.facts import (
    Accelerator,
    Cpu,
    Hardware,
    Limit,
    Memory,
    NumaNode,
    Problem,
    Provenance,
)
from stackconf.suggest import did_you_mean

if TYPE_CHECKING:
    from stackconf.hardware.catalog import Model

DETECTOR = "simulation"

UNITS: Mapping[str, int] = {
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGTP", 1)},
    **{f"{letter}B": 1000**power for power, letter in enumerate("kMGTP", 1)},
    "B": 1,
}
LONGEST = 1_000
MOST_CARDS, MOST_CORES, MOST_NODES = 1_024, 65_536, 1_024
MOST_BYTES = 1024**5
THREADS_PER_CORE = 8
"""No processor has more."""

EXAMPLE = "h100-80gb-sxm:8,cpu=96,memory=1TiB"


@frozen
class Expression:
    """What an expression says. `str()` is its canonical form, which says the same.

    >>> print(Expression.parse(" L4:2, memory=64.0GiB ,cpu=16/16"))
    l4:2,cpu=16,memory=64GiB
    """

    cards: tuple[tuple[str, int], ...] = ()
    """Slugs with counts, in order."""
    cores: tuple[int, int] | None = None
    """Physical and logical."""
    memory: int | None = None
    numa: int | None = None
    quota: Fraction | None = None
    """CPUs."""
    limit: int | None = None
    """Of memory, bytes."""
    nvlink: bool | None = None
    """`None`: as the models of the cards have it."""
    cuda: str | None = None
    driver: str | None = None

    @classmethod
    def parse(cls, text: str) -> Expression:
        """Read an expression. Raises `InvalidConfig`, and nothing else, with what to write instead."""
        return _Parser(text).expression()

    def __str__(self) -> str:
        return ",".join(self._parts())

    def _parts(self) -> Iterator[str]:
        for slug, count in self.cards:
            yield slug if count == 1 else f"{slug}:{count}"
        if self.cores is not None:
            physical, logical = self.cores
            yield f"cpu={physical}" + ("" if physical == logical else f"/{logical}")
        if self.memory is not None:
            yield f"memory={_size_text(self.memory)}"
        if self.numa is not None:
            yield f"numa={self.numa}"
        if self.quota is not None:
            yield f"quota={_decimal(self.quota)}"
        if self.limit is not None:
            yield f"limit={_size_text(self.limit)}"
        if self.nvlink is not None:
            yield f"nvlink={'yes' if self.nvlink else 'no'}"
        if self.cuda is not None:
            yield f"cuda={self.cuda}"
        if self.driver is not None:
            yield f"driver={self.driver}"


def simulate(expression: str) -> Hardware:
    """The machine that an expression describes, idle, saying that it is synthetic.

    Raises `InvalidConfig` that says what is wrong and what was surely meant.

    >>> box = simulate("l40s:2,cpu=32/64,memory=256GiB,quota=7.5")
    >>> [card.name for card in box.accelerators], box.cpu.usable_cores, box.cpu.usable_physical_cores
    (['NVIDIA L40S', 'NVIDIA L40S'], 7.5, 7)
    >>> print(box.provenance)
    synthetic, from l40s:2,cpu=32/64,memory=256GiB,quota=7.5
    >>> simulate("l40:2,memroy=256GiB")
    Traceback (most recent call last):
    ...
    stackconf.errors.InvalidConfig: `memroy=256GiB`: no key `memroy`; did you mean `memory`?
    """
    said = Expression.parse(expression)
    cards = tuple(_cards(said))
    return Hardware(
        cpu=_cpu(said),
        memory=_memory(said),
        accelerators=cards,
        problems=tuple(sorted(_problems(said, cards), key=lambda one: (one.fact, one.reason))),
        provenance=Provenance("synthetic", stackconf=__version__, expression=str(said)),
    )


# ------------------------------------------------------------------------------------- reading


@frozen
class _Parser:
    text: str
    values: dict[str, Any] = field(factory=dict)
    counts: dict[str, int] = field(factory=dict)

    def expression(self) -> Expression:
        if len(self.text) > LONGEST:
            raise InvalidConfig(f"a machine is described in at most {LONGEST} characters, as in {EXAMPLE}")
        if not self.text.strip():
            raise InvalidConfig(f"an empty expression describes no machine; write one as in {EXAMPLE}")
        for part in self.text.split(","):
            self._part(part.strip())
        made = Expression(cards=tuple(self.counts.items()), **self.values)
        _refuse_contradictions(made)
        return made

    def _part(self, part: str) -> None:
        if not part:
            raise InvalidConfig(f"`{_shown(self.text)}`: nothing stands between two commas, or at an end")
        if "=" in part:
            key, _, value = part.partition("=")
            self._setting(part, key.strip().lower(), value.strip())
        else:
            self._card(part)

    def _setting(self, part: str, key: str, value: str) -> None:
        known = KEYS.get(key)
        if known is None:
            hint = did_you_mean(key, KEYS) or f"there are {', '.join(KEYS)}"
            raise InvalidConfig(f"`{_shown(part)}`: no key `{_shown(key)}`; {hint}")
        name, read = known
        if name in self.values:
            raise InvalidConfig(f"`{_shown(part)}`: {key} is given twice")
        try:
            self.values[name] = read(value)
        except ValueError as error:
            raise InvalidConfig(f"`{_shown(part)}`: {error}") from None

    def _card(self, part: str) -> None:
        slug, colon, number = (each.strip() for each in part.lower().partition(":"))
        models = catalogue().models
        if slug not in models:
            hint = _meant(slug) or "`stackconf hardware --catalogue` lists the cards"
            raise InvalidConfig(f"`{_shown(part)}`: no card `{_shown(slug)}`; {hint}")
        if slug in self.counts:
            raise InvalidConfig(f"`{_shown(part)}`: {slug} is given twice; write `{slug}:2`")
        try:
            count = _whole(number, most=MOST_CARDS) if colon else 1
        except ValueError as error:
            raise InvalidConfig(f"`{_shown(part)}`: the count of cards: {error}") from None
        if sum(self.counts.values()) + count > MOST_CARDS:
            raise InvalidConfig(f"`{_shown(part)}`: that makes more than {MOST_CARDS} cards")
        self.counts[slug] = count


def _meant(slug: str) -> str:
    """The cards that a name that is none was surely meant to be."""
    models = catalogue().models
    longer = [each for each in models if each.startswith(f"{slug}-")] if slug else []
    if longer:
        return f"did you mean {' or '.join(f'`{each}`' for each in longer)}?"
    return did_you_mean(slug, [*models, *KEYS])


def _refuse_contradictions(said: Expression) -> None:
    cores = said.cores
    if cores is None and (said.quota is not None or said.numa is not None):
        key = "quota" if said.quota is not None else "numa"
        raise InvalidConfig(f"`{key}` divides the processors; say how many there are: cpu=N")
    if said.limit is not None and said.memory is None:
        raise InvalidConfig("`limit` is less than the memory; say how much there is: memory=64GiB")
    if said.numa is not None and cores is not None and said.numa > cores[0]:
        raise InvalidConfig(f"`numa={said.numa}`: there are only {cores[0]} physical cores to divide")
    models = [catalogue().models[slug] for slug, _ in said.cards]
    for key in ("nvlink", "cuda", "driver"):
        if getattr(said, key) is not None and not any(model.vendor == "nvidia" for model in models):
            raise InvalidConfig(f"`{key}` is about NVIDIA cards, and the expression has none")
    if said.nvlink and not any(_linked(model) for model in models):
        raise InvalidConfig(f"`nvlink=yes`: {models[0].nominal.slug} has no NVLink")


def _whole(text: str, *, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"expected a whole number, not `{_shown(text)}`")
    number = int(text)
    if not 1 <= number <= most:
        raise ValueError(f"expected 1 to {most}, not {number}")
    return number


def _read_cores(text: str) -> tuple[int, int]:
    first, slash, second = (each.strip() for each in text.partition("/"))
    physical = _whole(first, most=MOST_CORES)
    logical = _whole(second, most=MOST_CORES) if slash else physical
    if not physical <= logical <= THREADS_PER_CORE * physical:
        raise ValueError(f"expected physical/logical as in 96/192, not {physical}/{logical}")
    return physical, logical


def read_size(text: str) -> int:
    """An amount of memory with its unit, in bytes. Raises `ValueError` in one line.

    >>> read_size("64GiB"), read_size("1.5 GB")
    (68719476736, 1500000000)
    """
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([A-Za-z]*)", text)
    if match is None:
        raise ValueError(f"expected an amount with its unit, as in 64GiB, not `{_shown(text)}`")
    number, word = match[1], match[2]
    short = f"{word}B" if word.lower().endswith("i") else word  # 64Gi, as Kubernetes writes it
    unit = next((size for name, size in UNITS.items() if name.lower() == short.lower()), None)
    if unit is None:
        raise ValueError(_no_unit(number, word))
    size = Fraction(number) * unit
    if size.denominator != 1:
        raise ValueError("that is no whole number of bytes")
    if not 1 <= size <= MOST_BYTES:
        raise ValueError("expected 1 B to 1 PiB")
    return int(size)


def _no_unit(number: str, word: str) -> str:
    letter = word.upper()
    if len(letter) == 1 and letter in "KMGTP":
        decimal = "kB" if letter == "K" else f"{letter}B"
        return f"`{word}` has two meanings; write {number}{letter}iB or {number}{decimal}"
    what = f"no unit `{_shown(word)}`" if word else "the unit is missing"
    return f"{what}; there are {', '.join(UNITS)}"


def _read_quota(text: str) -> Fraction:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text):
        raise ValueError(f"expected a number of CPUs, as in 2.5, not `{_shown(text)}`")
    quota = Fraction(text)
    if quota <= 0:
        raise ValueError("expected more than 0 CPUs")
    return quota


def _read_yes(text: str) -> bool:
    if text.lower() not in {"yes", "no"}:
        raise ValueError(f"expected yes or no, not `{_shown(text)}`")
    return text.lower() == "yes"


def _read_version(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,5}){0,3}", text):
        raise ValueError(f"expected a version, as in 12.8, not `{_shown(text)}`")
    return text


KEYS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "cpu": ("cores", _read_cores),
    "memory": ("memory", read_size),
    "numa": ("numa", lambda text: _whole(text, most=MOST_NODES)),
    "quota": ("quota", _read_quota),
    "limit": ("limit", read_size),
    "nvlink": ("nvlink", _read_yes),
    "cuda": ("cuda", _read_version),
    "driver": ("driver", _read_version),
}
"""Each key with the field that it sets."""


def _shown(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - a short line


def _size_text(size: int) -> str:
    """The shortest form that reads back as exactly this many bytes.

    >>> _size_text(64 * 1024**3), _size_text(1536 * 1024**2), _size_text(128 * 10**9), _size_text(7)
    ('64GiB', '1.5GiB', '128GB', '7B')
    """
    amounts = [(Fraction(size, unit), name) for name, unit in UNITS.items()]
    exact = [f"{_decimal(amount)}{name}" for amount, name in amounts if amount >= 1 and _is_short(amount)]
    return min(exact, key=len)


def _is_short(number: Fraction) -> bool:
    """Whether at most six decimal places tell it exactly."""
    return 10**6 % number.denominator == 0


def _decimal(number: Fraction) -> str:
    """A fraction that six decimal places tell exactly."""
    whole, rest = divmod(number.numerator * 10**6 // number.denominator, 10**6)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".")


# -------------------------------------------------------------------------------------- making


def _cards(said: Expression) -> Iterator[Accelerator]:
    models = [catalogue().models[slug] for slug, count in said.cards for _ in range(count)]
    peers = _peers(models, wanted=said.nvlink)
    for number, model in enumerate(models):
        nvidia = model.vendor == "nvidia"
        size = model.nominal.memory_bytes.value
        memory = None if size is None else int(size)
        yield Accelerator(
            vendor=model.vendor,
            index=number,
            name=model.names[0],
            pci_device_id=model.pci_ids[0] if model.pci_ids else None,
            memory_bytes=memory,
            free_bytes=memory,
            memory_kind=model.memory_kind,
            compute_capability=model.compute_capability,
            mig_enabled=False if nvidia else None,
            numa_node=None if said.numa is None else number * said.numa // len(models),
            driver_version=said.driver if nvidia else None,
            runtime_version=said.cuda if nvidia else None,
            visible=True,
            nvlink_peers=peers[number] if nvidia else None,
            nominal=model.nominal,
        )


def _linked(model: Model) -> bool:
    return model.nominal.link_kind in {"nvlink", "nvlink-bridge"}


def _peers(models: list[Model], *, wanted: bool | None) -> list[tuple[int, ...]]:
    """Which cards reach which over NVLink: all of a model that has it on its board. A bridge joins
    two, and is there only if somebody put it there, so it must be asked for.
    """
    found: list[tuple[int, ...]] = [() for _ in models]
    if wanted is False:
        return found
    for slug in dict.fromkeys(model.slug for model in models):
        same = [number for number, model in enumerate(models) if model.slug == slug]
        kind = models[same[0]].nominal.link_kind
        if kind == "nvlink":
            for number in same:
                found[number] = tuple(other for other in same if other != number)
        elif kind == "nvlink-bridge" and wanted:
            for one, other in zip(same[::2], same[1::2], strict=False):
                found[one], found[other] = (other,), (one,)
    return found


def _cpu(said: Expression) -> Cpu:
    if said.cores is None:
        return Cpu()
    physical, logical = said.cores
    quota = None if said.quota is None else float(said.quota)
    limits = (Limit(quota, "the simulated quota"),) if quota is not None and quota < logical else ()
    usable = min(float(logical), quota) if quota is not None else float(logical)
    return Cpu(
        physical_cores=physical,
        logical_cores=logical,
        affinity=tuple(range(logical)),
        usable_physical_cores=max(1, min(physical, int(usable))),
        usable_cores=usable,
        limits=limits,
        bound_by=limits[0].source if limits else "cores",
        numa=None if said.numa is None else tuple(_nodes(said.numa, logical, said.memory)),
    )


def _nodes(count: int, logical: int, memory: int | None) -> Iterator[NumaNode]:
    for number in range(count):
        first, after = (logical * each // count for each in (number, number + 1))
        share = None if memory is None else memory * (number + 1) // count - memory * number // count
        yield NumaNode(number, tuple(range(first, after)), share)


def _memory(said: Expression) -> Memory:
    total, limit = said.memory, said.limit
    if total is None:
        return Memory()
    limits = (Limit(limit, "the simulated limit"),) if limit is not None and limit < total else ()
    usable = int(limits[0].amount) if limits else total
    return Memory(
        total_bytes=total,
        available_bytes=usable,
        usable_bytes=usable,
        limits=limits,
        bound_by=limits[0].source if limits else "total",
    )


def _problems(said: Expression, cards: tuple[Accelerator, ...]) -> Iterator[Problem]:
    """Why something is unknown, for all that the expression does not say."""
    if not cards:
        yield Problem(DETECTOR, "accelerators", "absent", "the expression names no card")
    if said.cores is None:
        yield Problem(DETECTOR, "cpu", "absent", "the expression does not say; add cpu=N")
    if said.memory is None:
        yield Problem(DETECTOR, "memory", "absent", "the expression does not say; add memory=SIZE")
    yield Problem(DETECTOR, "host", "absent", "an expression does not say")
    for card in cards:
        if card.memory_bytes is None and card.nominal is not None:
            reason = card.nominal.memory_bytes.note or "the catalogue does not say"
            yield Problem(DETECTOR, f"accelerators.{card.index}.memory_bytes", "unsupported", reason)
