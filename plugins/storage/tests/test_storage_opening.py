from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from stackconf_storage import (
    KVStoreReference,
    MongoDBKVStoreConfig,
    PostgresKVStoreConfig,
    PostgresSqlStoreConfig,
    RedisKVStoreConfig,
    SqliteKVStoreConfig,
    SqliteSqlStoreConfig,
    SqlStoreReference,
    StoreUnusable,
    expanded,
    open_check,
    open_checks,
    opening,
)


@pytest.fixture
def listening():
    """The port of a listening socket that stands in for a server; nothing is sent to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        name = server.getsockname()
    return name[1]


@pytest.mark.parametrize("kind", [SqliteKVStoreConfig, SqliteSqlStoreConfig])
def test_a_sqlite_store_is_made_with_its_folders_and_taken_back(tmp_path, kind):
    path = tmp_path / "a" / "b" / "store.db"
    opened = open_check(kind(db_path=str(path)))
    assert opened.detail == f"sqlite file {path}, made and writable"
    assert opened.check() is None
    opened.undo()
    assert list(tmp_path.iterdir()) == []


def test_taking_back_removes_only_what_was_made_and_is_unused(tmp_path):
    (tmp_path / "mine").mkdir()
    first = open_check(SqliteKVStoreConfig(db_path=str(tmp_path / "mine" / "new" / "a.db")))
    (tmp_path / "mine" / "new" / "other.txt").touch()
    first.undo()
    assert [path.name for path in (tmp_path / "mine" / "new").iterdir()] == ["other.txt"]

    second = open_check(SqliteKVStoreConfig(db_path=str(tmp_path / "b.db")))
    with closing(sqlite3.connect(tmp_path / "b.db")) as used:
        used.execute("CREATE TABLE t (x)")
    second.undo()
    assert (tmp_path / "b.db").stat().st_size > 0


def test_an_existing_file_keeps_every_byte(tmp_path):
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as used:
        used.execute("CREATE TABLE t (x)")
        used.execute("PRAGMA user_version = 7")
    before = path.read_bytes()
    opened = open_check(SqliteKVStoreConfig(db_path=str(path)))
    assert opened.detail.endswith("found and writable")
    opened.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_home_folder_is_put_in_for_its_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    open_check(SqliteKVStoreConfig(db_path="~/kv.db"))
    assert (tmp_path / "kv.db").exists()
    assert expanded("~/x") == tmp_path / "x"
    with pytest.raises(StoreUnusable, match=r"^~nobody-of-that-name/kv.db: "):
        expanded("~nobody-of-that-name/kv.db")


def test_what_is_no_database_is_refused_and_not_touched(tmp_path):
    path = tmp_path / "store.db"
    path.write_bytes(b"not a database" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match=f"^cannot use {path}: file is not a database$"):
        open_check(SqliteKVStoreConfig(db_path=str(path)))
    assert path.read_bytes() == before


def test_paths_that_cannot_be_are_refused_without_a_trace(tmp_path):
    with pytest.raises(StoreUnusable, match=f"^{tmp_path} is not a file$"):
        open_check(SqliteKVStoreConfig(db_path=str(tmp_path)))
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnusable, match=r"^cannot make .*: Not a directory"):
        open_check(SqliteKVStoreConfig(db_path=str(tmp_path / "file" / "store.db")))
    long = "n" * 300
    with pytest.raises(StoreUnusable, match="File name too long"):
        open_check(SqliteKVStoreConfig(db_path=str(tmp_path / "new" / long)))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_or_file_without_permission_is_refused(tmp_path):
    path = tmp_path / "store.db"
    open_check(SqliteKVStoreConfig(db_path=str(path)))
    path.chmod(0o400)
    with pytest.raises(StoreUnusable, match="readonly database"):
        open_check(SqliteKVStoreConfig(db_path=str(path)))
    tmp_path.chmod(0o500)
    with pytest.raises(StoreUnusable, match="Permission denied"):
        open_check(SqliteKVStoreConfig(db_path=str(tmp_path / "other.db")))


def test_a_file_locked_by_another_process_is_pending(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "LOCK_SECONDS", 0.05)
    path = tmp_path / "store.db"
    code = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "db.execute('CREATE TABLE t (x)'); db.execute('BEGIN EXCLUSIVE'); print(flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout.readline()
        pending = open_check(SqliteKVStoreConfig(db_path=str(path))).pending
        holder.stdin.close()
    assert pending == f"{path} is locked by another process"


def test_check_says_what_became_of_the_file(tmp_path):
    path = tmp_path / "store.db"
    opened = open_check(SqliteKVStoreConfig(db_path=str(path)))
    path.write_bytes(b"spoilt" * 100)
    assert opened.check() == f"cannot use {path}: file is not a database"
    path.unlink()
    assert opened.check() == f"{path} is gone"
    assert not path.exists(), "a check must not make the file again"


@pytest.mark.parametrize("kind", [RedisKVStoreConfig, MongoDBKVStoreConfig])
def test_a_listening_socket_in_place_of_a_server_is_reached(listening, kind):
    opened = open_check(kind(host="127.0.0.1", port=listening))
    assert opened.detail.endswith(f"at 127.0.0.1:{listening} accepts connections (no login was tried)")
    assert opened.check() is None


def test_a_closed_port_is_pending(closed_port):
    opened = open_check(PostgresKVStoreConfig(host="127.0.0.1", port=closed_port, user="u"))
    assert opened.pending == f"cannot reach postgres at 127.0.0.1:{closed_port}: connection refused"


def test_a_connection_string_is_reached_at_any_of_its_hosts_and_never_shown(listening, closed_port):
    uri = f"postgresql://u:hunter2@127.0.0.1:{closed_port},127.0.0.1:{listening}/db"
    opened = open_check(PostgresSqlStoreConfig(connection_string=uri))
    assert opened.pending is None
    alone = open_check(
        PostgresSqlStoreConfig(connection_string=f"postgres://u:hunter2@127.0.0.1:{closed_port}/d")
    )
    assert alone.pending is not None
    assert "hunter2" not in f"{opened} {opened.detail} {alone}"


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("db", ("db", 5432)),
        ("db:6000", ("db", 6000)),
        ("[::1]:6000", ("::1", 6000)),
        ("[::1]", ("::1", 5432)),
        ("%2Fvar%2Frun:6000", ("/var/run", 6000)),
        ("", ("localhost", 5432)),
    ],
)
def test_the_ends_of_a_connection_string(text, end):
    assert opening._end(text) == end


def test_a_folder_as_host_means_a_unix_socket():
    # Not tmp_path: the name of a Unix socket is at most 107 bytes.
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        store = PostgresKVStoreConfig(host=folder, port=5433, user="u")
        assert open_check(store).pending is not None
        server.bind(str(Path(folder) / ".s.PGSQL.5433"))
        server.listen()
        assert open_check(store).pending is None


def test_a_name_lookup_that_hangs_is_given_up_and_called_so():
    def hang():
        time.sleep(2)
        raise OSError

    started = time.monotonic()
    assert opening._within(0.05, hang) == "no answer within 0.05 s"
    assert time.monotonic() - started < 1


def test_references_are_the_storage_sections_business():
    opened = open_check(SqlStoreReference(backend="sql_default", table_name="t"))
    assert opened.detail == "table `t` of backend `sql_default`, which the stack's storage section keeps"
    assert opened.undo is None


def test_several_stores_are_opened_all_or_none(tmp_path, closed_port):
    first, second = (SqliteKVStoreConfig(db_path=str(tmp_path / name / "s.db")) for name in "ab")
    opened = open_checks({"first": first, "none": None, "second": second})
    assert opened.detail.startswith("first: sqlite file ")
    assert "; second: sqlite file " in opened.detail
    (tmp_path / "b" / "s.db").unlink()
    assert opened.check() == f"second: {tmp_path / 'b' / 's.db'} is gone"
    opened.undo()
    assert list(tmp_path.iterdir()) == []

    away = RedisKVStoreConfig(host="127.0.0.1", port=closed_port)
    assert open_checks({"first": first, "away": away}).pending.startswith("away: cannot reach redis at ")
    assert list(tmp_path.iterdir()) == []

    folder = SqliteKVStoreConfig(db_path=str(tmp_path))
    with pytest.raises(StoreUnusable, match=r"^folder: .* is not a file$"):
        open_checks({"first": first, "folder": folder})
    assert list(tmp_path.iterdir()) == []


def test_no_store_at_all_is_fine():
    opened = open_checks({"first": None, "second": KVStoreReference(backend="b", namespace="n")})
    assert opened.pending is None
    assert opened.check() is None
