"""The provider plugin of `vector_io/inline::sqlite-vec`, and of its older name `inline::sqlite_vec`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from stackconf import Applied, Hardware, Issue, Provider, ProviderType, because, hookimpl, memory_share

if TYPE_CHECKING:
    from pathlib import Path

    from stackconf.types import Because
    from stackconf_sqlite_vec.config import SqliteVecConfig
    from stackconf_sqlite_vec.database import Settings
    from stackconf_sqlite_vec.prepare import Prepared
    from stackconf_storage import AnyStore

stackconf_api = 1

_CONFIG = "stackconf_sqlite_vec.config:SqliteVecConfig"

provides = (
    ProviderType(
        "vector_io",
        "inline::sqlite-vec",
        _CONFIG,
        description="Exact vector search in a sqlite file with sqlite-vec",
        api_dependencies=("inference",),
        in_process=True,
    ),
    ProviderType(
        "vector_io",
        "inline::sqlite_vec",
        _CONFIG,
        description="The older name of inline::sqlite-vec",
        api_dependencies=("inference",),
        in_process=True,
    ),
)

_MIB = 1024**2
_SMALLEST_CACHE, _LARGEST_CACHE = 2 * _MIB, 64 * _MIB
# SQLITE_MAX_MMAP_SIZE as SQLite is built by default, https://www.sqlite.org/mmap.html.
_LARGEST_MMAP = 0x7FFF0000
_ROW_BYTES = 32 * 1024
_SMALLEST_BATCH, _LARGEST_BATCH = 50, 2000


@hookimpl
def default_config(hardware: Hardware) -> Mapping[str, object]:
    """Map, cache and batch that fit the machine's memory.

    * `mmap_bytes`: 1/4 of the usable memory, at most SQLite's own limit of 2 147 418 112. Mapped
      pages belong to the kernel's page cache and can be dropped. Exact search reads every vector;
      20 000 vectors of 768 dimensions (60 MiB, pages of 4 KiB, SQLite 3.40) took 30 ms without
      the map and 16 ms with it, at the first search as well.
    * `cache_bytes`: 1/256, from 2 MiB (SQLite's own) to 64 MiB. It belongs to one connection, and
      upstream opens one for every operation: with 128 MiB the first search took 70 ms, so more is
      no gain there. It keeps a large insert from spilling.
    * `insert_batch_size`: rows of 32 KiB (the chunk's JSON, which repeats a vector of 1 024
      dimensions as text, and the vector) in 1/1024, from 50 to 2 000. 16 GiB give upstream's 500.

    Source of the pragmas: https://www.sqlite.org/pragma.html.
    """
    found = {
        "mmap_bytes": memory_share(hardware, 1 / 4, at_most=_LARGEST_MMAP),
        "cache_bytes": _at_least(memory_share(hardware, 1 / 256, at_most=_LARGEST_CACHE), _SMALLEST_CACHE),
        "insert_batch_size": _insert_batch(hardware),
    }
    return {name: value for name, value in found.items() if value is not None}


def _at_least(share: Because[int] | None, least: int) -> Because[int] | None:
    if share is None or share.value >= least:
        return share
    return because(least, f"{share.reason}, but not less than SQLite's own {least} bytes")


def _insert_batch(hardware: Hardware) -> Because[int] | None:
    share = memory_share(hardware, 1 / 1024, at_most=_LARGEST_BATCH * _ROW_BYTES)
    if share is None:
        return None
    rows = max(_SMALLEST_BATCH, share.value // _ROW_BYTES)
    return because(rows, f"rows of 32 KiB (chunk and vector) in {share.reason}, at least {_SMALLEST_BATCH}")


@hookimpl
def validate_user_config(config: SqliteVecConfig, hardware: Hardware) -> Iterator[Issue]:
    """A cache beyond the memory, a file that is none, two places for one registry."""
    usable = hardware.memory.usable_bytes
    if config.cache_bytes is not None and usable is not None and config.cache_bytes > usable:
        yield Issue(
            f"{config.cache_bytes} bytes of cache do not fit into {usable} bytes of usable memory",
            path="cache_bytes",
            hint=f"it is the cache of one connection; use at most {max(_SMALLEST_CACHE, usable // 256)}",
        )
    if config.db_path == ":memory:":
        yield Issue(
            "every operation opens the file anew, so vectors in memory would be lost at once",
            path="db_path",
            hint="give a path",
        )
    if config.kvstore is not None and config.persistence is not None:
        yield Issue(
            "both `kvstore` and `persistence` say where the registry is kept",
            path="kvstore",
            hint="keep `persistence` from llama-stack 0.3 on, `kvstore` before",
        )


@hookimpl
def apply_config(provider: Provider, config: SqliteVecConfig | None) -> Applied:
    """Make and prepare the file, prove a search through the real library, and keep the settings.

    In the file itself, and so for every process: journal mode WAL, and the page size of a file
    without pages. For connections of this process that are opened with
    `stackconf_sqlite_vec.settings_of(provider.key)`: cache, map, timeout and batch.
    Raises `StoreUnusable`.
    """
    from stackconf_sqlite_vec.database import held

    if config is None:
        swap = held.swap(provider.key, None)
        return swap.applied("its settings are gone from this process; the file is kept")
    from contextlib import ExitStack

    from stackconf_sqlite_vec.database import DatabaseLocked, Settings
    from stackconf_sqlite_vec.prepare import prepare
    from stackconf_storage import claim, expanded, open_checks

    settings = Settings(
        cache_bytes=config.cache_bytes,
        mmap_bytes=config.mmap_bytes,
        busy_timeout_ms=config.busy_timeout_ms,
        insert_batch_size=config.insert_batch_size,
    )
    path = expanded(config.db_path)
    with ExitStack() as undo:
        place = claim(path)
        undo.callback(place.give_back)
        stores = open_checks(_other_stores(config, path))
        if stores.pending is not None:
            return stores
        if stores.undo is not None:
            undo.callback(stores.undo)
        try:
            prepared = prepare(place, settings, config.page_size, undo)
        except DatabaseLocked as error:
            return Applied(pending=str(error))
        taken = undo.pop_all()

    def check() -> str | None:
        complaint = _complaint(path, settings) or (stores.check and stores.check())
        return complaint if isinstance(complaint, str) else None

    detail = _detail(path, prepared, settings) + (f"; {stores.detail}" if stores.detail else "")
    return held.swap(provider.key, settings, check=check).applied(detail, undo=taken.close)


def _other_stores(config: SqliteVecConfig, path: Path) -> dict[str, AnyStore]:
    """The stores beside the vectors' own file, which must not be opened through two libraries."""
    from stackconf_storage import expanded

    stores: dict[str, AnyStore | None] = {
        "kvstore": config.kvstore,
        "persistence": config.persistence,
        "metadata_store": config.metadata_store,
    }
    others: dict[str, AnyStore] = {}
    for name, store in stores.items():
        db_path = getattr(store, "db_path", None)
        if store is not None and (db_path is None or expanded(db_path) != path):
            others[name] = store
    return others


def _complaint(path: Path, settings: Settings) -> str | None:
    from stackconf_sqlite_vec.database import connect, not_in_force
    from stackconf_sqlite_vec.prepare import wrong_search
    from stackconf_storage import StoreUnusable

    if not path.exists():
        return f"{path} is gone"
    try:
        with connect(path, settings) as database:
            return not_in_force(database) or wrong_search(database)
    except StoreUnusable as error:
        return str(error)


def _detail(path: Path, prepared: Prepared, settings: Settings) -> str:
    kept = f"journal mode {prepared.journal_mode}, pages of {prepared.page_size} bytes"
    own = []
    if settings.cache_bytes is not None:
        own.append(f"cache {settings.cache_bytes / _MIB:.0f} MiB")
    if settings.mmap_bytes is not None:
        less = "" if prepared.mmap_bytes == settings.mmap_bytes else ", all that this SQLite grants"
        own.append(f"map {prepared.mmap_bytes / _MIB:.0f} MiB{less}")
    here = f"; connections of this process: {', '.join(own)}" if own else ""
    return f"sqlite-vec {prepared.vec_version} through {prepared.library}; {path}: {kept}{here}"
