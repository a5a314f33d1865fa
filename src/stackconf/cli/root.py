"""The root of the command tree. Commands are named here and imported when they run."""

from __future__ import annotations

import os
from importlib import import_module

import click

from stackconf._version import __version__
from stackconf.cli.options import Group, stack_options

PROGRAM = "stackconf"
COMPLETE_VARIABLE = "_STACKCONF_COMPLETE"

COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Look": {
        "hardware": ("hardware:hardware", "Show what is known about this machine."),
        "providers": ("providers:providers", "List providers and their fields."),
        "check": ("check:check", "Report everything wrong with stack files."),
        "history": ("history:history", "List revisions and the attempts to apply them."),
        "show": ("show:show", "Print what was registered at a revision."),
        "diff": ("diff:diff", "Say what changed between two revisions."),
        "status": ("status:status", "Show what is wanted, what was tried, what runs."),
        "inspect": ("inspect:inspect", "Print the effective configuration."),
        "explain": ("explain:explain", "Say where each value comes from, and why."),
        "drift": ("drift:drift", "Compare what is applied with what the files say."),
    },
    "Change": {
        "configurations": ("configurations:configurations", "Register, list and assign configurations."),
        "secrets": ("secrets:secrets", "List secrets, make keys, encrypt with a new one."),
        "rollback": ("rollback:rollback", "Go back to an old revision, by a new one."),
        "plan": ("plan:plan", "Show what an apply would change."),
        "apply": ("apply:apply", "Apply the configuration, all or nothing."),
        "recover": ("recover:recover", "Take back what a killed apply left behind."),
        "serve": ("serve:serve", "Host the stack, with the API over HTTP."),
        "export": ("export:export", "Write the configuration back as a stack file."),
    },
    "Tool": {
        "store": ("store:store", "Check where state is kept; recover a damaged one."),
        "plugins": ("plugins:plugins", "List plugins; disable one before it is imported."),
        "completion": ("completion:completion", "Print the script for completion in a shell."),
    },
}
"""Sections of the help; for each command its home below `stackconf.cli`, and its short help."""

_HOMES = {name: home for section in COMMANDS.values() for name, (home, _) in section.items()}


class Root(Group):
    """Commands by name; a module is imported when its command is asked for."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Every command's name, in the order of the help."""
        return list(_HOMES)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported."""
        if cmd_name not in _HOMES:
            return None
        module, _, attribute = _HOMES[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"stackconf.cli.{module}"), attribute)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The sections, from the table alone."""
        widest = max(map(len, _HOMES))
        for title, section in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(widest), text) for name, (_, text) in section.items()])

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Where the stack is found, and the exit codes."""
        with formatter.section("Where the stack is"):
            formatter.write_dl(
                [
                    ("file", "--stack, or STACKCONF_STACK, or stack.yaml, run.yaml, config.yaml here"),
                    ("server", "--url, or STACKCONF_URL where no file or store is given"),
                    ("state", "--store, or STACKCONF_STORE, or .stackconf/ beside the file"),
                ]
            )
        with formatter.section("Exit codes"):
            formatter.write_text(
                "0 fine, 1 error or invalid, 2 wrong usage, 3 `--exit-code` found changes or drift"
            )


@click.group(PROGRAM, cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@stack_options
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def root() -> None:
    """Compute, explain and apply the configuration of a stack of AI providers."""


def complete() -> int | None:
    """Answer a shell that asks for completions; `None` in an ordinary run."""
    instruction = os.environ.get(COMPLETE_VARIABLE)
    if not instruction:
        return None
    from click.shell_completion import shell_complete

    return shell_complete(root, {}, PROGRAM, COMPLETE_VARIABLE, instruction)
