from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from stackconf_storage import (
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
    SqlStoreReference,
)


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    kvstore: KVStore | None = None
    sqlstore: SqlStore | None = None
    responses: ResponsesStore | None = None


def mistakes(**given):
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(given)
    return [(error["loc"], error["msg"]) for error in caught.value.errors()]


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("sqlite", SqliteKVStoreConfig),
        ({"type": "sqlite", "namespace": None, "db_path": "~/.llama/faiss_store.db"}, SqliteKVStoreConfig),
        ({"type": "kv_sqlite", "db_path": "kv.db"}, SqliteKVStoreConfig),
        ({"type": "redis", "host": "cache", "port": "6379"}, RedisKVStoreConfig),
        ({"type": "kv_redis", "namespace": ""}, RedisKVStoreConfig),
        ({"type": "postgres", "user": "u", "port": "5432", "password": "p"}, PostgresKVStoreConfig),
        (
            {
                "type": "kv_postgres",
                "connection_string": "postgresql://u:p@db/x",
                "table_name": "schema.kv",
                "ssl_mode": "require",
                "ca_cert_path": "/ca.pem",
                "pool_size": 5,
                "max_overflow": 0,
                "command_timeout": 1.5,
            },
            PostgresKVStoreConfig,
        ),
        ({"type": "mongodb", "db": "x", "user": "u", "password": "", "port": 27017}, MongoDBKVStoreConfig),
        ({"backend": "kv_default", "namespace": "agents"}, KVStoreReference),
        (SqliteKVStoreConfig(), SqliteKVStoreConfig),
        (KVStoreReference(backend="b", namespace="n"), KVStoreReference),
    ],
)
def test_a_key_value_store_in_every_form(given, kind):
    assert type(Config(kvstore=given).kvstore) is kind


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("sqlite", SqliteSqlStoreConfig),
        ({"type": "sqlite", "db_path": "~/responses.db"}, SqliteSqlStoreConfig),
        ({"type": "sql_sqlite", "db_path": "sql.db"}, SqliteSqlStoreConfig),
        (
            {
                "type": "sql_postgres",
                "user": "u",
                "pool_size": "10",
                "max_overflow": "20",
                "pool_recycle": "-1",
                "pool_pre_ping": "true",
            },
            PostgresSqlStoreConfig,
        ),
        ({"backend": "sql_default", "table_name": "t"}, SqlStoreReference),
    ],
)
def test_an_sql_store_in_every_form(given, kind):
    assert type(Config(sqlstore=given).sqlstore) is kind


def test_references_with_a_write_queue():
    given = {"backend": "sql_default", "max_write_queue_size": "100", "num_writers": 2}
    responses = Config(responses=given).responses
    assert isinstance(responses, ResponsesStoreReference)
    assert (responses.table_name, responses.max_write_queue_size) == ("openai_responses", 100)
    inference = InferenceStoreReference.model_validate({**given, "table_name": "i", "enabled": False})
    assert not inference.enabled


def test_the_bare_text_is_the_store_upstream_meant():
    assert Config(kvstore="sqlite").kvstore == SqliteKVStoreConfig(db_path="~/.llama/runtime/kvstore.db")
    assert Config(sqlstore="sqlite").sqlstore == SqliteSqlStoreConfig(db_path="~/.llama/runtime/sqlstore.db")


_KV = "should be a mapping with `type`: redis, sqlite, postgres or mongodb"
_REFER = "or one that refers to the stack's storage section by `backend`"


@pytest.mark.parametrize("given", [{"db_path": "x"}, {"type": 3}, 3, [], {}])
def test_a_store_of_no_kind_is_one_clear_mistake(given):
    assert mistakes(kvstore=given) == [(("kvstore",), f"{_KV}, {_REFER}")]


@pytest.mark.parametrize("given", ["etcd", {"type": "etcd", "host": "h"}])
def test_a_store_of_an_unknown_kind_is_one_clear_mistake(given):
    said = "there is no store type 'etcd'; `type` is redis, sqlite, postgres or mongodb"
    assert mistakes(kvstore=given) == [(("kvstore",), f"Value error, {said}")]


def test_a_key_value_store_is_no_sql_store():
    said = "there is no store type 'redis'; `type` is sqlite or postgres"
    assert mistakes(sqlstore={"type": "redis"}) == [(("sqlstore",), f"Value error, {said}")]
    with pytest.raises(ValidationError, match=_KV):
        TypeAdapter(KVStoreConfig).validate_python({"backend": "kv_default", "namespace": "n"})


@pytest.mark.parametrize(
    ("given", "place", "message"),
    [
        ({"type": "sqlite", "db_pth": "x"}, ("sqlite", "db_pth"), "Extra inputs"),
        ({"type": "sqlite", "db_path": ""}, ("sqlite", "db_path"), "at least 1 character"),
        ({"type": "redis", "port": "http"}, ("redis", "port"), "valid integer"),
        ({"type": "redis", "port": 70000}, ("redis", "port"), "less than or equal to 65535"),
        ({"backend": "kv_default"}, ("reference", "namespace"), "Field required"),
        ({"type": "postgres"}, ("postgres",), "give `user`, or a whole `connection_string`"),
        ({"type": "postgres", "user": "u", "table_name": "a;b"}, ("postgres", "table_name"), "match pattern"),
        (
            {"type": "postgres", "connection_string": "postgresql://u:p@h/d", "host": "h"},
            ("postgres",),
            "`connection_string` already says host; remove one of the two",
        ),
    ],
)
def test_a_mistake_inside_a_store_names_the_field(given, place, message):
    ((loc, said),) = mistakes(kvstore=given)
    assert loc == ("kvstore", *place)
    assert message in said


@pytest.mark.parametrize(
    "given",
    [
        {"type": "postgres", "user": "u", "password": "hunter2", "port": 0},
        {"type": "postgres", "connection_string": "mysql://u:hunter2@h/d"},
        {"type": "postgres", "connection_string": "hunter2"},
        {"type": "postgres", "connection_string": "postgresql://u:hunter2@[h/d"},
        {"type": "postgres", "connection_string": "postgresql://u:hunter2@h/d", "user": "u"},
        {"type": "mongodb", "password": ["hunter2"]},
    ],
)
def test_no_secret_stands_in_a_mistake(given):
    with pytest.raises(ValidationError) as caught:
        Config(kvstore=given)
    assert "hunter2" not in str(caught.value)


def test_no_secret_stands_in_a_store():
    given = Config(kvstore={"type": "postgres", "connection_string": "postgresql://u:hunter2@h/d"})
    assert "hunter2" not in f"{given!r} {given} {given.model_dump()} {given.model_dump_json()}"
    assert Config(kvstore={"type": "mongodb", "password": ""}).kvstore.password is None
