"""`stackconf completion`: the script that a shell needs."""

from __future__ import annotations

import click

from stackconf.cli.options import Command, Settings, output_options, pass_settings
from stackconf.cli.output import emit_json, out
from stackconf.cli.root import COMPLETE_VARIABLE, PROGRAM, root


@click.command("completion", cls=Command, place="here")
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
@output_options
@pass_settings
def completion(settings: Settings, shell: str) -> None:
    """Print the script that lets SHELL (bash, zsh or fish) complete commands, options and names.

    \b
    bash:  stackconf completion bash > ~/.local/share/bash-completion/completions/stackconf
    zsh:   stackconf completion zsh > ~/.zfunc/_stackconf    (a folder of your fpath)
    fish:  stackconf completion fish > ~/.config/fish/completions/stackconf.fish
    """  # noqa: D301 (\b is click's mark for a paragraph kept as it is)
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 (click has all three)
    completer = found(root, {}, PROGRAM, COMPLETE_VARIABLE)
    # Not `.source()`: for bash it would run bash to look at its version.
    script = completer.source_template % completer.source_vars()
    if settings.json:
        emit_json({"shell": shell, "script": script})
    else:
        out(settings).raw(script.rstrip("\n") + "\n")
