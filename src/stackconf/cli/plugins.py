"""`stackconf plugins`: what is installed, from metadata alone.

Nothing here imports a plugin, so these commands work with a broken one and are the way to get rid
of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from stackconf.cli.options import Group, Settings, output_options, pass_settings
from stackconf.cli.output import emit_json, out, plural
from stackconf.errors import UnknownName

if TYPE_CHECKING:
    from stackconf.registry.metadata import Advertised

VARIABLE = "STACKCONF_DISABLED_PLUGINS"


@click.group("plugins", cls=Group, place="here")
@output_options
def plugins() -> None:
    """List the installed plugins, or disable one before it is ever imported.

    None of these commands imports a plugin.
    """


@plugins.command("list", short_help="List what is installed.")
@output_options
@pass_settings
def list_(settings: Settings) -> None:
    """List what installed distributions offer to stackconf."""
    entries = _installed()
    if settings.json:
        emit_json({"plugins": [_data(entry) for entry in entries]})
        return
    rows = [
        (
            entry.name,
            entry.group.removeprefix("stackconf."),
            f"{entry.distribution} {entry.version}".strip(),
            "yes" if entry.enabled else "no",
        )
        for entry in entries
    ]
    out(settings).table(("name", "group", "distribution", "enabled"), rows)


@plugins.command("disable", short_help="Never import it again.")
@click.argument("name")
@output_options
@pass_settings
def disable(settings: Settings, name: str) -> None:
    """Never import NAME again: a distribution, a plugin, or one provider type."""
    from stackconf.registry.metadata import DisabledPlugins

    _named(name)
    disabled = DisabledPlugins()
    stored = disabled.stored()
    if name not in stored:
        disabled.write({*stored, name})
    word = "is already disabled" if name in stored else "is disabled"
    _tell(settings, name, word, _named(name))


@plugins.command("enable", short_help="Let it be imported again.")
@click.argument("name")
@output_options
@pass_settings
def enable(settings: Settings, name: str) -> int:
    """Let NAME be imported again."""
    from stackconf.registry.metadata import DisabledPlugins

    disabled = DisabledPlugins()
    stored = disabled.stored()
    if name in stored:
        disabled.write(stored - {name})
        concerned = [entry for entry in _installed() if name in {entry.name, entry.distribution}]
    else:
        concerned = _named(name)
    still = [entry for entry in concerned if not entry.enabled]
    word = "is enabled" if name in stored else "was not disabled"
    if not still:
        _tell(settings, name, word, concerned)
        return 0
    raise UnknownName(f"`{name}` is still disabled, {_why(still, disabled.names())}")


def _installed() -> list[Advertised]:
    from stackconf.registry.metadata import DisabledPlugins, installed, marked

    return marked(installed(), DisabledPlugins().names())


def _named(name: str) -> list[Advertised]:
    """The entries that a name stands for. Raises `UnknownName`."""
    entries = _installed()
    found = [entry for entry in entries if name in {entry.name, entry.distribution}]
    if found:
        return found
    from stackconf.suggest import did_you_mean

    names = {each for entry in entries for each in (entry.name, entry.distribution)}
    hint = did_you_mean(name, sorted(names)) or "`stackconf plugins list` shows the names"
    raise UnknownName(f"no installed plugin or distribution is called `{name}`; {hint}")


def _why(entries: Sequence[Advertised], names: frozenset[str]) -> str:
    by = {each for entry in entries for each in (entry.name, entry.distribution) if each in names}
    variable = {each.strip() for each in os.environ.get(VARIABLE, "").split(",")}
    if by & variable:
        return f"by the variable {VARIABLE}"
    return "by " + ", ".join(f"`{each}`" for each in sorted(by)) + "; enable that instead"


def _tell(settings: Settings, name: str, word: str, concerned: Sequence[Advertised]) -> None:
    if settings.json:
        emit_json({"name": name, "result": word, "concerns": [_data(entry) for entry in concerned]})
        return
    screen = out(settings)
    screen.line(f"`{name}` {word}: {plural(len(concerned), 'entry point')}")
    for entry in concerned:
        screen.line(f"  {entry.group.removeprefix('stackconf.')}  {entry.name}")


def _data(entry: Advertised) -> dict[str, object]:
    return {
        "group": entry.group,
        "name": entry.name,
        "target": entry.target,
        "distribution": entry.distribution,
        "version": entry.version,
        "enabled": entry.enabled,
    }
