"""From the shared options to an open stack: which file it is, and what is known meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import click

from stackconf.cli.output import err
from stackconf.cli.waiting import waiting
from stackconf.errors import InvalidConfig, PluginLoadError

if TYPE_CHECKING:
    from stackconf.cli.machines import Given
    from stackconf.cli.options import Settings
    from stackconf.client.client import Client
    from stackconf.hardware.discovery import Looking
    from stackconf.registry.registry import Registry
    from stackconf.stack import Stack

    Opened: TypeAlias = Stack | Client
    """A stack that is here, or one behind a server: what either can be asked."""

STACK_VARIABLE = "STACKCONF_STACK"
URL_VARIABLE = "STACKCONF_URL"
STORE_VARIABLE = "STACKCONF_STORE"
STACK_NAMES = ("stack.yaml", "run.yaml", "config.yaml")


def stack_here(settings: Settings) -> Path | None:
    """The stack file that is meant: the option, the variable, or one in the current folder."""
    given = settings.stack or os.environ.get(STACK_VARIABLE)
    if given:
        return Path(given)
    return next((Path(name) for name in STACK_NAMES if Path(name).is_file()), None)


def server_here(settings: Settings) -> str | None:
    """The server that is meant: the option, or the variable where no file or store is named.

    Raises `UsageError` beside an option that is about a stack here.
    """
    url = settings.url
    if url is None and not (settings.stack or settings.store):
        url = os.environ.get(URL_VARIABLE) or None
    if url is None:
        return None
    given = {
        "--stack": settings.stack,
        "--store": settings.store,
        "--runtime": settings.runtime,
        "--skip-unknown": settings.skip_unknown,
        "--plugin": settings.plugin,
        "--hardware": settings.hardware,
    }
    option = next((option for option, value in given.items() if value), None)
    if option is None:
        return url
    if settings.url is None:
        raise click.UsageError(
            f"{URL_VARIABLE} names a server, and {option} is for a stack here; add -s FILE"
        )
    if option in {"--stack", "--store"}:
        raise click.UsageError(f"give --url or {option}, not both")
    raise click.UsageError(f"{option} is for a stack here; the server of --url has its own")


def refuse_url(ctx: click.Context, settings: Settings, *, always: bool) -> None:
    """Raise `UsageError` where a server is meant, for a command that asks none. Without `always` the
    variable does not count.
    """
    named = "--url" if settings.url else URL_VARIABLE
    if settings.url or (always and server_here(settings)):
        raise click.UsageError(
            f"`{ctx.command_path}` works where the stack is, and not over HTTP ({named})"
            + ("" if settings.url else "; add -s FILE for one that is here"),
            ctx,
        )


def name_of(stack: Opened) -> str:
    """What a person calls the stack: its file, as it was named, or the file's name on the server."""
    return stack.name if client_of(stack) else str(stack_of(stack).file.name)


def client_of(stack: Opened) -> Client | None:
    """The client, if the stack is behind a server."""
    return cast("Client", stack) if hasattr(stack, "url") else None


def stack_of(stack: Opened) -> Stack:
    """A stack that is here. Asked where `client_of` gives nothing."""
    return cast("Stack", stack)


def stack_path(settings: Settings) -> Path:
    """As `stack_here`, telling of others that might be meant. Raises `UsageError` when there is none."""
    path = stack_here(settings)
    if path is None:
        names = ", ".join(STACK_NAMES)
        raise click.UsageError(
            f"no stack file: none of {names} is here; give --stack FILE or set {STACK_VARIABLE}"
        )
    _tell_of_others(settings, path)
    return path


def store_here(settings: Settings) -> str | None:
    """Where the state is kept: the option or the variable; `None` means beside the stack file."""
    return settings.store or os.environ.get(STORE_VARIABLE) or None


def store_file(settings: Settings) -> Path:
    """The store's file, which needs no readable stack file. Raises `UsageError` where none is meant."""
    given = store_here(settings)
    if given:
        return Path(given)
    from stackconf.stack import default_store_path
    from stackconf.store.lastgood import lastgood_path

    path = stack_here(settings)
    if path is not None:
        return default_store_path(path)
    for name in STACK_NAMES:
        beside = default_store_path(Path(name))
        if beside.exists() or lastgood_path(beside).exists():
            return beside
    problem = "no store and no stack file here"
    raise click.UsageError(f"{problem}; give --store PATH or --stack FILE, or set {STORE_VARIABLE}")


def _tell_of_others(settings: Settings, taken: Path) -> None:
    if settings.stack or os.environ.get(STACK_VARIABLE):
        return
    others = [name for name in STACK_NAMES if name != taken.name and Path(name).is_file()]
    if others:
        here = " and ".join(f"`{name}`" for name in others)
        err(settings).note("hint", f"taking `{taken}`; {here} here too, to be had with --stack")


def open_registry(settings: Settings) -> Registry:
    """The installed plugins and those given by `--plugin`, whose files are imported here.

    Raises `PluginLoadError` when an import does not come to an end.
    """
    from stackconf.registry.registry import Registry

    if not settings.plugin:
        return Registry()
    from stackconf.deadline import hook_seconds, map_with_deadline

    def late(files: tuple[str, ...]) -> Registry:
        problem = f"its import did not come back within {hook_seconds():g} s"
        raise PluginLoadError(", ".join(files), problem)

    def load(files: tuple[str, ...]) -> Registry:
        return Registry(files=files)

    with waiting(settings, "loading plugins"):
        return map_with_deadline(load, [settings.plugin], seconds=hook_seconds(), late=late)[0]


def open_hosted(settings: Settings) -> Registry:
    """As `open_registry`, with the types of the runtime that the option or the stack here names."""
    registry, path = open_registry(settings), stack_here(settings)
    if path is None and settings.runtime is None:
        return registry
    from stackconf.runtimes import hosted
    from stackconf.stackfile.model import load, loads

    try:
        file = loads("providers: {}", "") if path is None else load(path)
    except InvalidConfig:  # to list types, the file is not needed
        file = loads("providers: {}", "")
    return hosted(file, registry, settings.runtime)[1]


def forget_machine() -> None:
    """Drop what was kept of this machine since its boot. Raises `OSError`."""
    from stackconf.hardware.kept import kept_here

    kept = kept_here()
    if kept is not None:
        kept.forget()


def looking(registry: Registry) -> Looking:
    """Begin to look at the machine; calling what this gives waits for what is missing."""
    from stackconf.detectors import detectors_of
    from stackconf.hardware.discovery import Looking
    from stackconf.hardware.kept import kept_here

    return Looking(detectors_of(registry), kept=kept_here())


@contextmanager
def opened(settings: Settings, *, hardware: bool = True, on: Given | None = None) -> Iterator[Opened]:
    """The stack, open, or the client of the server that is meant; of a stack here a plugin that could not
    be loaded is a warning at the end.

    With `hardware` the machine is looked at while the heavier modules load, unless it is `on`
    another one.
    """
    url = server_here(settings)
    if url is not None:
        from stackconf.client.client import Client

        with Client(url) as client:
            yield client
        return
    with opened_here(settings, hardware=hardware, on=on) as stack:
        yield stack


@contextmanager
def opened_here(settings: Settings, *, hardware: bool = True, on: Given | None = None) -> Iterator[Stack]:
    """As `opened`, for a command that works where the stack is."""
    path = stack_path(settings)
    registry = open_registry(settings)
    look = looking(registry) if hardware and on is None else None
    from stackconf.stack import Stack

    try:
        with Stack.open(
            path,
            store=store_here(settings),
            registry=registry,
            hardware=on.hardware if on else look,
            skip_unknown=settings.skip_unknown or None,
            runtime=settings.runtime,
        ) as stack:
            yield stack
    finally:
        warn_of_plugins(settings, registry)


def warn_of_plugins(settings: Settings, registry: Registry) -> None:
    """What the registry could not load, on standard error."""
    screen = err(settings)
    for problem in dict.fromkeys(map(str, registry.problems)):
        screen.note("warning", problem)
