"""Write a file whole or not at all: whoever reads it sees the old text or the new one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: str | os.PathLike[str], data: bytes, *, mode: int = 0o600) -> None:
    """Put a file in place with these bytes and this mode, durably, in one step.

    A link is followed. Raises `OSError`; then what was there is as it was. A device or a pipe is
    refused with `FileExistsError`, since it would be replaced by a file.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = Path(folder.name, "plan.json")
    >>> write_whole(file, b"{}")
    >>> file.read_bytes(), oct(file.stat().st_mode & 0o777)
    (b'{}', '0o600')
    >>> folder.cleanup()
    """
    import tempfile

    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(None, "is a folder", str(path))
    if target.exists() and not target.is_file():
        raise FileExistsError(None, "is not a regular file", str(path))
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
    except OSError as error:  # it names a file that nobody has heard of
        raise type(error)(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException as error:
        with suppress(OSError):
            Path(temporary).unlink()
        if isinstance(error, OSError):
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """The new name is on the disk too, where folders can be synced."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
