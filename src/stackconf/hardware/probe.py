"""One detector in a process of its own, with a deadline that the caller always survives.

Drivers hang, crash and print. The child reports each fact as a line of JSON the moment the
detector gives it, on a descriptor that nothing else can write to: what came before a hang or a
crash counts. Whatever else the child prints is kept only to explain a failure.

The caller never waits without a bound: a child that ignores even SIGKILL (a driver call in
uninterruptible sleep) is left behind. The child also ends itself a second after its deadline, so
a caller that was interrupted leaves nothing running.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from attrs import frozen

from stackconf.errors import HookError, InvalidConfig
from stackconf.hardware.detecting import HOOK, LAST_LINE
from stackconf.hardware.facts import Fact, Problem, ProblemKind

if TYPE_CHECKING:
    import subprocess

DEADLINE_VARIABLE = "STACKCONF_PROBE_TIMEOUT"
DEADLINE_SECONDS = 10.0
GRACE_SECONDS = 0.5
"""How long a killed child may take to go before it is left behind."""

MAX_REPORT = 8 * 1024 * 1024
"""More bytes than any machine has facts."""

NOISE = 4096
SHOWN_NOISE = 300

SUBJECTS = {
    "stackconf.hardware.host": "host, cpu, memory",
    "stackconf.hardware.nvidia": "accelerators",
    "stackconf.hardware.amd": "accelerators",
    "stackconf.hardware.intel": "accelerators",
    "stackconf.hardware.apple": "accelerators",
}
"""What is unknown when a whole detector fails; for others it is everything they could have said."""

BOOT = (
    "import json, sys; request = json.loads(sys.argv[1]); sys.path[:] = request['path']; "
    "from stackconf.hardware.detecting import serve; serve(request)"
)

_LEFT_BEHIND: list[subprocess.Popen[bytes]] = []


@frozen
class Detector:
    """A plugin that may implement `discover_hardware`, and where to find it.

    `target` is `package.module`, `package.module:attribute`, or the path of a `.py` file.
    `distribution` and `version` name it in problems.
    """

    name: str
    target: str
    distribution: str = ""
    version: str = ""

    @property
    def subject(self) -> str:
        """What is unknown when it fails as a whole."""
        return SUBJECTS.get(self.target, "everything")


def deadline_seconds() -> float:
    """The deadline of one detector: `STACKCONF_PROBE_TIMEOUT`, or 10 s.

    Raises `InvalidConfig` when the variable is not a positive number of seconds.
    """
    text = os.environ.get(DEADLINE_VARIABLE)
    if not text:
        return DEADLINE_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:  # noqa: PLR2004 - an hour; also false for nan
        raise InvalidConfig(
            f"{DEADLINE_VARIABLE}: `{text}` is not a number of seconds between 0 and 3600; "
            f"leave it unset for {DEADLINE_SECONDS:g}"
        )
    return seconds


@frozen
class Answer:
    """What came of asking a detector. `told_after`: seconds until the last it told before it hung."""

    facts: list[Fact]
    hung: bool = False
    told_after: float = 0.0


def run(detector: Detector, *, root: Path | None = None, deadline: float | None = None) -> list[Fact]:
    """Everything the detector reports, and a `Problem` if it failed, hung or crashed.

    Returns at most about two seconds after `deadline` (seconds). Never raises for what a detector
    does. `root` is where a detector that reads files should read them.
    """
    return ask(detector, root=root, deadline=deadline).facts


def ask(detector: Detector, *, root: Path | None = None, deadline: float | None = None) -> Answer:
    """As `run`, and whether it hung."""
    seconds = deadline_seconds() if deadline is None else deadline
    if not sys.executable:
        return Answer([failed(detector, "cannot run: this program has no Python interpreter to start")])
    started = time.monotonic()
    try:
        child = _start(detector, root, seconds)
    except OSError as error:
        return Answer([failed(detector, f"could not be started: {error}")])
    report, noise = _Report(child.stdout), _Noise(child.stderr)
    report.join(seconds)
    in_time = not report.is_alive() and not report.too_much
    in_time = in_time and _ended(child, max(0.0, started + seconds - time.monotonic()))
    if not in_time:
        _end(child)
        report.join(GRACE_SECONDS)
    facts, complete = _read(detector, bytes(report.kept))
    if complete:
        return Answer(facts)
    noise.join(GRACE_SECONDS)
    told = _trimmed(noise.text)
    if report.too_much:
        failure = failed(detector, f"reported more than {MAX_REPORT // 2**20} MiB and was stopped")
    elif in_time:
        failure = failed(detector, _ending(child.returncode) + told)
    else:
        reason = f"did not answer within {seconds:g} s{told}; {DEADLINE_VARIABLE} changes the deadline"
        failure = failed(detector, reason, "timeout")
    hung = not in_time and not report.too_much
    return Answer([*facts, failure], hung, max(0.0, report.last - started))


# ---------------------------------------------------------------------------------- the caller


def _start(detector: Detector, root: Path | None, seconds: float) -> subprocess.Popen[bytes]:
    import json
    import subprocess

    request = {
        "path": sys.path,
        "name": detector.name,
        "target": detector.target,
        "root": None if root is None else str(root),
        "seconds": seconds,
    }
    return subprocess.Popen(  # noqa: S603 - our own interpreter and our own code
        [sys.executable, "-I", "-c", BOOT, json.dumps(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )


class _Report(threading.Thread):
    """Reads what the child reports, up to a bound, until it says that it is done or closes the pipe.

    A process that the detector forked may hold the pipe open long after the end.
    """

    def __init__(self, stream: IO[bytes] | None) -> None:
        super().__init__(daemon=True)
        self.stream = stream
        self.kept = bytearray()
        self.too_much = False
        self.last = 0.0
        """When it said something last, by the monotonic clock."""
        self.start()

    def run(self) -> None:
        if self.stream is None:
            return
        with self.stream:
            while chunk := self.stream.read(65_536):
                self.kept += chunk
                self.last = time.monotonic()
                self.too_much = len(self.kept) > MAX_REPORT
                if self.too_much or self.kept.endswith(LAST_LINE):
                    return


class _Noise(threading.Thread):
    """Drains what else the child prints, and keeps the end of it."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        super().__init__(daemon=True)
        self.stream = stream
        self.kept = b""
        self.start()

    def run(self) -> None:
        if self.stream is None:
            return
        with self.stream:
            while chunk := self.stream.read(65_536):
                self.kept = (self.kept + chunk)[-NOISE:]

    @property
    def text(self) -> str:
        return self.kept.decode("utf-8", "replace")


def _ended(child: subprocess.Popen[bytes], seconds: float) -> bool:
    import subprocess

    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and what it started; leave it behind if it cannot be killed."""
    _kill(child)
    if not _ended(child, GRACE_SECONDS):
        _LEFT_BEHIND.append(child)


def _kill(child: subprocess.Popen[bytes]) -> None:
    import signal

    # Not `poll`: until the child is waited for its number is its own, also that of its group, in
    # which what it started may still run though it ended itself.
    if child.returncode is not None:
        return
    try:
        if sys.platform == "win32":
            child.kill()
        else:
            os.killpg(child.pid, signal.SIGKILL)
    except OSError:
        child.kill()


def _read(detector: Detector, report: bytes) -> tuple[list[Fact], bool]:
    """The facts in a report, and whether the detector came to its end."""
    import json

    from stackconf.hardware.codec import fact_from_dict

    facts: list[Fact] = []
    complete = report.endswith(LAST_LINE)
    # What follows the last newline was cut off in the middle.
    for line in report.removesuffix(LAST_LINE).split(b"\n")[:-1]:
        try:
            entry = dict(json.loads(line))
            if "failure" in entry:
                facts.append(failed(detector, str(entry["failure"])))
            else:
                facts.append(fact_from_dict(entry))
        except (ValueError, TypeError, RecursionError) as error:
            facts.append(failed(detector, f"gave a fact that cannot be used: {error}"))
    return facts, complete


def failed(detector: Detector, problem: str, kind: ProblemKind = "error") -> Problem:
    """A problem about all that the detector could have said."""
    named = HookError(
        HOOK, detector.name, problem, distribution=detector.distribution, version=detector.version
    )
    return Problem(detector.name, detector.subject, kind, str(named))


def _ending(code: int | None) -> str:
    import signal

    if code is not None and code < 0:
        try:
            return f"crashed with {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended before it was done (exit code {code})"


def _trimmed(noise: str) -> str:
    lines = [" ".join(line.split()) for line in noise.splitlines() if line.strip()]
    text = " | ".join(lines[-3:])
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    if len(text) > SHOWN_NOISE:
        text = f"...{text[-SHOWN_NOISE:]}"
    return f"; it printed: {text}" if text else ""
