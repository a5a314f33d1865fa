"""Where providers keep what they know: store configurations, and a check that they can be used.

No provider: the classes and helpers that several provider plugins share.
"""

from __future__ import annotations

from stackconf_storage.config import (
    DatabasePath,
    InferenceStoreReference,
    KVStore,
    KVStoreConfig,
    KVStoreReference,
    MongoDBKVStoreConfig,
    PostgresKVStoreConfig,
    PostgresSqlStoreConfig,
    RedisKVStoreConfig,
    ResponsesStore,
    ResponsesStoreReference,
    SqliteKVStoreConfig,
    SqliteSqlStoreConfig,
    SqlStore,
    SqlStoreConfig,
    SqlStoreReference,
)
from stackconf_storage.files import Place, StoreUnusable, claim, existing_database, expanded
from stackconf_storage.opening import AnyStore, open_check, open_checks, open_sqlite

__all__ = [
    "AnyStore",
    "DatabasePath",
    "InferenceStoreReference",
    "KVStore",
    "KVStoreConfig",
    "KVStoreReference",
    "MongoDBKVStoreConfig",
    "Place",
    "PostgresKVStoreConfig",
    "PostgresSqlStoreConfig",
    "RedisKVStoreConfig",
    "ResponsesStore",
    "ResponsesStoreReference",
    "SqlStore",
    "SqlStoreConfig",
    "SqlStoreReference",
    "SqliteKVStoreConfig",
    "SqliteSqlStoreConfig",
    "StoreUnusable",
    "claim",
    "existing_database",
    "expanded",
    "open_check",
    "open_checks",
    "open_sqlite",
]
