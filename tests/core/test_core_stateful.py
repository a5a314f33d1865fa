"""Random lives of a stack, against a small model of what must hold.

What this shows not to happen: a registration that is lost or half there; a revision that is skipped
or changes later; a provider that counts as applied before its apply ended, or after it failed; a
failed attempt of which nothing is seen any more; a world that is not what the store says; two sources
of truth after a restart; an apply that goes round in circles, or does again what is done.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from core_kit import open_stack
from faults_kit import TYPES, Fault, Files, known_world, named, stack_of
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stackconf import ApplyError, Conflict, InvalidConfig, UnknownName
from stackconf.plan import is_unknown, last_known, place_of
from stackconf.store.sqlite import SqliteStore

KEYS = [f"inference/{letter}" for letter in "abcd"]
NAMES = st.sampled_from(["one", "two", "three"])
PORTS = st.dictionaries(st.sampled_from(KEYS), st.integers(1, 5), min_size=1)
FILES = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(TYPES))
INSTANTS = st.integers(1, 30)


class Killed(BaseException):
    """The process is dead: nothing after this instant happens, no undo and no write."""


class Life:
    """A process that can be dead. Asked at every instant at which one may be killed."""

    def __init__(self) -> None:
        self.left: int | None = None

    def instant(self) -> None:
        if self.left is not None:
            self.left = max(0, self.left - 1)
            if self.left == 0:
                raise Killed


class MortalStore(SqliteStore):
    """A store whose process may be killed before and after each of its writes."""

    def __init__(self, path: Path, life: Life) -> None:
        super().__init__(path)
        self.life = life

    def _writing(self):
        return _Mortal(super()._writing(), self.life)


class _Mortal:
    def __init__(self, writing, life: Life) -> None:
        self.writing, self.life = writing, life

    def __enter__(self):
        self.life.instant()
        return self.writing.__enter__()

    def __exit__(self, kind, error, trace):
        if kind is None:
            try:
                self.life.instant()  # all is written, and nothing is committed
            except Killed as killed:
                self.writing.__exit__(Killed, killed, None)
                raise
        done = self.writing.__exit__(kind, error, trace)
        self.life.instant()
        return done


class Lives(RuleBasedStateMachine):
    @initialize(file=FILES, way=st.sampled_from(["undo", "check_undo", "around"]))
    def begins(self, file, way):
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.files = Files(self.folder, way=way)
        self.life = Life()
        self.files.instant = self.life.instant
        self.file = file
        self.configurations: dict[str, dict[str, tuple[str, int]]] = {}
        """What each says of each provider, and of which type that was then."""
        self.assigned: list[str] = []
        self.states = [({}, [])]
        self.attempts: list[str] = []
        self.records = {}
        self.stack = None
        self.open()

    def teardown(self):
        if hasattr(self, "temporary"):
            self.stack.close()
            self.temporary.cleanup()

    def open(self):
        if self.stack is not None:
            self.stack.close()
        self.life.left = None
        store = MortalStore(self.folder / "store.sqlite3", self.life)
        data = stack_of(dict.fromkeys(self.file, 80), self.file)
        self.stack = open_stack(self.folder, data, self.files.owner, store=store)

    def wanted(self) -> dict[str, str]:
        ports = dict.fromkeys(self.file, 80)
        for name in self.assigned:
            ports.update({key: port for key, (_, port) in self.configurations[name].items() if key in ports})
        return {f"{key} {self.file[key]}": f"port {port}" for key, port in ports.items()}

    def fits(self, configuration: dict[str, tuple[str, int]]) -> bool:
        """Whether the stack still has its providers, of the same types."""
        return all(self.file.get(key) == kind for key, (kind, _) in configuration.items())

    # What is registered

    def changes(self, act: Callable[[], object], configurations, assigned, *, killed: int | None = None):
        """A change that makes one revision, or none if it is killed or changes nothing."""
        self.life.left = killed
        try:
            act()
        except Killed:
            self.open()
        else:
            killed = None
        self.life.left = None
        after = (configurations, assigned)
        grown = self.stack.revision - (len(self.states) - 1)
        assert grown in ({0, 1} if killed else {int(after != self.states[-1])})
        if grown:
            self.states.append(after)
            self.configurations, self.assigned = configurations, assigned

    @precondition(lambda self: self.file)
    @rule(name=NAMES, ports=PORTS, assign=st.booleans(), killed=st.none() | st.integers(1, 3))
    def register(self, name, ports, assign, killed):
        ports = {key: port for key, port in ports.items() if key in self.file}
        if not ports:
            return
        given = {
            "inference": [{"provider_id": key[-1], "config": {"port": port}} for key, port in ports.items()]
        }
        assigned = [*self.assigned, name] if assign and name not in self.assigned else self.assigned
        self.changes(
            lambda: self.stack.configurations.register(given, name=name, assign=assign),
            self.configurations | {name: {key: (self.file[key], port) for key, port in ports.items()}},
            assigned,
            killed=killed,
        )

    @precondition(lambda self: self.configurations)
    @rule(data=st.data(), killed=st.none() | st.integers(1, 3))
    def assign(self, data, killed):
        name = data.draw(st.sampled_from(sorted(self.configurations)))
        if not self.fits(self.configurations[name]):
            with pytest.raises(InvalidConfig):
                self.stack.configurations.assign(name)
            return
        assigned = [*(each for each in self.assigned if each != name), name]
        self.changes(
            lambda: self.stack.configurations.assign(name), self.configurations, assigned, killed=killed
        )

    @precondition(lambda self: self.configurations)
    @rule(data=st.data(), act=st.sampled_from(["unassign", "unregister"]))
    def forget(self, data, act):
        name = data.draw(st.sampled_from(sorted(self.configurations)))
        if act == "unassign" and name not in self.assigned:
            return
        kept = {key: each for key, each in self.configurations.items() if key != name}
        self.changes(
            lambda: getattr(self.stack.configurations, act)(name),
            kept if act == "unregister" else self.configurations,
            [each for each in self.assigned if each != name],
        )

    @precondition(lambda self: self.configurations)
    @rule(data=st.data())
    def register_against_an_old_revision(self, data):
        name = data.draw(st.sampled_from(sorted(self.configurations)))
        with pytest.raises(Conflict):
            self.stack.configurations.unregister(name, expected_revision=len(self.states) - 2)

    @precondition(lambda self: len(self.states) > 1)
    @rule(data=st.data(), killed=st.none() | st.integers(1, 3))
    def rollback(self, data, killed):
        revision = data.draw(st.integers(1, len(self.states) - 1))
        configurations, assigned = self.states[revision]
        if self.states[revision] == self.states[-1] or all(
            self.fits(configurations[name]) for name in assigned
        ):
            self.changes(lambda: self.stack.rollback(revision), configurations, assigned, killed=killed)
        else:
            with pytest.raises(InvalidConfig):
                self.stack.rollback(revision)

    @rule(file=FILES)
    def write_another_file(self, file):
        self.file = file
        self.open()

    @rule()
    def reopen(self):
        self.open()

    # Apply

    def tries(self, *faults: Fault, killed: int | None = None, recover: bool = False) -> str:
        """Apply or recover; how it ended."""
        self.files.begin(*faults)
        self.life.left = killed
        try:
            report = self.stack.recover() if recover else self.stack.apply()
        except ApplyError as error:
            report = error.report
        except Killed:
            note(f"killed after {self.files.acts}")
            self.open()
            attempts = self.stack.store.attempts()
            ended = attempts[0].state if len(attempts) > len(self.attempts) else "not begun"
            if ended != "not begun":
                self.attempted(ended)
            self.compare(recover=recover, ended=ended)
            return "killed"
        self.life.left = None
        if report.attempt:
            assert report.attempt == len(self.attempts) + 1
            assert report.took_over == (len(self.attempts) if self.attempts[-1:] == ["begun"] else 0)
            self.attempted(report.state)
        self.compare(recover=recover, ended=report.state)
        return report.state

    def attempted(self, state: str) -> None:
        """An attempt has begun, so that one that was cut off has ended."""
        if self.attempts[-1:] == ["begun"]:
            self.attempts[-1] = "cut_off"
        self.attempts.append(state)

    def compare(self, *, recover: bool, ended: str) -> None:
        """What counts as applied changes only where an apply ended well, or its provider is lost."""
        before, after = self.records, self.stack.store.applied()
        self.records = after
        succeeded = ended in {"applied", "pending", "nothing"} and not recover
        for place, record in after.items():
            old = before.get(place)
            if is_unknown(record) or record == old:
                continue
            if is_unknown(old) and last_known(old) == record.snapshot:
                continue  # it has been brought back
            assert succeeded, f"{place} counts as applied after it {ended}"
            assert record.revision == self.stack.revision
        gone = set(before) - set(after)
        assert succeeded or all(last_known(before[place]) is None for place in gone)

    @rule()
    def apply(self):
        assert self.tries() in {"applied", "nothing"}
        assert self.files.running() == self.wanted()
        assert not self.stack.plan()
        assert not any(map(is_unknown, self.records.values()))
        acts = list(self.files.acts)
        assert self.tries() == "nothing"
        assert self.files.acts == [] or acts == []

    @rule(data=st.data(), step=st.sampled_from(["apply", "check", "away"]), undo=st.booleans())
    def apply_that_fails(self, data, step, undo):
        changes = self.stack.plan().changes
        if not changes:
            return
        chosen = [data.draw(st.sampled_from(changes)).provider for _ in range(2)]
        faults = [Fault(step, chosen[0].key, chosen[0].provider_type)]
        if undo:
            faults.append(Fault("undo", chosen[1].key, chosen[1].provider_type))
        applied = self.stack.store.applied()
        # One that a killed apply had let join, and that is to leave: to take it back is to let it leave.
        leaves = all(
            change.kind == "leave" and last_known(applied[place_of(change.provider, applied)]) is None
            for change in changes
        )
        ended = self.tries(*faults)
        assert ended == ("pending" if step == "away" else "failed")
        assert self.stack.plan() or leaves

    @rule(killed=INSTANTS)
    def apply_that_is_killed(self, killed):
        self.tries(killed=killed)

    @rule(data=st.data(), killed=INSTANTS)
    def apply_that_fails_and_is_killed(self, data, killed):
        changes = self.stack.plan().changes
        if changes:
            last = data.draw(st.sampled_from(changes)).provider
            self.tries(Fault("check", last.key, last.provider_type), killed=killed)

    @rule(killed=st.none() | INSTANTS)
    def recover(self, killed):
        lost = any(map(is_unknown, self.stack.store.applied().values()))
        if self.tries(killed=killed, recover=True) != "killed":
            assert self.attempts[-1:] == ["applied"] or not lost
            assert not any(map(is_unknown, self.records.values()))

    # What holds at any time

    @invariant()
    def what_is_registered_is_what_was_registered(self):
        if not hasattr(self, "stack"):
            return
        store = self.stack.store
        assert store.head() == len(self.states) - 1
        for number, (configurations, assigned) in enumerate(self.states):
            state = store.read(number).state
            found = {
                name: {
                    f"{api}/{entry['provider_id']}": (entry["provider_type"], entry["config"]["port"])
                    for api, entries in each.providers.items()
                    for entry in entries
                }
                for name, each in state.configurations.items()
            }
            assert (found, list(state.assigned)) == (configurations, assigned)
        with pytest.raises(UnknownName):
            store.read(len(self.states))

    @invariant()
    def the_world_is_what_the_store_says(self):
        if not hasattr(self, "stack"):
            return
        records = self.stack.store.applied()
        lost = {named(record) for record in records.values() if is_unknown(record)}
        world = {name: text for name, text in self.files.running().items() if name not in lost}
        assert world == known_world(records.values())

    @invariant()
    def every_attempt_is_seen(self):
        if not hasattr(self, "stack"):
            return
        assert [each.state for each in reversed(self.stack.store.attempts())] == self.attempts
        cut = self.stack.store.view().open_attempt
        assert (cut.number if cut else None) == (
            len(self.attempts) if self.attempts[-1:] == ["begun"] else None
        )
        assert self.stack.store.holder() is None


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
