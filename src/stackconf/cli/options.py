"""The options that commands share. Each may stand before the command or after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

import click
from click.core import ParameterSource

F = TypeVar("F", bound=Callable[..., Any])


SECONDS = click.FloatRange(min=0)
"""The type of an option that is a time."""


class Settings:
    """What the shared options say; one for each run, at `click.Context.obj`."""

    def __init__(self) -> None:
        self.stack: str | None = None
        self.url: str | None = None
        self.store: str | None = None
        self.plugin: tuple[str, ...] = ()
        self.hardware: tuple[str, ...] = ()
        self.skip_unknown = False
        self.runtime: str | None = None
        self.json = False
        self.color = "auto"
        self.verbose = False


pass_settings = click.make_pass_decorator(Settings)


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    """Keep what was typed; the innermost place wins; `--plugin` and `--hardware` add up."""
    name = str(param.name)
    if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
        return
    settings = ctx.ensure_object(Settings)
    if name in {"plugin", "hardware"}:
        value = (*getattr(settings, name), *value)  # type: ignore[misc]
    setattr(settings, name, value)


class Shared(click.Option):
    """An option that many commands have; shown apart in their help."""


def _shared(*names: str, **attributes: Any) -> Callable[[F], F]:
    return click.option(*names, cls=Shared, expose_value=False, callback=_remember, **attributes)


_STACK = (
    _shared("-s", "--stack", metavar="FILE", type=click.Path(), help="The stack file."),
    _shared("--url", metavar="URL", help="A server that hosts the stack, instead of a file here."),
    _shared("--store", metavar="PATH", type=click.Path(), help="Where its state is kept."),
    _shared("--runtime", metavar="NAME", help="What hosts the providers: ogx, llama-stack, or local."),
    _shared("--skip-unknown", is_flag=True, help="Leave providers of unknown types alone, with a warning."),
)
_PLUGIN = (
    _shared("--plugin", metavar="FILE.py", multiple=True, type=click.Path(), help="Load a plugin's file."),
)


def _complete_machine(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[Any]:
    """Files, or what may stand next in an expression."""
    from click.shell_completion import CompletionItem

    from stackconf.hardware.catalog import slugs
    from stackconf.hardware.simulation import KEYS

    before, comma, last = incomplete.rpartition(",")
    words = [*slugs(), *(f"{key}=" for key in KEYS)]
    found = [CompletionItem(f"{before}{comma}{word}") for word in words if word.startswith(last)]
    return found if comma else [*found, CompletionItem(incomplete, type="file")]


_HARDWARE = (
    _shared(
        "--hardware",
        metavar="FILE|EXPR",
        multiple=True,
        shell_complete=_complete_machine,
        help="Another machine: a snapshot's file, or one such as h100-80gb-sxm:8,cpu=96.",
    ),
)
_OUTPUT = (
    _shared("--json", is_flag=True, help="Print JSON."),
    _shared("--color", type=click.Choice(["auto", "always", "never"]), help="When to use colour."),
    _shared("-v", "--verbose", is_flag=True, help="Say more."),
)


def stack_options(function: F) -> F:
    """The options of a command that works on a stack."""
    return _decorated(function, (*_STACK, *_HARDWARE, *_PLUGIN, *_OUTPUT))


def plugin_options(function: F) -> F:
    """The options of a command that needs plugins and no stack."""
    return _decorated(function, (*_PLUGIN, *_OUTPUT))


def output_options(function: F) -> F:
    """The options of a command that only prints."""
    return _decorated(function, _OUTPUT)


def _decorated(function: F, decorators: tuple[Callable[[F], F], ...]) -> F:
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def _format_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    own: list[tuple[str, str]] = []
    shared: list[tuple[str, str]] = []
    for param in command.get_params(ctx):
        if param.name == "hardware" and not getattr(command, "takes_hardware", True):
            continue
        if param.name == "url" and place_of(ctx) != "either":
            continue
        record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
        if record is not None:
            (shared if isinstance(param, Shared) else own).append(record)
    for title, records in (("Options", own), ("Shared options", shared)):
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


Place: TypeAlias = Literal["either", "stack", "here"]
"""Where a command works: where the stack is or over HTTP, only where the stack is, or on this machine and
whatever stack is meant.
"""


def place_of(ctx: click.Context) -> Place:
    """Where the command of a context works, as it says itself or a group around it."""
    above: click.Context | None = ctx
    while above is not None:
        place: Place = getattr(above.command, "place", "either")
        if place != "either":
            return place
        above = above.parent
    return "either"


class Command(click.Command):
    """A command whose help shows its own options first.

    One that does not take another machine refuses `--hardware`, and one that works only in its `place`
    `--url`: both may stand before any command.
    """

    def __init__(
        self, *args: Any, takes_hardware: bool = False, place: Place = "either", **attributes: Any
    ) -> None:
        super().__init__(*args, **attributes)
        self.takes_hardware = takes_hardware
        self.place = place

    def invoke(self, ctx: click.Context) -> Any:
        """As click does. Raises `UsageError` for another machine where this one is meant."""
        if ctx.ensure_object(Settings).hardware and not self.takes_hardware:
            raise click.UsageError(
                f"`{ctx.command_path}` is about this machine; --hardware is for plan, check, inspect,"
                " explain, providers list, configurations list and hardware",
                ctx,
            )
        place = place_of(ctx)
        if place != "either":
            from stackconf.cli.opening import refuse_url

            refuse_url(ctx, ctx.ensure_object(Settings), always=place == "stack")
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Own options, then the shared ones."""
        _format_options(self, ctx, formatter)


class Group(click.Group):
    """A group of commands that says what a misspelt one was meant to be."""

    command_class = Command

    def __init__(self, *args: Any, place: Place = "either", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.place = place

    group_class = type  # a group's groups are such groups too

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, but a group without a command shows its help as wrong usage."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """The commands' names, in the order in which they were made."""
        return list(self.commands)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Own options, then the shared ones, then the commands."""
        _format_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names. Raises `UsageError` with a suggestion."""
        name = args[0]
        if name[:1] != "-" and not ctx.resilient_parsing and name not in self.list_commands(ctx):
            from stackconf.suggest import did_you_mean

            names = self.list_commands(ctx)
            hint = did_you_mean(name, names) or f"it has {', '.join(names)}"
            raise click.UsageError(f"no such command `{name}`; {hint}", ctx)
        return super().resolve_command(ctx, args)
