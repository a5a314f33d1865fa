"""The disk is full, the folder is read-only or gone, another writes: one line, and nothing is lost."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from core_kit import Owner, one, open_stack, overlay
from pydantic import BaseModel

from stackconf import Applied, ApplyError, Stack, StoreError, user_field
from stackconf.store.base import State
from stackconf.store.checking import check
from stackconf.store.sqlite import SqliteStore

pytestmark = pytest.mark.exhaustive


class Config(BaseModel):
    port: int = user_field(80)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """Something mounted on a folder; skipped where that is not allowed."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if shutil.which("mount") is None:
        pytest.skip("no mount here")
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as folder:
        yield folder


def fill(folder: Path, *, leave: int = 0) -> Path:
    """Fill the file system, but for so many bytes."""
    file = folder / "filler"
    with file.open("wb", buffering=0) as out:
        try:
            while True:
                out.write(b"\0" * 4096)
        except OSError:
            pass
        if leave:
            os.ftruncate(out.fileno(), max(0, out.tell() - leave))
    return file


def one_line(error: Exception) -> str:
    text = str(error)
    assert "\n" not in text
    return text


def test_a_full_disk_while_configurations_are_registered(small: Path, tmp_path: Path) -> None:
    store = small / "store.sqlite3"
    with open_stack(tmp_path, one(), Owner(Config), store=store) as stack:
        kept: list[int] = []

        def register_on() -> None:
            for number in range(10_000):
                registered = stack.configurations.register(overlay({"port": number}), f"name-{number}")
                kept.append(registered.revision)

        with pytest.raises(StoreError, match=r"full|disk") as caught:
            register_on()
        assert len(kept) > 10
        one_line(caught.value)
        assert stack.revision == len(kept)
    again = SqliteStore(store)
    assert [each.number for each in again.follow(0)] == kept
    again.close()
    assert check(store).sound


@pytest.mark.parametrize("leave", range(0, 64 * 1024, 8 * 1024))
def test_a_full_disk_at_any_moment_of_an_apply(small: Path, tmp_path: Path, leave: int) -> None:
    """Whatever could not be written down, nothing that was registered or applied is lost."""
    store = small / "store.sqlite3"
    filler: list[Path] = []
    runs: list[int] = []

    def applying(_provider: object, config: Config | None, _previous: object) -> Applied:
        before = [*runs]
        runs[:] = [] if config is None else [config.port]
        if not filler:
            filler.append(fill(small, leave=leave))

        def undo() -> None:
            runs[:] = before

        return Applied("done", undo=undo)

    with open_stack(tmp_path, one(), Owner(Config, applying=applying), store=store) as stack:
        stack.configurations.register(overlay({"port": 1}))
        try:
            report = stack.apply()
        except (StoreError, ApplyError) as error:
            one_line(error)
        else:
            assert report.state == "applied"
        filler[0].unlink()
        assert stack.revision == 1
    with open_stack(tmp_path, one(), Owner(Config, applying=applying), store=store) as stack:
        assert stack.apply().state in {"applied", "nothing"}
        assert runs == [1]
        assert stack.plan().changes == ()
    assert check(store).sound


@pytest.mark.parametrize("leave", [0, 1, 4096, 8192, 12288, 16384, 32768, 65536])
def test_a_full_disk_while_the_store_is_made(small: Path, leave: int) -> None:
    store = small / "folder" / "store.sqlite3"
    filler = fill(small, leave=leave)
    embedded = SqliteStore(store)
    try:
        embedded.append(0, State(), action="a", subject="", actor="")
    except StoreError as error:
        text = one_line(error)
        assert str(store) in text
        filler.unlink()
        assert embedded.append(0, State(), action="a", subject="", actor="").number == 1
    assert embedded.head() == 1
    embedded.close()
    assert check(store).sound


LIMITED = textwrap.dedent(
    """
    import resource, signal, sys
    from stackconf import StoreError
    from stackconf.store.base import State
    from stackconf.store.sqlite import SqliteStore
    store = SqliteStore(sys.argv[1])
    head = store.append(store.head(), State(), action="a", subject="", actor="").number
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    try:
        for number in range(500):
            head = store.append(head, State(), action="a" * 500, subject="", actor="").number
    except StoreError as error:
        print(head, error)
    """
)


@pytest.mark.parametrize("size", [1, 20_000, 50_000, 100_000])
def test_a_file_that_may_not_grow(tmp_path: Path, size: int) -> None:
    """The same without a file system of one's own: `RLIMIT_FSIZE`."""
    store = tmp_path / "store.sqlite3"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(store), str(size)], capture_output=True, text=True, check=True
    )
    head, _, text = done.stdout.partition(" ")
    assert f"store {store}: " in text
    assert done.stderr == ""
    again = SqliteStore(store)
    assert again.head() == int(head) >= 1
    assert [each.number for each in again.follow(0)] == list(range(1, int(head) + 1))
    again.close()
    assert check(store).sound
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_read_only_file_system(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with open_stack(tmp_path, one(), Owner(Config), store=folder / "store.sqlite3") as stack:
        stack.configurations.register(overlay({"port": 1}))
    with mounted(folder, "--bind", str(folder)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        owner = Owner(Config)
        with open_stack(tmp_path, one(), owner, store=folder / "store.sqlite3") as stack:
            for act in (stack.apply, lambda: stack.configurations.register(overlay({"port": 2}))):
                with pytest.raises(StoreError, match="read-only") as caught:
                    act()
                one_line(caught.value)
        assert owner.asked("apply_config") == []
    assert check(folder / "store.sqlite3").head == 1


def test_a_missing_folder_is_made_and_one_that_goes_is_said(tmp_path: Path) -> None:
    store = tmp_path / "a" / "b" / "store.sqlite3"
    with open_stack(tmp_path, one(), Owner(Config), store=store) as stack:
        stack.configurations.register(overlay({"port": 1}))
        shutil.move(tmp_path / "a", tmp_path / "elsewhere")
        assert stack.revision == 0
        stack.configurations.register(overlay({"port": 2}))
        assert stack.revision == 1
    assert SqliteStore(tmp_path / "elsewhere" / "b" / "store.sqlite3").head() == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        SqliteStore(tmp_path / "file" / "store.sqlite3").ensure()
    one_line(caught.value)


def test_a_second_writer_is_named_after_a_bounded_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STACKCONF_STORE_TIMEOUT", "0.3")
    store = tmp_path / "store.sqlite3"
    embedded = SqliteStore(store)
    embedded.ensure()
    code = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("holding", flush=True)
sys.stdin.read()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == b"holding\n"
    with pytest.raises(StoreError) as caught:
        embedded.append(0, State(), action="a", subject="", actor="")
    who = f"process {child.pid}" if Path("/proc/locks").exists() else "another process"
    assert f"it is locked: {who} holds it, and did not let go within 0.3 s; try again" in one_line(
        caught.value
    )
    assert embedded.head() == 0  # readers go on
    child.stdin.close()
    child.wait()
    child.stdout.close()
    assert embedded.append(0, State(), action="a", subject="", actor="").number == 1
    embedded.close()


MAKING = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, sys.argv[1])
    from stackconf.store import sqlite
    import os, sqlite3
    left = int(sys.argv[3])
    class Connection(sqlite3.Connection):
        def execute(self, *args):
            global left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), 9)
            return super().execute(*args)
    connect = sqlite3.connect
    sqlite.sqlite3.connect = lambda *args, **options: connect(*args, factory=Connection, **options)
    sqlite.SqliteStore(sys.argv[2]).ensure()
    """
)


@pytest.mark.parametrize("step", range(1, 28, 2))
def test_a_kill_while_the_store_is_made(tmp_path: Path, step: int) -> None:
    store = tmp_path / "store.sqlite3"
    done = subprocess.run(
        [sys.executable, "-c", MAKING, str(tmp_path), str(store), str(step)],
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    embedded = SqliteStore(store)
    assert embedded.head() == 0
    assert embedded.append(0, State(), action="a", subject="", actor="").number == 1
    embedded.close()
    assert check(store).sound


def test_a_recovery_on_a_full_disk_changes_nothing(small: Path) -> None:
    store = small / "store.sqlite3"
    embedded = SqliteStore(store)
    for number in range(60):
        embedded.append(number, State(), action="a" * 500, subject="", actor="")
    embedded.close()
    with store.open("r+b") as file:
        file.write(bytes(100))
    damaged = store.read_bytes()
    filler = fill(small, leave=20_000)
    with pytest.raises(StoreError, match=r"No space left|is full") as caught:
        Stack.recover_store(store)
    one_line(caught.value)
    assert store.read_bytes() == damaged
    assert sorted(each.name for each in small.iterdir()) == [
        "filler",
        "store.sqlite3",
        "store.sqlite3.apply-lock",
    ]
    filler.unlink()
    assert Stack.recover_store(store).head == 60
