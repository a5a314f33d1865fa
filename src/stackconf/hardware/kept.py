"""What holds until the next boot, kept in one file of this user: never what a driver says.

Two things are worth it. Which driver did not answer, so that it costs its deadline once and not with each
command. And, on machines with many processors, which of them share a core: hundreds of small files.

Kept for one boot, one version of stackconf and one mount namespace (a container has its own view of
/proc). Whatever is wrong with the file, of another user or not private, is as if there were none.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from attrs import frozen

from stackconf._version import __version__

if TYPE_CHECKING:
    from stackconf.hardware.probe import Detector

OFF_VARIABLE = "STACKCONF_NO_CACHE"
HOME_VARIABLE = "STACKCONF_CACHE_HOME"
AGAIN_SECONDS = 600.0
"""A driver that did not answer is asked again after so long: somebody may have mended it."""
LEAST_CPUS = 32
"""On smaller machines the files are read as quickly as what was kept of them."""
_FORMAT = 1
_MOST_BYTES = 1024**2
_OLD_SECONDS = 7 * 86400
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_NAMESPACE = "/proc/self/ns/mnt"
_MODULES = ("nvidia", "amdgpu", "xe", "i915")


@frozen
class Hang:
    """A detector that did not answer. `at` in seconds since the boot, `deadline` in seconds."""

    at: float
    deadline: float
    told_after: float | None = None
    """Seconds until it had told the last of what it knew of cards; `None` where it told of none."""

    def ago(self) -> float:
        """Seconds since it was asked."""
        return _since_boot() - self.at


class Kept:
    """One file; read when something of it is wanted, and written whole. Any thread may call."""

    def __init__(self, file: Path, boot: str, namespace: str = "", version: str = __version__) -> None:
        self.file = file
        self._about = {"format": _FORMAT, "stackconf": version, "boot": boot, "namespace": namespace}
        self._lock = Lock()
        self._content: dict[str, Any] | None = None

    def hang(self, detector: Detector, root: Path | None, deadline: float) -> Hang | None:
        """How the detector hung, if that was not long ago, and it would not have more time now."""
        entry = self._part("hangs").get(_name(detector, root))
        if not isinstance(entry, dict):
            return None
        numbers = [entry.get(name) for name in ("at", "deadline", "told_after")]
        at, had, told = (_seconds(number) for number in numbers)
        if at is None or had is None or (told is None and numbers[2] is not None):
            return None
        hang = Hang(at, had, told)
        return hang if 0 <= hang.ago() < AGAIN_SECONDS and deadline <= had else None

    def hung(self, detector: Detector, root: Path | None, deadline: float, told_after: float | None) -> None:
        """Remember that a detector, asked `deadline` seconds ago, did not answer."""
        entry = {"at": _since_boot(), "deadline": deadline, "told_after": told_after}
        self._change("hangs", lambda hangs: {**hangs, _name(detector, root): entry})

    def answered(self, detector: Detector, root: Path | None) -> None:
        """Forget that a detector hung."""
        name = _name(detector, root)
        if name in self._part("hangs"):
            self._change("hangs", lambda hangs: {key: each for key, each in hangs.items() if key != name})

    def processors(self) -> Mapping[str, Any]:
        """What was kept of the processors, empty if nothing; whoever asks looks whether it is of these."""
        return self._part("processors")

    def keep_processors(self, facts: Mapping[str, Any]) -> None:
        """Keep what the kernel says of the processors that are online."""
        self._change("processors", lambda _: dict(facts))

    def forget(self) -> None:
        """Drop everything. Raises `OSError`."""
        with self._lock:
            self._content = {}
            self.file.unlink(missing_ok=True)

    def _part(self, name: str) -> dict[str, Any]:
        with self._lock:
            if self._content is None:
                self._content = self._read()
            part = self._content.get(name)
        return part if isinstance(part, dict) else {}

    def _change(self, name: str, changed: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Write the part anew, from what another process may have written meanwhile."""
        import json

        from stackconf.atomic import write_whole

        with self._lock:
            content = self._read()
            before = content.get(name)
            content[name] = changed(before if isinstance(before, dict) else {})
            self._content = content
            data = json.dumps({**content, **self._about}, separators=(",", ":")).encode()
            with suppress(OSError):  # a full or read-only disk: then it is found out again next time
                self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_whole(self.file, data)
                self._clear_up()

    def _read(self) -> dict[str, Any]:
        import json

        try:
            content = json.loads(_private(self.file))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(content, dict) or any(
            content.get(key) != each for key, each in self._about.items()
        ):
            return {}
        return content

    def _clear_up(self) -> None:
        """Files of boots long ago go; those of other machines that share the home folder stay a week."""
        import time

        for other in self.file.parent.glob("boot-*.json"):
            if other != self.file and time.time() - other.lstat().st_mtime > _OLD_SECONDS:
                other.unlink(missing_ok=True)


def kept_here(environ: Mapping[str, str] | None = None) -> Kept | None:
    """What is kept of this boot of this machine; `None` where nothing is to be or can be kept.

    In `STACKCONF_CACHE_HOME`, otherwise `stackconf` in `XDG_CACHE_HOME` or `~/.cache`.

    >>> kept_here({"STACKCONF_NO_CACHE": "1"}) is None
    True
    """
    variables = os.environ if environ is None else environ
    if variables.get(OFF_VARIABLE) or not sys.platform.startswith("linux"):
        return None
    own, base, home = (variables.get(name) for name in (HOME_VARIABLE, "XDG_CACHE_HOME", "HOME"))
    if own or base:
        folder = Path(own) if own else Path(base or "", "stackconf")
    elif home:
        folder = Path(home, ".cache", "stackconf")
    else:
        return None
    try:
        with open(_BOOT_ID, encoding="ascii") as file:  # noqa: PTH123 - before anything else
            boot = file.read(64).strip()
        namespace = os.readlink(_NAMESPACE)  # noqa: PTH115 - it names no file
    except (OSError, ValueError):
        return None
    if not folder.is_absolute() or not boot.replace("-", "").isalnum():
        return None
    return Kept(folder / f"boot-{boot}.json", boot, namespace)


def _private(file: Path) -> bytes:
    """The bytes of a regular file that only this user can change. Raises `OSError`."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as opened:
        about = os.fstat(descriptor)
        others = about.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or others:
            raise PermissionError(f"{file} is not a private file of this user")
        return opened.read(_MOST_BYTES)


def _name(detector: Detector, root: Path | None) -> str:
    """The detector as it is now: another version, another library's path or a driver that was loaded anew
    is another one.
    """
    import hashlib

    marks: list[object] = [detector.name, detector.target, detector.version, root and str(root)]
    marks += [os.environ.get(name) for name in ("LD_LIBRARY_PATH", "STACKCONF_HARDWARE_ROOT")]
    files = [f"/sys/module/{module}" for module in _MODULES]
    files += [detector.target] if detector.target.endswith(".py") else []
    for path in files:
        with suppress(OSError):
            about = os.stat(path)  # noqa: PTH116 - text all the way
            marks.append((path, about.st_ino, about.st_mtime_ns))
    return hashlib.sha256(repr(marks).encode()).hexdigest()[:32]


def _seconds(value: object) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _since_boot() -> float:
    import time

    return time.clock_gettime(time.CLOCK_BOOTTIME)
