"""The store: what a durable write costs, beside raw sqlite3 with the same bytes on the same disk.

Wall time, because waiting for the disk is most of it; where the median and the best are far apart,
other programs wrote at the same time.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from time import perf_counter

from harness import Row, Timing
from workload import API, HARDWARE, Config, Plugin, stack_text

from stackconf import Applied, ProviderType, Stack, hookimpl
from stackconf.registry.registry import Registry
from stackconf.store.sqlite import SqliteStore

ROUNDS = 300
PROVIDERS = 10
BAR = 2.0


class Applying(Plugin):
    """Its providers are applied by doing nothing, so that the journal is all that an apply costs."""

    @hookimpl
    def apply_config(self) -> Applied:
        return Applied("done")


def durable() -> Iterator[Row]:
    """A registration and an apply, beside sqlite3 in WAL with `synchronous = FULL`."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        with _opened(folder) as stack:
            stack.apply()
            yield from _registering(folder, stack)
            yield from _applying(folder, stack)


def _registering(folder: Path, stack: Stack) -> Iterator[Row]:
    numbers = count(1)

    def register() -> object:
        return stack.configurations.register(_given(next(numbers)))

    def planned() -> object:
        return stack.configurations.register(_given(next(numbers))).plan

    register()
    store = SqliteStore(folder / "append.sqlite3")
    states = [stack.store.read(_registered(stack, _given(next(numbers)))).state for _ in range(ROUNDS + 1)]
    given = iter(states)

    def append() -> object:
        return store.append(store.head(), next(given), action="register", subject="default", actor="me")

    append()
    raw = raw_write(folder / "raw.sqlite3", json.dumps(_given(1)))
    times = _in_turn({"raw": raw, "append": append, "register": register, "planned": planned})
    store.close()
    against = "sqlite3, WAL, FULL"
    yield _row("a revision written", against, times["append"], times["raw"], BAR)
    yield _row("register: checked by its hooks, and written", against, times["register"], times["raw"])
    subject = f"register, and the plan for {PROVIDERS} providers"
    yield _row(subject, against, times["planned"], times["raw"])


def _applying(folder: Path, stack: Stack) -> Iterator[Row]:
    raw = raw_write(folder / "raw2.sqlite3", "x" * 200)
    stack.apply()
    times = _in_turn({"raw": raw, "nothing": stack.apply, "read": stack.store.view})
    yield _row(
        f"apply that changes nothing, {PROVIDERS} providers",
        "one read of the store",
        times["nothing"],
        times["read"],
    )
    yield _row("the same", "sqlite3, one durable write", times["nothing"], times["raw"])
    numbers = count(1)

    def one_changed() -> object:
        stack.configurations.register(_given(next(numbers)))
        began = perf_counter()
        stack.apply()
        return perf_counter() - began

    times = _in_turn({"raw": raw, "one": one_changed}, timed={"one"})
    yield _row("apply of one changed provider", "sqlite3, one durable write", times["one"], times["raw"])


def _opened(folder: Path) -> Stack:
    (folder / "stack.yaml").write_text(stack_text(PROVIDERS), encoding="utf-8")
    plugin = Applying([ProviderType(API, "remote::type-0", Config)])
    registry = Registry(plugins=[plugin], entry_points=False)
    return Stack.open(folder / "stack.yaml", registry=registry, hardware=HARDWARE, environ={})


def _given(number: int) -> dict[str, object]:
    config = {"threads": 1 + number % 500, "timeout_s": float(number)}
    return {API: [{"provider_id": "provider-0", "config": config}]}


def _registered(stack: Stack, given: Mapping[str, object]) -> int:
    return stack.configurations.register(given).revision


def raw_write(path: Path, body: str) -> Callable[[], object]:
    """One row inserted, in a transaction that is on the disk when it returns."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE row (number INTEGER PRIMARY KEY, body TEXT NOT NULL)")

    def insert() -> None:
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO row (body) VALUES (?)", (body,))
        db.execute("COMMIT")

    return insert


def _in_turn(
    subjects: Mapping[str, Callable[[], object]], *, timed: frozenset[str] | set[str] = frozenset()
) -> dict[str, Timing]:
    """Wall time. Those in `timed` say themselves how long the part that counts took."""
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(ROUNDS):
        for name, function in subjects.items():
            began = perf_counter()
            said = function()
            took = perf_counter() - began
            found[name].append(float(str(said)) if name in timed else took)
    return {name: Timing(seconds) for name, seconds in found.items()}


def _row(subject: str, against: str, mine: Timing, other: Timing, limit: float | None = None) -> Row:
    return Row("durable", subject, against, *mine.over(other), "x", limit)
