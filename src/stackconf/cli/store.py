"""`stackconf store`: whether the store is sound, and saving what can be read of a damaged one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stackconf.cli.failures import ERROR
from stackconf.cli.opening import store_file
from stackconf.cli.options import Group, Settings, pass_settings, stack_options
from stackconf.cli.output import Screen, emit_json, err, out
from stackconf.cli.waiting import waiting

if TYPE_CHECKING:
    from stackconf.store.checking import Checked
    from stackconf.store.salvage import Recovered


@click.group("store", cls=Group, place="stack")
@stack_options
def store() -> None:
    """Where what is registered and applied is kept."""


@store.command("check", short_help="Say whether it is sound.")
@stack_options
@pass_settings
def check(settings: Settings) -> int:
    """Say whether the store is sound: its pages, the digests of what it holds, its numbers.

    Needs neither the stack file nor a plugin, and changes nothing.
    """
    from stackconf.store.checking import check as check_store

    with waiting(settings, "reading the store"):
        found = check_store(store_file(settings))
    if settings.json:
        from stackconf.shapes.stores import checked_data

        emit_json(checked_data(found))
    else:
        _show(out(settings), found)
    for note in found.notes:
        err(settings).note("note", note)
    for problem in found.problems:
        err(settings).note("error", f"store {found.path} {problem}")
    if not found.sound:
        kept = "saves what can be read, and keeps this file"
        what = kept if found.size else "goes on from what was last applied"
        err(settings).note("hint", f"`stackconf store recover` {what}")
        return ERROR
    return 0


@store.command("recover", short_help="Save what can be read of a damaged one.")
@stack_options
@pass_settings
def recover(settings: Settings) -> int:
    """Put a damaged store aside, and make a new one of all that can be read of it.

    The damaged file is kept under another name, as it is. Revisions keep their numbers. What the
    store does not know any more of what is applied is taken from the file beside it. No other
    process may have the store open.
    """
    from stackconf.actor import current_actor
    from stackconf.store.salvage import recover as recover_store

    with waiting(settings, "recovering the store"):
        done = recover_store(store_file(settings), actor=current_actor())
    if settings.json:
        from stackconf.shapes.stores import recovered_data

        emit_json(recovered_data(done))
    else:
        _tell(settings, done)
    return 0


def _show(screen: Screen, found: Checked) -> None:
    how = "sound" if found.sound else "damaged"
    screen.line(f"store {found.path}: {how}", "bold")
    if not found.version:
        return
    rows = [
        ("head", f"revision {found.head}"),
        ("revisions", str(found.revisions) + (f", {found.lost} of them lost" if found.lost else "")),
        ("documents", str(found.documents)),
        ("attempts", str(found.attempts)),
        ("applied", f"to {found.applied} providers"),
        ("size", f"{found.size} bytes, and {found.wal} in its write-ahead log"),
        ("version", str(found.version)),
    ]
    for name, text in rows:
        screen.line(f"  {name:10} {text}")


def _tell(settings: Settings, done: Recovered) -> None:
    screen = out(settings)
    screen.line(f"recovered {done.path}: revision {done.head}", "bold")
    for line in done.kept:
        screen.line(f"  kept  {line}")
    for line in done.lost:
        screen.line(f"  lost  {line}")
    if done.aside is not None:
        err(settings).note("hint", f"the damaged file is kept as {done.aside}")
    err(settings).note("hint", "see `stackconf plan` before the next apply")
