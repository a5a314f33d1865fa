"""`stackconf show`: what was registered and assigned at a revision."""

from __future__ import annotations

import click

from stackconf.cli.naming import RevisionCommand
from stackconf.cli.opening import opened
from stackconf.cli.options import Settings, pass_settings, stack_options
from stackconf.cli.output import emit_json, emit_yaml, err, local_time
from stackconf.cli.told import told_change


@click.command("show", cls=RevisionCommand)
@click.argument("revision", default="head", metavar="[REVISION]")
@stack_options
@pass_settings
def show(settings: Settings, *, revision: str) -> None:
    """Print what was registered and assigned at a revision, as YAML.

    REVISION is a number, `head` (the default), or so many before it: `-1`, `head-1`.
    """
    with opened(settings, hardware=False) as stack:
        found = stack.show(revision)
    if settings.json:
        from stackconf.shapes.history import revision_data

        emit_json(revision_data(found))
        return
    if found.number == 0:
        err(settings).line("revision 0: nothing was registered yet")
        return
    head = f"revision {found.number}: {told_change(found)}, by {found.actor}, {local_time(found.at)}"
    err(settings).line(head)
    emit_yaml(
        {
            "assigned": list(found.state.assigned),
            "configurations": {name: each.providers for name, each in found.state.configurations.items()},
        }
    )
