"""`stackconf rollback`: an old revision's configurations again, as a new revision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stackconf.cli.naming import RevisionCommand
from stackconf.cli.opening import opened
from stackconf.cli.options import Settings, pass_settings, stack_options
from stackconf.cli.output import emit_json, err, out
from stackconf.cli.waiting import waiting
from stackconf.errors import StackconfError

if TYPE_CHECKING:
    from stackconf.cli.opening import Opened
    from stackconf.history import RolledBack


@click.command("rollback", cls=RevisionCommand)
@click.argument("revision")
@click.option("--apply", "at_once", is_flag=True, help="Apply it at once.")
@click.option(
    "--expect-revision", metavar="N", type=click.IntRange(min=0), help="Refuse if the head is not revision N."
)
@stack_options
@pass_settings
def rollback(settings: Settings, *, revision: str, at_once: bool, expect_revision: int | None) -> int:
    """Register and assign again what REVISION had, as a new revision that says so.

    REVISION is a number, or so many before the head: `-1`, `head-1`. Nothing that was done since is
    forgotten: the new revision comes after it. Refused where it does not fit the stack any more.
    """
    with opened(settings) as stack:
        with waiting(settings, "checking"):
            done = stack.rollback(revision, expected_revision=expect_revision)
        if not settings.json:
            out(settings).line(_told(done))
        if at_once:
            return _applied(settings, stack, done)
        made = stack.plan()
    if settings.json:
        from stackconf.shapes.history import rolled_back_data
        from stackconf.shapes.plans import plan_data

        emit_json({**rolled_back_data(done), "plan": plan_data(made)})
    else:
        from stackconf.cli.configurations import hint_apply

        hint_apply(settings, len(made.changes))
    return 0


def _told(done: RolledBack) -> str:
    if done.changed:
        return f"restored revision {done.restores} as revision {done.revision}"
    return f"nothing to restore: the head, revision {done.revision}, says the same"


def _applied(settings: Settings, stack: Opened, done: RolledBack) -> int:
    from stackconf.cli.report import exit_code, observer_of, report_of
    from stackconf.shapes.history import rolled_back_data

    try:
        with waiting(settings, "applying") as line:
            report = report_of(settings, stack, lambda: stack.apply(observer=observer_of(line)))
    except StackconfError:
        err(settings).note("hint", f"the head is revision {done.revision} now, and is not applied")
        raise
    code = exit_code(settings, report, around=rolled_back_data(done))
    if report is not None and report.state == "pending":
        err(settings).note("hint", "the next `stackconf apply` tries again what is pending")
    return code
