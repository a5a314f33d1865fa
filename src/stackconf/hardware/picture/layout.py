"""From the facts about a machine to what is drawn of it. Pure; nothing is guessed.

A picture shows what is known: a card whose NUMA node is unknown stands beside the nodes, and what
nobody can say is called unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from stackconf.hardware.files import ranges
from stackconf.hardware.picture.scene import Block, Gauge, Kind, Link, Row, Scene, placed, width
from stackconf.hardware.sizing import size_text

if TYPE_CHECKING:
    from stackconf.hardware.facts import Accelerator, Cpu, Hardware, Memory, MigInstance, NumaNode

COLUMNS = 80
_MOST_NODES = 8
_MOST_CARDS = 16
"""More are drawn as one box for each run of equal ones."""
_CARD_LEAST, _CARD_MOST, _USED_MOST = 12, 30, 40
_INSTANCE_LEAST = 8
_NODE_MOST = 30
_GIGA = 10**9
_USER = "> "
_LINKS = {"nvlink": "NVLink", "nvlink-bridge": "NVLink", "infinity-fabric": "Infinity Fabric"}
_OWN_LINKS = {"pcie": "PCIe", "c2c": "NVLink-C2C"}


@frozen
class Use:
    """Who has a part of a card: the card's place among `accelerators`, that of the instance, the text,
    and the share of the memory, `None` where it is not known.
    """

    card: int
    text: str
    share: float | None = None
    instance: int | None = None


def scene_of(hardware: Hardware, columns: int = COLUMNS, *, uses: Sequence[Use] = ()) -> Scene:
    r"""The picture of a machine, at most `columns` wide where that is possible at all.

    >>> from stackconf.hardware.picture.text import to_text
    >>> from stackconf.hardware.simulation import simulate
    >>> print("\n".join(to_text(scene_of(simulate("l4,cpu=8/16,quota=4,memory=32GiB"), 50))))
    ┌ synthetic: l4,cpu=8/16,memory=32GiB,quota=4 ───┐
    │ 8 cores, 16 threads                            │
    │ 4 of 16 CPUs usable   ██████░░░░░░░░░░░░░░░░░░ │
    │ 32 GiB memory usable  ████████████████████████ │
    │ ┌ card 0 ────────────────────────┐             │
    │ │ NVIDIA L4                      │             │
    │ │ 22.5 GiB                       │             │
    │ │ PCIe                           │             │
    │ └────────────────────────────────┘             │
    └────────────────────────────────────────────────┘
    """
    block = _machine(hardware, uses)
    return placed(block, columns, description=" ".join(_described(hardware, uses)))


def _machine(hardware: Hardware, uses: Sequence[Use]) -> Block:
    used = _by_card(uses)
    cards = list(enumerate(hardware.accelerators))
    nodes = _drawn_nodes(hardware.cpu)
    inside = {node.number: [each for each in cards if each[1].numa_node == node.number] for node in nodes}
    elsewhere = [each for each in cards if each[1].numa_node not in inside]
    children = [
        _node(node, hardware.cpu, _card_blocks(inside[node.number], used)) for node in nodes
    ] or _sockets(hardware.cpu)
    foot: list[Row] = [Link(text) for text in _links(hardware.accelerators)]
    if not cards:
        foot.append("no accelerator" if hardware.certainly_no_accelerator else "accelerators unknown")
    own = _card_blocks(elsewhere, used)
    rows = [*_cpu_rows(hardware.cpu), *_amounts(hardware.cpu, hardware.memory)]
    title = _title(hardware)
    if not children or not own:
        return Block("machine", title, rows, [*children, *own], foot)
    # Nodes and the cards beside them are of different sizes, so each kind has rows of its own.
    return Block("machine", title, rows, children, foot, beside=tuple(own))


def _title(hardware: Hardware) -> str:
    said = hardware.provenance
    if said is not None and said.kind == "synthetic":
        return f"synthetic: {said.expression}" if said.expression else "synthetic machine"
    host = hardware.host
    parts = [host.os_release or host.os, host.architecture, host.container]
    told = ", ".join(part for part in parts if part) or "machine"
    return f"{said.host}: {told}" if said is not None and said.host else told


def _cpu_rows(cpu: Cpu) -> Iterator[str]:
    if cpu.model:
        yield cpu.model
    counts = [(cpu.sockets, "socket"), (cpu.physical_cores, "core"), (cpu.logical_cores, "thread")]
    told = [
        f"{number} {noun}" + ("" if number == 1 else "s") for number, noun in counts if number is not None
    ]
    yield ", ".join(told) or "processors unknown"
    if cpu.numa is not None and len(cpu.numa) > _MOST_NODES:
        yield f"{len(cpu.numa)} NUMA nodes"


def _amounts(cpu: Cpu, memory: Memory) -> list[Row]:
    """What of the cores and the memory may be used, the gauges below each other."""
    found = [
        _amount(cpu.usable_cores, cpu.logical_cores, lambda value: f"{value:g}", " CPUs", "CPUs"),
        _amount(
            memory.usable_bytes, memory.total_bytes, lambda value: size_text(int(value)), " memory", "memory"
        ),
    ]
    if cpu.usable_cores is None and cpu.logical_cores is None:
        del found[0]
    longest = max(width(text) for text, _ in found)
    return [text if share is None else Gauge(share, text.ljust(longest)) for text, share in found]


def _amount(
    usable: float | None, total: float | None, shown: Callable[[float], str], unit: str, what: str
) -> tuple[str, float | None]:
    if usable is None and total is None:
        return f"{what} unknown", None
    if usable is None or total is None:
        known = f"{shown(usable)}{unit} usable" if usable is not None else f"{shown(total or 0)}{unit}"
        return f"{known}, the other amount unknown" if usable is None else known, None
    share = usable / total if total else 0.0
    part = shown(usable) if usable >= total else f"{shown(usable)} of {shown(total)}"
    return f"{part}{unit} usable", share


def _drawn_nodes(cpu: Cpu) -> tuple[NumaNode, ...]:
    nodes = cpu.numa or ()
    return nodes if 1 < len(nodes) <= _MOST_NODES else ()


def _sockets(cpu: Cpu) -> list[Block]:
    """Bare boxes: which cores and how much memory each has is not known."""
    count = cpu.sockets or 0
    drawn = 1 < count <= _MOST_NODES
    return [Block("socket", f"socket {number}", most=_CARD_LEAST) for number in range(count)] if drawn else []


def _node(node: NumaNode, cpu: Cpu, cards: Sequence[Block]) -> Block:
    cpus = f"CPUs {ranges(node.cpus)}" if node.cpus else "no CPUs"
    memory = "memory unknown" if node.memory_bytes is None else size_text(node.memory_bytes)
    rows: list[Row] = [cpus]
    if node.cpus and cpu.affinity is not None:
        usable = len(set(node.cpus) & set(cpu.affinity))
        if usable < len(node.cpus):
            rows.append(Gauge(usable / len(node.cpus), f"{usable} of {len(node.cpus)} allowed"))
    rows.append(memory)
    return Block("node", f"NUMA node {node.number}", rows, cards, most=None if cards else _NODE_MOST)


# ------------------------------------------------------------------------------------------- cards


def _by_card(uses: Iterable[Use]) -> dict[int, list[Use]]:
    found: dict[int, list[Use]] = {}
    for use in uses:
        found.setdefault(use.card, []).append(use)
    return found


def _card_blocks(cards: Sequence[tuple[int, Accelerator]], used: Mapping[int, list[Use]]) -> list[Block]:
    if len(cards) <= _MOST_CARDS:
        return [_card(place, card, used.get(place, [])) for place, card in cards]
    return [_run(run) for run in _runs(cards)][:_MOST_CARDS]


def _card(place: int, card: Accelerator, uses: Sequence[Use]) -> Block:
    rows: list[Row] = [card.name or "unknown name"]
    rows += [] if card.mig else _card_memory(card)
    if card.visible is False:
        rows.append("hidden by a visibility variable")
    rows += _own_link(card)
    whole = [use for use in uses if use.instance is None]
    for use in whole:
        rows += _use(use)
    instances = [
        _instance(each, [use for use in uses if use.instance == number])
        for number, each in enumerate(card.mig)
    ]
    longest = max((width(use.text) + len(_USER) for use in whole), default=0)
    return Block(
        "hidden" if card.visible is False else "card",
        f"card {_name(place, card)}" + (", MIG" if card.mig_enabled else ""),
        rows,
        instances,
        least=min(max(_CARD_LEAST, longest), _CARD_MOST),
        most=None if instances else max(_CARD_MOST, min(longest, _USED_MOST)),
    )


def _name(place: int, card: Accelerator) -> str:
    return str(place if card.index is None else card.index)


def _card_memory(card: Accelerator) -> Iterator[Row]:
    total, free = card.memory_bytes, card.free_bytes
    shared = ", shared with the host" if card.memory_kind == "unified" else ""
    yield ("memory unknown" if total is None else size_text(total)) + shared
    if total and free is not None and free < total:
        yield f"{size_text(total - free)} in use"
        yield Gauge((total - free) / total)


def _own_link(card: Accelerator) -> Iterator[str]:
    nominal = card.nominal
    if nominal is not None and nominal.link_kind in _OWN_LINKS:
        yield _OWN_LINKS[nominal.link_kind] + _rate(card)


def _rate(card: Accelerator) -> str:
    value = card.nominal.link.value if card.nominal is not None else None
    return "" if value is None else f" {value / _GIGA:g} GB/s"


def _instance(instance: MigInstance, uses: Sequence[Use]) -> Block:
    memory = "memory unknown" if instance.memory_bytes is None else size_text(instance.memory_bytes)
    rows: list[Row] = [memory]
    for use in uses:
        rows += _use(use)
    least = max([_INSTANCE_LEAST, *(min(width(use.text) + len(_USER), _CARD_MOST) for use in uses)])
    title = instance.profile or "instance"
    return Block("instance", title, rows, least=max(least, min(width(title), _CARD_MOST)), most=_CARD_MOST)


def _use(use: Use) -> list[Row]:
    text = f"{_USER}{use.text}"
    return [text] if use.share is None else [text, Gauge(use.share)]


def _runs(cards: Sequence[tuple[int, Accelerator]]) -> list[list[tuple[int, Accelerator]]]:
    """Cards that follow each other and look the same."""
    runs: list[list[tuple[int, Accelerator]]] = []
    for place, card in cards:
        last = runs[-1][-1][1] if runs else None
        if last is not None and (last.name, last.memory_bytes, last.visible) == (
            card.name,
            card.memory_bytes,
            card.visible,
        ):
            runs[-1].append((place, card))
        else:
            runs.append([(place, card)])
    return runs


def _run(run: Sequence[tuple[int, Accelerator]]) -> Block:
    (first, card), (last, other) = run[0], run[-1]
    if len(run) == 1:
        return _card(first, card, ())
    names = f"cards {_name(first, card)} to {_name(last, other)}"
    memory = "memory unknown" if card.memory_bytes is None else f"{size_text(card.memory_bytes)} each"
    kind: Kind = "hidden" if card.visible is False else "card"
    return Block(kind, names, [f"{len(run)} x {card.name or 'unknown name'}", memory], most=_USED_MOST)


# ------------------------------------------------------------------------------------------- links


def _links(cards: Sequence[Accelerator]) -> list[str]:
    """What is linked with what, one line for each kind of link and shape."""
    groups = [group for group in _linked(cards) if len(group) > 1]
    if not groups:
        return []
    whole = [group for group in groups if _each_with_each(group)]
    told = [", ".join(_members(group) for group in whole)] if whole else []
    lines = [f"{_link_name(groups[0][0])} {text}" for text in told]
    lines += [
        f"{_link_name(group[0])} {_members(group)}, not each with each"
        for group in groups
        if group not in whole
    ]
    return lines


def _linked(cards: Sequence[Accelerator]) -> list[list[Accelerator]]:
    """The cards in groups that are reachable over links, in order."""
    by_index = {card.index: card for card in cards if card.index is not None}
    groups: list[list[Accelerator]] = []
    seen: set[int] = set()
    for index in by_index:
        if index in seen:
            continue
        todo, group = [index], []
        seen.add(index)
        while todo:
            card = by_index[todo.pop()]
            group.append(card)
            for peer in card.nvlink_peers or ():
                if peer in by_index and peer not in seen:
                    seen.add(peer)
                    todo.append(peer)
        groups.append(sorted(group, key=lambda card: card.index or 0))
    return groups


def _each_with_each(group: Sequence[Accelerator]) -> bool:
    indices = {card.index for card in group}
    return all(indices - {card.index} <= set(card.nvlink_peers or ()) for card in group)


def _members(group: Sequence[Accelerator]) -> str:
    return ranges(card.index for card in group if card.index is not None)


def _link_name(card: Accelerator) -> str:
    kind = card.nominal.link_kind if card.nominal is not None else None
    return f"{_LINKS[kind]}{_rate(card)}: cards" if kind in _LINKS else "NVLink: cards"


# ------------------------------------------------------------------------------------- in words


def _described(hardware: Hardware, uses: Sequence[Use]) -> Iterator[str]:
    """The picture in sentences, for who hears it."""
    yield ", ".join([*_cpu_rows(hardware.cpu)]) + "."
    for row in _amounts(hardware.cpu, hardware.memory):
        yield (row.text if isinstance(row, Gauge) else str(row)).strip() + "."
    for run in _runs(list(enumerate(hardware.accelerators))):
        (place, card), count = run[0], len(run)
        memory = "memory unknown" if card.memory_bytes is None else size_text(card.memory_bytes)
        each = f", {memory} each" if count > 1 else f", {memory}"
        names = _name(place, card) if count == 1 else f"{_name(place, card)} to {_name(*run[-1])}"
        yield f"Card{'s' * (count > 1)} {names}: {card.name or 'unknown name'}{each}."
    for text in _links(hardware.accelerators):
        yield f"{text}."
    for use in uses:
        yield f"Card {_name(use.card, hardware.accelerators[use.card])}: {use.text}."
