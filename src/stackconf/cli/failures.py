"""How a run that went wrong ends: one clear line each, an exit code, and never a traceback.

Exit codes: 0 fine, 1 an error or something invalid, 2 wrong usage, 3 `--exit-code` found
changes or drift, 130 interrupted, 141 whoever read the output went away (as with any Unix tool).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from stackconf.cli.output import emit_json, err, show_issues
from stackconf.errors import Conflict, InvalidConfig, StackconfError

if TYPE_CHECKING:
    import click

    from stackconf.cli.options import Settings
    from stackconf.types import Issue

ERROR, USAGE, CHANGES, INTERRUPTED = 1, 2, 3, 130

TRACEBACK_VARIABLE = "STACKCONF_TRACEBACK"


def usage_error(error: click.ClickException, settings: Settings) -> int:
    """Wrong usage: what is wrong, and where the help is."""
    import click

    ctx = getattr(error, "ctx", None)
    message = _usage_message(error)
    if settings.json:
        emit_json({"error": message, "issues": []})
    screen = err(settings)
    screen.note("error", message)
    if isinstance(error, click.UsageError) and ctx is not None:
        screen.note("hint", f"`{ctx.command_path} --help` shows how it is used")
    return USAGE


def _usage_message(error: click.ClickException) -> str:
    import click

    if isinstance(error, click.NoSuchOption):
        from stackconf.suggest import did_you_mean

        name = str(error.option_name)
        params = error.ctx.command.get_params(error.ctx) if error.ctx else []
        options = [option for param in params for option in param.opts if option.startswith("--")]
        hint = did_you_mean(name, options)
        return f"no such option `{name}`" + (f"; {hint}" if hint else "")
    text = " ".join(error.format_message().split()).rstrip(".")
    text = text.replace("a valid integer range", "a whole number").replace("a valid float range", "a number")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def expected(error: StackconfError, settings: Settings) -> int:
    """An error that stackconf raised on purpose, with all its issues."""
    message, issues = str(error), _issues(error)
    if settings.json:
        emit_json(error_data(error))
    screen = err(settings)
    if not any(_says(issue, message) for issue in issues[:1]):
        screen.note("error", message)
    show_issues(settings, issues)
    if isinstance(error, Conflict):
        from stackconf.cli.told import tell_conflict

        tell_conflict(screen, error)
    return ERROR


def error_data(error: StackconfError) -> dict[str, Any]:
    """An error for programs: its line, its issues, and what else it carries."""
    from stackconf.shapes.errors import members_of

    return {"error": str(error), "issues": [], **members_of(error)}


def _says(issue: Issue, message: str) -> bool:
    """Whether an error's message is only its issue again, with or without the place and the level."""
    text = str(issue)
    return message in {text, text.replace(f"{issue.level}: ", "", 1), issue.message}


def of_system(error: OSError, settings: Settings) -> int:
    """A file or folder that the system refused."""
    what = error.strerror or type(error).__name__
    return expected(StackconfError(f"{error.filename}: {what}" if error.filename else what), settings)


def unexpected(error: Exception, settings: Settings) -> int:
    """A defect of stackconf. With `STACKCONF_TRACEBACK=1` it is raised instead."""
    if os.environ.get(TRACEBACK_VARIABLE):
        raise error
    from stackconf.redact import redact_text

    text = redact_text(" ".join(str(error).split()))[:500]
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if settings.json:
        emit_json({"error": message, "issues": []})
    screen = err(settings)
    screen.note("error", message)
    screen.note("hint", f"this is a defect of stackconf; run with {TRACEBACK_VARIABLE}=1 to see where")
    return ERROR


def _issues(error: StackconfError) -> tuple[Issue, ...]:
    return error.issues if isinstance(error, InvalidConfig) else ()
