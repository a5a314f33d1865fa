"""Every row that SQLite can still read of a damaged store, and whether it is what was written.

A table is read from both ends up to where it is broken, and then key by key in between. What has a
digest is verified by it. The files read here are copies: nothing is written to the damaged store.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from time import monotonic
from typing import Any, TypeAlias

from attrs import define, field, frozen

from stackconf.resolve.references import sealed_ids
from stackconf.store.base import DIGEST_KEY
from stackconf.store.sqlite import (
    APPLICATION_ID,
    digest_of,
    make_schema,
    schema_of,
    stored_state,
    without_check,
)
from stackconf.store.trouble import Unreadable

Key: TypeAlias = tuple[Any, ...]
Row: TypeAlias = dict[str, Any]

_LONGEST = 60.0
"""Seconds for one table: a damaged one may lead in circles."""
_PROBED = 2000
"""How many numbers are asked for beyond the newest that was found."""
_HEADER = 100
_PAGE = 4096
_MAGIC = b"SQLite format 3\x00"


@frozen
class Table:
    """A table of the schema: its columns with their declared types, and those of its primary key."""

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]


@define
class Pieces:
    """What could be read, by table and key. `broken` are the tables that could not be read through.

    `doubtful` are revisions that read well and are not quite what was written, by number.
    """

    rows: dict[str, dict[Key, Row]] = field(factory=dict)
    broken: dict[str, str] = field(factory=dict)
    doubtful: dict[int, Row] = field(factory=dict)

    def of(self, table: str) -> dict[Key, Row]:
        """The rows of one table by key."""
        return self.rows.setdefault(table, {})


def tables() -> dict[str, Table]:
    """The tables of the schema."""
    with closing(sqlite3.connect(":memory:")) as db:
        make_schema(db)
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: _table(db, name) for name in names}


def _table(db: sqlite3.Connection, name: str) -> Table:
    info = db.execute(f"PRAGMA table_info({name})").fetchall()
    key = [(row[5], row[1]) for row in info if row[5]]
    return Table(name, {row[1]: row[2] for row in info}, tuple(column for _, column in sorted(key)))


def read_pieces(copies: Iterable[Path], more: Mapping[str, Iterable[Key]]) -> Pieces:
    """All that can be read of a store from copies of it; the first that has a row is believed.

    `more` are keys to ask for, by table, that are known from elsewhere.
    """
    pieces = Pieces()
    known = sorted(tables().values(), key=lambda table: table.name != "revision")  # it names documents
    for copy in copies:
        first = not pieces.rows
        for table in known:
            if first or table.name in pieces.broken:
                _read_table(copy, table, pieces, more, whole=first or table.name in _IMMUTABLE)
        if not pieces.broken:
            break
    return pieces


BARE = "bare"
"""The name of the copy that lacks the write-ahead log, and with it the newest rows."""

_IMMUTABLE = {"meta", "document", "revision", "attempt"}
"""Tables of which an older copy has nothing that is wrong by now."""


def _read_table(
    copy: Path, table: Table, pieces: Pieces, more: Mapping[str, Iterable[Key]], *, whole: bool
) -> None:
    found = pieces.of(table.name)
    if found and not whole:
        return
    try:
        with closing(_opened(copy)) as db:
            problem = _scan(db, table, found, pieces.doubtful)
            if problem:
                for key in _between(table, pieces, more):
                    if key not in found:
                        _look_up(db, table, key, found, pieces.doubtful)
    except sqlite3.Error as error:
        problem = _said(error)
    if problem:
        pieces.broken.setdefault(table.name, problem)
    elif copy.name != BARE:
        pieces.broken.pop(table.name, None)


def _scan(db: sqlite3.Connection, table: Table, found: dict[Key, Row], doubtful: dict[int, Row]) -> str:
    """Read from the front, and if that breaks off, from the back. What broke it, or ""."""
    problem = ""
    for direction in ("ASC", "DESC"):
        order = ", ".join(f"{column} {direction}" for column in table.key)
        try:
            query = f"SELECT {_columns(db, table)} FROM {table.name} ORDER BY {order}"  # noqa: S608
            for row in db.execute(query):
                problem = _keep(table, row, db, found, doubtful) or problem
        except sqlite3.Error as error:
            problem = _said(error)
        if not problem:
            break
    return problem


def _look_up(
    db: sqlite3.Connection, table: Table, key: Key, found: dict[Key, Row], doubtful: dict[int, Row]
) -> None:
    where = " AND ".join(f"{column} = ?" for column in table.key)
    with suppress(sqlite3.Error, OverflowError):
        query = f"SELECT {_columns(db, table)} FROM {table.name} WHERE {where}"  # noqa: S608 (our names)
        for row in db.execute(query, key):
            _keep(table, row, db, found, doubtful)


def _between(table: Table, pieces: Pieces, more: Mapping[str, Iterable[Key]]) -> Iterator[Key]:
    """The keys that must or may be in a table that cannot be read through."""
    yield from more.get(table.name, ())
    found = pieces.of(table.name)
    if table.columns[table.key[0]] == "INTEGER" and len(table.key) == 1:
        newest = max((key[0] for key in found), default=0)
        yield from ((number,) for number in range(1, newest + _PROBED))
    if table.name == "document":
        for row in [*pieces.of("revision").values()]:
            stored = json.loads(row["state"])
            yield from ((each["digest"],) for each in stored.get("configurations", {}).values())
    if table.name == "meta":
        yield from ((DIGEST_KEY,), ("store-id",))
    if table.name == "secret":
        yield (DIGEST_KEY,)
        for body in [row["body"] for row in pieces.of("document").values()]:
            yield from ((each,) for each in sealed_ids(body))


def _columns(db: sqlite3.Connection, table: Table) -> str:
    """The columns that a table has in an older store too."""
    there = {row[1] for row in db.execute(f"PRAGMA table_info({table.name})")}
    return ", ".join(column for column in table.columns if column in there or not there)


def _keep(
    table: Table,
    values: tuple[Any, ...],
    db: sqlite3.Connection,
    found: dict[Key, Row],
    doubtful: dict[int, Row],
) -> str:
    names = _columns(db, table).split(", ") if len(values) != len(table.columns) else [*table.columns]
    row = dict(zip(names, values, strict=True))
    if is_right(table, row):
        found.setdefault(tuple(row[column] for column in table.key), row)
        return ""
    if table.name == "revision" and isinstance(row["state"], str):
        bare = {**row, "state": without_check(row["state"])}
        if is_right(table, bare):
            doubtful.setdefault(row["number"], bare)
    return "a row is not what was written"


def is_right(table: Table, row: Row) -> bool:
    """Whether a row is what a stackconf writes, as far as types, digests and JSON tell."""
    kinds: dict[str, Any] = {"INTEGER": int, "TEXT": str, "BLOB": (bytes, str)}
    for column, value in row.items():
        nullable = column in {"finished_at", "restores"}
        if not isinstance(value, kinds.get(table.columns[column], object)) and not (
            nullable and value is None
        ):
            return False
    check = _CHECKS.get(table.name)
    try:
        return check is None or check(row)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, Unreadable):
        return False


def _is_revision(row: Row) -> bool:
    head = [row[column] for column in ("number", "at", "actor", "action", "subject")]
    return row["number"] > 0 and bool(stored_state(head, row["state"]))


def has_digest_key(meta: Iterable[Row], secret: Iterable[Row]) -> bool:
    """Whether the key of a store's digests is there, in the clear or sealed."""
    return any(row["key"] == DIGEST_KEY for row in meta) or any(row["id"] == DIGEST_KEY for row in secret)


def lost_documents(meta: Iterable[Row]) -> set[str]:
    """The digests of documents that an earlier recovery could not read."""
    return {
        digest for row in meta if row["key"] == LOST_DOCUMENTS for digest in row["value"].decode().split()
    }


def oldest_revision(meta: Iterable[Row]) -> int:
    """The revision from which on none was pruned."""
    return next((int(row["value"]) for row in meta if row["key"] == "oldest_revision"), 1)


LOST_DOCUMENTS = "lost-documents"
"""The key in `meta` of the digests of documents that were lost."""


def _is_json(column: str) -> Callable[[Row], bool]:
    return lambda row: isinstance(json.loads(row[column]), dict)


_CHECKS: dict[str, Callable[[Row], bool]] = {
    "meta": lambda row: row["key"] != DIGEST_KEY or len(row["value"]) == 32,  # noqa: PLR2004 (bytes)
    "document": lambda row: digest_of(row["body"]) == row["digest"],
    "revision": _is_revision,
    "attempt": _is_json("report"),
    "applied": lambda row: (
        row["provider"].startswith(f"{row['api']}/{row['provider_id']}") and _is_json("snapshot")(row)
    ),
    "status": lambda row: "/" in row["provider"],
    "step": _is_json("target"),
    "secret": lambda row: bool(row["id"] and row["token"]),
}
KNOWN = frozenset(_CHECKS)
"""The tables whose rows are verified here. Another one in the schema needs its own line above."""


def _opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.text_factory = _text
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA cell_size_check = ON")
    until = monotonic() + _LONGEST
    db.set_progress_handler(lambda: monotonic() > until, 100_000)
    return db


def _text(raw: bytes) -> object:
    """Text, or bytes where it is none, which no check lets pass."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def _said(error: sqlite3.Error) -> str:
    return " ".join(str(error).split())


def is_of_another_program(path: Path) -> bool:
    """Whether a file is a sound database that was never a store. Asked of a copy."""
    try:
        with closing(sqlite3.connect(path)) as db:
            mark = db.execute("PRAGMA application_id").fetchone()[0]
            names = {name for name, _ in schema_of(db)}
            return bool(names) and mark != APPLICATION_ID and not names & KNOWN
    except sqlite3.Error:
        return False


def has_tables(path: Path) -> bool:
    """Whether SQLite finds our tables in a copy of a store."""
    try:
        with closing(sqlite3.connect(path)) as db:
            return {name for name, _ in schema_of(db)} >= KNOWN
    except sqlite3.Error:
        return False


def with_header(path: Path, to: Path) -> bool:
    """Write a copy of a store whose first page is that of a new one; whether there was reason to.

    The tables of every store of a version begin at the same pages. Where that does not hold, the
    rows are not what they should be, and none is taken.
    """
    data = path.read_bytes()
    if len(data) < 2 * _PAGE:
        return False
    fresh = to.with_name("fresh")
    with closing(sqlite3.connect(fresh, isolation_level=None)) as db:
        make_schema(db)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    first = bytearray(fresh.read_bytes()[:_PAGE])
    fresh.unlink()
    if data[:16] != _MAGIC and any(data[_HEADER:_PAGE]):  # only the header is gone
        first[_HEADER:] = data[_HEADER:_PAGE]
    first[28:32] = (len(data) // _PAGE).to_bytes(4, "big")  # pages in all
    first[32:40] = bytes(8)  # no free pages are known
    first[92:96] = first[24:28]  # the count of pages is valid
    to.write_bytes(bytes(first) + data[_PAGE:])
    return True
