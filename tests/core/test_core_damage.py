"""Real damage to a real store: nothing is overwritten, and what SQLite can read is recovered."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from core_kit import Owner, one, open_stack, overlay
from pydantic import BaseModel

from stackconf import RevisionLost, Stack, StoreDamaged, StoreError, user_field
from stackconf.store.checking import check
from stackconf.store.lastgood import last_applied, lastgood_path
from stackconf.store.pieces import KNOWN, tables
from stackconf.store.salvage import Recovered, recover
from stackconf.store.sqlite import SqliteStore, digest_of

pytestmark = pytest.mark.exhaustive

REVISIONS = 200
PAGE = 4096


class Config(BaseModel):
    port: int = user_field(80)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of 200 revisions, one of them applied, all in its file."""
    return made(tmp_path_factory.mktemp("sound"), keep_log=False)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with its newest revisions still in the write-ahead log, as after a kill."""
    return made(tmp_path_factory.mktemp("logged"), keep_log=True)


def made(folder: Path, *, keep_log: bool) -> Path:
    with open_stack(folder, one(), Owner(Config)) as stack:
        for number in range(REVISIONS):
            if number == REVISIONS - 20:
                stack.close()  # all until now into the file
            stack.configurations.register(overlay({"port": number + 1}), name=f"name-{number % 7}")
        stack.apply()
        if keep_log:
            shutil.copytree(folder / ".stackconf", folder / "kept")
    kept = folder / ("kept" if keep_log else ".stackconf")
    assert (kept / "stack.yaml.sqlite3-wal").exists() is keep_log
    return kept


@pytest.fixture
def store(tmp_path: Path, sound: Path) -> Path:
    return copied(sound, tmp_path)


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to / "store")
    return to / "store" / "stack.yaml.sqlite3"


def readable(store: Path, scratch: Path) -> dict[int, Any]:
    """The revisions that SQLite itself can still read by number, with all their documents."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for file in store.parent.glob(f"{store.name}*"):
        if file.is_file():
            shutil.copyfile(file, scratch / file.name)
    found = {}
    try:
        with closing(sqlite3.connect(scratch / store.name)) as db:
            for number in range(1, REVISIONS + 1):
                try:
                    found[number] = one_revision(db, number)
                except (sqlite3.Error, LookupError, ValueError, TypeError):
                    continue
    except sqlite3.Error:
        return {}
    return found


def one_revision(db: sqlite3.Connection, number: int) -> object:
    row = db.execute("SELECT * FROM revision WHERE number = ?", (number,)).fetchone()
    state = json.loads(row[5])
    for each in state["configurations"].values():
        (body,) = db.execute("SELECT body FROM document WHERE digest = ?", (each["digest"],)).fetchone()
        if digest_of(body) != each["digest"]:
            raise ValueError(body)
    return row[:5], state


def files(store: Path) -> dict[str, bytes]:
    ends = ("", "-wal")
    return {
        end: store.with_name(store.name + end).read_bytes()
        for end in ends
        if store.with_name(store.name + end).exists()
    }


def recovered(store: Path, tmp_path: Path, truth: dict[int, Any]) -> Recovered | None:
    """Recover, and see that all that must hold afterwards does."""
    could = readable(store, tmp_path / "scratch")
    before = files(store)
    if check(copied(store.parent, tmp_path / "checked")).sound:  # a byte that nothing holds
        with pytest.raises(StoreError, match="is sound"):
            recover(store)
        assert files(store)[""] == before[""]
        assert could == truth
        return None
    shutil.rmtree(tmp_path / "checked")
    done = recover(store, actor="me")
    aside = Path(done.aside or "")
    for end, data in before.items():
        assert aside.with_name(aside.name + end).read_bytes() == data
    assert check(store).problems == (), done
    now = readable(store, tmp_path / "scratch")
    for number, row in could.items():
        if row == truth[number]:  # a damage may read well and be wrong
            assert now[number] == row
    for number, row in now.items():
        if number <= REVISIONS and row[0][3] not in {"lost", "recover"}:
            assert row == truth[number]
    if could.get(REVISIONS) == truth[REVISIONS]:
        assert done.head == REVISIONS
    elif REVISIONS in could and set(could[REVISIONS][1]) == set(truth[REVISIONS][1]):
        assert now[done.head][1]["configurations"] == could[REVISIONS][1]["configurations"]
    again = SqliteStore(store)
    head = again.read()
    assert head.number == done.head
    assert [each.number for each in again.follow(0)] == list(range(1, done.head + 1))
    for number in done.lost_revisions:
        with pytest.raises(RevisionLost, match=f"revision {number} is lost: the store was damaged"):
            again.read(number)
    assert set(again.applied()) == {"inference/acme"}
    after = again.append(done.head, head.state, action="register", subject="a", actor="me")
    assert after.number == done.head + 1
    again.close()
    return done


@pytest.fixture(scope="module")
def truth(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    return readable(sound / "stack.yaml.sqlite3", tmp_path_factory.mktemp("truth") / "scratch")


@pytest.fixture(scope="module")
def logged_truth(logged: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    return readable(logged / "stack.yaml.sqlite3", tmp_path_factory.mktemp("truth") / "scratch")


def looked_at(store: Path, tmp_path: Path) -> None:
    """Everything that reads a store says damage in one line, and nothing is overwritten by it."""
    copy = copied(store.parent, tmp_path / "looked")
    before = files(copy)[""] if copy.exists() else b""
    embedded = SqliteStore(copy)
    said: list[str] = []
    for act in (embedded.head, embedded.view, embedded.attempts, embedded.status, lambda: last_applied(copy)):
        try:
            act()
        except StoreError as error:
            said.append(str(error))
    embedded.close()
    assert not any("\n" in line for line in said)
    if not copy.with_name(f"{copy.name}-wal").exists() and "-wal" not in files(store) and before:
        assert files(copy)[""] == before
    shutil.rmtree(tmp_path / "looked")


def rounds(store: Path, tmp_path: Path) -> Iterator[Path]:
    """The store afresh, as often as wanted."""
    number = 0
    while True:
        number += 1
        yield copied(store.parent, tmp_path / f"round-{number}")
        shutil.rmtree(tmp_path / f"round-{number}")


def test_every_page_in_turn(store: Path, tmp_path: Path, truth: dict[int, Any]) -> None:
    pages = store.stat().st_size // PAGE
    assert pages > 40
    some = random.Random(1)
    heads = lost = 0
    for page, fresh in zip(range(pages), rounds(store, tmp_path), strict=False):
        data = bytearray(fresh.read_bytes())
        data[page * PAGE : (page + 1) * PAGE] = some.randbytes(PAGE)
        fresh.write_bytes(data)
        if page % 8 == 0:
            looked_at(fresh, tmp_path)
        done = recovered(fresh, tmp_path, truth)
        assert done is not None
        heads += done.head == REVISIONS
        lost += len(done.lost_revisions)
    assert heads > pages * 0.8
    assert lost > 0


@pytest.mark.parametrize("seed", range(30))
def test_random_bytes(store: Path, tmp_path: Path, truth: dict[int, Any], seed: int) -> None:
    some = random.Random(seed)
    data = bytearray(store.read_bytes())
    for _ in range(some.choice([1, 3, 30, 300])):
        data[some.randrange(len(data))] ^= 1 << some.randrange(8)
    store.write_bytes(data)
    looked_at(store, tmp_path)
    recovered(store, tmp_path, truth)


def test_every_length(store: Path, tmp_path: Path, truth: dict[int, Any]) -> None:
    size = store.stat().st_size
    lengths = [1, 15, 16, 99, 100, 101, 512, PAGE - 1, PAGE, PAGE + 1, size - 1, size - 512]
    lengths += [size * part // 12 for part in range(1, 12)]
    for length, fresh in zip(lengths, rounds(store, tmp_path), strict=False):
        with fresh.open("r+b") as file:
            file.truncate(length)
        looked_at(fresh, tmp_path)
        assert recovered(fresh, tmp_path, truth) is not None


@pytest.mark.parametrize("size", [100, 16, PAGE])
def test_a_header_of_zeros_loses_nothing(
    store: Path, tmp_path: Path, truth: dict[int, Any], size: int
) -> None:
    data = bytearray(store.read_bytes())
    data[:size] = bytes(size)
    store.write_bytes(data)
    looked_at(store, tmp_path)
    done = recovered(store, tmp_path, truth)
    assert done is not None
    assert (done.head, done.lost_revisions) == (REVISIONS, ())


@pytest.mark.parametrize("content", [b"", b"garbage", os.urandom(100_000)], ids=["empty", "short", "long"])
def test_where_nothing_can_be_read_what_is_applied_is_still_known(
    store: Path, tmp_path: Path, truth: dict[int, Any], content: bytes
) -> None:
    store.write_bytes(content)
    assert not check(store).sound
    looked_at(store, tmp_path)
    done = recovered(store, tmp_path, truth)
    assert done is not None
    assert done.applied == ("inference/acme",)
    assert done.head == REVISIONS + 1  # no number is used twice
    assert done.lost_revisions == tuple(range(1, REVISIONS + 1))


def test_a_log_that_is_gone_is_found_out_by_what_was_applied(
    logged: Path, tmp_path: Path, logged_truth: dict[int, Any]
) -> None:
    store = copied(logged, tmp_path)
    store.with_name(f"{store.name}-wal").unlink()
    store.with_name(f"{store.name}-shm").unlink(missing_ok=True)
    (problem,) = check(store).problems
    assert "is behind: it ends with revision 180 and attempt 0" in problem
    assert "knows revision 200 and attempt 1" in problem
    done = recovered(store, tmp_path, logged_truth)
    assert done is not None
    assert done.lost_revisions == tuple(range(181, 201))


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_log(logged: Path, tmp_path: Path, logged_truth: dict[int, Any], seed: int) -> None:
    store = copied(logged, tmp_path)
    log = store.with_name(f"{store.name}-wal")
    some = random.Random(seed)
    data = bytearray(log.read_bytes())
    if seed < 4:
        data = bytearray(some.randbytes((100, 5_000, len(data), 10)[seed]))
    else:
        data[some.randrange(len(data))] ^= 1 << some.randrange(8)
    log.write_bytes(data)
    looked_at(store, tmp_path)
    recovered(store, tmp_path, logged_truth)


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "empty"])
def test_a_file_that_lost_all_but_its_log_is_not_opened(logged: Path, tmp_path: Path, *, gone: bool) -> None:
    """SQLite would remove the log."""
    store = copied(logged, tmp_path)
    store.unlink()
    if not gone:
        store.touch()
    log = store.with_name(f"{store.name}-wal").read_bytes()
    embedded = SqliteStore(store)
    for act in (embedded.head, embedded.ensure):
        with pytest.raises(StoreDamaged, match="its write-ahead log is still there"):
            act()
    done = recover(store)
    aside = Path(done.aside or "")
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == log
    assert embedded.head() == REVISIONS + 1
    embedded.close()


def test_a_sound_store_is_left_alone(store: Path) -> None:
    before = store.read_bytes()
    with pytest.raises(StoreError, match="is sound: there is nothing to recover"):
        recover(store)
    assert store.read_bytes() == before
    assert not list(store.parent.glob("*damaged*"))


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "theirs.db"
    with closing(sqlite3.connect(file)) as db:
        db.execute("CREATE TABLE theirs (id)")
    before = file.read_bytes()
    for act in (check, recover):
        with pytest.raises(StoreError, match="not a store of stackconf"):
            act(file)
    assert file.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["theirs.db"]


def test_a_mark_that_was_overwritten_is_damage(store: Path) -> None:
    with closing(sqlite3.connect(store)) as db:
        db.execute("PRAGMA application_id = 7")
    with pytest.raises(StoreDamaged, match="the mark in its header"):
        SqliteStore(store).head()
    assert recover(store).lost_revisions == ()


def test_a_state_that_was_changed_in_place_is_found(store: Path) -> None:
    with closing(sqlite3.connect(store)) as db:
        db.execute("DROP TRIGGER revision_is_immutable")
        db.execute("UPDATE revision SET actor = 'somebody else' WHERE number = 7")
        db.commit()
    embedded = SqliteStore(store)
    with pytest.raises(StoreDamaged, match=r"revision 7 cannot be read.*store recover"):
        embedded.read(7)
    assert embedded.read().number == REVISIONS
    embedded.close()
    assert recover(store).lost_revisions == (7,)


def test_names_are_never_used_twice(store: Path) -> None:
    data = store.read_bytes()
    asides = set()
    for number in range(3):
        store.write_bytes(b"\0" * 100 + data[100:])
        asides.add(recover(store).aside)
        assert len(asides) == number + 1
    assert all(Path(str(aside)).read_bytes()[100:] == data[100:] for aside in asides)


def test_whoever_has_the_store_open_keeps_a_recovery_away(store: Path) -> None:
    code = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('SELECT * FROM meta').fetchone();"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", f"{code} print('open', flush=True); sys.stdin.read()", str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        assert child.stdout.readline() == b"open\n"
        lastgood_path(store).write_text("garbage")  # there is something to recover
        before = store.read_bytes()
        with pytest.raises(StoreError, match=f"process {child.pid} has it open; end it, then recover"):
            recover(store)
        assert store.read_bytes() == before
    finally:
        child.stdin.close()
        child.wait()
        child.stdout.close()


def test_an_open_store_of_this_process_goes_on_with_the_new_file(store: Path) -> None:
    with closing(sqlite3.connect(store)) as db:
        db.execute("PRAGMA application_id = 7")
    opened = SqliteStore(store)
    with pytest.raises(StoreDamaged):
        opened.head()
    Stack.recover_store(store)
    assert opened.head() == REVISIONS
    Path(str(store)).rename(store.with_name("moved"))
    shutil.copyfile(store.with_name("moved"), store)
    assert opened.append(REVISIONS, opened.read().state, action="a", subject="", actor="").number == 201
    opened.close()
    assert SqliteStore(store).head() == 201


KILLED = textwrap.dedent(
    """
    import os, pathlib, shutil, sys
    from stackconf.store import salvage
    left = int(sys.argv[2])
    def counted(function):
        def call(*args, **kwargs):
            global left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), 9)
            return function(*args, **kwargs)
        return call
    os.link, os.fsync = counted(os.link), counted(os.fsync)
    pathlib.Path.rename = counted(pathlib.Path.rename)
    shutil.copyfile = counted(shutil.copyfile)
    salvage.recover(sys.argv[1])
    """
)


@pytest.mark.parametrize("step", range(1, 10))
def test_a_recovery_that_is_killed_is_ended_by_the_next(logged: Path, tmp_path: Path, step: int) -> None:
    store = copied(logged, tmp_path)
    with store.open("r+b") as file:
        file.seek(10 * PAGE)
        file.write(random.Random(step).randbytes(3 * PAGE))
    data = store.read_bytes()
    log = store.with_name(f"{store.name}-wal").read_bytes()
    child = subprocess.run([sys.executable, "-c", KILLED, str(store), str(step)], check=False)
    if child.returncode == -signal.SIGKILL:
        with pytest.raises(StoreDamaged, match="recovery of it was cut off"):
            SqliteStore(store).head()
        recover(store)
    else:
        assert child.returncode == 0
    embedded = SqliteStore(store)
    assert embedded.read().number >= REVISIONS
    embedded.close()
    assert check(store).sound
    kept = [file.read_bytes() for file in store.parent.glob("*.damaged-*")]
    assert data in kept
    assert log in kept


def test_every_table_is_carried_over() -> None:
    """A new table needs a line in `pieces` that says how its rows are verified."""
    assert tables().keys() == KNOWN
