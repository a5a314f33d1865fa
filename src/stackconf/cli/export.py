"""`stackconf export`: the configuration written back as a stack file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stackconf.cli.opening import name_of, opened, server_here, stack_of
from stackconf.cli.options import Command, Settings, pass_settings, stack_options
from stackconf.cli.output import emit_json, err, out, plural, show_issues, value_text
from stackconf.cli.waiting import waiting

if TYPE_CHECKING:
    from stackconf.export.export import Exported


@click.command("export", cls=Command, short_help="Write the configuration back as a stack file.")
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="Write FILE; update it if it exists.")
@click.option("--in-place", is_flag=True, help="Update the stack file itself.")
@click.option("--applied", is_flag=True, help="What is applied, instead of what is resolved.")
@click.option("--all", "whole", is_flag=True, help="Also what the classes give by themselves.")
@stack_options
@pass_settings
def export(settings: Settings, *, output: str | None, in_place: bool, applied: bool, whole: bool) -> int:
    """Write the configuration back as a stack file, which llama-stack or OGX can read.

    What the hardware's defaults and the assigned configurations set is written into the stack
    file's own text; lines that need no change stay as they are, comments too. It goes to standard
    output, or to a file. No secret is written: a reference stays a reference, and for any other
    secret a new variable is named, which must be set where the file is read.
    """
    if output and in_place:
        raise click.UsageError("give -o FILE or --in-place, not both")
    if in_place and server_here(settings):
        raise click.UsageError("--in-place changes the stack file where it is, and not over HTTP")
    with opened(settings) as stack, waiting(settings, "exporting"):
        exported = stack.export(output, in_place=in_place, applied=applied, class_defaults=whole)
        target = name_of(stack) if in_place else output
        own = in_place and not applied and not stack_of(stack).file.sealed
        counting = [each.name for each in stack.configurations.list() if each.assigned] if own else []
    if settings.json:
        from stackconf.shapes.exports import export_data

        emit_json({"file": target, **export_data(exported)})
    elif target is None:
        out(settings).raw(exported.text)
    wrong = show_issues(settings, exported.issues)
    if not settings.json:
        _tell(settings, exported, target)
        if counting and not settings.json:
            names = ", ".join(f"`{name}`" for name in counting)
            err(settings).note("hint", f"the file says it now, so {names} may be unassigned")
    return int(wrong)


def _tell(settings: Settings, exported: Exported, target: str | None) -> None:
    screen = err(settings)
    if settings.verbose:
        for each in exported.changes:
            what = "removed" if each.value is None and each.source == "" else value_text(each.value)
            screen.line(f"{each.provider}: {each.path}: {what} ({each.source})")
    if target is not None:
        providers = len({each.provider for each in exported.changes})
        count = plural(len(exported.changes), "value")
        written = (
            f"{count} written in {plural(providers, 'provider')}" if providers else "nothing had to change"
        )
        screen.line(f"{target}: {written}", "bold")
    for variable in exported.variables:
        place = ": ".join(filter(None, (variable.provider, variable.path)))
        screen.note("hint", f"set `{variable.name}` where the file is read: {variable.what} ({place})")
