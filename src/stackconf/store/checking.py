"""Whether a store is sound: asked of SQLite, and of the digests of what it holds. Changes nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from stackconf.errors import StoreDamaged, StoreError
from stackconf.store.lastgood import behind_file, gone, lastgood_path, read_lastgood
from stackconf.store.pieces import Row, has_digest_key, is_right, lost_documents, oldest_revision, tables
from stackconf.store.sqlite import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    identity_of,
    open_attempt,
    schema_of,
    stored_state,
)
from stackconf.store.trouble import Unreadable, refuse_torn, store_error

if TYPE_CHECKING:
    from stackconf.store.base import OpenAttempt

_TOLD = 20


@frozen
class Checked:
    """What a check found.

    `problems` are what `recover` is for; `notes` are worth knowing and nothing wrong. `size` and
    `wal` are in bytes. Counts are 0 where a table could not be read.
    """

    path: str
    version: int = 0
    head: int = 0
    revisions: int = 0
    lost: int = 0
    documents: int = 0
    orphans: int = 0
    attempts: int = 0
    applied: int = 0
    open_attempt: OpenAttempt | None = None
    size: int = 0
    wal: int = 0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def check(path: str | os.PathLike[str]) -> Checked:
    """Look at a store without changing it. Raises `StoreError` where there is none to look at."""
    store = Path(path)
    if store.is_dir():
        raise StoreError(f"store {store} is a folder; give a file")
    kept = _problem_of_file(store)
    size, wal = _size(store), _size(store.with_name(f"{store.name}-wal"))
    try:
        refuse_torn(store)
    except StoreDamaged as error:
        return Checked(str(store), size=size, wal=wal, problems=(error.problem, *kept))
    if not store.exists():
        if not lastgood_path(store).exists():
            raise StoreError(f"store {store}: there is none")
        return Checked(str(store), problems=(gone(store), *kept))
    try:
        with closing(_opened(store)) as db:
            found = _Look(db, store)
            checked = found.checked(size, wal)
    except sqlite3.Error as error:
        failure = store_error(store, error)
        if not isinstance(failure, StoreDamaged):
            raise failure from error
        return Checked(str(store), size=size, wal=wal, problems=(failure.problem, *kept))
    return evolve(checked, problems=(*checked.problems, *kept))


def _problem_of_file(store: Path) -> tuple[str, ...]:
    try:
        read_lastgood(store)
    except StoreError as error:
        return (str(error),)
    return ()


def _opened(store: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        db.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError as error:
        db.close()
        if error.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}:
            raise
        return sqlite3.connect(f"{store.absolute().as_uri()}?immutable=1", uri=True, isolation_level=None)
    except sqlite3.Error:
        db.close()
        raise
    return db


class _Look:
    def __init__(self, db: sqlite3.Connection, store: Path) -> None:
        self._db, self._store = db, store
        self._problems: dict[str, None] = {}

    def checked(self, size: int, wal: int) -> Checked:
        db = self._db
        mark = db.execute("PRAGMA application_id").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
        names = {name for name, _ in schema_of(db)}
        if names and mark != APPLICATION_ID and not names & tables().keys():
            raise StoreError(f"store {self._store} is a database, but not a store of stackconf")
        if not names:
            self._compare(0, 0)
            problems = tuple(self._problems)
            return Checked(str(self._store), size=size, wal=wal, problems=problems, notes=("it is empty",))
        if mark != APPLICATION_ID:
            self._say("is damaged: the mark in its header is another program's")
        if version != SCHEMA_VERSION and version not in range(1, SCHEMA_VERSION):
            self._say(f"is damaged, or a newer stackconf's: its version is {version}")
        self._ask_sqlite()
        counts = {name: self._rows(name) for name in tables()}
        numbers = sorted(row["number"] for row in counts["revision"])
        head = numbers[-1] if numbers else 0
        oldest = oldest_revision(counts["meta"])
        for number in sorted({*range(oldest, head + 1)} - {*numbers})[:_TOLD]:
            self._say(f"is damaged: revision {number} is missing or cannot be read")
        used, lost = self._used(counts["revision"])
        digests = {row["digest"] for row in counts["document"]}
        gone = lost_documents(counts["meta"])
        for digest in sorted(used - digests - gone)[:_TOLD]:
            self._say(f"is damaged: a document is missing or not what was written ({digest[:12]})")
        if not has_digest_key(counts["meta"], counts["secret"]):
            self._say("is damaged: the key of its digests is missing")
        attempt = max((row["number"] for row in counts["attempt"]), default=0)
        self._compare(head, attempt)
        opened = self._open_attempt()
        return Checked(
            str(self._store),
            version,
            head,
            len(numbers),
            lost,
            len(digests),
            len(digests - used),
            len(counts["attempt"]),
            len(counts["applied"]),
            opened,
            size,
            wal,
            tuple(self._problems),
            tuple(self._notes(opened, lost, len(digests - used), len(gone - digests))),
        )

    def _ask_sqlite(self) -> None:
        try:
            for (line,) in self._db.execute(f"PRAGMA integrity_check({_TOLD})"):
                if line != "ok":
                    self._say(f"is damaged: {' '.join(str(line).split())}")
        except sqlite3.Error as error:
            self._say(f"is damaged: {' '.join(str(error).split())}")

    def _compare(self, head: int, attempt: int) -> None:
        """With what was once applied from it."""

        def identity() -> str:
            return identity_of(self._db) or "" if head or attempt else ""

        if not self._problems and (problem := behind_file(self._store, head, attempt, identity)):
            self._say(problem)

    def _say(self, problem: str) -> None:
        self._problems.setdefault(problem, None)

    def _rows(self, name: str) -> list[Row]:
        table = tables()[name]
        rows: list[Row] = []
        try:
            cursor = self._db.execute(f"SELECT * FROM {name}")  # noqa: S608 (our names)
            names = [column[0] for column in cursor.description]
            for values in cursor:
                row = dict(zip(names, values, strict=True))
                if names and is_right(table, row):
                    rows.append(row)
                else:
                    key = "/".join(str(row.get(column)) for column in table.key)
                    self._say(f"is damaged: a row of {name} is not what was written ({key[:40]})")
        except sqlite3.Error as error:
            self._say(f"is damaged: the table {name}: {' '.join(str(error).split())}")
        except KeyError as error:
            self._say(f"is damaged: the table {name} has another column ({error})")
        return rows

    @staticmethod
    def _used(revisions: list[Row]) -> tuple[set[str], int]:
        """The documents that some revision holds, and how many revisions are lost."""
        used: set[str] = set()
        lost = 0
        for row in revisions:
            head = [row[column] for column in ("number", "at", "actor", "action", "subject")]
            stored = stored_state(head, row["state"])
            lost += "lost" in stored
            used.update(each["digest"] for each in stored.get("configurations", {}).values())
        return used, lost

    def _open_attempt(self) -> OpenAttempt | None:
        try:
            return open_attempt(self._db)
        except (sqlite3.Error, Unreadable):
            return None

    @staticmethod
    def _notes(opened: OpenAttempt | None, lost: int, orphans: int, texts: int) -> Iterator[str]:
        if opened is not None:
            yield (
                f"attempt {opened.number} of {opened.begun_at} has not ended:"
                " it runs now, or the next apply repairs it"
            )
        if lost:
            yield f"{lost} revisions were lost in an earlier damage"
        if texts:
            yield f"the texts of {texts} configurations were lost in an earlier damage"
        if orphans:
            yield f"{orphans} documents are of no revision any more"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
