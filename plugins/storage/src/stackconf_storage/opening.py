"""Opening a store for real, as far as that goes without its driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote, urlsplit

from stackconf import Applied
from stackconf_storage.config import (
    KVStoreReference,
    MongoDBKVStoreConfig,
    PostgresKVStoreConfig,
    PostgresSqlStoreConfig,
    RedisKVStoreConfig,
    SqliteKVStoreConfig,
    SqliteSqlStoreConfig,
    SqlStoreReference,
)
from stackconf_storage.files import Place, StoreUnusable, claim, existing_database, expanded

if TYPE_CHECKING:
    from pathlib import Path

AnyStore: TypeAlias = (
    RedisKVStoreConfig
    | SqliteKVStoreConfig
    | PostgresKVStoreConfig
    | MongoDBKVStoreConfig
    | SqliteSqlStoreConfig
    | PostgresSqlStoreConfig
    | KVStoreReference
    | SqlStoreReference
)

REACH_SECONDS = 2.0
LOCK_SECONDS = 2.0


def open_check(store: AnyStore) -> Applied:
    """Open a store, and give back what a provider's `apply_config` needs to say about it.

    A sqlite file is made where it is missing and proven writable; `undo` removes what was made,
    if it is still empty. A server is only reached for (a TCP connection, nothing is sent); one
    that cannot be reached gives `pending`. A reference is the storage section's business.
    Raises `StoreUnusable`.

    >>> open_check(KVStoreReference(backend="kv_default", namespace="agents")).detail
    "namespace `agents` of backend `kv_default`, which the stack's storage section keeps"
    """
    if isinstance(store, KVStoreReference | SqlStoreReference):
        part = (
            f"namespace `{store.namespace}`"
            if isinstance(store, KVStoreReference)
            else f"table `{store.table_name}`"
        )
        return Applied(f"{part} of backend `{store.backend}`, which the stack's storage section keeps")
    if isinstance(store, SqliteKVStoreConfig | SqliteSqlStoreConfig):
        return open_sqlite(expanded(store.db_path))
    return _reach(store)


def open_checks(stores: Mapping[str, AnyStore | None]) -> Applied:
    """Open several stores, all or none: `open_check` for each name that has one.

    When one is unusable, or cannot be reached, those opened before are undone. `undo` and `check`
    of the result cover all of them; the detail and every complaint name the store.
    """
    done: list[tuple[str, Applied]] = []
    with ExitStack() as undo:
        for name, store in stores.items():
            if store is None:
                continue
            try:
                opened = open_check(store)
            except StoreUnusable as error:
                raise StoreUnusable(f"{name}: {error}") from None
            if opened.pending is not None:
                return Applied(pending=f"{name}: {opened.pending}")
            if opened.undo is not None:
                undo.callback(opened.undo)
            done.append((name, opened))
        taken = undo.pop_all()

    def check() -> str | None:
        for name, opened in done:
            wrong = opened.check() if opened.check is not None else None
            if isinstance(wrong, str):
                return f"{name}: {wrong}"
        return None

    detail = "; ".join(f"{name}: {opened.detail}" for name, opened in done)
    return Applied(detail, undo=taken.close, check=check)


def open_sqlite(path: Path) -> Applied:
    """Make and open a sqlite file, and prove that it can be written.

    The proof is a real write that is rolled back, so an existing file keeps its content. A file
    that another process keeps locked is `pending`. Raises `StoreUnusable`.
    """
    place = claim(path)
    try:
        _try_writing(path)
    except _Locked as error:
        place.give_back()
        return Applied(pending=str(error))
    except StoreUnusable:
        place.give_back()
        raise
    return Applied(
        f"sqlite file {path}, {'made' if place.made_file else 'found'} and writable",
        undo=place.give_back,
        check=lambda: _complaint(place),
    )


class _Locked(StoreUnusable):
    """Another process holds the file's lock."""


def _try_writing(path: Path) -> None:
    import sqlite3

    address = existing_database(path)
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=LOCK_SECONDS, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            # Setting user_version is the smallest write that reaches the journal; the rollback
            # takes it back.
            (version,) = db.execute("PRAGMA user_version").fetchone()
            db.execute(f"PRAGMA user_version = {int(version)}")
            db.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise _Locked(f"{path} is locked by another process") from None
        raise StoreUnusable(f"cannot write {path}: {error}") from None
    except sqlite3.DatabaseError as error:
        raise StoreUnusable(f"cannot use {path}: {error}") from None


def _complaint(place: Place) -> str | None:
    if not place.path.exists():
        return f"{place.path} is gone"
    try:
        _try_writing(place.path)
    except StoreUnusable as error:
        return str(error)
    return None


_Server: TypeAlias = (
    RedisKVStoreConfig | PostgresKVStoreConfig | MongoDBKVStoreConfig | PostgresSqlStoreConfig
)


def _reach(store: _Server) -> Applied:
    kind = store.type.removeprefix("kv_").removeprefix("sql_")
    ends = _ends(store)
    names = ", ".join(f"{host}:{port}" for host, port in ends)

    def check() -> str | None:
        refusals = [_refusal(host, port) for host, port in ends]
        if None in refusals:
            return None
        return f"cannot reach {kind} at {names}: {refusals[0]}"

    wrong = check()
    if wrong is not None:
        return Applied(pending=wrong)
    return Applied(f"{kind} at {names} accepts connections (no login was tried)", check=check)


def _ends(store: _Server) -> list[tuple[str, int]]:
    """Host and port of each server; a connection string may name several."""
    if isinstance(store, PostgresKVStoreConfig | PostgresSqlStoreConfig) and store.connection_string:
        netloc = urlsplit(store.connection_string.get_secret_value()).netloc
        return [_end(part) for part in netloc.rpartition("@")[2].split(",")]
    return [(store.host, store.port)]


def _end(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = text, ""
    return unquote(host).strip("[]") or "localhost", int(port) if port.isdigit() else 5432


def _refusal(host: str, port: int) -> str | None:
    """Why a connection could not be made within `REACH_SECONDS`, or `None`."""
    import socket

    def connect() -> None:
        if not host.startswith("/"):
            socket.create_connection((host, port), timeout=REACH_SECONDS).close()
            return
        with socket.socket(socket.AF_UNIX) as local:
            local.settimeout(REACH_SECONDS)
            # PostgreSQL's own naming of its socket in the folder given as host.
            local.connect(f"{host}/.s.PGSQL.{port}")

    return _within(REACH_SECONDS, connect)


def _within(seconds: float, connect: Callable[[], None]) -> str | None:
    """Run `connect` in a thread, for looking up a name has no timeout of its own."""
    from threading import Thread

    answer: list[str | None] = []

    def run() -> None:
        try:
            connect()
            answer.append(None)
        except OSError as error:
            answer.append((error.strerror or str(error)).lower())

    thread = Thread(target=run, daemon=True, name="reach")
    thread.start()
    thread.join(seconds + 0.1)
    return answer[0] if answer else f"no answer within {seconds:g} s"
