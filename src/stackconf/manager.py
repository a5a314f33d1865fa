"""The manager: discovery, defaults, overlays, plan and apply, across all providers of a stack.

It holds what is expensive (the registry, the hardware, the last resolution) and resolves again
only what a change touches. It writes to the store only in `apply`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property, partial
from secrets import token_bytes
from time import monotonic
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from stackconf.apply import Observer, Report
from stackconf.attempts import Attempts
from stackconf.deadline import hook_seconds, map_with_deadline
from stackconf.detectors import detectors_of
from stackconf.errors import HookError, InvalidConfig, PluginLoadError, SecretError, UnknownName
from stackconf.following import Following, following
from stackconf.plan import (
    Plan,
    ProviderChange,
    digester,
    is_unknown,
    is_unmanaged,
    make_plan,
)
from stackconf.registry.registry import Missing, Owned
from stackconf.resolve.blame import PLUGIN_DEFECT, dropped_issues, in_order
from stackconf.resolve.references import file_of, references_in
from stackconf.resolve.resolve import ALONE, Overlay, Resolved, agreement_issues, resolve_provider
from stackconf.store.lastgood import lost_since, refuse_lost
from stackconf.suggest import did_you_mean, known
from stackconf.types import Issue, Placement, Provider

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stackconf.hardware.facts import Hardware
    from stackconf.hardware.shares import Fault, Share
    from stackconf.registry.hooks import OwnerHooks
    from stackconf.registry.registry import Registry
    from stackconf.resolve.claims import Claim
    from stackconf.resolve.references import Opener
    from stackconf.resolve.render import Renderer
    from stackconf.stackfile.model import ProviderEntry, StackFile
    from stackconf.status import StackStatus
    from stackconf.store.base import Configuration, State, Store, View
    from stackconf.types import Accelerated

Overlays = Mapping[str, tuple[Overlay, ...]]
Followed = Mapping[str, Mapping[Provider, "BaseModel"]]
"""For each provider that follows others, their configurations."""

FACTS_KEEP = 5.0
"""Seconds after a look at the machine in which an apply does not look again."""


@frozen(eq=False, slots=False)
class Resolution:
    """Every provider of a stack, resolved; in the stack file's order."""

    providers: Mapping[str, Resolved]
    stack: StackFile
    overlays: Overlays
    unmatched: tuple[Issue, ...] = ()
    hardware: Hardware | None = field(default=None, repr=False)
    shares: Mapping[str, Share] = field(factory=dict, repr=False)
    """What of the accelerators each provider that was given a part of them may use."""
    misplaced: tuple[Issue, ...] = ()
    """What is wrong with the stack file's placement on this machine."""
    disagreements: tuple[Issue, ...] = ()
    """What plugins that look at several providers find wrong between them."""

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """What the providers' own fields take of the accelerators."""
        if self.hardware is None or not any(
            each.plan and each.plan.claims for each in self.providers.values()
        ):
            return ()
        from stackconf.resolve.claims import claims

        return tuple(claims(self.providers.values(), self.hardware, self.shares, self.stack))

    @property
    def issues(self) -> tuple[Issue, ...]:
        """Everything that is wrong or was dropped: in the order of the file, then what is not in it."""
        found = [*map(self._where_managed, self.stack.issues), *self.unmatched, *self.misplaced]
        if self.claims and self.hardware is not None:
            from stackconf.resolve.claims import claim_issues

            owned = {key: each.owned for key, each in self.providers.items()}
            flows = {key: each.kind.flow for key, each in owned.items() if each is not None}
            found += claim_issues(self.claims, self.hardware, self.shares, flows)
        for resolved in self.providers.values():
            found += [_with_way_out(issue, resolved) for issue in resolved.issues]
            plan = resolved.plan
            for taken in resolved.overlays:
                if plan is not None:
                    found += dropped_issues(resolved.provider, taken, plan)
        for issue in self.disagreements:
            found.append(_with_way_out(issue, self.providers[issue.provider]))
        return in_order(found)

    @property
    def errors(self) -> tuple[Issue, ...]:
        """The issues that stop an apply."""
        return tuple(issue for issue in self.issues if issue.level == "error")

    def rendered(self, renderer: Renderer) -> dict[str, Any]:
        """Every provider's configuration in the stack file's shape, every api of the stack, empty ones
        as `[]`.
        """
        rendered: dict[str, list[dict[str, Any]]] = {api: [] for api in sorted(self.stack.apis)}
        for resolved in self.providers.values():
            provider = resolved.provider
            config = {} if resolved.config is None else renderer.render(resolved.config, resolved.plan)
            rendered.setdefault(provider.api, []).append(
                {
                    "config": config,
                    "provider_id": provider.provider_id,
                    "provider_type": provider.provider_type,
                }
            )
        return {"providers": rendered}

    def _where_managed(self, issue: Issue) -> Issue:
        """What the file says wrong about the values of a provider that is left alone stops nothing."""
        resolved = self.providers.get(issue.provider)
        alone = resolved is not None and any(map(is_unmanaged, resolved.issues))
        of_values = issue.level == "error" and issue.path.startswith("config")
        return evolve(issue, level="warning") if alone and of_values else issue


@frozen(eq=False)
class _OverlayLayer:
    """The overlays of a state, from which those of the next state cost only what differs."""

    assigned: Mapping[str, Configuration] = field(factory=dict)
    parts: Mapping[str, Mapping[str, Overlay]] = field(factory=dict)
    """What each assigned configuration says, by provider."""
    overlays: Overlays = field(factory=dict)

    def next(self, assigned: Mapping[str, Configuration]) -> _OverlayLayer:
        """The layer of other assigned configurations, low to high."""
        same = {name for name, each in assigned.items() if self.assigned.get(name) == each}
        if [name for name in self.assigned if name in same] != [name for name in assigned if name in same]:
            same = set()  # a new order may change every provider
        parts = {name: self.parts[name] if name in same else _part(each) for name, each in assigned.items()}
        touched: dict[str, None] = {}
        for name, part in (*self.parts.items(), *parts.items()):
            if name not in same:
                touched.update(dict.fromkeys(part))
        overlays = dict(self.overlays)
        for key in touched:
            listed = tuple([part[key] for part in parts.values() if key in part])
            if listed:
                overlays[key] = listed
            else:
                del overlays[key]
        return _OverlayLayer(assigned, parts, overlays)


_NO_OVERLAYS = _OverlayLayer()


@frozen
class _Sharing:
    """Who has what of the accelerators, and what is wrong with the placement."""

    shares: Mapping[str, Share] = field(factory=dict)
    issues: tuple[Issue, ...] = ()


_NOT_SHARED = _Sharing()


def _with_way_out(issue: Issue, resolved: Resolved) -> Issue:
    """An error that a registered configuration brought, with its revision and what can be done."""
    if issue.level != "error":
        return issue
    for taken in resolved.overlays:
        name, revision = taken.overlay.name, taken.overlay.revision
        if issue.message.endswith(f"given by configuration `{name}`"):
            hint = f"{issue.hint or 'register it again'}, or `stackconf configurations unassign {name}`"
            return evolve(issue, message=f"{issue.message} (revision {revision})", hint=hint)
    return issue


_NOBODY = ""
"""The key of the overlays of which nobody can say for whom they are."""


def _little(wanting: Mapping[str, Accelerated]) -> list[str]:
    return [key for key, wants in wanting.items() if wants == "little"]


def _part(configuration: Configuration) -> dict[str, Overlay]:
    if configuration.problem:
        return {_NOBODY: Overlay(configuration.name, configuration.revision, {}, configuration.problem)}
    return {
        f"{api}/{entry['provider_id']}": Overlay(configuration.name, configuration.revision, entry["config"])
        for api, entries in configuration.providers.items()
        for entry in entries
    }


def _refer(overlays: Sequence[Overlay]) -> bool:
    return any(references_in(each.values) for each in overlays)


def _changed(before: Overlays, now: Overlays) -> list[str]:
    """The providers whose overlays differ. Most are the same object, so that is asked first."""
    changed = [
        key for key, listed in now.items() if (other := before.get(key, ())) is not listed and other != listed
    ]
    return changed + [key for key in before if key not in now]


class Manager:
    """Resolves, plans and applies one stack.

    `hardware` may be given as facts, which then stay; or as a function that looks at the machine.
    Without it the machine is discovered. Either is asked when something needs it, and again before
    an apply touches anything (`look_again`).
    """

    def __init__(
        self,
        stack: StackFile,
        registry: Registry,
        *,
        hardware: Hardware | Callable[[], Hardware] | None = None,
        skip_unknown: bool | None = None,
    ) -> None:
        self.stack = stack
        self.registry = registry
        self._look = hardware if callable(hardware) else partial(discover_with, registry)
        self._hardware = None if callable(hardware) else hardware
        self._looked_at: float | None = None
        """When the machine was looked at, by the monotonic clock; `None` for facts that were given."""
        self._skip_unknown = (
            stack.settings.get("unknown_types") == "skip" if skip_unknown is None else skip_unknown
        )
        self._sharing: _Sharing | None = None
        self._who_follows: Following | None = None
        self._last: Resolution | None = None
        self._misspelt: tuple[Issue, ...] | None = None
        self._overlay_layer = _NO_OVERLAYS
        self._candidates: dict[str, tuple[tuple[Overlay, ...], Resolved]] = {}
        """What `resolve_one` found, for the case that the stack comes to have just that."""
        self._referring: set[str] | None = None
        """The providers whose last overlays refer to secrets; `None` until someone asks."""
        self.opener: Opener | None = None
        """Opens sealed secrets; set by whoever has the store."""
        self._entries: dict[str, ProviderEntry] = {entry.key: entry for entry in reversed(stack.providers)}

    @cached_property
    def _attempts(self) -> Attempts:
        # It refers back to the manager, and one that only resolves is to be freed at once.
        return Attempts(self.registry, self._wanted)

    @property
    def hardware(self) -> Hardware:
        """The machine's facts, discovered on first use."""
        if self._hardware is None:
            self._hardware = self._look()
            self._looked_at = monotonic()
        return self._hardware

    def look_again(self) -> bool:
        """Look at the machine again, unless its facts were given or are only seconds old, and say
        whether they moved. If so, everything is resolved anew when it is needed.

        A detector that did not answer before its deadline would cost it once more, and is the
        reason not to look again.
        """
        from stackconf.hardware.discovery import fingerprint

        before = self.hardware
        if self._looked_at is None or monotonic() - self._looked_at < FACTS_KEEP:
            return False
        if any(problem.kind == "timeout" for problem in before.problems):
            return False
        self._hardware = self._look()
        self._looked_at = monotonic()
        if fingerprint(self._hardware) == fingerprint(before):
            return False
        self._last, self._candidates, self._sharing = None, {}, None
        return True

    @property
    def shares(self) -> Mapping[str, Share]:
        """What of the accelerators each provider that uses them may use, and why, by key."""
        from stackconf.hardware.shares import shared_out

        wanting, placement = self._wanting(), self._placement
        flows = self._flows({*wanting, *placement})
        return shared_out(self.hardware, wanting, placement, little=_little(wanting), flows=flows)

    @property
    def _placement(self) -> Mapping[str, Placement]:
        placement: Mapping[str, Placement] = self.stack.settings.get("placement", {})
        return placement

    def _wanting(self, issues: list[Issue] | None = None) -> dict[str, Accelerated]:
        """The providers that use accelerators, and whether they need little."""
        found = {key: self._wants(entry, issues) for key, entry in self._entries.items()}
        return {key: wants for key, wants in found.items() if wants}

    def _wants(self, entry: ProviderEntry, issues: list[Issue] | None) -> Accelerated:
        owned = self.registry.find(entry.api, entry.provider_type)
        try:
            return isinstance(owned, Owned) and owned.accelerators(entry.key, entry.config)
        except HookError as error:
            if issues is not None:
                text = str(error).removeprefix(f"{entry.key}: ")
                told = Issue(text, code="hook-error", provider=entry.key, hint=PLUGIN_DEFECT)
                issues.append(told)
            return True

    def _flows(self, keys: Collection[str]) -> dict[str, str]:
        """The flows of those providers that run one after another."""
        types = {key: self._entries[key] for key in keys if key in self._entries}
        owners = {key: self.registry.find(each.api, each.provider_type) for key, each in types.items()}
        return {key: each.kind.flow for key, each in owners.items() if isinstance(each, Owned)}

    def hardware_for(self, keys: Collection[str]) -> Hardware:
        """What of the machine these providers have between them; all of it where it is not shared out
        among them.
        """
        shares = self._shared().shares
        if not shares or not shares.keys() & {*keys}:
            return self.hardware
        from stackconf.hardware.shares import together

        having = [key for key in keys if key in shares]
        return together(self.hardware, {key: shares[key] for key in having}, self._flows(having))

    def _shared(self) -> _Sharing:
        """Who gets a part of the accelerators; most machines and stacks have nothing to share."""
        if self._sharing is None:
            hardware, placement = self.hardware, self._placement
            many = len(self._entries) > 1 and hardware.visible_accelerators
            self._sharing = _NOT_SHARED
            issues: list[Issue] = []
            wanting = self._wanting(issues) if placement or many else {}
            if placement or len(wanting) > 1:
                from stackconf.hardware.shares import sharing

                flows = self._flows({*wanting, *placement})
                found = sharing(hardware, wanting, placement, little=_little(wanting), flows=flows)
                issues += [self._misplaced(fault) for fault in found.faults]
                self._sharing = _Sharing(found.shares, tuple(issues))
        return self._sharing

    def _misplaced(self, fault: Fault) -> Issue:
        path: list[str | int] = ["stackconf", "placement", fault.provider, *filter(None, [fault.key])]
        if fault.index is not None:
            path.append(fault.index)
        placed = fault.provider in self._placement
        return Issue(
            fault.message,
            level=fault.level,
            hint=fault.hint,
            code="bad-placement" if placed else "no-share",
            provider=fault.provider,
            where=self.stack.document.nearest(tuple(path)) if placed else None,
        )

    @property
    def skips_unknown(self) -> bool:
        """Whether providers of unknown types are left alone."""
        return self._skip_unknown

    def on(self, hardware: Hardware) -> Manager:
        """The same stack and plugins on another machine."""
        other = Manager(self.stack, self.registry, hardware=hardware, skip_unknown=self._skip_unknown)
        other.opener = self.opener
        return other

    def beside(self) -> Manager:
        """The same stack, plugins and machine once more, for another thread."""
        other = Manager(self.stack, self.registry, hardware=self._look, skip_unknown=self._skip_unknown)
        other._hardware, other._looked_at = self.hardware, self._looked_at
        other.opener = self.opener
        return other

    def provider(self, key: str) -> Provider | None:
        """The stack's provider of that key, or `None`."""
        entry = self._entries.get(key)
        return None if entry is None else entry.provider

    def key_of(self, provider: str) -> str:
        """The `api/provider_id` that a person means. Raises `UnknownName`."""
        keys = self.provider_keys()
        if provider in keys:
            return provider
        same_id = [key for key in keys if key.split("/", 1)[1] == provider]
        if len(same_id) == 1:
            return same_id[0]
        if same_id:
            raise UnknownName(f"`{provider}` is ambiguous; say one of {', '.join(same_id)}")
        hint = did_you_mean(provider, [*keys, *(key.split("/", 1)[1] for key in keys)])
        raise UnknownName(f"no provider `{provider}` in {self.stack.name}; {hint or known(keys)}")

    def provider_keys(self) -> list[str]:
        """`api/provider_id` of every enabled provider, in the file's order."""
        return list(reversed(self._entries))

    def resolve(self, overlays: Overlays | None = None, *, afresh: bool = False) -> Resolution:
        """The stack under these overlays. Only providers whose overlays changed are resolved
        again, and with `afresh` those that refer to secrets, which may be others by now; with nothing
        of this the answer is the last one. In a sealed stack no overlay counts, and each is reported.
        """
        overlays = overlays or {}
        last = self._last
        if last is None:
            keys = self.provider_keys()
        else:
            changed = _changed(last.overlays, overlays)
            if afresh:
                changed += self._referring_in(last.overlays) - set(changed)
            if not changed:
                return last
            keys = [key for key in changed if key in self._entries]
        providers = dict(last.providers) if last is not None else {}
        if self._candidates:
            chosen = {} if afresh or self.stack.sealed else self._chosen(keys, overlays)
            providers.update(chosen)
            keys = [key for key in keys if key not in chosen]
        providers = self._resolve_with(providers, keys, {} if self.stack.sealed else overlays)
        if last is None:  # a candidate stands first by now, and the order is the file's
            providers = {key: providers[key] for key in self.provider_keys()}
        self._referring = None
        self._last = self._resolution(providers, overlays)
        return self._last

    def _chosen(self, keys: Sequence[str], overlays: Overlays) -> dict[str, Resolved]:
        candidates, self._candidates = self._candidates, {}
        found = {key: candidates[key] for key in keys if key in candidates}
        return {key: each for key, (under, each) in found.items() if under == overlays.get(key, ())}

    def _referring_in(self, overlays: Overlays) -> set[str]:
        if self._referring is None:
            self._referring = {key for key, listed in overlays.items() if _refer(listed)}
        return self._referring

    def files_referred(self, overlays: Overlays) -> list[str]:
        """The files to which overlays refer. What is in them may be something else at any time."""
        referring = [each for listed in overlays.values() for each in listed if _refer((each,))]
        found = (file_of(reference) for each in referring for _, reference in references_in(each.values))
        return list(dict.fromkeys(file for file in found if file is not None))

    def resolve_files(self) -> Resolution:
        """What the file, the hardware and the classes alone say, without remembering it."""
        return self._resolution(self._resolve_with({}, self.provider_keys(), {}), {})

    def _resolution(self, providers: Mapping[str, Resolved], overlays: Overlays) -> Resolution:
        shared = self._shared()
        return Resolution(
            providers,
            self.stack,
            overlays,
            self._unmatched(overlays),
            self.hardware,
            shared.shares,
            shared.issues,
            self.disagreements(providers),
        )

    def disagreements(self, providers: Mapping[str, Resolved]) -> tuple[Issue, ...]:
        """What is wrong between providers, as the plugins say that take `others`; the rest is not
        asked. A provider without a valid configuration is left out.
        """
        asking = [each for each in providers.values() if each.owned and each.owned.hooks.asks_for_others]
        if not asking:
            return ()
        hardware, shares = self.hardware, self._shared().shares
        configs = {each.provider: each.config for each in providers.values() if each.config is not None}

        def judge(resolved: Resolved) -> tuple[Issue, ...]:
            others = {key: config for key, config in configs.items() if key != resolved.provider}
            share = shares.get(resolved.provider.key)
            return agreement_issues(
                resolved, others, hardware if share is None else share.hardware, self.stack
            )

        def late(resolved: Resolved) -> tuple[Issue, ...]:
            entry = resolved.entry
            return self._late(entry).issues if entry is not None else ()

        judged = map_with_deadline(judge, asking, seconds=hook_seconds(), late=late)
        return tuple(issue for issues in judged for issue in issues)

    def followers(self, keys: Collection[str]) -> list[str]:
        """The providers whose defaults are derived from these, each after all that it follows; imports
        the plugins of all.
        """
        return self._following().after(keys)

    def asks_for_others(self) -> bool:
        """Whether any provider of the stack is judged by the others; imports the plugins of all."""
        found = (self.registry.find(each.api, each.provider_type) for each in self._entries.values())
        return any(isinstance(each, Owned) and each.hooks.asks_for_others for each in found)

    def resolve_one(
        self, key: str, overlays: tuple[Overlay, ...], beside: Overlays | None = None
    ) -> Resolved:
        """One provider under other overlays; `beside` are those of the providers that it follows, the
        stack's own unless given. The stack's own resolution stays as it is; if it comes to have these
        overlays next, the provider is not resolved again.
        """
        return self._resolve_one(key, overlays, self._followed(key, beside))

    def at_hand(self, key: str, overlays: tuple[Overlay, ...], beside: Overlays | None = None) -> Resolved:
        """One provider under overlays that it may have already; then it is not resolved again, unless
        they refer to secrets, which may be others by now, or one that it follows has changed.
        """
        last, followed = self._last, self._followed(key, beside)
        if last is not None and last.overlays.get(key, ()) == overlays and not _refer(overlays):
            kept = last.providers[key]
            if kept.followed == followed:
                return kept
        return self._resolve_one(key, overlays, followed)

    def _resolve_one(
        self, key: str, overlays: tuple[Overlay, ...], followed: Mapping[Provider, BaseModel]
    ) -> Resolved:
        resolved = self._resolve([key], {key: overlays}, {key: followed})[0]
        self._candidates[key] = (overlays, resolved)
        return resolved

    def _followed(self, key: str, beside: Overlays | None) -> Mapping[Provider, BaseModel]:
        """The configurations that a provider follows, under these overlays."""
        entry = self._entries[key]
        owned = self.registry.find(entry.api, entry.provider_type)
        if not isinstance(owned, Owned) or not owned.hooks.follows:
            return ALONE
        if beside is None or self.stack.sealed:
            beside = {} if self._last is None or self.stack.sealed else self._last.overlays
        order = self._following()
        found = {
            each: self.at_hand(each, beside.get(each, ()), beside) for each in order.followed.get(key, ())
        }
        return order.given(key, found)

    def _following(self) -> Following:
        if self._who_follows is None:
            providers = {key: self._entries[key].provider for key in self.provider_keys()}
            self._who_follows = following(providers, self.registry)
        return self._who_follows

    def overlays(self, state: State) -> Overlays:
        """The overlay layer of a state: for each provider, what the assigned configurations say."""
        self._overlay_layer = self._overlay_layer.next(
            {name: state.configurations[name] for name in state.assigned}
        )
        return self._overlay_layer.overlays

    def at_head(self, store: Store) -> Resolution:
        """The stack under the head revision. References to secrets are resolved anew."""
        return self.resolve(self.overlays(store.read().state), afresh=True)

    def plan(self, store: Store) -> Plan:
        """What applying the head revision would change. References to secrets are resolved anew."""
        return self._plan(store.view(), store)

    def status(self, store: Store) -> StackStatus:
        """What is wanted, what was tried last and what runs, for each provider."""
        from stackconf.status import status_of

        running, view = store.holder(), store.view()
        while running is None and view.open_attempt is not None:
            # Cut off, unless it began or ended while this looked.
            seen = view.open_attempt.number
            running, view = store.holder(), store.view()
            if view.open_attempt is not None and view.open_attempt.number == seen:
                break
        plan = self._plan(view, store)
        lost = lost_since(store, view)
        return status_of(plan, view, store.status(), self.provider_keys(), running=running, lost=lost)

    def _plan(self, view: View, store: Store) -> Plan:
        from stackconf.hardware.discovery import fingerprint

        resolution = self.resolve(self.overlays(view.revision.state), afresh=True)
        key, unread = _digest_key(store)
        made = make_plan(
            resolution.providers,
            view.applied,
            digest=digester(key),
            base_revision=view.revision.number,
            stack=self.stack,
            hardware_fingerprint=fingerprint(self.hardware),
            issues=(*resolution.issues, *unread),
            leaving_needs={
                key: self._needs(record.provider)
                for key, record in view.applied.items()
                if key not in self._entries
            },
        )
        return evolve(made, hardware=self.hardware)

    def _needs(self, provider: Provider) -> tuple[str, ...]:
        owned = self.registry.find(provider.api, provider.provider_type)
        return owned.kind.api_dependencies if isinstance(owned, Owned) else ()

    def apply(
        self,
        store: Store,
        plan: Plan | None = None,
        *,
        require_healthy: bool = False,
        actor: str = "",
        observer: Observer | None = None,
        wait: float = 0.0,
    ) -> Report:
        """Make the running providers match the plan, all or nothing.

        Whatever an apply that was killed had touched is applied anew, or taken back with the rest.
        Raises `InvalidConfig` when something is wrong before anything is touched, `StalePlan`
        when the given plan is not what would be planned now (a card that vanished since makes it
        so), `ApplyBusy` when another apply of the
        stack still runs after `wait` seconds, and `ApplyError` (with the report) when a provider
        failed and the rest was rolled back. `StoreDamaged` is raised, before anything is touched,
        when the store is behind what was once applied from it.
        """
        if plan is not None:
            _refuse_errors(plan)
        now = self.plan(store)
        if plan is not None:
            _refuse_stale(plan, now, store)
        _refuse_errors(now)
        if not now.changes:
            return Report("nothing", revision=now.base_revision)
        with store.applying(actor, wait=wait):
            self.look_again()
            view = store.view()
            refuse_lost(store, view)
            now = self._plan(view, store)
            if plan is not None:
                _refuse_stale(plan, now, store)
            _refuse_errors(now)
            return self._attempts.carry_out(
                now, store, view, actor=actor, require_healthy=require_healthy, observer=observer
            )

    def load(self) -> None:
        """Import the plugins that the stack needs, before two threads want them at once."""
        for entry in self._entries.values():
            self.registry.find(entry.api, entry.provider_type)
        self.registry.cross_cutting()

    def begin_hosting(self, store: Store) -> None:
        """Forget what providers that live in the process ran with: in this one they do not run yet."""
        ended = [
            key
            for key, record in store.applied().items()
            if self._lives_in_process(record.provider) and not is_unknown(record)
        ]
        if ended:
            store.ended(ended)

    def last_applied(self, store: Store) -> dict[str, BaseModel] | None:
        """The configurations that were applied last to providers that the stack has, by
        `api/provider_id`; `None` where nothing was, or one of them cannot be rebuilt.
        """
        applied = store.applied()
        mine = {key: each for key, each in applied.items() if self.provider(key) == each.provider}
        return self._attempts.last_applied(mine, digester(store.digest_key())) or None

    def _lives_in_process(self, provider: Provider) -> bool:
        owned = self.registry.find(provider.api, provider.provider_type)
        return isinstance(owned, Owned) and owned.kind.in_process

    def pending(self, store: Store) -> tuple[str, ...]:
        """The providers that could not be reached when the newest revision was applied."""
        head = store.head()
        last = store.status()
        return tuple(key for key, each in last.items() if each.state == "pending" and each.revision == head)

    def retry(self, store: Store, *, actor: str = "", observer: Observer | None = None) -> Report:
        """Apply what is pending, and nothing else. Raises as `apply` does."""
        with store.applying(actor):
            self.look_again()
            view = store.view()
            refuse_lost(store, view)
            plan = self._plan(view, store)
            _refuse_errors(plan)
            again = self.pending(store)
            changes = tuple(change for change in plan.changes if change.provider.key in again)
            only = evolve(plan, changes=changes)
            return self._attempts.carry_out(only, store, view, actor=actor, observer=observer)

    def recover(
        self,
        store: Store,
        *,
        actor: str = "",
        observer: Observer | None = None,
        wait: float = 0.0,
    ) -> Report:
        """Take every provider of which nobody knows what it runs with back to what it had.

        Such a provider was touched by an apply that was killed, or could not be taken back by one
        that failed. Nothing else is touched. Raises as `apply` does.
        """
        if not any(map(is_unknown, store.applied().values())):
            return Report("nothing", revision=store.head())
        with store.applying(actor, wait=wait):
            view = store.view()
            refuse_lost(store, view)
            plan = self._plan(view, store)
            lost = [record for record in view.applied.values() if is_unknown(record)]
            changes = tuple(
                ProviderChange(record.provider, "restore", "restart") for record in reversed(lost)
            )
            only = evolve(plan, changes=changes)
            return self._attempts.carry_out(only, store, view, actor=actor, observer=observer)

    def _wanted(self, key: str) -> BaseModel | None:
        """What a provider of the stack is to have; `None` for one that it does not have."""
        resolved = self._last.providers.get(key) if self._last is not None else None
        return None if resolved is None else resolved.config

    def _resolve_with(
        self, kept: Mapping[str, Resolved], keys: Sequence[str], overlays: Overlays
    ) -> dict[str, Resolved]:
        """What is kept, with these providers resolved, and whoever follows one that is another now."""
        hung: dict[OwnerHooks, str] = {}
        if not kept:
            self._import(keys)
        order = self._following()
        found = dict(kept)
        first = [key for key in keys if key not in order.followed]
        found.update(zip(first, self._resolve(first, overlays, hung=hung), strict=True))
        for wave in order.waves:
            given = {key: order.given(key, found) for key in wave}
            due = [
                key for key in wave if key in keys or key not in found or found[key].followed != given[key]
            ]
            found.update(zip(due, self._resolve(due, overlays, given, hung), strict=True))
        return {key: found[key] for key in self.provider_keys()} if order.waves else found

    def _import(self, keys: Sequence[str]) -> None:
        """Import the plugins: that has a deadline of its own, and is not some provider's fault."""
        for entry in map(self._entries.__getitem__, keys):
            self.registry.find(entry.api, entry.provider_type)

    def _resolve(
        self,
        keys: Sequence[str],
        overlays: Overlays,
        followed: Followed | None = None,
        hung: dict[OwnerHooks, str] | None = None,
    ) -> list[Resolved]:
        hardware = self.hardware
        hung, followed = hung if hung is not None else {}, followed or {}
        entries = [self._entries[key] for key in keys]
        self._import(keys)
        shares = self._shared().shares

        def resolve(entry: ProviderEntry) -> Resolved:
            if hung and (instead := self._not_asked(entry, hung)):
                return instead
            share = shares.get(entry.key) if shares else None
            resolved = resolve_provider(
                entry.provider,
                self.registry,
                hardware if share is None else share.hardware,
                entry=entry,
                stack_values=entry.config,
                overlays=overlays.get(entry.key, ()),
                stack=self.stack,
                opener=self.opener,
                followed=followed.get(entry.key, ALONE),
            )
            resolved.issues += self.registry.runtime_issues_of(entry.key)
            return resolved if resolved.owned is not None else self._tolerated(resolved)

        def late(entry: ProviderEntry) -> Resolved:
            owned = self.registry.find_loaded(entry.api, entry.provider_type)
            if owned is not None:
                hung[owned.hooks] = entry.key
            return evolve(self._late(entry), followed=followed.get(entry.key, ALONE))

        return map_with_deadline(resolve, entries, seconds=hook_seconds(), late=late)

    def _not_asked(self, entry: ProviderEntry, hung: Mapping[OwnerHooks, str]) -> Resolved | None:
        """A provider whose plugin hung for another one a moment ago; waiting again would not help."""
        owned = self.registry.find_loaded(entry.api, entry.provider_type)
        if owned is None or owned.hooks not in hung:
            return None
        owner = owned.hooks.owner
        text = f"plugin `{owner.name}` was not asked: it did not come back for {hung[owned.hooks]}"
        issue = Issue(text, code="hook-error", provider=entry.key, hint=PLUGIN_DEFECT)
        return Resolved(entry.provider, entry, issues=(issue,))

    def _tolerated(self, resolved: Resolved) -> Resolved:
        if not self._skip_unknown:
            return resolved
        issues = [
            evolve(issue, level="warning", message=f"not managed: {issue.message}")
            if issue.code == "unknown-type"
            else issue
            for issue in resolved.issues
        ]
        return evolve(resolved, issues=tuple(issues))

    def _late(self, entry: ProviderEntry) -> Resolved:
        provider = entry.provider
        owned = self.registry.find_loaded(provider.api, provider.provider_type)
        problem = f"did not come back within {hook_seconds():g} s"
        if owned is None:
            error: Exception = PluginLoadError(provider.type_key, f"its import {problem}")
        else:
            error = owned.hooks.owner.failed(owned.hooks.calling, problem)
        text = str(error).removeprefix(f"{provider.key}: ")
        issue = Issue(text, code="hook-error", provider=provider.key, hint=PLUGIN_DEFECT)
        return Resolved(provider, entry, issues=(issue,))

    def _misspelt_apis(self) -> list[Issue]:
        """Apis of the stack that have no provider and are surely another one, misspelt."""
        named = {entry.api for entry in (*self.stack.providers, *self.stack.disabled)}
        unknown = [api for api in self.stack.apis if api not in named]
        if not unknown or ("external_apis_dir" in self.stack.other and self.registry.runtime_name is None):
            return []
        known = self.registry.apis()
        document = self.stack.document
        listed = document.data.get("apis")
        issues = []
        for api in unknown:
            hint = "" if api in known else did_you_mean(api, known)
            if api in known or not (hint or self.registry.runtime_name):
                continue
            where = document.position(("providers", api), key=True)
            if isinstance(listed, list) and api in listed:
                where = document.position(("apis", listed.index(api)))
            hint = hint or f"{self.registry.runtime_name} has {', '.join(sorted(known))}"
            issues.append(Issue(f"unknown api `{api}`", hint=hint, code="unknown-api", where=where))
        return issues

    def _unmatched(self, overlays: Overlays) -> tuple[Issue, ...]:
        if self._misspelt is None:
            self._misspelt = (*self._misspelt_apis(), *self.registry.runtime_issues)
        if self.stack.sealed:
            return self._misspelt + tuple(self._sealed_out(overlays))
        strangers = overlays.keys() - self._entries.keys() - {_NOBODY}
        strange = [
            Issue(
                f"configuration `{overlay.name}` is for a provider that the stack no longer has",
                level="ignored",
                provider=key,
                code="no-provider",
                hint=f"unassign or change `{overlay.name}`",
            )
            for key in sorted(strangers)
            for overlay in overlays[key]
        ]
        return (*self._misspelt, *self._damaged(overlays), *strange)

    def _damaged(self, overlays: Overlays) -> Iterator[Issue]:
        for overlay in overlays.get(_NOBODY, ()):
            which = f"configuration `{overlay.name}` (revision {overlay.revision})"
            hint = f"register it again, or `stackconf configurations unassign {overlay.name}`"
            yield Issue(f"{which} is damaged: {overlay.problem}", hint=hint, code="damaged-configuration")

    def _sealed_out(self, overlays: Overlays) -> list[Issue]:
        """The configurations that were assigned before the stack was sealed."""
        assigned: dict[tuple[str, int], list[str]] = {}
        for key, listed in overlays.items():
            for overlay in listed:
                assigned.setdefault((overlay.name, overlay.revision), []).append(key)
        where = self.stack.document.position(("stackconf", "sealed"))
        hint = f"put what it sets into {self.stack.name}, or remove `sealed`"
        return [
            Issue(
                f"configuration `{name}` (revision {revision}) does not count: the stack is sealed;"
                f" it is for {', '.join(keys)}",
                level="ignored",
                code="sealed-stack",
                hint=hint,
                where=where,
            )
            for (name, revision), keys in assigned.items()
        ]


def discover_with(registry: Registry, *, deadline: float | None = None) -> Hardware:
    """Discover with every enabled hardware plugin, each apart."""
    from stackconf.hardware.discovery import discover
    from stackconf.hardware.kept import kept_here

    return discover(detectors_of(registry), deadline=deadline, kept=kept_here())


def missing_type(registry: Registry, provider: Provider) -> Missing | PluginLoadError | None:
    """Why a provider's type has no owner, or `None` where it has one."""
    found = registry.find(provider.api, provider.provider_type)
    return None if isinstance(found, Owned) else found


def _digest_key(store: Store) -> tuple[bytes, tuple[Issue, ...]]:
    """The key of a store's digests. Where it cannot be had, a passing one, and an error that keeps the
    plan, in which every secret then looks changed, from being applied.
    """
    try:
        return store.digest_key(), ()
    except SecretError as error:
        return token_bytes(32), (Issue(error.problem, hint=error.hint, code="missing-secret"),)


def _refuse_stale(given: Plan, now: Plan, store: Store) -> None:
    from stackconf.stale import refuse_stale

    refuse_stale(given, now, store, digester(store.digest_key()))


def _refuse_errors(plan: Plan) -> None:
    if plan.errors:
        count = len(plan.errors)
        noun = "error" if count == 1 else "errors"
        raise InvalidConfig(f"nothing was applied: {count} {noun} in the configuration", plan.issues)
