"""The embedded store: one SQLite file, WAL, every commit synced before it returns.

The tables guard themselves: a trigger refuses to change or delete a revision, and another refuses
a number that is not the next. Only `prune` deletes, and only below the oldest revision that it has
written down before, and never one in use. A file that does not exist reads as an empty store and is created
by the first write.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from stackconf.deadline import seconds_from
from stackconf.errors import ApplyBusy, Conflict, RevisionLost, StoreDamaged, StoreError, UnknownName
from stackconf.plan import AppliedRecord, place_of, unknown
from stackconf.resolve.references import sealed_ids
from stackconf.sealing import SealedSecret
from stackconf.store import lock
from stackconf.store.base import (
    DIGEST_KEY,
    NOTHING,
    Attempt,
    Configuration,
    Holder,
    JournalStep,
    OpenAttempt,
    Pruned,
    Revision,
    RevisionSummary,
    State,
    Status,
    View,
    outcome_data,
    restored_by,
)
from stackconf.store.retention import pruned
from stackconf.store.trouble import Unreadable, decoding, refuse_torn, store_error, why_unwritable
from stackconf.types import Provider

if TYPE_CHECKING:
    from stackconf.apply import Report
    from stackconf.store.base import Guard, SecretsChange

APPLICATION_ID = 0x5C0F
BUSY_SECONDS = 30.0
"""How long a writer waits for another; `STACKCONF_STORE_TIMEOUT` overrides."""

_SCHEMA_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE document (digest TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE revision (
    number INTEGER PRIMARY KEY, at TEXT NOT NULL, actor TEXT NOT NULL,
    action TEXT NOT NULL, subject TEXT NOT NULL, state TEXT NOT NULL
);
CREATE TABLE attempt (
    number INTEGER PRIMARY KEY, revision INTEGER NOT NULL, begun_at TEXT NOT NULL,
    finished_at TEXT, state TEXT NOT NULL, actor TEXT NOT NULL, report TEXT NOT NULL
);
CREATE TABLE applied (
    provider TEXT PRIMARY KEY, api TEXT NOT NULL, provider_id TEXT NOT NULL,
    provider_type TEXT NOT NULL, revision INTEGER NOT NULL, at TEXT NOT NULL, snapshot TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE status (
    provider TEXT PRIMARY KEY, state TEXT NOT NULL, attempt INTEGER NOT NULL,
    revision INTEGER NOT NULL, error TEXT NOT NULL, at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TRIGGER revision_is_next BEFORE INSERT ON revision
WHEN NEW.number <> (SELECT COALESCE(MAX(number), 0) + 1 FROM revision)
BEGIN SELECT RAISE(ABORT, 'a revision must be the next number'); END;
CREATE TRIGGER revision_is_immutable BEFORE UPDATE ON revision
BEGIN SELECT RAISE(ABORT, 'a revision never changes'); END;
CREATE TRIGGER revision_stays BEFORE DELETE ON revision
BEGIN SELECT RAISE(ABORT, 'a revision is never deleted'); END;
CREATE TRIGGER document_is_new BEFORE INSERT ON document
WHEN EXISTS (SELECT 1 FROM document WHERE digest = NEW.digest AND body <> NEW.body)
BEGIN SELECT RAISE(ABORT, 'a document never changes'); END;
CREATE TRIGGER document_is_immutable BEFORE UPDATE ON document
BEGIN SELECT RAISE(ABORT, 'a document never changes'); END;
CREATE TRIGGER document_stays BEFORE DELETE ON document
BEGIN SELECT RAISE(ABORT, 'a document is never deleted'); END;
"""

_SCHEMA_2 = """
ALTER TABLE attempt ADD COLUMN touched INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempt ADD COLUMN undoing INTEGER NOT NULL DEFAULT 0;
CREATE TABLE step (
    attempt INTEGER NOT NULL, position INTEGER NOT NULL, api TEXT NOT NULL, provider_id TEXT NOT NULL,
    provider_type TEXT NOT NULL, kind TEXT NOT NULL, target TEXT NOT NULL,
    PRIMARY KEY (attempt, position)
) WITHOUT ROWID;
CREATE INDEX open_attempt ON attempt (number) WHERE finished_at IS NULL;
CREATE TABLE secret (
    id TEXT PRIMARY KEY, token BLOB NOT NULL, key TEXT NOT NULL, at TEXT NOT NULL
) WITHOUT ROWID;
ALTER TABLE revision ADD COLUMN restores INTEGER;
CREATE VIEW retention AS SELECT
    COALESCE((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'oldest_revision'), 1) AS oldest,
    EXISTS (SELECT 1 FROM meta WHERE key = 'pruning') AS pruning;
CREATE VIEW pinned AS
    SELECT revision AS number FROM applied UNION SELECT revision FROM attempt WHERE finished_at IS NULL;
CREATE TRIGGER oldest_is_new BEFORE INSERT ON meta
WHEN NEW.key = 'oldest_revision' AND (EXISTS (SELECT 1 FROM meta WHERE key = NEW.key)
    OR CAST(NEW.value AS INTEGER) > (SELECT MAX(number) FROM revision))
BEGIN SELECT RAISE(ABORT, 'the oldest revision kept never goes back, nor beyond the head'); END;
CREATE TRIGGER oldest_only_grows BEFORE UPDATE ON meta
WHEN OLD.key = 'oldest_revision' AND (NEW.key <> OLD.key
    OR CAST(NEW.value AS INTEGER) < CAST(OLD.value AS INTEGER)
    OR CAST(NEW.value AS INTEGER) > (SELECT MAX(number) FROM revision))
BEGIN SELECT RAISE(ABORT, 'the oldest revision kept never goes back, nor beyond the head'); END;
CREATE TRIGGER oldest_stays BEFORE DELETE ON meta WHEN OLD.key = 'oldest_revision'
BEGIN SELECT RAISE(ABORT, 'the oldest revision kept is never forgotten'); END;
DROP TRIGGER revision_is_next;
CREATE TRIGGER revision_is_next BEFORE INSERT ON revision
WHEN NEW.number <= (SELECT COALESCE(MAX(number), 0) FROM revision)
    OR NEW.number > MAX((SELECT COALESCE(MAX(number), 0) + 1 FROM revision), (SELECT oldest FROM retention))
BEGIN SELECT RAISE(ABORT, 'a revision must be the next number'); END;
DROP TRIGGER revision_stays;
CREATE TRIGGER revision_stays BEFORE DELETE ON revision
WHEN NOT (SELECT pruning FROM retention) OR OLD.number >= (SELECT oldest FROM retention)
    OR OLD.number IN (SELECT number FROM pinned)
BEGIN SELECT RAISE(ABORT, 'a revision is never deleted'); END;
DROP TRIGGER document_stays;
CREATE TRIGGER document_stays BEFORE DELETE ON document WHEN NOT (SELECT pruning FROM retention)
BEGIN SELECT RAISE(ABORT, 'a document is never deleted'); END;
"""
"""The journal: what an open attempt is to do, and how many of its steps have begun. The sealed
secrets, to which documents refer by id, so that a new key changes no document. And history: what a
rollback went back to, the oldest revision kept, and that nothing but `prune` deletes.
"""

_SCHEMAS = (_SCHEMA_1, _SCHEMA_2)
SCHEMA_VERSION = len(_SCHEMAS)
_LARGEST = 2**63 - 1
"""The largest number that SQLite takes."""
_FEW = 1000
"""By how much a version may be newer before a damaged header is the likelier reason."""


_stores: WeakSet[SqliteStore] = WeakSet()
_inherited: list[sqlite3.Connection] = []
"""The connections of the process that this one was forked from; kept, so that nothing closes them."""


def _begin_anew() -> None:
    for store in list(_stores):
        store._begin_anew()  # noqa: SLF001 (one object in two processes)


os.register_at_fork(after_in_child=_begin_anew)


def _utc() -> datetime:
    return datetime.now(UTC)


class SqliteStore:
    """A store in one file. May be used from several threads and several processes.

    `clock` says what time it is, with its zone. Should it go back, a revision still never precedes
    the one before it. `keep` is how many revisions and attempts are kept, `None` for all.
    """

    def __init__(self, path: str | Path, *, clock: Callable[[], datetime] = _utc) -> None:
        self.path = Path(path)
        self.keep: int | None = None
        self._clock = clock
        self._lock = RLock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        _stores.add(self)
        self._ephemeral_key = secrets.token_bytes(32)
        self._digest_key: bytes | None = None
        self._records = _Records()
        self.guard: Guard | None = None

    def _begin_anew(self) -> None:
        """In a process that was forked: SQLite forbids to use, or even to close, what it inherited."""
        if self._connection is not None:
            _inherited.append(self._connection)
        self._lock = RLock()
        self._connection = None

    def beside(self) -> SqliteStore:
        """The same file over another connection, which reads while this one waits to write."""
        return SqliteStore(self.path, clock=self._clock)

    def trouble(self) -> str:
        """Why nothing can be written now: a full or read-only disk, rights; "" where none is seen."""
        return why_unwritable(self.path)

    def head(self) -> int:
        """The newest revision's number; 0 where there is none."""
        with self._reading() as db:
            return 0 if db is None else _head(db)

    def read(self, revision: int | None = None) -> Revision:
        """A revision, the head by default."""
        return _known(self._read(revision))

    def _read(self, revision: int | None) -> Revision:
        with self._reading() as db:
            number = (0 if db is None else _head(db)) if revision is None else revision
            if number == 0:
                return NOTHING
            known = db is not None and abs(number) <= _LARGEST
            row = db.execute(_SELECT_REVISION, (number,)).fetchone() if db is not None and known else None
            if db is None or row is None:
                head = self.head()
                if 0 < number < (oldest := _oldest(db)):
                    raise UnknownName(f"revision {number} was pruned; the oldest kept is {oldest}")
                if 0 < number <= head:
                    raise Unreadable(f"is damaged: revision {number} is missing")
                raise UnknownName(f"no revision {number}; the newest is {head}")
            return _revision(db, row)

    def append(
        self,
        expected: int,
        state: State,
        *,
        action: str,
        subject: str,
        actor: str,
        sealed: Mapping[str, SealedSecret] | None = None,
        restores: int | None = None,
    ) -> Revision:
        """Make the next revision, together with the secrets that it is the first to refer to."""
        with self._writing() as db:
            head, before = db.execute("SELECT COALESCE(MAX(number), 0), at FROM revision").fetchone()
            if head != expected:
                raise Conflict(expected, head)
            at = max(self._now(), before or "")  # a clock that went back puts nothing before its cause
            revision = Revision(head + 1, at, actor, action, subject, state, restores=restores)
            body = json.dumps({"configurations": _stored(db, state), "assigned": state.assigned})
            body = with_check((revision.number, at, actor, action, subject), body)
            db.execute(
                "INSERT INTO revision VALUES (?, ?, ?, ?, ?, ?, ?)",
                (revision.number, at, actor, action, subject, body, restores),
            )
            if self.keep is not None:
                pruned(db, self.keep)
            wrapped = bool(sealed) and self._wrap_digest_key(db)
            _insert_sealed(db, sealed or {}, revision.at)
        if wrapped:
            self._wipe_log()
        return revision

    def sealed(self) -> Mapping[str, SealedSecret]:
        """Every sealed secret by its id."""
        with self._reading() as db:
            return {} if db is None else _sealed(db)

    def sealed_one(self, identity: str) -> SealedSecret | None:
        """One sealed secret."""
        with self._reading() as db:
            return None if db is None else _sealed_one(db, identity)

    def change_sealed(self, change: SecretsChange) -> None:
        """Change the sealed secrets in one transaction. What was there is overwritten with zeros, in
        the file by SQLite and in its log by emptying that, unless another process reads just then.
        """
        with self._writing() as db:
            before = _sealed(db)
            after = change(before, _referred(db))
            db.executemany("DELETE FROM secret WHERE id = ?", [(each,) for each in before.keys() - after])
            changed = {key: each for key, each in after.items() if before.get(key) != each}
            _insert_sealed(db, changed, self._now())
            if DIGEST_KEY in before and DIGEST_KEY not in after:
                self._digest_key = secrets.token_bytes(32)
                db.execute("INSERT INTO meta VALUES ('digest-key', ?)", (self._digest_key,))
        self._wipe_log()

    def _wrap_digest_key(self, db: sqlite3.Connection) -> bool:
        """Keep the digest key sealed from the first sealed secret on; otherwise whoever has the file
        could try likely secrets against the digests of what is applied. It stays the same key.
        """
        row = db.execute(_SELECT_DIGEST_KEY).fetchone()
        if row is None or self.guard is None:
            return False
        _insert_sealed(db, {DIGEST_KEY: self.guard.wrap(bytes(row[0]))}, self._now())
        db.execute("INSERT OR IGNORE INTO meta VALUES ('store-id', ?)", (_named_after(bytes(row[0])),))
        db.execute("DELETE FROM meta WHERE key = 'digest-key'")
        return True

    def _wipe_log(self) -> None:
        """Empty the write-ahead log, which still holds pages as they were."""
        with self._reading() as db, suppress(sqlite3.OperationalError):
            if db is not None:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def follow(self, from_revision: int) -> Iterator[Revision]:
        """Every revision kept after a number, oldest first, up to the head of now."""
        for number in range(max(from_revision + 1, self.oldest()), self.head() + 1):
            yield self._read(number)

    def oldest(self) -> int:
        """The oldest revision kept, from which on there is no gap."""
        with self._reading() as db:
            return _oldest(db)

    def revisions(self, limit: int | None = None) -> Sequence[RevisionSummary]:
        """Every revision kept, newest first."""
        with self._reading() as db:
            if db is None:
                return []
            rows = db.execute(
                "SELECT number, at, actor, action, subject, restores,"
                " CASE WHEN instr(substr(state, 1, 60), '\"lost\":') THEN state END FROM revision"
                " ORDER BY number DESC LIMIT ?",
                (-1 if limit is None else min(limit, _LARGEST),),
            )
            return [
                RevisionSummary(
                    number,
                    at,
                    actor,
                    action,
                    subject,
                    restores,
                    _lost((number, at, actor, action, subject), state),
                )
                for number, at, actor, action, subject, restores, state in rows
            ]

    def prune(self, keep: int) -> Pruned:
        """Forget all but the newest revisions and attempts."""
        with self._reading() as db:
            if db is None:
                return Pruned(1)
        with self._writing() as db:
            return pruned(db, keep)

    def view(self) -> View:
        """The head revision, what is applied and the open attempt, all of one moment."""
        with self._reading() as db:
            if db is None:
                return View(NOTHING, {})
            db.execute("BEGIN")
            try:
                head = _head(db)
                row = db.execute(_SELECT_REVISION, (head,)).fetchone()
                revision = NOTHING if row is None else _known(_revision(db, row))
                attempt = open_attempt(db)
                newest = db.execute("SELECT COALESCE(MAX(number), 0) FROM attempt").fetchone()[0]
                return View(revision, self._records.of(db, attempt), attempt, int(newest))
            finally:
                if db.in_transaction:  # damage has ended it already
                    db.execute("COMMIT")

    @contextmanager
    def applying(self, actor: str, *, wait: float = 0.0) -> Iterator[None]:
        """Keep every other apply of this stack away."""
        host = self.host()
        if host is not None and host.pid != os.getpid():
            raise ApplyBusy(_hosted_elsewhere(host))
        with ExitStack() as held:
            with self._failures():
                _prepare_folder(self.path.parent)
                held.enter_context(lock.exclusive(self._lock_path, actor, wait=wait))
            yield

    @contextmanager
    def hosting(self, address: str) -> Iterator[None]:
        """Be the one process that hosts this stack, at an address for people."""
        with ExitStack() as held:
            with self._failures():
                _prepare_folder(self.path.parent)
                try:
                    held.enter_context(lock.exclusive(self._host_path, address))
                except ApplyBusy as error:
                    host = self.host()
                    raise ApplyBusy(_hosted_elsewhere(host) if host else str(error)) from error
            yield

    def host(self) -> Holder | None:
        """The process that hosts this stack; its `actor` is the address."""
        with self._failures():
            return lock.holder(self._host_path)

    def ended(self, providers: Collection[str]) -> None:
        """Forget what these providers run with: the process that they lived in has ended."""
        with self._writing() as db:
            db.executemany("DELETE FROM applied WHERE provider = ?", [(each,) for each in providers])

    def holder(self) -> Holder | None:
        """Who is applying now."""
        with self._failures():
            return lock.holder(self._lock_path)

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.apply-lock")

    @property
    def _host_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.host-lock")

    def begin(self, revision: int, actor: str, steps: Sequence[JournalStep]) -> int:
        """Write down an attempt and its targets before anything is touched; its number."""
        now = self._now()
        with self._writing() as db:
            _end_cut_off(db, self._records, now)
            cursor = db.execute(
                "INSERT INTO attempt (revision, begun_at, state, actor, report, touched)"
                " VALUES (?, ?, 'begun', ?, '{}', ?)",
                (revision, now, actor, min(1, len(steps))),
            )
            number = int(cursor.lastrowid or 0)
            for position, step in enumerate(steps):
                named = (step.provider.api, step.provider.provider_id, step.provider.provider_type)
                row = (number, position, *named, step.kind, json.dumps(step.target))
                db.execute("INSERT INTO step VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            if self.keep is not None:
                pruned(db, self.keep)
            return number

    def touch(self, attempt: int, position: int) -> None:
        """Write down that a step begins; those before it are done."""
        with self._writing() as db:
            db.execute("UPDATE attempt SET touched = ? WHERE number = ?", (position + 1, attempt))

    def undo(self, attempt: int) -> None:
        """Write down that an attempt begins to take back what it did."""
        with self._writing() as db:
            db.execute("UPDATE attempt SET undoing = 1 WHERE number = ?", (attempt,))

    def finish(
        self, attempt: int, report: Report, applied: Mapping[str, AppliedRecord], left: Sequence[str]
    ) -> None:
        """Write down how an attempt ended, in one transaction."""
        now = self._now()
        outcomes = [outcome_data(outcome) for outcome in report.outcomes]
        with self._writing() as db:
            db.execute(
                "UPDATE attempt SET finished_at = ?, state = ?, report = ? WHERE number = ?",
                (now, report.state, json.dumps({"outcomes": outcomes}), attempt),
            )
            for outcome in sorted(outcomes, key=lambda each: each["state"] == "unknown"):
                values = (
                    outcome["provider"],
                    "restored" if restored_by(outcome) else outcome["state"],
                    attempt,
                    report.revision,
                    outcome["error"],
                    now,
                )
                db.execute("INSERT OR REPLACE INTO status VALUES (?, ?, ?, ?, ?, ?)", values)
            for key, record in applied.items():
                _record(db, key, record, now)
            for key in left:
                db.execute("DELETE FROM applied WHERE provider = ?", (key,))
                db.execute("DELETE FROM status WHERE provider = ?", (key,))
            db.execute("DELETE FROM step WHERE attempt = ?", (attempt,))

    def applied(self) -> Mapping[str, AppliedRecord]:
        """What is applied, by provider key."""
        with self._reading() as db:
            return {} if db is None else self._records.of(db, open_attempt(db))

    def attempts(self, limit: int | None = None) -> Sequence[Attempt]:
        """Every attempt kept, newest first."""
        with self._reading() as db:
            if db is None:
                return []
            rows = db.execute(
                "SELECT number, revision, begun_at, finished_at, state, actor, report FROM attempt"
                " ORDER BY number DESC LIMIT ?",
                (-1 if limit is None else min(limit, _LARGEST),),
            )
            return [_attempt(row) for row in rows]

    def status(self) -> Mapping[str, Status]:
        """How the last attempt left each provider."""
        with self._reading() as db:
            if db is None:
                return {}
            rows = db.execute("SELECT provider, state, attempt, revision, error, at FROM status")
            return {row[0]: Status(*row) for row in rows}

    def ensure(self) -> None:
        """Make the file if there is none, and in it the key of the digests."""
        with self._lock, self._failures():
            self._connected(create=True)

    def digest_key(self) -> bytes:
        """The random key of this store's secret digests; a passing one where there is no store."""
        with self._reading() as db:
            if db is None:
                return self._ephemeral_key
            if self._digest_key is None:
                with decoding("the key of its digests"):
                    self._digest_key = self._stored_digest_key(db)
            return self._digest_key

    def identity(self) -> str:
        """A name for this store that no other has. It stays when the digest key is sealed, or lost."""
        with self._reading() as db:
            name = None if db is None else identity_of(db)
            return _named_after(self.digest_key()) if name is None else name

    def _stored_digest_key(self, db: sqlite3.Connection) -> bytes:
        sealed = _sealed_one(db, DIGEST_KEY)
        if sealed is None:
            return bytes(db.execute(_SELECT_DIGEST_KEY).fetchone()[0])
        if self.guard is None:
            raise StoreError(f"store {self.path}: its digest key is sealed, and nobody gave it the keys")
        return self.guard.unwrap(sealed)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = self._digest_key = None

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        with self._lock, self._failures():
            yield self._connected(create=False)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._failures():
            db = self._connected(create=True)
            assert db is not None  # noqa: S101 (created if it was not there)
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # a full disk has rolled back already
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error, ValueError, Unreadable) as error:
            raise store_error(self.path, error, waited=busy_seconds()) from error

    def _now(self) -> str:
        now = self._clock().astimezone(UTC).isoformat(timespec="milliseconds")
        return now.replace("+00:00", "Z")

    def _connected(self, *, create: bool) -> sqlite3.Connection | None:
        if self._connection is not None and _identity(self.path) != self._identity:
            self.close()  # recovered, or put back from a copy: what is open is another file by now
        if self._connection is None:
            refuse_torn(self.path)
            if not self.path.exists() and not create:
                return None
            self._connection = self._open()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        if self.path.is_dir():
            raise StoreError(f"store {self.path} is a folder; give a file")
        _prepare_folder(self.path.parent)
        # A file that is there is not opened but by SQLite: to close it would drop its locks.
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        while True:
            identity = _identity(self.path)
            db = sqlite3.connect(
                self.path, timeout=busy_seconds(), isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(db)
            except BaseException:
                db.close()
                raise
            if _identity(self.path) == identity:
                self._identity = identity
                return db
            db.close()  # it was replaced at this very moment

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Make it a store of this version, patiently: while other processes do the same, SQLite may
        answer that it is locked without waiting.
        """
        until = monotonic() + busy_seconds()
        while True:
            try:
                self._recognise(db)
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA secure_delete = ON")
                self._migrate(db)
            except sqlite3.OperationalError as error:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > until:
                    raise
                sleep(0.01)
            else:
                return

    def _recognise(self, db: sqlite3.Connection) -> None:
        """Refuse a file that is not ours, before anything is written to it."""
        db.execute("BEGIN")  # one moment: another process may be creating it
        used = db.execute("SELECT 1 FROM sqlite_schema").fetchone() is not None
        ours = db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        version = db.execute("PRAGMA user_version").fetchone()[0]
        db.execute("COMMIT")
        if used and not ours:
            if _was_ours(db):
                raise StoreDamaged(self.path, "is damaged: the mark in its header is another program's")
            raise StoreError(f"store {self.path} is a database, but not a store of stackconf; give another")
        if version > SCHEMA_VERSION:
            if version > SCHEMA_VERSION + _FEW and _was_ours(db):
                raise StoreDamaged(self.path, "is damaged: the version in its header cannot be right")
            raise StoreError(f"store {self.path} was written by a newer stackconf; update stackconf")

    def _migrate(self, db: sqlite3.Connection) -> None:
        if db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION:
            return
        db.execute("BEGIN IMMEDIATE")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        make_schema(db, since=max(0, version))
        if version == 0:
            db.execute("INSERT INTO meta VALUES ('digest-key', ?)", (self._ephemeral_key,))
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")


def _hosted_elsewhere(host: Holder) -> str:
    at = f" at {host.actor}" if host.actor else ""
    option = f"--url {host.actor}" if host.actor else "--url"
    return f"this stack is hosted by process {host.pid}{at}; apply there: `stackconf {option} apply`"


def busy_seconds() -> float:
    """How long a writer waits for another, in seconds."""
    return seconds_from("STACKCONF_STORE_TIMEOUT", BUSY_SECONDS)


def schema_of(db: sqlite3.Connection) -> set[tuple[str, str]]:
    """The tables, indexes and triggers of a database, each with its definition."""
    rows = db.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    return {(str(name), str(sql)) for name, sql in rows}


def make_schema(db: sqlite3.Connection, *, since: int = 0) -> None:
    """Make the tables, from an earlier version or from nothing."""
    for schema in _SCHEMAS[since:]:
        for statement in _statements(schema):
            db.execute(statement)


def _was_ours(db: sqlite3.Connection) -> bool:
    """Whether a database has exactly the tables of this version, whatever its header says."""
    fresh = sqlite3.connect(":memory:")
    try:
        make_schema(fresh)
        return schema_of(db) == schema_of(fresh)
    finally:
        fresh.close()


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one of the same name."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


_SELECT_STORE_ID = "SELECT value FROM meta WHERE key = 'store-id'"
_SELECT_DIGEST_KEY = "SELECT value FROM meta WHERE key = 'digest-key'"
_SELECT_APPLIED = "SELECT provider, api, provider_id, provider_type, revision, snapshot, at FROM applied"
_SELECT_REVISION = "SELECT number, at, actor, action, subject, state, restores FROM revision WHERE number = ?"


def _prepare_folder(folder: Path) -> None:
    """The store's own folder keeps itself out of version control."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)  # another process may make it just now
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.strip().splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _head(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT COALESCE(MAX(number), 0) FROM revision").fetchone()[0])


def _oldest(db: sqlite3.Connection | None) -> int:
    return 1 if db is None else int(db.execute("SELECT oldest FROM retention").fetchone()[0])


def _lost(head: Sequence[Any], state: str | None) -> str:
    return "" if state is None else str(stored_state(head, state).get("lost", ""))


def _attempt(row: tuple[Any, ...]) -> Attempt:
    number, revision, begun, finished, state, actor, report = row
    return Attempt(number, revision, begun, finished, state, actor, _mapping(report, f"attempt {number}"))


def open_attempt(db: sqlite3.Connection) -> OpenAttempt | None:
    """The attempt that has begun and not ended, if there is one."""
    row = db.execute(
        "SELECT number, revision, begun_at, actor, undoing, touched FROM attempt"
        " WHERE finished_at IS NULL ORDER BY number DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return None
    number, revision, begun_at, actor, undoing, touched = row
    rows = db.execute(
        "SELECT api, provider_id, provider_type, kind, target FROM step WHERE attempt = ? ORDER BY position",
        (number,),
    )
    steps = tuple(
        JournalStep(Provider(api, provider_id, provider_type), kind, _mapping(target, f"attempt {number}"))
        for api, provider_id, provider_type, kind, target in rows
    )
    return OpenAttempt(number, revision, begun_at, actor, bool(undoing), steps, steps[:touched])


class _Records:
    """What is applied, as objects: a row that says what it said before is the object that it was before.

    The text of the row itself is compared, so that it does not matter who wrote it, and when.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple[Any, ...], AppliedRecord]] = {}

    def of(self, db: sqlite3.Connection, attempt: OpenAttempt | None) -> dict[str, AppliedRecord]:
        """The records by key; those that an open attempt has touched are unknown."""
        before = self._kept
        self._kept = {}
        for row in db.execute(_SELECT_APPLIED):
            kept = before.get(row[0])
            self._kept[row[0]] = (row, _record_of(row)) if kept is None or kept[0] != row else kept
        records = {key: record for key, (_, record) in self._kept.items()}
        for step in attempt.touched if attempt else ():
            key = place_of(step.provider, records)
            records[key] = unknown(step.provider, records.get(key), step.target)
        return records


def _record_of(row: tuple[Any, ...]) -> AppliedRecord:
    key, api, provider_id, provider_type, revision, snapshot, at = row
    provider = Provider(api, provider_id, provider_type)
    return AppliedRecord(provider, revision, _mapping(snapshot, f"what is applied to {key}"), at)


def _end_cut_off(db: sqlite3.Connection, kept: _Records, now: str) -> None:
    """End the attempt that its process did not; what it had touched is unknown from now on."""
    attempt = open_attempt(db)
    if attempt is None:
        return
    records = kept.of(db, attempt)
    for place in dict.fromkeys(place_of(step.provider, records) for step in attempt.touched):
        _record(db, place, records[place], now)
    why = f"attempt {attempt.number} was cut off while it was at work here"
    for key in dict.fromkeys(step.provider.key for step in attempt.touched):
        row = (key, "unknown", attempt.number, attempt.revision, why, now)
        db.execute("INSERT OR REPLACE INTO status VALUES (?, ?, ?, ?, ?, ?)", row)
    db.execute("UPDATE attempt SET finished_at = ?, state = 'cut_off' WHERE finished_at IS NULL", (now,))
    db.execute("DELETE FROM step")


def _record(db: sqlite3.Connection, key: str, record: AppliedRecord, now: str) -> None:
    provider = record.provider
    row = (key, provider.api, provider.provider_id, provider.provider_type, record.revision, now)
    values = (*row, json.dumps(record.snapshot))
    db.execute("INSERT OR REPLACE INTO applied VALUES (?, ?, ?, ?, ?, ?, ?)", values)


def _stored(db: sqlite3.Connection, state: State) -> dict[str, Any]:
    """The configurations by digest; each body is kept once, however many revisions hold it."""
    kept = {}
    for name, configuration in state.configurations.items():
        digest = configuration.digest  # what cannot be read stays what it is
        if not configuration.problem:
            body = json.dumps(configuration.providers, sort_keys=True)
            digest = digest_of(body)
            db.execute("INSERT OR IGNORE INTO document VALUES (?, ?)", (digest, body))
        kept[name] = {"digest": digest, "source": configuration.source, "revision": configuration.revision}
    return kept


def digest_of(body: str) -> str:
    """The name under which a document is kept."""
    return hashlib.sha256(body.encode()).hexdigest()


def _revision(db: sqlite3.Connection, row: tuple[Any, ...]) -> Revision:
    number, at, actor, action, subject, body, restores = row
    stored = stored_state(row[:5], body)
    if "lost" in stored:
        return Revision(number, at, actor, action, subject, State(), stored["lost"], restores)
    configurations = {}
    for name, kept in stored["configurations"].items():
        digest = kept["digest"]
        found = db.execute("SELECT body FROM document WHERE digest = ?", (digest,)).fetchone()
        providers, problem = _document(None if found is None else found[0], digest)
        configurations[name] = Configuration(
            name, providers, kept["source"], kept["revision"], problem, digest
        )
    state = State(configurations, tuple(stored["assigned"]))
    return Revision(number, at, actor, action, subject, state, restores=restores)


def _known(revision: Revision) -> Revision:
    if revision.lost:
        raise RevisionLost(revision.number, revision.lost)
    return revision


def with_check(head: Sequence[Any], body: str) -> str:
    """A revision's state with a check of it and of the columns before it, as its first key.

    >>> with_check((1, "", "me", "register", "a"), '{"assigned": []}')
    '{"check": "65d2249ee0091f58", "assigned": []}'
    """
    return f'{_SEAL}{_check(head, body)}", {body[1:]}'


_DIGEST_BYTES = 32
_SEAL = '{"check": "'
_CHECKED = slice(len(_SEAL), len(_SEAL) + 16)


def without_check(text: str) -> str:
    """A revision's state without its check."""
    return "{" + text[_CHECKED.stop + 3 :] if text.startswith(_SEAL) else text


def _check(head: Sequence[Any], body: str) -> str:
    return digest_of(json.dumps([*head]) + body)[:16]


def stored_state(head: Sequence[Any], text: Any) -> dict[str, Any]:
    """What a revision holds: `configurations` by name, and the names `assigned`; or `lost`, which
    says why nobody knows. `head` are the columns before it. Raises `Unreadable` when it is anything
    else, or not what was written.
    """
    what = f"revision {head[0]}"
    data = _mapping(text, what)
    with decoding(what):
        if not text.startswith((_SEAL, '{"configurations"', '{"lost"')):
            raise ValueError(what)
        if text.startswith(_SEAL) and text[_CHECKED] != _check(head, without_check(text)):
            raise ValueError(what)
        if "lost" in data:
            return {"lost": str(data["lost"])}
        configurations, assigned = data["configurations"], data["assigned"]
        for kept in configurations.values():
            if len(bytes.fromhex(kept["digest"])) != _DIGEST_BYTES or not isinstance(kept["source"], str):
                raise TypeError(kept)
            int(kept["revision"])
        if not isinstance(assigned, list) or not set(assigned) <= configurations.keys():
            raise ValueError(assigned)
    return data


def _document(body: Any, digest: str) -> tuple[Mapping[str, Any], str]:
    """What a configuration says, or why that cannot be told."""
    if body is None:
        return {}, "its text is lost"
    try:
        if digest_of(body) != digest:
            return {}, "its text was changed in the store by hand or by damage (its digest is another)"
        providers = json.loads(body)
        for entries in providers.values():
            for entry in entries:
                if not isinstance(entry["provider_id"], str) or not isinstance(entry["config"], dict):
                    return {}, "its text has not the shape of a configuration"
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return {}, "its text cannot be read"
    return providers, ""


def _mapping(text: Any, what: str) -> dict[str, Any]:
    with decoding(what):
        data = json.loads(text)
        if not isinstance(data, dict):
            raise TypeError(data)
        return data


def identity_of(db: sqlite3.Connection) -> str | None:
    """A store's name, as far as it can be told without the keys of its secrets."""
    row = db.execute(_SELECT_STORE_ID).fetchone()
    if row is not None:
        return str(row[0])
    key = db.execute(_SELECT_DIGEST_KEY).fetchone()
    return None if key is None else _named_after(bytes(key[0]))


def _named_after(digest_key: bytes) -> str:
    from stackconf.planfile import store_id

    return store_id(digest_key)


def _insert_sealed(db: sqlite3.Connection, sealed: Mapping[str, SealedSecret], now: str) -> None:
    rows = [(identity, each.token, each.key, now) for identity, each in sealed.items()]
    db.executemany("INSERT OR REPLACE INTO secret VALUES (?, ?, ?, ?)", rows)


def _sealed(db: sqlite3.Connection) -> dict[str, SealedSecret]:
    rows = db.execute("SELECT id, token, key FROM secret ORDER BY id")
    return {identity: SealedSecret(bytes(token), key) for identity, token, key in rows}


def _sealed_one(db: sqlite3.Connection, identity: str) -> SealedSecret | None:
    row = db.execute("SELECT token, key FROM secret WHERE id = ?", (identity,)).fetchone()
    return None if row is None else SealedSecret(bytes(row[0]), row[1])


def _referred(db: sqlite3.Connection) -> frozenset[str]:
    """The ids of sealed secrets that any kept document refers to."""
    found: set[str] = set()
    for (body,) in db.execute("SELECT body FROM document"):
        found.update(sealed_ids(body))
    return frozenset(found)
