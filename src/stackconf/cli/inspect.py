"""`stackconf inspect`: the effective configuration, as users may see it or whole."""

from __future__ import annotations

import click

from stackconf.cli.machines import one_machine
from stackconf.cli.opening import opened, server_here, store_file
from stackconf.cli.options import Command, Settings, pass_settings, stack_options
from stackconf.cli.output import emit_json, emit_yaml, err, local_time, out, show_issues
from stackconf.cli.waiting import waiting


@click.command("inspect", cls=Command, takes_hardware=True, short_help="Print the effective configuration.")
@click.option("--all", "whole", is_flag=True, help="Every field, not only those that users may set.")
@click.option("--applied", is_flag=True, help="What is applied, even where the stack file cannot be read.")
@stack_options
@pass_settings
def inspect(settings: Settings, *, whole: bool, applied: bool) -> int:
    """Print the effective configuration as YAML: the fields that users may see and set.

    What it prints can be changed and given to `stackconf configurations register`. A provider
    that is invalid has an empty `config`; what is wrong stands on standard error.

    With --applied, what was last applied, every field: from the store, or where that is damaged,
    from the file that each apply leaves beside it. That needs neither the stack file nor a plugin.
    """
    if applied:
        if settings.hardware:
            raise click.UsageError("--applied is about this machine, --hardware about another")
        return _applied(settings)
    on = one_machine(settings)
    with opened(settings, on=on) as stack, waiting(settings, "resolving"):
        data = stack.effective() if whole else stack.configurations.inspect()
        issues = stack.issues
    if settings.json:
        from stackconf.shapes.issues import issues_data

        issue_part = {"issues": issues_data(issues)} if issues else {}
        emit_json({**data, **issue_part, **({"hardware": on.data()} if on else {})})
    else:
        if on:
            out(settings).line(f"# hardware: {on}")
        emit_yaml(data)
    return int(show_issues(settings, issues))


def _applied(settings: Settings) -> int:
    if server_here(settings):
        with opened(settings) as stack:
            found = stack.applied()
    else:
        from stackconf.store.lastgood import last_applied

        found = last_applied(store_file(settings))
    screen = err(settings)
    if settings.json:
        from stackconf.shapes.applied import applied_data

        emit_json(applied_data(found))
    else:
        emit_yaml(found.configuration())
        if not found.providers:
            screen.note("hint", "nothing is applied")
    if found.problem:
        screen.note("warning", found.problem)
        screen.note("hint", f"this is what {found.path} has, of {local_time(found.at)}")
    for key in found.unknown:
        screen.note("warning", f"{key}: an apply did not end; nobody knows whether it runs with this")
    return 0
