"""`stackconf secrets`: list, new-key, rotate, drop. No secret is ever an argument, or printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stackconf.cli.opening import opened_here
from stackconf.cli.options import Group, Settings, output_options, pass_settings, stack_options
from stackconf.cli.output import NOTHING, emit_json, err, out, plural
from stackconf.errors import SecretError
from stackconf.sealing import KEY_FILE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackconf.vault import SecretUse


@click.group("secrets", cls=Group, place="stack")
@stack_options
def secrets() -> None:
    """Secrets in registered configurations, and the keys of those that are kept encrypted.

    A secret itself goes in with `stackconf configurations register`, in a file or on standard input.
    """


@secrets.command("list", short_help="List where secrets are referred to.")
@stack_options
@pass_settings
def list_(settings: Settings) -> None:
    """List every reference to a secret, and whether it can be resolved here.

    For an encrypted one, KEY is the id of the key that opens it.
    """
    with opened_here(settings, hardware=False) as stack:
        uses = stack.secrets.list()
        keys = stack.secrets.keys
    if settings.json:
        emit_json({"keys": list(keys), "references": [_data(each) for each in uses]})
        return
    if uses:
        head = ("configuration", "provider", "field", "kind", "key", "state")
        out(settings).table(head, [_row(each) for each in uses])
    else:
        err(settings).note("hint", "no registered configuration refers to a secret")
    if keys:
        first, *others = keys
        rest = f"; {', '.join(others)} still {'opens' if len(others) == 1 else 'open'}" if others else ""
        err(settings).note("hint", f"the key {first} seals{rest}")


@secrets.command("new-key", place="here", short_help="Make a key.")
@click.option("-o", "--out", "file", metavar="FILE", type=click.Path(), help="Write it to a new file.")
@click.option("--add-to", metavar="FILE", type=click.Path(), help="Put it before the keys of a file.")
@output_options
@pass_settings
def new_key(settings: Settings, file: str | None, add_to: str | None) -> None:
    """Make a key. It is printed, or written to a file that only its owner may read.

    A file that is there is not replaced. With --add-to its keys stay, and open what they sealed.
    """
    from stackconf.sealing import key_id
    from stackconf.sealing import new_key as made
    from stackconf.vault import write_new_key

    if file and add_to:
        raise click.UsageError("give --out or --add-to, not both")
    target = file or add_to
    if target is None:
        key = made()
        if settings.json:
            emit_json({"id": key_id(key), "key": key, "file": None})
        else:
            out(settings).line(key)
        return
    identity = write_new_key(target, add=bool(add_to))
    if settings.json:
        emit_json({"id": identity, "key": None, "file": target})
        return
    out(settings).line(f"{target} has a new key, {identity}")
    if add_to:
        err(settings).note("hint", "`stackconf secrets rotate` seals every secret with it")
    else:
        err(settings).note("hint", f"set {KEY_FILE_VARIABLE}={target}, and keep a copy in a safe place")


@secrets.command("rotate", short_help="Encrypt everything with the newest key.")
@stack_options
@pass_settings
def rotate(settings: Settings) -> None:
    """Encrypt every stored secret with the newest key, all or none. Then the other keys can go.

    Revisions stay as they are, and no provider looks changed.
    """
    with opened_here(settings, hardware=False) as stack:
        done = stack.secrets.rotate()
        others = stack.secrets.keys[1:]
    if settings.json:
        emit_json({"key": done.key, "changed": done.changed, "unchanged": done.unchanged})
        return
    before = f"; {done.unchanged} before" if done.unchanged else ""
    out(settings).line(f"{plural(done.changed, 'secret')} sealed with the key {done.key} now{before}")
    if others:
        noun = "key" if len(others) == 1 else "keys"
        err(settings).note("hint", f"this store needs the {noun} {', '.join(others)} no more")


@secrets.command("drop", short_help="Forget encrypted secrets that are of no use.")
@click.option("--lost", is_flag=True, help="Those too that no key opens that is here.")
@stack_options
@pass_settings
def drop(settings: Settings, *, lost: bool) -> None:
    """Forget the encrypted secrets to which no kept revision refers.

    With --lost, those too that no key opens that is here. They are gone for good: see first with
    `stackconf secrets list` that the right keys are here. Where there is none at all, which may be
    a variable that was forgotten, nothing is dropped: set one, or make the new one first.
    """
    with opened_here(settings, hardware=False) as stack:
        if lost and not stack.secrets.keys and stack.store.sealed():
            problem = "no key is here, so every encrypted secret would be dropped"
            raise SecretError(problem, f"set {KEY_FILE_VARIABLE}; if the key is lost, make a new one first")
        done = stack.secrets.drop(lost=lost)
    if settings.json:
        emit_json({"unused": done.unused, "lost": done.lost})
        return
    out(settings).line(f"{plural(done.unused, 'unused secret')} dropped")
    if lost:
        out(settings).line(f"{plural(done.lost, 'lost secret')} dropped")


def _data(use: SecretUse) -> dict[str, object]:
    return {
        "configuration": use.configuration,
        "provider": use.provider,
        "path": use.path,
        "kind": use.kind,
        "reference": use.reference,
        "key": use.key or None,
        "problem": use.problem or None,
    }


def _row(use: SecretUse) -> Sequence[str]:
    field = use.path.removeprefix("config.")
    what = use.kind if use.kind == "sealed" else use.reference
    return (
        use.configuration,
        use.provider,
        field,
        what,
        use.key or NOTHING,
        use.problem or "can be resolved",
    )
