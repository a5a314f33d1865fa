"""Forgetting old revisions and attempts of an SQLite store, and nothing that is in use."""

from __future__ import annotations

import json
import sqlite3

from stackconf.store.base import Pruned

_MOST = 2**31
_MANY = 8
"""From how many documents on it is cheaper to read what every revision kept refers to."""


def pruned(db: sqlite3.Connection, keep: int) -> Pruned:
    """Keep the newest `keep` revisions and attempts, inside the caller's transaction.

    The triggers let nothing go but while `pruning` is marked, below the oldest revision kept.
    """
    keep = min(max(keep, 1), _MOST)
    head = db.execute("SELECT COALESCE(MAX(number), 0) FROM revision").fetchone()[0]
    before = db.execute("SELECT oldest FROM retention").fetchone()[0]
    oldest = max(before, head - keep + 1, 1)
    attempts = db.execute(
        "DELETE FROM attempt WHERE finished_at IS NOT NULL"
        " AND number <= (SELECT MAX(number) FROM attempt) - ?",
        (keep,),
    ).rowcount
    states = db.execute(
        "SELECT number, state FROM revision WHERE number < ? AND number NOT IN (SELECT number FROM pinned)",
        (oldest,),
    ).fetchall()
    documents = 0
    if states or oldest > before:
        if oldest > before:
            _remember(db, oldest)
        db.execute("INSERT INTO meta VALUES ('pruning', '1')")
        db.executemany("DELETE FROM revision WHERE number = ?", [(number,) for number, _ in states])
        documents = _forget(db, set().union(*(_digests(state) for _, state in states)))
        db.execute("DELETE FROM meta WHERE key = 'pruning'")
    left = db.execute("SELECT number FROM revision WHERE number < ? ORDER BY number", (oldest,))
    return Pruned(oldest, len(states), documents, attempts, tuple(number for (number,) in left))


def _remember(db: sqlite3.Connection, oldest: int) -> None:
    done = db.execute("UPDATE meta SET value = ? WHERE key = 'oldest_revision'", (str(oldest),))
    if not done.rowcount:
        db.execute("INSERT INTO meta VALUES ('oldest_revision', ?)", (str(oldest),))


def _forget(db: sqlite3.Connection, digests: set[str]) -> int:
    """Delete the documents that no revision refers to any more; how many."""
    digests -= _digests_of_head(db)
    if len(digests) > _MANY:
        for (state,) in db.execute("SELECT state FROM revision"):
            digests -= _digests(state)
    else:
        digests = {digest for digest in digests if not _is_used(db, digest)}
    db.executemany("DELETE FROM document WHERE digest = ?", [(digest,) for digest in digests])
    return len(digests)


def _is_used(db: sqlite3.Connection, digest: str) -> bool:
    found = db.execute("SELECT 1 FROM revision WHERE instr(state, ?) LIMIT 1", (digest,))
    return found.fetchone() is not None


def _digests_of_head(db: sqlite3.Connection) -> set[str]:
    row = db.execute("SELECT state FROM revision ORDER BY number DESC LIMIT 1").fetchone()
    return _digests(row[0]) if row else set()


def _digests(state: str) -> set[str]:
    return {kept["digest"] for kept in json.loads(state).get("configurations", {}).values()}
