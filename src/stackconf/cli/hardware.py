"""`stackconf hardware`: a picture of this machine, host and usable amounts side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from stackconf.cli.machines import one_machine
from stackconf.cli.opening import (
    client_of,
    forget_machine,
    looking,
    open_registry,
    opened,
    server_here,
    warn_of_plugins,
)
from stackconf.cli.options import Command, Settings, pass_settings, stack_options
from stackconf.cli.output import Screen, emit_json, out, plural
from stackconf.cli.waiting import waiting

if TYPE_CHECKING:
    from stackconf.hardware.facts import Accelerator, Cpu, Hardware, Host, Limit, Memory, Problem, Visibility

UNKNOWN = "unknown"
_LABEL = 18
_GIB = 1024**3


@click.command("hardware", cls=Command, takes_hardware=True)
@click.option("--catalogue", "cards", is_flag=True, help="List the cards whose figures are known instead.")
@click.option("--svg", metavar="FILE", type=click.Path(), help="Write the picture to a file, as SVG.")
@click.option("--usage", is_flag=True, help="Draw which provider of the stack has what.")
@click.option("--no-cache", "afresh", is_flag=True, help="Ask drivers again that did not answer a while ago.")
@stack_options
@pass_settings
def hardware(settings: Settings, *, cards: bool, svg: str | None, usage: bool, afresh: bool) -> int:
    """Draw this machine and tell what is known about it: processors, memory, accelerators.

    Beside what the host has stands what this process may use, and which limit decides that. What
    is unknown is said to be unknown, and why. Nothing is changed.

    With --json it is a snapshot: `--hardware FILE` of other commands reads it, on any machine. With
    --usage it is about a stack: who has what of the accelerators, and why.
    """
    if svg is not None and (cards or settings.json):
        raise click.UsageError("--svg is for the picture alone; leave out --json and --catalogue")
    if usage and cards:
        raise click.UsageError("--usage is about this stack, --catalogue about no machine")
    if afresh:
        forget_machine()
    if usage:
        from stackconf.cli.usage import show as show_usage

        return show_usage(settings, svg)
    if cards and settings.url:
        raise click.UsageError("--catalogue is about no machine; leave --url out")
    if cards:
        from stackconf.cli.cards import show

        show(settings)
        return 0
    on = one_machine(settings)
    if on:
        _show(settings, on.hardware, str(on), svg)
        return 0
    if server_here(settings):
        _show(settings, _there(settings), "", svg)
        return 0
    registry = open_registry(settings)
    look = looking(registry)
    if not settings.json:
        import stackconf.cli.picture  # noqa: F401 - while the detectors are at work
    with waiting(settings, "looking at this machine"):
        found = look()
    _show(settings, found, "", svg)
    warn_of_plugins(settings, registry)
    return 0


def _there(settings: Settings) -> Hardware:
    """The machine of the server that is meant."""
    from stackconf.client import calls

    with opened(settings) as stack, waiting(settings, "asking the server"):
        client = client_of(stack)
        return client.do(calls.hardware(recorded=settings.json)) if client else stack.hardware


def _show(settings: Settings, found: Hardware, source: str, svg: str | None) -> None:
    if svg is not None:
        from stackconf.cli.picture import write_svg

        write_svg(settings, found, svg)
        return
    if settings.json:
        from stackconf.hardware.codec import to_dict
        from stackconf.hardware.snapshot import recorded

        emit_json(to_dict(recorded(found)))
        return
    if source:
        out(settings).line(f"hardware: {source}", "dim")
        out(settings).line()
    from stackconf.cli.picture import draw

    draw(out(settings), found)
    _Facts(out(settings)).tell(found)


def _hides_all(variable: Visibility, found: Hardware) -> bool:
    """Also what names no card at all, such as `9` on a machine with two, and what names one twice."""
    cards = [card for card in found.accelerators if card.vendor == "nvidia"]
    named_none = variable.variable == "CUDA_VISIBLE_DEVICES" and bool(cards)
    return not variable.value or (named_none and all(card.visible is False for card in cards))


class _Facts:
    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def tell(self, found: Hardware) -> None:
        self._host(found.host)
        self._cpu(found.cpu)
        self._memory(found.memory)
        rest = self._accelerators(found)
        self._heading("Visibility variables")
        for variable in found.visibility:
            told = " (hides all)" if _hides_all(variable, found) else ""
            self._fact(variable.variable, f'"{variable.value}"{told}')
        if not found.visibility:
            self._text("none is set")
        if rest:
            self._heading("Problems")
            for problem in rest:
                self._text(str(problem))

    def _host(self, host: Host) -> None:
        kernel = " ".join(part for part in (host.os, host.kernel) if part)
        self._screen.line("Host", "bold")
        parts = [part for part in (host.os_release, kernel, host.architecture) if part]
        self._fact("system", ", ".join(parts) or UNKNOWN)
        container = UNKNOWN if host.container is None else host.container or "none"
        self._fact("container", container + (f", WSL {host.wsl}" if host.wsl else ""))
        path = f", {host.cgroup_path}" if host.cgroup_path else ""
        self._fact("control groups", (host.cgroup or UNKNOWN) + path)

    def _cpu(self, cpu: Cpu) -> None:
        from stackconf.hardware.files import ranges

        self._heading("CPU")
        parts = [cpu.model or "unknown model"]
        if cpu.sockets is not None:
            parts.append(plural(cpu.sockets, "socket"))
        self._fact("model", ", ".join(parts))
        rows = [
            ("logical cores", _number(cpu.logical_cores), _number(cpu.usable_cores)),
            ("physical cores", _number(cpu.physical_cores), _number(cpu.usable_physical_cores)),
        ]
        self._side_by_side(rows)
        self._bound(cpu.bound_by, cpu.limits, lambda limit: plural_cpus(limit.amount))
        isa = None if cpu.isa is None else " ".join(sorted(cpu.isa)) or "none of interest"
        self._fact("instruction sets", isa or UNKNOWN)
        for node in cpu.numa or ():
            cpus = f"CPUs {ranges(node.cpus)}" if node.cpus else "no CPUs"
            self._fact(f"NUMA node {node.number}", f"{cpus}, {_size(node.memory_bytes)}")

    def _memory(self, memory: Memory) -> None:
        self._heading("Memory")
        self._side_by_side([("total", _size(memory.total_bytes), _size(memory.usable_bytes))])
        self._bound(memory.bound_by, memory.limits, lambda limit: _size(limit.amount))
        self._fact("available now", _size(memory.available_bytes))
        self._fact("swap", "none" if memory.swap_bytes == 0 else _size(memory.swap_bytes))

    def _accelerators(self, found: Hardware) -> list[Problem]:
        """Draws the cards; the problems that are not told with them."""
        self._heading("Accelerators")
        about = [each for each in found.problems if each.fact.startswith("accelerators")]
        if found.accelerators:
            self._cards(found.accelerators)
            return list(found.problems)
        word = "none" if found.certainly_no_accelerator else UNKNOWN if about else "none was looked for"
        self._text(word + "".join(f"; {each.detector}: {each.reason}" for each in about))
        return [each for each in found.problems if each not in about]

    def _cards(self, cards: Sequence[Accelerator]) -> None:
        head = ("card", "memory", "free", "capability", "runtime", "visible", "address", "uuid")
        self._screen.table(head, list(_card_rows(cards)), indent="  ")
        nominals = {card.nominal.slug: card.nominal for card in cards if card.nominal is not None}
        if nominals:
            from stackconf.cli.cards import figures_text

            self._screen.line("  of the models, from the catalogue", "dim")
            for slug, nominal in nominals.items():
                self._fact(slug, figures_text(nominal))

    def _heading(self, text: str) -> None:
        self._screen.line()
        self._screen.line(text, "bold")

    def _side_by_side(self, rows: Sequence[tuple[str, str, str]]) -> None:
        left = max(len("host"), *(len(row[1]) for row in rows))
        right = max(len("usable"), *(len(row[2]) for row in rows))
        for label, host, usable in (("", "host", "usable"), *rows):
            self._screen.line(
                f"  {label:{_LABEL}}{host:>{left}}  {usable:>{right}}", *(("dim",) * (not label))
            )

    def _bound(self, bound_by: str | None, limits: Iterable[Limit], amount: Callable[[Limit], str]) -> None:
        if bound_by in {"cores", "total"}:
            self._fact("bound by", "nothing below the host's own")
        else:
            self._fact("bound by", bound_by or UNKNOWN)
        others = [limit for limit in limits if limit.source != bound_by]
        for limit in others:
            self._fact("further limit", f"{amount(limit)} by {limit.source}")

    def _fact(self, label: str, text: str) -> None:
        start = f"  {label:{_LABEL}}" if len(label) < _LABEL else f"  {label}  "
        self._screen.paragraph(text, indent=start, hang=" " * len(start))

    def _text(self, text: str) -> None:
        self._screen.paragraph(text, indent="  ", hang="    ")


def _card_rows(cards: Sequence[Accelerator]) -> Iterator[tuple[str, ...]]:
    for card in cards:
        number = "" if card.index is None else f"{card.index}: "
        shares = " (shared with the host)" if card.memory_kind == "unified" else ""
        capability = ".".join(map(str, card.compute_capability)) if card.compute_capability else UNKNOWN
        yield (
            f"{number}{card.name or 'unknown name'}{', MIG on' if card.mig_enabled else ''}",
            _size(card.memory_bytes) + shares,
            _size(card.free_bytes),
            capability,
            card.runtime_version or UNKNOWN,
            UNKNOWN if card.visible is None else "yes" if card.visible else "no",
            card.pci_bus_id or UNKNOWN,
            card.uuid or UNKNOWN,
        )
        for each in card.mig:
            name = f"{number}MIG {each.profile or 'instance'}"
            yield (name, _size(each.memory_bytes), "", "", "", "", "", each.uuid or UNKNOWN)


def plural_cpus(amount: float) -> str:
    """An amount of CPU.

    >>> plural_cpus(1), plural_cpus(1.5)
    ('1 CPU', '1.5 CPUs')
    """
    return f"{amount:g} CPU" + ("" if amount == 1 else "s")


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:g}"


def _size(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value / _GIB:.1f} GiB"
