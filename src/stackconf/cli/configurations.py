"""`stackconf configurations`: register, list, get, assign, unassign, unregister, inspect."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

import click

from stackconf.cli.inspect import inspect
from stackconf.cli.naming import ConfigurationName
from stackconf.cli.opening import opened
from stackconf.cli.options import Group, Settings, pass_settings, stack_options
from stackconf.cli.output import NOTHING, emit_json, emit_yaml, err, out, plural, show_issues, value_text
from stackconf.cli.waiting import waiting

if TYPE_CHECKING:
    from stackconf.choosing import Listed
    from stackconf.configurations import Registered
    from stackconf.conflicts import OnConflict
    from stackconf.given import OnDropped, Source
    from stackconf.plan import Plan

_F = TypeVar("_F", bound=Callable[..., Any])


class Expecting(TypedDict):
    """Which head a change is for, and what to do when another change came first."""

    expected_revision: int | None
    on_conflict: OnConflict


def _expecting(function: _F) -> _F:
    """The options about another change that came first; the function gets them as `expecting`."""

    @wraps(function)
    def expecting(
        *args: Any, expect_revision: int | None, retry: bool, force: bool, **options: Any
    ) -> object:
        if retry and force:
            raise click.UsageError("give --retry or --force, not both")
        if (retry or force) and expect_revision is None:
            option = "--retry" if retry else "--force"
            problem = "is for when the head is not the revision that you expect"
            raise click.UsageError(f"{option} {problem}; give --expect-revision N too")
        on_conflict: OnConflict = "retry" if retry else "force" if force else "refuse"
        given = Expecting(expected_revision=expect_revision, on_conflict=on_conflict)
        return function(*args, expecting=given, **options)

    decorated = click.option("--force", is_flag=True, help="Then replace what others changed.")(expecting)
    decorated = click.option("--retry", is_flag=True, help="Then merge, unless both changed the same value.")(
        decorated
    )
    return cast(
        "_F",
        click.option(
            "--expect-revision",
            metavar="N",
            type=click.IntRange(min=0),
            help="Refuse if the head is not revision N.",
        )(decorated),
    )


@click.group("configurations", cls=Group)
@stack_options
def configurations() -> None:
    """Registered configurations: what users set on top of the stack file."""


@configurations.command("register", short_help="Register a configuration and assign it.")
@click.argument("source", required=False)
@click.option("--config", metavar="FILE", type=click.Path(), help="The configuration's file; - is stdin.")
@click.option("--name", default="default", show_default=True, help="What to call it.")
@click.option("--no-assign", is_flag=True, help="Only make it available.")
@click.option(
    "--on-dropped",
    type=click.Choice(["warn", "error", "ignore"]),
    default="warn",
    show_default=True,
    help="What to do about values that users may not set.",
)
@_expecting
@stack_options
@pass_settings
def register(
    settings: Settings,
    *,
    source: str | None,
    config: str | None,
    name: str,
    no_assign: bool,
    on_dropped: str,
    expecting: Expecting,
) -> None:
    """Register a configuration and assign it, so that the next apply brings it.

    SOURCE is a file (YAML or JSON), - for standard input, or JSON text. It has the stack file's
    shape, with or without the top `providers:` key. Only user fields are taken; what else it sets
    is dropped and reported. A secret goes in by a file or standard input, never as text here.
    """
    given = _source(source, config)
    with opened(settings) as stack, waiting(settings, "checking"):
        registered = stack.configurations.register(
            given,
            name,
            assign=not no_assign,
            on_dropped=cast("OnDropped", on_dropped),
            **expecting,
            seal=not isinstance(given, str),
        )
        assigned = any(each.assigned for each in stack.configurations.list() if each.name == name)
        if assigned or settings.json:
            _ = registered.plan  # made while the store is open
    show_issues(settings, (*registered.warnings, *registered.dropped))
    if settings.json:
        from stackconf.shapes.configurations import registered_data

        emit_json(registered_data(registered, assigned=assigned))
        return
    _tell_registered(settings, registered, assigned=assigned)


@configurations.command("list", takes_hardware=True, short_help="List the registered and the shipped ones.")
@stack_options
@pass_settings
def list_(settings: Settings) -> None:
    """List what is registered or shipped by plugins, and what is assigned, lowest first.

    Where one says for which machine it is, this machine is compared with that; with --hardware
    another machine is.
    """
    from stackconf.cli.machines import one_machine

    with opened(settings, hardware=False, on=one_machine(settings)) as stack:
        listed = stack.configurations.list(fit=True)
        revision = stack.revision
    if settings.json:
        from stackconf.shapes.configurations import listed_data

        emit_json({"revision": revision, "configurations": [listed_data(each) for each in listed]})
    elif listed:
        _show_listed(settings, listed)
    else:
        err(settings).note("hint", "none is registered; `stackconf configurations register --help` says how")


@configurations.command("get", short_help="Print one as YAML.")
@click.argument("name", type=ConfigurationName())
@stack_options
@pass_settings
def get(settings: Settings, name: str) -> None:
    """Print a configuration as YAML, in the form that `register` takes."""
    from stackconf.history import shown_configuration

    with opened(settings, hardware=False) as stack:
        found = shown_configuration(stack.configurations.get(name))
    if settings.json:
        from stackconf.shapes.configurations import configuration_data

        emit_json(configuration_data(found))
    else:
        emit_yaml({"providers": found.providers})


@configurations.command("assign", short_help="Make one count.")
@click.argument("name", type=ConfigurationName(), required=False)
@click.option("--best", is_flag=True, help="The shipped one that this machine is for.")
@click.option("--for", "providers", metavar="PROVIDER", multiple=True, help="With --best: one that sets it.")
@_expecting
@stack_options
@pass_settings
def assign(
    settings: Settings, name: str | None, *, best: bool, providers: tuple[str, ...], expecting: Expecting
) -> None:
    """Make a configuration count, above those assigned before.

    With --best it is the shipped one that this machine is for: of those that fit, the one that asks
    for most. Where none fits, it is said what is missing for the nearest.
    """
    if best == (name is not None):
        raise click.UsageError("give the name of a configuration, or --best")
    if providers and not best:
        raise click.UsageError("--for goes with --best")
    if name is None:
        _assign_best(settings, providers, expecting)
        return
    with opened(settings) as stack, waiting(settings, "checking"):
        revision = stack.configurations.assign(name, **expecting)
        made = stack.plan()
    _tell_changed(settings, name, "assigned", revision, made)


@configurations.command("unassign", short_help="Make one no longer count.")
@click.argument("name", type=ConfigurationName())
@_expecting
@stack_options
@pass_settings
def unassign(settings: Settings, name: str, *, expecting: Expecting) -> None:
    """Make a configuration no longer count; it stays available."""
    with opened(settings) as stack, waiting(settings, "checking"):
        revision = stack.configurations.unassign(name, **expecting)
        made = stack.plan()
    _tell_changed(settings, name, "unassigned", revision, made)


@configurations.command("unregister", short_help="Forget one.")
@click.argument("name", type=ConfigurationName())
@_expecting
@stack_options
@pass_settings
def unregister(settings: Settings, name: str, *, expecting: Expecting) -> None:
    """Forget a registered configuration."""
    with opened(settings) as stack, waiting(settings, "checking"):
        revision = stack.configurations.unregister(name, **expecting)
        made = stack.plan()
    _tell_changed(settings, name, "unregistered", revision, made)


configurations.add_command(inspect)


def _assign_best(settings: Settings, providers: tuple[str, ...], expecting: Expecting) -> None:
    with opened(settings) as stack, waiting(settings, "checking"):
        chosen = stack.configurations.assign_best(providers, **expecting)
        made = stack.plan()
    if settings.json:
        from stackconf.shapes.fits import chosen_data
        from stackconf.shapes.plans import plan_data

        emit_json({**chosen_data(chosen), "result": "assigned", "plan": plan_data(made)})
        return
    screen = out(settings)
    screen.line(f"assigned `{chosen.name}` as revision {chosen.revision}")
    screen.line(f"  for {chosen.requirement}; this machine {chosen.fit}")
    if chosen.passed_over:
        others = ", ".join(chosen.passed_over)
        screen.paragraph(f"it asks for more than what fits as well: {others}", indent="  ")
    hint_apply(settings, len(made.changes))


def _show_listed(settings: Settings, listed: Sequence[Listed]) -> None:
    head: tuple[str, ...] = ("name", "state", "source", "revision", "providers", "description")
    listed = sorted(listed, key=_nearness) if any(each.fit is not None for each in listed) else listed
    rows = [_row(each) for each in listed]
    if any(each.fit is not None for each in listed):
        head = (*head[:2], "machine", *head[2:])
        rows = [
            (*row[:2], _fit_text(each, full=settings.verbose), *row[2:])
            for row, each in zip(rows, listed, strict=True)
        ]
    out(settings).table(head, rows)


def _nearness(listed: Listed) -> tuple[object, ...]:
    """Assigned ones first, in their order, then the best, then the nearest."""
    from stackconf.fitting import nearness

    if listed.assigned or listed.fit is None:
        return listed.assigned == 0, False, (0, 0)
    return True, not listed.best, nearness(listed.fit)


def _fit_text(listed: Listed, *, full: bool) -> str:
    if listed.fit is None:
        return NOTHING
    if listed.fit.verdict == "no" and not full:
        return "no"
    return f"best; {listed.fit}" if listed.best else str(listed.fit)


def _source(source: str | None, config: str | None) -> Source:
    """What to register. Raises `UsageError` when nothing, or two things, were given."""
    if (source is None) == (config is None):
        problem = "give one configuration: " if source else "give a configuration: "
        raise click.UsageError(f"{problem}--config FILE, FILE, - for standard input, or JSON text")
    given = config if source is None else source
    assert given is not None  # noqa: S101 (one of the two is)
    if given == "-":
        return sys.stdin.buffer.read()
    if config is None and (given.lstrip()[:1] in {"{", "["} or "\n" in given):
        return given
    return Path(given)


def _tell_registered(settings: Settings, registered: Registered, *, assigned: bool) -> None:
    screen = out(settings)
    state = "assigned" if assigned else "not assigned"
    screen.line(f"registered `{registered.name}` as revision {registered.revision}, {state}")
    for key, config in _by_provider(registered.kept):
        screen.line(f"  {key}")
        for field, value in config.items():
            screen.paragraph(f"{field}: {value_text(value)}", indent="    ", hang="      ")
    if assigned:
        hint_apply(settings, len(registered.plan.changes))
    else:
        err(settings).note("hint", f"`stackconf configurations assign {registered.name}` makes it count")


def _tell_changed(settings: Settings, name: str, word: str, revision: int, made: Plan) -> None:
    if settings.json:
        from stackconf.shapes.plans import plan_data

        emit_json({"name": name, "result": word, "revision": revision, "plan": plan_data(made)})
        return
    out(settings).line(f"{word} `{name}` as revision {revision}")
    hint_apply(settings, len(made.changes))


def hint_apply(settings: Settings, changes: int) -> None:
    """What to do next, where something would change."""
    if changes:
        text = f"{plural(changes, 'provider')} would change: see `stackconf plan`, then `stackconf apply`"
        err(settings).note("hint", text)


def _by_provider(
    providers: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (f"{api}/{entry['provider_id']}", entry["config"])
        for api, entries in providers.items()
        for entry in entries
    ]


def _row(listed: Listed) -> tuple[str, ...]:
    return (
        listed.name,
        f"assigned ({listed.assigned})" if listed.assigned else "available",
        listed.source,
        str(listed.revision) if listed.revision else NOTHING,
        ", ".join(listed.providers),
        listed.description,
    )
