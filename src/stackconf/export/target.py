"""Where an export goes: nowhere, into a new file, into one that exists, into the stack file itself."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stackconf.atomic import write_whole
from stackconf.errors import StackconfError

if TYPE_CHECKING:
    from stackconf.stackfile.model import StackFile

_UTF16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


class Target:
    """The file that an export is written to; `None`: none.

    A file that exists and is not empty is updated: its text is the base of the export.
    """

    def __init__(self, stack: StackFile, path: str | os.PathLike[str] | None) -> None:
        self._stack = stack
        self._path = None if path is None else Path(path)
        self._digest = ""
        self._encoding = "utf-8"
        self.exists = self._path is not None and self._path.exists() and self._path.stat().st_size > 0

    def base(self, environ: Mapping[str, str]) -> StackFile:
        """The stack file whose text is changed. Raises `InvalidConfig` where the target is none."""
        from stackconf.stackfile.model import load

        if self._path is None or not self.exists:
            return self._stack
        is_own = Path(self._stack.name).exists() and self._path.samefile(self._stack.name)
        base = self._stack if is_own else load(self._path, environ)
        self._digest = base.digest
        return base

    def write(self, text: str) -> None:
        """Put the text there, in one step; mode and links of a file that exists stay."""
        if self._path is None:
            return
        if not self.exists:
            write_new(self._path, text)
            return
        mode = self._checked_mode()
        data = text.encode(self._encoding)
        if self._encoding != "utf-8":
            data = next(mark for mark, name in _UTF16.items() if name == self._encoding) + data
        write_whole(self._path, data, mode=mode)

    def _checked_mode(self) -> int:
        """The file's mode. Raises `StackconfError` when it is no longer the file that was read."""
        assert self._path is not None  # noqa: S101 (asked before)
        data = self._path.read_bytes()
        if hashlib.sha256(data).hexdigest() != self._digest:
            raise StackconfError(
                f"{self._path} changed while it was exported; nothing was written; try again"
            )
        self._encoding = _UTF16.get(data[:2], "utf-8")
        return self._path.stat().st_mode & 0o7777


def write_new(path: str | os.PathLike[str], text: str) -> None:
    """Write an export to a file that is not there yet."""
    write_whole(path, text.encode(), mode=0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
