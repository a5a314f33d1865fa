"""The journal: whatever instant an apply is killed at, the next one repairs what it left."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from core_kit import Owner, open_stack
from test_core_apply import Service, World, services, states

from stackconf import Applied, ApplyBusy, ApplyError, StoreError
from stackconf.plan import is_unknown
from stackconf.store.sqlite import SqliteStore

HERE = Path(__file__).parent

KILLED_AT = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from core_kit import Owner, open_stack
from test_core_apply import Service, World, services
from stackconf.store.sqlite import SqliteStore

moment, count = sys.argv[3], [int(sys.argv[4])]

def at(name):
    if name == moment:
        count[0] -= 1
        if count[0] == 0:
            os.kill(os.getpid(), 9)

def around(name):
    method = getattr(SqliteStore, name)
    def wrapped(*args):
        at(f"before {name}")
        result = method(*args)
        at(f"after {name}")
        return result
    setattr(SqliteStore, name, wrapped)

for name in ("begin", "touch", "undo", "finish"):
    around(name)

world = World(Path(sys.argv[1]))
def applying(provider, config, previous):
    at("before apply")
    applied = world.apply(provider, config, previous)
    at("after apply")
    undo = applied.undo
    def taking_back():
        at("before undoing")
        undo()
        at("after undoing")
    from attrs import evolve
    return evolve(applied, undo=taking_back)

folder = Path(sys.argv[1])
open_stack(folder, (folder / "stack.yaml").read_text(), Owner(Service, applying=applying)).apply()
"""

MOMENTS = [
    (moment, count)
    for moment, counts in {
        "before begin": 1,
        "after begin": 1,
        "before touch": 2,
        "after touch": 2,
        "before apply": 3,
        "after apply": 3,
        "before undo": 1,
        "after undo": 1,
        "before undoing": 2,
        "after undoing": 2,
        "before finish": 1,
        "after finish": 1,
    }.items()
    for count in range(1, counts + 1)
]
EVERYWHERE = [("after touch", 1), ("after apply", 2), ("after undo", 1), ("before finish", 1)]
"""One of each part of an apply; the others are `exhaustive`."""


def killed(folder: Path, moment: str, count: int) -> int:
    command = [sys.executable, "-c", KILLED_AT, folder, HERE, moment, str(count)]
    return subprocess.run(command, check=False, capture_output=True).returncode


@pytest.mark.parametrize("last", ["ok", "reject"])
@pytest.mark.parametrize(
    ("moment", "count"),
    [
        pytest.param(
            *each, marks=() if each in EVERYWHERE else pytest.mark.exhaustive, id=f"{each[0]}-{each[1]}"
        )
        for each in MOMENTS
    ],
)
def test_an_apply_that_is_killed_at_any_step_of_its_journal_is_repaired(tmp_path, moment, count, last):
    """Three providers run; a change of all three is killed. The next apply completes it, or, if the
    last one rejects the change, all three have again what they had.
    """
    world = World(tmp_path)
    running = Owner(Service, applying=world.apply)
    with open_stack(tmp_path, services(a="ok", b="ok", c="ok"), running) as stack:
        stack.apply()
    wanted = services(a={"port": 1, "mode": "ok"}, b={"port": 2, "mode": "ok"}, c={"port": 3, "mode": last})
    open_stack(tmp_path, wanted, running).close()
    code = killed(tmp_path, moment, count)
    never = ("undo" in moment) if last == "ok" else (moment, count) == ("after apply", 3)
    assert code == (-signal.SIGKILL if not never else 0 if last == "ok" else 1)
    with open_stack(tmp_path, wanted, running) as stack:
        cut = stack.store.view().open_attempt
        touched = {step.provider.key for step in cut.touched} if cut else set()
        unknown = {key for key, record in stack.store.applied().items() if is_unknown(record)}
        assert touched == unknown
        done = moment == "after finish" or never
        if last == "ok":
            report = stack.apply()
            assert report.state == ("nothing" if done else "applied")
            assert report.took_over == (cut.number if cut else 0)
            assert world.running() == {"a": "port 1", "b": "port 2", "c": "port 3"}
            assert not stack.plan()
        else:
            with pytest.raises(ApplyError, match="port 3 is taken"):
                stack.apply()
            assert world.running() == {"a": "port 80", "b": "port 80", "c": "port 80"}
            assert len(stack.plan().changes) == 3
        assert stack.store.view().open_attempt is None
        assert not any(map(is_unknown, stack.store.applied().values()))


def test_one_apply_at_a_time_others_wait_or_are_refused_by_name(tmp_path):
    begun, let_go = threading.Event(), threading.Event()

    def slow(provider, config, previous):
        begun.set()
        let_go.wait(20)
        return Applied("done")

    with open_stack(tmp_path, services(a="ok"), Owner(Service, applying=slow)) as stack:
        thread = threading.Thread(target=stack.apply, kwargs={"actor": "kim"})
        thread.start()
        assert begun.wait(20)
        with open_stack(tmp_path, services(a="ok"), Owner(Service)) as other:
            holder = other.store.holder()
            assert holder is not None
            assert (holder.pid, holder.actor) == (os.getpid(), "kim")
            with pytest.raises(ApplyBusy, match=rf"running by kim since .* \(process {os.getpid()}\)"):
                other.apply()
            threading.Timer(0.3, let_go.set).start()
            assert other.apply(wait=20).state == "nothing"
            assert other.store.holder() is None
        thread.join()


def test_a_lock_that_a_killed_process_left_keeps_nobody_out(tmp_path):
    assert killed_in_apply(tmp_path) == -signal.SIGKILL
    with open_stack(tmp_path, services(a="ok"), Owner(Service)) as stack:
        assert (tmp_path / ".stackconf" / "stack.yaml.sqlite3.apply-lock").read_text()
        assert stack.store.holder() is None
        assert stack.apply().state == "applied"


def killed_in_apply(folder: Path) -> int:
    open_stack(folder, services(a="ok"), Owner(Service)).close()
    return killed(folder, "after apply", 1)


def test_recover_takes_back_what_a_killed_apply_had_touched_and_nothing_else(tmp_path):
    world = World(tmp_path)
    running = Owner(Service, applying=world.apply)
    with open_stack(tmp_path, services(a="ok", b="ok", c="ok"), running) as stack:
        stack.apply()
    wanted = services(a={"port": 1, "mode": "ok"}, b={"port": 2, "mode": "ok"}, c={"port": 3, "mode": "ok"})
    open_stack(tmp_path, wanted, running).close()
    assert killed(tmp_path, "after apply", 2) == -signal.SIGKILL
    assert world.running() == {"a": "port 1", "b": "port 2", "c": "port 80"}
    world.acts.clear()
    with open_stack(tmp_path, wanted, running) as stack:
        report = stack.recover()
        assert (report.state, report.took_over) == ("applied", 2)
        assert states(report) == {"b": "applied", "a": "applied"}
        assert world.acts == ["apply b", "check b", "apply a", "check a"]
        assert world.running() == {"a": "port 80", "b": "port 80", "c": "port 80"}
        assert len(stack.plan().changes) == 3
        assert stack.recover().state == "nothing"
        assert stack.apply().state == "applied"


def test_recover_makes_a_provider_leave_that_was_joining(tmp_path):
    assert killed_in_apply(tmp_path) == -signal.SIGKILL
    world = World(tmp_path)
    assert world.running() == {"a": "port 80"}
    with open_stack(tmp_path, services(a="ok"), Owner(Service, applying=world.apply)) as stack:
        assert stack.recover().state == "applied"
        assert world.running() == {}
        name, config, previous = world.given[-1]
        assert (name, config, previous.port) == ("a", None, 80)
        assert stack.store.applied() == stack.store.status() == {}


def test_what_joined_in_a_killed_apply_and_is_no_longer_in_the_file_leaves(tmp_path):
    assert killed_in_apply(tmp_path) == -signal.SIGKILL
    world = World(tmp_path)
    with open_stack(tmp_path, {"providers": {}}, Owner(Service, applying=world.apply)) as stack:
        (change,) = stack.plan().changes
        assert change.kind == "leave"
        assert stack.apply().state == "applied"
        assert world.running() == {}
        assert world.given[-1][2].port == 80
        assert not stack.plan()


def test_a_plugin_without_undo_is_called_the_other_way_round(tmp_path):
    world = World(tmp_path)

    def no_undo(provider, config, previous):
        return Applied("done", check=world.apply(provider, config, previous).check)

    with open_stack(tmp_path, services(a="ok", b="ok"), Owner(Service, applying=no_undo)) as stack:
        stack.apply()
    wanted = services(a={"port": 1, "mode": "ok"}, b={"port": 2, "mode": "reject"})
    with open_stack(tmp_path, wanted, Owner(Service, applying=no_undo)) as stack:
        with pytest.raises(ApplyError) as caught:
            stack.apply()
        assert states(caught.value.report) == {"a": "rolled_back", "b": "failed"}
        assert world.running() == {"a": "port 80", "b": "port 80"}


def test_an_undo_is_asked_whether_the_provider_is_healthy_again(tmp_path):
    def applying(provider, config, previous):
        if config.mode == "reject":
            raise ValueError("no")
        return Applied("done", undo=lambda: None, check_undo=lambda: "it does not answer")

    with open_stack(tmp_path, services(a="ok", b="reject"), Owner(Service, applying=applying)) as stack:
        with pytest.raises(ApplyError, match="state unknown: inference/a") as caught:
            stack.apply()
        assert states(caught.value.report) == {"a": "unknown", "b": "failed"}
        error = caught.value.report.outcomes[0].error
        assert error == "undo failed: not healthy after it: it does not answer"


class FullDisk(SqliteStore):
    """A store whose n-th write of the journal finds the disk full."""

    def __init__(self, path: Path, fails: str) -> None:
        super().__init__(path)
        self.fails = fails

    def _writing(self):
        name = sys._getframe(1).f_code.co_name
        return self._full() if name == self.fails else super()._writing()

    @staticmethod
    def _full():
        raise StoreError("store stack.sqlite3: database or disk is full")


@pytest.mark.parametrize("fails", ["begin", "touch", "undo", "finish"])
def test_a_disk_that_is_full_in_an_apply_loses_nothing(tmp_path, fails):
    world = World(tmp_path)
    owner = Owner(Service, applying=world.apply)
    with open_stack(tmp_path, services(a="ok", b="ok"), owner) as stack:
        stack.apply()
    bad = "reject" if fails == "undo" else "ok"
    wanted = services(a={"port": 1, "mode": "ok"}, b={"port": 2, "mode": bad})
    path = tmp_path / ".stackconf" / "stack.yaml.sqlite3"
    with open_stack(tmp_path, wanted, owner, store=FullDisk(path, fails)) as stack:
        expected = "port 2 is taken" if fails == "undo" else "disk is full"
        with pytest.raises((ApplyError, StoreError), match=expected) as caught:
            stack.apply()
        assert "\n" not in str(caught.value)
    after = {"a": "port 1", "b": "port 2"} if fails == "finish" else {"a": "port 80", "b": "port 80"}
    assert world.running() == after
    with open_stack(tmp_path, services(a="ok", b="ok"), owner) as stack:
        stack.apply()
        assert world.running() == {"a": "port 80", "b": "port 80"}
        assert not stack.plan()


def test_whoever_has_the_lock_and_has_not_said_so_is_not_taken_for_the_killed_one_before(tmp_path):
    assert killed_in_apply(tmp_path) == -signal.SIGKILL
    path = tmp_path / ".stackconf" / "stack.yaml.sqlite3.apply-lock"
    with path.open("r+") as file, open_stack(tmp_path, services(a="ok"), Owner(Service)) as stack:
        fcntl.flock(file, fcntl.LOCK_EX)
        holder = stack.store.holder()
        assert holder is not None
        assert (holder.pid, holder.actor) == (0, "")
        with pytest.raises(ApplyBusy, match="another apply of this stack is running"):
            stack.apply()
