"""The settings of `agents/inline::meta-reference`, of every upstream version at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from stackconf import user_field
from stackconf_storage import (
    KVStore,
    KVStoreConfig,
    KVStoreReference,
    ResponsesStore,
    ResponsesStoreReference,
    SqliteKVStoreConfig,
    SqliteSqlStoreConfig,
    SqlStoreConfig,
)

AnyStore: TypeAlias = KVStoreConfig | SqlStoreConfig | KVStoreReference | ResponsesStoreReference

SQLITE_CACHE_BYTES = 2_048_000
"""SQLite's own default page cache: `cache_size` -2000, "limited to 2048000 bytes of memory"
(https://sqlite.org/pragma.html#pragma_cache_size)."""

AGENTS_FILE = "~/.llama/runtime/agents_store.db"
RESPONSES_FILE = "~/.llama/runtime/responses_store.db"


class AgentPersistence(BaseModel):
    """Both stores, as llama-stack writes them from 0.3 on."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    agent_state: KVStore = Field(description="Where the agents and their sessions are kept.")
    responses: ResponsesStore = Field(description="Where responses are kept.")


class AgentsConfig(BaseModel):
    """Where agents keep their sessions and responses.

    Sources: `providers/inline/agents/meta_reference/config.py` (`MetaReferenceAgentsImplConfig`) of
    llama-stack 0.2.12, 0.2.23, 0.3.5 and 0.6.0. The last field is stackconf's.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    persistence: AgentPersistence | None = Field(
        None, description="Both stores, from llama-stack 0.3 on; references to backends."
    )
    persistence_store: KVStore | None = Field(
        None,
        description="Where agents and sessions are kept, up to llama-stack 0.2.23. "
        f"Neither this nor persistence: a sqlite file, {AGENTS_FILE}.",
    )
    responses_store: ResponsesStore | None = Field(
        None,
        description="Where responses are kept, up to llama-stack 0.2.23. "
        f"Neither this nor persistence: a sqlite file, {RESPONSES_FILE}.",
    )
    vector_stores_config: dict[str, Any] | None = Field(
        None, description="Prompt templates and behaviour of file search (0.6); the server reads it."
    )
    sqlite_cache_bytes: int = user_field(
        SQLITE_CACHE_BYTES,
        update="in_place",
        ge=64 * 1024,
        le=64 * 1024**3,
        description="Most memory for pages of a sqlite state file that this process keeps at hand.",
    )

    @property
    def stores(self) -> Mapping[str, AnyStore]:
        """The stores in use, by the path of the field that gives them.

        A store that is left out is a file of its own; upstream's default was the bare text
        `sqlite`, which its classes cannot read.

        >>> stores = AgentsConfig().stores
        >>> [(name, store.db_path) for name, store in stores.items()]  # doctest: +NORMALIZE_WHITESPACE
        [('persistence_store', '~/.llama/runtime/agents_store.db'),
         ('responses_store', '~/.llama/runtime/responses_store.db')]
        """
        if self.persistence is not None:
            return {
                "persistence.agent_state": self.persistence.agent_state,
                "persistence.responses": self.persistence.responses,
            }
        return {
            "persistence_store": self.persistence_store or SqliteKVStoreConfig(db_path=AGENTS_FILE),
            "responses_store": self.responses_store or SqliteSqlStoreConfig(db_path=RESPONSES_FILE),
        }
