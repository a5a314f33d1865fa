"""`stackconf plan`: what an apply would change, at what cost, and why."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from stackconf.cli import sidebyside
from stackconf.cli.failures import CHANGES, ERROR
from stackconf.cli.machines import Given, labels, machines
from stackconf.cli.opening import name_of, opened
from stackconf.cli.options import Command, Settings, pass_settings, stack_options
from stackconf.cli.output import (
    COSTS,
    Screen,
    display_width,
    emit_json,
    err,
    out,
    plural,
    show_issues,
    value_text,
    visible,
)
from stackconf.cli.waiting import waiting

if TYPE_CHECKING:
    from stackconf.plan import FieldChange, Plan, ProviderChange

_SIGNS = {
    "join": ("+", "green", "joins"),
    "change": ("~", "yellow", "changes"),
    "leave": ("-", "red", "leaves"),
}


@click.command("plan", cls=Command, takes_hardware=True)
@click.option(
    "-o", "--out", "out_file", metavar="FILE", type=click.Path(), help="Write it for `stackconf apply FILE`."
)
@click.option("--exit-code", is_flag=True, help="Exit with 3 when something would change.")
@click.option("--all", "every", is_flag=True, help="With several --hardware: also fields that do not differ.")
@stack_options
@pass_settings
def plan(settings: Settings, *, out_file: str | None, exit_code: bool, every: bool) -> int:
    """Show what an apply would change: `+` joins, `~` changes, `-` leaves.

    Each field shows its value (or `before -> after` and what that costs the running provider),
    the layer and source that give it, and for a hardware default the reason.

    With --hardware for another machine, and with several of them for each side by side: then a
    table for each provider has the fields that differ, and -v says why.
    """
    _refuse_unfitting(settings, out_file=out_file, exit_code=exit_code, every=every)
    given = machines(settings)
    if len(given) > 1:
        return _side_by_side(settings, given, every=every)
    on = given[0] if given else None
    with opened(settings, on=on) as stack, waiting(settings, "planning"):
        made = stack.plan() if out_file is None else stack.write_plan(out_file)
        name = name_of(stack)
    if settings.json:
        from stackconf.shapes.plans import plan_data

        written = {} if out_file is None else {"file": out_file}
        machine = {"hardware": on.data()} if on else {}
        emit_json({**plan_data(made), "summary": counts(made), **written, **machine})
        wrong = show_issues(settings, made.issues, unmanaged=True)
    else:
        wrong = show_issues(settings, [issue for issue in made.issues if issue not in made.unmanaged])
        if on:
            out(settings).line(f"hardware: {on}", "dim")
            out(settings).line()
        _Diff(out(settings), verbose=settings.verbose).show(name, made)
    if out_file is not None:
        err(settings).note(
            "hint", f"written to {out_file}; `stackconf apply {out_file}` applies exactly this"
        )
    if wrong:
        return ERROR
    return CHANGES if exit_code and made.changes else 0


def _refuse_unfitting(settings: Settings, *, out_file: str | None, exit_code: bool, every: bool) -> None:
    if settings.hardware and out_file is not None:
        raise click.UsageError(
            "-o writes a plan to apply here; a plan for another machine is only to be read"
        )
    several = len(settings.hardware) > 1
    if several and exit_code:
        raise click.UsageError("--exit-code is for one machine")
    if every and not several:
        raise click.UsageError("--all is for several --hardware side by side")


def _side_by_side(settings: Settings, given: list[Given], *, every: bool) -> int:
    names = labels(given)
    with opened(settings, on=given[0]) as stack, waiting(settings, "planning"):
        found = stack.compare({name: each.hardware for name, each in zip(names, given, strict=True)})
    return ERROR if sidebyside.show(settings, found, given, every=every) else 0


def counts(made: Plan) -> dict[str, int]:
    """How many providers would join, change, leave and stay."""
    kinds = Counter(change.kind for change in made.changes)
    return {
        "join": kinds["join"],
        "change": kinds["change"],
        "leave": kinds["leave"],
        "unchanged": len(made.unchanged),
    }


def summary(made: Plan) -> str:
    """A plan in one line.

    >>> from stackconf.plan import Plan
    >>> summary(Plan(0, "", "", unchanged=("inference/ollama",)))
    'nothing would change; 1 provider unchanged'
    """
    number = counts(made)
    words = {"join": "join", "change": "change", "leave": "leave"}
    parts = [f"{number[kind]} would {word}" for kind, word in words.items() if number[kind]]
    same = number["unchanged"]
    kept = f"{same} unchanged" if parts else f"{plural(same, 'provider')} unchanged"
    return "; ".join(filter(None, [", ".join(parts) or "nothing would change", kept if same else ""]))


class _Diff:
    def __init__(self, screen: Screen, *, verbose: bool) -> None:
        self._screen = screen
        self._verbose = verbose

    def show(self, name: str, made: Plan) -> None:
        for change in made.changes:
            self._provider(change)
            self._screen.line()
        if made.unmanaged:
            self._screen.line("not managed", "bold")
            for issue in made.unmanaged:
                message = issue.message.removeprefix("not managed: ")
                advice = f"; {issue.hint}" if issue.hint.startswith("did you mean") else ""
                self._screen.paragraph(f"{issue.provider}: {message}{advice}", indent="    ", hang=" " * 8)
            self._screen.line()
        if made.unchanged and self._verbose:
            self._screen.paragraph(f"unchanged: {', '.join(made.unchanged)}", hang=" " * 4)
            self._screen.line()
        blocked = len(made.errors)
        stops = f"; {plural(blocked, 'error')} would stop an apply" if blocked else ""
        self._screen.line(f"{name}, revision {made.base_revision}: {summary(made)}{stops}", "bold")

    def _provider(self, change: ProviderChange) -> None:
        sign, color, verb = _SIGNS[change.kind]
        cost = f", {COSTS[change.update]}" if change.kind == "change" else ""
        if not change.known:
            verb, cost = "is in an unknown state, and is applied anew", ""
        head = f"{sign} {change.provider.key}"
        rest = f" ({change.provider.provider_type}) {verb}{cost}"
        self._screen.raw(f"{self._screen.style(visible(head), color, 'bold')}{visible(rest)}\n")
        told = [
            (_told(field, joining=change.kind == "join" or not change.known), _origin(field))
            for field in change.fields
        ]
        widths = [display_width(text) for text, _ in told]
        column = 6 + max((width for width in widths if width <= _WIDEST), default=0)
        for text, origin in told:
            self._field(text, origin, column)
        if change.class_defaults:
            count = plural(change.class_defaults, "field")
            self._screen.line(f"    {count} as the class has them", "dim")

    def _field(self, text: str, origin: str, column: int) -> None:
        """A field with where it is from beside it, or below it where that would be too narrow."""
        room = None if self._screen.width is None else self._screen.width - column
        start = f"    {visible(text)}".ljust(column)
        if (room is None or room >= _BESIDE) and display_width(start) <= column:
            self._screen.paragraph(origin, "dim", indent=start, hang=" " * column)
            return
        self._screen.paragraph(text, indent="    ", hang=" " * 8)
        self._screen.paragraph(origin, "dim", indent=" " * 8, hang=" " * 8)


_WIDEST = 60
"""Longer values push no column to the right."""
_BESIDE = 50
"""Columns that must be left to tell the origin beside the value."""


def _told(field: FieldChange, *, joining: bool) -> str:
    if joining:
        return f"{field.path}: {value_text(field.after)}"
    cost = COSTS[field.update]
    return f"{field.path}: {value_text(field.before)} -> {value_text(field.after)} [{cost}]"


def _origin(field: FieldChange) -> str:
    reason = f": {field.reason}" if field.reason else ""
    return f"{field.layer}, {field.source}{reason}"
