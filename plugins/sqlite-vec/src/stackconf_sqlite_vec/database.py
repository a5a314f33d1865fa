"""A sqlite file with the vec0 extension, opened with a provider's settings.

Many Pythons are built without extension loading (`sqlite3.Connection` has no
`enable_load_extension`); there apsw is used, which brings a SQLite of its own.

Two copies of SQLite in one process must not have the same file open at the same time: when one
closes it, the other's locks are gone (https://www.sqlite.org/howtocorrupt.html, section 2.2.1). So
a file opened here is opened here only, never beside it through `sqlite3`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from attrs import frozen

from stackconf import Holder
from stackconf_storage import StoreUnusable, existing_database

Row: TypeAlias = tuple[Any, ...]

_KIB = 1024
_BUSY, _LOCKED = 5, 6


class DatabaseLocked(StoreUnusable):
    """Another process, or another connection, holds a lock that is needed."""


@frozen
class Settings:
    """What governs one connection. `None` leaves SQLite's own choice.

    `cache_bytes`, `mmap_bytes` and `busy_timeout_ms` live as long as the connection.
    """

    cache_bytes: int | None = None
    mmap_bytes: int | None = None
    busy_timeout_ms: int = 5000
    insert_batch_size: int = 500


class Database:
    """One connection. Every method raises `StoreUnusable` with the file's path when SQLite refuses."""

    def __init__(self, connection: Any, path: Path, library: str, settings: Settings) -> None:
        self._connection = connection
        self._path = path
        self.library = library
        self.settings = settings

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """Run one statement and return its rows."""
        with _named(self._path):
            return list(self._connection.cursor().execute(sql, tuple(values)))

    def value(self, sql: str, values: Sequence[object] = ()) -> Any:
        """The first column of the first row, or `None`."""
        rows = self.rows(sql, values)
        return rows[0][0] if rows else None

    def insert(self, sql: str, rows: Iterable[Sequence[object]]) -> int:
        """Run `sql` for every row, `insert_batch_size` at a time, all or none; returns how many."""
        count, source = 0, iter(rows)
        self.rows("BEGIN IMMEDIATE")
        try:
            while batch := list(islice(source, self.settings.insert_batch_size)):
                with _named(self._path):
                    self._connection.cursor().executemany(sql, batch)
                count += len(batch)
            self.rows("COMMIT")
        except BaseException:
            # After some failures, such as a full disk, SQLite has rolled back already.
            if self._connection.in_transaction:
                self.rows("ROLLBACK")
            raise
        return count

    def close(self) -> None:
        """Close the connection."""
        with _named(self._path):
            self._connection.close()


@contextmanager
def connect(path: Path, settings: Settings) -> Iterator[Database]:
    """Open an existing file with vec0 loaded and the connection's settings in force.

    Raises `StoreUnusable`; `DatabaseLocked` where somebody else holds a lock for longer than
    `busy_timeout_ms`.
    """
    database = _opened(path, settings)
    try:
        # Reads the header, so that a file that is no database is refused before any change.
        database.rows("SELECT count(*) FROM sqlite_master")
        for pragma in _pragmas(settings):
            database.rows(f"PRAGMA {pragma}")
        yield database
    finally:
        database.close()


def settings_of(provider_key: str) -> Settings | None:
    """The settings applied in this process for `vector_io/sqlite-vec` (or another id), if any."""
    return held.current(provider_key)


held: Holder[Settings] = Holder()
"""The settings of each provider of this process."""


def _pragmas(settings: Settings) -> Iterator[str]:
    yield f"busy_timeout = {settings.busy_timeout_ms}"
    if settings.cache_bytes is not None:
        # A negative number counts KiB, a positive one pages.
        yield f"cache_size = -{settings.cache_bytes // _KIB}"
    if settings.mmap_bytes is not None:
        yield f"mmap_size = {settings.mmap_bytes}"


def not_in_force(database: Database) -> str | None:
    """Which of the settings SQLite did not take over, read back from the connection; or `None`.

    Not the map: a SQLite built with a lower limit gives less, which costs speed only.
    """
    wanted = {
        "busy_timeout": database.settings.busy_timeout_ms,
        "cache_size": _negative_kib(database.settings.cache_bytes),
    }
    for pragma, value in wanted.items():
        found = database.value(f"PRAGMA {pragma}")
        if value is not None and found != value:
            return f"{pragma} is {found} instead of {value}"
    return None


def _negative_kib(amount: int | None) -> int | None:
    return None if amount is None else -(amount // _KIB)


def _opened(path: Path, settings: Settings) -> Database:
    from sqlite3 import Connection

    if hasattr(Connection, "enable_load_extension"):
        return _with_sqlite3(path, settings)
    return _with_apsw(path, settings)


def _with_sqlite3(path: Path, settings: Settings) -> Database:
    import sqlite3

    with _named(path):
        connection = sqlite3.connect(
            existing_database(path),
            uri=True,
            timeout=settings.busy_timeout_ms / 1000,
            isolation_level=None,
        )
    _load_vec(connection, path)
    return Database(connection, path, f"sqlite3 (SQLite {sqlite3.sqlite_version})", settings)


def _with_apsw(path: Path, settings: Settings) -> Database:
    apsw = _module("apsw", "apsw")
    with _named(path):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(settings.busy_timeout_ms)
    _load_vec(connection, path)
    library = f"apsw (SQLite {apsw.sqlite_lib_version()}; this Python's sqlite3 loads no extensions)"
    return Database(connection, path, library, settings)


def _module(name: str, distribution: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise StoreUnusable(f"{name} cannot be imported: {error}; install {distribution}") from None


def _load_vec(connection: Any, path: Path) -> None:
    vec = _module("sqlite_vec", "sqlite-vec")
    try:
        with _named(path):
            connection.enable_load_extension(True)
            connection.load_extension(vec.loadable_path())
            connection.enable_load_extension(False)
    except BaseException:
        connection.close()
        raise


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn either library's exceptions into one line with the file's path."""
    try:
        yield
    except StoreUnusable:
        raise
    except Exception as error:
        code = _result_code(error)
        if code is None:
            raise
        if code in {_BUSY, _LOCKED}:
            raise DatabaseLocked(f"{path} is locked by another process") from None
        raise StoreUnusable(f"cannot use {path}: {error}") from None


def _result_code(error: Exception) -> int | None:
    """SQLite's primary result code; `None` for an exception that is not the library's."""
    import sqlite3

    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 1) & 0xFF
    code = getattr(error, "result", None)
    return code & 0xFF if isinstance(code, int) else None
