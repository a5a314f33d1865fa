"""Provider types from outside: `external_providers_dir`, `external_apis_dir` and `module:`.

Upstream stops at the first one that is wrong. Here each is tried, and why one is not there is said of
the providers that need it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field

from stackconf import Issue
from stackconf.redact import described
from stackconf_ogx.internals.base import quietly

if TYPE_CHECKING:
    from stackconf import StackFile
    from stackconf_ogx.internals.base import Internals, Kind, Spec

KINDS: tuple[Kind, ...] = ("remote", "inline")


@define
class External:
    """The types from outside, by key; for those that cannot be had, why."""

    specs: dict[str, Spec] = field(factory=dict)
    absent: dict[str, str] = field(factory=dict)
    issues: list[Issue] = field(factory=list)


def external_types(internals: Internals, stack: StackFile, data: Mapping[str, Any]) -> External:
    """What a stack file brings of its own; `data` is the file with its references replaced."""
    found = External()
    with quietly():  # other people's modules are imported here
        _from_apis(internals, stack, data, found)
        _from_folder(internals, stack, data, found)
        _from_modules(internals, stack, found)
    named = {entry.provider.type_key for entry in stack.providers}
    for key, problem in found.absent.items():
        if key not in named:  # the server fails for it all the same
            found.issues.append(_issue(stack, "external_providers_dir", f"`{key}`: {problem}"))
    return found


def _from_apis(internals: Internals, stack: StackFile, data: Mapping[str, Any], found: External) -> None:
    folder = _folder(stack, data, "external_apis_dir", found)
    if folder is None:
        return
    try:
        found.specs |= {spec.key: spec for spec in internals.load_apis(folder)}
    except Exception as error:  # noqa: BLE001 (whatever is wrong with somebody's file)
        found.issues.append(_issue(stack, "external_apis_dir", _why(error)))


def _from_folder(internals: Internals, stack: StackFile, data: Mapping[str, Any], found: External) -> None:
    folder = _folder(stack, data, "external_providers_dir", found)
    if folder is None:
        return
    import yaml

    for api, kind, file in _files(folder, internals.apis() - internals.own_apis - internals.routed.keys()):
        key = f"{api}/{kind}::{file.stem}"
        try:
            declared = yaml.safe_load(file.read_text(encoding="utf-8"))
            if not isinstance(declared, dict):
                found.absent[key] = f"{file} is no mapping"
                continue
            found.specs[key] = internals.spec_of_file(declared, api, kind, file.stem)
        except KeyError as error:
            found.absent[key] = f"{file} lacks the key {error}"
        except Exception as error:  # noqa: BLE001 (whatever is wrong with somebody's file)
            found.absent[key] = f"{file}: {_why(error)}"


def _files(folder: Path, apis: frozenset[str]) -> Iterator[tuple[str, Kind, Path]]:
    for api in sorted(apis):
        for kind in KINDS:
            for file in sorted((folder / kind / api).glob("*.yaml")):
                yield api, kind, file


def _from_modules(internals: Internals, stack: StackFile, found: External) -> None:
    if not internals.knows_modules:
        return
    for entry in stack.providers:
        if not entry.module:
            continue
        key = entry.provider.type_key
        try:
            spec = internals.spec_of_module(entry.module, entry.api, entry.provider_type)
        except Exception as error:  # noqa: BLE001 (somebody's module may raise anything)
            found.absent[key] = f"its module `{entry.module}` cannot be imported: {_why(error)}"
            continue
        if spec is None:
            found.absent[key] = f"its module `{entry.module}` has no such type"
        else:
            found.specs[key] = spec


def _folder(stack: StackFile, data: Mapping[str, Any], key: str, found: External) -> Path | None:
    given = data.get(key)
    if not isinstance(given, (str, os.PathLike)) or not str(given):
        return None
    folder = Path(given).expanduser().absolute()
    if folder.is_dir():
        return folder
    found.issues.append(_issue(stack, key, f"there is no folder {folder}", hint="make it, or remove the key"))
    return None


def _issue(stack: StackFile, key: str, message: str, hint: str = "") -> Issue:
    where = stack.document.nearest((key,))
    return Issue(message, path=key, hint=hint, code="external-provider", where=where)


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, ModuleNotFoundError) else described(error).removeprefix("raised ")
