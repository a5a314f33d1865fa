from __future__ import annotations

import signal
from importlib.metadata import entry_points
from pathlib import Path
from threading import Thread

import faiss
import numpy as np
import pytest
from pydantic import ValidationError

from stackconf import Provider, StackconfError
from stackconf.testing import fresh_process, machine, no_hardware, unused_port
from stackconf_faiss import Engine, IndexTooLarge, engine, plugin
from stackconf_faiss.config import FaissConfig
from stackconf_faiss.engine import threads
from stackconf_storage import StoreUnusable

PROVIDER = Provider("vector_io", "faiss", "inline::faiss")


@pytest.fixture(autouse=True)
def _as_before():
    before = threads()
    yield
    plugin.apply_config(PROVIDER, None)
    faiss.omp_set_num_threads(before)


def config(path: Path, **settings):
    return FaissConfig.model_validate({"kvstore": {"type": "sqlite", "db_path": str(path)}, **settings})


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"kvstore": "sqlite"},
        {"kvstore": {"type": "sqlite", "namespace": None, "db_path": "~/.llama/faiss_store.db"}},
        {"kvstore": {"type": "redis", "host": "cache", "port": "6379"}},
        {"persistence": {"backend": "kv_default", "namespace": "vector_io::faiss"}},
        {
            "persistence": {"backend": "kv_default", "namespace": "vector_io::faiss"},
            "metadata_store": {"backend": "sql_default", "table_name": "stores"},
        },
    ],
)
def test_the_forms_of_every_version_are_accepted(form):
    assert FaissConfig.model_validate(form).store


@pytest.mark.parametrize(
    ("form", "place"),
    [
        ({"kvstor": {"type": "sqlite"}}, ("kvstor",)),
        ({"kvstore": {"type": "sqlite", "db_pth": "x"}}, ("kvstore", "sqlite", "db_pth")),
        ({"persistence": {"backend": "kv_default"}}, ("persistence", "reference", "namespace")),
        ({"num_threads": 0}, ("num_threads",)),
        ({"search_batch_size": "many"}, ("search_batch_size",)),
    ],
)
def test_a_mistake_is_refused_where_it_is(form, place):
    with pytest.raises(ValidationError) as caught:
        FaissConfig.model_validate(form)
    assert [error["loc"] for error in caught.value.errors()] == [place]


def test_numbers_may_come_as_text_from_the_environment():
    assert FaissConfig.model_validate({"num_threads": "4"}).num_threads == 4


def test_nothing_is_derived_from_nothing():
    assert plugin.default_config(no_hardware()) == {}


@pytest.mark.parametrize(
    ("hardware", "num_threads", "index_bytes", "batch"),
    [
        (machine(cores=8, memory_gib=32), 8, 512 * 1024**2, 65_536),
        (machine(cores=8, cpu_quota=2.5, memory_gib=2), 2, 256 * 1024**2, 8_192),
        (machine(cores=1, memory_gib=64, memory_limit_gib=0.0625), 1, 8 * 1024**2, 256),
    ],
)
def test_defaults_follow_the_machine(hardware, num_threads, index_bytes, batch):
    found = plugin.default_config(hardware)
    assert {name: given.value for name, given in found.items()} == {
        "num_threads": num_threads,
        "max_index_bytes": index_bytes,
        "add_batch_size": batch,
    }
    assert all(given.reason for given in found.values())
    FaissConfig.model_validate({name: given.value for name, given in found.items()})
    assert not list(plugin.validate_user_config(FaissConfig(num_threads=num_threads), hardware))


def test_a_reason_tells_the_bound_that_decided():
    reasons = [plugin.default_config(machine(memory_gib=gib))["add_batch_size"].reason for gib in (2, 1 / 64)]
    assert reasons == [
        "vectors of 1024 dimensions (4 KiB each) in 1/64 of 2 GiB usable memory",
        "vectors of 1024 dimensions (4 KiB each) in 1/64 of 16 MiB usable memory, at least 256",
    ]


@pytest.mark.parametrize(
    ("settings", "path", "level"),
    [
        ({"max_index_bytes": 64 * 1024**3}, "max_index_bytes", "error"),
        ({"max_index_bytes": 900_000_000}, "max_index_bytes", "warning"),
        ({"kvstore": {"type": "mongodb"}, "max_index_bytes": 20_000_000}, "max_index_bytes", "warning"),
        ({"num_threads": 100}, "num_threads", "warning"),
        (
            {"kvstore": {"type": "sqlite"}, "persistence": {"backend": "a", "namespace": "b"}},
            "kvstore",
            "error",
        ),
    ],
)
def test_what_the_class_cannot_say_is_an_issue(settings, path, level):
    issues = list(plugin.validate_user_config(FaissConfig.model_validate(settings), machine()))
    assert (path, level) in [(issue.path, issue.level) for issue in issues]
    assert all(issue.hint for issue in issues)


def test_threads_unknown_are_not_judged():
    assert not list(plugin.validate_user_config(FaissConfig(num_threads=100), no_hardware()))


def test_apply_change_undo_and_leave(tmp_path):
    store = tmp_path / "made" / "faiss.db"
    own = threads()

    joined = plugin.apply_config(PROVIDER, config(store, num_threads=own + 1))
    assert store.exists()
    assert threads() == own + 1
    assert joined.check() is None
    assert str(store) in joined.detail

    changed = plugin.apply_config(PROVIDER, config(store, num_threads=own + 2, search_batch_size=7))
    assert threads() == own + 2
    assert engine("vector_io/faiss").search_batch_size == 7
    assert changed.check() is None
    assert joined.check() == "vector_io/faiss of this process has been configured anew since"

    changed.undo()
    assert threads() == own + 1
    assert engine("vector_io/faiss").search_batch_size == 4096
    assert store.exists(), "undoing a change must not remove what the join made"

    plugin.apply_config(PROVIDER, config(store))
    assert threads() == own, "no number of threads given: OpenMP's own"

    left = plugin.apply_config(PROVIDER, None)
    assert engine("vector_io/faiss") is None
    left.undo()
    assert engine("vector_io/faiss") is not None


def test_undoing_a_join_leaves_nothing_behind(tmp_path):
    own = threads()
    joined = plugin.apply_config(PROVIDER, config(tmp_path / "a" / "b" / "faiss.db", num_threads=own + 1))
    joined.undo()
    assert threads() == own
    assert engine("vector_io/faiss") is None
    assert list(tmp_path.iterdir()) == []


def test_an_undo_is_verified(tmp_path):
    own = threads()
    joined = plugin.apply_config(PROVIDER, config(tmp_path / "1.db", num_threads=own + 1))
    first = engine("vector_io/faiss")
    changed = plugin.apply_config(PROVIDER, config(tmp_path / "2.db"))
    assert changed.check_undo() == "vector_io/faiss of this process does not have again what it had before"
    changed.undo()
    assert changed.check_undo() is None
    assert engine("vector_io/faiss") is first
    (tmp_path / "1.db").unlink()
    assert changed.check_undo() == f"kvstore: {tmp_path / '1.db'} is gone"
    joined.undo()
    assert joined.check_undo() is None


def test_an_undo_that_comes_too_late_fails_and_keeps_what_is_in_use(tmp_path):
    joined = plugin.apply_config(PROVIDER, config(tmp_path / "1.db"))
    plugin.apply_config(PROVIDER, config(tmp_path / "1.db", search_batch_size=7))
    with pytest.raises(StackconfError, match="configured anew since; that is kept"):
        joined.undo()
    assert joined.check_undo() is not None
    assert engine("vector_io/faiss").search_batch_size == 7
    assert (tmp_path / "1.db").exists()


def test_check_says_when_the_store_is_gone(tmp_path):
    joined = plugin.apply_config(PROVIDER, config(tmp_path / "faiss.db"))
    (tmp_path / "faiss.db").unlink()
    assert joined.check() == f"kvstore: {tmp_path / 'faiss.db'} is gone"


def test_a_store_that_is_a_folder_is_rejected_and_nothing_changes(tmp_path):
    own = threads()
    with pytest.raises(StoreUnusable, match=f"^kvstore: {tmp_path} is not a file$"):
        plugin.apply_config(PROVIDER, config(tmp_path, num_threads=own + 1))
    assert threads() == own
    assert engine("vector_io/faiss") is None


def test_a_store_out_of_reach_is_pending():
    port = unused_port()
    redis = {"type": "redis", "host": "127.0.0.1", "port": port}
    applied = plugin.apply_config(PROVIDER, FaissConfig.model_validate({"kvstore": redis}))
    assert applied.pending == f"kvstore: cannot reach redis at 127.0.0.1:{port}: connection refused"
    assert engine("vector_io/faiss") is None


def test_a_reference_is_left_to_the_storage_section():
    kept = FaissConfig.model_validate({"persistence": {"backend": "kv_default", "namespace": "v"}})
    applied = plugin.apply_config(PROVIDER, kept)
    assert "namespace `v` of backend `kv_default`" in applied.detail
    assert applied.check() is None


def test_the_engine_finds_in_batches_what_one_search_finds():
    random = np.random.default_rng(7)
    vectors, queries = random.random((500, 16), "float32"), random.random((33, 16), "float32")
    batched, whole = faiss.IndexFlatL2(16), faiss.IndexFlatL2(16)
    small = Engine(num_threads=1, add_batch_size=64, search_batch_size=10, max_index_bytes=None)
    small.add(batched, vectors)
    whole.add(vectors)
    expected = whole.search(queries, 5)
    found = small.search(batched, queries, 5)
    assert np.array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)


def test_the_engine_holds_in_other_threads_and_puts_their_number_back():
    seen = []

    class Index:
        ntotal = 0

        def add(self, vectors):
            seen.append(threads())

    def work():
        before = threads()
        Engine(before + 3, 10, 10, None).add(Index(), np.zeros((15, 2), "float32"))
        seen.extend([before, threads()])

    worker = Thread(target=work)
    worker.start()
    worker.join()
    inside, inside_again, before, after = seen
    assert inside == inside_again == before + 3
    assert after == before


def test_an_index_beyond_its_bound_is_refused_whole():
    index = faiss.IndexFlatL2(16)
    bounded = Engine(None, 10, 10, max_index_bytes=100 * 16 * 4)
    bounded.add(index, np.zeros((60, 16), "float32"))
    with pytest.raises(IndexTooLarge, match="max_index_bytes = 6400"):
        bounded.add(index, np.zeros((41, 16), "float32"))
    assert index.ntotal == 60
    bounded.add(index, np.zeros((40, 16), "float32"))
    assert index.ntotal == 100


def test_what_is_applied_again_or_leaves_without_having_run_is_fine(tmp_path):
    left = plugin.apply_config(PROVIDER, None)
    left.undo()
    assert left.check_undo() is None
    for _ in range(2):
        assert plugin.apply_config(PROVIDER, config(tmp_path / "faiss.db")).check() is None


def test_after_a_killed_apply_a_fresh_process_goes_either_way(tmp_path):
    code = """
        import os, signal, sys
        from stackconf import Provider
        from stackconf_faiss import engine, plugin
        from stackconf_faiss.config import FaissConfig

        store = {"type": "sqlite", "db_path": sys.argv[2]}
        config = FaissConfig.model_validate({"kvstore": store, "search_batch_size": sys.argv[3]})
        applied = plugin.apply_config(Provider("vector_io", "faiss", "inline::faiss"), config)
        if sys.argv[1] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        print(applied.check(), engine("vector_io/faiss").search_batch_size)
        applied.undo()
        print(applied.check_undo(), engine("vector_io/faiss"))
    """
    store = str(tmp_path / "faiss.db")

    assert fresh_process(code, "killed", store, "20").returncode == -signal.SIGKILL
    for size in ("20", "10"):
        done = fresh_process(code, "again", store, size)
        assert done.stdout.splitlines() == [f"None {size}", "None None"], done.stderr
    assert Path(store).exists(), "the killed apply made it, so nobody knows that it is unused"


def test_importing_the_plugin_is_cheap():
    code = (
        "import sys, stackconf_faiss.plugin; "
        "print({'faiss', 'numpy', 'pydantic', 'asyncio', 'sqlite3'} & set(sys.modules))"
    )
    out = fresh_process(code)
    assert out.stdout.strip() == "set()"


def test_the_entry_points_are_what_the_plugin_provides():
    points = entry_points(group="stackconf.providers")
    names = {point.name for point in points if point.dist.name == "stackconf-faiss"}
    assert names == {kind.key for kind in plugin.provides}
