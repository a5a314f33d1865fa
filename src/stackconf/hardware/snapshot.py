"""A machine in a file: recorded there, planned for here."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from attrs import evolve

from stackconf._version import __version__
from stackconf.errors import InvalidConfig
from stackconf.hardware.catalog import with_figures
from stackconf.hardware.codec import VERSION, from_dict, to_dict
from stackconf.hardware.facts import Hardware, Provenance

MAX_BYTES = 16 * 2**20
"""Larger files are not read. A machine with 256 cards and 1024 CPUs has about 1 MiB."""

HOW = "`stackconf hardware --json > FILE` writes one"


def recorded(hardware: Hardware) -> Hardware:
    """The same machine, saying that it was recorded here and now; one that is from elsewhere keeps
    saying so.
    """
    if hardware.provenance is not None:
        return hardware
    from datetime import UTC, datetime

    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return evolve(hardware, provenance=Provenance("recorded", _host_name(), at, __version__))


def _host_name() -> str | None:
    """The name of the machine whose files are read."""
    from stackconf.hardware.files import Files, chosen_root

    files = Files(chosen_root())
    text = files.text("/proc/sys/kernel/hostname", "host") or files.text("/etc/hostname", "host")
    if not text and files.real:
        import platform

        text = platform.node()
    return (text or "").strip() or None


def save(hardware: Hardware, path: str | os.PathLike[str]) -> None:
    """Write a snapshot, whole or not at all. Raises `InvalidConfig` when that cannot be done."""
    import json

    from stackconf.atomic import write_whole

    name = os.fsdecode(path)
    text = json.dumps(to_dict(recorded(hardware)), indent=2) + "\n"
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise InvalidConfig(f"{name}: {error.strerror or error}; the snapshot was not written") from error
    except ValueError as error:  # a NUL in the name
        raise InvalidConfig(f"{name!r} cannot be the name of a file") from error


def load(path: str | os.PathLike[str]) -> Hardware:
    """Read a snapshot. Raises `InvalidConfig` in one line, whatever is wrong with it.

    Cards that have no figures of the catalogue get this stackconf's.
    """
    name = os.fsdecode(path)
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            what = "a folder" if Path(path).is_dir() else "no regular file"
            raise InvalidConfig(f"{name} is {what}, and no snapshot of a machine; {HOW}")
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidConfig(f"{name}: {error.strerror or error}; {HOW}") from error
    except ValueError as error:
        raise InvalidConfig(f"{name!r} cannot be the name of a file") from error
    return from_json(data, name)


def from_json(text: str | bytes, name: str = "the snapshot") -> Hardware:
    """The machine in the text of a snapshot. Raises `InvalidConfig` as `load` does.

    >>> from_json("{}", "box.json")
    Traceback (most recent call last):
    ...
    stackconf.errors.InvalidConfig: box.json is no snapshot of a machine; `stackconf hardware ...
    """
    if len(text) > MAX_BYTES:
        raise InvalidConfig(f"{name} is no snapshot of a machine: it is larger than {MAX_BYTES // 2**20} MiB")
    found = _parsed(text, name)
    version = found["version"]
    if version != VERSION or isinstance(version, bool):
        shown = str(version)[:20]
        raise InvalidConfig(
            f"{name} has format {shown}, and this stackconf reads format {VERSION}; record it again with"
            " this version: `stackconf hardware --json`"
        )
    try:
        hardware = from_dict(found)
    except InvalidConfig as error:
        raise InvalidConfig(f"{name} cannot be read: {str(error).removeprefix('hardware: ')}") from None
    except RecursionError:
        raise InvalidConfig(f"{name} cannot be read: it is nested too deeply") from None
    if hardware.provenance is None:
        hardware = evolve(hardware, provenance=Provenance("unknown"))
    return with_figures(hardware)


def _parsed(text: str | bytes, name: str) -> dict[str, Any]:
    import json

    if not text.strip():
        raise InvalidConfig(f"{name} is empty; {HOW}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        start = text[:400] if isinstance(text, str) else text[:400].decode("utf-8", "replace")
        if start.lstrip().startswith("{") and '"version"' in start:
            raise InvalidConfig(f"{name} is damaged or cut off; record it again") from None
        raise InvalidConfig(f"{name} is no snapshot of a machine; {HOW}") from None
    if (
        not isinstance(found, dict)
        or "version" not in found
        or not ({"host", "cpu", "memory"} & found.keys())
    ):
        raise InvalidConfig(f"{name} is no snapshot of a machine; {HOW}")
    return found
