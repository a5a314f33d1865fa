"""Files of unknown origin, read within limits: a bad one costs one line, never memory or time."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from stackconf_models.shape import ModelUnreadable

CONFIG_BYTES = 4 * 1024**2
"""The largest `config.json` that is read; real ones take a few KiB."""
MOST = 2**62
"""No size or count in a real model is larger."""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; a pipe or a device is refused and never waited for.

    Raises `ModelUnreadable`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise ModelUnreadable(f"{path}: cannot be read: {_why(error)}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ModelUnreadable(f"{path}: is not a regular file")
    return os.fdopen(descriptor, "rb")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of at most `CONFIG_BYTES`. Raises `ModelUnreadable`."""
    with open_regular(path) as file:
        try:
            data = file.read(CONFIG_BYTES + 1)
        except OSError as error:
            raise ModelUnreadable(f"{path}: cannot be read: {_why(error)}") from None
    if len(data) > CONFIG_BYTES:
        raise ModelUnreadable(f"{path}: is larger than {CONFIG_BYTES} bytes, so it is no such file")
    try:
        content = json.loads(data)
    except RecursionError:
        raise ModelUnreadable(f"{path}: is nested too deeply") from None
    except ValueError as error:  # bad JSON, bad UTF-8, a number of thousands of digits
        raise ModelUnreadable(f"{path}: is not JSON: {_first_line(error)}") from None
    if not isinstance(content, dict):
        raise ModelUnreadable(f"{path}: holds no JSON object")
    return content


def whole(values: Mapping[str, Any], *names: str) -> int | None:
    """The first of these entries that is a whole number from 1 to `MOST`.

    >>> whole({"n_layer": 12, "num_layers": "12"}, "num_layers", "n_layer")
    12
    >>> whole({"n": True, "m": -1, "k": 1e400}, "n", "m", "k") is None
    True
    """
    for name in names:
        value = values.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST:
            return value
    return None


def text(values: Mapping[str, Any], *names: str) -> str | None:
    """The first of these entries that is a short text."""
    for name in names:
        value = values.get(name)
        if isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable():  # noqa: PLR2004
            return value
    return None


def mapping(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An entry that is an object, or an empty one."""
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).lower()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
