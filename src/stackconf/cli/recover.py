"""`stackconf recover`: take back what a killed apply, or one that could not undo, left behind."""

from __future__ import annotations

import click

from stackconf.cli.opening import opened
from stackconf.cli.options import SECONDS, Command, Settings, pass_settings, stack_options
from stackconf.cli.output import err, out
from stackconf.cli.report import exit_code, observer_of, report_of
from stackconf.cli.waiting import waiting


@click.command("recover", cls=Command)
@click.option("--wait", metavar="SECONDS", type=SECONDS, default=0.0, help="Let an apply end first.")
@stack_options
@pass_settings
def recover(settings: Settings, *, wait: float) -> int:
    """Give the providers back what they had before an apply that was killed.

    Only those are touched of which nobody knows what they run with: a killed apply was at work on
    them, or a failed one could not take them back. `stackconf apply` goes on to what is wanted
    instead; `stackconf status` shows which they are.
    """
    with opened(settings) as stack, waiting(settings, "taking back") as line:
        report = report_of(settings, stack, lambda: stack.recover(observer=observer_of(line), wait=wait))
        line.close()
    if report is not None and report.state == "nothing" and not settings.json:
        out(settings).line("nothing to take back: it is known what every provider runs with")
        return 0
    code = exit_code(settings, report)
    if code == 0:
        err(settings).note("hint", "`stackconf plan` shows what an apply would change now")
    return code
