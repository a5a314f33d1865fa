"""All detectors at once, and one `Hardware` from what they say.

`discover` starts every detector that has something to ask a driver in a process of its own, so the
whole takes as long as the slowest, and at most the deadline. `start` lets a caller do other work meanwhile.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define, evolve, field, fields

from stackconf.hardware import probe
from stackconf.hardware.applying import not_asked, without_asking
from stackconf.hardware.facts import (
    CATALOGUE,
    Accelerator,
    Cpu,
    Fact,
    Hardware,
    Host,
    Memory,
    Problem,
    Visibility,
)
from stackconf.hardware.files import Files, chosen_root
from stackconf.hardware.pci import Glance
from stackconf.hardware.probe import Detector

if TYPE_CHECKING:
    from stackconf.hardware.kept import Kept

BUILTIN: tuple[Detector, ...] = (
    Detector("host", "stackconf.hardware.host", "stackconf"),
    Detector("nvidia", "stackconf.hardware.nvidia", "stackconf"),
    Detector("amd", "stackconf.hardware.amd", "stackconf"),
    Detector("intel", "stackconf.hardware.intel", "stackconf"),
    Detector("apple", "stackconf.hardware.apple", "stackconf"),
)
"""The detectors that stackconf brings; they are also entry points of its distribution."""

_SHORT_SECONDS = 1.0
"""The least that a driver is given to tell again what it told before it hung."""

T = TypeVar("T")


class Pending:
    """A discovery under way."""

    def __init__(
        self, detectors: Sequence[Detector], root: Path | None, deadline: float, kept: Kept | None = None
    ) -> None:
        self._deadline = deadline
        self._started = time.monotonic()
        self._hardware: Hardware | None = None
        glance = Glance(Files(chosen_root() if root is None else root))
        self._workers = [_Worker(detector, root, deadline, glance, kept) for detector in detectors]

    def result(self) -> Hardware:
        """Wait for what is missing, at most until the deadline, and merge. Never raises for a detector."""
        if self._hardware is None:
            found = merge((worker.detector, self._facts(worker)) for worker in self._workers)
            if found.accelerators:
                from stackconf.hardware.catalog import with_figures

                found = with_figures(found)
            self._hardware = found
        return self._hardware

    def _facts(self, worker: _Worker) -> Sequence[Fact]:
        last = self._started + self._deadline + 4 * probe.GRACE_SECONDS
        worker.join(max(0.0, last - time.monotonic()))
        if worker.facts is not None:
            return worker.facts
        # Not even starting a process came to an end: a file system that does not answer.
        reason = f"did not answer within {self._deadline:g} s"
        return [Problem(worker.detector.name, worker.detector.subject, "timeout", reason)]


class _Worker(threading.Thread):
    def __init__(
        self, detector: Detector, root: Path | None, deadline: float, glance: Glance, kept: Kept | None
    ) -> None:
        super().__init__(daemon=True, name=f"stackconf-{detector.name}")
        self.detector = detector
        self.facts: Sequence[Fact] | None = None
        self._root = root
        self._deadline = deadline
        self._glance = glance
        self._kept = kept
        self.start()

    def run(self) -> None:
        known: Sequence[Fact] | None = None
        with suppress(Exception):  # its process will fail in the same way, and say so
            known = without_asking(self.detector.target, self.detector.name, self._glance, self._kept)
        self.facts = self._asked() if known is None else known

    def _asked(self) -> Sequence[Fact]:
        """Its answer; a driver that hung a moment ago is not waited for again.

        One that had told of cards before it hung is given the time for that much: what it tells is
        never kept.
        """
        kept, root, deadline = self._kept, self._root, self._deadline
        hang = None if kept is None else kept.hang(self.detector, root, deadline)
        if hang is not None and hang.told_after is None:
            return not_asked(self.detector, hang)
        if hang is not None and hang.told_after is not None:
            deadline = min(deadline, max(_SHORT_SECONDS, 2 * hang.told_after))
        answer = probe.ask(self.detector, root=root, deadline=deadline)
        if kept is not None and not answer.hung:
            kept.answered(self.detector, root)
        elif kept is not None and hang is None:
            cards = any(isinstance(fact, Accelerator) for fact in answer.facts)
            kept.hung(self.detector, root, deadline, answer.told_after if cards else None)
        return answer.facts


def start(
    detectors: Iterable[Detector],
    *,
    root: Path | None = None,
    deadline: float | None = None,
    kept: Kept | None = None,
) -> Pending:
    """Start every detector (each target once) and return at once; `.result()` gives the `Hardware`.

    `deadline` is in seconds and counts from now; by default `STACKCONF_PROBE_TIMEOUT` or 10. `kept` is
    what holds until the next boot, see `kept_here`; by default nothing is kept.
    Raises `InvalidConfig` when that variable is no number of seconds.
    """
    each: dict[str, Detector] = {}
    for detector in detectors:
        each.setdefault(detector.target, detector)
    seconds = probe.deadline_seconds() if deadline is None else deadline
    return Pending(tuple(each.values()), root, seconds, kept)


class Looking:
    """Looks at this machine whenever it is called. The first look begins at once, beside whatever the
    caller does until then.
    """

    def __init__(
        self,
        detectors: Iterable[Detector],
        *,
        root: Path | None = None,
        deadline: float | None = None,
        kept: Kept | None = None,
    ) -> None:
        self._detectors = tuple(detectors)
        self._kept = kept
        self._root = root
        self._deadline = deadline
        self._pending: Pending | None = self._start()

    def __call__(self) -> Hardware:
        """The machine as it is now; for the first call, as it was when this was made."""
        pending, self._pending = self._pending or self._start(), None
        return pending.result()

    def _start(self) -> Pending:
        return start(self._detectors, root=self._root, deadline=self._deadline, kept=self._kept)


def discover(
    detectors: Iterable[Detector] = BUILTIN,
    *,
    root: Path | None = None,
    deadline: float | None = None,
    kept: Kept | None = None,
) -> Hardware:
    """Everything the detectors find out about this machine.

    Detectors that read files read them below `root` (drivers always speak of this machine).
    A detector that fails costs its facts and adds a `Problem`.
    """
    return start(detectors, root=root, deadline=deadline, kept=kept).result()


def fingerprint(hardware: Hardware) -> str:
    """The SHA-256 of the facts that a configuration may be derived from and that stay.

    Left out: what is free at the moment, the words of problems, the names of control groups,
    which are new for every login and every container (how much a group grants is in), and the
    memory of single NUMA nodes, which a virtual machine's host moves about. What the catalogue says
    is no fact about this machine, and where a snapshot is from is none either.

    >>> from stackconf.hardware.facts import Memory
    >>> busy, idle = (Hardware(memory=Memory(total_bytes=8, available_bytes=n)) for n in (1, 7))
    >>> fingerprint(busy) == fingerprint(idle) != fingerprint(Hardware())
    True
    """
    import hashlib
    import json

    from stackconf.hardware.codec import to_dict

    told = to_dict(static(hardware))
    del told["provenance"]
    for card in told["accelerators"]:
        del card["nominal"]
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def static(hardware: Hardware) -> Hardware:
    """The facts that count for the fingerprint, the others unknown."""
    nodes = hardware.cpu.numa
    return evolve(
        hardware,
        host=evolve(hardware.host, cgroup_path=None),
        cpu=evolve(
            hardware.cpu,
            limits=tuple(evolve(limit, source="") for limit in hardware.cpu.limits),
            bound_by=None,
            numa=None if nodes is None else tuple(evolve(node, memory_bytes=None) for node in nodes),
        ),
        memory=evolve(
            hardware.memory,
            available_bytes=None,
            limits=tuple(evolve(limit, source="") for limit in hardware.memory.limits),
            bound_by=None,
        ),
        accelerators=tuple(evolve(card, free_bytes=None, nominal=None) for card in hardware.accelerators),
        provenance=None,
        problems=tuple(
            sorted(
                {
                    evolve(problem, reason="")
                    for problem in hardware.problems
                    if problem.detector != CATALOGUE
                },
                key=lambda problem: (problem.detector, problem.fact, problem.kind),
            )
        ),
    )


# --------------------------------------------------------------------------------------- merge


def merge(reports: Iterable[tuple[Detector, Sequence[Fact]]]) -> Hardware:
    """One `Hardware` from the detectors' reports, the same whichever of them was quicker.

    Where two detectors know the same field, the earlier one counts; where they disagree there is
    a `Problem`. A detector may give a fact again with more in it. Cards are the same if their uuid
    is, or the number that one detector gave them, or, from two detectors, their PCI address.
    """
    merging = _Merge()
    for detector, facts in reports:
        for fact in facts:
            merging.add(detector.name, fact)
    return merging.hardware()


@define
class _Known:
    """A fact as merged so far; `given_by` says who gave each field first."""

    fact: Any
    detectors: set[str]
    given_by: dict[str, str]


@define
class _Merge:
    single: dict[type[Any], _Known] = field(factory=dict)
    cards: list[_Known] = field(factory=list)
    visibility: dict[str, Visibility] = field(factory=dict)
    problems: set[Problem] = field(factory=set)

    def add(self, detector: str, fact: Fact) -> None:
        if isinstance(fact, Problem):
            self.problems.add(fact)
        elif isinstance(fact, Visibility):
            self.visibility.setdefault(fact.variable, fact)
        elif isinstance(fact, Accelerator):
            known = next((card for card in self.cards if _same_card(card, detector, fact)), None)
            if known is None:
                self.cards.append(_first(detector, fact))
            else:
                self._join(known, detector, fact, f"accelerators.{fact.uuid or fact.pci_bus_id}")
        elif type(fact) in self.single:
            self._join(self.single[type(fact)], detector, fact, type(fact).__name__.lower())
        else:
            self.single[type(fact)] = _first(detector, fact)

    def hardware(self) -> Hardware:
        cards: list[Accelerator] = [known.fact for known in self.cards]
        return Hardware(
            host=self._only(Host, Host),
            cpu=self._only(Cpu, Cpu),
            memory=self._only(Memory, Memory),
            accelerators=tuple(sorted(cards, key=_card_order)),
            visibility=tuple(self.visibility[name] for name in sorted(self.visibility)),
            problems=tuple(
                sorted(self.problems, key=lambda one: (one.detector, one.fact, one.kind, one.reason))
            ),
        )

    def _only(self, cls: type[T], unknown: Callable[[], T]) -> T:
        known = self.single.get(cls)
        return unknown() if known is None else known.fact

    def _join(self, known: _Known, detector: str, fact: Any, subject: str) -> None:
        known.detectors.add(detector)
        for item in fields(type(fact)):
            ours, theirs = getattr(known.fact, item.name), getattr(fact, item.name)
            if _unsaid(theirs, item.default):
                continue
            if _unsaid(ours, item.default):
                known.fact = evolve(known.fact, **{item.name: theirs})
                known.given_by[item.name] = detector
            elif known.detectors == {detector}:
                known.fact = evolve(known.fact, **{item.name: theirs})
            elif item.eq and _comparable(item.name, ours) != _comparable(item.name, theirs):
                first = known.given_by[item.name]
                reason = f"{first} says {ours!r}, {detector} says {theirs!r}; the first counts"
                self.problems.add(Problem(detector, f"{subject}.{item.name}", "error", reason))


def _unsaid(value: Any, default: Any) -> bool:
    """Whether a detector left a field out. An empty tuple says something where unknown is `None`."""
    return value is None or (value == () and default == ())


def _first(detector: str, fact: Any) -> _Known:
    return _Known(fact, {detector}, {item.name: detector for item in fields(type(fact))})


def _same_card(known: _Known, detector: str, card: Accelerator) -> bool:
    if card.uuid is not None and card.uuid == known.fact.uuid:
        return True
    if known.detectors == {detector} and card.index is not None and card.vendor == known.fact.vendor:
        return bool(card.index == known.fact.index)
    if detector in known.detectors or card.pci_bus_id is None or known.fact.pci_bus_id is None:
        # One detector may report several devices behind one address (a partitioned card).
        return False
    return _address(card.pci_bus_id) == _address(known.fact.pci_bus_id)


def _comparable(name: str, value: Any) -> Any:
    return _address(value) if name in {"pci_bus_id", "pci_device_id"} else value


def _address(text: str) -> str:
    """A PCI address as drivers variously write it: `0000:3b:00.0` and `00000000:3B:00.0`."""
    match = re.fullmatch(r"(?:([0-9a-fA-F]+):)?([0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-7])?)", text)
    if match is None:
        return text.lower()
    place = match[2].lower()
    return f"{int(match[1] or '0', 16):x}:{place if '.' in place else place + '.0'}"


def _card_order(card: Accelerator) -> tuple[object, ...]:
    unnumbered = card.index is None
    return (
        card.vendor,
        unnumbered,
        card.index or 0,
        _address(card.pci_bus_id or ""),
        card.uuid or "",
        card.name or "",
    )
