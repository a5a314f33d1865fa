"""Where each provider stands: what is wanted, what was tried last, and what it runs with.

A pure reading of a plan and of what the store holds. What an attempt tried and what is applied are
kept apart, so that a change which was rolled back stays visible: tried, failed, why, and what is
there now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import frozen

from stackconf.plan import is_unknown, last_known

if TYPE_CHECKING:
    from stackconf.plan import Plan
    from stackconf.store.base import Holder, OpenAttempt, Status, View

Standing: TypeAlias = Literal[
    "applied", "to apply", "applying", "to leave", "unknown", "invalid", "not managed"
]
"""`applied`: it runs with what is wanted. `to apply`: it does not yet. `applying`: an apply that runs is
at it, or was. `to leave`: it runs and is in the stack file no more. `unknown`: nobody can say what it
runs with. `invalid`: what is wanted does not validate; what is applied stays. `not managed`: no plugin
knows its type, and it is left alone.
"""


@frozen
class Tried:
    """The last attempt that touched a provider, or would have: `state` and `error` are its outcome."""

    attempt: int
    revision: int
    state: str
    error: str
    at: str


@frozen
class ProviderStatus:
    """One provider. `applied` is the revision that brought what it runs with; `None` if it does not
    run, and for `unknown` and `applying` that which is last known.
    """

    provider: str
    standing: Standing
    desired: int | None
    tried: Tried | None = None
    applied: int | None = None


@frozen
class StackStatus:
    """A whole stack at one moment. `cut_off` is an attempt whose process was killed. `lost` says what
    the store has lost since the last apply, which keeps any other from it; "" if nothing.
    """

    revision: int
    providers: tuple[ProviderStatus, ...]
    running: Holder | None = None
    cut_off: OpenAttempt | None = None
    lost: str = ""

    @property
    def settled(self) -> bool:
        """Whether every provider that is managed runs with what is wanted."""
        return all(each.standing in {"applied", "not managed"} for each in self.providers)

    def of(self, standing: Standing) -> tuple[ProviderStatus, ...]:
        """The providers of one standing."""
        return tuple(each for each in self.providers if each.standing == standing)


def status_of(
    plan: Plan,
    view: View,
    last: Mapping[str, Status],
    keys: Sequence[str],
    *,
    running: Holder | None = None,
    lost: str = "",
) -> StackStatus:
    """The status of every provider of a stack, in the file's order, then of those that are to leave."""
    changed = {change.provider.key for change in plan.changes}
    known = changed | set(plan.unchanged)
    gone = [key for key in view.applied if key not in keys]
    unmanaged = {issue.provider for issue in plan.unmanaged}
    attempt = view.open_attempt
    at_work = {step.provider.key for step in attempt.touched} if running and attempt else set()
    providers = []
    for key in (*keys, *gone):
        record = view.applied.get(key)
        standing: Standing = "applied"
        if is_unknown(record):
            standing = "applying" if key in at_work else "unknown"
        elif key in gone:
            standing = "to leave"
        elif key in unmanaged:
            standing = "not managed"
        elif key not in known:
            standing = "invalid"
        elif key in changed:
            standing = "to apply"
        applied = None if record is None or last_known(record) is None else record.revision
        desired = None if key in gone else plan.base_revision
        providers.append(ProviderStatus(key, standing, desired, _tried(last.get(key)), applied))
    cut_off = attempt if running is None else None
    return StackStatus(plan.base_revision, tuple(providers), running, cut_off, lost)


def _tried(status: Status | None) -> Tried | None:
    if status is None:
        return None
    return Tried(status.attempt, status.revision, status.state, status.error, status.at)
