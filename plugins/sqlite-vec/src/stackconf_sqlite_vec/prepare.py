"""What is done to the file itself: page size, journal mode, a real search; and taking it back."""

from __future__ import annotations

from contextlib import ExitStack
from struct import pack

from attrs import frozen

from stackconf_sqlite_vec.database import Database, Settings, connect, not_in_force
from stackconf_storage import Place, StoreUnusable


@frozen
class Prepared:
    """What was found, and what is in force. Sizes in bytes; `mmap_bytes` is what SQLite granted."""

    vec_version: str
    library: str
    journal_mode: str
    page_size: int
    mmap_bytes: int


def prepare(place: Place, settings: Settings, page_size: int, undo: ExitStack) -> Prepared:
    """Set what lives in the file, read back what does not, and search; push what undoes it on `undo`.

    Raises `StoreUnusable`, and `DatabaseLocked` where another process holds the file.
    """
    with connect(place.path, settings) as database:
        was_blank = database.value("PRAGMA page_count") == 0
        if was_blank:
            database.rows(f"PRAGMA page_size = {page_size}")
        mode_before = database.value("PRAGMA journal_mode")
        # As upstream does since OGX 1.0: readers and a writer do not wait for each other. Where
        # the file system cannot do it, SQLite keeps the mode it has.
        mode = database.value("PRAGMA journal_mode = WAL")
        if was_blank:
            undo.callback(_blank_again, place, mode_before)
        elif mode != mode_before:
            undo.callback(_journal_again, place, mode_before)
        _try_writing(database)
        wrong = not_in_force(database) or wrong_search(database)
        if wrong is not None:
            raise StoreUnusable(f"{place.path}: {wrong}")
        return Prepared(
            vec_version=database.value("SELECT vec_version()"),
            library=database.library,
            journal_mode=mode,
            page_size=database.value("PRAGMA page_size"),
            # A SQLite built without memory mapping gives no row.
            mmap_bytes=database.value("PRAGMA mmap_size") or 0,
        )


def wrong_search(database: Database) -> str | None:
    """Search a vec0 table that lives in memory; what is wrong with the answer, or `None`."""
    database.rows("PRAGMA temp_store = MEMORY")
    database.rows("CREATE VIRTUAL TABLE temp.stackconf_check USING vec0(embedding FLOAT[4])")
    rows = [(number, pack("4f", number, 0, 0, 0)) for number in (1, 2, 3)]
    database.insert("INSERT INTO temp.stackconf_check (rowid, embedding) VALUES (?, ?)", rows)
    # `k = ` and not LIMIT, which SQLite before 3.41 does not hand to vec0.
    found = database.rows(
        "SELECT rowid, distance FROM temp.stackconf_check WHERE embedding MATCH ? AND k = 1",
        [pack("4f", 2, 0, 0, 0)],
    )
    database.rows("DROP TABLE temp.stackconf_check")
    return None if found == [(2, 0.0)] else f"vec0 found {found} instead of row 2 at distance 0"


def _try_writing(database: Database) -> None:
    """The smallest write that reaches the journal, rolled back."""
    version = int(database.value("PRAGMA user_version"))
    database.rows("BEGIN IMMEDIATE")
    database.rows(f"PRAGMA user_version = {version}")
    database.rows("ROLLBACK")


def _journal_again(place: Place, mode: str) -> None:
    if place.path.exists():
        with connect(place.path, Settings()) as database:
            database.rows(f"PRAGMA journal_mode = {mode}")


def _blank_again(place: Place, mode: str) -> None:
    """Take the file back to no pages at all, unless somebody made a table in it meanwhile.

    Leaving WAL needs the file for oneself, so another open connection stops this.
    """
    if not place.path.exists():
        return
    with connect(place.path, Settings()) as database:
        if _has_tables(database):
            return
        database.rows(f"PRAGMA journal_mode = {mode}")
        database.rows("BEGIN EXCLUSIVE")
        if not _has_tables(database):
            # By path: opening and closing the file here would drop SQLite's lock on it.
            import os

            os.truncate(place.path, 0)


def _has_tables(database: Database) -> bool:
    return bool(database.value("SELECT count(*) FROM sqlite_master"))
