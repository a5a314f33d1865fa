"""Policies: which fields of upstream's provider types users may set.

One YAML file for each range of versions comes along; the operator extends or narrows it in the stack
file's `stackconf: policy:`. A policy is about a type; it becomes the `user_fields` of its
`ProviderType`, so no class of upstream's is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from stackconf import Issue
from stackconf.suggest import did_you_mean

if TYPE_CHECKING:
    from stackconf import StackFile
    from stackconf.types import UpdateClass

SECTION = ("stackconf", "policy")
KEYS = ("allow", "allow_without_credential", "deny")
EVERYTHING = "*"


@frozen
class Policy:
    """What users may set of one type. Paths are dotted."""

    allow: frozenset[str] = frozenset()
    guarded: frozenset[str] = frozenset()
    """Open only while the provider holds no credential: it would be sent there."""
    deny: frozenset[str] = frozenset()
    urls: tuple[str, ...] = ()
    """Fields that must be http:// or https:// addresses where the class takes any text."""

    def user_fields(self, update: UpdateClass) -> dict[str, UpdateClass | None]:
        """For `ProviderType.user_fields`."""
        fields: dict[str, UpdateClass | None] = dict.fromkeys(sorted(self.allow | self.guarded), update)
        below = {path for path in self.deny if any(path.startswith(f"{each}.") for each in fields)}
        return fields | dict.fromkeys(sorted(below))

    def extended(self, allow: Iterable[str], guarded: Iterable[str], deny: Iterable[str]) -> Policy:
        """This policy as the operator changed it; `deny` has the last word."""
        denied = frozenset(deny)
        opened = self.allow | frozenset(allow)
        guard = (self.guarded | frozenset(guarded)) - frozenset(allow)
        if EVERYTHING in denied:
            return evolve(self, allow=frozenset(), guarded=frozenset(), deny=frozenset())
        return evolve(
            self,
            allow=frozenset(_not_below(opened - guard, denied)),
            guarded=frozenset(_not_below(guard, denied)),
            deny=denied,
        )


def _not_below(paths: Iterable[str], denied: frozenset[str]) -> list[str]:
    return [path for path in paths if not any(f"{path}.".startswith(f"{each}.") for each in denied)]


@cache
def shipped(name: str) -> Mapping[str, Policy]:
    """The policies that come along for one range of versions, by `api/provider_type`."""
    import yaml

    text = files("stackconf_ogx").joinpath("policies", f"{name}.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    sets: Mapping[str, Sequence[str]] = data["sets"]

    def paths(entry: Mapping[str, Sequence[str]], key: str) -> frozenset[str]:
        found: list[str] = []
        for path in entry.get(key, ()):
            found += sets[path[1:]] if path.startswith("+") else [path]
        return frozenset(found)

    return {
        key: Policy(
            paths(entry, "allow"),
            paths(entry, "allow_without_credential"),
            urls=tuple(entry.get("urls", ())),
        )
        for key, entry in data["types"].items()
    }


@frozen
class Wishes:
    """What the operator says about one type."""

    allow: tuple[str, ...] = ()
    guarded: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def paths(self) -> Iterable[tuple[str, int, str]]:
        """Each path with the key and the place in its list."""
        for key, listed in zip(KEYS, (self.allow, self.guarded, self.deny), strict=True):
            for number, path in enumerate(listed):
                yield key, number, path


@frozen
class Operators:
    """The `policy` setting of a stack file, by type, and what is wrong with its form."""

    wishes: Mapping[str, Wishes] = field(factory=dict)
    issues: tuple[Issue, ...] = ()


def operators(stack: StackFile, types: Iterable[str], label: str) -> Operators:
    """What a stack file says about the types that the runtime has."""
    keys = list(types)
    given: Mapping[Any, Any] = stack.settings.get("policy", {})
    issues: list[Issue] = []
    wishes: dict[str, Wishes] = {}
    for key, entry in given.items():
        if key not in keys:
            hint = did_you_mean(str(key), keys) or "`stackconf providers list --types` shows them"
            issues.append(bad(stack, f"{label} has no type `{key}`", (key,), hint, key=True))
        elif not isinstance(entry, Mapping):
            hint = f"write `{key}: {{allow: [...], deny: [...]}}`"
            issues.append(bad(stack, "must be a mapping", (key,), hint))
        else:
            wishes[key] = Wishes(*(_listed(stack, key, entry, name, issues) for name in KEYS))
            for name in entry:
                if name not in KEYS:
                    hint = did_you_mean(str(name), KEYS) or f"it has {', '.join(KEYS)}"
                    issues.append(bad(stack, f"unknown key `{name}`", (key, name), hint, key=True))
    return Operators(wishes, tuple(issues))


def _listed(
    stack: StackFile, key: str, entry: Mapping[Any, Any], name: str, issues: list[Issue]
) -> tuple[str, ...]:
    given = entry.get(name) or ()
    if isinstance(given, list) and all(isinstance(path, str) and path for path in given):
        return tuple(given)
    if given != ():
        hint = f"write `{name}: [field, other.field]`"
        issues.append(bad(stack, "must be a list of fields", (key, name), hint))
    return ()


def bad(
    stack: StackFile, message: str, path: Sequence[str | int], hint: str = "", *, key: bool = False
) -> Issue:
    """An issue about the `policy` setting."""
    at = (*SECTION, *path)
    where = (stack.document.position(at, key=True) if key else None) or stack.document.nearest(at)
    shown = ".".join(str(each) for each in at if not isinstance(each, int))
    return Issue(message, path=shown, hint=hint, code="bad-policy", where=where)
