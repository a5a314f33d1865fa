"""`stackconf diff`: what changed between two revisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stackconf.cli.naming import RevisionCommand
from stackconf.cli.opening import opened
from stackconf.cli.options import Settings, pass_settings, stack_options
from stackconf.cli.output import Screen, emit_json, err, out
from stackconf.cli.told import told_value
from stackconf.cli.waiting import waiting
from stackconf.conflicts import ABSENT

if TYPE_CHECKING:
    from stackconf.conflicts import FieldDiff
    from stackconf.history import ConfigurationDiff, Difference
    from stackconf.plan import ProviderChange

_SIGNS = {
    "added": ("+", "green"),
    "removed": ("-", "red"),
    "changed": ("~", "yellow"),
    "same": ("~", "yellow"),
}


@click.command("diff", cls=RevisionCommand)
@click.argument("before", metavar="A")
@click.argument("after", default="head", metavar="[B]")
@click.option("--effective", is_flag=True, help="Say too what the providers would have otherwise.")
@stack_options
@pass_settings
def diff(settings: Settings, *, before: str, after: str, effective: bool) -> None:
    """Say what changed from revision A to B, by configuration and field; B is the head if not given.

    A revision is a number, `head`, or so many before it: `-1`, `head-1`. `--effective` resolves the
    stack under both, with the stack file and the machine of now.
    """
    with opened(settings, hardware=effective) as stack, waiting(settings, "comparing"):
        found = stack.diff(before, after, effective=effective)
    if settings.json:
        from stackconf.shapes.history import difference_data

        emit_json(difference_data(found))
        return
    screen = out(settings)
    for each in found.configurations:
        _configuration(screen, each)
    if not found.configurations:
        screen.line(f"revisions {found.before} and {found.after} say the same")
    if found.effective is not None:
        _effective(settings, screen, found)


def _configuration(screen: Screen, each: ConfigurationDiff) -> None:
    sign, color = _SIGNS[each.kind]
    words: list[str] = [each.kind] if each.kind != "same" else []
    if each.assignment == "moved":
        words.append(f"assigned at place {each.after}, not {each.before}")
    elif each.assignment != "same":
        words.append(each.assignment)
    screen.raw(screen.style(f"{sign} ", color, "bold"))
    screen.line(f"{each.name}: {', '.join(words)}", color, "bold")
    provider = ""
    for field in each.fields:
        if field.provider != provider:
            provider = field.provider
            screen.line(f"    {provider}")
        screen.paragraph(_field(field), indent="      ", hang="        ")


def _field(field: FieldDiff) -> str:
    if field.before is ABSENT:
        return f"+ {field.path}: {told_value(field.after)}"
    if field.after is ABSENT:
        return f"- {field.path}: {told_value(field.before)}"
    return f"~ {field.path}: {told_value(field.before)} -> {told_value(field.after)}"


def _effective(settings: Settings, screen: Screen, found: Difference) -> None:
    screen.line()
    if found.effective:
        screen.line("effective", "bold")
    else:
        screen.line("no provider would have anything else")
    for change in found.effective or ():
        _provider(screen, change)
    for key in found.unresolved:
        err(settings).note(
            "warning", f"{key} has no valid configuration under one of them; `stackconf check` says why"
        )


def _provider(screen: Screen, change: ProviderChange) -> None:
    screen.line(f"    {change.provider.key}")
    for field in change.fields:
        text = f"~ {field.path}: {told_value(field.before)} -> {told_value(field.after)}"
        screen.paragraph(text, indent="      ", hang="        ")
