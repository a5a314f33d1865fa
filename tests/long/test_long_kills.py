"""Kill processes at random instants, hundreds of times, and look at what they leave.

What these tests show not to happen: a registration that was acknowledged and does not survive; a
state that is torn; a lock that a killed process leaves behind; a version that counts as applied
before its apply ended; a provider that is forgotten by the repair; two sources of truth after a
restart; a failed attempt of which nothing is seen any more.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from long_site import (
    PHASES,
    PROVIDERS,
    SLOTS,
    TYPES,
    is_whole,
    opened,
    running,
    text_of,
    write_stack_file,
)

from stackconf.plan import is_unknown
from stackconf.store.sqlite import SqliteStore

KILLS = int(os.environ.get("STACKCONF_KILLS", "500"))
SEED = int(os.environ.get("STACKCONF_SEED", "0")) or random.randrange(1, 2**32)
PATIENCE = 60.0
"""Seconds for what takes milliseconds; passed only where something holds on to what it should not."""

ROLES = ("applier", "registrar", "applier", "registrar", "applier", "reader")
EVERY = 10
"""The whole file is checked once in so many rounds, and at the end."""

AT_LEAST_ONCE = {"register", "append", "begin", "touch", "apply_config", "undo of a provider", "finish"}

AT_WORK = AT_LEAST_ONCE - {"register", "append"} | {"half written", "check", "undo"}


class Server:
    """The process that forks the children."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("long_site.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **asked: object) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


class Site:
    """A stack, the children at work on it, and what is known to hold."""

    def __init__(self, folder: Path, server: Server, luck: random.Random) -> None:
        self.folder, self.server, self.luck = folder, server, luck
        (folder / "world").mkdir()
        (folder / "acks").touch()
        (folder / "marks").write_bytes(bytes(2 * SLOTS))
        with (folder / "marks").open("r+b") as marks:
            self.marks = mmap.mmap(marks.fileno(), 2 * SLOTS)
        self.acks = (folder / "acks").open("rb")
        self.store = SqliteStore(folder / ".stackconf" / "stack.yaml.sqlite3")
        self.pids: dict[int, int] = {}
        self.read_until = 0
        self.instants: Counter[str] = Counter()
        self.roles: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.newest = 0

    def close(self) -> None:
        for pid in self.pids.values():
            os.kill(pid, signal.SIGKILL)
        self.acks.close()
        self.marks.close()
        self.store.close()

    def start(self) -> None:
        kept = self.luck.sample(PROVIDERS, self.luck.randint(3, len(PROVIDERS)))
        write_stack_file(self.folder, {name: self.luck.choice(TYPES) for name in sorted(kept)})
        self.marks[:] = bytes(2 * SLOTS)
        for slot, role in enumerate(ROLES):
            seed = self.luck.randrange(2**32)
            self.pids[slot] = self.server.ask(folder=str(self.folder), slot=slot, role=role, seed=seed)

    def until(self, holds, what: str) -> None:
        until = time.monotonic() + PATIENCE
        while not holds():
            self.take_acks()
            assert time.monotonic() < until, what
            time.sleep(0.005)

    def pause(self) -> None:
        """Stop one for a while, wherever it is: the others go on reading."""
        pid = self.pids[self.luck.choice(list(self.pids))]
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        assert self.store.view().revision.number >= self.newest
        assert time.monotonic() - began < PATIENCE
        time.sleep(self.luck.uniform(0.0, 0.1))
        if self.luck.random() < 0.7:
            os.kill(pid, signal.SIGCONT)
        self.seen["paused"] += 1

    def victim(self, slots: list[int]) -> int:
        """Any of them, but more often one that is in the middle of an apply just now."""
        busy = [slot for slot in slots if PHASES[self.marks[slot]] in AT_WORK]
        return self.luck.choice(busy if busy and self.luck.random() < 0.6 else slots)

    def kill(self, slot: int) -> None:
        pid = self.pids.pop(slot)
        os.kill(pid, signal.SIGKILL)
        assert self.server.ask(wait=pid) == -signal.SIGKILL
        self.instants[PHASES[self.marks[slot]]] += 1
        self.roles[ROLES[slot]] += 1
        self.take_acks()
        holder = self.store.holder()
        assert holder is None or holder.pid != pid
        view = self.store.view()
        assert view.revision.number >= self.newest
        assert all(
            is_whole(name, each.providers) for name, each in view.revision.state.configurations.items()
        )

    def survive(self, slot: int) -> None:
        """One goes on alone, registers more, and ends when it is told to."""
        self.resume(slot)
        before = self.seen["register"]
        self.until(lambda: self.seen["register"] > before, "the survivor is held up by the killed ones")
        self.marks[SLOTS + slot] = 1
        assert self.server.ask(wait=self.pids.pop(slot)) == 0
        self.take_acks()
        self.seen["survivors"] += 1

    def resume(self, slot: int) -> None:
        os.kill(self.pids[slot], signal.SIGCONT)

    def take_acks(self) -> None:
        """Everything that a call has returned since the last time is in the store."""
        lines = self.acks.read().split(b"\n")
        self.acks.seek(-len(lines[-1]), os.SEEK_CUR)  # half a line is no acknowledgement
        for line in lines[:-1]:
            self.acknowledged(json.loads(line))

    def acknowledged(self, said: dict) -> None:
        self.seen[said["kind"]] += 1
        assert said["kind"] != "broken", said["error"]
        if said["kind"] == "attempt":
            (state,) = self.sql("SELECT state FROM attempt WHERE number = ?", said["attempt"])
            assert state == said["state"]
        elif said["kind"] == "register":
            revision = self.store.read(said["revision"])
            assert (revision.actor, revision.action, revision.subject) == (
                said["actor"],
                "register",
                said["name"],
            )
            kept = revision.state.configurations[said["name"]]
            assert is_whole(said["name"], kept.providers)
            assert kept.providers["inference"][0]["config"]["port"] == said["port"]
            assert said["name"] in revision.state.assigned
        elif said["kind"] in {"unassign", "unregister"}:
            revision = self.store.read(said["revision"])
            assert (revision.actor, revision.action, revision.subject) == (
                said["actor"],
                said["kind"],
                said["name"],
            )
            assert said["name"] not in revision.state.assigned
        self.newest = max(self.newest, said.get("revision", 0))

    def sql(self, statement: str, *values: object) -> tuple:
        with sqlite3.connect(self.store.path) as db:
            row = db.execute(statement, values).fetchone()
        db.close()
        return row

    def repaired(self) -> None:
        """Everyone is dead. What is known holds; what is not known is found and repaired."""
        with opened(self.folder) as stack:
            assert stack.store.holder() is None
            view = stack.store.view()
            cut = view.open_attempt.number if view.open_attempt else 0
            unknown = [record for record in view.applied.values() if is_unknown(record)]
            self.seen["attempts cut off"] += bool(cut)
            self.seen["providers unknown"] += len(unknown)
            self.same_world(view.applied)
            if self.luck.random() < 0.5:
                report = stack.recover()
                assert report.took_over == cut
                assert self.none_unknown(stack)
                self.same_world(stack.store.applied())
                cut = 0
                self.seen["recovered before the apply"] += bool(unknown)
            report = stack.apply()
            assert report.state in {"applied", "nothing"}
            assert report.took_over == cut
            assert not stack.plan()
            assert self.none_unknown(stack)
            wanted = {}
            for resolved in stack.resolution.providers.values():
                provider, config = resolved.provider, resolved.config
                assert isinstance(config.port, int)
                wanted[f"{provider.provider_id} {provider.provider_type}"] = text_of(config.port, config.seal)
            assert running(self.folder) == wanted
            self.same_world(stack.store.applied())
            assert stack.store.view().open_attempt is None
        count, newest, oldest = self.sql("SELECT COUNT(*), MAX(number), MIN(number) FROM revision")
        assert not count or (newest, oldest) == (count, 1)

    @staticmethod
    def none_unknown(stack) -> bool:
        return not any(map(is_unknown, stack.store.applied().values()))

    def same_world(self, applied) -> None:
        records = {
            f"{each.provider.provider_id} {each.provider.provider_type}": each for each in applied.values()
        }
        unknown = {name for name, record in records.items() if is_unknown(record)}
        world = {name: text for name, text in running(self.folder).items() if name not in unknown}
        assert world == {
            name: text_of(record.snapshot["port"], record.snapshot["seal"])
            for name, record in records.items()
            if name not in unknown
        }

    def checked(self) -> None:
        """The whole file, byte by byte and row by row."""
        assert self.sql("PRAGMA integrity_check") == ("ok",)
        with sqlite3.connect(self.store.path) as db:
            for digest, body in db.execute("SELECT digest, body FROM document"):
                assert hashlib.sha256(body.encode()).hexdigest() == digest
            begun = db.execute("SELECT COUNT(*) FROM attempt WHERE finished_at IS NULL").fetchone()
        db.close()
        assert begun == (0,)
        for revision in self.store.follow(0):
            assert all(is_whole(name, each.providers) for name, each in revision.state.configurations.items())
            assert set(revision.state.assigned) <= set(revision.state.configurations)


def test_processes_killed_at_any_instant_lose_nothing_and_the_next_apply_repairs(tmp_path, capsys):
    luck, server = random.Random(SEED), Server()
    site = Site(tmp_path, server, luck)
    rounds = 0
    try:
        while site.instants.total() < KILLS:
            rounds += 1
            site.start()
            acks = site.seen.total()
            site.until(lambda acks=acks: site.seen.total() > acks, "no child ever came back from a call")
            survivor = luck.choice([slot for slot, role in enumerate(ROLES) if role == "registrar"])
            spared = luck.random() < 0.2
            while left := [slot for slot in site.pids if not (spared and slot == survivor)]:
                time.sleep(luck.uniform(0.0, 0.12))
                if luck.random() < 0.1:
                    site.pause()
                site.kill(site.victim(left))
            if spared:
                site.survive(survivor)
            site.repaired()
            if rounds % EVERY == 0:
                site.checked()
        site.checked()
    finally:
        site.close()
        server.close()
        with capsys.disabled():
            told(site, rounds)
    assert KILLS < 500 or set(site.instants) >= AT_LEAST_ONCE


def told(site: Site, rounds: int) -> None:
    lines = [f"seed {SEED}: {site.instants.total()} kills in {rounds} rounds, {site.newest} revisions"]
    for title, counts in (("killed", site.roles), ("killed in", site.instants), ("seen", site.seen)):
        lines.append(f"{title}: " + ", ".join(f"{name} {count}" for name, count in counts.most_common()))
    print("\n" + "\n".join(lines))  # noqa: T201 (the counts are what it is run for)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-x"]))
