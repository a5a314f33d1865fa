"""Recover a damaged store: put it aside, untouched, and in its place what could be read of it.

Nothing of the damaged file is ever overwritten or removed. Nobody else writes meanwhile: the apply
lock and SQLite's own exclusive lock are held, and while the folder of the recovery is there no
stackconf opens the store. A recovery that is cut off is ended by the next one.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import frozen

from stackconf.errors import StoreError
from stackconf.plan import UNKNOWN, AppliedRecord
from stackconf.store import lock
from stackconf.store.checking import check
from stackconf.store.lastgood import LastGood, lastgood_path, read_lastgood, remember
from stackconf.store.pieces import (
    BARE,
    LOST_DOCUMENTS,
    Pieces,
    Row,
    Table,
    has_digest_key,
    has_tables,
    is_of_another_program,
    oldest_revision,
    read_pieces,
    tables,
    with_header,
)
from stackconf.store.sqlite import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    SqliteStore,
    make_schema,
    with_check,
    without_check,
)
from stackconf.store.trouble import lock_holders, recovering_folder, store_error

_BESIDE = ("-wal", "-shm", "-journal")
_LOCK_BYTES = (512, 0x40000000)
"""Length and start of the bytes on which SQLite locks, https://www.sqlite.org/src/file?name=src/os.h"""
_ASIDE = "aside"


@frozen
class Recovered:
    """What came of a recovery.

    `aside` is where the damaged file is now, `None` where there was none. `head` is the newest
    revision. `kept` and `lost` are lines for people; `lost_revisions` are kept as numbers that say
    that they are lost.
    """

    path: str
    aside: str | None
    head: int
    lost_revisions: tuple[int, ...]
    kept: tuple[str, ...]
    lost: tuple[str, ...]
    applied: tuple[str, ...]
    """The providers of which is known what is applied."""


def recover(path: str | os.PathLike[str], *, actor: str = "") -> Recovered:
    """Put a store aside and make a new one of all that can be read of it.

    What it does not know any more of what is applied is taken from the file beside it. Raises
    `ApplyBusy` while an apply runs, and `StoreError`, with nothing changed, when another process has
    the store open, the disk is full, or there is nothing to recover. Close the stores of this
    process that have the file open first.
    """
    store = Path(path)
    if store.is_dir():
        raise StoreError(f"store {store} is a folder; give a file")
    if not store.parent.is_dir():
        raise StoreError(f"store {store}: the folder {store.parent} is not there")
    if check(store).sound:
        raise StoreError(f"store {store} is sound: there is nothing to recover")
    try:
        with lock.exclusive(store.with_name(f"{store.name}.apply-lock"), actor), _locked(store):
            return _recover(store, actor)
    except (OSError, sqlite3.Error) as error:
        raise store_error(store, error) from error


def _recover(store: Path, actor: str) -> Recovered:
    folder = _working_folder(store)
    try:
        kept = _lastgood(store)
        if not any(_with(store, end).exists() for end in ("", *_BESIDE)) and kept is None:
            raise StoreError(f"store {store}: there is none, and nothing to recover it from")
        pieces = read_pieces(_copies(store, folder), _also(kept))
        new = _Rebuilt(pieces, kept, actor)
        fresh = folder / "new"
        new.write(fresh)
        aside = _swap(store, fresh, folder)
    finally:
        _remove(folder, store)
    rebuilt = SqliteStore(store)
    try:
        remember(rebuilt, kept.stack_digest if kept else "")
    finally:
        rebuilt.close()
    return Recovered(
        str(store), aside, new.head, tuple(new.lost_revisions), *new.told(), tuple(sorted(new.applied))
    )


_FROM_FILE = ", from the file beside it"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class _Rebuilt:
    """The rows of the new store."""

    def __init__(self, pieces: Pieces, kept: LastGood | None, actor: str) -> None:
        self._pieces, self._kept, self._actor = pieces, kept, actor
        self._now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.lost_revisions: list[int] = []
        self._from_file = False
        self.revisions = self._revisions()
        self.head = self.revisions[-1]["number"] if self.revisions else 0
        self.attempts = self._attempts()
        self.applied = self._applied()
        gone = sorted(self._lost_documents())
        if gone:
            row = {"key": LOST_DOCUMENTS, "value": " ".join(gone).encode()}
            pieces.of("meta")[LOST_DOCUMENTS,] = row

    def write(self, path: Path) -> None:
        """Write the new store, durably."""
        known = tables()
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            path.chmod(0o600)
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            make_schema(db)
            for name, table in known.items():
                for row in self._rows(name):
                    _insert(db, table, row)
            if not self._has_digest_key():
                db.execute("INSERT INTO meta VALUES ('digest-key', ?)", (os.urandom(32),))
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute("COMMIT")

    def told(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What was kept, and what was lost, in lines."""
        pieces = self._pieces
        there = len(self.revisions) - (1 if self._continues else 0)
        kept = [
            f"{there - len(self.lost_revisions)} of {there} revisions",
            _count(len(pieces.of("document")), "document"),
            _count(len(pieces.of("attempt")), "attempt"),
            f"what is applied to {_count(len(self.applied), 'provider')}" + _FROM_FILE * self._from_file,
        ]
        lost = []
        if self.lost_revisions:
            noun = "revision" if len(self.lost_revisions) == 1 else "revisions"
            lost.append(f"{noun} {_ranges(self.lost_revisions)}")
        missing = self._missing_documents()
        if missing:
            lost.append(f"what the head has of {', '.join(f'`{name}`' for name in missing)}")
        gone = len(self._lost_documents()) - len(missing)
        if gone > 0:
            lost.append(f"{_count(gone, 'document')} of earlier revisions")
        if self._continues:
            lost.append(f"the newest state; revision {self.head} {self._basis()}")
        if not self._has_digest_key():
            lost.append("the key of the digests; what holds a secret will be applied again")
        for name, why in pieces.broken.items():
            if name not in {"revision", "document", "meta"} | ({"applied"} if self._from_file else set()):
                lost.append(f"perhaps rows of the table {name} ({why})")
        return tuple(kept), tuple(lost)

    def _basis(self) -> str:
        if self._base == self.head - 1:
            return f"has what reads well of revision {self._base}, but is not quite what was written"
        return f"goes on from revision {self._base}" if self._base else "begins anew"

    @property
    def _continues(self) -> bool:
        return self._base is not None

    def _revisions(self) -> list[Row]:
        found = {key[0]: row for key, row in self._pieces.of("revision").items()}
        top = max([*found, self._kept.head if self._kept else 0], default=0)
        doubtful = self._pieces.doubtful
        top += top + 1 in doubtful
        oldest = oldest_revision(self._pieces.of("meta").values())
        rows = []
        for number in range(1, top + 1):
            if number < oldest and number not in found:
                continue  # pruned
            if number not in found:
                self.lost_revisions.append(number)
            rows.append(found.get(number) or self._placeholder(number))
        readable = [number for number, row in found.items() if '"lost":' not in row["state"][:60]]
        self._base: int | None = None
        if top and top not in found:
            known = {number: without_check(found[number]["state"]) for number in readable}
            if top in doubtful:
                known[top] = doubtful[top]["state"]
            self._base = max(known, default=0)
            state = known.get(self._base, '{"configurations": {}, "assigned": []}')
            rows.append(self._revision(top + 1, "recover", state))
        return rows

    def _placeholder(self, number: int) -> Row:
        day = self._now[:10]
        return self._revision(number, "lost", json.dumps({"lost": f"the store was damaged ({day})"}))

    def _revision(self, number: int, action: str, state: str) -> Row:
        at, actor = (self._now, self._actor) if action != "lost" else ("", "")
        head = (number, at, actor, action, "")
        named = dict(zip(("number", "at", "actor", "action", "subject"), head, strict=True))
        return {**named, "state": with_check(head, state)}

    def _attempts(self) -> list[Row]:
        rows = [row for _, row in sorted(self._pieces.of("attempt").items())]
        if self._kept and self._kept.attempt > max((row["number"] for row in rows), default=0):
            rows.append(
                {
                    "number": self._kept.attempt,
                    "revision": self._kept.head,
                    "begun_at": self._kept.at,
                    "finished_at": self._kept.at,
                    "state": "lost",
                    "actor": "",
                    "report": "{}",
                }
            )
        return rows

    def _applied(self) -> dict[str, Row]:
        found = {key[0]: dict(row) for key, row in self._pieces.of("applied").items()}
        newest = max((key[0] for key in self._pieces.of("attempt")), default=0)
        incomplete = "applied" in self._pieces.broken or "attempt" in self._pieces.broken
        kept = self._kept
        if kept and kept.attempt >= newest and (incomplete or kept.attempt > newest or not found):
            self._from_file = True
            found = {key: _applied_row(key, record) for key, record in kept.providers.items()}
        if self._is_journal_torn():
            for row in found.values():
                snapshot = json.loads(row["snapshot"])
                row["snapshot"] = json.dumps({**snapshot, UNKNOWN: snapshot.get(UNKNOWN, "changed")})
        return found

    def _is_journal_torn(self) -> bool:
        """Whether an attempt is open, and it is not known what it had touched."""
        positions = set(self._pieces.of("step"))
        return any(
            (row["number"], position) not in positions
            for row in self._pieces.of("attempt").values()
            if row["finished_at"] is None
            for position in range(min(row.get("touched", 0), len(positions) + 1))
        )

    def _lost_documents(self) -> set[str]:
        used: set[str] = set()
        for row in self.revisions:
            stored = json.loads(row["state"]).get("configurations", {})
            used.update(each["digest"] for each in stored.values())
        return used - {key[0] for key in self._pieces.of("document")}

    def _has_digest_key(self) -> bool:
        return has_digest_key(self._pieces.of("meta").values(), self._pieces.of("secret").values())

    def _missing_documents(self) -> list[str]:
        """The configurations of the head whose text is lost."""
        if not self.revisions:
            return []
        stored = json.loads(self.revisions[-1]["state"]).get("configurations", {})
        there = self._pieces.of("document")
        return [name for name, each in stored.items() if (each["digest"],) not in there]

    def _rows(self, table: str) -> Iterator[Row]:
        ours = {"revision": self.revisions, "attempt": self.attempts, "applied": [*self.applied.values()]}
        yield from ours.get(table) or self._pieces.of(table).values()


def _applied_row(key: str, record: AppliedRecord) -> Row:
    return {
        "provider": key,
        "api": record.provider.api,
        "provider_id": record.provider.provider_id,
        "provider_type": record.provider.provider_type,
        "revision": record.revision,
        "at": record.at,
        "snapshot": json.dumps(record.snapshot),
    }


def _insert(db: sqlite3.Connection, table: Table, row: Mapping[str, Any]) -> None:
    names = [column for column in table.columns if column in row]
    marks = ", ".join("?" * len(names))
    statement = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608 (our names)
    db.execute(statement, [row[name] for name in names])


# Files


def _with(store: Path, end: str) -> Path:
    return store.with_name(store.name + end)


def _working_folder(store: Path) -> Path:
    """A folder for the work, empty. What a recovery that was cut off had moved is put back first."""
    folder = recovering_folder(store)
    if folder.exists():
        moved = folder / _ASIDE
        aside = moved.read_text(encoding="utf-8") if moved.exists() else ""
        for end in _BESIDE if aside else ():
            there = _with(store.with_name(aside), end)
            if there.exists() and not _with(store, end).exists() and _same(store, store.with_name(aside)):
                there.rename(_with(store, end))
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700)
    return folder


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _copies(store: Path, folder: Path) -> Iterator[Path]:
    """Copies to read from, the best first: as it is, with another first page, without its log."""
    if not store.exists():
        return
    whole, headed, bare = folder / "whole", folder / "headed", folder / BARE
    shutil.copyfile(store, whole)
    _copy_beside(store, whole)
    if is_of_another_program(whole):
        raise StoreError(f"store {store} is a database, but not a store of stackconf; give another")
    readable = has_tables(whole)
    yield whole
    if not readable and with_header(store, headed):
        _copy_beside(store, headed)
        yield headed
    shutil.copyfile(store, bare)
    yield bare


def _copy_beside(store: Path, copy: Path) -> None:
    for end in ("-wal", "-journal"):
        if _with(store, end).exists():
            shutil.copyfile(_with(store, end), _with(copy, end))


def _swap(store: Path, fresh: Path, folder: Path) -> str | None:
    """Put the new store in the place of the old one, which gets a name of its own."""
    if not any(_with(store, end).exists() for end in ("", *_BESIDE)):
        fresh.rename(store)
        _sync(store.parent)
        return None
    aside = _free_name(store)
    (folder / _ASIDE).write_text(aside.name, encoding="utf-8")
    _sync(folder)
    if store.exists():
        try:
            os.link(store, aside)
        except OSError:  # a file system without hard links
            store.rename(aside)
    for end in _BESIDE:
        if _with(store, end).exists():
            _with(store, end).rename(_with(aside, end))
    fresh.rename(store)
    _sync(store.parent)
    return str(aside)


def _free_name(store: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    number = 1
    while True:
        more = f"-{number}" if number > 1 else ""
        name = store.with_name(f"{store.name}.damaged-{stamp}{more}")
        if not any(_with(name, end).exists() for end in ("", *_BESIDE)):
            return name
        number += 1


def _remove(folder: Path, store: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _sync(store.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Hold SQLite's exclusive lock on the file, so that nobody has it open, or opens it."""
    import fcntl

    if not store.exists():
        yield
        return
    descriptor = os.open(store, os.O_RDWR)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, *_LOCK_BYTES)
        except (BlockingIOError, PermissionError) as error:
            pids = lock_holders(store)
            who = f"process {', '.join(map(str, pids))}" if pids else "another process"
            raise StoreError(f"store {store}: {who} has it open; end it, then recover") from error
        yield
    finally:
        os.close(descriptor)


def _lastgood(store: Path) -> LastGood | None:
    try:
        return read_lastgood(store)
    except StoreError:
        aside = _free_name(lastgood_path(store))
        lastgood_path(store).rename(aside)  # the new one would overwrite it
        return None


def _also(kept: LastGood | None) -> dict[str, list[tuple[Any, ...]]]:
    if kept is None:
        return {}
    keys: list[tuple[Any, ...]] = [(key,) for key in kept.providers]
    return {
        "applied": keys,
        "status": keys,
        "revision": [(number,) for number in range(1, kept.head + 1)],
        "attempt": [(number,) for number in range(1, kept.attempt + 1)],
    }


def _ranges(numbers: list[int]) -> str:
    """Numbers in short.

    >>> _ranges([1, 2, 3, 7])
    '1-3, 7'
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)
