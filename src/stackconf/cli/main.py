"""The `stackconf` command: the root group, and how a run ends.

Nothing heavy is imported here, and a command's module only when that command runs, so that
`--version` and `--help` answer at once and work whatever is installed or broken.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, TextIO, cast

from stackconf._version import __version__

if TYPE_CHECKING:
    from stackconf.cli.options import Settings


def run() -> NoReturn:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def main(args: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    try:
        if list(args) == ["--version"]:
            sys.stdout.write(f"stackconf {__version__}\n")
            code = 0
        else:
            code = _run(list(args))
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        return _gone()
    except KeyboardInterrupt:
        return 130
    return code


def _run(args: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that lacks a letter is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    from stackconf.cli.options import Settings

    ours = sys.stdout
    sys.stdout = cast("TextIO", _Ours(ours))
    try:
        return _guarded(args, Settings())
    finally:
        sys.stdout = ours


class _Ours:
    """Standard output for this thread; what plugins print, in theirs, is talk and goes to standard
    error, so that data stays data.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._thread = get_ident()

    def write(self, text: str) -> int:
        """Write to one or the other."""
        return (self._stream if get_ident() == self._thread else sys.stderr).write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _guarded(args: list[str], settings: Settings) -> int:
    import click

    try:
        return _invoke(args, settings)
    except click.exceptions.Exit as done:
        return done.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever it is becomes one clear line)
        if "--json" in args:
            settings.json = True
        return _failed(error, settings)


def _failed(error: Exception, settings: Settings) -> int:
    import click

    from stackconf.cli import failures
    from stackconf.errors import StackconfError

    if isinstance(error, click.ClickException):
        return failures.usage_error(error, settings)
    if isinstance(error, StackconfError):
        return failures.expected(error, settings)
    if isinstance(error, OSError):
        return failures.of_system(error, settings)
    return failures.unexpected(error, settings)


def _invoke(args: list[str], settings: Settings) -> int:
    from stackconf.cli.root import PROGRAM, complete, root

    finished = complete()
    if finished is not None:
        return finished
    with root.make_context(PROGRAM, args, obj=settings) as ctx:
        code: object = root.invoke(ctx)
    return code if isinstance(code, int) else 0


def _gone() -> int:
    """Whoever read the output went away: nothing more is written, not even at exit."""
    import os

    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nothing, stream.fileno())
    return 141
