"""A plan as a file: made here, reviewed somewhere, applied later or not at all.

The file is JSON for people and programs to read, and says what it is: its format, which stack and
which store it is for, who made it and when. It holds no secret: a value that is one stands there
redacted, and that it is the same at the apply is seen by the keyed digests `target` and `base`.
A checksum finds accidents and edits by hand. It is no signature: whoever can write the file can
make another one. A forged file can do no more than any other plan, because an apply refuses what
it would not plan itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from attrs import frozen

from stackconf._version import __version__
from stackconf.errors import InvalidConfig
from stackconf.hardware.codec import from_dict, to_dict
from stackconf.hardware.discovery import static
from stackconf.packing import packed, unpacked
from stackconf.plan import FieldChange, Kind, Plan, ProviderChange
from stackconf.types import Issue, LayerName, Level, Position, Provider, UpdateClass

KIND = "stackconf plan"
FORMAT = 1
"""Raised when an older stackconf would misread what this one writes."""

MAX_BYTES = 32 * 2**20
"""Larger files are not read. A plan for ten thousand providers has about 10 MiB."""

_HOW = "`stackconf plan -o FILE` writes one"


@frozen
class PlanFile:
    """A plan with where it is from.

    `stack` is the stack file's name without its folder, `store` the id of the store (`store_id`),
    `at` the time of making (UTC, ISO 8601), `actor` who made it, `stackconf` with which version.
    """

    plan: Plan
    stack: str
    store: str
    at: str
    actor: str
    stackconf: str = __version__


def store_id(digest_key: bytes) -> str:
    """A name for a store that no other has, from its random key, which it does not give away.

    >>> store_id(b"one") == store_id(b"one") != store_id(b"other")
    True
    """
    return hashlib.blake2b(b"store-id", key=digest_key, digest_size=16).hexdigest()


def to_json(file: PlanFile) -> str:
    """The file's text."""
    data = {
        "kind": KIND,
        "format": FORMAT,
        "stackconf": file.stackconf,
        "made": {"at": file.at, "actor": file.actor},
        "stack": file.stack,
        "store": file.store,
        "plan": plan_data(file.plan),
    }
    return json.dumps({**data, "checksum": _checksum(data)}, indent=2, allow_nan=False) + "\n"


def from_json(text: str | bytes, name: str = "the plan") -> PlanFile:
    """The file that `to_json` wrote. Raises `InvalidConfig` in one line that says what is wrong.

    >>> from_json('{"version": 2}', "run.json")
    Traceback (most recent call last):
    ...
    stackconf.errors.InvalidConfig: run.json is not a plan; `stackconf plan -o FILE` writes one
    """
    data = _parsed(text, name)
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise InvalidConfig(f"{name} is not a plan; {_HOW}")
    version = data.get("format")
    if version != FORMAT or isinstance(version, bool):
        made_by = f"stackconf {data.get('stackconf')}"[:40]
        raise InvalidConfig(
            f"{name} has format {str(version)[:20]} (of {made_by}); this stackconf reads format {FORMAT}:"
            " plan again"
        )
    if data.pop("checksum", None) != _checksum(data):
        raise InvalidConfig(f"{name} was changed after it was written; plan again")
    try:
        return _file(data)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, InvalidConfig) as error:
        raise InvalidConfig(f"{name} is not a plan that this stackconf can read; plan again") from error


def read_plan(path: str | os.PathLike[str]) -> PlanFile:
    """Read a plan's file. Raises `InvalidConfig` in one line, whatever is wrong with it."""
    name = os.fsdecode(path)
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise InvalidConfig(f"{name} is a folder, not a plan; {_HOW}")
        if not stat.S_ISREG(mode):
            raise InvalidConfig(f"{name} is not a regular file; {_HOW}")
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidConfig(f"{name}: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise InvalidConfig(f"{name!r} cannot be the name of a file") from error
    if len(data) > MAX_BYTES:
        raise InvalidConfig(f"{name} is not a plan: it is larger than {MAX_BYTES // 2**20} MiB")
    return from_json(data, name)


def write_plan(path: str | os.PathLike[str], file: PlanFile) -> None:
    """Write a plan's file, whole, readable by its owner only. Replaces a plan, and nothing else.

    Raises `InvalidConfig` where something else is in the way or the system refuses.
    """
    from stackconf.atomic import write_whole

    name = os.fsdecode(path)
    if not _may_be_replaced(path):
        raise InvalidConfig(f"{name} is there and is not a plan; it was not replaced")
    try:
        write_whole(path, to_json(file).encode("ascii"))
    except OSError as error:
        raise InvalidConfig(f"{name}: {error.strerror or error}; the plan was not written") from error
    except ValueError as error:
        raise InvalidConfig(f"{name!r} cannot be the name of a file") from error


def keep_plan(path: str | os.PathLike[str], plan: Plan, *, stack: str, store: str, actor: str) -> None:
    """Write a plan of a stack and a store to a file. Raises `InvalidConfig`, also for a plan with errors."""
    if plan.errors:
        raise InvalidConfig("the plan was not written: the configuration has errors", plan.issues)
    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    write_plan(path, PlanFile(plan, stack, store, at, actor))


def kept_plan(path: str | os.PathLike[str], *, stack: str, store: str) -> Plan:
    """The plan in a file. Raises `InvalidConfig` when it is no such file, or of another stack or store."""
    file = read_plan(path)
    name = os.fsdecode(path)
    if file.stack != stack:
        raise InvalidConfig(f"{name} is a plan for {file.stack}, not for {stack}")
    if file.store != store:
        problem = f"{name} is a plan for another {stack}, which has another store than this one"
        raise InvalidConfig(f"{problem}; plan again with this one")
    return file.plan


def _may_be_replaced(path: str | os.PathLike[str]) -> bool:
    """Whether nothing is lost by writing there: no file, an empty one, or what begins as a plan."""
    try:
        if not Path(path).is_file():
            return True  # nothing, or what `write_whole` refuses
        with Path(path).open("rb") as file:
            start = file.read(200)
    except (OSError, ValueError):
        return True  # what writes says it better
    return not start or f'"kind": "{KIND}"'.encode() in start


def _parsed(text: str | bytes, name: str) -> Any:
    start = text[:200] if isinstance(text, str) else text[:200].decode("utf-8", "replace")
    try:
        return json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        if KIND in start:
            raise InvalidConfig(f"{name} is damaged or cut off; plan again") from None
        if os.fspath(name).endswith((".yaml", ".yml")):
            raise InvalidConfig(
                f"{name} is not a plan; a stack file is given with --stack, and {_HOW}"
            ) from None
        raise InvalidConfig(f"{name} is not a plan; {_HOW}") from None


def _refused(constant: str) -> Any:
    raise ValueError(constant)


def _checksum(data: Mapping[str, Any]) -> str:
    """The digest of what the file says, however it is laid out."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# Writing


def plan_data(plan: Plan) -> dict[str, Any]:
    """A plan as JSON types."""
    return {
        "base_revision": plan.base_revision,
        "stack_digest": plan.stack_digest,
        "hardware_fingerprint": plan.hardware_fingerprint,
        "changes": [_change_data(change) for change in plan.changes],
        "unchanged": list(plan.unchanged),
        "issues": [_issue_data(issue) for issue in plan.issues],
        "hardware": None if plan.hardware is None else to_dict(static(plan.hardware)),
    }


def _change_data(change: ProviderChange) -> dict[str, Any]:
    provider = change.provider
    return {
        "api": provider.api,
        "provider_id": provider.provider_id,
        "provider_type": provider.provider_type,
        "kind": change.kind,
        "update": change.update,
        "fields": [_field_data(each) for each in change.fields],
        "class_defaults": change.class_defaults,
        "target": change.target,
        "base": change.base,
        "known": change.known,
    }


def _field_data(each: FieldChange) -> dict[str, Any]:
    return {
        "path": each.path,
        "before": packed(each.before),
        "after": packed(each.after),
        "update": each.update,
        "layer": each.layer,
        "source": each.source,
        "reason": each.reason,
    }


def _issue_data(issue: Issue) -> dict[str, Any]:
    where = issue.where
    return {
        "message": issue.message,
        "level": issue.level,
        "path": issue.path,
        "hint": issue.hint,
        "code": issue.code,
        "provider": issue.provider,
        "where": None if where is None else [where.file, where.line, where.column],
    }


# Reading


def _file(data: Mapping[str, Any]) -> PlanFile:
    made = data["made"]
    return PlanFile(
        _plan(data["plan"]),
        _text(data["stack"]),
        _text(data["store"]),
        _text(made["at"]),
        _text(made["actor"]),
        _text(data["stackconf"]),
    )


def _plan(data: Mapping[str, Any]) -> Plan:
    hardware = data["hardware"]
    return Plan(
        _number(data["base_revision"]),
        _text(data["stack_digest"]),
        _text(data["hardware_fingerprint"]),
        tuple(map(_change, data["changes"])),
        tuple(map(_text, data["unchanged"])),
        tuple(map(_issue, data["issues"])),
        None if hardware is None else from_dict(hardware),
    )


def _change(data: Mapping[str, Any]) -> ProviderChange:
    return ProviderChange(
        Provider(_text(data["api"]), _text(data["provider_id"]), _text(data["provider_type"])),
        _one_of(Kind, data["kind"]),
        _one_of(UpdateClass, data["update"]),
        tuple(map(_field, data["fields"])),
        _number(data["class_defaults"]),
        _text(data["target"]),
        _text(data["base"]),
        bool(data.get("known", True)),
    )


def _field(data: Mapping[str, Any]) -> FieldChange:
    return FieldChange(
        _text(data["path"]),
        unpacked(data["before"]),
        unpacked(data["after"]),
        _one_of(UpdateClass, data["update"]),
        _one_of(LayerName, data["layer"]),
        _text(data["source"]),
        _text(data["reason"]),
    )


def _issue(data: Mapping[str, Any]) -> Issue:
    where = data["where"]
    return Issue(
        _text(data["message"]),
        _one_of(Level, data["level"]),
        _text(data["path"]),
        _text(data["hint"]),
        _text(data["code"]),
        _text(data["provider"]),
        None if where is None else Position(_text(where[0]), _number(where[1]), _number(where[2])),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(value)
    return value


def _one_of(choices: Any, value: Any) -> Any:
    if value not in get_args(choices):
        raise ValueError(value)
    return value
