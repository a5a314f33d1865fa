"""`stackconf history`: which revisions there were, and how the attempts to apply them went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stackconf.cli.opening import opened
from stackconf.cli.options import Group, Settings, pass_settings, stack_options
from stackconf.cli.output import NOTHING, Screen, emit_json, err, local_time, out, plural
from stackconf.cli.told import told_change

if TYPE_CHECKING:
    from stackconf.history import AttemptSummary, History

_STATES = {"begun": "not ended", "cut_off": "cut off"}


class _History(Group):
    """A group that lists history when no command of it is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click itself does."""
        return click.Group.parse_args(self, ctx, args)


@click.group("history", cls=_History, invoke_without_command=True)
@click.option("--attempts", is_flag=True, help="List the attempts to apply too, and why they failed.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Only the newest N of each.")
@stack_options
@pass_settings
@click.pass_context
def history(ctx: click.Context, settings: Settings, *, attempts: bool, limit: int | None) -> None:
    """List the revisions, newest first: who changed what, when, and what a rollback restores."""
    if ctx.invoked_subcommand is not None:
        if attempts or limit is not None:
            raise click.UsageError(f"--attempts and --limit are not for {ctx.invoked_subcommand}")
        return
    with opened(settings, hardware=False) as stack:
        found = stack.history(limit=limit)
    if settings.json:
        from stackconf.shapes.history import history_data

        emit_json(history_data(found))
        return
    _show(settings, found, attempts=attempts)


@history.command("prune", short_help="Forget old revisions and attempts.")
@click.option("--keep", metavar="N", type=click.IntRange(min=1), required=True, help="How many to keep.")
@stack_options
@pass_settings
def prune(settings: Settings, *, keep: int) -> None:
    """Forget all but the newest N revisions and attempts.

    What is applied to a provider, and what an open attempt is for, is kept besides.
    """
    with opened(settings, hardware=False) as stack:
        gone = stack.prune(keep)
    if settings.json:
        from stackconf.shapes.history import pruned_data

        emit_json(pruned_data(gone))
        return
    if gone.revisions or gone.attempts:
        went = f"{plural(gone.revisions, 'revision')} and {plural(gone.attempts, 'attempt')} forgotten"
    else:
        went = "nothing to forget"
    out(settings).line(f"{went}; the oldest kept is revision {gone.oldest}")
    if gone.pinned:
        listed = ", ".join(map(str, gone.pinned))
        err(settings).note("hint", f"kept besides, being applied: {listed}")


def _show(settings: Settings, found: History, *, attempts: bool) -> None:
    screen = out(settings)
    if found.revisions:
        rows = [
            (str(each.number), local_time(each.at), each.actor, told_change(each)) for each in found.revisions
        ]
        screen.table(("revision", "when", "by", "change"), rows)
    else:
        err(settings).note("hint", "nothing was ever registered")
    if found.oldest > 1:
        err(settings).note("hint", f"revisions before {found.oldest} were pruned, but those in use")
    if attempts:
        _show_attempts(settings, screen, found)
    elif found.attempts and found.attempts[0].state not in {"applied", "pending", "restored"}:
        err(settings).note("hint", f"{_story(found.attempts[0])}; --attempts lists them all")


def _show_attempts(settings: Settings, screen: Screen, found: History) -> None:
    if not found.attempts:
        err(settings).note("hint", "nothing was ever applied")
        return
    if found.revisions:
        screen.line()
    head = ("attempt", "revision", "when", "seconds", "by", "state", "")
    screen.table(head, [_row(each) for each in found.attempts])


def _row(each: AttemptSummary) -> tuple[str, ...]:
    return (
        str(each.number),
        str(each.revision),
        local_time(each.begun_at),
        NOTHING if each.seconds is None else f"{each.seconds:.2f}",
        each.actor,
        _STATES.get(each.state, each.state),
        "; ".join(_remarks(each)),
    )


def _remarks(each: AttemptSummary) -> list[str]:
    remarks = []
    if each.error:
        remarks.append(f"{each.provider}: {each.error}")
    if each.state == "failed":
        remarks.append(_now(each))
    if each.took_over is not None:
        remarks.append(f"took over from attempt {each.took_over}")
    return remarks


def _story(each: AttemptSummary) -> str:
    """An attempt that did not succeed, in a line."""
    if each.state != "failed":
        return f"attempt {each.number} of revision {each.revision} has not ended, or was killed"
    return f"tried {each.revision}, failed because {each.provider}: {each.error}; {_now(each)}"


def _now(each: AttemptSummary) -> str:
    return "now not known" if each.now is None else f"now {each.now}"
