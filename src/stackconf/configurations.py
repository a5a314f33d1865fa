"""The registered configurations of a stack: each change is checked against the stack and becomes the next
revision, made anew on top of what others have changed meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import count
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import evolve, field, frozen

from stackconf.actor import current_actor
from stackconf.choosing import Chosen, Listed, choose, compared
from stackconf.conflicts import ABSENT, Absent, Expected, OnConflict, Providers, providers_of
from stackconf.draft import Draft
from stackconf.errors import Conflict, InvalidConfig, Sealed, UnknownName
from stackconf.given import OnDropped, Source, read_configuration, refuse_name, refuse_on_dropped
from stackconf.resolve.render import USERS
from stackconf.shipped import ShippedConfiguration, shipped_configurations
from stackconf.store.base import Configuration, Revision, State
from stackconf.suggest import did_you_mean
from stackconf.types import Issue

if TYPE_CHECKING:
    from stackconf.history import RolledBack
    from stackconf.manager import Manager
    from stackconf.plan import Plan
    from stackconf.store.base import Store
    from stackconf.vault import Vault

Change: TypeAlias = Callable[[Revision, int, State | None], State]
"""Of the head, the next revision's number and what to merge with: the next state."""

_PATIENCE = 30.0
"""For how many seconds a change is made anew on top of what others have changed meanwhile."""
_LONGEST_PAUSE = 0.1


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


class Configurations:
    """The registered configurations of a stack, and those that plugins ship."""

    def __init__(self, manager: Manager, store: Store, vault: Vault) -> None:
        self._manager = manager
        self._store = store
        self._vault = vault

    @cached_property
    def _shipped(self) -> Mapping[str, ShippedConfiguration]:
        return {each.name: each for each in shipped_configurations(self._manager.registry)}

    def inspect(self) -> dict[str, Any]:
        """The user fields of every provider, in issue 993's shape: every api of the stack, empty
        ones as `[]`.
        """
        return self._manager.at_head(self._store).rendered(USERS)

    def list(self, *, fit: bool = False) -> list[Listed]:
        """Every configuration, available or assigned, with its source; assigned ones first. Of the
        shipped ones those that have a provider or a type of the stack. With `fit` those that say for
        which machine they are, are compared with the stack's.
        """
        listed = [self._with_requirement(each) for each in self._list()]
        if fit and any(each.requirement is not None for each in listed):
            manager = self._manager
            return compared(listed, manager.hardware, manager.provider_keys(), manager.hardware_for)
        return listed

    def assign_best(
        self,
        providers: Sequence[str] = (),
        *,
        actor: str | None = None,
        expected_revision: int | None = None,
        on_conflict: OnConflict = "refuse",
    ) -> Chosen:
        """Assign the shipped configuration that this machine is for: of those that fit, the one that
        asks for most, which says most about the machine.

        With `providers`, each `api/provider_id` or an id that only one api has, only configurations
        that set all of these count. Raises `InvalidConfig` when none fits, with what the nearest
        lack, and when those that fit are for different providers.
        """
        self._refuse_sealed()
        keys = [self._manager.key_of(each) for each in providers]
        chosen = choose(self.list(fit=True), keys)
        revision = self.assign(
            chosen.name, actor=actor, expected_revision=expected_revision, on_conflict=on_conflict
        )
        return evolve(chosen, revision=revision)

    def _with_requirement(self, listed: Listed) -> Listed:
        shipped = self._shipped.get(listed.name)
        if shipped is None or listed.source == "user":
            return listed
        return evolve(listed, requirement=shipped.requirement, provenance=shipped.provenance)

    @cached_property
    def _concerning(self) -> Mapping[str, ShippedConfiguration]:
        """The shipped configurations that have a provider, or a type, that the stack has too."""
        providers = [entry.provider for entry in self._manager.stack.providers]
        known = {each.key for each in providers} | {each.type_key for each in providers}

        def concerns(shipped: ShippedConfiguration) -> bool:
            return any(
                not known.isdisjoint({f"{api}/{entry['provider_id']}", f"{api}/{entry['provider_type']}"})
                for api, entries in shipped.providers.items()
                for entry in entries
            )

        return {name: each for name, each in self._shipped.items() if concerns(each)}

    def _list(self) -> Sequence[Listed]:
        state = self._store.read().state
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
            for name, each in self._concerning.items()
            if name not in state.configurations
        ]
        return sorted(registered + shipped, key=lambda each: (each.assigned or len(order) + 1, each.name))

    def get(self, name: str) -> Configuration:
        """One configuration, registered or shipped. Raises `UnknownName`."""
        return self._get(self._store.read().state, name)

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
        refuse_name(name)
        refuse_on_dropped(on_dropped)
        given = read_configuration(config, name=name)
        first = self._store.read()
        draft = Draft(self._manager, self._vault, name, given, first.state, seal=seal)
        dropped = draft.dropped if on_dropped != "ignore" else ()
        if on_dropped == "error" and dropped:
            errors = tuple(evolve(issue, level="error") for issue in dropped)
            raise InvalidConfig("the configuration sets what a user may not set", errors)
        draft.refuse_errors()

        def change(head: Revision, revision: int, base: State | None) -> State:
            state = head.state
            mine = draft.with_kept_secrets(base or state, state)
            kept = expected.merged(self._store, head, base, name, mine)
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
        manager = self._manager
        errors = manager.resolve(manager.overlays(made.state)).errors
        warnings = (*given.ignored, *draft.warnings, *_about_errors(len(errors)))
        kept = json.loads(json.dumps(made.state.configurations[name].providers, sort_keys=True))
        return Registered(name, made.number, kept, dropped, warnings, lambda: manager.plan(self._store))

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
            expected.merged(self._store, head, base, name, ABSENT)
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
        draft: Draft | None = None,
        first: Revision | None = None,
    ) -> Revision:
        """Make the next revision of what `change` makes of the head, of the newest one if another
        process was faster. `draft` is what the configuration is to say, where that is new; `first`
        what was the head a moment ago, where that is known.
        """
        store = self._store

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
        store = self._store
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
        draft = Draft(
            self._manager, self._vault, configuration.name, given, before, done="assigned", seal=False
        )
        draft.refuse_errors()
        draft.with_kept_secrets(before)
        draft.check(before, after)

    def _refuse_sealed(self) -> None:
        file = self._manager.stack
        if not file.sealed:
            return
        if "sealed" not in file.settings:
            raise Sealed(f"`sealed` in {file.name} cannot be read, which counts as sealed; mend it there")
        raise Sealed(f"the stack is sealed: {file.name} is its only truth; change it there")


def _of_configuration(issue: Issue, name: str) -> Issue:
    if "given by configuration `" in issue.message:
        return issue
    return evolve(issue, message=f"{issue.message}; given by configuration `{name}`")


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


def _unassigned(state: State, name: str, *, forget: bool) -> State:
    configurations = {key: each for key, each in state.configurations.items() if key != name or not forget}
    return State(configurations, tuple(each for each in state.assigned if each != name))


def _keys_of(providers: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[str, ...]:
    return tuple(f"{api}/{entry['provider_id']}" for api, listed in providers.items() for entry in listed)
