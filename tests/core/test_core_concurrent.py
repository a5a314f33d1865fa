"""Many at once: eight processes that register while others read, and threads on one stack or on many.

What these tests show not to happen: a registration that another one overwrites; a gap or a number
given twice; an object that one process has and another does not see; a reader that waits for writers,
or sees parts of two states.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from core_kit import Owner, open_stack, overlay, registry_of
from faults_kit import tell
from pydantic import BaseModel

from stackconf import Conflict, Stack, user_field
from stackconf.testing import machine

KEYS = ["inference/a", "inference/b", "inference/c"]
PATIENCE = 120.0


class Config(BaseModel):
    port: int = user_field(80)
    seal: str = user_field("")


def seal(name: str, port: int) -> str:
    return hashlib.sha256(f"{name} {port}".encode()).hexdigest()[:12]


def given(name: str, port: int) -> dict:
    """The same for every provider, with a checksum of it."""
    config = {"port": port, "seal": seal(name, port)}
    return {"inference": [{"provider_id": key[-1], "config": config} for key in KEYS]}


def torn(state) -> list[str]:
    """The configurations that are not what one registration gave."""
    found = []
    for name, each in state.configurations.items():
        configs = [entry["config"] for entry in each.providers["inference"]]
        port = configs[0]["port"]
        if configs != [{"port": port, "seal": seal(name, port)}] * len(KEYS):
            found.append(name)
    return found


def opened(folder: Path) -> Stack:
    return Stack.open(
        folder / "stack.yaml", registry=registry_of(Owner(Config)), hardware=machine(), environ={}
    )


@pytest.fixture
def folder(tmp_path):
    entries = [{"provider_id": key[-1], "provider_type": "remote::acme"} for key in KEYS]
    open_stack(tmp_path, {"providers": {"inference": entries}}, Owner(Config)).close()
    return tmp_path


def register(stack: Stack, who: str, count: int, *, against: bool = False) -> list[int]:
    """The revisions that a writer made. `against`: it says which revision it has seen, and tries
    again when that is the newest no more.
    """
    made = []
    while len(made) < count:
        name, port = f"{who}-{len(made) % 4}", 1000 * len(made) + 1
        expected = stack.revision if against else None
        try:
            done = stack.configurations.register(given(name, port), name=name, expected_revision=expected)
            made.append(done.revision)
        except Conflict:
            if not against:  # only who says what they have seen is refused
                raise
    return made


def read(stack: Stack, until: float) -> dict[str, float]:
    """What a reader saw until it was told to stop: how much, and how long it waited at most."""
    seen, newest, longest = 0, 0, 0.0
    while time.monotonic() < until and not sys.stdin.closed:
        began = time.monotonic()
        revision = stack.store.view().revision
        longest = max(longest, time.monotonic() - began)
        assert not torn(revision.state), f"revision {revision.number} is torn"
        assert revision.number >= newest, "it went back"
        assert stack.store.read(revision.number) == revision, "it changed"
        seen, newest = seen + 1, revision.number
        if newest >= int(sys.argv[3]):
            break
        time.sleep(0.002)
    return {"seen": seen, "newest": newest, "longest": longest}


def apply_for_a_while(stack: Stack, port: int) -> str:
    """Apply another configuration, and then want what there was again, without applying that."""
    stack.configurations.register(given("x", port), name="x")
    state = stack.apply().state
    stack.configurations.unregister("x")
    return state


def main(folder: Path, role: str, total: str, count: str) -> None:
    stack = opened(folder)
    print("ready", flush=True)  # noqa: T201 (the answer to the test)
    sys.stdin.readline()
    if role == "reader":
        print(json.dumps(read(stack, time.monotonic() + PATIENCE)))  # noqa: T201
    elif role == "applier":
        print(json.dumps(apply_for_a_while(stack, int(total))))  # noqa: T201
    else:
        made = register(stack, f"p{os.getpid()}", int(count), against=role == "against")
        print(json.dumps(made))  # noqa: T201


def child(folder: Path, role: str, total: int, count: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, __file__, str(folder), role, str(total), str(count)]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
    )


def run(children: list[subprocess.Popen[str]]) -> list:
    for each in children:
        assert each.stdout.readline() == "ready\n", each.communicate()[1]
    for each in children:
        each.stdin.write("go\n")
        each.stdin.flush()
    said = [each.communicate(timeout=2 * PATIENCE) for each in children]
    assert [each.returncode for each in children] == [0] * len(children), [text for _, text in said]
    return [json.loads(text) for text, _ in said]


def check(folder: Path, made: list[list[int]], total: int) -> None:
    assert sorted(number for each in made for number in each) == list(range(1, total + 1))
    assert all(each == sorted(each) for each in made)
    with opened(folder) as stack:
        assert stack.revision == total
        revisions = list(stack.store.follow(0))
        assert [each.number for each in revisions] == list(range(1, total + 1))
        for before, after in pairwise(revisions):
            kept = {name: each for name, each in after.state.configurations.items() if name != after.subject}
            assert {name: before.state.configurations[name] for name in kept} == kept
            assert not torn(after.state)
    with sqlite3.connect(folder / ".stackconf" / "stack.yaml.sqlite3") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


@pytest.mark.exhaustive
def test_eight_processes_register_a_hundred_each_without_gap_while_others_read(folder):
    """Half of them say which revision they have seen. A reader is never held up: the longest of its
    reads is far below what it would wait for a lock.
    """
    writers, count = 8, 100
    total = writers * count
    children = [
        child(folder, "against" if number % 2 else "writer", total, count) for number in range(writers)
    ]
    readers = [child(folder, "reader", total, 0) for _ in range(2)]
    said = run(children + readers)
    check(folder, said[:writers], total)
    for each in said[writers:]:
        assert each["newest"] == total
        tell(f"{each['seen']} reads beside {writers} writers, the longest {1000 * each['longest']:.0f} ms")


def test_readers_go_on_while_a_writer_stands_still_in_the_middle_of_a_write(folder):
    """No matter how long: the writer is stopped for good, with the database locked for writing."""
    with opened(folder) as stack:
        stack.configurations.register(given("a", 1), name="a")
        script = (
            "import os, signal, sqlite3, sys;"
            "db = sqlite3.connect(sys.argv[1], isolation_level=None);"
            "db.execute('BEGIN IMMEDIATE');"
            'db.execute("DELETE FROM status");'
            "print('stopped', flush=True);"
            "os.kill(os.getpid(), signal.SIGSTOP)"
        )
        command = [sys.executable, "-c", script, str(stack.store.path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout.readline() == "stopped\n"
            os.waitid(os.P_PID, writer.pid, os.WSTOPPED)
            for _ in range(100):
                assert stack.store.view().revision.number == 1
                assert stack.plan()
                assert stack.configurations.inspect()
            with opened(folder) as other:
                assert other.revision == 1
            writer.send_signal(signal.SIGKILL)
        assert stack.configurations.register(given("b", 2), name="b").revision == 2


@pytest.mark.parametrize("shared", [True, False], ids=["one-stack", "a-stack-each"])
def test_eight_threads_register_and_read_and_lose_nothing(folder, shared):
    threads, count = 8, 25
    one = opened(folder)
    stacks = [one if shared else opened(folder) for _ in range(threads)]
    made: dict[int, list[int]] = {}
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            made[number] = register(stacks[number], f"t{number}", count, against=bool(number % 2))
            assert not torn(stacks[number].store.read().state)
            stacks[number].configurations.inspect()
        except BaseException as error:  # noqa: BLE001 (the test reports it)
            failures.append(error)

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for each in running:
        each.start()
    for each in running:
        each.join(PATIENCE)
    for each in stacks:
        each.close()
    assert failures == []
    check(folder, list(made.values()), threads * count)


def test_what_one_process_registers_every_other_sees_at_its_next_read(folder):
    """A notification is a hint, the number is the truth: no copy in memory is ever older."""
    with opened(folder) as one, opened(folder) as other:
        for number in range(1, 6):
            revision = one.configurations.register(given("x", number), name="x").revision
            assert other.revision == revision == 2 * number - 1
            assert other.configurations.get("x") == one.configurations.get("x")
            (shown, *_) = other.configurations.inspect()["providers"]["inference"]
            assert shown["config"]["port"] == number
            assert other.plan().base_revision == revision
            other.configurations.register(overlay({"port": number + 1}, "inference/b"), name="y")
            assert one.plan().base_revision == one.revision == revision + 1


def test_what_one_process_applies_every_other_plans_against(folder):
    """What a process has read and compared counts only while the store says the same."""
    with opened(folder) as stack:
        stack.apply()
        assert not stack.plan()
        for port in (1, 2, 1):
            assert run([child(folder, "applier", port, 0)]) == ["applied"]
            changes = stack.plan().changes
            assert [change.provider.key for change in changes] == KEYS
            (field,) = [each for each in changes[0].fields if each.path == "port"]
            assert (field.before, field.after) == (port, 80)
            assert stack.plan().changes == changes
        stack.apply()
        assert not stack.plan()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
