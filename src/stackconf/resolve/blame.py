"""Whose fault is it: validation errors become issues that name the layer, the place and the cure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from stackconf.fields import ClassPlan, labels_at, user_paths
from stackconf.redact import redact_free
from stackconf.resolve.layers import Data, Path, dotted, value_at
from stackconf.stackfile.env import EnvText
from stackconf.suggest import did_you_mean
from stackconf.types import Issue

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from stackconf.registry.registry import Owned
    from stackconf.resolve.references import Unknown
    from stackconf.resolve.resolve import TakenOverlay
    from stackconf.stackfile.model import ProviderEntry, StackFile
    from stackconf.types import Position, Provider

_NOTHING: Any = object()
_LONGEST_VALUE = 60
_QUOTED = re.compile(r"'([^']*)'")


@frozen(eq=False)
class Blame:
    """One provider's layers, ready to say which of them brought a value."""

    provider: Provider
    plan: ClassPlan
    owned: Owned
    hardware_values: Data
    stack_values: Data
    overlays: tuple[TakenOverlay, ...]
    entry: ProviderEntry | None
    stack: StackFile | None

    def of(self, error: ValidationError, merged: Data) -> list[Issue]:
        """The issues of a failed validation, one for each path."""
        details = error.errors(include_url=False)
        return [
            self._issue(detail, path)
            for detail, path in _one_per_path(details, merged, self.plan)
            if not self._already_said(path)
        ]

    def completed(self, issue: Issue) -> Issue:
        """A plugin's issue with the provider and the place it lacks."""
        path = issue.path
        if path and not path.startswith("config"):
            path = f"config.{path}"
        where = issue.where or self.where(_undotted(path.removeprefix("config").removeprefix(".")))
        return evolve(issue, provider=self.provider.key, path=path, where=where)

    def where(self, path: Path, *, key: bool = False) -> Position | None:
        """Where the stack file says it: the value, or the nearest thing above it."""
        if self.stack is None or self.entry is None or self._overlay_of(path) is not None:
            return None
        root = (*self.entry.path, "config")
        for length in range(len(path), 0, -1):
            for name in self.plan.aliases_of(str(path[0])):
                position = self.stack.document.position((*root, name, *path[1:length]), key=key)
                if position is not None:
                    return position
        return self.stack.document.position(self.entry.path)

    def _already_said(self, path: Path) -> bool:
        """Whether the stack file's own issues cover the value: its reference could not be expanded."""
        given = value_at(self.stack_values, path)
        return isinstance(given, EnvText) and given.failed and self._overlay_of(path) is None

    def _overlay_of(self, path: Path) -> TakenOverlay | None:
        if not path:
            return self.overlays[-1] if self.overlays else None
        for taken in reversed(self.overlays):
            if value_at(taken.values, path, _NOTHING) is not _NOTHING:
                return taken
        return None

    def _issue(self, detail: ErrorDetails, path: Path) -> Issue:
        labels = labels_at(self.plan, path, self.stack_values)
        kind = detail["type"]
        if kind == "missing":
            return self._missing(path)
        message = _sentence(detail["msg"])
        plain = not isinstance(detail["input"], (Mapping, list, tuple))
        if not labels.secret and kind != "value_error" and path and plain:
            message += f", not {_shown(detail['input'], str(path[-1]))}"
        overlay = self._overlay_of(path)
        hint = _expected_hint(detail)
        if overlay is None:
            hint = hint or self._quoting_hint(kind, path, secret=labels.secret)
        if overlay is not None:
            message += f"; given by configuration `{overlay.overlay.name}`"
        elif self._from_hardware(path):
            owner = self.owned.hooks.owner
            failure = owner.failed("default_config", f"gave a bad value: {message}")
            return Issue(str(failure), path=_config(path), provider=self.provider.key, code="hook-error")
        else:
            given = value_at(self.stack_values, path)
            message += f" (from {given.shown})" if isinstance(given, EnvText) else ""
        code = "wrong-value"
        return Issue(
            message,
            path=_config(path),
            hint=hint,
            code=code,
            provider=self.provider.key,
            where=self.where(path),
        )

    def _missing(self, path: Path) -> Issue:
        where = None
        if self.stack is not None and self.entry is not None:
            where = self.stack.position_of(self.entry, path[:-1])
        field = self.plan.fields.get(str(path[0])) if len(path) == 1 else None
        about = f": {field.description}" if field and field.description else ""
        return Issue(
            "required field is missing",
            path=_config(path),
            hint=f"add `{path[-1]}`{about}" if path else "",
            code="missing-field",
            provider=self.provider.key,
            where=where,
        )

    def _from_hardware(self, path: Path) -> bool:
        in_stack = value_at(self.stack_values, path, _NOTHING) is not _NOTHING
        return not in_stack and value_at(self.hardware_values, path, _NOTHING) is not _NOTHING

    def _quoting_hint(self, kind: str, path: Path, *, secret: bool) -> str:
        if kind not in {"string_type", "secret_type"} or self.stack is None or self.entry is None:
            return ""
        raw = self.stack.document.raw_text((*self.entry.path, "config", *path))
        if raw is None:
            return ""
        return "put it in quotes to keep it text" if secret else f'write it in quotes: "{raw}"'


def unknown_field_issues(blame: Blame, unknown: Unknown) -> list[Issue]:
    """An error for each key of the stack file that its class does not know, even where the class
    ignores extras.
    """
    issues = []
    for path, plan in unknown:
        key = str(path[-1])
        hint = did_you_mean(key, plan.keys) or _known_fields(plan)
        where = blame.where(path, key=True)
        issues.append(
            Issue(
                "unknown field",
                path=_config(path),
                hint=hint,
                code="unknown-field",
                provider=blame.provider.key,
                where=where,
            )
        )
    return issues


def dropped_issues(provider: Provider, taken: TakenOverlay, plan: ClassPlan) -> list[Issue]:
    """What was dropped from an overlay, said path by path."""
    issues = []
    for dropped in taken.dropped:
        key = str(dropped.path[-1])
        if dropped.code == "unknown-field":
            hint = did_you_mean(key, plan.keys) or _user_fields(plan)
        else:
            hint = _user_fields(plan)
        issues.append(
            Issue(
                f"dropped: {dropped.reason}",
                level="ignored",
                path=_config(dropped.path),
                hint=hint,
                code=dropped.code,
                provider=provider.key,
            )
        )
    return issues


def _one_per_path(
    details: list[ErrorDetails], merged: Data, plan: ClassPlan
) -> Iterator[tuple[ErrorDetails, Path]]:
    """Errors by data path. pydantic reports each member of a union apart; the member that fits
    best speaks for all.
    """
    unions: dict[Path, dict[str, list[tuple[ErrorDetails, Path]]]] = {}
    for detail in details:
        if detail["type"] == "extra_forbidden":
            continue
        path, branch_at, branch = _data_path(detail, merged, plan)
        if branch_at is None:
            yield detail, path
        else:
            unions.setdefault(branch_at, {}).setdefault(branch, []).append((detail, path))
    for branches in unions.values():
        yield from min(branches.values(), key=len)


def _data_path(detail: ErrorDetails, merged: Data, plan: ClassPlan) -> tuple[Path, Path | None, str]:
    """Pydantic's `loc` without the names of union members, and where the first of those stood."""
    here: Any = merged
    path: Path = ()
    branch_at: Path | None = None
    branch = ""
    location = detail["loc"]
    for index, step in enumerate(location):
        last = index == len(location) - 1
        if isinstance(here, Mapping) and (step in here or (last and detail["type"] == "missing")):
            here, path = here.get(step), (*path, step)
        elif isinstance(here, (list, tuple)) and isinstance(step, int) and step < len(here):
            here, path = here[step], (*path, step)
        elif isinstance(here, Mapping) and (name := plan.keys.get(str(step))) in here:
            here, path = here[name], (*path, str(name))
        elif branch_at is None:
            branch_at, branch = path, str(step)
    return path, branch_at, branch


def _config(path: Path) -> str:
    return f"config.{dotted(path)}" if path else "config"


def _undotted(text: str) -> Path:
    return tuple(
        int(part) if part.isdigit() else part
        for part in text.replace("[", ".").replace("]", "").split(".")
        if part
    )


def _expected_hint(detail: ErrorDetails) -> str:
    """The member of a `Literal` or an enumeration that a misspelt one was meant to be."""
    expected = detail.get("ctx", {}).get("expected") if detail["type"] in {"literal_error", "enum"} else None
    given = detail["input"]
    if not isinstance(expected, str) or not isinstance(given, str):
        return ""
    return did_you_mean(given, _QUOTED.findall(expected))


def _sentence(text: str) -> str:
    """Pydantic's message as the middle of a line: no capital, no prefix."""
    text = " ".join(text.removeprefix("Value error, ").removeprefix("Assertion failed, ").split())
    text = text.removeprefix("Input ").split(", unable to parse", 1)[0]
    if text[1:2].islower():
        text = text[:1].lower() + text[1:]
    return text.rstrip(".")


def _shown(value: object, name: str) -> str:
    text = repr(redact_free(str(value) if isinstance(value, str) else value, name))
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _known_fields(plan: ClassPlan) -> str:
    return f"the fields are {_listed(sorted(plan.fields))}" if plan.fields else "the type has no fields"


def _user_fields(plan: ClassPlan) -> str:
    paths = user_paths(plan)
    return f"users may set {_listed(paths)}" if paths else "the type has no user fields"


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
