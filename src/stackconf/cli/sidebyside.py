"""A stack on several machines: a table for each provider, a column for each machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackconf.cli.output import (
    NOTHING,
    Screen,
    emit_json,
    out,
    plural,
    show_issues,
    value_text,
)

if TYPE_CHECKING:
    from stackconf.cli.machines import Given
    from stackconf.cli.options import Settings
    from stackconf.comparison import ComparedProvider, Comparison, Machine
    from stackconf.types import Origin


def show(settings: Settings, found: Comparison, given: list[Given], *, every: bool) -> bool:
    """Print a comparison; whether the stack is invalid on one of the machines."""
    if settings.json:
        emit_json(_data(found, given, every=every))
    else:
        _Tables(out(settings), every=every, verbose=settings.verbose).draw(found, given)
    wrong = show_issues(settings, found.issues)
    return wrong or any(issue.level == "error" for machine in found.machines for issue in machine.issues)


_WIDE = 40
"""A list or mapping longer than that, in characters, is told by its reason where that is shorter."""


class _Tables:
    def __init__(self, screen: Screen, *, every: bool, verbose: bool) -> None:
        self._screen = screen
        self._every = every
        self._verbose = verbose

    def draw(self, found: Comparison, given: list[Given]) -> None:
        names = [machine.name for machine in found.machines]
        same = []
        for each in found.providers:
            if self._every or each.differing or len(set(each.valid)) > 1:
                self._provider(each, names)
                self._screen.line()
            else:
                same.append(each.provider.key)
        if same:
            self._screen.paragraph(f"the same on each machine: {', '.join(same)}", hang=" " * 4)
            self._screen.line()
        for machine, source in zip(found.machines, given, strict=True):
            self._machine(machine, source)
        self._screen.line()
        differing = plural(sum(len(each.differing) for each in found.providers), "field")
        machines = plural(len(found.machines), "machine")
        self._screen.line(
            f"{found.stack}, revision {found.revision}, on {machines}: {differing} would differ", "bold"
        )

    def _provider(self, each: ComparedProvider, names: list[str]) -> None:
        self._screen.line(f"{each.provider.key} ({each.provider.provider_type})", "bold")
        rows = each.rows if self._every else each.differing
        cells = [
            (row.path, *(_cell(origin, ok=ok) for origin, ok in zip(row.origins, each.valid, strict=True)))
            for row in rows
        ]
        if cells:
            self._screen.table(("field", *names), cells, indent="  ")
        for name, ok in zip(names, each.valid, strict=True):
            if not ok:
                self._screen.line(f"  invalid on {name}: see below")
        if not self._verbose:
            return
        for row in rows:
            for name, origin in zip(names, row.origins, strict=True):
                if origin is not None and origin.reason:
                    told = f"{row.path} on {name}: {origin.reason}"
                    self._screen.paragraph(told, "dim", indent="    ", hang=" " * 8)

    def _machine(self, machine: Machine, source: Given) -> None:
        self._screen.paragraph(f"{machine.name}: {source}; {_verdict(machine)}", hang=" " * 4)
        for issue in machine.issues:
            self._screen.paragraph(str(issue), indent="    ", hang=" " * 8)


def _cell(origin: Origin | None, *, ok: bool) -> str:
    if origin is None:
        return NOTHING if ok else "invalid"
    text = value_text(origin.value)
    told = f"({origin.reason})"
    # A list of devices is as wide as the screen; its reason says the same in words.
    spelled = not isinstance(origin.value, str) and len(text) > _WIDE and len(told) < len(text)
    return told if spelled and origin.reason else text


def _verdict(machine: Machine) -> str:
    """What is wrong there and not everywhere, in a few words.

    >>> from stackconf import Issue
    >>> from stackconf.comparison import Machine
    >>> from stackconf.hardware import simulate
    >>> _verdict(Machine("t4", simulate("t4"), (Issue("too large"), Issue("slow", level="warning"))))
    '1 error, 1 warning'
    """
    words = {"error": "error", "warning": "warning", "ignored": "ignored value"}
    counts = [
        plural(count, word)
        for level, word in words.items()
        if (count := sum(issue.level == level for issue in machine.issues))
    ]
    return ", ".join(counts) or "no issues of its own"


def _data(found: Comparison, given: list[Given], *, every: bool) -> dict[str, Any]:
    from stackconf.shapes.issues import issues_data

    return {
        "stack": found.stack,
        "revision": found.revision,
        "machines": [
            {"name": machine.name, "hardware": source.data(), "issues": issues_data(machine.issues)}
            for machine, source in zip(found.machines, given, strict=True)
        ],
        "providers": [_provider_data(each, every=every) for each in found.providers],
        "issues": issues_data(found.issues),
    }


def _provider_data(each: ComparedProvider, *, every: bool) -> dict[str, Any]:
    return {
        "provider": each.provider.key,
        "provider_type": each.provider.provider_type,
        "valid": list(each.valid),
        "fields": [
            {
                "path": row.path,
                "differs": row.differs,
                "values": [
                    origin
                    and {
                        "value": origin.value,
                        "layer": origin.layer,
                        "source": origin.source,
                        "reason": origin.reason,
                    }
                    for origin in row.origins
                ],
            }
            for row in (each.rows if every else each.differing)
        ],
    }
