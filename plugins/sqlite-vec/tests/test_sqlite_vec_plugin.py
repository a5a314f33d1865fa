from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path
from struct import pack

import pytest
from pydantic import ValidationError

from stackconf import Provider
from stackconf.testing import fresh_process, machine, no_hardware, unused_port
from stackconf_sqlite_vec import Settings, connect, database, plugin, settings_of
from stackconf_sqlite_vec.config import SqliteVecConfig
from stackconf_storage import StoreUnusable

MIB = 1024**2
KEY = "vector_io/sqlite-vec"
PROVIDER = Provider("vector_io", "sqlite-vec", "inline::sqlite-vec")
LOADS_EXTENSIONS = hasattr(sqlite3.Connection, "enable_load_extension")
INNER_RUN = "STACKCONF_TEST_SYSTEM_PYTHON"


@pytest.fixture(autouse=True)
def _nothing_left_in_force():
    yield
    plugin.apply_config(PROVIDER, None)


def config(path: Path, **settings):
    return SqliteVecConfig.model_validate({"db_path": str(path), **settings})


def pragma(path: Path, name: str):
    with connect(path, Settings()) as opened:
        return opened.value(f"PRAGMA {name}")


@pytest.mark.parametrize(
    "form",
    [
        {"db_path": "~/.llama/sqlite_vec.db"},
        {"db_path": "v.db", "kvstore": {"type": "sqlite", "db_path": "registry.db"}},
        {"db_path": "v.db", "persistence": {"backend": "kv_default", "namespace": "vector_io::sqlite_vec"}},
        {
            "db_path": "v.db",
            "persistence": {"backend": "kv_default", "namespace": "n"},
            "metadata_store": {"backend": "sql_default", "table_name": "t"},
        },
        {"db_path": "v.db", "cache_bytes": "67108864", "busy_timeout_ms": "100", "page_size": "4096"},
    ],
)
def test_the_forms_of_every_version_are_accepted(form):
    assert SqliteVecConfig.model_validate(form).db_path == form["db_path"]


@pytest.mark.parametrize(
    ("form", "place"),
    [
        ({}, ("db_path",)),
        ({"db_path": ""}, ("db_path",)),
        ({"db_path": "a\x00b"}, ("db_path",)),
        ({"db_path": "v.db", "cache_byte": 1}, ("cache_byte",)),
        ({"db_path": "v.db", "page_size": 5000}, ("page_size",)),
        ({"db_path": "v.db", "mmap_bytes": 2**31}, ("mmap_bytes",)),
        ({"db_path": "v.db", "kvstore": {"type": "sqlite", "dbpath": "x"}}, ("kvstore", "sqlite", "dbpath")),
    ],
)
def test_a_mistake_is_refused_where_it_is(form, place):
    with pytest.raises(ValidationError) as caught:
        SqliteVecConfig.model_validate(form)
    assert [error["loc"] for error in caught.value.errors()] == [place]


def test_nothing_is_derived_from_nothing():
    assert plugin.default_config(no_hardware()) == {}


@pytest.mark.parametrize(
    ("hardware", "mmap", "cache", "batch"),
    [
        (machine(memory_gib=64), 0x7FFF0000, 64 * MIB, 2000),
        (machine(memory_gib=16), 0x7FFF0000, 64 * MIB, 512),
        (machine(memory_gib=64, memory_limit_gib=2), 512 * MIB, 8 * MIB, 64),
        (machine(memory_gib=0.25), 64 * MIB, 2 * MIB, 50),
    ],
)
def test_defaults_follow_the_machine(hardware, mmap, cache, batch):
    found = plugin.default_config(hardware)
    values = {name: given.value for name, given in found.items()}
    assert values == {"mmap_bytes": mmap, "cache_bytes": cache, "insert_batch_size": batch}
    assert all(given.reason for given in found.values())
    assert not list(plugin.validate_user_config(config(Path("v.db"), **values), hardware))


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"db_path": ":memory:"}, "db_path"),
        ({"cache_bytes": 64 * 1024 * MIB}, "cache_bytes"),
        ({"kvstore": "sqlite", "persistence": {"backend": "a", "namespace": "b"}}, "kvstore"),
    ],
)
def test_what_the_class_cannot_say_is_an_issue(settings, path):
    subject = SqliteVecConfig.model_validate({"db_path": "v.db", **settings})
    (issue,) = plugin.validate_user_config(subject, machine())
    assert (issue.path, issue.level) == (path, "error")
    assert issue.hint


@pytest.mark.parametrize("provider_type", ["inline::sqlite-vec", "inline::sqlite_vec"])
def test_a_join_prepares_the_file_and_its_undo_leaves_nothing(tmp_path, provider_type):
    provider = Provider("vector_io", "sqlite-vec", provider_type)
    path = tmp_path / "made" / "v.db"
    registry = tmp_path / "other" / "registry.db"
    subject = config(
        path, cache_bytes=8 * MIB, mmap_bytes=64 * MIB, kvstore={"type": "sqlite", "db_path": str(registry)}
    )

    joined = plugin.apply_config(provider, subject)

    assert joined.check() is None
    assert pragma(path, "journal_mode") == "wal"
    assert pragma(path, "page_size") == 16384
    assert registry.exists()
    assert f"{path}: journal mode wal, pages of 16384 bytes" in joined.detail
    assert ("sqlite3 (SQLite" if LOADS_EXTENSIONS else "apsw (SQLite") in joined.detail
    with connect(path, settings_of(KEY)) as opened:
        assert opened.value("PRAGMA cache_size") == -8 * 1024
        assert opened.value("PRAGMA mmap_size") == 64 * MIB
        assert opened.value("PRAGMA busy_timeout") == 5000

    joined.undo()
    assert settings_of(KEY) is None
    assert list(tmp_path.iterdir()) == []


def test_a_change_and_its_undo(tmp_path):
    path = tmp_path / "v.db"
    joined = plugin.apply_config(PROVIDER, config(path, cache_bytes=4 * MIB))
    changed = plugin.apply_config(PROVIDER, config(path, cache_bytes=8 * MIB, page_size=4096))
    assert settings_of(KEY).cache_bytes == 8 * MIB
    assert "pages of 16384 bytes" in changed.detail, "a file keeps the page size it was made with"
    assert joined.check() == "vector_io/sqlite-vec of this process has been configured anew since"
    changed.undo()
    assert settings_of(KEY).cache_bytes == 4 * MIB
    assert path.exists()
    assert joined.check() is None


def test_applying_the_same_again_changes_no_byte(tmp_path):
    path = tmp_path / "v.db"
    plugin.apply_config(PROVIDER, config(path))
    before = path.read_bytes()
    plugin.apply_config(PROVIDER, config(path))
    assert path.read_bytes() == before


def test_undoing_a_join_keeps_vectors_that_came_meanwhile(tmp_path):
    path = tmp_path / "made" / "v.db"
    joined = plugin.apply_config(PROVIDER, config(path))
    with connect(path, settings_of(KEY)) as opened:
        opened.rows("CREATE VIRTUAL TABLE v USING vec0(embedding FLOAT[2])")
        opened.insert("INSERT INTO v (embedding) VALUES (?)", [(pack("2f", 1, 2),)])
    joined.undo()
    with connect(path, Settings()) as opened:
        assert opened.value("SELECT count(*) FROM v") == 1


def test_undo_gives_an_existing_file_its_journal_mode_back(tmp_path):
    path = tmp_path / "v.db"
    with closing(sqlite3.connect(path)) as plain:
        plain.execute("CREATE TABLE chunks (id TEXT)")
    before = path.read_bytes()
    joined = plugin.apply_config(PROVIDER, config(path))
    assert pragma(path, "journal_mode") == "wal"
    assert "pages of 4096 bytes" in joined.detail
    joined.undo()
    assert pragma(path, "journal_mode") == "delete"
    # The first 100 bytes are the header, with the journal mode, counters and SQLite's version.
    assert path.read_bytes()[100:] == before[100:]
    assert sorted(tmp_path.iterdir()) == [path]


def test_undo_takes_an_empty_file_back_to_empty(tmp_path):
    path = tmp_path / "v.db"
    path.touch()
    joined = plugin.apply_config(PROVIDER, config(path))
    assert path.stat().st_size > 0
    joined.undo()
    assert path.stat().st_size == 0


def test_leaving_keeps_the_file_and_can_be_undone(tmp_path):
    path = tmp_path / "v.db"
    joined = plugin.apply_config(PROVIDER, config(path))
    left = plugin.apply_config(PROVIDER, None)
    assert path.exists()
    assert settings_of(KEY) is None
    left.undo()
    assert joined.check() is None


def test_an_undo_is_verified(tmp_path):
    path, other = tmp_path / "v.db", tmp_path / "w.db"
    joined = plugin.apply_config(PROVIDER, config(path, cache_bytes=4 * MIB))
    first = settings_of(KEY)
    changed = plugin.apply_config(PROVIDER, config(other))
    assert changed.check_undo() == f"{KEY} of this process does not have again what it had before"
    changed.undo()
    assert changed.check_undo() is None
    assert settings_of(KEY) is first
    assert not other.exists()
    path.write_bytes(b"no database" * 1000)
    assert changed.check_undo() == f"cannot use {path}: file is not a database"
    path.unlink()
    assert changed.check_undo() == f"{path} is gone"
    joined.undo()
    assert joined.check_undo() is None


def test_an_undo_that_cannot_give_the_journal_mode_back_fails(tmp_path):
    path = tmp_path / "v.db"
    with closing(sqlite3.connect(path)) as plain:
        plain.execute("CREATE TABLE chunks (id TEXT)")
    joined = plugin.apply_config(PROVIDER, config(path))
    with connect(path, Settings()) as opened:
        opened.rows("BEGIN")
        opened.rows("SELECT * FROM chunks")
        with pytest.raises(StoreUnusable, match="locked"):
            joined.undo()
    assert settings_of(KEY) is None
    assert pragma(path, "journal_mode") == "wal"


def test_what_is_applied_again_or_leaves_without_having_run_is_fine(tmp_path):
    left = plugin.apply_config(PROVIDER, None)
    left.undo()
    assert left.check_undo() is None
    for _ in range(2):
        assert plugin.apply_config(PROVIDER, config(tmp_path / "v.db")).check() is None


def test_after_a_killed_apply_a_fresh_process_goes_either_way(tmp_path):
    code = """
        import os, signal, sys
        from pathlib import Path
        from stackconf import Provider
        from stackconf_sqlite_vec import connect, plugin, settings_of
        from stackconf_sqlite_vec.config import SqliteVecConfig

        config = SqliteVecConfig(db_path=sys.argv[2], insert_batch_size=sys.argv[3])
        key = "vector_io/sqlite-vec"
        applied = plugin.apply_config(Provider(*key.split("/"), "inline::sqlite-vec"), config)
        if sys.argv[1] == "killed":
            # Half way through a write, so that the file is left with its journal.
            with connect(Path(sys.argv[2]), settings_of(key)) as opened:
                opened.rows("CREATE TABLE t (x)")
                opened.rows("INSERT INTO t VALUES ('kept')")
                opened.rows("BEGIN IMMEDIATE")
                opened.rows("INSERT INTO t VALUES ('lost')")
                os.kill(os.getpid(), signal.SIGKILL)
        print(applied.check(), settings_of(key).insert_batch_size)
        applied.undo()
        print(applied.check_undo(), settings_of(key))
    """
    path = tmp_path / "v.db"

    assert fresh_process(code, "killed", str(path), "20").returncode == -signal.SIGKILL
    assert (tmp_path / "v.db-wal").exists()
    for size in ("20", "10"):
        done = fresh_process(code, "again", str(path), size)
        assert done.stdout.splitlines() == [f"None {size}", "None None"], done.stderr
    with connect(path, Settings()) as opened:
        assert opened.rows("SELECT x FROM t") == [("kept",)]


def test_check_says_when_the_file_is_gone_or_spoilt(tmp_path):
    path = tmp_path / "v.db"
    joined = plugin.apply_config(PROVIDER, config(path))
    path.write_bytes(b"no database" * 1000)
    assert joined.check() == f"cannot use {path}: file is not a database"
    path.unlink()
    assert joined.check() == f"{path} is gone"


def test_a_corrupt_file_is_rejected_and_not_touched(tmp_path):
    path = tmp_path / "v.db"
    path.write_bytes(b"these are not the pages of a database" * 500)
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match=f"^cannot use {path}: file is not a database$"):
        plugin.apply_config(PROVIDER, config(path))
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [path]
    assert settings_of(KEY) is None


def test_a_folder_in_place_of_the_file_is_rejected(tmp_path):
    with pytest.raises(StoreUnusable, match=f"^{tmp_path} is not a file$"):
        plugin.apply_config(PROVIDER, config(tmp_path))


def test_a_folder_that_cannot_be_made_is_rejected_without_a_trace(tmp_path):
    # /proc refuses to make files for everyone, root included.
    with pytest.raises(StoreUnusable, match=r"^cannot make /proc/stackconf/v.db: No such file or directory"):
        plugin.apply_config(PROVIDER, config(Path("/proc/stackconf/v.db")))
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnusable, match=r"^cannot make .*: Not a directory"):
        plugin.apply_config(PROVIDER, config(tmp_path / "file" / "v.db"))
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_rejected(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreUnusable, match="Permission denied"):
        plugin.apply_config(PROVIDER, config(tmp_path / "v.db"))


def test_a_registry_that_is_unusable_rejects_and_leaves_nothing(tmp_path):
    subject = config(tmp_path / "a" / "v.db", kvstore={"type": "sqlite", "db_path": str(tmp_path)})
    with pytest.raises(StoreUnusable, match=r"^kvstore: .* is not a file$"):
        plugin.apply_config(PROVIDER, subject)
    assert list(tmp_path.iterdir()) == []


def test_a_registry_out_of_reach_is_pending_and_leaves_nothing(tmp_path):
    port = unused_port()
    redis = {"type": "redis", "host": "127.0.0.1", "port": port}
    applied = plugin.apply_config(PROVIDER, config(tmp_path / "a" / "v.db", kvstore=redis))
    assert applied.pending == f"kvstore: cannot reach redis at 127.0.0.1:{port}: connection refused"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "hold",
    [
        "CREATE TABLE t (x); BEGIN EXCLUSIVE",
        "CREATE TABLE t (x); BEGIN; SELECT * FROM t",
        "CREATE TABLE t (x); PRAGMA journal_mode = WAL; BEGIN IMMEDIATE",
        "BEGIN IMMEDIATE",
    ],
)
def test_a_file_locked_by_another_process_is_pending(tmp_path, hold):
    path = tmp_path / "v.db"
    code = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "[db.execute(sql).fetchall() for sql in sys.argv[2].split(';')]; print(flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path), hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout.readline()
        applied = plugin.apply_config(PROVIDER, config(path, busy_timeout_ms=50))
        holder.stdin.close()
    assert applied.pending == f"{path} is locked by another process"
    assert plugin.apply_config(PROVIDER, config(path)).check() is None


def test_one_file_for_vectors_and_registry_is_opened_once(tmp_path):
    path = tmp_path / "v.db"
    subject = config(path, kvstore={"type": "sqlite", "db_path": str(path)})
    assert "kvstore" not in plugin.apply_config(PROVIDER, subject).detail


def test_an_insert_is_all_or_none_and_in_batches(tmp_path):
    path = tmp_path / "v.db"
    path.touch()
    with connect(path, Settings(insert_batch_size=7)) as opened:
        opened.rows("CREATE VIRTUAL TABLE v USING vec0(embedding FLOAT[2])")
        insert = "INSERT INTO v (rowid, embedding) VALUES (?, ?)"
        good = [(number, pack("2f", number, 0)) for number in range(1, 51)]
        assert opened.insert(insert, good) == 50
        bad = [*((number, pack("2f", 0, 0)) for number in range(51, 70)), (99, b"short")]
        with pytest.raises(StoreUnusable, match=f"^cannot use {path}: "):
            opened.insert(insert, bad)
        assert opened.value("SELECT count(*) FROM v") == 50
        query = "SELECT rowid FROM v WHERE embedding MATCH ? AND k = 3"
        assert opened.rows(query, [pack("2f", 20.2, 0)]) == [(20,), (21,), (19,)]


@pytest.mark.parametrize("opened_with", ["_opened", "_with_apsw"])
def test_an_insert_that_sqlite_itself_rolled_back_says_why(tmp_path, monkeypatch, opened_with):
    monkeypatch.setattr(database, "_opened", getattr(database, opened_with))
    path = tmp_path / "v.db"
    path.touch()
    with connect(path, Settings()) as opened:
        opened.rows("CREATE TABLE t (x)")
        opened.rows("INSERT INTO t VALUES ('kept')")
        opened.rows("PRAGMA max_page_count = 20")
        with pytest.raises(StoreUnusable, match=f"^cannot use {path}: .*database or disk is full"):
            opened.insert("INSERT INTO t VALUES (?)", [("x" * 5000,)] * 100)
        assert opened.rows("SELECT x FROM t") == [("kept",)]
        opened.rows("BEGIN")


def test_apsw_serves_where_sqlite3_loads_no_extensions(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "_opened", database._with_apsw)
    applied = plugin.apply_config(PROVIDER, config(tmp_path / "v.db", cache_bytes=4 * MIB, mmap_bytes=MIB))
    assert "through apsw (SQLite" in applied.detail
    assert applied.check() is None
    applied.undo()
    assert list(tmp_path.iterdir()) == []


def test_a_sqlite_that_grants_a_smaller_map_is_told_of_and_not_refused(tmp_path):
    # SQLite's limit can be lowered only while it is shut down, hence the process of its own.
    code = """
        import sys
        import apsw
        from stackconf import Provider
        from stackconf_sqlite_vec import database, plugin
        from stackconf_sqlite_vec.config import SqliteVecConfig

        apsw.shutdown()
        apsw.config(apsw.SQLITE_CONFIG_MMAP_SIZE, 0, 2 * 1024**2)
        apsw.initialize()
        database._opened = database._with_apsw
        config = SqliteVecConfig(db_path=sys.argv[1], mmap_bytes=8 * 1024**2)
        applied = plugin.apply_config(Provider("vector_io", "v", "inline::sqlite-vec"), config)
        print(applied.detail, applied.check())
    """
    out = fresh_process(code, tmp_path / "v.db").stdout
    assert out.endswith("connections of this process: map 2 MiB, all that this SQLite grants None\n")


def _system_python() -> str | None:
    """The distribution's Python of this version, if its sqlite3 loads extensions."""
    path = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    code = "import sqlite3; print(hasattr(sqlite3.Connection, 'enable_load_extension'))"
    if not Path(path).exists() or sys.prefix == sys.base_prefix:
        return None
    out = subprocess.run(
        [path, "-c", code], capture_output=True, text=True, encoding="utf-8", check=False
    ).stdout
    return path if out.strip() == "True" else None


@pytest.mark.skipif(INNER_RUN in os.environ, reason="this is the inner run")
def test_everything_here_holds_under_the_system_python_whose_sqlite3_loads_extensions():
    python = _system_python()
    if python is None:
        pytest.skip("no system Python of this version with extension loading")
    # The standard library must be the other Python's own, so only what lies outside of ours goes along.
    ours = [path for path in sys.path if path and not path.startswith(sys.base_prefix)]
    run = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, INNER_RUN: "1", "PYTHONPATH": os.pathsep.join(ours)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout


@pytest.mark.skipif(INNER_RUN not in os.environ, reason="runs under the system Python only")
def test_the_inner_run_uses_sqlite3():
    assert LOADS_EXTENSIONS


def test_importing_the_plugin_is_cheap():
    code = (
        "import sys, stackconf_sqlite_vec.plugin; "
        "print({'apsw', 'sqlite_vec', 'sqlite3', 'asyncio'} & set(sys.modules))"
    )
    out = fresh_process(code)
    assert out.stdout.strip() == "set()"


def test_the_entry_points_are_what_the_plugin_provides():
    points = entry_points(group="stackconf.providers")
    names = {point.name for point in points if point.dist.name == "stackconf-sqlite-vec"}
    assert names == {kind.key for kind in plugin.provides}
