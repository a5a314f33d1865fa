"""A stack file as the server reads the whole of it: what it refuses before it looks at any provider."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve

from stackconf import Issue, file_issues
from stackconf.stackfile.env import reference, rewritten
from stackconf.suggest import did_you_mean
from stackconf_ogx.internals.base import quietly, replaced_as_far_as_possible

if TYPE_CHECKING:
    from stackconf import StackFile
    from stackconf.stackfile.env import Grammar
    from stackconf_ogx.internals.base import Internals, KeyPath

_OLD = ("routing_table", "api_providers", "provider_map")


class WholeFile:
    """One file, its references replaced as the server does it."""

    def __init__(self, internals: Internals, stack: StackFile) -> None:
        self._internals, self._stack = internals, stack
        self.issues: list[Issue] = []
        self.families: Mapping[str, str] = {}
        """For each storage backend, `kv` or `sql`; none where they cannot be told."""
        storage = stack.other.get("storage")
        backends = storage.get("backends") if isinstance(storage, dict) else None
        self.has_backends = isinstance(backends, dict)
        """Whether the file itself says which backends there are, and so the core which are not."""
        known = internals.file_class.model_fields
        given = {key: value for key, value in stack.document.data.items() if key in known}
        if stack.grammar != internals.grammar:  # which has been told; the rest is judged as it is meant
            given = _translated(given, stack.grammar, internals.grammar)
        replaced, missing = replaced_as_far_as_possible(internals, given)
        self.data: dict[str, Any] = replaced or {}
        self.issues += self._ignored(known)
        self.issues += self._missing(missing)
        if replaced is not None and not any(key in stack.other for key in _OLD):
            self._judge({path for _, path in missing})

    def _ignored(self, known: Mapping[str, object]) -> Iterator[Issue]:
        """Keys of other versions, which this one passes over in silence."""
        from stackconf.stackfile.model import UPSTREAM_KEYS

        for key in self._stack.other:
            if key in UPSTREAM_KEYS and key not in known and key not in _OLD:
                yield Issue(
                    f"{self._internals.label} does not read `{key}`, and starts without it",
                    level="warning",
                    path=key,
                    hint=did_you_mean(key, known) or "remove it, or write what this version has instead",
                    code="ignored-key",
                    where=self._stack.document.position((key,), key=True),
                )

    def _missing(self, missing: list[tuple[str, KeyPath]]) -> Iterator[Issue]:
        told = {issue.where for issue in self._stack.issues}
        form = ":=default" if self._stack.grammar == "new" else ":default"
        for name, path in missing:
            where = self._stack.document.nearest(path)
            if where not in told:
                yield Issue(
                    f"the environment variable `{name}` is not set, or empty",
                    path=_dotted(path),
                    hint=f"set it, or give a default: `${{env.{name}{form}}}`",
                    code="env-missing",
                    where=where,
                )

    def _judge(self, missing: set[KeyPath]) -> None:
        data = {**self.data, "providers": _without_configs(self.data.get("providers"))}
        config_class = self._internals.file_class
        empty = {_dotted(path) for path in missing}
        told = {issue.where for issue in self._stack.issues if issue.level == "error"}
        with quietly():  # the class warns of keys that are deprecated
            self.families = self._internals.store_families(data)
            unknown = list(self._unknown_backends(data))
            for issue in file_issues(self._stack, data, config_class):
                if issue.path not in empty and issue.where not in told:
                    self.issues += [issue] if issue.path else self._of_the_whole(issue, unknown)
            self.issues += unknown

    def _of_the_whole(self, issue: Issue, unknown: list[Issue]) -> list[Issue]:
        """What the class says of no key in particular: with a place, unless it has been told better."""
        misspelt = [each.hint for each in self._stack.issues if each.code == "unknown-key"]
        if any(name in issue.message for hint in misspelt for name in re.findall("`([^`]+)`", hint)):
            return []
        if not issue.message.startswith("storage."):
            return [issue]
        where = self._stack.document.nearest(("storage", "backends"))
        return [] if unknown else [evolve(issue, path="storage.backends", where=where)]

    def _unknown_backends(self, data: Mapping[str, Any]) -> Iterator[Issue]:
        """`storage.stores` that refer to a backend which is not there; the class tells one of them."""
        storage = data.get("storage")
        stores = storage.get("stores") if isinstance(storage, dict) else None
        backends = self.families
        if not isinstance(stores, dict) or not backends:
            return
        for name, store in stores.items():
            backend = store.get("backend") if isinstance(store, dict) else None
            if isinstance(backend, str) and backend not in backends:
                path = ("storage", "stores", name, "backend")
                yield Issue(
                    f"`storage.backends` has no `{backend}`",
                    path=_dotted(path),
                    hint=did_you_mean(backend, backends) or f"it has {', '.join(backends) or 'none'}",
                    code="unknown-backend",
                    where=self._stack.document.nearest(path),
                )


def _without_configs(providers: Any) -> Any:
    """The providers without what is judged for each of them apart."""
    if not isinstance(providers, dict):
        return providers
    return {
        api: list(map(_without_config, entries)) if isinstance(entries, list) else entries
        for api, entries in providers.items()
    }


def _without_config(entry: Any) -> Any:
    if isinstance(entry, dict) and isinstance(entry.get("config"), dict):
        return {**entry, "config": {}}
    return entry


def _translated(value: Any, before: Grammar, after: Grammar) -> Any:
    """The same with its references in another grammar."""
    if isinstance(value, str):
        return rewritten(value, before, lambda name, operator, rest: reference(name, operator, rest, after))
    if isinstance(value, dict):
        return {key: _translated(inner, before, after) for key, inner in value.items()}
    return [_translated(inner, before, after) for inner in value] if isinstance(value, list) else value


def _dotted(path: KeyPath) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text
