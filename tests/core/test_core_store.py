"""The embedded store: gapless, immutable, durable, shared, and one clear line when it cannot be."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from core_kit import Owner, one, open_stack, overlay
from pydantic import BaseModel

from stackconf import Conflict, Stack, StoreError, UnknownName, user_field
from stackconf.apply import Outcome, Report
from stackconf.plan import AppliedRecord, is_unknown
from stackconf.store.base import Configuration, JournalStep, State
from stackconf.store.sqlite import SqliteStore
from stackconf.types import Provider


class Config(BaseModel):
    port: int = user_field(80)


def state(*names: str, port: int = 1) -> State:
    entry = {"provider_id": "acme", "provider_type": "remote::acme", "config": {"port": port}}
    return State({name: Configuration(name, {"inference": [entry]}, "user", 1) for name in names}, names)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "hidden" / "store.sqlite3"


@pytest.fixture
def store(path):
    store = SqliteStore(path)
    yield store
    store.close()


def append(store: SqliteStore, expected: int, new: State, actor: str = "me"):
    return store.append(expected, new, action="register", subject="a", actor=actor)


def test_a_store_that_does_not_exist_is_empty_and_reading_it_writes_nothing(store, path):
    assert store.head() == 0
    assert store.read().state == State()
    assert store.applied() == {}
    assert store.status() == {}
    assert list(store.attempts()) == list(store.follow(0)) == []
    assert len(store.digest_key()) == 32
    assert not path.parent.exists()


def test_revisions_are_gapless_and_each_holds_its_own_state(store):
    states = [state("a"), state("a", "b"), state("a", "b", port=2), State(), state("b")]
    for number, new in enumerate(states):
        revision = append(store, number, new)
        assert revision.number == number + 1
        assert store.read(number + 1) == revision == store.read()
    assert [each.number for each in store.follow(0)] == [1, 2, 3, 4, 5]
    assert [each.state for each in store.follow(2)] == states[2:]
    assert store.read(3).at.endswith("Z")
    with pytest.raises(UnknownName, match="no revision 6; the newest is 5"):
        store.read(6)
    with pytest.raises(UnknownName):
        store.read(-1)


def test_a_write_for_another_head_is_a_conflict_and_writes_nothing(store):
    append(store, 0, state("a"))
    for expected in (0, 2, 99):
        with pytest.raises(Conflict, match=f"expected revision {expected}, but the head is 1") as caught:
            append(store, expected, state("b"))
        assert (caught.value.expected, caught.value.head) == (expected, 1)
    assert store.read().state == state("a")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE revision SET actor = 'someone else'",
        "UPDATE revision SET state = '{}' WHERE number = 1",
        "DELETE FROM revision",
        "INSERT INTO revision VALUES (7, '', '', '', '', '{}', NULL)",
        "INSERT OR REPLACE INTO revision VALUES (1, '', '', '', '', '{}', NULL)",
        "UPDATE document SET body = '{}'",
        "DELETE FROM document",
        "INSERT OR REPLACE INTO document SELECT digest, '{}' FROM document",
        "UPDATE revision SET restores = 1",
        "INSERT INTO meta VALUES ('oldest_revision', '3')",
        "INSERT INTO revision VALUES (2, '', '', '', '', '{}', NULL)",
    ],
)
def test_history_cannot_be_changed_even_by_hand(store, path, statement):
    append(store, 0, state("a"))
    append(store, 1, state("a", "b"))
    before = list(store.follow(0))
    with sqlite3.connect(path) as db, pytest.raises(sqlite3.IntegrityError, match=r"never|next"):
        db.execute(statement)
    db.close()
    assert list(store.follow(0)) == before


def test_an_attempt_is_written_before_and_after(store):
    provider = Provider("inference", "acme", "remote::acme")
    number = store.begin(0, "me", [JournalStep(provider, "join", {"port": 1})])
    (begun,) = store.attempts()
    assert (begun.number, begun.state, begun.finished_at) == (number, "begun", None)
    report = Report("applied", (Outcome(provider.key, "join", "applied", "fine"),), 0, number)
    store.finish(number, report, {provider.key: AppliedRecord(provider, 0, {"port": 1})}, [])
    (done,) = store.attempts()
    assert (done.state, done.report["outcomes"][0]["detail"]) == ("applied", "fine")
    assert store.applied() == {provider.key: AppliedRecord(provider, 0, {"port": 1})}
    assert store.status()[provider.key].state == "applied"
    gone = Report("applied", (Outcome(provider.key, "leave", "applied"),), 0, store.begin(0, "me", []))
    store.finish(gone.attempt, gone, {}, [provider.key])
    assert store.applied() == {}
    assert store.status() == {}
    assert [each.number for each in store.attempts()] == [2, 1]


def test_what_is_applied_is_read_anew_where_the_store_says_something_else(path):
    """Another connection writes in the same millisecond and for the same revision."""
    a, b = Provider("inference", "a", "remote::acme"), Provider("inference", "b", "remote::acme")
    mine, other = (SqliteStore(path, clock=lambda: datetime(2025, 1, 1, tzinfo=UTC)) for _ in range(2))

    def apply(ports, left=()):
        number = other.begin(0, "me", [])
        applied = {each.key: AppliedRecord(each, 0, {"port": port}) for each, port in ports.items()}
        other.finish(number, Report("applied", (), 0, number), applied, left)

    with closing(mine), closing(other):
        apply({a: 1, b: 1})
        first = mine.applied()
        again = mine.view().applied
        assert [again[key] for key in first] == [*first.values()]
        assert all(again[key] is first[key] for key in first)  # nothing was parsed a second time
        apply({b: True})  # equal to what it was, and not the same
        now = mine.applied()
        assert now[a.key] is first[a.key]
        assert now[b.key].snapshot["port"] is True
        assert first[b.key].snapshot["port"] is not True
        other.begin(0, "me", [JournalStep(a, "change", {"port": 2})])
        assert [is_unknown(each) for each in mine.applied().values()] == [True, False]
        apply({a: 1}, [b.key])
        assert mine.applied() == {a.key: AppliedRecord(a, 0, {"port": 1})}
        apply({a: 3, b: 4})
        assert {key: each.snapshot["port"] for key, each in mine.applied().items()} == {a.key: 3, b.key: 4}


def test_the_digest_key_stays_and_is_each_stores_own(store, path, tmp_path):
    append(store, 0, State())
    other = SqliteStore(tmp_path / "other.sqlite3")
    append(other, 0, State())
    again = SqliteStore(path)
    assert store.digest_key() == again.digest_key() != other.digest_key()
    again.close()
    other.close()


def test_the_files_are_the_owners_and_keep_out_of_version_control(store, path):
    append(store, 0, State())
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert (path.parent / ".gitignore").read_text() == "*\n"


def test_a_closed_store_opens_again(store):
    append(store, 0, state("a"))
    store.close()
    store.close()
    assert store.head() == 1


# Durable and shared

REGISTERING = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from core_kit import MACHINE, Owner, overlay, registry_of
    from stackconf import Stack
    from test_core_store import Config
    folder, who, count = Path(sys.argv[1]), sys.argv[3], int(sys.argv[4])
    stack = Stack.open(folder / "stack.yaml", registry=registry_of(Owner(Config)), hardware=MACHINE)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count):
        registered = stack.configurations.register(overlay({"port": number + 1}), name=f"{who}-{number}")
        print(registered.revision, flush=True)
    if who == "killed":
        os.kill(os.getpid(), 9)
    """
)


def registering(folder: Path, who: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", REGISTERING, folder, Path(__file__).parent, who, str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_what_register_returned_survives_a_kill(tmp_path):
    open_stack(tmp_path, one(), Owner(Config)).close()
    with registering(tmp_path, "killed", 3) as child:
        said, _ = child.communicate("go\n")
    assert child.returncode == -signal.SIGKILL
    assert said.split() == ["ready", "1", "2", "3"]
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        assert stack.revision == 3
        assert [each.name for each in stack.configurations.list()] == ["killed-0", "killed-1", "killed-2"]
        assert stack.configurations.register(overlay({"port": 9})).revision == 4


def test_four_processes_that_register_at_once_lose_nothing_and_leave_no_gap(tmp_path):
    """They all find no store, so they also race to create it."""
    open_stack(tmp_path, one(), Owner(Config)).close()
    children = [registering(tmp_path, f"p{number}", 5) for number in range(4)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0] * 4
    numbers = [[int(line) for line in text.split()] for text in said]
    assert sorted(number for each in numbers for number in each) == list(range(1, 21))
    assert all(each == sorted(each) for each in numbers)
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        names = {f"p{process}-{number}" for process in range(4) for number in range(5)}
        assert {each.name for each in stack.configurations.list()} == names
        assert stack.store.read(20).state.assigned == stack.store.read().state.assigned
        revisions = list(stack.store.follow(0))
        assert [each.number for each in revisions] == list(range(1, 21))
        for before, after in pairwise(revisions):
            assert len(after.state.configurations) == len(before.state.configurations) + 1


def test_threads_may_share_a_stack(tmp_path):
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        failures = []

        def register(who: int) -> None:
            try:
                for number in range(5):
                    stack.configurations.register(overlay({"port": 1}), name=f"{who}-{number}")
                    stack.configurations.inspect()
            except Exception as error:  # noqa: BLE001 (the test reports it)
                failures.append(error)

        threads = [threading.Thread(target=register, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert stack.revision == 20
        assert len(stack.configurations.list()) == 20


# What cannot be


def refused(path: Path, act) -> str:
    store = SqliteStore(path)
    with pytest.raises(StoreError) as caught:
        act(store)
    text = str(caught.value)
    assert "\n" not in text
    assert text.count(str(path)) == 1, text
    store.close()
    return text


ACTS = [SqliteStore.head, lambda store: append(store, 0, State())]


@pytest.mark.parametrize("act", ACTS, ids=["read", "write"])
def test_a_folder_is_no_store(tmp_path, act):
    assert "is a folder" in refused(tmp_path, act)


@pytest.mark.parametrize("act", ACTS, ids=["read", "write"])
def test_garbage_is_no_store_and_is_left_as_it_is(tmp_path, act):
    file = tmp_path / "garbage"
    file.write_bytes(b"not a database at all" * 100)
    assert "not a database" in refused(file, act)
    assert file.read_bytes() == b"not a database at all" * 100


@pytest.mark.parametrize("act", ACTS, ids=["read", "write"])
@pytest.mark.parametrize("version", [0, 1, 2])
def test_another_programs_database_is_no_store_and_is_left_as_it_is(tmp_path, act, version):
    file = tmp_path / "theirs.db"
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE theirs (id)")
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    before = file.read_bytes()
    assert "not a store of stackconf" in refused(file, act)
    assert file.read_bytes() == before


@pytest.mark.parametrize("act", ACTS, ids=["read", "write"])
def test_a_newer_stackconfs_store_is_refused(path, act):
    store = SqliteStore(path)
    append(store, 0, state("a"))
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    text = refused(path, act)
    assert "newer stackconf; update stackconf" in text


def test_a_damaged_store_is_one_line(path):
    store = SqliteStore(path)
    append(store, 0, state("a"))
    store.close()
    data = bytearray(path.read_bytes())
    data[1024:] = os.urandom(len(data) - 1024)
    path.write_bytes(data)
    refused(path, SqliteStore.read)


@pytest.mark.parametrize("place", ["/proc/store/x.sqlite3", "/dev/null/x.sqlite3"])
def test_a_place_that_cannot_be_written_is_one_line(place):
    refused(Path(place), lambda store: append(store, 0, State()))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    try:
        refused(tmp_path / "store.sqlite3", lambda store: append(store, 0, State()))
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_is_one_line_and_nothing_changed(store, path):
    """A real SQLITE_FULL: the file may not grow."""
    append(store, 0, state("a"))
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    big = state("a", *(f"name-{number}" for number in range(500)))
    with pytest.raises(StoreError, match="full"):
        append(store, 1, big)
    assert store.read().state == state("a")
    store._connection.execute("PRAGMA max_page_count = 1000000")
    assert append(store, 1, big).number == 2


def test_a_store_that_another_process_holds_is_one_line(store, path, monkeypatch):
    monkeypatch.setenv("STACKCONF_STORE_TIMEOUT", "0.1")
    append(store, 0, state("a"))
    store.close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        append(store, 1, state("b"))
    assert store.head() == 1  # readers go on
    other.execute("ROLLBACK")
    other.close()
    assert append(store, 1, state("b")).number == 2


def test_a_stack_without_a_writable_store_can_still_be_read(tmp_path):
    with open_stack(tmp_path, one(), Owner(Config), store="/proc/store/x.sqlite3") as stack:
        assert stack.configurations.inspect()["providers"]["inference"][0]["config"] == {"port": 80}
        assert stack.plan()
        with pytest.raises(StoreError):
            stack.configurations.register(overlay({"port": 1}))
        with pytest.raises(StoreError):
            stack.apply()
    assert isinstance(stack, Stack)


def test_a_store_that_is_open_when_its_process_forks_serves_both_sides(store):
    append(store, 0, state("a"))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            append(store, 1, state("a", "b"))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    append(store, 2, state("b"))
    assert [each.number for each in store.follow(0)] == [1, 2, 3]


def test_a_fork_while_another_thread_is_at_work_does_not_hang(store):
    append(store, 0, state("a"))
    with store._lock:  # as another thread would have it

        def forked():
            child = os.fork()
            if child == 0:
                os._exit(0 if store.head() == 1 else 1)
            done.append(os.waitpid(child, 0)[1])

        done: list[int] = []
        thread = threading.Thread(target=forked)
        thread.start()
        thread.join(20)
    assert done == [0]
