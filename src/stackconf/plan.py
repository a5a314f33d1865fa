"""What would change, and at what cost: the effective configuration against what is applied.

A plan is plain data made by pure functions. It carries what it was made from (revision, stack
file digest, hardware fingerprint), so that apply can refuse it when any of them has moved.
Secrets stand in it as keyed digests, enough to see *that* one changed and never what it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from attrs import evolve, field, frozen

from stackconf.redact import REDACTED, redact_text
from stackconf.resolve.layers import Path, value_at
from stackconf.resolve.origins import Origins
from stackconf.resolve.render import Renderer
from stackconf.types import Issue, LayerName, Provider, UpdateClass

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stackconf.hardware.facts import Hardware
    from stackconf.resolve.resolve import Resolved
    from stackconf.stackfile.model import StackFile

Kind: TypeAlias = Literal["join", "change", "leave", "restore"]
"""`restore`: nobody knows what it runs with, and it is to have what it had again."""
Snapshot: TypeAlias = Mapping[str, Any]
Digest: TypeAlias = Callable[[str], str]

SECRET = "$secret"  # noqa: S105 (the key that marks a digest)
UNKNOWN = "$unknown"
"""The key that marks a snapshot of which nobody can say whether it is what runs. Its value says
whether anything was known to run before.
"""
_COST: dict[UpdateClass, int] = {"in_place": 0, "reload": 1, "restart": 2}


@frozen
class FieldChange:
    """One leaf that would change. Values are redacted; `before` is `None` for a joining provider, and for
    one of which nobody knows what it runs with.
    """

    path: str
    before: object
    after: object
    update: UpdateClass
    layer: LayerName
    source: str
    reason: str = ""


@frozen
class ProviderChange:
    """What would happen to one provider.

    `update` is the costliest update class among its fields. A joining provider lists every field
    that some layer set or the class computed; the class's defaults are counted in `class_defaults`.

    `target` and `base` are keyed digests of all that it would have and of all that it has, secrets
    included (see `mark`); empty where it leaves, or where nothing is applied.

    `known` is false where nobody can say what it runs with: it is told everything anew, and its fields
    are listed as for one that joins.
    """

    provider: Provider
    kind: Kind
    update: UpdateClass
    fields: tuple[FieldChange, ...] = ()
    class_defaults: int = 0
    target: str = ""
    base: str = ""
    known: bool = True


@frozen
class Plan:
    """Everything that an apply would do, in the order in which it would.

    `hardware` are the facts behind the fingerprint, to say which of them moved.
    """

    base_revision: int
    stack_digest: str
    hardware_fingerprint: str
    changes: tuple[ProviderChange, ...] = ()
    unchanged: tuple[str, ...] = ()
    issues: tuple[Issue, ...] = ()
    hardware: Hardware | None = field(default=None, eq=False, repr=False)

    @property
    def errors(self) -> tuple[Issue, ...]:
        """The issues that stop an apply."""
        return tuple(issue for issue in self.issues if issue.level == "error")

    @property
    def unmanaged(self) -> tuple[Issue, ...]:
        """The issues that only say that a provider is left alone, since no plugin knows its type."""
        return tuple(issue for issue in self.issues if is_unmanaged(issue))

    def __bool__(self) -> bool:
        """Whether anything would change."""
        return bool(self.changes)


def is_unmanaged(issue: Issue) -> bool:
    """Whether an issue only says that a provider is left alone."""
    return issue.code == "unknown-type" and issue.level == "warning"


@frozen
class AppliedRecord:
    """What the store knows to be applied to one provider, and since when (UTC, ISO 8601)."""

    provider: Provider
    revision: int
    snapshot: Snapshot
    at: str = field(default="", eq=False)


def unknown(
    provider: Provider, before: AppliedRecord | None, target: Snapshot | None = None
) -> AppliedRecord:
    """The record of a provider of which nobody can say what it runs with: with what is last known,
    or, where nothing ran before, with what it was to run with.

    >>> acme = Provider("inference", "acme", "remote::acme")
    >>> record = unknown(acme, AppliedRecord(acme, 3, {"port": 80}))
    >>> is_unknown(record), last_known(record)
    (True, {'port': 80})
    """
    if before is None:
        return AppliedRecord(provider, 0, {**(target or {}), UNKNOWN: "joined"})
    if is_unknown(before):
        return before
    return evolve(before, snapshot={**before.snapshot, UNKNOWN: "changed"})


def place_of(provider: Provider, applied: Mapping[str, AppliedRecord]) -> str:
    """The key of a provider's record: its own, unless one of another type has that or had it when
    this one came, so that both are remembered until one of them has left.

    >>> old, new = Provider("inference", "a", "remote::old"), Provider("inference", "a", "remote::new")
    >>> applied = {"inference/a": AppliedRecord(old, 1, {})}
    >>> place_of(old, applied), place_of(new, applied)
    ('inference/a', 'inference/a remote::new')
    """
    key = provider.key
    beside = f"{key} {provider.provider_type}"
    other = applied.get(key)
    taken = other is not None and other.provider.provider_type != provider.provider_type
    return beside if taken or beside in applied else key


def is_unknown(record: AppliedRecord | None) -> bool:
    """Whether nobody can say what a provider runs with."""
    return record is not None and UNKNOWN in record.snapshot


def last_known(record: AppliedRecord | None) -> Snapshot | None:
    """What a provider ran with when that was last known; `None` where it did not run."""
    if record is None or record.snapshot.get(UNKNOWN) == "joined":
        return None
    return {key: value for key, value in record.snapshot.items() if key != UNKNOWN}


@frozen
class _Digester:
    key: bytes = field(repr=False)

    def __call__(self, secret: str) -> str:
        return hashlib.blake2b(secret.encode(), key=self.key, digest_size=16).hexdigest()


def digester(key: bytes) -> Digest:
    """Digests of secrets, keyed by the store's own random key, so that equal secrets in two
    stores, or a dictionary of likely ones, cannot be compared. Those of one key are equal.
    """
    return _Digester(key)


def mark(provider: Provider, snapshot: Snapshot, digest: Digest) -> str:
    """A keyed digest of a provider's whole snapshot, in which secrets are keyed digests already.

    >>> one = Provider("inference", "one", "remote::acme")
    >>> digest = digester(b"key")
    >>> mark(one, {"a": 1, "b": 2}, digest) == mark(one, {"b": 2, "a": 1}, digest)
    True
    >>> mark(one, {"a": 1}, digest) == mark(one, {"a": True}, digest)
    False
    """
    whole = json.dumps([provider.provider_type, snapshot], sort_keys=True, separators=(",", ":"))
    return digest(f"snapshot:{whole}")


def snapshot(resolved: Resolved, digest: Digest) -> Snapshot:
    """A provider's effective configuration as it is kept and compared: no secret in the clear.

    It is made once for a provider that stays as it was resolved: a plan looks at all of them.
    """
    kept = resolved.snapshot
    if kept is None or kept[0] != digest:
        made = {} if resolved.config is None else snapshot_of(resolved.config, digest)
        kept = resolved.snapshot = digest, made
    return kept[1]


def snapshot_of(config: BaseModel, digest: Digest) -> Snapshot:
    """A configuration as it is kept and compared: no secret in the clear."""

    def secret(text: str) -> object:
        return {SECRET: digest(text), "shown": REDACTED}

    def url(text: str) -> object:
        shown = redact_text(text)
        return text if shown == text else {SECRET: digest(text), "shown": shown}

    return Renderer(secret=secret, url=url).render(config)


def restored(
    record: AppliedRecord, config_class: type[BaseModel], now: BaseModel | None, digest: Digest
) -> BaseModel | None:
    """What is applied, as an object; `None` where the class does not take it any more.

    The store keeps no secret. One that is the same `now` is taken from there; any other is left
    out, or is empty text where its class requires it.
    """
    revealed = None if now is None else _REVEALED.render(now)
    known = {key: value for key, value in record.snapshot.items() if key != UNKNOWN}
    for instead in (_LEFT_OUT, ""):
        values = _with_secrets(known, revealed, digest, instead)
        try:
            return config_class.model_validate(values, by_alias=True, by_name=True)
        except Exception:  # noqa: BLE001, S112 (a plugin's validator may raise anything)
            continue
    return None


_LEFT_OUT: Any = object()
_REVEALED = Renderer(secret=lambda text: text, url=lambda text: text)


def _with_secrets(value: Any, now: Any, digest: Digest, instead: Any) -> Any:
    if isinstance(value, Mapping) and SECRET in value:
        return _secret_of(value, now, digest, instead)
    if isinstance(value, Mapping):
        pairs = [
            (key, _with_secrets(inner, value_at(now, (key,)), digest, instead))
            for key, inner in value.items()
        ]
        return {key: inner for key, inner in pairs if inner is not _LEFT_OUT}
    if isinstance(value, list):
        return [
            _with_secrets(inner, value_at(now, (index,)), digest, "") for index, inner in enumerate(value)
        ]
    return value


def _secret_of(kept: Mapping[str, Any], now: Any, digest: Digest, instead: Any) -> Any:
    shown = kept["shown"]
    if isinstance(now, str) and (digest(now) == kept[SECRET] or redact_text(now) == shown != REDACTED):
        return now
    return instead if shown == REDACTED else shown.replace(REDACTED, "")


def make_plan(
    resolved: Mapping[str, Resolved],
    applied: Mapping[str, AppliedRecord],
    *,
    digest: Digest,
    base_revision: int,
    stack: StackFile | None,
    hardware_fingerprint: str,
    issues: Sequence[Issue] = (),
    leaving_needs: Mapping[str, Sequence[str]] | None = None,
) -> Plan:
    """The plan from what is applied to what is resolved, dependencies first, leavers last.

    A provider that became another type leaves as the old one before it joins as the new one.
    `leaving_needs` are the apis that leaving providers depend on, by provider key.
    """
    changes: dict[str, ProviderChange] = {}
    unchanged: list[str] = []
    for key, each in resolved.items():
        if each.config is None:
            continue
        change = _change_of(each, applied.get(place_of(each.provider, applied)), digest, stack)
        if change is None:
            unchanged.append(key)
        else:
            changes[key] = change
    ordered, cycle = _in_dependency_order(changes, resolved)
    return Plan(
        base_revision,
        stack.digest if stack else "",
        hardware_fingerprint,
        (
            *_with_replaced(ordered, applied, digest),
            *_leaving(resolved, applied, leaving_needs or {}, digest),
        ),
        tuple(unchanged),
        (*issues, *cycle),
    )


def _with_replaced(
    ordered: Sequence[ProviderChange], applied: Mapping[str, AppliedRecord], digest: Digest
) -> Iterator[ProviderChange]:
    for change in ordered:
        record = applied.get(change.provider.key)
        if record is not None and record.provider != change.provider:
            yield _left(record, digest)
        yield change


def _leaving(
    resolved: Mapping[str, Resolved],
    applied: Mapping[str, AppliedRecord],
    needs: Mapping[str, Sequence[str]],
    digest: Digest,
) -> list[ProviderChange]:
    """Those that are applied and no longer in the stack, each before those it depends on."""
    wanted = {each.provider for each in resolved.values()}
    gone = {
        key: record
        for key, record in applied.items()
        if key not in resolved and record.provider not in wanted
    }
    graph = {record.provider.api: dict.fromkeys(needs.get(key, ())) for key, record in gone.items()}
    rank = {api: number for number, api in enumerate(_sorted_apis(graph) or ())}
    ordered = sorted(gone.values(), key=lambda record: -rank.get(record.provider.api, 0))
    return [_left(record, digest) for record in ordered]


def _left(record: AppliedRecord, digest: Digest) -> ProviderChange:
    return ProviderChange(
        record.provider, "leave", "restart", base=mark(record.provider, record.snapshot, digest)
    )


def _change_of(
    resolved: Resolved, record: AppliedRecord | None, digest: Digest, stack: StackFile | None
) -> ProviderChange | None:
    now = snapshot(resolved, digest)
    if record is not None and _is_same(resolved, now, record.snapshot):
        return None
    target = mark(resolved.provider, now, digest)
    if record is None:
        return evolve(_joining(resolved, stack), target=target)
    base = mark(record.provider, record.snapshot, digest)
    if is_unknown(record):
        return evolve(_joining(resolved, stack), kind="change", target=target, base=base, known=False)
    paths = changed_paths(record.snapshot, now)
    told = Origins(resolved, stack)
    fields = tuple(_field_change(told, path, record.snapshot, now) for path in paths)
    return ProviderChange(resolved.provider, "change", _costliest(fields), fields, target=target, base=base)


def _is_same(resolved: Resolved, now: Snapshot, applied: Snapshot) -> bool:
    """Whether a provider has what it is to have; compared once for as long as both are the same objects."""
    pair = resolved.equal
    if pair is not None and pair[0] is now and pair[1] is applied:
        return True
    if now != applied:
        return False
    resolved.equal = now, applied
    return True


def _joining(resolved: Resolved, stack: StackFile | None) -> ProviderChange:
    told = Origins(resolved, stack)
    fields = []
    untouched = 0
    for path in _paths(told.shown, {}):
        origin = told.of(path, value_at(told.shown, path))
        if origin.layer == "class" and not origin.reason:
            untouched += 1
            continue
        fields.append(
            FieldChange(
                origin.path, None, origin.value, origin.update, origin.layer, origin.source, origin.reason
            )
        )
    return ProviderChange(resolved.provider, "join", "restart", tuple(fields), untouched)


def _field_change(told: Origins, path: Path, before: Snapshot, now: Snapshot) -> FieldChange:
    after = shown(_at(now, path))
    origin = told.of(path, after)
    if value_at(now, path, _NOTHING) is _NOTHING:
        gone = "no layer gives it now"
        return FieldChange(origin.path, shown(_at(before, path)), None, origin.update, "class", gone)
    return FieldChange(
        origin.path,
        shown(_at(before, path)),
        after,
        origin.update,
        origin.layer,
        origin.source,
        origin.reason,
    )


_NOTHING: Any = object()


def _at(data: Snapshot, path: Path) -> Any:
    return value_at(data, path, None)


def changed_paths(before: Snapshot, now: Snapshot) -> list[Path]:
    """The paths of the leaves in which two snapshots differ; a null is as good as nothing there.

    >>> changed_paths({"a": {"x": 1, "y": 2}}, {"a": {"x": 1, "y": 3}, "b": [], "c": None})
    [('a', 'y'), ('b',)]
    """
    return [path for path in _paths(before, now) if _at(before, path) != _at(now, path)]


def shown(value: Any) -> Any:
    """A snapshot, or a part of one, as people see it: redacted, without marks."""
    if isinstance(value, Mapping):
        if SECRET in value:
            return value["shown"]
        return {key: shown(inner) for key, inner in value.items() if key != UNKNOWN}
    return [shown(inner) for inner in value] if isinstance(value, list) else value


def _paths(*snapshots: Snapshot) -> list[Path]:
    """The leaf paths of all the snapshots, each once, in order of appearance."""
    found: dict[Path, None] = {}
    for each in snapshots:
        found.update(dict.fromkeys(_leaf_paths(each, ())))
    return [path for path in found if not any(other[: len(path)] == path for other in found if other != path)]


def _leaf_paths(data: Any, above: Path) -> Iterator[Path]:
    if isinstance(data, Mapping) and SECRET not in data and (data or not above):
        for key, value in data.items():
            yield from _leaf_paths(value, (*above, key))
    elif above:
        yield above


def _costliest(fields: Sequence[FieldChange]) -> UpdateClass:
    return max((change.update for change in fields), key=_COST.__getitem__, default="restart")


def _in_dependency_order(
    changes: Mapping[str, ProviderChange], resolved: Mapping[str, Resolved]
) -> tuple[list[ProviderChange], list[Issue]]:
    """Providers after those of the apis they depend on; otherwise in the stack file's order."""
    needs: dict[str, dict[str, None]] = {}
    for each in resolved.values():  # those that stay as they are stand between others
        owned = each.owned
        needs.setdefault(each.provider.api, {}).update(
            dict.fromkeys(owned.kind.api_dependencies if owned else ())
        )
    try:
        apis = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        issue = Issue(
            f"the apis depend on each other in a circle ({circle}); applied in the stack file's order",
            level="warning",
            code="dependency-cycle",
        )
        return list(changes.values()), [issue]
    rank = {api: number for number, api in enumerate(apis)}
    return sorted(changes.values(), key=lambda change: rank[change.provider.api]), []


def _sorted_apis(needs: Mapping[str, Mapping[str, None]]) -> list[str] | None:
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError:
        return None
