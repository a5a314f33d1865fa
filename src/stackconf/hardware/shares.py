"""Who gets what of a machine's accelerators. Pure, and the same in whatever order providers stand.

A unit is a card, or an instance of one that is cut up by MIG. What the operator placed comes first
and is never changed; the other providers divide the units that no placement names into runs of
whole ones, neighbours together, or, where there are fewer units than providers, share their memory.
Providers that need little are guests: each has `LEAST_SHARE` of one unit, its CUDA context counted in,
and whoever has the unit otherwise to itself has all the rest: an engine takes no more than its usual
0.90 or 0.92 of that.
Providers of one flow, which run one after another, count as one and have the same.

Of the memory of a unit that several share at most `SHARED_LIMIT` is given away. Source: vLLM starts
only where `free >= gpu_memory_utilization x total` (`gpu_worker.py`, "Free memory on device ... is
less than desired"), and the CUDA context of whoever started first is not free any more; 0.90 and
0.08 together failed on a GB10.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, evolve, field, frozen

from stackconf.hardware.facts import Problem
from stackconf.hardware.files import ranges
from stackconf.hardware.sizing import size_text

if TYPE_CHECKING:
    from stackconf.hardware.facts import Accelerator, Hardware
    from stackconf.types import Level, Placement

SHARED_LIMIT = 0.95
LEAST_SHARE = 0.05
"""Less of a card is given to nobody: no engine does anything with it."""
DETECTOR = "placement"
_STEP = 1000
_TOLERANCE = 1e-9
_PCI = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])", re.IGNORECASE)

Unit: TypeAlias = tuple[int, int | None]
"""A card's place among `accelerators`, and that of the MIG instance, if it is one."""


@frozen
class Share:
    """What one provider may use, and why. `units` has the fraction of each unit's memory.

    `hardware` is the machine narrowed to it: other cards are not in it, and the memory of those in it
    is the provider's part (`Accelerator.share`).
    """

    hardware: Hardware = field(repr=False)
    reason: str
    units: Mapping[Unit, float] = field(factory=dict)


@frozen
class Fault:
    """What is wrong with a placement on this machine. `key` is `cards`, `memory` or empty, `index` the
    card's place in the list.
    """

    provider: str
    message: str
    hint: str = ""
    level: Level = "error"
    key: str = ""
    index: int | None = None


@frozen
class Sharing:
    """The shares of all providers that want accelerators, by key, and what is wrong."""

    shares: Mapping[str, Share] = field(factory=dict)
    faults: tuple[Fault, ...] = ()


def shared_out(
    hardware: Hardware,
    wants: Iterable[str],
    placement: Mapping[str, Placement] | None = None,
    *,
    little: Collection[str] = (),
    flows: Mapping[str, str] | None = None,
) -> dict[str, Share]:
    """The share of each provider in `wants` and in `placement`, by key; those in `little` need little.
    `flows` has the flow of those that run one after another with others.

    >>> from stackconf.hardware.simulation import simulate
    >>> box = simulate("l40s:2")
    >>> alone = shared_out(box, ["inference/a"])["inference/a"]
    >>> alone.hardware is box, alone.reason
    (True, 'no other provider uses accelerators')
    >>> for key, share in shared_out(box, ["inference/a", "inference/b", "inference/c"]).items():
    ...     print(key, dict(share.units), share.reason)
    inference/a {(0, None): 0.475} 47.5 % of card 0, shared with inference/c: 3 providers on 2 cards
    inference/b {(1, None): 1.0} card 1: 3 providers on 2 cards
    inference/c {(0, None): 0.475} 47.5 % of card 0, shared with inference/a: 3 providers on 2 cards
    >>> small = shared_out(box, ["inference/a", "inference/b"], little=["inference/b"])
    >>> dict(small["inference/a"].units), dict(small["inference/b"].units)
    ({(0, None): 1.0, (1, None): 0.95}, {(1, None): 0.05})
    """
    return dict(sharing(hardware, wants, placement, little=little, flows=flows).shares)


def sharing(
    hardware: Hardware,
    wants: Iterable[str],
    placement: Mapping[str, Placement] | None = None,
    *,
    little: Collection[str] = (),
    flows: Mapping[str, str] | None = None,
) -> Sharing:
    """As `shared_out`, with what is wrong with the placement on this machine.

    >>> from stackconf.hardware.simulation import simulate
    >>> flows = {"eval/x": "x", "post_training/x": "x"}
    >>> for key, share in shared_out(simulate("l40s:4"), [*flows, "inference/a"], flows=flows).items():
    ...     print(key, "has", share.reason)
    eval/x has cards 0-1, in turn with post_training/x: 4 cards divided among 2 users
    inference/a has cards 2-3: 4 cards divided among 2 users
    post_training/x has cards 0-1, in turn with eval/x: 4 cards divided among 2 users
    """
    placement, flows = placement or {}, flows or {}
    keys = sorted({*wants, *placement})
    if not placement and len({tenant_of(key, flows) for key in keys}) == 1:
        whole = dict.fromkeys(_units(hardware), 1.0)
        return Sharing({key: Share(hardware, _alone(key, keys), whole) for key in keys})
    if not hardware.visible_accelerators:
        reason = (
            "this machine has no accelerator"
            if hardware.certainly_no_accelerator
            else "no accelerator is known"
        )
        return Sharing({key: Share(hardware, reason) for key in keys}, tuple(_nothing_to_place(placement)))
    out = _Division(hardware, placement, flows)
    out.place()
    rest = [key for key in keys if key not in placement]
    large = [key for key in rest if key not in little]
    if large:
        out.seat([key for key in rest if key in little])
    out.divide_flows(large or rest)
    return Sharing({key: out.share(key) for key in keys}, tuple(out.faults))


def tenant_of(key: str, flows: Mapping[str, str]) -> tuple[str, str]:
    """Who counts in a division: a provider, or the flow that it belongs to."""
    flow = flows.get(key)
    return ("flow", flow) if flow else ("", key)


def _alone(key: str, keys: Collection[str]) -> str:
    rest = [each for each in keys if each != key]
    if not rest:
        return "no other provider uses accelerators"
    return f"all of it in turn with {', '.join(rest)}; no other provider uses accelerators"


def unit_name(hardware: Hardware, unit: Unit) -> str:
    """A unit as people write it: the card's index, with the instance's place where it is one.

    >>> from stackconf.hardware.simulation import simulate
    >>> unit_name(simulate("l4:2"), (1, None))
    '1'
    """
    place, instance = unit
    index = hardware.accelerators[place].index
    name = str(place if index is None else index)
    return name if instance is None else f"{name} instance {instance}"


def units_text(hardware: Hardware, units: Iterable[Unit]) -> str:
    """Units in a sentence.

    >>> from stackconf.hardware.simulation import simulate
    >>> units_text(simulate("l4:4"), [(0, None), (1, None), (3, None)])
    'cards 0-1,3'
    """
    listed = list(units)
    if any(instance is not None for _, instance in listed):
        return ", ".join(f"card {unit_name(hardware, unit)}" for unit in listed)
    indices = [hardware.accelerators[place].index for place, _ in listed]
    numbers = [place if index is None else index for (place, _), index in zip(listed, indices, strict=True)]
    return f"card{'s' * (len(numbers) > 1)} {ranges(numbers)}"


def unit_memory(hardware: Hardware, unit: Unit) -> int | None:
    """The memory of a whole unit in bytes."""
    place, instance = unit
    card = hardware.accelerators[place]
    return card.memory_bytes if instance is None else card.mig[instance].memory_bytes


def _nothing_to_place(placement: Mapping[str, Placement]) -> Iterator[Fault]:
    for key, placed in placement.items():
        if placed.cards:
            yield Fault(key, "there is no card here that it could be placed on", level="warning", key="cards")


def _units(hardware: Hardware) -> list[Unit]:
    """Every visible unit, neighbours together."""
    cards = [(place, card) for place, card in enumerate(hardware.accelerators) if card.visible is not False]
    cards.sort(key=lambda each: (each[1].numa_node is None, each[1].numa_node or 0, each[0]))
    return [unit for place, card in cards for unit in _units_of(place, card)]


def _units_of(place: int, card: Accelerator) -> list[Unit]:
    if card.mig_enabled and card.mig:
        return [(place, number) for number in range(len(card.mig))]
    return [(place, None)]


@define
class _Division:
    """The work of `sharing`."""

    hardware: Hardware
    placement: Mapping[str, Placement]
    flows: Mapping[str, str]
    faults: list[Fault] = field(factory=list)
    given: dict[str, dict[Unit, float]] = field(factory=dict)
    why: dict[str, str] = field(factory=dict)
    guests: set[str] = field(factory=set)

    # What the operator says

    def place(self) -> None:
        rest: dict[Unit, list[str]] = {}
        for key in sorted(self.placement):
            placed = self.placement[key]
            units = self._named(key, placed)
            self.given[key] = {}
            for unit in units:
                fraction = self._fraction(key, placed, unit)
                if fraction is None:
                    rest.setdefault(unit, []).append(key)
                else:
                    self.given[key][unit] = fraction
            self.why[key] = "placed by the stack file"
        self._check_sums()
        for unit, keys in rest.items():
            self._give_rest(unit, keys)

    def _give_rest(self, unit: Unit, keys: Sequence[str]) -> None:
        """All that is left of a unit, to those who were placed there without an amount."""
        tenants = {self._tenant(key) for key in keys}
        others = {key: part for key, part in self._of(unit).items() if self._tenant(key) not in tenants}
        limit = 1.0 if len(tenants) == 1 and not others else SHARED_LIMIT
        part = (limit - self._sum(others)) / len(tenants)
        for key in keys:
            if part + _TOLERANCE < LEAST_SHARE:
                self._fault(
                    key,
                    f"nothing is left of {self._text([unit])}, of which {_told(others)}",
                    hint="lower what the others take, or name another card",
                    key="cards",
                )
            else:
                self.given[key][unit] = part if limit == 1.0 else _floored(part)

    def _named(self, key: str, placed: Placement) -> list[Unit]:
        if placed.cards is None:
            return _units(self.hardware)
        found: dict[Unit, None] = {}
        for index, name in enumerate(placed.cards):
            units = self._units_named(name)
            if not units:
                hint = f"there {self._known()}"
                self._fault(key, f"there is no card `{name}` here", hint=hint, key="cards", index=index)
            elif self.hardware.accelerators[units[0][0]].visible is False:
                message = f"card `{name}` is hidden by a visibility variable"
                self._fault(key, message, hint="name another card", key="cards", index=index)
            else:
                found.update(dict.fromkeys(units))
        return list(found)

    def _units_named(self, name: int | str) -> list[Unit]:
        for place, card in enumerate(self.hardware.accelerators):
            if _is_named(name, place, card):
                return _units_of(place, card)
            for number, instance in enumerate(card.mig):
                if isinstance(name, str) and (instance.uuid or "").lower() == name.lower():
                    return [(place, number)]
        return []

    def _known(self) -> str:
        cards = [
            (place, None)
            for place, card in enumerate(self.hardware.accelerators)
            if card.visible is not False
        ]
        return f"{'is' if len(cards) == 1 else 'are'} {units_text(self.hardware, cards)}"

    def _fraction(self, key: str, placed: Placement, unit: Unit) -> float | None:
        """The part of a unit that is asked for, `None` for what is left."""
        if placed.memory is None or isinstance(placed.memory, float):
            return placed.memory
        total = unit_memory(self.hardware, unit)
        name = self._text([unit])
        if not total:
            message = f"the memory of {name} is unknown, so {size_text(placed.memory)} is no part of it"
            self._fault(key, message, hint="give a fraction", key="memory")
            return None
        if placed.memory > total:
            message = f"{name} has {size_text(total)}, less than {size_text(placed.memory)}"
            self._fault(key, message, hint="give less, or another card", key="memory")
            return 1.0
        return placed.memory / total

    def _check_sums(self) -> None:
        told: dict[str, list[Unit]] = {}
        for unit in _units(self.hardware):
            of = self._of(unit)
            several = len({self._tenant(key) for key in of}) > 1
            if several and self._sum(of) > SHARED_LIMIT + _TOLERANCE:
                told.setdefault(_told(of), []).append(unit)
        for text, units in told.items():
            of = self._of(units[0])
            much = self._sum(of)
            over = much > 1 + _TOLERANCE
            problem = (
                "is more than all of it" if over else "leaves too little for engines to start side by side"
            )
            self._fault(
                max(of),
                f"of {self._text(units)} {text}: {much:.4g} in all {problem}",
                hint=f"place at most {SHARED_LIMIT} on one card",
                level="error" if over else "warning",
                key="memory",
            )

    # The others

    def seat(self, keys: Sequence[str]) -> None:
        """Give each of those that need little a corner: of what a placement leaves, else of the last
        card on which there are fewest of them.
        """
        placed = {unit for given in self.given.values() for unit in given}
        units = list(reversed(_units(self.hardware)))
        for key in keys:
            self.why[key] = "it needs little, and the others have the rest"
            # Whoever has the rest of a card must not be left with nothing of it.
            some = [
                unit
                for unit in units
                if self._left(unit) + _TOLERANCE >= LEAST_SHARE * (1 if unit in placed else 2)
            ]
            if not some:
                self._turn_away(key)
                continue
            best = min(some, key=lambda unit: (unit not in placed, len(self._of(unit))))
            self.given[key] = {best: LEAST_SHARE}
            self.guests.add(key)

    def divide_flows(self, keys: Sequence[str]) -> None:
        """Give every provider without a placement what no placement takes; those of a flow the same, or
        what others of it were placed on.
        """
        first: dict[tuple[str, str], str] = {self._tenant(key): key for key in reversed(keys)}
        placed: dict[tuple[str, str], list[str]] = {}
        for key in sorted(self.placement):
            placed.setdefault(self._tenant(key), []).append(key)
        self.divide([key for tenant, key in sorted(first.items(), key=_second) if tenant not in placed])
        for key in keys:
            tenant = self._tenant(key)
            if tenant in placed:
                self._give_the_flows(key, placed[tenant])
            elif first[tenant] != key:
                self.given[key], self.why[key] = self.given[first[tenant]], self.why[first[tenant]]

    def _give_the_flows(self, key: str, placed: Sequence[str]) -> None:
        """What those have together with which a provider runs in turn."""
        units: dict[Unit, float] = {}
        for other in placed:
            for unit, part in self.given[other].items():
                units[unit] = max(part, units.get(unit, 0.0))
        self.given[key], self.why[key] = units, f"where the stack file places {', '.join(placed)}"

    def divide(self, keys: Sequence[str]) -> None:
        """Give these providers, each of another flow or of none, what no placement takes."""
        if not keys:
            return
        taken = {unit for key in self.placement for unit in self.given[key]}
        free = [unit for unit in _units(self.hardware) if unit not in taken]
        if len(free) >= len(keys):
            self._runs(keys, free)
        elif free:
            self._together(keys, free, f"{self._users(keys)} on {len(free)} {self._noun(free)}")
        else:
            left = {unit: self._left(unit) for unit in _units(self.hardware)}
            some = [unit for unit in sorted(left, key=lambda unit: -left[unit]) if left[unit] >= LEAST_SHARE]
            self._together(keys, some, "what the placements leave")

    def _runs(self, keys: Sequence[str], free: Sequence[Unit]) -> None:
        """Whole units, neighbours together; the first providers get one more where it does not come out."""
        each, more = divmod(len(free), len(keys))
        why = f"{len(free)} {self._noun(free)} divided among {self._users(keys)}"
        start = 0
        for number, key in enumerate(keys):
            end = start + each + (number < more)
            self.given[key] = {unit: self._beside_guests(unit) for unit in free[start:end]}
            self.why[key] = why if not self.placement else f"{why}; the others are placed"
            start = end

    def _together(self, keys: Sequence[str], units: Sequence[Unit], why: str) -> None:
        """Fewer units than providers: each has one, and shares its memory with the others on it."""
        waiting = list(keys)
        tenants: dict[Unit, list[str]] = {unit: [] for unit in units}
        left = {unit: self._left(unit) for unit in units}
        while waiting:
            # The unit on which the next one gets most; the first of equal ones.
            best = max(units, key=lambda unit: left[unit] / (len(tenants[unit]) + 1), default=None)
            if best is None or left[best] / (len(tenants[best]) + 1) + _TOLERANCE < LEAST_SHARE:
                break
            tenants[best].append(waiting.pop(0))
        for key in waiting:
            self._turn_away(key)
        for unit, there in tenants.items():
            alone = len(there) == 1 and self._of(unit).keys() <= self.guests
            for key in there:
                self.why[key] = why
            part = self._beside_guests(unit) if alone else _floored(left[unit] / max(len(there), 1))
            self.given.update({key: {unit: part} for key in there})

    # What comes of it

    def share(self, key: str) -> Share:
        units = self.given[key]
        if not units:
            asked = self.placement.get(key)
            reason = "placed on no card" if asked is not None and asked.cards == () else self.why[key]
            return Share(without_accelerators(self.hardware, reason), reason)
        return Share(narrowed(self.hardware, units), self._reason(key, units), units)

    def _reason(self, key: str, units: Mapping[Unit, float]) -> str:
        parts = sorted(set(units.values()))
        amount = "" if parts == [1.0] else " and ".join(f"{part * 100:.4g} %" for part in parts) + " of "
        others = sorted(
            {other for other, given in self.given.items() if other != key and given.keys() & units.keys()}
        )
        flow = [other for other in others if self._tenant(other) == self._tenant(key)]
        rest = [other for other in others if other not in flow]
        shared = f", shared with {', '.join(rest)}" if rest else ""
        shared += f", in turn with {', '.join(flow)}" if flow else ""
        return f"{amount}{self._text(units)}{shared}: {self.why[key]}"

    def _turn_away(self, key: str) -> None:
        self.given[key] = {}
        self.why[key] = "no card has room for it"
        self._fault(
            key,
            "it gets no accelerator: no card has room for it beside the others",
            hint="give it a part of a card under `stackconf: placement:`, or take it out of the stack",
            level="warning",
        )

    def _beside_guests(self, unit: Unit) -> float:
        """The rest of a unit on which nobody else is but guests."""
        return _floored(1 - sum(self._of(unit).values()))

    def _left(self, unit: Unit) -> float:
        """What may still be given away of a unit that somebody has something of."""
        return SHARED_LIMIT - self._sum(self._of(unit))

    def _of(self, unit: Unit) -> dict[str, float]:
        return {key: given[unit] for key, given in sorted(self.given.items()) if unit in given}

    def _tenant(self, key: str) -> tuple[str, str]:
        return tenant_of(key, self.flows)

    def _sum(self, of: Mapping[str, float]) -> float:
        """What is taken of a unit: of a flow only what takes most, as its providers take turns."""
        most: dict[tuple[str, str], float] = {}
        for key, part in of.items():
            tenant = self._tenant(key)
            most[tenant] = max(part, most.get(tenant, 0.0))
        return sum(most.values())

    def _users(self, keys: Sequence[str]) -> str:
        """How many there are to divide among; a flow is one, and is no provider."""
        noun = "user" if any(self.flows.get(key) for key in keys) else "provider"
        return f"{len(keys)} {noun}{'s' * (len(keys) > 1)}"

    def _text(self, units: Iterable[Unit]) -> str:
        return units_text(self.hardware, units)

    def _noun(self, units: Collection[Unit]) -> str:
        what = "unit" if any(instance is not None for _, instance in units) else "card"
        return what if len(units) == 1 else f"{what}s"

    def _fault(
        self,
        provider: str,
        message: str,
        *,
        hint: str = "",
        level: Level = "error",
        key: str = "",
        index: int | None = None,
    ) -> None:
        self.faults.append(Fault(provider, message, hint, level, key, index))


def narrowed(hardware: Hardware, units: Mapping[Unit, float]) -> Hardware:
    """The machine with these units and nothing else of its accelerators."""
    indices = {hardware.accelerators[place].index for place, _ in units}
    cards = []
    for place, card in enumerate(hardware.accelerators):
        here = {instance: part for (at, instance), part in units.items() if at == place}
        if here:
            peers = card.nvlink_peers
            kept = peers if peers is None else tuple(peer for peer in peers if peer in indices)
            cards.append(_part(card if kept == peers else evolve(card, nvlink_peers=kept), here))
    return evolve(hardware, accelerators=tuple(cards))


def _part(card: Accelerator, here: Mapping[int | None, float]) -> Accelerator:
    if None in here:
        part = here[None]
        if part >= 1:
            return card
        memory, free = _times(card.memory_bytes, part), card.free_bytes
        left = free if free is None or memory is None else min(free, memory)
        return evolve(card, share=part, memory_bytes=memory, free_bytes=left)
    instances = [
        each
        if here[number] >= 1
        else evolve(each, share=here[number], memory_bytes=_times(each.memory_bytes, here[number]))
        for number, each in enumerate(card.mig)
        if number in here
    ]
    return (
        card if len(instances) == len(card.mig) == sum(here.values()) else evolve(card, mig=tuple(instances))
    )


def together(
    hardware: Hardware, shares: Mapping[str, Share], flows: Mapping[str, str] | None = None
) -> Hardware:
    """The machine narrowed to what several providers have between them.

    >>> from stackconf.hardware.simulation import simulate
    >>> box = simulate("l4:4")
    >>> shares = shared_out(box, ["inference/a", "inference/b"])
    >>> len(together(box, {"inference/a": shares["inference/a"]}).accelerators)
    2
    >>> together(box, shares) is box
    True
    """
    tenants: dict[tuple[str, str], dict[Unit, float]] = {}
    for key, share in shares.items():
        of = tenants.setdefault(tenant_of(key, flows or {}), {})
        for unit, part in share.units.items():
            of[unit] = max(part, of.get(unit, 0.0))
    units: dict[Unit, float] = {}
    for given in tenants.values():
        for unit, part in given.items():
            units[unit] = min(1.0, units.get(unit, 0.0) + part)
    if not units:
        return next((share.hardware for share in shares.values()), hardware)
    everything = dict.fromkeys(_units(hardware), 1.0)
    return hardware if units == everything else narrowed(hardware, units)


def without_accelerators(hardware: Hardware, reason: str) -> Hardware:
    """The machine as one that has none for sure, with a problem that says why."""
    about = ("accelerators", "everything")
    kept = [each for each in hardware.problems if each.fact.partition(".")[0] not in about]
    told = Problem(DETECTOR, "accelerators", "absent", reason)
    return evolve(hardware, accelerators=(), problems=(*kept, told))


def _is_named(name: int | str, place: int, card: Accelerator) -> bool:
    if isinstance(name, int):
        return name == (place if card.index is None else card.index)
    if name.lower() == (card.uuid or "").lower() and name:
        return True
    wanted, own = _pci_address(name), _pci_address(card.pci_bus_id or "")
    return wanted is not None and wanted == own


def _pci_address(text: str) -> tuple[int, ...] | None:
    """The numbers of a PCI address, of whatever length its domain is written."""
    match = _PCI.fullmatch(text)
    return None if match is None else tuple(int(part or "0", 16) for part in match.groups())


def _second(pair: tuple[object, str]) -> str:
    return pair[1]


def _told(of: Mapping[str, float]) -> str:
    """Who has what: `inference/a has 0.6, inference/b has 0.3`."""
    return ", ".join(f"{key} has {part:.4g}" for key, part in of.items()) or "nobody has anything"


def _times(amount: int | None, part: float) -> int | None:
    return None if amount is None else int(amount * part)


def _floored(part: float) -> float:
    """A fraction as people write it, never more.

    >>> _floored(0.95 / 2), _floored(0.95 / 3)
    (0.475, 0.316)
    """
    return int(part * _STEP + _TOLERANCE) / _STEP
