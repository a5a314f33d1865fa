"""Signals at the worst moments, a process that is killed, two at once, and a disk that is full."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from server_kit import STACK, serving, wait_for

from stackconf.stack import default_store_path

SLOW = """
import time
from pathlib import Path
from stackconf import hookimpl


@hookimpl
def validate_user_config(provider, user_config, config, hardware):
    while Path("slow-plan").exists():
        Path("asked").touch()
        time.sleep(0.02)
    return []
"""


def body(url: str, **more: object) -> dict[str, Any]:
    """A configuration of the provider, as it is registered."""
    return {"config": {"inference": [{"provider_id": "one", "config": {"url": url}}]}, **more}


def test_what_is_being_registered_is_registered_before_the_end(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.http() as http, ThreadPoolExecutor() as pool:
        server.until("applied: ")
        other = sqlite3.connect(default_store_path(tmp_path / "stack.yaml"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        answer = pool.submit(http.post, "/v1/configurations/register", json=body("http://late"))
        sleep(0.5)
        server.send(signal.SIGTERM)
        server.send(signal.SIGTERM)
        sleep(0.5)
        assert not answer.done()
        other.execute("ROLLBACK")
        other.close()
        assert (answer.result().status_code, answer.result().json()["revision"]) == (200, 1)
        assert server.end() == 0
    assert "Traceback" not in server.text


def test_a_reload_that_takes_long_holds_up_no_read_and_not_the_end(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    with serving(tmp_path, "--plugin", "slow.py") as server, server.http() as http:
        server.until("applied: ")
        before = http.get("/v1/inspect/configurations").content
        (tmp_path / "slow-plan").touch()
        server.send(signal.SIGHUP)
        wait_for(tmp_path / "asked")
        for path in ("inspect/configurations", "plan", "status", "ready"):
            assert http.get(f"/v1/{path}", timeout=2).status_code == 200
        assert http.get("/v1/inspect/configurations").content == before
        server.send(signal.SIGTERM)
        sleep(0.3)
        (tmp_path / "slow-plan").unlink()
        assert server.end() == 0
    assert "Traceback" not in server.text


def test_a_plan_that_is_being_made_is_answered_before_the_end(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    with (
        serving(tmp_path, "--plugin", "slow.py") as server,
        server.http() as http,
        ThreadPoolExecutor() as pool,
    ):
        server.until("applied: ")
        http.get("/v1/inspect/configurations")
        (tmp_path / "slow-plan").touch()
        answer = pool.submit(http.post, "/v1/configurations/register", json=body("http://two"))
        wait_for(tmp_path / "asked")
        # What is at hand is given meanwhile, and that the server lives.
        assert http.get("/v1/inspect/configurations", timeout=2).status_code == 200
        assert http.get("/v1/health", timeout=2).status_code == 200
        server.send(signal.SIGTERM)
        sleep(0.3)
        (tmp_path / "slow-plan").unlink()
        assert answer.result().status_code == 200
        assert answer.result().json()["plan"]["changes"]
        assert server.end() == 0
    assert "Traceback" not in server.text


def test_told_to_end_while_it_starts_it_leaves_nothing_half_done(tmp_path: Path) -> None:
    """Whenever the signal comes: the process is gone, and the next one finds nothing unknown."""
    for number in range(8):
        with serving(tmp_path) as server:
            sleep(0.25 * number)
            code = server.end()
            assert code in {0, -signal.SIGTERM}, (number, code, server.text)
            assert "Traceback" not in server.text
            if "serving" in server.text:
                assert code == 0, server.text
    with serving(tmp_path, "--no-apply") as server, server.http() as http:
        found = http.get("/v1/status").json()["providers"]
        assert "unknown" not in {each["state"] for each in found}


def test_a_storm_of_signals_during_an_apply_takes_the_last_file(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.http() as http:
        server.until("applied: ")
        http.post("/v1/configurations/register", json=body("http://slow"))
        http.post("/v1/apply", headers={"Prefer": "respond-async"})
        wait_for(tmp_path / "slow-began")
        for number in range(1, 21):
            text = STACK.replace("config: {}", f"config: {{size: {number}}}")
            (tmp_path / "new.yaml").write_text(text, encoding="utf-8")
            (tmp_path / "new.yaml").replace(tmp_path / "stack.yaml")
            server.send(signal.SIGHUP)
        server.until("read stack.yaml again")
        sleep(1)
        ready = http.get("/v1/ready").json()
        assert (ready["applying"], ready["stack_file"]["problem"]) == (True, None)
        (tmp_path / "go-on").touch()
        assert http.post("/v1/apply", json={"wait": 30}).status_code == 200
        applied = http.get("/v1/inspect/configurations").json()["providers"]["vector_io"][0]["config"]
        assert applied == {"size": 20}
        assert http.get("/v1/ready").json()["settled"] is True
        server.send(signal.SIGHUP)
        assert server.end() == 0
    assert server.text.count("read stack.yaml again") < 21
    assert "Traceback" not in server.text


def test_a_bad_new_file_does_not_say_how_much_history_is_kept(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.http() as http:
        server.until("applied: ")
        for number in range(3):
            http.post("/v1/configurations/register", json=body(f"http://{number}"))
        bad = STACK.replace("url: http://one", "threads: 1000") + "stackconf:\n  keep_revisions: 1\n"
        (tmp_path / "stack.yaml").write_text(bad, encoding="utf-8")
        server.send(signal.SIGHUP)
        server.until("the old one goes on")
        http.post("/v1/configurations/register", json=body("http://3"))
        assert [each["revision"] for each in http.get("/v1/history").json()["revisions"]] == [4, 3, 2, 1]


def test_one_that_was_killed_is_gone_through_again_by_the_next(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.http() as http, ThreadPoolExecutor() as pool:
        server.until("applied: ")
        http.post("/v1/configurations/register", json=body("http://slow"))
        pool.submit(http.post, "/v1/apply")
        wait_for(tmp_path / "slow-began")
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
    (tmp_path / "go-on").touch()
    with serving(tmp_path) as server, server.http() as http:
        server.until("applied: .*inference/one")
        assert http.get("/v1/ready").json()["settled"] is True
        attempts = http.get("/v1/history").json()["attempts"]
        assert all(each["finished_at"] for each in attempts)
        assert [each["state"] for each in attempts] == ["applied", "cut_off", "applied"]
    assert server.acts().count("inference/one change") + server.acts().count("inference/one join") == 3


def test_of_two_at_once_one_serves(tmp_path: Path) -> None:
    with serving(tmp_path) as one, serving(tmp_path) as other:
        while one.process.poll() is None and other.process.poll() is None:
            sleep(0.05)
        ended, serves = (one, other) if one.process.poll() is not None else (other, one)
        assert ended.process.wait(60) == 1
        ended.until(f"hosted by process {serves.process.pid}")
        serves.until("applied: ")
        with serves.http() as http:
            assert http.get("/v1/ready").status_code == 200
    assert "Traceback" not in one.text + other.text
    assert one.acts() == ["inference/one join", "vector_io/memory join"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nothing may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_with_a_full_disk_it_reads_and_says_why_it_does_not_write(tmp_path: Path, small_disk: Path) -> None:
    with serving(tmp_path, "--store", str(small_disk / "store.db")) as server, server.http() as http:
        server.until("applied: ")
        assert http.post("/v1/configurations/register", json=body("http://a")).status_code == 200
        assert http.get("/v1/ready").json()["store"] == {"problem": None}
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        ready = http.get("/v1/ready")
        assert ready.status_code == 503
        assert "is full" in ready.json()["store"]["problem"]
        codes = set()
        for number in range(200):  # until what is there of the log is used up
            made = http.post("/v1/configurations/register", json=body(f"http://{number}{'x' * 2000}"))
            codes.add(made.status_code)
            if made.status_code != 200:
                break
        assert codes <= {200, 503}
        assert made.status_code == 503, made.text
        assert made.json()["type"] == "/problems/store-error"
        for path in ("inspect/configurations", "status", "history", "plan", "providers", "health"):
            assert http.get(f"/v1/{path}").status_code == 200, path
        head = http.get("/v1/history").json()["revisions"][0]["revision"]
        refused = http.post("/v1/apply")
        assert refused.status_code == 503, refused.text
        filler.unlink()
        made = http.post("/v1/configurations/register", json=body("http://room"))
        assert (made.status_code, made.json()["revision"]) == (200, head + 1)
        assert http.post("/v1/apply").json()["state"] == "applied"
        assert http.get("/v1/ready").status_code == 200
        assert server.end() == 0
    assert "Traceback" not in server.text


def test_on_a_read_only_disk_it_says_so(tmp_path: Path, small_disk: Path) -> None:
    store = ("--store", str(small_disk / "store.db"))
    with serving(tmp_path, *store) as server, server.http() as http:
        server.until("applied: ")
        assert http.post("/v1/configurations/register", json=body("http://a")).status_code == 200
        assert server.end() == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with serving(tmp_path, *store) as server:
        assert server.process.wait(60) == 1
        server.until("(?i)read-only")
    assert "Traceback" not in server.text


STORM = """
import os, subprocess, sys
from stackconf.server.serving import _hangups

KILLS = "import os, signal, sys\\nfor _ in range(400_000): os.kill(int(sys.argv[1]), signal.SIGHUP)"

with _hangups() as asked:
    storm = subprocess.Popen([sys.executable, "-c", KILLS, str(os.getpid())])
    while storm.poll() is None:
        sum(range(100))
    print(asked.wait(0))
"""


def test_a_signal_in_the_middle_of_handling_one_is_heard() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STORM], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "True\n", done.stderr
