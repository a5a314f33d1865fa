"""What is applied, once more, in a file beside the store that needs neither the store nor the stack.

It is written after each apply and only read where the store cannot say. It holds what the store
holds of it, so secrets stand in it as keyed digests. The numbers in it (`head`, `attempt`) also show
that a store lost something: it cannot be behind what was once applied from it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import evolve, frozen

from stackconf._version import __version__
from stackconf.errors import StoreDamaged, StoreError
from stackconf.plan import AppliedRecord, is_unknown, place_of, shown
from stackconf.types import Provider

if TYPE_CHECKING:
    from stackconf.store.base import Store, View

KIND = "stackconf applied"
FORMAT = 1
MAX_BYTES = 256 * 2**20
"""Larger files are not read."""


@frozen
class LastGood:
    """What is applied, and where that is from: the store, or the file beside it.

    `at` is the time of the last apply (UTC, ISO 8601), `head` the store's newest revision then and
    `attempt` the apply's number. `problem` says why the store was not asked.
    """

    providers: Mapping[str, AppliedRecord]
    head: int = 0
    attempt: int = 0
    at: str = ""
    stack_digest: str = ""
    store: str = ""
    source: Literal["store", "file"] = "store"
    path: str = ""
    problem: str = ""

    def configuration(self) -> dict[str, Any]:
        """The applied configurations in the stack file's shape, secrets redacted."""
        apis: dict[str, list[dict[str, Any]]] = {}
        for record in self.providers.values():
            provider = record.provider
            apis.setdefault(provider.api, []).append(
                {
                    "config": shown(record.snapshot),
                    "provider_id": provider.provider_id,
                    "provider_type": provider.provider_type,
                }
            )
        return {"providers": apis}

    @property
    def unknown(self) -> tuple[str, ...]:
        """The providers of which nobody knows whether they run with what stands here."""
        return tuple(key for key, record in self.providers.items() if is_unknown(record))


def lastgood_path(store: Path) -> Path:
    """Where the file of a store is.

    >>> lastgood_path(Path("stack.yaml.sqlite3")).name
    'stack.yaml.sqlite3.applied.json'
    """
    return store.with_name(f"{store.name}.applied.json")


def remember(store: Store, stack_digest: str) -> tuple[str, ...]:
    """Write what is applied by now beside the store. What keeps it from that, as warnings: what was
    applied is applied, and the store knows it.
    """
    path: Path | None = getattr(store, "path", None)
    if path is None:  # a store that is not a file has copies of its own
        return ()
    from stackconf.atomic import write_whole

    file = lastgood_path(path)
    try:
        view = store.view()
        data = {
            "kind": KIND,
            "format": FORMAT,
            "stackconf": __version__,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "store": store.identity(),
            "stack": stack_digest,
            "head": view.revision.number,
            "attempt": view.attempt,
            "providers": [_record_data(record) for record in view.applied.values()],
        }
        text = json.dumps({**data, "checksum": _checksum(data)}, indent=1)
        write_whole(file, f"{text}\n".encode())
    except (OSError, StoreError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        return (f"{file}: {reason}; it does not have what was applied now",)
    return ()


def read_lastgood(store: Path) -> LastGood | None:
    """The file of a store, or `None` where there is none. Raises `StoreError` when it is damaged."""
    path = lastgood_path(store)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise StoreError(f"{path} is damaged: it is larger than {MAX_BYTES // 2**20} MiB")
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict) or data.get("kind") != KIND:
            raise StoreError(f"{path} is damaged: it is not what an apply writes")
        if data.get("format") != FORMAT:
            raise StoreError(f"{path} was written by another stackconf, {str(data.get('stackconf'))[:40]}")
        if data.pop("checksum", None) != _checksum(data):
            raise StoreError(f"{path} is damaged: its checksum is another")
        records: dict[str, AppliedRecord] = {}
        for record in map(_record, data["providers"]):
            records[place_of(record.provider, records)] = record
        return LastGood(
            records,
            int(data["head"]),
            int(data["attempt"]),
            str(data["at"]),
            str(data["stack"]),
            str(data["store"]),
            "file",
            str(path),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: it cannot be read") from error


def last_applied(store: str | os.PathLike[str]) -> LastGood:
    """What is applied, from a store's file, or, where that is damaged, from the file beside it.

    Needs no stack file. Raises `StoreError` when neither can say.
    """
    from stackconf.store.sqlite import SqliteStore

    embedded = SqliteStore(Path(store))
    try:
        return applied_of(embedded)
    finally:
        embedded.close()


def applied_of(store: Store) -> LastGood:
    """As `last_applied`, of an open store."""
    path: Path | None = getattr(store, "path", None)
    try:
        view = store.view()
        problem = lost_since(store, view)
        if not problem:
            return _of_store(store, view)
        problem = f"store {path} {problem}"
    except StoreError as error:
        problem = str(error)
    kept = None if path is None else read_lastgood(path)
    if kept is None:
        raise StoreError(f"{problem}; and no file beside it says what is applied")
    return evolve(kept, problem=problem)


def refuse_lost(store: Store, view: View) -> None:
    """Raise `StoreDamaged` when the store is behind what was applied from it, or is another one."""
    problem = lost_since(store, view)
    if problem:
        path = Path(getattr(store, "path", ""))
        if path.exists():
            raise StoreDamaged(path, problem)
        known = lastgood_path(path).name
        hint = f"`stackconf store recover` goes on from that; if it was removed on purpose, remove {known}"
        raise StoreDamaged(path, problem, hint)


def lost_since(store: Store, view: View) -> str:
    """What a store has lost since the last apply, or "" where nothing shows that it has."""
    path: Path | None = getattr(store, "path", None)
    if path is None:
        return ""
    return behind_file(path, view.revision.number, view.attempt, store.identity)


def gone(path: Path) -> str:
    """What is wrong with a store that is not there, when the file beside it is."""
    return f"is gone, and {lastgood_path(path).name} knows what was applied from it"


def behind_file(path: Path, head: int, attempt: int, identity: Callable[[], str]) -> str:
    """As `lost_since`, of a store's numbers."""
    try:
        kept = read_lastgood(path)
    except StoreError:  # `store check` tells; it keeps nobody from applying
        return ""
    if kept is None:
        return ""
    if not path.exists():
        return gone(path)
    if head >= kept.head and attempt >= kept.attempt:
        if kept.store == identity() or attempt > kept.attempt:
            return ""
        return f"is another one than {lastgood_path(path).name} is of, and does not know what is applied"
    when = f"{lastgood_path(path).name} of {kept.at}"
    return (
        f"is behind: it ends with revision {head} and attempt {attempt}, and {when} knows revision"
        f" {kept.head} and attempt {kept.attempt}; an old copy was put back, or it lost what came after"
    )


def _of_store(store: Store, view: View) -> LastGood:
    return LastGood(
        view.applied,
        view.revision.number,
        view.attempt,
        max((record.at for record in view.applied.values()), default=""),
        store=store.identity(),
        path=str(getattr(store, "path", "")),
    )


def _record_data(record: AppliedRecord) -> dict[str, Any]:
    provider = record.provider
    return {
        "api": provider.api,
        "provider_id": provider.provider_id,
        "provider_type": provider.provider_type,
        "revision": record.revision,
        "at": record.at,
        "snapshot": record.snapshot,
    }


def _record(data: Mapping[str, Any]) -> AppliedRecord:
    provider = Provider(str(data["api"]), str(data["provider_id"]), str(data["provider_type"]))
    snapshot = data["snapshot"]
    if not isinstance(snapshot, dict):
        raise TypeError(snapshot)
    return AppliedRecord(provider, int(data["revision"]), snapshot, str(data["at"]))


def _checksum(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
