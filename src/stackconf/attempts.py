"""Attempts: a plan carried out, written down before anything is touched and when it has ended.

The journal holds every provider that the attempt will touch, so that whatever instant its process is
killed at, the next attempt knows of which providers nobody can say what they run with. It tells those
everything anew, and if it fails it gives them what was last known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from stackconf.apply import Before, Observer, Outcome, Report, Step, Transaction
from stackconf.errors import ApplyError, StoreError
from stackconf.plan import (
    AppliedRecord,
    Digest,
    Plan,
    ProviderChange,
    Snapshot,
    digester,
    is_unknown,
    last_known,
    place_of,
    restored,
    snapshot_of,
    unknown,
)
from stackconf.registry.registry import Owned
from stackconf.store.base import JournalStep
from stackconf.store.lastgood import remember

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stackconf.registry.registry import Registry
    from stackconf.store.base import Store, View
    from stackconf.types import Provider


class Attempts:
    """Carries out plans, and remembers what the providers of this process run with.

    `wanted` gives a provider's effective configuration by its key, `None` where there is none.
    """

    def __init__(self, registry: Registry, wanted: Callable[[str], BaseModel | None]) -> None:
        self._registry = registry
        self._wanted = wanted
        self._running: dict[Provider, tuple[Snapshot, BaseModel]] = {}

    def carry_out(
        self,
        plan: Plan,
        store: Store,
        view: View,
        *,
        actor: str,
        require_healthy: bool = False,
        observer: Observer | None = None,
    ) -> Report:
        """Carry out a plan that was made from `view`; the caller holds `store.applying`.

        Raises `ApplyError` when a provider failed and the rest was taken back, and `StoreError` when
        the journal could not be begun; then nothing was touched.
        """
        took_over = view.open_attempt.number if view.open_attempt else 0
        if not plan.changes:
            return Report("nothing", revision=plan.base_revision)
        digest = digester(store.digest_key())
        steps = [self._step(change, view.applied, digest) for change in plan.changes]
        # Taken before a plugin has the objects in its hands.
        targets = [{} if step.config is None else snapshot_of(step.config, digest) for step in steps]
        journal = [
            JournalStep(change.provider, change.kind, target)
            for change, target in zip(plan.changes, targets, strict=True)
        ]
        attempt = store.begin(plan.base_revision, actor, journal)
        journaled = _Journal(store, attempt)
        with closing(
            Transaction(steps, require_healthy=require_healthy, observer=observer, journal=journaled)
        ) as transaction:
            report = Report("failed")
            try:
                report = transaction.run()
            finally:
                if report.state == "failed":
                    report = transaction.report("failed")
                report = evolve(report, revision=plan.base_revision, attempt=attempt, took_over=took_over)
                records, left = _records(plan, report, view.applied, targets, transaction.brought_back)
                _write_down(store, report, records, left)
                report = evolve(report, warnings=remember(store, plan.stack_digest))
            self._remember(report, records)
            if report.state == "failed":
                raise ApplyError(_failure(report), report)
            return evolve(report, warnings=(*report.warnings, *transaction.retire()))

    def last_applied(
        self, applied: Mapping[str, AppliedRecord], digest: Digest
    ) -> dict[str, BaseModel] | None:
        """The configurations that were applied last, rebuilt; `None` where one of them cannot be."""
        found: dict[str, BaseModel] = {}
        for key, record in applied.items():
            owned = self._registry.find(record.provider.api, record.provider.provider_type)
            if not isinstance(owned, Owned):
                continue
            before = self._before(record, owned, self._wanted(key), digest)
            if before.config is None or before.problem or not before.certain:
                return None
            found[key] = before.config
        return found

    def _remember(self, report: Report, records: Mapping[str, AppliedRecord]) -> None:
        for outcome in report.of("applied"):
            record = records.get(outcome.provider) if outcome.kind in {"join", "change"} else None
            config = self._wanted(outcome.provider) if record else None
            if record is not None and config is not None:
                self._running[record.provider] = (record.snapshot, config)

    def _step(self, change: ProviderChange, applied: Mapping[str, AppliedRecord], digest: Digest) -> Step:
        provider = change.provider
        record = applied.get(place_of(provider, applied))
        owned = self._registry.find(provider.api, provider.provider_type)
        if not isinstance(owned, Owned):
            return Step(change, None, None, None)
        wanted = self._wanted(provider.key)
        before = self._before(record, owned, wanted, digest)
        if change.kind == "restore":
            target = self._previous(record, owned, None, digest) if record and before.config is None else None
            return Step(change, owned.hooks, before.config, target, before)
        config = None if change.kind == "leave" else wanted
        previous = self._previous(record, owned, config, digest) if record else None
        return Step(change, owned.hooks, config, previous, before)

    def _before(
        self, record: AppliedRecord | None, owned: Owned, now: BaseModel | None, digest: Digest
    ) -> Before:
        """What a provider is to have again when an apply fails."""
        known = last_known(record)
        certain = not is_unknown(record)
        if record is None or known is None:
            return Before(certain=certain)
        running = self._running.get(record.provider)
        if running is not None and running[0] == known:
            return Before(running[1], certain)
        config = restored(evolve(record, snapshot=known), owned.config_class, now, digest)
        if config is None or snapshot_of(config, digest) != known:
            why = "what it had cannot be rebuilt: a secret has changed, or its class takes it no more"
            return Before(config, certain, why)
        return Before(config, certain)

    def _previous(
        self,
        record: AppliedRecord,
        owned: Owned,
        now: BaseModel | None,
        digest: Digest,
    ) -> BaseModel | None:
        """The applied configuration as an object: the one that runs, or rebuilt from the store.

        Where nobody knows what runs, a provider that stays has none and is told everything anew; one
        that leaves is given what was last known.
        """
        if is_unknown(record) and now is not None:
            return None
        running = self._running.get(record.provider)
        if running is not None and running[0] == record.snapshot:
            return running[1]
        return restored(record, owned.config_class, now, digest)


def _records(
    plan: Plan,
    report: Report,
    before: Mapping[str, AppliedRecord],
    targets: Sequence[Snapshot],
    brought_back: Collection[int],
) -> tuple[dict[str, AppliedRecord], list[str]]:
    """What is applied after an attempt, where that changed, and the providers that left."""
    records: dict[str, AppliedRecord] = {}
    left: dict[str, None] = {}
    stuck: set[str] = set()
    for position, (change, outcome) in enumerate(zip(plan.changes, report.outcomes, strict=True)):
        key, place = change.provider.key, place_of(change.provider, before)
        old = before.get(place)
        known = last_known(old)
        back = position in brought_back or (change.kind == "restore" and outcome.state == "applied")
        if outcome.state == "unknown":
            records[place] = unknown(change.provider, old, targets[position])
        elif back and is_unknown(old):
            if old is None or known is None:
                left[place] = None
            else:
                records[place] = evolve(old, snapshot=known)
        elif change.kind == "leave":
            if outcome.state == "applied":
                left[place] = None
            else:
                stuck.add(key)  # the old type is still to leave, so it is what stays recorded there
        elif outcome.state == "applied" and key in stuck:
            records[place] = unknown(change.provider, old, targets[position])
        elif outcome.state == "applied":
            left[place] = None
            records[key] = AppliedRecord(change.provider, plan.base_revision, targets[position])
    return records, [key for key in left if key not in records]


@frozen
class _Journal:
    """The journal of one attempt. Its first step was written down when it began."""

    store: Store
    attempt: int

    def touch(self, position: int) -> None:
        if position:
            self.store.touch(self.attempt, position)

    def undo(self) -> None:
        self.store.undo(self.attempt)


def _write_down(
    store: Store, report: Report, records: Mapping[str, AppliedRecord], left: Sequence[str]
) -> None:
    try:
        store.finish(report.attempt, report, records, left)
    except StoreError as error:
        how = f"failed: {_failure(report)}" if report.state == "failed" else "was applied"
        problem = f"attempt {report.attempt} {how}; that could not be written down ({error})"
        raise ApplyError(f"{problem}, so the next apply goes through its providers again", report) from error


def _failure(report: Report) -> str:
    stopped = tuple(each for each in report.of("not_attempted") if each.error)
    failed = report.of("failed") or report.of("unknown") or stopped
    first: Outcome | None = next(iter(failed), None)
    where = f"{first.provider}: {first.error}" if first else "the apply failed"
    count = len(report.of("rolled_back"))
    back = f"; {count} rolled back" if count else ""
    unknown = report.of("unknown")
    lost = f"; state unknown: {', '.join(outcome.provider for outcome in unknown)}" if unknown else ""
    return f"{where}{back}{lost}"
