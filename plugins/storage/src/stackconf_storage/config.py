"""Store configurations as every upstream version writes them.

Up to llama-stack 0.2.23 a provider carries its store: `{type: sqlite, db_path: ...}`. From 0.3 on
(and in OGX) it carries a reference into the stack's `storage` section:
`{backend: kv_default, namespace: agents}`. The unions `KVStore`, `SqlStore` and `ResponsesStore`
take either. Sources: `providers/utils/kvstore/config.py` and `providers/utils/sqlstore/sqlstore.py`
of llama-stack 0.2.12 and 0.2.23, `core/storage/datatypes.py` of llama-stack 0.3.5 and 0.6.0 and of
ogx 1.5.0.

Upstream's default for a store that is left out is the bare text `sqlite`, which none of its
classes can read. Here that text means what was meant: a sqlite store with its default path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    field_validator,
    model_validator,
)

# A dotted name is a schema and a table; upstream meant to check the table's name and never did.
_TABLE = r"^[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?$"
_POSTGRES_PARTS = ("host", "port", "db", "user", "password")


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


def _one_of(kinds: Sequence[str]) -> Callable[[Any], Any]:
    """A store whose text says which kind it is; a kind that does not exist is refused by name."""
    known = f"{', '.join(kinds[:-1])} or {kinds[-1]}"

    def spelt_out(value: Any) -> Any:
        if isinstance(value, str):
            value = {"type": value}
        kind = _kind(value)
        if isinstance(value, Mapping) and kind is not None and kind not in {*kinds, "reference"}:
            raise ValueError(f"there is no store type '{value['type']}'; `type` is {known}")
        return value

    return spelt_out


def _kind(value: Any) -> str | None:
    """`reference`, or the store's type without the `kv_` and `sql_` of newer files."""
    if isinstance(value, _Reference):
        return "reference"
    if isinstance(value, Mapping):
        if "backend" in value:
            return "reference"
        kind = value.get("type")
    else:
        kind = getattr(value, "type", None)
    if not isinstance(kind, str):
        return None
    return kind.removeprefix("kv_").removeprefix("sql_")


OptionalText: TypeAlias = Annotated[str | None, BeforeValidator(_none_if_empty)]
OptionalSecret: TypeAlias = Annotated[SecretStr | None, BeforeValidator(_none_if_empty)]
Port: TypeAlias = Annotated[int, Field(ge=1, le=65535)]
DatabasePath: TypeAlias = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]
TableName: TypeAlias = Annotated[str, Field(pattern=_TABLE)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class _KVCommon(_Strict):
    namespace: OptionalText = Field(None, description="Prefix of every key.")


class _Postgres(_Strict):
    host: str = Field("localhost", description="Host name, or the folder of a Unix socket.")
    port: Port = Field(5432, description="TCP port.")
    db: OptionalText = Field(
        None, description="Database; the server's own default is `llamastack`, in OGX `ogx`."
    )
    user: OptionalText = Field(None, description="Role to log in with.")
    password: OptionalSecret = Field(None, description="Password of the role.")
    connection_string: OptionalSecret = Field(
        None, description="A whole `postgresql://` URI instead of host, port, db, user and password."
    )
    ssl_mode: OptionalText = Field(None, description="libpq's sslmode, such as `verify-full`.")
    ca_cert_path: OptionalText = Field(None, description="Certificate authority to trust.")

    @field_validator("connection_string")
    @classmethod
    def _a_uri(cls, value: SecretStr | None) -> SecretStr | None:
        """Refuse a text that is no PostgreSQL URI, without repeating any of it."""
        if value is None:
            return None
        try:
            parts = urlsplit(value.get_secret_value())
        except ValueError:
            raise ValueError("not a URI") from None
        if parts.scheme not in {"postgres", "postgresql"} or not parts.netloc or not parts.path.strip("/"):
            raise ValueError("must begin with postgresql:// and name a host and a database")
        return value

    @model_validator(mode="after")
    def _one_way_to_connect(self) -> _Postgres:
        """Either a URI or its parts; upstream refuses both together as well."""
        if self.connection_string is None:
            if self.user is None:
                raise ValueError("give `user`, or a whole `connection_string`")
            return self
        both = [name for name in _POSTGRES_PARTS if name in self.model_fields_set]
        if both:
            raise ValueError(f"`connection_string` already says {', '.join(both)}; remove one of the two")
        return self


class RedisKVStoreConfig(_KVCommon):
    """Keys and values in Redis."""

    type: Literal["redis", "kv_redis"] = Field("redis", description="The kind of store.")
    host: str = Field("localhost", description="Host name.")
    port: Port = Field(6379, description="TCP port.")


class SqliteKVStoreConfig(_KVCommon):
    """Keys and values in a sqlite file.

    `db_path` is kept as written, `~` included, so that a configuration means the same on another
    machine; `stackconf_storage.expanded` gives the file.
    """

    type: Literal["sqlite", "kv_sqlite"] = Field("sqlite", description="The kind of store.")
    db_path: DatabasePath = Field("~/.llama/runtime/kvstore.db", description="The file.")


class PostgresKVStoreConfig(_KVCommon, _Postgres):
    """Keys and values in a PostgreSQL table."""

    type: Literal["postgres", "kv_postgres"] = Field("postgres", description="The kind of store.")
    table_name: TableName | None = Field(
        None, description="Table; the server's own default is `llamastack_kvstore`, in OGX `ogx_kvstore`."
    )
    pool_size: int = Field(5, ge=1, description="Connections kept open.")
    max_overflow: int = Field(10, ge=0, description="Connections beyond `pool_size`.")
    command_timeout: float = Field(30.0, gt=0, description="Seconds for one statement.")


class MongoDBKVStoreConfig(_KVCommon):
    """Keys and values in a MongoDB collection."""

    type: Literal["mongodb", "kv_mongodb"] = Field("mongodb", description="The kind of store.")
    host: str = Field("localhost", description="Host name.")
    port: Port = Field(27017, description="TCP port.")
    db: OptionalText = Field(
        None, description="Database; the server's own default is `llamastack`, in OGX `ogx`."
    )
    user: OptionalText = Field(None, description="User to log in with.")
    password: OptionalSecret = Field(None, description="Password of the user.")
    collection_name: OptionalText = Field(
        None,
        description="Collection; the server's default is `llamastack_kvstore`, in OGX `ogx_kvstore`.",
    )


class SqliteSqlStoreConfig(_Strict):
    """Tables in a sqlite file. About `db_path`, see `SqliteKVStoreConfig`."""

    type: Literal["sqlite", "sql_sqlite"] = Field("sqlite", description="The kind of store.")
    db_path: DatabasePath = Field("~/.llama/runtime/sqlstore.db", description="The file.")
    pool_pre_ping: bool = Field(True, description="Test a pooled connection before it is used.")


class PostgresSqlStoreConfig(_Postgres):
    """Tables in PostgreSQL."""

    type: Literal["postgres", "sql_postgres"] = Field("postgres", description="The kind of store.")
    pool_pre_ping: bool = Field(True, description="Test a pooled connection before it is used.")
    pool_size: int = Field(10, ge=1, description="Connections kept open.")
    max_overflow: int = Field(20, ge=0, description="Connections beyond `pool_size`.")
    pool_recycle: int = Field(3600, ge=-1, description="Seconds until a connection is renewed; -1: never.")


class _Reference(_Strict):
    backend: str = Field(min_length=1, description="A name from `storage.backends` of the stack file.")


class KVStoreReference(_Reference):
    """A part of a key-value backend that the stack's `storage` section defines."""

    namespace: str = Field(description="Prefix of every key.")


class SqlStoreReference(_Reference):
    """A table of an SQL backend that the stack's `storage` section defines."""

    table_name: str = Field(min_length=1, description="Table.")


class _QueuedReference(SqlStoreReference):
    max_write_queue_size: int = Field(10000, ge=1, description="Writes that may wait.")
    num_writers: int = Field(4, ge=1, description="Writers in the background.")


class InferenceStoreReference(_QueuedReference):
    """Where completions are kept, written in the background."""

    enabled: bool = Field(True, description="Whether completions are kept at all.")


class ResponsesStoreReference(_QueuedReference):
    """Where responses are kept, written in the background."""

    table_name: str = Field("openai_responses", min_length=1, description="Table.")


_WHERE = "or one that refers to the stack's storage section by `backend`"
_KV_KINDS = ("redis", "sqlite", "postgres", "mongodb")
_SQL_KINDS = ("sqlite", "postgres")
_KV_TYPES = "should be a mapping with `type`: redis, sqlite, postgres or mongodb"
_SQL_TYPES = "should be a mapping with `type`: sqlite or postgres"

KVStoreConfig: TypeAlias = Annotated[
    Annotated[RedisKVStoreConfig, Tag("redis")]
    | Annotated[SqliteKVStoreConfig, Tag("sqlite")]
    | Annotated[PostgresKVStoreConfig, Tag("postgres")]
    | Annotated[MongoDBKVStoreConfig, Tag("mongodb")],
    Discriminator(_kind, custom_error_type="store_type", custom_error_message=_KV_TYPES),
    BeforeValidator(_one_of(_KV_KINDS)),
]
"""A key-value store, spelt out. The bare text `sqlite` is read as `{type: sqlite}`."""

SqlStoreConfig: TypeAlias = Annotated[
    Annotated[SqliteSqlStoreConfig, Tag("sqlite")] | Annotated[PostgresSqlStoreConfig, Tag("postgres")],
    Discriminator(_kind, custom_error_type="store_type", custom_error_message=_SQL_TYPES),
    BeforeValidator(_one_of(_SQL_KINDS)),
]
"""An SQL store, spelt out."""

KVStore: TypeAlias = Annotated[
    Annotated[RedisKVStoreConfig, Tag("redis")]
    | Annotated[SqliteKVStoreConfig, Tag("sqlite")]
    | Annotated[PostgresKVStoreConfig, Tag("postgres")]
    | Annotated[MongoDBKVStoreConfig, Tag("mongodb")]
    | Annotated[KVStoreReference, Tag("reference")],
    Discriminator(_kind, custom_error_type="store_type", custom_error_message=f"{_KV_TYPES}, {_WHERE}"),
    BeforeValidator(_one_of(_KV_KINDS)),
]
"""A key-value store, spelt out or by reference."""

SqlStore: TypeAlias = Annotated[
    Annotated[SqliteSqlStoreConfig, Tag("sqlite")]
    | Annotated[PostgresSqlStoreConfig, Tag("postgres")]
    | Annotated[SqlStoreReference, Tag("reference")],
    Discriminator(_kind, custom_error_type="store_type", custom_error_message=f"{_SQL_TYPES}, {_WHERE}"),
    BeforeValidator(_one_of(_SQL_KINDS)),
]
"""An SQL store, spelt out or by reference."""

ResponsesStore: TypeAlias = Annotated[
    Annotated[SqliteSqlStoreConfig, Tag("sqlite")]
    | Annotated[PostgresSqlStoreConfig, Tag("postgres")]
    | Annotated[ResponsesStoreReference, Tag("reference")],
    Discriminator(_kind, custom_error_type="store_type", custom_error_message=f"{_SQL_TYPES}, {_WHERE}"),
    BeforeValidator(_one_of(_SQL_KINDS)),
]
"""An SQL store, spelt out or by reference with its write queue."""
