"""`stackconf check`: everything that is wrong with stack files, all at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stackconf.cli.machines import one_machine
from stackconf.cli.opening import (
    looking,
    name_of,
    open_registry,
    opened,
    server_here,
    stack_path,
    warn_of_plugins,
)
from stackconf.cli.options import Command, Settings, pass_settings, stack_options
from stackconf.cli.output import emit_json, err, out, plural, show_issues
from stackconf.cli.waiting import waiting
from stackconf.errors import InvalidConfig

if TYPE_CHECKING:
    from stackconf.cli.machines import Given
    from stackconf.hardware.facts import Hardware
    from stackconf.registry.registry import Registry
    from stackconf.types import Issue

_LEVELS = (("error", "error"), ("warning", "warning"), ("ignored", "value ignored"))


@click.command("check", cls=Command, takes_hardware=True)
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path())
@stack_options
@pass_settings
def check(settings: Settings, files: tuple[str, ...]) -> int:
    """Report everything wrong with each FILE, or with the stack that is meant.

    Every issue is one line on standard error, with its place; the exit code is 1 when one of them
    is an error. Nothing is applied and nothing is stored.
    """
    if files and settings.url:
        raise click.UsageError("a FILE is checked here, and not over HTTP; leave --url out")
    if not files and server_here(settings):
        return _check_there(settings)
    paths = [Path(file) for file in files] or [stack_path(settings)]
    on = one_machine(settings)
    registry = open_registry(settings)
    hardware = on.hardware if on else looking(registry)
    checked = []
    with waiting(settings, "checking") as line:
        for path in paths:
            line.say(f"checking {path}")
            checked.append((path, *_checked(path, settings, registry, hardware)))
    wrong = _tell(settings, checked, on)
    warn_of_plugins(settings, registry)
    return 1 if wrong else 0


def _check_there(settings: Settings) -> int:
    with opened(settings) as stack, waiting(settings, "checking"):
        providers = sum(each.state != "disabled" for each in stack.providers())
        checked = [(Path(name_of(stack)), providers, stack.issues)]
        problems = stack.problems
    wrong = _tell(settings, checked, None)
    for problem in problems:
        err(settings).note("warning", str(problem))
    return 1 if wrong else 0


def _tell(
    settings: Settings, checked: Sequence[tuple[Path, int | None, Sequence[Issue]]], on: Given | None
) -> bool:
    """Say what was found; whether any of it is an error."""
    wrong = any(issue.level == "error" for _, _, issues in checked for issue in issues)
    if settings.json:
        from stackconf.shapes.issues import issues_data

        emit_json(
            {
                "valid": not wrong,
                **({"hardware": on.data()} if on else {}),
                "files": [
                    {
                        "file": str(path),
                        "valid": _count(issues, "error") == 0,
                        "providers": providers,
                        "issues": issues_data(issues),
                    }
                    for path, providers, issues in checked
                ],
            }
        )
    else:
        if on:
            out(settings).line(f"hardware: {on}", "dim")
        for path, providers, issues in checked:
            show_issues(settings, issues, unmanaged=True)
            out(settings).line(f"{path}: {_verdict(providers, issues)}")
    return wrong


def _checked(
    path: Path, settings: Settings, registry: Registry, hardware: Hardware | Callable[[], Hardware]
) -> tuple[int | None, tuple[Issue, ...]]:
    """How many providers a file has, `None` if it cannot be read, and all its issues."""
    from stackconf.manager import Manager
    from stackconf.runtimes import hosted
    from stackconf.stackfile.model import load
    from stackconf.types import Issue

    try:
        file = load(path, os.environ)
    except InvalidConfig as error:
        return None, error.issues or (Issue(str(error)),)
    file, registry = hosted(file, registry, settings.runtime)
    manager = Manager(file, registry, hardware=hardware, skip_unknown=settings.skip_unknown or None)
    return len(file.providers), manager.resolve().issues


def _verdict(providers: int | None, issues: Sequence[Issue]) -> str:
    counts = [(_count(issues, level), noun) for level, noun in _LEVELS]
    found = ", ".join(
        plural(count, noun) if noun != "value ignored" else f"{plural(count, 'value')} ignored"
        for count, noun in counts
        if count
    )
    if providers is None:
        return found
    return f"{plural(providers, 'provider')}, {found or 'no issues'}"


def _count(issues: Sequence[Issue], level: str) -> int:
    return sum(issue.level == level for issue in issues)
