from __future__ import annotations

import signal
import socket
import sqlite3
import threading
from importlib.metadata import entry_points

import pytest
from pydantic import ValidationError

import stackconf_agents
from stackconf import Provider, StackconfError
from stackconf.testing import fresh_process, machine, no_hardware, unused_port
from stackconf_agents import plugin, running
from stackconf_agents.config import SQLITE_CACHE_BYTES, AgentsConfig
from stackconf_storage import StoreUnusable

PROVIDER = Provider("agents", "meta-reference", "inline::meta-reference")
MIB = 1024**2
NEW_FORM = {
    "persistence": {
        "agent_state": {"backend": "kv_default", "namespace": "agents"},
        "responses": {
            "backend": "sql_default",
            "table_name": "responses",
            "max_write_queue_size": 10000,
            "num_writers": 4,
        },
    }
}


@pytest.fixture(autouse=True)
def _nothing_left():
    yield
    running.held.clear()


def _apply(config):
    return plugin.apply_config(provider=PROVIDER, config=config)


def _files(folder, **more):
    return AgentsConfig.model_validate(
        {
            "persistence_store": {"type": "sqlite", "db_path": str(folder / "agents_store.db")},
            "responses_store": {"type": "sqlite", "db_path": str(folder / "responses_store.db")},
            **more,
        }
    )


# The class


def test_old_and_new_forms_are_accepted():
    old = AgentsConfig.model_validate(
        {
            "persistence_store": {"type": "sqlite", "namespace": None, "db_path": "~/a.db"},
            "responses_store": {"type": "postgres", "port": "5432", "user": "u", "password": "p"},
        }
    )
    assert [store.type for store in old.stores.values()] == ["sqlite", "postgres"]
    new = AgentsConfig.model_validate({**NEW_FORM, "vector_stores_config": {"default_provider_id": "faiss"}})
    assert list(new.stores) == ["persistence.agent_state", "persistence.responses"]
    assert new.stores["persistence.responses"].num_writers == 4


def test_upstreams_broken_default_is_mended():
    for config in ({}, {"persistence_store": "sqlite"}):
        stores = AgentsConfig.model_validate(config).stores
        assert all(
            store.type == "sqlite" and store.db_path.startswith("~/.llama/") for store in stores.values()
        )
    assert len({store.db_path for store in AgentsConfig().stores.values()}) == 2


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"persistance": {}}, ("persistance",)),
        (
            {"persistence": {"agent_state": NEW_FORM["persistence"]["agent_state"]}},
            ("persistence", "responses"),
        ),
        ({"persistence_store": {"type": "sqlite", "path": "x"}}, ("persistence_store", "sqlite", "path")),
        ({"responses_store": {"type": "redis"}}, ("responses_store",)),
        ({"sqlite_cache_bytes": "1 MiB"}, ("sqlite_cache_bytes",)),
    ],
)
def test_mistakes_are_refused_at_their_field(config, place):
    with pytest.raises(ValidationError) as caught:
        AgentsConfig.model_validate(config)
    assert caught.value.errors()[0]["loc"] == place


def test_only_the_cache_is_a_user_field():
    labelled = {
        name
        for name, field in AgentsConfig.model_fields.items()
        if (field.json_schema_extra or {}).get("user_field")
    }
    assert labelled == {"sqlite_cache_bytes"}


# Defaults from hardware


@pytest.mark.parametrize(
    ("hardware", "cache"),
    [
        (machine(memory_gib=16), 32 * MIB),
        (machine(memory_gib=512), 64 * MIB),
        (machine(memory_gib=512, memory_limit_gib=2), 4 * MIB),
        (machine(memory_gib=0.25), SQLITE_CACHE_BYTES),
    ],
)
def test_the_cache_follows_usable_memory(hardware, cache):
    given = plugin.default_config(hardware=hardware)
    assert given["sqlite_cache_bytes"].value == cache
    assert "usable memory" in given["sqlite_cache_bytes"].reason
    AgentsConfig.model_validate({"sqlite_cache_bytes": cache})


def test_nothing_known_gives_no_defaults():
    assert plugin.default_config(hardware=no_hardware()) is None


def test_both_forms_at_once_are_warned_about():
    both = AgentsConfig.model_validate({**NEW_FORM, "responses_store": {"type": "sqlite"}})
    assert [(one.level, one.path) for one in plugin.validate_user_config(config=both)] == [
        ("warning", "responses_store")
    ]
    assert not list(plugin.validate_user_config(config=AgentsConfig()))


# Applying


def test_both_files_are_made_and_state_is_kept_in_upstreams_table(tmp_path):
    applied = _apply(_files(tmp_path / "new", sqlite_cache_bytes=3 * MIB))
    assert applied.pending is None
    assert applied.check() is None
    assert "up to 3.0 MiB of state kept in memory" in applied.detail
    state = stackconf_agents.current()
    assert (state.get("session:1"), state.keys()) == (None, [])
    state.set("session:1", '{"turns": 1}')
    state.set("session:2", "{}")
    state.set("other", "{}")
    state.delete("session:2")
    assert (state.get("session:1"), state.keys("session:")) == ('{"turns": 1}', ["session:1"])
    db = sqlite3.connect(tmp_path / "new" / "agents_store.db")
    assert db.execute("SELECT key, value, expiration FROM kvstore ORDER BY key").fetchall() == [
        ("other", "{}", None),
        ("session:1", '{"turns": 1}', None),
    ]
    db.close()
    assert (tmp_path / "new" / "responses_store.db").exists()


def test_the_cache_acts_on_the_open_file_and_a_change_moves_it(tmp_path):
    _apply(_files(tmp_path, sqlite_cache_bytes=4 * MIB))
    first = stackconf_agents.current()
    assert first.cache_bytes == 4 * MIB
    changed = _apply(_files(tmp_path, sqlite_cache_bytes=8 * MIB))
    assert stackconf_agents.current().cache_bytes == 8 * MIB
    assert changed.check() is None
    changed.undo()
    assert stackconf_agents.current() is first
    first.set("still", "open")
    assert first.get("still") == "open"


def test_undoing_a_join_removes_what_is_still_empty(tmp_path):
    applied = _apply(_files(tmp_path / "a" / "b"))
    applied.undo()
    assert list(tmp_path.iterdir()) == []
    assert stackconf_agents.current() is None


def test_undoing_keeps_a_file_that_was_used(tmp_path):
    applied = _apply(_files(tmp_path / "a"))
    stackconf_agents.current().set("session", "1")
    applied.undo()
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["agents_store.db"]


def test_leaving_closes_and_keeps_and_can_be_undone(tmp_path):
    _apply(_files(tmp_path))
    state = stackconf_agents.current()
    state.set("session", "1")
    left = _apply(None)
    assert stackconf_agents.current() is None
    left.undo()
    assert stackconf_agents.current() is state
    assert state.get("session") == "1"
    _apply(None)
    again = _apply(None)
    assert again.detail == "this process kept none of the agents' stores open"
    again.undo()
    assert again.check_undo() is None
    assert (tmp_path / "agents_store.db").exists()


def test_applying_the_same_again_keeps_the_state(tmp_path):
    for _ in range(3):
        assert _apply(_files(tmp_path)).check() is None
        stackconf_agents.current().set("session", "1")
    assert stackconf_agents.current().keys() == ["session"]


def test_any_thread_may_use_the_state(tmp_path):
    _apply(_files(tmp_path))
    state = stackconf_agents.current()
    threads = [threading.Thread(target=state.set, args=(f"k{n}", str(n))) for n in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(state.keys("k")) == 8


def test_the_check_tells_when_a_file_is_gone_or_replaced(tmp_path):
    applied = _apply(_files(tmp_path))
    (tmp_path / "responses_store.db").unlink()
    assert applied.check() == f"responses_store: {tmp_path / 'responses_store.db'} is gone"
    (tmp_path / "responses_store.db").touch()
    assert applied.check() is None
    other = tmp_path / "other"
    other.touch()
    other.rename(tmp_path / "agents_store.db")
    assert applied.check() == f"{tmp_path / 'agents_store.db'} was replaced while in use"
    newer = _apply(_files(tmp_path))
    assert applied.check() == "agents/meta-reference of this process has been configured anew since"
    assert newer.check() is None


def test_an_undo_is_verified(tmp_path):
    joined = _apply(_files(tmp_path / "1"))
    first = stackconf_agents.current()
    changed = _apply(_files(tmp_path / "2"))
    assert (
        changed.check_undo() == "agents/meta-reference of this process does not have again what it had before"
    )
    changed.undo()
    assert changed.check_undo() is None
    assert stackconf_agents.current() is first
    other = tmp_path / "other"
    other.touch()
    other.rename(tmp_path / "1" / "agents_store.db")
    assert changed.check_undo() == f"{tmp_path / '1' / 'agents_store.db'} was replaced while in use"
    (tmp_path / "1" / "responses_store.db").unlink()
    assert changed.check_undo() == f"responses_store: {tmp_path / '1' / 'responses_store.db'} is gone"
    joined.undo()
    assert joined.check_undo() is None


def test_an_undo_that_comes_too_late_fails_and_keeps_what_is_in_use(tmp_path):
    joined = _apply(_files(tmp_path))
    _apply(_files(tmp_path, sqlite_cache_bytes=4 * MIB))
    used = stackconf_agents.current()
    with pytest.raises(StackconfError, match="configured anew since; that is kept"):
        joined.undo()
    assert stackconf_agents.current() is used
    used.set("still", "open")
    assert joined.check_undo() is not None


def test_state_that_is_not_in_a_file_has_its_stores_verified_too(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        redis = {"type": "redis", "host": "127.0.0.1", "port": server.getsockname()[1]}
        _apply(_files(tmp_path, persistence_store=redis))
        assert stackconf_agents.current() is None
        left = _apply(None)
        left.undo()
        assert left.check_undo() is None
    assert left.check_undo().startswith("persistence_store: cannot reach redis")


def test_a_file_that_is_no_database_is_refused_in_one_line_and_nothing_changes(tmp_path):
    _apply(_files(tmp_path / "good"))
    used = stackconf_agents.current()
    (tmp_path / "responses_store.db").write_text(
        "certainly no database, but long enough for a header", encoding="utf-8"
    )
    with pytest.raises(StoreUnusable) as caught:
        _apply(_files(tmp_path))
    assert str(caught.value).startswith(f"responses_store: cannot use {tmp_path / 'responses_store.db'}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "agents_store.db").exists()
    assert stackconf_agents.current() is used


@pytest.mark.parametrize("kind", ["postgres", "redis", "mongodb"])
def test_a_server_that_is_not_there_is_pending_and_changes_nothing(tmp_path, kind):
    port = unused_port()
    store = {"type": kind, "host": "127.0.0.1", "port": port}
    login = {} if kind == "redis" else {"user": "u", "password": "secret-word"}
    config = AgentsConfig.model_validate(
        {
            "persistence_store": {**store, **login},
            "responses_store": {"type": "sqlite", "db_path": str(tmp_path / "r.db")},
        }
    )
    applied = _apply(config)
    assert (
        applied.pending == f"persistence_store: cannot reach {kind} at 127.0.0.1:{port}: connection refused"
    )
    assert list(tmp_path.iterdir()) == []
    assert stackconf_agents.current() is None


def test_references_are_left_to_the_storage_section():
    applied = _apply(AgentsConfig.model_validate(NEW_FORM))
    assert "namespace `agents` of backend `kv_default`" in applied.detail
    assert "table `responses` of backend `sql_default`" in applied.detail
    assert applied.check() is None
    assert stackconf_agents.current() is None
    applied.undo()


# In processes of their own


def test_after_a_killed_apply_a_fresh_process_goes_either_way(tmp_path):
    code = """
        import os, signal, sys
        from stackconf import Provider
        from stackconf_agents import current, plugin
        from stackconf_agents.config import AgentsConfig

        action, folder, cache = sys.argv[1:]
        stores = {
            f"{name}_store": {"type": "sqlite", "db_path": f"{folder}/{name}.db"}
            for name in ("persistence", "responses")
        }
        config = AgentsConfig.model_validate({**stores, "sqlite_cache_bytes": cache})
        provider = Provider("agents", "meta-reference", "inline::meta-reference")
        applied = plugin.apply_config(provider=provider, config=config)
        if action == "killed":
            current().set("session", "1")
            os.kill(os.getpid(), signal.SIGKILL)
        print(applied.check(), current().cache_bytes, current().get("session"))
        applied.undo()
        print(applied.check_undo(), current())
    """

    assert fresh_process(code, "killed", str(tmp_path), str(4 * MIB)).returncode == -signal.SIGKILL
    for cache in (4 * MIB, 8 * MIB):
        done = fresh_process(code, "again", str(tmp_path), str(cache))
        assert done.stdout.splitlines() == [f"None {cache} 1", "None None"], done.stderr


def test_importing_the_plugin_imports_nothing_heavy():
    code = (
        "import sys, stackconf_agents, stackconf_agents.plugin\n"
        "heavy = {'pydantic', 'sqlite3', 'asyncio', 'stackconf_storage'}\n"
        "print([m for m in sys.modules if m.split('.')[0] in heavy])"
    )
    done = fresh_process(code)
    assert done.stdout.strip() == "[]"


def test_entry_points_advertise_what_the_plugin_provides():
    advertised = {
        entry.name
        for entry in entry_points(group="stackconf.providers")
        if entry.value.startswith("stackconf_agents")
    }
    assert advertised == {kind.key for kind in plugin.provides}
