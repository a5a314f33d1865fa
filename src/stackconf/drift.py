"""What runs against what the files say: where a stack has drifted, and who or what did it.

Applied is what the store's snapshots say. The files are the stack file, the hardware's defaults
and the classes, without any assigned configuration. Secrets are compared by keyed digests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from attrs import field, frozen

from stackconf.errors import StackconfError
from stackconf.plan import (
    AppliedRecord,
    Digest,
    changed_paths,
    digester,
    is_unknown,
    last_known,
    shown,
    snapshot,
)
from stackconf.resolve.layers import MISSING, Path, dotted, value_at
from stackconf.resolve.origins import Origins, covers
from stackconf.resolve.resolve import Overlay

if TYPE_CHECKING:
    from stackconf.manager import Manager
    from stackconf.resolve.resolve import Resolved, TakenOverlay
    from stackconf.store.base import Revision, Store
    from stackconf.types import Issue, LayerName, Provider

Kind: TypeAlias = Literal["differs", "other_type", "not_applied", "not_in_file", "unknown", "invalid"]


@frozen
class FieldDrift:
    """One leaf that is applied otherwise than the files say. Values are redacted.

    Where a configuration brought the applied value, `configuration`, `revision` and `actor` name it
    (`actor` is empty where the store no longer says). Otherwise `changed` lists what may have changed
    since: `stack file`, `environment`, `hardware`, `plugin`, `configuration`. `file_layer` and
    `file_source` say what gives the files' value; the layer is `None` where nothing does.
    """

    path: str
    applied: object
    file: object
    configuration: str = ""
    revision: int = 0
    actor: str = ""
    changed: tuple[str, ...] = ()
    file_layer: LayerName | None = None
    file_source: str = ""


@frozen
class ProviderDrift:
    """One provider that drifted, and how.

    `differs`: in the `fields`. `other_type`: another provider type is applied, `detail` says which.
    `not_applied`: the file has it, and it was never applied. `not_in_file`: the other way round.
    `unknown`: nobody can say what it runs with; the `fields` are those of what was last known.
    `invalid`: what the files say of it is not valid, so nothing can be compared. `revision` is the one
    at which it was applied, 0 where it was not.
    """

    provider: Provider
    kind: Kind
    revision: int = 0
    fields: tuple[FieldDrift, ...] = ()
    detail: str = ""


@frozen
class Drift:
    """Every provider that is applied otherwise than the files say; true where there is one."""

    stack: str
    providers: tuple[ProviderDrift, ...] = ()
    same: tuple[str, ...] = ()
    issues: tuple[Issue, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything drifted."""
        return bool(self.providers)


def find_drift(manager: Manager, store: Store) -> Drift:
    """Compare what is applied with what the files say. Changes nothing."""
    resolution = manager.resolve_files()
    applied = store.applied()
    digest = digester(store.digest_key())
    past = Past(manager, store, digest)
    found: list[ProviderDrift] = []
    same: list[str] = []
    for key, resolved in resolution.providers.items():
        each = _of_provider(resolved, applied.get(key), past)
        if each is not None:
            found.append(each)
        elif key in applied:
            same.append(key)
    off = {f"{entry.api}/{entry.provider_type}" for entry in manager.stack.disabled}
    for key, record in applied.items():
        if key not in resolution.providers:
            detail = "it may be one that is disabled" if record.provider.type_key in off else ""
            found.append(ProviderDrift(record.provider, "not_in_file", record.revision, detail=detail))
    return Drift(manager.stack.name, tuple(found), tuple(same), resolution.issues)


def _of_provider(resolved: Resolved, record: AppliedRecord | None, past: Past) -> ProviderDrift | None:
    provider = resolved.provider
    wrong = [issue for issue in resolved.issues if issue.level == "error"]
    if record is None:
        if resolved.config is None and resolved.owned is None and not wrong:
            return None  # not managed
        return ProviderDrift(provider, "not_applied")
    if record.provider.provider_type != provider.provider_type:
        detail = f"{record.provider.provider_type} is applied"
        return ProviderDrift(provider, "other_type", record.revision, detail=detail)
    fields = past.fields(resolved, record) if resolved.config is not None else ()
    if is_unknown(record):
        return ProviderDrift(provider, "unknown", record.revision, fields)
    if resolved.config is None:
        return ProviderDrift(provider, "invalid", record.revision)
    return ProviderDrift(provider, "differs", record.revision, fields) if fields else None


@frozen
class Then:
    """A provider as it was resolved at the revision of its last apply, as far as that can be said."""

    resolved: Resolved | None = None
    values: Mapping[str, Any] = field(factory=dict, repr=False)
    readable: bool = True

    def brought(self, path: Path, applied: Any) -> TakenOverlay | None:
        """The configuration that gave the applied value of a path, the highest that says something."""
        for taken in reversed(self.resolved.overlays if self.resolved else ()):
            if covers(taken.values, path):
                same = not self.values or value_at(self.values, path, MISSING) == applied
                return taken if same else None
        return None


class Past:
    """Who brought what is applied: the configurations of the revision at which it was applied."""

    def __init__(self, manager: Manager, store: Store, digest: Digest) -> None:
        self._manager, self._store, self._digest = manager, store, digest
        self._revisions: dict[int, Revision | None] = {}

    def fields(self, resolved: Resolved, record: AppliedRecord) -> tuple[FieldDrift, ...]:
        """Where a provider's applied snapshot differs from a valid resolution of the files."""
        now = snapshot(resolved, self._digest)
        before = last_known(record)
        if before is None:
            return ()
        told = Origins(resolved, self._manager.stack)
        then = self.then(record)
        return tuple(self._field(path, before, now, told, then) for path in changed_paths(before, now))

    def then(self, record: AppliedRecord) -> Then:
        """The provider under the configurations of the revision at which it was applied."""
        revision = self._revision(record.revision)
        key = record.provider.key
        if revision is None:
            return Then(readable=False)
        if self._manager.provider(key) != record.provider:
            return Then()
        state = revision.state
        overlays = tuple(
            Overlay(name, state.configurations[name].revision, entry["config"])
            for name in state.assigned
            for entry in state.configurations[name].providers.get(record.provider.api, ())
            if entry["provider_id"] == record.provider.provider_id
        )
        resolved = self._manager.resolve_one(key, overlays, self._manager.overlays(state))
        return Then(resolved, snapshot(resolved, self._digest))

    def actor(self, revision: int) -> str:
        """Who made a revision; empty where the store no longer says."""
        found = self._revision(revision)
        return found.actor if found is not None else ""

    def _field(
        self, path: Path, before: Mapping[str, Any], now: Mapping[str, Any], told: Origins, then: Then
    ) -> FieldDrift:
        applied, of_file = value_at(before, path), value_at(now, path, MISSING)
        layer: LayerName | None = None
        source = ""
        changed: tuple[str, ...] = ("stack file", "hardware", "plugin")
        if of_file is not MISSING:
            origin = told.of(path, shown(of_file))
            layer, source = origin.layer, origin.source
            changed = _may_have_changed(origin.layer, origin.reason)
        if not then.readable:
            changed = ("configuration", *changed)
        taken = then.brought(path, applied)
        name, revision = (taken.overlay.name, taken.overlay.revision) if taken else ("", 0)
        return FieldDrift(
            dotted(path),
            shown(applied),
            None if of_file is MISSING else shown(of_file),
            name,
            revision,
            self.actor(revision) if taken else "",
            () if taken else changed,
            layer,
            source,
        )

    def _revision(self, number: int) -> Revision | None:
        if number not in self._revisions:
            try:
                self._revisions[number] = self._store.read(number)
            except StackconfError:  # damaged, or no longer kept
                self._revisions[number] = None
        return self._revisions[number]


def _may_have_changed(layer: LayerName, reason: str) -> tuple[str, ...]:
    """What can make the files give another value than the one that was applied."""
    if layer == "stack":
        return ("environment", "stack file") if reason else ("stack file",)
    if layer == "hardware":
        return "hardware", "stack file", "plugin"
    return "stack file", "hardware", "plugin"
