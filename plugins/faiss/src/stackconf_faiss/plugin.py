"""The provider plugin of `vector_io/inline::faiss`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from stackconf import (
    Applied,
    Hardware,
    Issue,
    Provider,
    ProviderType,
    because,
    compute_threads,
    hookimpl,
    memory_share,
)

if TYPE_CHECKING:
    from stackconf.types import Because
    from stackconf_faiss.config import FaissConfig

stackconf_api = 1

provides = (
    ProviderType(
        "vector_io",
        "inline::faiss",
        "stackconf_faiss.config:FaissConfig",
        description="Exact vector search in memory with faiss",
        api_dependencies=("inference",),
        in_process=True,
    ),
)

_MIB = 1024**2

# Upstream saves an index as base64 text in one JSON value. While it does so there are at once the
# index, its serialised form, numpy's buffer, the base64 text, the JSON text and the bytes handed
# to the store: 1 + 1 + 1 + 4/3 + 4/3 + 4/3 = 7 times the index. One in eight leaves room for one.
_INDEX_SHARE = 1 / 8

# One value of a sqlite or PostgreSQL store is at most about 1 GB (sqlite.org/limits.html,
# SQLITE_MAX_LENGTH = 1 000 000 000 bytes): 512 MiB of index make 716 MB of base64, the rest is
# for the chunks' text, which stands in the same value.
_LARGEST_INDEX = 512 * _MIB

# What one value may hold, by kind of store: sqlite.org/limits.html; PostgreSQL's limits appendix
# (1 GB a field); redis.io, strings (512 MB); MongoDB's limits and thresholds (16 MiB a document).
_VALUE_BYTES = {
    "sqlite": 1_000_000_000,
    "postgres": 1024**3,
    "redis": 512 * _MIB,
    "mongodb": 16 * _MIB,
}

_BATCH_ROW_BYTES = 4 * 1024
_SMALLEST_BATCH = 256
_LARGEST_BATCH = 65_536


@hookimpl
def default_config(hardware: Hardware) -> Mapping[str, object]:
    """Threads, batch and index size that fit the machine.

    * `num_threads`: one per usable physical core. "Hyper-threading is not efficient for the
      linear algebra within faiss": https://github.com/facebookresearch/faiss/issues/2953.
    * `max_index_bytes`: a flat index takes 4 bytes x dimension x vectors, all in memory (faiss
      wiki, "Guidelines to choose an index"), and saving it takes seven times that; so 1/8 of the
      usable memory, and at most 512 MiB, which is what a store takes as one value.
    * `add_batch_size`: vectors of 1 024 dimensions (4 KiB) in 1/64 of the usable memory, from 256
      to 65 536. An add copies its batch.
    """
    found = {
        "num_threads": compute_threads(hardware),
        "max_index_bytes": memory_share(hardware, _INDEX_SHARE, at_most=_LARGEST_INDEX),
        "add_batch_size": _add_batch(hardware),
    }
    return {name: value for name, value in found.items() if value is not None}


def _add_batch(hardware: Hardware) -> Because[int] | None:
    share = memory_share(hardware, 1 / 64, at_most=_LARGEST_BATCH * _BATCH_ROW_BYTES)
    if share is None:
        return None
    fitting = share.value // _BATCH_ROW_BYTES
    reason = f"vectors of 1024 dimensions (4 KiB each) in {share.reason}"
    if fitting < _SMALLEST_BATCH:
        return because(_SMALLEST_BATCH, f"{reason}, at least {_SMALLEST_BATCH}")
    return because(fitting, reason)


@hookimpl
def validate_user_config(config: FaissConfig, hardware: Hardware) -> Iterator[Issue]:
    """An index that cannot be held or saved, more threads than CPUs, two places for one store."""
    usable = hardware.memory.usable_bytes
    limit = config.max_index_bytes
    if limit is not None and usable is not None and limit > usable:
        yield Issue(
            f"an index of {limit} bytes does not fit into {usable} bytes of usable memory",
            path="max_index_bytes",
            hint=f"use at most {int(usable * _INDEX_SHARE)}: saving an index takes seven times its size",
        )
    if config.kvstore is not None and config.persistence is not None:
        yield Issue(
            "both `kvstore` and `persistence` say where indexes are kept",
            path="kvstore",
            hint="keep `persistence` from llama-stack 0.3 on, `kvstore` before",
        )
    kind = getattr(config.store, "type", "").removeprefix("kv_")
    value_bytes = _VALUE_BYTES.get(kind)
    if limit is not None and value_bytes is not None and limit * 4 // 3 > value_bytes:
        yield Issue(
            f"an index is saved as one value of base64 text, and a {kind} store takes {value_bytes} bytes",
            level="warning",
            path="max_index_bytes",
            hint=f"use at most {value_bytes * 3 // 4}, less the text of the chunks",
        )
    cores = hardware.cpu.usable_cores
    if config.num_threads is not None and cores is not None and config.num_threads > max(1, cores):
        yield Issue(
            f"{config.num_threads} threads on {cores:g} usable CPUs wait for each other",
            level="warning",
            path="num_threads",
            hint=f"use at most {max(1, int(cores))}",
        )


@hookimpl
def apply_config(provider: Provider, config: FaissConfig | None) -> Applied:
    """Open the store, set faiss's threads, and prove it with a small index.

    In force in this process only: the calling thread's OpenMP threads, and the `Engine` that
    `stackconf_faiss.engine(provider.key)` gives to code that searches here. What lasts is the
    store's file. Raises `StackconfError` where the store or faiss cannot be used.
    """
    if config is None:
        return _leave(provider.key)
    from stackconf import StackconfError
    from stackconf_faiss.engine import Engine, held, load_faiss, wrong_with
    from stackconf_storage import open_checks

    new = Engine(config.num_threads, config.add_batch_size, config.search_batch_size, config.max_index_bytes)
    version = load_faiss().__version__
    wrong = wrong_with(new)
    if wrong is not None:
        raise StackconfError(wrong)
    name = "kvstore" if config.persistence is None else "persistence"
    stores = open_checks({name: config.store, "metadata_store": config.metadata_store})
    if stores.pending is not None:
        return stores

    def check() -> str | None:
        complaint = wrong_with(new) or (stores.check() if stores.check is not None else None)
        return complaint if isinstance(complaint, str) else None

    count = "OpenMP's own number of" if new.num_threads is None else str(new.num_threads)
    detail = f"faiss {version} with {count} threads in this process; {stores.detail}"
    return held.swap(provider.key, new, check=check).applied(detail, undo=stores.undo)


def _leave(key: str) -> Applied:
    from stackconf_faiss.engine import held

    return held.swap(key, None).applied("faiss as it was before in this process; stored indexes are kept")
