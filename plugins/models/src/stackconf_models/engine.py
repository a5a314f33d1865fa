"""An engine that is configured by a file and restarted by the operator's command.

    Engine(file, restart, health_url)  --put_in_place(engine, text)-->  stackconf.Applied

The file is written whole or not at all, the command run without a shell, health waited for. `undo`
puts back the old file, restarts, and waits again.

Beside the file stands `.NAME.stackconf-before` from before the first change until the engine is
healthy, or back to what it was. It holds what the file was. So an apply that was killed is
recognised by the next one, which restarts whatever the file says, and whose `undo` leads back to
what was there before the one that was killed.
"""

from __future__ import annotations

import json
import os
import stat
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from stackconf import Applied, StackconfError

if TYPE_CHECKING:
    import subprocess
    from http.client import HTTPConnection

RESTART_SECONDS = 60.0
HEALTH_SECONDS = 200.0
"""Together with the restart less than the 300 s that one step of an apply may take."""
_ATTEMPT_SECONDS = 5.0
_PAUSE_SECONDS = (0.1, 1.0)
_KILL_SECONDS = 5.0
_LARGEST_FILE = 16 * 1024**2
_LAST_OUTPUT = 4096
_MESSAGE = 300
_SHORTEST_SECRET = 4
_PUBLIC_MODE, _PRIVATE_MODE = 0o644, 0o600


class EngineFailed(StackconfError):
    """An engine cannot be configured, or did not come back. One line: what, why, what to do."""


def _words(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@frozen
class Engine:
    """Where an engine's configuration is, how it is restarted, and how one sees that it is well.

    `restart` is a program and its arguments, never a shell's text; empty: the engine reads the file
    by itself. `health_url` answers 200 to 299 when it is well; `None`: nothing is asked. `headers` go
    with that request. `confirm` may say what an engine that is well still lacks of this very
    configuration, such as when an old process still answers; it is asked again until it is content or
    the time is over, but not about what was there before.

    `private`: the file holds secrets and gets mode 0600. Otherwise it keeps the mode it has, or gets
    0644. `secrets` are texts that must not be shown: a file that is not private, and a command, are
    refused where they hold one.

    >>> Engine("/etc/llama/server.ini", ["systemctl", "restart", "llama"], "http://127.0.0.1:8080/health").file
    PosixPath('/etc/llama/server.ini')
    """

    file: Path = field(converter=Path)
    restart: tuple[str, ...] = field(default=(), converter=_words, repr=False)
    health_url: str | None = field(default=None, repr=False)
    restart_seconds: float = RESTART_SECONDS
    health_seconds: float = HEALTH_SECONDS
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    confirm: Callable[[], str | None] | None = field(default=None, repr=False)
    private: bool = False
    secrets: tuple[str, ...] = field(default=(), converter=_words, repr=False)


@frozen
class _Before:
    """What the file was: its bytes, or `None` where there was none. `well`: the engine was healthy."""

    content: bytes | None = field(repr=False)
    mode: int
    well: bool
    interrupted: bool = False


def put_in_place(engine: Engine, content: str | bytes) -> Applied:
    """Give an engine this configuration file, restart it, and wait until it is well.

    Where the file has these bytes already and the engine is well, nothing is done. What goes wrong
    after the first change is what `check` then says, so that the caller takes it back by `undo`; a
    caller who does not is left with the new file. Raises `EngineFailed` before anything is touched.

    Secrets are in no message, and the command's output only shortened and without them.
    """
    data = content.encode() if isinstance(content, str) else content
    _refuse(engine, data)
    before = _before(engine)
    if _is_so_already(engine, before, data):
        return Applied(
            f"{engine.file} says so already; {_well_text(engine)}",
            undo=lambda: None,
            check=lambda: _wrong(engine, data),
            check_undo=lambda: _wrong(engine, data),
        )
    _keep(engine, before)
    started = monotonic()
    problem = _exchange(engine, data, _PRIVATE_MODE if engine.private else before.mode)
    if problem is None:
        problem = _restarted(engine)
    if problem is None:
        _forget(engine)
    told = f"wrote {engine.file}{', restarted' if engine.restart else ''}; {_well_text(engine)}"
    return Applied(
        f"{told} after {monotonic() - started:.1f} s" if problem is None else f"wrote {engine.file}",
        undo=lambda: _take_back(engine, data, before),
        check=lambda: problem or _wrong(engine, data),
        check_undo=lambda: _wrong(_unconfirmed(engine), before.content, ask=before.well),
    )


def _is_so_already(engine: Engine, before: _Before, data: bytes) -> bool:
    same = before.content == data and before.well and not before.interrupted
    too_open = engine.private and before.mode & 0o077 != 0
    return same and not too_open and (engine.confirm is None or _ask(engine, _ATTEMPT_SECONDS) is None)


def _well_text(engine: Engine) -> str:
    return "the engine is well" if engine.health_url or engine.confirm else "its health is not asked"


def _unconfirmed(engine: Engine) -> Engine:
    """The engine with another configuration than the one that `confirm` is about."""
    return evolve(engine, confirm=None)


def _refuse(engine: Engine, data: bytes) -> None:
    """Everything that can be known to go wrong before something is touched."""
    import shutil

    secrets = [secret for secret in engine.secrets if len(secret) >= _SHORTEST_SECRET]
    if any(secret in word for secret in secrets for word in (*engine.restart, str(engine.health_url))):
        raise EngineFailed(f"{engine.file}: the restart command or the health address holds a secret")
    if not engine.private and any(secret.encode() in data for secret in secrets):
        raise EngineFailed(f"{engine.file}: would show a secret to every user; let it be private")
    if len(data) > _LARGEST_FILE:
        raise EngineFailed(f"{engine.file}: {len(data)} bytes are too many for a configuration")
    if not engine.file.parent.is_dir():
        raise EngineFailed(f"{engine.file}: there is no folder {engine.file.parent}; make it")
    if engine.restart and shutil.which(engine.restart[0]) is None:
        raise EngineFailed(
            f"{engine.restart[0]}: the restart command cannot be run; there is no such program"
        )


def _before(engine: Engine) -> _Before:
    """What is there now; after an apply that was killed, what was there before that one."""
    kept = _kept(engine)
    if kept is not None:
        return kept
    well = _ask(_unconfirmed(engine), _ATTEMPT_SECONDS) is None
    try:
        state = engine.file.stat()
    except FileNotFoundError:
        return _Before(None, _PUBLIC_MODE, well)
    except OSError as error:
        raise EngineFailed(f"{engine.file}: {_why(error)}") from None
    if not stat.S_ISREG(state.st_mode) or state.st_size > _LARGEST_FILE:
        raise EngineFailed(f"{engine.file}: is not a file of at most {_LARGEST_FILE // 1024**2} MiB")
    try:
        return _Before(engine.file.read_bytes(), stat.S_IMODE(state.st_mode), well)
    except OSError as error:
        raise EngineFailed(f"{engine.file}: {_why(error)}") from None


def _journal(engine: Engine) -> Path:
    """Beside the file itself, wherever a link to it leads."""
    real = Path(os.path.realpath(engine.file))
    return real.with_name(f".{real.name}.stackconf-before")


def _keep(engine: Engine, before: _Before) -> None:
    """Write down what was there, durably, before anything is changed."""
    content = None if before.content is None else b64encode(before.content).decode()
    entry = {"content": content, "mode": before.mode, "well": before.well}
    problem = _written(_journal(engine), json.dumps(entry).encode(), _PRIVATE_MODE)
    if problem is not None:
        raise EngineFailed(problem)


def _kept(engine: Engine) -> _Before | None:
    journal = _journal(engine)
    try:
        entry = json.loads(journal.read_bytes())
        content = None if entry["content"] is None else b64decode(entry["content"], validate=True)
        return _Before(content, int(entry["mode"]) & 0o777, bool(entry["well"]), interrupted=True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineFailed(f"{journal}: cannot be read ({_why(error)}); look at it and remove it") from None


def _forget(engine: Engine) -> None:
    with suppress(OSError):
        _journal(engine).unlink()


def _exchange(engine: Engine, data: bytes | None, mode: int) -> str | None:
    """Put these bytes in the file's place; `None` removes it."""
    if data is not None:
        return _written(engine.file, data, mode)
    try:
        Path(os.path.realpath(engine.file)).unlink(missing_ok=True)
    except OSError as error:
        return f"{engine.file}: cannot be removed: {_why(error)}"
    return None


def _written(file: Path, data: bytes, mode: int) -> str | None:
    """Write a file whole; root leaves it to whom it belonged, so that the engine can still read it."""
    from stackconf.atomic import write_whole

    try:
        owner = file.stat()
    except OSError:
        owner = None
    try:
        write_whole(file, data, mode=mode)
        if owner is not None and os.geteuid() == 0 and (owner.st_uid, owner.st_gid) != (0, 0):
            os.chown(file, owner.st_uid, owner.st_gid)
    except OSError as error:
        return f"{file}: cannot be written: {_why(error)}"
    return None


def _take_back(engine: Engine, data: bytes, before: _Before) -> None:
    """The old file, the engine restarted, and well again if it was. Raises `EngineFailed`.

    An engine that was not well before need not even start again: it may have had no file at all.
    """
    if _kept(engine) is None:  # an undo that is killed leaves a mark as well
        _keep(engine, _Before(data, before.mode, well=True))
    problem = _exchange(engine, before.content, before.mode)
    if problem is None:
        problem = _restarted(_unconfirmed(engine), wait=before.well)
        problem = problem if before.well else None
    if problem is not None:
        raise EngineFailed(problem)
    _forget(engine)


def _restarted(engine: Engine, *, wait: bool = True) -> str | None:
    problem = _run(engine) if engine.restart else None
    if problem is not None or not wait:
        return problem
    return _waited(engine)


def _run(engine: Engine) -> str | None:
    """Run the operator's command; what went wrong, or `None`.

    Its output goes to a nameless file and not through a pipe, since an engine that it starts keeps
    the pipe open and would be waited for.
    """
    import subprocess
    import tempfile

    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(  # noqa: S603 (the operator's own command, without a shell)
                engine.restart,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return f"{_named(engine)} cannot be run: {_why(error)}"
        try:
            code = process.wait(engine.restart_seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            return _said(engine, f"was not done within {engine.restart_seconds:g} s and was killed", output)
        except BaseException:
            _kill(process)
            raise
        if code == 0:
            return None
        ended = f"ended with {code}" if code > 0 else f"was killed by signal {-code}"
        return _said(engine, ended, output)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The command and all it started; one that cannot be killed (state D) is left behind."""
    import signal
    from subprocess import TimeoutExpired

    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutExpired):
        process.wait(_KILL_SECONDS)


def _said(engine: Engine, ended: str, output: Any) -> str:
    size = output.seek(0, 2)
    output.seek(max(0, size - _LAST_OUTPUT))
    words = output.read(_LAST_OUTPUT).decode("utf-8", "replace")
    line = _hidden(engine, words)
    line = line if len(line) <= _MESSAGE else "…" + line[-_MESSAGE:]
    return f"{_named(engine)} {ended}" + (f": {line}" if line else "")


def _hidden(engine: Engine, words: str) -> str:
    """On one line, without secrets, without what a terminal would obey."""
    from stackconf.redact import scrubbed

    text = " ".join(scrubbed(words, engine.secrets).split())
    return "".join(each if each.isprintable() else "?" for each in text)


def _named(engine: Engine) -> str:
    return f"the restart command ({Path(engine.restart[0]).name})"


def _waited(engine: Engine) -> str | None:
    """Ask until the engine is well or the time is over; what was wrong the last time, or `None`."""
    end = monotonic() + engine.health_seconds
    pause, most = _PAUSE_SECONDS
    while True:
        problem = _ask(engine, min(_ATTEMPT_SECONDS, max(0.1, end - monotonic())))
        if problem is None:
            return None
        if monotonic() + pause >= end:
            return f"not well within {engine.health_seconds:g} s of the restart: {problem}"
        sleep(pause)
        pause = min(most, pause * 1.5)


def _wrong(engine: Engine, content: bytes | None, *, ask: bool = True) -> str | None:
    """What is wrong now with an engine that should have this file."""
    try:
        found = engine.file.read_bytes() if engine.file.exists() else None
    except OSError as error:
        return f"{engine.file}: {_why(error)}"
    if found != content:
        return f"{engine.file} was changed by somebody else"
    return _ask(engine, _ATTEMPT_SECONDS) if ask else None


def _ask(engine: Engine, seconds: float) -> str | None:
    """What is wrong with the engine, or `None`; an answer is waited for that long and no longer."""
    from threading import Thread

    if engine.health_url is None and engine.confirm is None:
        return None
    answer: list[str | None] = []
    opened: list[HTTPConnection] = []

    def ask() -> None:
        try:
            problem = _unhealthy(engine, seconds, opened)
            answer.append(engine.confirm() if problem is None and engine.confirm else problem)
        except Exception as error:  # noqa: BLE001 (whatever it is, the engine is not known to be well)
            answer.append(f"{engine.health_url}: {_hidden(engine, _why(error))}")

    # A thread, since neither a name's lookup nor an answer that drips in has a deadline of its own.
    thread = Thread(target=ask, daemon=True, name="health")
    thread.start()
    thread.join(seconds)
    if answer:
        return answer[0]
    _hang_up(opened)
    return f"{_address(engine)} gave no answer within {seconds:g} s"


def _hang_up(opened: list[HTTPConnection]) -> None:
    """End a request that is not waited for any longer, so that its thread ends too."""
    import socket

    for connection in opened:
        if connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)


def _unhealthy(engine: Engine, seconds: float, opened: list[HTTPConnection]) -> str | None:
    """One GET; no redirect is followed, no proxy used, the answer's body not read.

    The connection is put into `opened`.
    """
    from http.client import HTTPConnection, HTTPException, HTTPSConnection
    from urllib.parse import urlsplit

    if engine.health_url is None:
        return None
    parts = urlsplit(engine.health_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return f"{_address(engine)}: the health address is no http:// or https:// address"
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=seconds)
    opened.append(connection)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("GET", target, headers={"Connection": "close", **engine.headers})
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return f"{_address(engine)}: {_why(error) or type(error).__name__}"
    finally:
        connection.close()
    return None if 200 <= status < 300 else f"{_address(engine)} answered {status}"  # noqa: PLR2004


def _address(engine: Engine) -> str:
    return _hidden(engine, str(engine.health_url))


def _why(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error).lower()
