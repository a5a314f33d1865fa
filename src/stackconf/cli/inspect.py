"""`stackconf inspect`: the effective configuration, as users may see it or whole."""

from __future__ import annotations

import click

from stackconf.cli.opening import opened
from stackconf.cli.options import Command, Settings, pass_settings, stack_options
from stackconf.cli.output import emit_json, emit_yaml, show_issues
from stackconf.cli.waiting import waiting


@click.command("inspect", cls=Command, short_help="Print the effective configuration.")
@click.option("--all", "whole", is_flag=True, help="Every field, not only those that users may set.")
@stack_options
@pass_settings
def inspect(settings: Settings, *, whole: bool) -> int:
    """Print the effective configuration as YAML: the fields that users may see and set.

    What it prints can be changed and given to `stackconf configurations register`. A provider
    that is invalid has an empty `config`; what is wrong stands on standard error.
    """
    with opened(settings) as stack, waiting(settings, "resolving"):
        data = stack.effective() if whole else stack.configurations.inspect()
        issues = stack.issues
    if settings.json:
        from stackconf.cli.shapes import issues_data

        emit_json({**data, "issues": issues_data(issues)} if issues else data)
    else:
        emit_yaml(data)
    return int(show_issues(settings, issues))
