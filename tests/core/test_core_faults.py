"""Every place where an apply can fail, one after the other: the report is right state by state, the
world is what it was, and the store tells the truth about both.

What these tests show not to happen: a rollback that forgets a provider; a change that counts as
applied although a later provider failed; a rollback that is called complete by what the failed
apply said, and not by asking; a failure of which nothing is seen any more after the rollback; an
undo that assumes parts which were never set up; a stop before the new one is known to work.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest
from core_kit import open_stack
from faults_kit import TYPES, Fault, Files, known_world, named, stack_of, tell

from stackconf import ApplyError
from stackconf.plan import is_unknown

pytestmark = pytest.mark.exhaustive

MOST = 12
KINDS = ("join", "change", "leave", "mixed", "becomes")
TOO_MANY = {("becomes", count) for count in range(MOST // 2 + 1, MOST + 1)}
"""One that becomes another type is two steps of an apply."""
KEYS = [f"inference/p{number:02}" for number in range(MOST)]


class Case:
    """A stack of n providers that runs one thing and is to run another."""

    def __init__(self, folder, kind: str, count: int, **plugin) -> None:
        folder.mkdir()
        keys = KEYS[:count]
        before, after = dict.fromkeys(keys, 80), dict.fromkeys(keys, 81)
        kinds = dict.fromkeys(keys, TYPES[1]) if kind == "becomes" else {}
        if kind == "join":
            before = {}
        if kind == "leave":
            after = {}
        if kind == "mixed":
            before = {key: 80 for number, key in enumerate(keys) if number % 3 != 0}
            after = {key: 81 for number, key in enumerate(keys) if number % 3 != 2}
        self.files = Files(folder, **plugin)
        with open_stack(folder, stack_of(before), self.files.owner) as stack:
            stack.apply()
            self.before = dict(stack.store.applied())
        self.world = self.files.running()
        assert len(self.world) == len(before)
        self.stack = open_stack(folder, stack_of(after, kinds), self.files.owner)
        changes = self.stack.plan().changes
        self.order = [(change.provider.key, change.provider.provider_type) for change in changes]
        self.after = {f"{key} {kinds.get(key, TYPES[0])}": "port 81" for key in after}

    def fault(self, step: str, position: int) -> Fault:
        return Fault(step, *self.order[position])

    def fails(self, k: int, step: str, *others: Fault, undo: Sequence[int] = (), away: Sequence[int] = ()):
        """Apply with the k-th failing in a step, and everything compared with what must be."""
        self.files.begin(self.fault(step, k), *others)
        with pytest.raises(ApplyError) as caught:
            self.stack.apply()
        expected = ["not_attempted"] * len(self.order)
        expected[:k] = ["rolled_back"] * k
        expected[k] = "failed"
        for each in undo:
            expected[each] = "unknown"
        for each in away:
            expected[each] = "pending"
        report = caught.value.report
        assert [outcome.state for outcome in report.outcomes] == expected
        assert [outcome.provider for outcome in report.outcomes] == [key for key, _ in self.order]
        assert report.outcomes[k].error
        assert all(report.outcomes[each].error for each in (*undo, *away))
        assert report.state == "failed"
        self.store_says(report, {" ".join(self.order[each]) for each in undo})

    def store_says(self, report, unknown: set[str]) -> None:
        store = self.stack.store
        attempt = store.attempts()[0]
        assert (attempt.number, attempt.state) == (report.attempt, report.state)
        kept = [(each["provider"], each["state"]) for each in attempt.report["outcomes"]]
        assert kept == [(outcome.provider, outcome.state) for outcome in report.outcomes]
        status = {key: each.state for key, each in store.status().items() if each.attempt == attempt.number}
        assert status == dict(kept) | dict.fromkeys((name.split()[0] for name in unknown), "unknown")
        records = store.applied()
        assert {named(record) for record in records.values() if is_unknown(record)} == unknown
        known = [record for record in records.values() if named(record) not in unknown]
        assert known == [record for record in self.before.values() if named(record) not in unknown]
        running = {name: text for name, text in self.files.running().items() if name not in unknown}
        assert running == known_world(known)
        assert store.view().open_attempt is None
        assert store.holder() is None

    def recovered(self) -> None:
        """What an undo that failed has left is taken back when it is asked for again."""
        self.files.begin()
        self.stack.recover()
        assert self.files.running() == self.world
        assert self.stack.store.applied() == self.before

    def succeeds(self) -> None:
        self.files.begin()
        report = self.stack.apply()
        assert {outcome.state for outcome in report.outcomes} == {"applied"}
        assert self.files.running() == self.after == known_world(self.stack.store.applied().values())
        assert not self.stack.plan()
        self.stack.close()


PLUGINS = [
    {"way": way, "awaited": awaited} for awaited in (False, True) for way in ("undo", "check_undo", "around")
]


def cases(folder, plugin) -> Iterator[Case]:
    """Every kind and size for the plainest plugin; for the others one kind in turn, in six sizes."""
    turn = PLUGINS.index(plugin)
    for count in range(1, MOST + 1) if turn == 0 else (1, 2, 3, 5, 8, MOST):
        for number, kind in enumerate(KINDS):
            if (turn == 0 or (turn + count) % len(KINDS) == number) and (kind, count) not in TOO_MANY:
                yield Case(folder / f"{count}-{kind}", kind, count, **plugin)


def said(plugin) -> str:
    return f"{plugin['way']}-{'async' if plugin['awaited'] else 'sync'}"


@pytest.mark.parametrize("plugin", PLUGINS, ids=said)
def test_whichever_provider_fails_in_apply_or_check_the_rest_is_as_it_was(tmp_path, plugin):
    injected = 0
    for case in cases(tmp_path, plugin):
        for k in range(len(case.order)):
            for step in ("apply", "check"):
                case.fails(k, step)
        case.succeeds()
        injected += case.files.injected
    tell(f"{injected} faults in apply and check ({said(plugin)})")
    assert injected >= 2 * (1 + 2 + 3 + 5 + 8)


@pytest.mark.parametrize("plugin", PLUGINS, ids=said)
def test_whichever_undo_fails_the_provider_is_unknown_and_the_others_are_taken_back(tmp_path, plugin):
    """Also the undo that comes back and leaves the provider sick, and all of them at once."""
    injected = 0
    sick = ["undo"] if plugin["way"] == "undo" else ["undo", "check_undo"]
    for case in cases(tmp_path, plugin):
        last = len(case.order) - 1
        for k in range(len(case.order)):
            for step in sick:
                case.fails(last, "check", case.fault(step, k), undo=[k])
                case.recovered()
        everyone = range(len(case.order))
        case.fails(last, "check", *(case.fault("undo", each) for each in everyone), undo=everyone)
        case.recovered()
        case.succeeds()
        injected += case.files.injected
    tell(f"{injected} faults in undo, and in the checks before it ({said(plugin)})")
    assert injected >= 2 * (1 + 2 + 3 + 5 + 8)


@pytest.mark.parametrize("kind", ["join", "change", "leave", "mixed"])
def test_one_that_cannot_be_reached_is_neither_undone_nor_counted_as_applied(tmp_path, kind):
    injected = 0
    for count in range(2, 7):
        case = Case(tmp_path / str(count), kind, count)
        for away in range(count):
            for k in range(away + 1, count):
                for step in ("apply", "check"):
                    case.fails(k, step, case.fault("away", away), away=[away])
                    assert [act for act in case.files.acts if case.order[away][0] in act] == [
                        f"apply {case.order[away][0]}"
                    ]
        case.succeeds()
        injected += case.files.injected
    tell(f"{injected} faults with one out of reach ({kind})")


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("step", ["apply", "check", "undo", "check_undo"])
def test_whichever_provider_hangs_costs_its_deadline_and_the_rest_is_as_it_was(
    tmp_path, monkeypatch, step, awaited
):
    """A hook that did not come back may still act: that provider is unknown, and so is one whose
    undo did not. The late one does nothing here, so that the world can be compared.
    """
    monkeypatch.setenv("STACKCONF_APPLY_TIMEOUT", "0.05")
    monkeypatch.setattr("stackconf.calling._GRACE", 0.05)
    case = Case(tmp_path / "case", "mixed", 3, way="check_undo", awaited=awaited)
    case.files.hanging = threading.Event()
    last = len(case.order) - 1
    for k in range(last + 1):
        if step == "apply":
            case.fails(k, step, undo=[k])
        elif step == "check":
            case.fails(k, step)
        else:
            case.fails(last, "check", case.fault(step, k), undo=[k])
        if step != "check":
            case.recovered()
    case.files.hanging.set()
    monkeypatch.delenv("STACKCONF_APPLY_TIMEOUT")
    case.succeeds()
