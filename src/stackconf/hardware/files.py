"""Small files of a machine, read under a root that tests and containers can choose.

A file that is not there is an answer (`None`). A file that is there and cannot be read is a
`Problem`, so that a refused permission never looks like "no limit".
"""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Iterable
from pathlib import Path

from stackconf.hardware.facts import Problem, ProblemKind

ROOT_VARIABLE = "STACKCONF_HARDWARE_ROOT"
"""Read /proc, /sys and /etc below this folder instead of `/`."""

MAX_BYTES = 8 * 1024 * 1024
CHUNK = 65_536
"""/proc/sys allocates as much as is asked for, and refuses 8 MiB."""

MAX_CPUS = 65_536
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR})
_DENIED = frozenset({errno.EACCES, errno.EPERM})
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENODEV, errno.EINVAL})


class Files:
    """Reads below `root`; `problems` collects what could not be read, once per file."""

    def __init__(self, root: Path = Path("/"), detector: str = "host") -> None:
        self.root = root
        self.detector = detector
        self.problems: list[Problem] = []

    @property
    def real(self) -> bool:
        """Whether these are the files of the machine this process runs on."""
        return str(self.root) == os.path.sep

    def text(self, path: str, fact: str) -> str | None:
        """The file's text, or `None`; `fact` is what is unknown when it cannot be read.

        Bytes that are not UTF-8 are replaced: the kernel's own files are ASCII.
        """
        try:
            with open(self.place(path), "rb", buffering=0) as file:  # noqa: PTH123 - hundreds of times
                return _whole(file).decode("utf-8", "replace")
        except (OSError, ValueError) as error:
            self._note(path, fact, error)
            return None

    def names(self, path: str, fact: str) -> list[str]:
        """The sorted names in a folder; empty where there is no such folder."""
        try:
            return sorted(os.listdir(self.place(path)))  # noqa: PTH208 - as above
        except (OSError, ValueError) as error:
            self._note(path, fact, error)
            return []

    def link(self, path: str) -> str | None:
        """Where a symbolic link points, as text; `None` when that cannot be read."""
        try:
            return os.readlink(self.place(path))  # noqa: PTH115 - the target need not exist
        except (OSError, ValueError):
            return None

    def exists(self, path: str) -> bool:
        """Whether something is there; what may not be looked at counts as not there."""
        return os.path.exists(self.place(path))  # noqa: PTH110 - never raises, unlike Path.exists

    def place(self, path: str) -> str:
        """Where `path` of the machine lies on this one."""
        return path if self.real else f"{self.root}/{path.lstrip('/')}"

    def problem(self, fact: str, kind: ProblemKind, reason: str) -> None:
        """Remember a problem, once."""
        problem = Problem(self.detector, fact, kind, reason)
        if problem not in self.problems:
            self.problems.append(problem)

    def garbage(self, path: str, fact: str, text: str) -> None:
        """Remember that a file says something that cannot be understood."""
        shown = " ".join(text.split())[:60]
        self.problem(fact, "error", f"{path} says `{shown}`, which cannot be understood")

    def _note(self, path: str, fact: str, error: OSError | ValueError) -> None:
        number = getattr(error, "errno", None)
        if number in _MISSING:
            return
        kind: ProblemKind = "error"
        if number in _DENIED:
            kind = "denied"
        elif number in _UNSUPPORTED:
            kind = "unsupported"
        reason = getattr(error, "strerror", None) or str(error)
        self.problem(fact, kind, f"{path}: {reason}")


def _whole(file: io.FileIO) -> bytes:
    read = b""
    while len(read) < MAX_BYTES and (chunk := file.read(CHUNK)):
        read += chunk
    return read


def chosen_root() -> Path:
    """The root that `STACKCONF_HARDWARE_ROOT` names, or `/`."""
    return Path(os.environ.get(ROOT_VARIABLE) or os.path.sep)


def whole_number(text: str | None) -> int | None:
    r"""A decimal number of at most 20 digits, nothing else.

    >>> whole_number(" 42\n"), whole_number("-1"), whole_number("4_2"), whole_number("")
    (42, None, None, None)
    """
    if text is None or not re.fullmatch(r"[0-9]{1,20}", text.strip(), re.ASCII):
        return None
    return int(text)


def kibibytes(text: str, name: str) -> int | None:
    r"""The amount, in bytes, that a line such as `MemTotal:  16 kB` of /proc/meminfo gives.

    >>> kibibytes("MemTotal:       16 kB\nMemFree: 1 kB\n", "MemTotal"), kibibytes("", "MemTotal")
    (16384, None)
    """
    match = re.search(rf"^{name}:\s*([0-9]+) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def ranges(numbers: Iterable[int]) -> str:
    """Numbers in the kernel's list format, the inverse of `cpu_list`.

    >>> ranges((0, 1, 2, 3, 8, 10, 11))
    '0-3,8,10-11'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def cpu_list(text: str | None) -> tuple[int, ...] | None:
    r"""The kernel's list format, sorted; `None` for anything else.

    Source: Documentation/admin-guide/cputopology.rst, "0-31,64,70-75".

    >>> cpu_list("0-2,8\n"), cpu_list(""), cpu_list("3-1"), cpu_list("all")
    ((0, 1, 2, 8), (), None, None)
    """
    if text is None:
        return None
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part.strip(), re.ASCII)
        if match is None:
            return None
        first = int(match[1])
        last = int(match[2] or match[1])
        if last < first or last >= MAX_CPUS:
            return None
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))
