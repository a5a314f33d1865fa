"""Agents' state in a sqlite file, with a page cache of the configured size."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

from stackconf_storage import StoreUnusable, existing_database

if TYPE_CHECKING:
    from pathlib import Path

_LOCK_SECONDS = 5.0
_KIB = 1024

# The table of upstream's `providers/utils/kvstore/sqlite/sqlite.py`, 0.2.12 to 0.6.0.
_TABLE = "CREATE TABLE IF NOT EXISTS kvstore (key TEXT PRIMARY KEY, value TEXT, expiration TIMESTAMP)"


class AgentState:
    """Keys and values in upstream's own table, so that its server reads the same file.

    The table is made by the first `set`: a file that nobody used stays empty. One connection is
    kept open, and SQLite keeps up to `cache_bytes` of its pages in memory. Any thread may call.
    Raises `StoreUnusable` where the file, which must exist, cannot be opened.
    """

    def __init__(self, path: Path, cache_bytes: int) -> None:
        self.path = path
        self._cache_kib = max(1, cache_bytes // _KIB)
        self._lock = threading.Lock()
        try:
            self._file = path.stat().st_ino
            self._db = sqlite3.connect(
                existing_database(path), uri=True, timeout=_LOCK_SECONDS, check_same_thread=False
            )
        except (sqlite3.Error, OSError) as error:
            raise StoreUnusable(f"cannot open {path}: {error}") from None
        # A negative number is an amount in KiB, a positive one a number of pages.
        self._db.execute(f"PRAGMA cache_size = -{self._cache_kib}")

    @property
    def cache_bytes(self) -> int:
        """The page cache's bound as SQLite itself tells it."""
        (kib,) = self._db.execute("PRAGMA cache_size").fetchone()
        return -int(kib) * _KIB

    def get(self, key: str) -> str | None:
        """The value of a key, or `None`."""
        with self._lock:
            if not self._made():
                return None
            row = self._db.execute("SELECT value FROM kvstore WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set(self, key: str, value: str) -> None:
        """Keep a value under a key; it is on the disk on return."""
        with self._lock, self._db:
            self._db.execute(_TABLE)
            self._db.execute(
                "INSERT OR REPLACE INTO kvstore (key, value, expiration) VALUES (?, ?, NULL)", (key, value)
            )

    def delete(self, key: str) -> None:
        """Forget a key; one that is not there is fine."""
        with self._lock, self._db:
            if self._made():
                self._db.execute("DELETE FROM kvstore WHERE key = ?", (key,))

    def keys(self, prefix: str = "") -> list[str]:
        """The keys that begin with `prefix`, in order."""
        with self._lock:
            if not self._made():
                return []
            rows = self._db.execute(
                "SELECT key FROM kvstore WHERE substr(key, 1, ?) = ? ORDER BY key", (len(prefix), prefix)
            ).fetchall()
        return [key for (key,) in rows]

    def check(self) -> str | None:
        """What is wrong with the open file, or `None`."""
        try:
            with self._lock:
                self._made()
                kept = self.cache_bytes
        except sqlite3.Error as error:
            return f"cannot read {self.path}: {error}"
        if not self.path.exists() or self.path.stat().st_ino != self._file:
            return f"{self.path} was replaced while in use"
        if kept != self._cache_kib * _KIB:
            return f"SQLite keeps {kept} bytes of pages and not {self._cache_kib * _KIB}"
        return None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _made(self) -> bool:
        found = self._db.execute(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'kvstore'"
        ).fetchone()
        return found is not None
