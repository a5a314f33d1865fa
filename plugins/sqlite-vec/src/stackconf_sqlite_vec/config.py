"""The configuration of `vector_io/inline::sqlite-vec`, as every upstream version writes it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stackconf import user_field
from stackconf_storage import DatabasePath, KVStore, SqlStore

KIB = 1024
MAX_MMAP = 0x7FFF0000
"""SQLITE_MAX_MMAP_SIZE as SQLite is built by default: https://www.sqlite.org/mmap.html."""

SMALLEST_PAGE, LARGEST_PAGE = 512, 65536


class SqliteVecConfig(BaseModel):
    """Exact search over vectors in a sqlite file.

    Sources: `providers/inline/vector_io/sqlite_vec/config.py` of llama-stack 0.2.12 to 0.6.0
    (`SQLiteVectorIOConfig`) and of ogx 1.5.0. The five last fields are stackconf's; their pragmas
    are described at https://www.sqlite.org/pragma.html.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    db_path: DatabasePath = Field(description="The file that holds the vectors; `~` is the home folder.")
    kvstore: KVStore | None = Field(
        None, description="Where the registry of vector stores is kept, in llama-stack 0.2; spelt out."
    )
    persistence: KVStore | None = Field(
        None, description="The same from llama-stack 0.3 on; a reference to a backend."
    )
    metadata_store: SqlStore | None = Field(
        None, description="Where the vector stores' metadata is kept, apart by tenant (OGX)."
    )
    cache_bytes: int | None = user_field(
        None,
        update="in_place",
        ge=64 * KIB,
        le=1024**4,
        description="Page cache of one connection (PRAGMA cache_size); none given: SQLite's 2 000 KiB.",
    )
    mmap_bytes: int | None = user_field(
        None,
        update="in_place",
        ge=0,
        le=MAX_MMAP,
        description="How much of the file is read through memory mapping (PRAGMA mmap_size), at most "
        "2 147 418 112; none given: SQLite's own, none.",
    )
    insert_batch_size: int = user_field(
        500, update="in_place", ge=1, le=100_000, description="Vectors inserted at once."
    )
    busy_timeout_ms: int = user_field(
        5000,
        update="in_place",
        ge=0,
        le=600_000,
        description="Milliseconds to wait for another writer (PRAGMA busy_timeout).",
    )
    page_size: int = Field(
        16384,
        ge=SMALLEST_PAGE,
        le=LARGEST_PAGE,
        description="Page size of a file that has no pages yet (PRAGMA page_size): a power of two from 512 "
        "to 65536.",
    )

    @field_validator("page_size")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("must be a power of two")
        return value
