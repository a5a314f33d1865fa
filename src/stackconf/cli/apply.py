"""`stackconf apply`: all or nothing, with a report of how each provider fared."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from stackconf.cli.failures import ERROR, INTERRUPTED
from stackconf.cli.opening import name_of, opened
from stackconf.cli.options import SECONDS, Command, Settings, pass_settings, stack_options
from stackconf.cli.output import err, show_issues
from stackconf.cli.plan import summary
from stackconf.cli.report import exit_code, observer_of, report_of, tell
from stackconf.cli.waiting import waiting

if TYPE_CHECKING:
    from stackconf.apply import Observer, Report
    from stackconf.cli.events import Lines
    from stackconf.cli.opening import Opened


@click.command("apply", cls=Command)
@click.argument("plan", metavar="[PLAN]", required=False, type=click.Path())
@click.option("--require-healthy", is_flag=True, help="A provider that cannot be reached is a failure.")
@click.option("--events", is_flag=True, help="Print what happens, as it happens: JSON, one object a line.")
@click.option("--wait", metavar="SECONDS", type=SECONDS, default=0.0, help="Let another apply end first.")
@click.option(
    "--keep-trying", metavar="SECONDS", type=SECONDS, help="Go on trying what cannot be reached, so long."
)
@stack_options
@pass_settings
def apply(settings: Settings, /, plan: str | None, *, events: bool, **options: Any) -> int:
    """Make the running providers match the plan, all or nothing.

    PLAN is a file that `stackconf plan -o` wrote. Exactly it is applied, or nothing if anything
    moved since. Without one, the plan is made now.

    A provider that fails takes back what was applied before it. One that cannot be reached is
    pending: the rest goes on, and the next apply tries it again. `stackconf plan` shows what
    would happen.
    """
    if not events:
        return _run(settings, plan, **options)
    if settings.json:
        raise click.UsageError("--events prints JSON by itself; leave --json out")
    if options["keep_trying"] is not None:
        raise click.UsageError("--events ends with the apply's report; leave --keep-trying out")
    from stackconf.cli.events import streamed

    with streamed() as lines:
        return _run(settings, plan, lines=lines, **options)


def _run(
    settings: Settings,
    plan: str | None,
    *,
    require_healthy: bool,
    wait: float,
    keep_trying: float | None,
    lines: Lines | None = None,
) -> int:
    with opened(settings) as stack:
        with waiting(settings, "planning"):
            made = stack.plan() if plan is None else stack.read_plan(plan)
        if not made.errors:
            show_issues(settings, made.issues)
            if made.changes:
                source = f"{plan} for " if plan else ""
                head = f"{source}{name_of(stack)}, revision {made.base_revision}"
                err(settings).line(f"{head}: {summary(made)}")
        # Who waits for another apply wants what is to do after it.
        fixed = None if wait and plan is None else made

        def run(observer: Observer) -> Report:
            return stack.apply(fixed, require_healthy=require_healthy, observer=observer, wait=wait)

        if lines is not None:
            report = report_of(settings, stack, partial(run, lines.progress))
        else:
            with waiting(settings, "applying") as line:
                report = report_of(settings, stack, partial(run, observer_of(line)))
        code = exit_code(settings, report, lines)
        if report is not None and report.state == "pending":
            if keep_trying is not None:
                return _until_reached(settings, stack, keep_trying)
            err(settings).note("hint", "the next `stackconf apply` tries again what is pending")
    return code


def _until_reached(settings: Settings, stack: Opened, seconds: float) -> int:
    """Try what is pending until nothing is, for at most so many seconds."""
    from threading import Event, Timer

    from stackconf.retry import keep_trying

    stop = Event()
    timer = Timer(seconds, stop.set)
    timer.daemon = True
    timer.start()
    reports: list[Report] = []
    with waiting(settings, "waiting to try again what is pending") as line:
        try:
            reached = keep_trying(stack, stop=stop, observer=observer_of(line), told=reports.append)
        except KeyboardInterrupt:
            return INTERRUPTED
        finally:
            timer.cancel()
    for report in reports:
        if report.state != "pending" or len(report.of("pending")) < len(report.outcomes):
            tell(settings, report, None)
    if not reached:
        left = ", ".join(stack.pending)
        err(settings).note("error", f"still pending after {seconds:g} s: {left}")
    return ERROR if not reached or any(report.state == "failed" for report in reports) else 0
