"""A `Hardware` as plain mappings and lists, and back: for files, pipes and `--json`.

The shape follows the classes in `facts`: each is a mapping of its fields, tuples are lists, the
set of instruction sets is a sorted list. Reading is strict, so that a misspelt key in a file that
a person wrote, or a wrong type from somebody's plugin, is one clear line and not a wrong default.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from attrs import NOTHING, fields, has

from stackconf.errors import InvalidConfig
from stackconf.hardware.facts import Accelerator, Cpu, Fact, Hardware, Host, Memory, Problem, Visibility

VERSION = 1
"""Raised when an older stackconf would misread what this one writes."""

FACT_CLASSES: Mapping[str, type[Any]] = {
    cls.__name__: cls for cls in (Host, Cpu, Memory, Accelerator, Visibility, Problem)
}

_Read: TypeAlias = Callable[[Any, str], Any]


def to_dict(hardware: Hardware) -> dict[str, Any]:
    """Everything known about a machine, ready for `json.dumps`; unknown values are `None`.

    >>> from stackconf.hardware.facts import Cpu, Hardware
    >>> told = to_dict(Hardware(cpu=Cpu(usable_cores=3.5, isa=frozenset({"fma", "avx2"}))))
    >>> told["version"], told["cpu"]["usable_cores"], told["cpu"]["isa"]
    (1, 3.5, ['avx2', 'fma'])
    """
    return {"version": VERSION, **_plain(hardware)}


def from_dict(mapping: Mapping[str, Any], *, strict: bool = True) -> Hardware:
    """The `Hardware` that `to_dict` wrote. A missing key means unknown. Unknown keys are ignored where
    it is not `strict`, for what another version of stackconf sent.

    Raises `InvalidConfig` that says where and what, for an unknown key, a wrong type, or a
    version that this stackconf does not know.

    >>> from_dict({"version": 1, "cpu": {"coress": 4}})
    Traceback (most recent call last):
    ...
    stackconf.errors.InvalidConfig: hardware: cpu: unknown key `coress`; known are: affinity, ...
    """
    if not isinstance(mapping, Mapping):
        raise InvalidConfig(f"hardware: expected a mapping, not {_shown(mapping)}")
    version = mapping.get("version")
    if version != VERSION or isinstance(version, bool):
        raise InvalidConfig(
            f"hardware: version {_shown(version)} cannot be read; this stackconf reads version {VERSION}"
        )
    rest = {key: value for key, value in mapping.items() if key != "version"}
    try:
        hardware: Hardware = _build(Hardware, rest, "", strict=strict)
    except ValueError as error:
        raise InvalidConfig(f"hardware: {error}") from None
    return hardware


def fact_to_dict(fact: Fact) -> dict[str, Any]:
    """One fact with its class's name under `type`, as detectors send them.

    >>> fact_to_dict(Visibility("CUDA_VISIBLE_DEVICES", "0"))
    {'type': 'Visibility', 'variable': 'CUDA_VISIBLE_DEVICES', 'value': '0'}
    """
    return {"type": type(fact).__name__, **_plain(fact)}


def fact_from_dict(mapping: Mapping[str, Any]) -> Fact:
    """What `fact_to_dict` wrote. Raises `ValueError` that says where and what."""
    kind = mapping.get("type")
    cls = FACT_CLASSES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ValueError(f"{_shown(kind)} is no kind of fact")
    rest = {key: value for key, value in mapping.items() if key != "type"}
    fact: Fact = _build(cls, rest, cls.__name__)
    return fact


def _plain(value: Any) -> Any:
    if has(type(value)):
        return {name: _plain(getattr(value, name)) for name in _names(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, frozenset | set):
        return sorted(value)
    return value


def _names(value: Any) -> Mapping[str, _Read]:
    cls: Any = type(value)
    return _readers(cls)


def _build(cls: Any, mapping: Any, where: str, *, strict: bool = True) -> Any:
    if not isinstance(mapping, Mapping):
        raise ValueError(f"{_at(where)}expected a mapping, not {_shown(mapping)}")  # noqa: TRY004 - one kind of error
    readers = _readers(cls, strict=strict)
    for key in mapping if strict else ():
        if key not in readers:
            names = ", ".join(sorted(readers))
            raise ValueError(f"{_at(where)}unknown key `{key}`; known are: {names}")
    missing = [item.name for item in fields(cls) if item.default is NOTHING and item.name not in mapping]
    if missing:
        raise ValueError(f"{_at(where)}`{missing[0]}` is missing")
    prefix = f"{where}." if where else ""
    return cls(
        **{key: readers[key](value, f"{prefix}{key}") for key, value in mapping.items() if key in readers}
    )


@cache
def _readers(cls: Any, *, strict: bool = True) -> Mapping[str, _Read]:
    """A reader for each field, made from the class's own annotations."""
    hints = get_type_hints(cls)
    return {item.name: _reader(hints[item.name], strict=strict) for item in fields(cls)}


def _reader(kind: Any, *, strict: bool) -> _Read:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {types.UnionType, Union}:
        inner = _reader(
            next(argument for argument in arguments if argument is not types.NoneType), strict=strict
        )
        return lambda value, where: None if value is None else inner(value, where)
    if origin is Literal:
        return _choice(arguments)
    if origin is tuple:
        return _tuple(arguments, strict=strict)
    if origin is frozenset:
        items = _tuple((*arguments, ...), strict=strict)
        return lambda value, where: frozenset(items(value, where))
    if has(kind):
        return lambda value, where: _build(kind, value, where, strict=strict)
    return _scalar(kind)


def _choice(allowed: tuple[Any, ...]) -> _Read:
    def read(value: Any, where: str) -> Any:
        if not isinstance(value, str) or value not in allowed:
            raise ValueError(f"{where}: expected one of {', '.join(allowed)}, not {_shown(value)}")
        return value

    return read


def _tuple(arguments: tuple[Any, ...], *, strict: bool) -> _Read:
    any_length = arguments[-1] is ...
    readers = [_reader(argument, strict=strict) for argument in arguments if argument is not ...]

    def read(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where}: expected a list, not {_shown(value)}")  # noqa: TRY004 - as above
        if not any_length and len(value) != len(readers):
            raise ValueError(f"{where}: expected {len(readers)} values, not {len(value)}")
        each = readers * len(value) if any_length else readers
        return tuple(
            one(item, f"{where}[{number}]")
            for number, (one, item) in enumerate(zip(each, value, strict=True))
        )

    return read


def _scalar(kind: type[Any]) -> _Read:
    accepted = (int, float) if kind is float else (kind,)

    def read(value: Any, where: str) -> Any:
        wrong = isinstance(value, bool) and kind is not bool
        if wrong or not isinstance(value, accepted):
            raise ValueError(f"{where}: expected {_NAMES.get(kind, kind.__name__)}, not {_shown(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{where}: expected a finite number, not {value}")
        return value

    return read


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _at(where: str) -> str:
    return f"{where}: " if where else ""


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text[:40]}{'...' if len(text) > 40 else ''}"  # noqa: PLR2004 - a short line
