"""The configuration of `vector_io/inline::faiss`, as every upstream version writes it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from stackconf import user_field
from stackconf_storage import KVStore, KVStoreConfig, KVStoreReference, SqliteKVStoreConfig, SqlStore

# The limits below keep nonsense out; sensible values are far inside them.
MAX_THREADS = 1024
MAX_BATCH = 10_000_000


class FaissConfig(BaseModel):
    """Exact search over vectors held in memory, kept as one value in a key-value store.

    Sources: `providers/inline/vector_io/faiss/config.py` of llama-stack 0.2.12 to 0.6.0
    (`FaissVectorIOConfig`) and of ogx 1.5.0. The four last fields are stackconf's.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    kvstore: KVStore | None = Field(
        None, description="Where indexes are kept, up to llama-stack 0.2.23; spelt out."
    )
    persistence: KVStore | None = Field(
        None, description="Where indexes are kept, from llama-stack 0.3 on; a reference to a backend."
    )
    metadata_store: SqlStore | None = Field(
        None, description="Where the vector stores' metadata is kept, apart by tenant (OGX)."
    )
    num_threads: int | None = user_field(
        None,
        update="in_place",
        ge=1,
        le=MAX_THREADS,
        description="OpenMP threads of one add or search; none given leaves it to OpenMP.",
    )
    add_batch_size: int = user_field(
        10_000, update="in_place", ge=1, le=MAX_BATCH, description="Vectors handed to faiss in one add."
    )
    search_batch_size: int = user_field(
        4096,
        update="in_place",
        ge=1,
        le=MAX_BATCH,
        description="Queries handed to faiss in one search; faiss itself works in blocks of 4096.",
    )
    max_index_bytes: int | None = Field(
        None, ge=1, description="Largest index, in bytes of vectors; an add beyond it is refused."
    )

    @property
    def store(self) -> KVStoreConfig | KVStoreReference:
        """Where indexes are kept.

        With neither `persistence` nor `kvstore`, it is what upstream's default was meant to be.

        >>> FaissConfig().store.db_path
        '~/.llama/runtime/kvstore.db'
        """
        return self.persistence or self.kvstore or SqliteKVStoreConfig()
