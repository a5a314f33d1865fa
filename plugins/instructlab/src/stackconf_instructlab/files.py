"""One file for each provider, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from stackconf import Applied
from stackconf.atomic import write_whole

if TYPE_CHECKING:
    from stackconf import Provider

HEAD = "# Written by stackconf; `stackconf explain {key}` says where each value is from.\n"
_OWN = frozenset({"config_file", "parameters", "teacher_parameters", "judge_parameters"})


def text_of(provider: Provider, config: BaseModel) -> bytes:
    """What the file of a configuration says."""
    import yaml

    values = config.model_dump(mode="json", exclude=set(_OWN))
    return (HEAD.format(key=provider.key) + yaml.safe_dump(values, sort_keys=False)).encode()


def apply(provider: Provider, config: BaseModel | None, previous: object) -> Applied:
    """Put the file in place. A file that is not needed any more is kept where somebody changed it.

    Raises `OSError` where it cannot be written; nothing has changed then.
    """
    old = _path(previous)
    if config is None:
        if old is None:
            return Applied("left; which file it had is not known", undo=lambda: None)
        if not isinstance(previous, BaseModel) or _read(old) not in {None, text_of(provider, previous)}:
            return Applied(f"left; {old} was changed by somebody and is kept", undo=lambda: None)
        return _put(old, None, f"removed {old}")
    path = _path(config)
    assert path is not None  # noqa: S101 (every configuration has one)
    new = text_of(provider, config)
    moved = old is not None and old != path
    path.parent.mkdir(parents=True, exist_ok=True)
    return _put(path, new, f"wrote {path}" + (f"; {old} is left as it was" if moved else ""))


def _path(config: object) -> Path | None:
    name = getattr(config, "config_file", None)
    return Path(name).expanduser() if isinstance(name, str) else None


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _put(path: Path, new: bytes | None, detail: str) -> Applied:
    before = _read(path)
    mode = path.stat().st_mode & 0o777 if before is not None else 0o644

    def put(data: bytes | None) -> None:
        if data is None:
            path.unlink(missing_ok=True)
        else:
            write_whole(path, data, mode=mode)

    def complaint(data: bytes | None) -> str | None:
        there = _read(path)
        if there == data:
            return None
        return f"{path} {'is gone' if there is None else 'is not as it was written'}"

    if before == new:
        return Applied(f"{path} is as it should be", undo=lambda: None, check=lambda: complaint(new))
    put(new)
    return Applied(
        detail,
        undo=lambda: put(before),
        check=lambda: complaint(new),
        check_undo=lambda: complaint(before),
    )
