"""Every exception that stackconf raises on purpose.

StackconfError
 ├─ InvalidConfig      the input is wrong; carries the issues, all of them
 ├─ UnknownName        no such provider, field, configuration or revision
 ├─ HookError          a plugin's hook failed; says which plugin, distribution and version
 ├─ PluginLoadError    a plugin could not be found, imported or accepted
 ├─ StoreError         the store cannot be opened, read or written
 │   ├─ Conflict       another change came first
 │   ├─ ApplyBusy      another apply of the stack is running
 │   ├─ StoreDamaged   the store's file is damaged, or behind what was applied
 │   └─ RevisionLost   the revision existed, and was lost in a damage
 ├─ StalePlan          the world moved since the plan was made
 ├─ SecretError        a secret cannot be sealed or opened here
 ├─ Sealed             the stack's file is its only truth; registering is refused
 ├─ Unreachable        the server cannot be reached, or is no stackconf server
 ├─ AccessDenied       the server wants a token, or one that may do more
 └─ ApplyError         an apply failed and was rolled back; carries the report

A person's mistake always ends in one of these, never in a bare `KeyError` or a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackconf.conflicts import FieldConflict
    from stackconf.store.base import RevisionSummary
    from stackconf.types import Issue


class StackconfError(Exception):
    """The root of the tree. `str()` is one line that a person can act on."""


class InvalidConfig(StackconfError):
    """The configuration is wrong. `issues` holds every problem, not only the first."""

    def __init__(self, message: str, issues: Sequence[Issue] = ()) -> None:
        super().__init__(message)
        self.issues = tuple(issues)

    @classmethod
    def of(cls, issues: Sequence[Issue]) -> InvalidConfig:
        """The error whose message is the first of the issues."""
        first = issues[0]
        message = str(first).replace(f"{first.level}: ", "", 1)
        more = f" (and {len(issues) - 1} more)" if len(issues) > 1 else ""
        return cls(message + more, issues)


class UnknownName(StackconfError):
    """No such provider, field, configuration or revision."""


class PluginLoadError(StackconfError):
    """A plugin could not be found, imported or accepted."""

    def __init__(self, plugin: str, problem: str, *, distribution: str = "", version: str = "") -> None:
        self.plugin = plugin
        self.distribution = distribution
        self.version = version
        self.problem = problem
        super().__init__(f"plugin {_named(plugin, distribution, version)}: {problem}")


class HookError(StackconfError):
    """A plugin's hook raised, hung, or returned the wrong thing. `__cause__` is what it raised.

    >>> str(HookError("default_config", "acme", "raised ValueError: no", distribution="acme-ai",
    ...               version="1.2", provider="inference/acme"))
    'inference/acme: default_config of plugin `acme` (acme-ai 1.2) raised ValueError: no'
    """

    def __init__(
        self,
        hook: str,
        plugin: str,
        problem: str,
        *,
        distribution: str = "",
        version: str = "",
        provider: str = "",
    ) -> None:
        self.hook = hook
        self.plugin = plugin
        self.problem = problem
        self.distribution = distribution
        self.version = version
        self.provider = provider
        place = f"{provider}: " if provider else ""
        super().__init__(f"{place}{hook} of plugin {_named(plugin, distribution, version)} {problem}")


class StoreError(StackconfError):
    """The store cannot be opened, read or written."""


class Conflict(StoreError):
    """Another change came first: the head is not the revision that was expected.

    `conflicts` are the fields that changed since (`FieldConflict`), `since` the revisions that did
    it, oldest first (`RevisionSummary`). A rollback is not `mergeable`: it is that revision or none.
    `problem` is what its line says after the two numbers; "" for "read it and try again".
    """

    def __init__(
        self,
        expected: int,
        head: int,
        conflicts: Sequence[FieldConflict] = (),
        since: Sequence[RevisionSummary] = (),
        *,
        problem: str = "",
        mergeable: bool = True,
    ) -> None:
        self.mergeable = mergeable
        self.expected = expected
        self.head = head
        self.conflicts = tuple(conflicts)
        self.since = tuple(since)
        self.problem = problem
        advice = problem or "read it and try again"
        super().__init__(f"expected revision {expected}, but the head is {head}; {advice}")


class ApplyBusy(StoreError):
    """Another apply of the same stack is running."""


class StoreDamaged(StoreError):
    """What the store's file holds cannot be right. `path` is the file, `problem` what is wrong, `hint`
    what to do.
    """

    def __init__(
        self,
        path: object,
        problem: str,
        hint: str = "`stackconf store recover` moves it aside and saves what can be read",
    ) -> None:
        self.path = str(path)
        self.problem = problem
        self.hint = hint
        super().__init__(f"store {path} {problem}; {hint}")


class RevisionLost(StoreError):
    """The revision existed, and what it held was lost when the store was damaged; `why` says how."""

    def __init__(self, revision: int, why: str) -> None:
        self.revision = revision
        self.why = why
        super().__init__(f"revision {revision} is lost: {why}")


class StalePlan(StackconfError):
    """What the plan was made from has moved since. `moved` says what, one line each."""

    def __init__(self, moved: Sequence[str]) -> None:
        self.moved = tuple(moved)
        super().__init__(f"the plan is stale: {'; '.join(moved)}; plan again")


class SecretError(StackconfError):
    """A secret cannot be sealed or opened here. `problem` says why, `hint` what to do.

    >>> str(SecretError("there is no key here", "set one"))
    'there is no key here; set one'
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        self.problem = problem
        self.hint = hint
        super().__init__(f"{problem}; {hint}" if hint else problem)


class Sealed(StackconfError):
    """The stack file is the only truth; registering is refused."""


class Unreachable(StackconfError):
    """The server cannot be reached, or what answers there is no stackconf server."""


class AccessDenied(StackconfError):
    """The server wants a token, or one that may do more."""


class ApplyError(StackconfError):
    """An apply failed. `report` says what was applied, rolled back and not attempted."""

    def __init__(self, message: str, report: object) -> None:
        super().__init__(message)
        self.report = report


def _named(plugin: str, distribution: str, version: str) -> str:
    dist = f"{distribution} {version}".strip()
    return f"`{plugin}`" + (f" ({dist})" if dist else "")
