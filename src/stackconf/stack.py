"""The front door: a manager opened on a stack file and a store."""

from __future__ import annotations

import getpass
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import count, takewhile
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

from attrs import evolve, field, frozen

from stackconf.configurations import Entry, Given, Source, read_configuration
from stackconf.conflicts import ABSENT, Absent, Expected, OnConflict, Providers, providers_of
from stackconf.errors import Conflict, InvalidConfig, Sealed, SecretError, UnknownName
from stackconf.manager import Manager, Resolution, missing_type
from stackconf.redact import passwords_in
from stackconf.registry.registry import Registry
from stackconf.resolve.blame import dropped_issues, in_order, undotted
from stackconf.resolve.layers import Path as FieldPath
from stackconf.resolve.layers import dotted, merge, plain, value_at
from stackconf.resolve.origins import origins
from stackconf.resolve.projection import holds_redacted, project, without_shown
from stackconf.resolve.references import (
    is_reference,
    looks_like_reference,
    replaced,
    scalars,
    sealed_id,
    sealed_reference,
    secret_top,
)
from stackconf.resolve.render import SHOWN, USERS
from stackconf.resolve.resolve import Overlay, Resolved, TakenOverlay
from stackconf.sealing import SETTING, keyring
from stackconf.shipped import ShippedConfiguration, shipped_configurations
from stackconf.store.base import Configuration, Pruned, Revision, State
from stackconf.store.sqlite import SqliteStore
from stackconf.suggest import did_you_mean
from stackconf.types import Issue, Origin
from stackconf.vault import Vault

if TYPE_CHECKING:
    from stackconf.apply import Observer, Report
    from stackconf.comparison import Comparison
    from stackconf.drift import Drift
    from stackconf.errors import PluginLoadError
    from stackconf.events import Event, Run
    from stackconf.export.export import Exported
    from stackconf.fields import ClassPlan
    from stackconf.hardware.facts import Hardware
    from stackconf.history import Difference, History, RolledBack
    from stackconf.plan import Plan
    from stackconf.sealing import Keyring, SealedSecret
    from stackconf.stackfile.model import StackFile
    from stackconf.status import StackStatus
    from stackconf.store.base import Store
    from stackconf.store.lastgood import LastGood
    from stackconf.store.salvage import Recovered
    from stackconf.types import Provider

OnDropped: TypeAlias = Literal["warn", "error", "ignore"]

_PATIENCE = 30.0
"""For how many seconds a change is made anew on top of what others have changed meanwhile."""
_LONGEST_PAUSE = 0.1
Change: TypeAlias = Callable[[Revision, int, State | None], State]
"""Of the head, the next revision's number and what to merge with: the next state."""

_LONGEST_NAME = 200
_HOW_REFERENCES_LOOK = (
    "write `${env.NAME}`, in capitals, or `${file:/run/secrets/name}`, and nothing before it or after it"
)
_USE_A_FILE = "give it in a file, on standard input, or as a reference to where it is"
_USE_A_REFERENCE = "give a reference, `${env.NAME}` or `${file:/run/secrets/name}`"


@frozen(slots=False)
class Registered:
    """What came of a registration.

    `kept` has the stack file's shape and holds only user fields; `dropped` says path by path what
    was not taken; `plan` is what an apply would now do, planned when it is first asked for.
    `revision` is the new one.
    """

    name: str
    revision: int
    kept: Mapping[str, Sequence[Mapping[str, Any]]]
    dropped: tuple[Issue, ...]
    warnings: tuple[Issue, ...]
    _planning: Callable[[], Plan] = field(repr=False, eq=False)

    @cached_property
    def plan(self) -> Plan:
        """What an apply would do, as it is when this is first asked for."""
        return self._planning()


@frozen
class Listed:
    """One configuration in a listing. `assigned` is its place in the overlay, from 1; 0: it is not."""

    name: str
    source: str
    providers: tuple[str, ...]
    assigned: int
    revision: int
    description: str = ""


class Stack:
    r"""One stack: its effective configuration, registered configurations, plan and apply.

    >>> import tempfile, pathlib
    >>> from stackconf.testing import machine
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = pathlib.Path(folder.name, "stack.yaml")
    >>> _ = file.write_text("version: 2\nproviders: {}\n")
    >>> with Stack.open(file, hardware=machine()) as stack:
    ...     stack.configurations.inspect()
    {'providers': {}}
    >>> folder.cleanup()
    """

    def __init__(self, manager: Manager, store: Store) -> None:
        self.manager = manager
        self.store = store
        self.configurations = Configurations(self)
        self.secrets = Vault(store, self._keyring)
        manager.opener = self.secrets.open
        store.guard = self.secrets
        self._environ: Mapping[str, str] = os.environ
        keep = manager.stack.settings.get("keep_revisions")
        store.keep = keep if isinstance(keep, int) else None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        store: Store | str | os.PathLike[str] | None = None,
        registry: Registry | None = None,
        hardware: Hardware | Callable[[], Hardware] | None = None,
        environ: Mapping[str, str] | None = None,
        skip_unknown: bool | None = None,
    ) -> Stack:
        """Open a stack on its file. The store is embedded beside it unless one is given.

        Nothing is written until something is registered or applied. Raises `InvalidConfig` when
        the file cannot be read at all; what is wrong inside it is in `issues`.
        """
        from stackconf.stackfile.model import load

        file = load(path, os.environ if environ is None else environ)
        if store is None:
            store = default_store_path(Path(path))
        if isinstance(store, (str, os.PathLike)):
            store = SqliteStore(Path(store))
        manager = Manager(file, registry or Registry(), hardware=hardware, skip_unknown=skip_unknown)
        stack = cls(manager, store)
        stack._environ = os.environ if environ is None else environ
        return stack

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    @property
    def file(self) -> StackFile:
        """The stack file as it was read."""
        return self.manager.stack

    @property
    def hardware(self) -> Hardware:
        """What is known about this machine."""
        return self.manager.hardware

    @property
    def revision(self) -> int:
        """The head revision."""
        return self.store.head()

    @property
    def resolution(self) -> Resolution:
        """Every provider's effective configuration at the head revision."""
        state = self.store.read().state
        return self.manager.resolve(self.manager.overlays(state), afresh=True)

    @property
    def issues(self) -> tuple[Issue, ...]:
        """Everything that is wrong with the stack, or was dropped."""
        return self.resolution.issues

    @property
    def problems(self) -> tuple[PluginLoadError, ...]:
        """The plugins that could not be loaded and that no provider of the stack waits for, such
        as a site policy: the rest goes on without them.
        """
        self.manager.registry.cross_cutting()
        return tuple(self.manager.registry.problems)

    def plan(self) -> Plan:
        """What an apply would change now."""
        return self.manager.plan(self.store)

    def write_plan(self, path: str | os.PathLike[str], *, actor: str | None = None) -> Plan:
        """Write what an apply would change now to a file, for `read_plan`, and return it.

        The store is made if there is none: a plan is for one store. The file holds no secret, is
        readable by its owner only, and is written whole or not at all. Raises `InvalidConfig`, and
        writes nothing, when the configuration has errors or the file cannot be written.
        """
        from datetime import UTC, datetime

        from stackconf.planfile import PlanFile, write_plan

        self.store.ensure()
        plan = self.plan()
        if plan.errors:
            raise InvalidConfig("the plan was not written: the configuration has errors", plan.issues)
        at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        store = self.store.identity()
        write_plan(path, PlanFile(plan, self._name, store, at, actor or current_actor()))
        return plan

    def read_plan(self, path: str | os.PathLike[str]) -> Plan:
        """The plan in a file, for `apply`, which refuses it if anything moved since.

        Raises `InvalidConfig` when it is no such file, was changed, or is another stack's.
        """
        from stackconf.planfile import read_plan

        file = read_plan(path)
        name = os.fsdecode(path)
        if file.stack != self._name:
            raise InvalidConfig(f"{name} is a plan for {file.stack}, not for {self._name}")
        if file.store != self.store.identity():
            problem = f"{name} is a plan for another {self._name}, which has another store than this one"
            raise InvalidConfig(f"{problem}; plan again with this one")
        return file.plan

    def _keyring(self) -> Keyring:
        named = self.file.settings.get(SETTING)
        return keyring(Path(self.file.name).parent / named if named else None)

    @property
    def _name(self) -> str:
        return Path(self.file.name).name

    def apply(
        self,
        plan: Plan | None = None,
        *,
        require_healthy: bool = False,
        actor: str | None = None,
        observer: Observer | None = None,
        wait: float = 0.0,
    ) -> Report:
        """Apply the head revision to the running providers, all or nothing.

        `wait` is how many seconds another apply of the same stack may still take; after that,
        `ApplyBusy` is raised. What an apply that was killed had touched is gone through again.
        """
        return self.manager.apply(
            self.store,
            plan,
            require_healthy=require_healthy,
            actor=actor or current_actor(),
            observer=observer,
            wait=wait,
        )

    def status(self) -> StackStatus:
        """For each provider what is wanted, what was tried last, and what it runs with."""
        return self.manager.status(self.store)

    def recover(
        self, *, actor: str | None = None, observer: Observer | None = None, wait: float = 0.0
    ) -> Report:
        """Take the providers of which nobody knows what they run with back to what they had: those
        that a killed apply had touched, and those that a failed one could not take back.

        `apply` goes on to what is wanted instead.
        """
        return self.manager.recover(self.store, actor=actor or current_actor(), observer=observer, wait=wait)

    def drift(self) -> Drift:
        """Where what is applied differs from what the files say, and who or what did it.

        Changes nothing. A provider that no longer validates is told as such; the rest is compared.
        """
        from stackconf.drift import find_drift

        return find_drift(self.manager, self.store)

    def compare(self, machines: Mapping[str, Hardware]) -> Comparison:
        """The effective configuration on several machines side by side, under the assigned
        configurations. `machines` has a name for each. Changes nothing, and looks at no machine.

        Raises `InvalidConfig` when there is no machine.
        """
        from stackconf.comparison import compare

        return compare(self.manager, self.store, machines)

    def apply_events(
        self,
        plan: Plan | None = None,
        *,
        require_healthy: bool = False,
        actor: str | None = None,
        wait: float = 0.0,
    ) -> Iterator[Event]:
        """As `apply`, yielding each `Progress` as it happens and the `Report` at the end.

        It begins with the first event that is asked for. A failed apply yields its report, then
        raises `ApplyError`. Once begun it runs to its end: a reader that stops early is held up
        until then, and an interrupt is raised after it.
        """
        from stackconf.events import events

        return events(self._run(plan, require_healthy, actor, wait))

    def apply_events_async(
        self,
        plan: Plan | None = None,
        *,
        require_healthy: bool = False,
        actor: str | None = None,
        wait: float = 0.0,
    ) -> AsyncIterator[Event]:
        """As `apply_events`, for `async for`; the event loop goes on meanwhile."""
        from stackconf.events import events_async

        return events_async(self._run(plan, require_healthy, actor, wait))

    def _run(self, plan: Plan | None, require_healthy: bool, actor: str | None, wait: float) -> Run:  # noqa: FBT001
        def run(observer: Observer) -> Report:
            return self.apply(
                plan, require_healthy=require_healthy, actor=actor, observer=observer, wait=wait
            )

        return run

    def export(
        self,
        to: str | os.PathLike[str] | None = None,
        *,
        in_place: bool = False,
        applied: bool = False,
        class_defaults: bool = False,
    ) -> Exported:
        """The configuration as a stack file: what hardware and configurations set is written into it.

        With neither `to` nor `in_place` nothing is written, and `text` of the answer is the file. A
        file that exists keeps its comments, order, mode and whatever else is in it. `applied` exports
        what is applied instead of what is resolved; `class_defaults` writes those too. No secret is
        written: `variables` of the answer are what must be set where the file is read.

        Raises `InvalidConfig` when the stack is invalid (not with `applied`), or when the file would
        not be read as what it stands for; then nothing is written.
        """
        from stackconf.export.export import Options, export
        from stackconf.export.target import Target

        target = Target(self.file, self.file.name if in_place else to)
        options = Options(applied=applied, whole=class_defaults, copied=not target.exists)
        base = target.base(self._environ)
        exported = export(self.manager, self.store, base, self._environ, options)
        target.write(exported.text)
        return exported

    def applied(self) -> LastGood:
        """What was last applied to each provider, secrets redacted: from the store, or where that is
        damaged, from the file that each apply leaves beside it. `stackconf.store.lastgood`'s
        `last_applied(path)` tells it without a stack file.
        """
        from stackconf.store.lastgood import applied_of

        return applied_of(self.store)

    @staticmethod
    def recover_store(store: str | os.PathLike[str], *, actor: str | None = None) -> Recovered:
        """Put a damaged store aside, and make a new one of all that can be read of it.

        `store` is the store's file, which no stack of this process has open. Raises `StoreError`
        with nothing changed when it is sound, or another process has it open.
        """
        from stackconf.store.salvage import recover

        return recover(store, actor=actor or current_actor())

    def history(self, *, limit: int | None = None) -> History:
        """The revisions and the attempts to apply them, newest first, at most `limit` of each."""
        from stackconf.history import read_history

        return read_history(self.store, limit)

    def show(self, revision: int | str = "head") -> Revision:
        """A revision with what is registered and assigned at it; any secret is redacted.

        `revision` is a number, `head`, or so many before it: `head-1`, `-1`. Raises `UnknownName`
        for one that does not exist, or was pruned.
        """
        from stackconf.history import shown_revision

        return shown_revision(self._revision(revision))

    def diff(self, before: int | str, after: int | str = "head", *, effective: bool = False) -> Difference:
        """What changed from one revision to another, by configuration and field; with `effective`
        also what the providers would have otherwise. Revisions as for `show`.
        """
        from stackconf.history import difference, effective_difference
        from stackconf.plan import digester

        one, other = self._revision(before), self._revision(after)
        found = difference(one, other)
        if not effective:
            return found
        changes, unresolved = effective_difference(
            one,
            other,
            lambda state: self.manager.resolve(self.manager.overlays(state)).providers,
            digester(self.store.digest_key()),
            self.file,
        )
        return evolve(found, effective=changes, unresolved=unresolved)

    def rollback(
        self, revision: int | str, *, actor: str | None = None, expected_revision: int | None = None
    ) -> RolledBack:
        """Register and assign again what an old revision had, as a new one that says so.

        There is no new one where nothing would change. Raises `InvalidConfig` with every issue when
        it does not fit the stack any more, `Conflict` when the head is not `expected_revision`,
        `UnknownName` and `Sealed` as elsewhere; nothing is written then.
        """
        expected = Expected(expected_revision)
        return self.configurations._restore(self._revision(revision), actor, expected)  # noqa: SLF001

    def prune(self, keep: int) -> Pruned:
        """Forget all but the newest `keep` revisions and attempts, and nothing that is in use: the
        head, what is applied, and what an open attempt is for.
        """
        if keep < 1:
            raise InvalidConfig(f"keep at least 1 revision, not {keep}")
        return self.store.prune(keep)

    def _revision(self, revision: int | str) -> Revision:
        from stackconf.history import number_of

        return self.store.read(number_of(self.store, revision))

    def effective(self) -> dict[str, Any]:
        """Every provider's whole configuration, secrets redacted, in the stack file's shape."""
        return self._rendered(users=False)

    def explain(self, provider: str, field: str | None = None) -> list[Origin]:
        """Where each value of a provider is from, or those at and below one field.

        `provider` is `api/provider_id`, or a `provider_id` that only one api has.
        """
        key = self.key_of(provider)
        resolved = self.resolution.providers[key]
        if resolved.config is None:
            mine = [issue for issue in self.issues if issue.provider == key and issue.level == "error"]
            raise InvalidConfig(f"{key} has no effective configuration", mine)
        found = origins(resolved, self.file)
        if field is None:
            return found
        wanted = field.removeprefix("config.")
        chosen = [each for each in found if _is_at(each.path, wanted)]
        if not chosen:
            hint = did_you_mean(wanted, [each.path for each in found])
            raise UnknownName(f"{key} has no field `{wanted}`" + (f"; {hint}" if hint else ""))
        return chosen

    def key_of(self, provider: str) -> str:
        """The `api/provider_id` that a person means. Raises `UnknownName`."""
        keys = self.manager.provider_keys()
        if provider in keys:
            return provider
        same_id = [key for key in keys if key.split("/", 1)[1] == provider]
        if len(same_id) == 1:
            return same_id[0]
        if same_id:
            raise UnknownName(f"`{provider}` is ambiguous; say one of {', '.join(same_id)}")
        hint = did_you_mean(provider, [*keys, *(key.split("/", 1)[1] for key in keys)])
        raise UnknownName(f"no provider `{provider}` in {self.file.name}; {hint or _known(keys)}")

    def _rendered(self, *, users: bool) -> dict[str, Any]:
        rendered: dict[str, list[dict[str, Any]]] = {api: [] for api in sorted(self.file.apis)}
        renderer = USERS if users else SHOWN
        for resolved in self.resolution.providers.values():
            provider = resolved.provider
            config = {} if resolved.config is None else renderer.render(resolved.config)
            rendered.setdefault(provider.api, []).append(
                {
                    "config": config,
                    "provider_id": provider.provider_id,
                    "provider_type": provider.provider_type,
                }
            )
        return {"providers": rendered}


class Configurations:
    """The registered configurations of a stack, and those that plugins ship."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    @cached_property
    def _shipped(self) -> Mapping[str, ShippedConfiguration]:
        return {each.name: each for each in shipped_configurations(self._stack.manager.registry)}

    def inspect(self) -> dict[str, Any]:
        """The user fields of every provider, in issue 993's shape: every api of the stack, empty
        ones as `[]`.
        """
        return self._stack._rendered(users=True)  # noqa: SLF001 (one object in two rooms)

    def list(self) -> list[Listed]:
        """Every configuration, available or assigned, with its source; assigned ones first."""
        state = self._stack.store.read().state
        order = {name: number for number, name in enumerate(state.assigned, 1)}
        registered = [
            Listed(
                each.name,
                each.source,
                _keys_of(each.providers),
                order.get(each.name, 0),
                each.revision,
                f"damaged: {each.problem}" if each.problem else "",
            )
            for each in state.configurations.values()
        ]
        shipped = [
            Listed(name, each.source, _keys_of(each.providers), 0, 0, each.description)
            for name, each in self._shipped.items()
            if name not in state.configurations
        ]
        return sorted(registered + shipped, key=lambda each: (each.assigned or len(order) + 1, each.name))

    def get(self, name: str) -> Configuration:
        """One configuration, registered or shipped. Raises `UnknownName`."""
        return self._get(self._stack.store.read().state, name)

    def register(
        self,
        config: Source,
        name: str = "default",
        *,
        assign: bool = True,
        on_dropped: OnDropped = "warn",
        expected_revision: int | None = None,
        on_conflict: OnConflict = "refuse",
        actor: str | None = None,
        seal: bool = True,
    ) -> Registered:
        """Register a configuration and, unless told otherwise, assign it.

        `config` is a mapping, JSON or YAML text, or a path. Only user fields are kept. A secret given
        in the clear is encrypted where there is a key, and refused where there is none or `seal` is
        false: for one that came by a way on which others saw it, such as a command line. Raises
        `InvalidConfig` with every issue, and stores nothing, when the configuration is wrong or
        nothing of it is left; `Sealed` when the stack's file is its only truth.

        `on_conflict` counts where the head is not `expected_revision`: `refuse` raises `Conflict`;
        `retry` takes what only one side changed since, and raises it where both changed one value
        to something else; `force` replaces.
        """
        self._refuse_sealed()
        expected = Expected(expected_revision, on_conflict)
        _refuse_name(name)
        if on_dropped not in get_args(OnDropped):
            raise InvalidConfig(f"on_dropped is one of {', '.join(get_args(OnDropped))}, not {on_dropped!r}")
        given = read_configuration(config, name=name)
        first = self._stack.store.read()
        draft = _Draft(self._stack, name, given, first.state, seal=seal)
        dropped = draft.dropped if on_dropped != "ignore" else ()
        if on_dropped == "error" and dropped:
            errors = tuple(evolve(issue, level="error") for issue in dropped)
            raise InvalidConfig("the configuration sets what a user may not set", errors)
        draft.refuse_errors()

        def change(head: Revision, revision: int, base: State | None) -> State:
            state = head.state
            mine = draft.with_kept_secrets(base or state, state)
            kept = expected.merged(self._stack.store, head, base, name, mine)
            assert not isinstance(kept, Absent)  # noqa: S101 (which is refused)
            configuration = Configuration(name, kept, revision=revision)
            before = state.configurations.get(name)
            if before is not None and evolve(before, revision=revision) == configuration:
                configuration = before
            assigned = state.assigned
            unassigned_since = base is not None and name in base.assigned
            if assign and name not in assigned and not unassigned_since:
                assigned = (*assigned, name)
            new = State({**state.configurations, name: configuration}, assigned)
            draft.check(state, new)
            return new

        made = self._change(change, "register", name, actor, expected, draft, first)
        manager = self._stack.manager
        errors = manager.resolve(manager.overlays(made.state)).errors
        warnings = (*given.ignored, *draft.warnings, *_about_errors(len(errors)))
        kept = plain(made.state.configurations[name].providers)
        return Registered(name, made.number, kept, dropped, warnings, self._stack.plan)

    def assign(
        self,
        name: str,
        *,
        actor: str | None = None,
        expected_revision: int | None = None,
        on_conflict: OnConflict = "refuse",
    ) -> int:
        """Make a configuration part of the overlay, above those assigned before. The revision.

        `on_conflict` as for `register`; with `retry` it is assigned as it is now.
        """
        self._refuse_sealed()

        def change(head: Revision, revision: int, _base: State | None) -> State:
            state = head.state
            configuration = self._get(state, name)
            if name not in state.configurations:
                configuration = evolve(configuration, revision=revision)
            assigned = (*(each for each in state.assigned if each != name), name)
            new = State({**state.configurations, name: configuration}, assigned)
            self._check_assigned(configuration, state, new)
            return new

        return self._change(change, "assign", name, actor, Expected(expected_revision, on_conflict)).number

    def unassign(
        self,
        name: str,
        *,
        actor: str | None = None,
        expected_revision: int | None = None,
        on_conflict: OnConflict = "refuse",
    ) -> int:
        """Take a configuration out of the overlay; it stays available. The revision.

        `on_conflict` as for `register`; with `retry` it is fine that somebody did the same.
        """
        self._refuse_sealed()

        def change(head: Revision, _revision: int, base: State | None) -> State:
            state = head.state
            if base is not None and name in base.assigned and name not in state.assigned:
                return state
            self._get(state, name)
            if name not in state.assigned:
                raise UnknownName(f"configuration `{name}` is not assigned")
            return _unassigned(state, name, forget=state.configurations[name].source != "user")

        return self._change(change, "unassign", name, actor, Expected(expected_revision, on_conflict)).number

    def unregister(
        self,
        name: str,
        *,
        actor: str | None = None,
        expected_revision: int | None = None,
        on_conflict: OnConflict = "refuse",
    ) -> int:
        """Forget a registered configuration, unassigning it first. The revision.

        `on_conflict` as for `register`; with `retry` it is refused where somebody changed it since.
        """
        self._refuse_sealed()
        expected = Expected(expected_revision, on_conflict)

        def change(head: Revision, _revision: int, base: State | None) -> State:
            state = head.state
            if base is not None and name in base.configurations and name not in state.configurations:
                return state
            expected.merged(self._stack.store, head, base, name, ABSENT)
            configuration = self._get(state, name)
            if name not in state.configurations or configuration.source != "user":
                raise UnknownName(
                    f"configuration `{name}` is shipped by {configuration.source}; unassign it instead"
                )
            return _unassigned(state, name, forget=True)

        return self._change(change, "unregister", name, actor, expected).number

    def _change(
        self,
        change: Change,
        action: str,
        name: str,
        actor: str | None,
        expected: Expected,
        draft: _Draft | None = None,
        first: Revision | None = None,
    ) -> Revision:
        """Make the next revision of what `change` makes of the head, of the newest one if another
        process was faster. `draft` is what the configuration is to say, where that is new; `first`
        what was the head a moment ago, where that is known.
        """
        store = self._stack.store

        def mine(state: State) -> Mapping[str, Providers | Absent | None]:
            gone = ABSENT if action == "unregister" else None
            return {name: draft.with_kept_secrets(state) if draft else gone}

        until = monotonic() + _PATIENCE
        for attempt in count():
            head = first if first is not None and attempt == 0 else store.read()
            base = expected.base(store, head, mine) if expected.is_past(head) else None
            state = change(head, head.number + 1, base)
            if state == head.state:
                return head
            try:
                revision = store.append(
                    head.number,
                    state,
                    action=action,
                    subject=name,
                    actor=actor or current_actor(),
                    sealed=draft.sealed if draft else None,
                )
            except Conflict:
                if monotonic() > until:
                    raise
                _pause(attempt)
            else:
                return revision
        raise AssertionError("unreachable")

    def _restore(self, revision: Revision, actor: str | None, expected: Expected) -> RolledBack:
        """Make the next revision of an old one's state, as it is."""
        from stackconf.history import RolledBack, is_same

        self._refuse_sealed()
        store = self._stack.store
        until = monotonic() + _PATIENCE
        for attempt in count():
            head = store.read()
            if expected.is_past(head):
                names = {**revision.state.configurations, **head.state.configurations}
                mine = {name: providers_of(revision, name) for name in names}
                raise expected.conflict(store, head, mine, mergeable=False)
            if is_same(head.state, revision.state):
                return RolledBack(head.number, revision.number, changed=False)
            self._check_restored(revision)
            try:
                new = store.append(
                    head.number,
                    revision.state,
                    action="rollback",
                    subject=f"revision {revision.number}",
                    actor=actor or current_actor(),
                    restores=revision.number,
                )
            except Conflict:
                if monotonic() > until:
                    raise
                _pause(attempt)
            else:
                return RolledBack(new.number, revision.number, changed=True)
        raise AssertionError("unreachable")

    def _check_restored(self, revision: Revision) -> None:
        issues: dict[Issue, None] = {}
        state = revision.state
        for name in state.assigned:
            try:
                self._check_assigned(state.configurations[name], state, state)
            except InvalidConfig as error:
                found = error.issues or (Issue(str(error)),)
                issues.update(dict.fromkeys(_of_configuration(issue, name) for issue in found))
        if issues:
            problem = f"revision {revision.number} was not restored: it does not fit the stack any more"
            raise InvalidConfig(problem, tuple(issues))

    def _get(self, state: State, name: str) -> Configuration:
        found = state.configurations.get(name)
        if found is not None:
            return found
        shipped = self._shipped.get(name)
        if shipped is not None:
            return Configuration(name, shipped.providers, shipped.source)
        names = [*state.configurations, *self._shipped]
        hint = did_you_mean(name, names) or (
            f"there are {', '.join(names)}" if names else "none is registered"
        )
        raise UnknownName(f"no configuration `{name}`; {hint}")

    def _check_assigned(self, configuration: Configuration, before: State, after: State) -> None:
        given = read_configuration({"providers": configuration.providers}, name=configuration.name)
        draft = _Draft(self._stack, configuration.name, given, before, done="assigned", seal=False)
        draft.refuse_errors()
        draft.with_kept_secrets(before)
        draft.check(before, after)

    def _refuse_sealed(self) -> None:
        file = self._stack.file
        if not file.sealed:
            return
        if "sealed" not in file.settings:
            raise Sealed(f"`sealed` in {file.name} cannot be read, which counts as sealed; mend it there")
        raise Sealed(f"the stack is sealed: {file.name} is its only truth; change it there")


class _Draft:
    """A configuration on its way in: projected, checked against the stack, nothing written yet."""

    def __init__(
        self,
        stack: Stack,
        name: str,
        given: Given,
        state: State,
        *,
        done: str = "registered",
        seal: bool,
    ) -> None:
        self._stack = stack
        self._name = name
        self._given = given
        self._refusal = f"the configuration was not {done}"
        self._may_seal = seal
        self._why_not_sealed = (
            ("a shipped configuration has a secret in the clear", "register it under another name")
            if done == "assigned"
            else ("a secret is not taken from a command line, where others see it", _USE_A_FILE)
        )
        self.errors: list[Issue] = []
        self.warnings: list[Issue] = []
        self._dropped: list[Issue] = []
        self._kept: list[tuple[Entry, Mapping[str, Any]]] = []
        self._sent_back: dict[str, list[FieldPath]] = {}
        """For each provider, the paths of redacted values that stand for what is there."""
        self._effective: dict[str, tuple[tuple[Overlay, ...], Resolved]] = {}
        self._literals: dict[str, list[FieldPath]] = {}
        """For each provider, the paths of the secrets that are given in the clear."""
        self._fresh: dict[tuple[str, FieldPath], tuple[str, SealedSecret]] = {}
        self.sealed: dict[str, SealedSecret] = {}
        """The secrets to store, by id, for what `with_kept_secrets` gave last."""
        self._overlays = stack.manager.overlays(state)
        for entry in given.entries:
            self._take(entry)

    @property
    def dropped(self) -> tuple[Issue, ...]:
        """What is not taken, path by path."""
        return tuple(self._dropped)

    def refuse_errors(self) -> None:
        """Raise `InvalidConfig` when something is wrong, or nothing is left."""
        if self.errors:
            raise InvalidConfig(self._refusal, (*self.errors, *self._dropped))
        if not any(values for _, values in self._kept) and not any(self._sent_back.values()):
            message = "nothing to register: it sets no user field of the stack"
            raise InvalidConfig(message, (Issue(message, code="nothing-kept"), *self._dropped))

    def with_kept_secrets(self, state: State, head: State | None = None) -> dict[str, list[dict[str, Any]]]:
        """What is stored. A redacted value sent back keeps what the same configuration had there, and
        a secret given in the clear is sealed, unless it is the one that is there, or at the head.
        """
        before = state.configurations.get(self._name)
        newest = None if head is None else head.configurations.get(self._name)
        stored: dict[str, list[dict[str, Any]]] = {}
        self.sealed.clear()
        for entry, values in self._kept:
            provider = self._stack.manager.provider(entry.key)
            old = _config_in(before, entry) if before else {}
            kept = values
            for path in self._sent_back[entry.key]:
                given = value_at(old, path)
                if given is not None:
                    kept = merge(_nested(path, given), kept)
            self._refuse_strangers(entry, kept, old)
            kept = self._with_sealed(entry, kept, old, _config_in(newest, entry) if newest else {})
            if kept:
                stored.setdefault(entry.api, []).append(
                    {
                        "provider_id": entry.provider_id,
                        "provider_type": provider.provider_type if provider else entry.provider_type,
                        "config": kept,
                    }
                )
        if self.errors:
            raise InvalidConfig(self._refusal, (*self.errors, *self._dropped))
        return stored

    def _with_sealed(
        self, entry: Entry, kept: Mapping[str, Any], *places: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """The values with a reference in place of each secret that was given in the clear."""
        vault = self._stack.secrets
        for path in self._literals.get(entry.key, ()):
            value = value_at(kept, path)
            found = (value_at(each, path) for each in places)
            there = next((each for each in found if vault.holds(each, value, entry.key, path)), None)
            if there is None:
                if (entry.key, path) not in self._fresh:
                    self._fresh[entry.key, path] = vault.seal(value, entry.key, path)
                identity, sealed = self._fresh[entry.key, path]
                self.sealed[identity] = sealed
                there = sealed_reference(identity)
            kept = replaced(kept, path, there)
        return kept

    def _refuse_strangers(self, entry: Entry, kept: Mapping[str, Any], old: Mapping[str, Any]) -> None:
        """A reference to a sealed secret counts only where it was made."""
        for path, value in scalars(kept):
            if sealed_id(value) and value_at(old, path) != value:
                problem = f"this sealed secret is not the one that `{self._name}` has here"
                self._refuse(entry, problem, "give the secret itself, or a reference to where it is", path)

    def check(self, old_state: State, new_state: State) -> None:
        """Resolve the touched providers under the new state; nothing counts that could not be
        validated, so one that is wrong for another reason refuses it as well.
        """
        manager = self._stack.manager
        before, after = manager.overlays(old_state), manager.overlays(new_state)
        errors: list[Issue] = []
        self.warnings = []
        for entry, _ in self._kept:
            old = set(map(str, self._now(entry.key, before.get(entry.key, ())).issues))
            with self._stack.secrets.arriving(self.sealed):
                resolved = manager.resolve_one(entry.key, after.get(entry.key, ()))
            new = (*self._of_file(entry), *resolved.issues)
            placed = [(self._placed(_tolerated(issue), entry), str(issue) in old) for issue in new]
            errors += [issue for issue, _ in placed if issue.level == "error"]
            self.warnings += [issue for issue, known in placed if issue.level == "warning" and not known]
        if errors:
            raise InvalidConfig(self._refusal, (*in_order(errors), *self._dropped))

    def _now(self, key: str, overlays: tuple[Overlay, ...]) -> Resolved:
        """A provider as it is without the draft, resolved again only if somebody changed it since."""
        found = self._effective.get(key)
        if found is not None and found[0] == overlays:
            return found[1]
        return self._stack.manager.at_hand(key, overlays)

    def _of_file(self, entry: Entry) -> list[Issue]:
        """What the stack file says wrong about a provider; it cannot be resolved for that."""
        issues = self._stack.file.issues
        return [issue for issue in issues if issue.provider == entry.key and issue.level == "error"]

    def _take(self, entry: Entry) -> None:
        manager = self._stack.manager
        provider = manager.provider(entry.key)
        if provider is None:
            self._refuse(entry, *self._no_provider(entry))
            return
        if entry.provider_type and entry.provider_type != provider.provider_type:
            problem = (
                f"the stack's `{provider.key}` is `{provider.provider_type}`, not `{entry.provider_type}`"
            )
            self._refuse(entry, problem, "a configuration cannot change a provider's type")
            return
        missing = missing_type(manager.registry, provider)
        if missing is not None:
            self._refuse(entry, getattr(missing, "message", str(missing)), getattr(missing, "hint", ""))
            return
        self._project(entry, provider)

    def _project(self, entry: Entry, provider: Provider) -> None:
        manager = self._stack.manager
        assigned = self._overlays.get(entry.key, ())
        below = tuple(takewhile(lambda overlay: overlay.name != self._name, assigned))
        resolved = manager.at_hand(entry.key, below)
        effective = manager.at_hand(entry.key, assigned) if below != assigned else resolved
        self._effective[entry.key] = (assigned, effective)
        plan = resolved.plan
        if plan is None:
            self._refuse(entry, resolved.issues[0].message, resolved.issues[0].hint)
            return
        config: Mapping[str, Any] = entry.config
        self._sent_back[entry.key] = []
        if holds_redacted(config):
            shown = {} if effective.config is None else SHOWN.render(effective.config)
            config, self._sent_back[entry.key] = without_shown(config, shown, plan)
        kept, dropped = project(config, plan, resolved.merged)
        taken = TakenOverlay(Overlay(self._name, 0, config), kept, tuple(dropped))
        for issue, each in zip(dropped_issues(provider, taken, plan), dropped, strict=True):
            self._dropped.append(evolve(issue, where=self._given.where(entry, each.path)))
        self._check_secrets(entry, kept, plan)
        self._kept.append((entry, kept))

    def _check_secrets(self, entry: Entry, kept: Mapping[str, Any], plan: ClassPlan) -> None:
        for path, value in scalars(kept):
            if value is None or value == "" or isinstance(value, bool):
                continue
            top = secret_top(path, kept, plan)
            if top is not None:
                self._check_secret(entry, path, value, top)
            elif looks_like_reference(value):
                self._refuse(entry, "a reference is resolved only in a secret field", "give the value", path)
            elif isinstance(value, str) and passwords_in(value):
                self._refuse(entry, "a password is not stored in the clear", "leave it out of the URL", path)

    def _check_secret(self, entry: Entry, path: FieldPath, value: object, top: FieldPath) -> None:
        if is_reference(value):
            return
        if looks_like_reference(value):
            problem = "a secret is not stored in the clear, and this is no reference"
            self._refuse(entry, problem, _HOW_REFERENCES_LOOK, top)
            return
        try:
            self._stack.secrets.check()
            if self._may_seal:
                self._literals.setdefault(entry.key, []).append(path)
                return
            problem, hint = self._why_not_sealed
            self._refuse(entry, problem, hint, top)
        except SecretError as error:
            problem = f"a secret is not stored in the clear, and {error.problem}"
            self._refuse(entry, problem, f"{_USE_A_REFERENCE}; or to have it encrypted: {error.hint}", top)

    def _no_provider(self, entry: Entry) -> tuple[str, str]:
        keys = self._stack.manager.provider_keys()
        disabled = {f"{each.api}/{each.provider_type}" for each in self._stack.file.disabled}
        if f"{entry.api}/{entry.provider_type}" in disabled:
            return "the provider is disabled in the stack file", "enable it there"
        apis = {key.split("/", 1)[0] for key in keys}
        if entry.api not in apis:
            hint = did_you_mean(entry.api, apis)
            return f"no provider of api `{entry.api}` in the stack", hint or _known(sorted(keys))
        same = [key for key in keys if key.startswith(f"{entry.api}/")]
        return "no such provider in the stack", did_you_mean(entry.key, keys) or _known(same)

    def _refuse(self, entry: Entry, message: str, hint: str = "", path: tuple[str | int, ...] = ()) -> None:
        where = self._given.document.position(entry.path) if self._given.document else None
        self.errors.append(
            Issue(
                message,
                hint=hint,
                path=f"config.{dotted(path)}" if path else "",
                provider=entry.key,
                code="not-registrable",
                where=self._given.where(entry, path) if path else where,
            )
        )

    def _placed(self, issue: Issue, entry: Entry) -> Issue:
        if issue.where is not None or not issue.path.startswith("config."):
            return issue
        path = undotted(issue.path.removeprefix("config."))
        return evolve(issue, where=self._given.where(entry, path))


def default_store_path(stack_file: Path) -> Path:
    """Where the embedded store of a stack file is: in a hidden folder beside it.

    >>> default_store_path(Path("site/stack.yaml")).as_posix()
    'site/.stackconf/stack.yaml.sqlite3'
    """
    return stack_file.parent / ".stackconf" / f"{stack_file.name}.sqlite3"


def current_actor() -> str:
    """Who is acting: `STACKCONF_ACTOR`, or the user's name."""
    named = os.environ.get("STACKCONF_ACTOR")
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _of_configuration(issue: Issue, name: str) -> Issue:
    if "given by configuration `" in issue.message:
        return issue
    return evolve(issue, message=f"{issue.message}; given by configuration `{name}`")


def _refuse_name(name: object) -> None:
    fine = isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name.isprintable()
    if not fine or str(name).strip() != name:
        problem = f"a configuration's name is one line of 1 to {_LONGEST_NAME} characters"
        raise InvalidConfig(f"{problem}, without spaces around it")


def _pause(attempt: int) -> None:
    """Let the others through: a moment by chance, longer after each attempt in vain."""
    from random import uniform

    sleep(uniform(0.0, min(_LONGEST_PAUSE, 0.002 * 2 ** min(attempt, 10))))  # noqa: S311 (no secret)


def _about_errors(errors: int) -> tuple[Issue, ...]:
    """A word about what is wrong elsewhere in the stack, for it keeps any registration from its effect."""
    if not errors:
        return ()
    problem = f"an apply would refuse the stack for {errors} other {'error' if errors == 1 else 'errors'}"
    return (Issue(problem, level="warning", hint="`stackconf check` shows them", code="stack-invalid"),)


def _tolerated(issue: Issue) -> Issue:
    """A reference is resolved by the machine that applies it, which need not be this one."""
    return evolve(issue, level="warning") if issue.code == "missing-secret" else issue


def _config_in(configuration: Configuration, entry: Entry) -> Mapping[str, Any]:
    for each in configuration.providers.get(entry.api, ()):
        if each["provider_id"] == entry.provider_id:
            config: Mapping[str, Any] = each["config"]
            return config
    return {}


def _nested(path: Sequence[str | int], value: Any) -> dict[str, Any]:
    for step in reversed(path):
        value = {step: value}
    nested: dict[str, Any] = value
    return nested


def _unassigned(state: State, name: str, *, forget: bool) -> State:
    configurations = {key: each for key, each in state.configurations.items() if key != name or not forget}
    return State(configurations, tuple(each for each in state.assigned if each != name))


def _keys_of(providers: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[str, ...]:
    return tuple(f"{api}/{entry['provider_id']}" for api, listed in providers.items() for entry in listed)


def _is_at(path: str, wanted: str) -> bool:
    return path == wanted or path.startswith((f"{wanted}.", f"{wanted}["))


def _known(keys: Iterable[str]) -> str:
    return f"it has {', '.join(keys)}" if keys else "it has no providers"
