"""A hosting process: how it begins, what signals do, and how it ends, with real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from server_kit import PROGRAM, STACK, clean_environ, serving, wait_for

ELSEWHERE = {"inference": [{"provider_id": "one", "config": {"url": "http://elsewhere"}}]}


def configured(url: str) -> dict[str, object]:
    """A configuration that gives the provider another address."""
    return {"inference": [{"provider_id": "one", "config": {"url": url}}]}


def test_one_command_serves_and_applies(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.http() as http:
        server.until("applied: inference/one, vector_io/memory")
        inspected = http.get("/v1/inspect/configurations").json()
        assert inspected["providers"]["inference"][0]["config"]["threads"] == 4
        assert "s3cret" not in http.get("/v1/inspect/effective").text
        assert http.get("/v1/ready").json()["settled"] is True
        made = http.post("/v1/configurations/register", json={"config": ELSEWHERE, "apply": True})
        assert made.status_code == 200, made.text
        assert made.json()["report"]["state"] == "applied"
        assert server.end() == 0
    assert server.acts() == ["inference/one join", "vector_io/memory join", "inference/one change"]
    assert server.text.endswith("ended\n")
    assert "Traceback" not in server.text
    assert "s3cret" not in server.text


def test_what_lived_in_the_process_before_is_joined_anew_and_nothing_else(tmp_path: Path) -> None:
    for _ in range(2):
        with serving(tmp_path) as server:
            server.until("applied: ")
            assert server.end() == 0
    assert server.acts() == ["inference/one join", "vector_io/memory join", "vector_io/memory join"]


def test_a_failing_provider_is_told_and_the_rest_is_served(tmp_path: Path) -> None:
    stack = STACK.replace("http://one", "http://fail")
    with serving(tmp_path, stack=stack) as server, server.http() as http:
        server.until(r"error inference/one: .*refused")
        assert http.get("/v1/inspect/configurations").status_code == 200
        tried = {each["provider"]: each["tried"] for each in http.get("/v1/status").json()["providers"]}
        assert tried["inference/one"]["state"] == "failed"
        made = http.post("/v1/configurations/register", json={"config": ELSEWHERE, "apply": True})
        assert made.json()["report"]["state"] == "applied", made.text


def test_an_invalid_stack_is_served_and_not_ready(tmp_path: Path) -> None:
    stack = STACK.replace("url: http://one", "threads: 1000")
    with serving(tmp_path, stack=stack) as server, server.http() as http:
        ready = http.get("/v1/ready")
        assert ready.status_code == 503
        assert [each["path"] for each in ready.json()["issues"]] == ["config.threads"]
        assert http.get("/v1/inspect/configurations").status_code == 200
        refused = http.post("/v1/apply")
        assert refused.status_code == 422
        assert refused.json()["issues"][0]["where"]["line"] == 7
    assert server.acts() == []


def test_a_signal_has_the_file_read_again_and_applies_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.http() as http:
        server.until("applied: ")
        (tmp_path / "stack.yaml").write_text(STACK.replace("http://one", "http://two"), encoding="utf-8")
        server.send(signal.SIGHUP)
        server.until("read stack.yaml again; an apply would: change inference/one")
        changes = http.get("/v1/plan").json()["changes"]
        assert [field["after"] for field in changes[0]["fields"]] == ["http://two"]
        assert len(server.acts()) == 2
        assert http.post("/v1/apply").json()["state"] == "applied"
        assert len(server.acts()) == 3


def test_a_bad_new_file_leaves_the_old_one_serving(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.http() as http:
        server.until("applied: ")
        before = http.get("/v1/inspect/configurations").content
        for text, said in (("providers: [", "not valid YAML"), (STACK + "    nonsense: 1\n", "nonsense")):
            (tmp_path / "stack.yaml").write_text(text, encoding="utf-8")
            server.send(signal.SIGHUP)
            server.until(f"the old one goes on: .*{said}")
            ready = http.get("/v1/ready")
            assert ready.status_code == 200
            assert said in ready.json()["stack_file"]["problem"]["detail"]
            assert http.get("/v1/inspect/configurations").content == before
        (tmp_path / "stack.yaml").write_text(STACK, encoding="utf-8")
        server.send(signal.SIGHUP)
        server.until("an apply would: change nothing")
        assert http.get("/v1/ready").json()["stack_file"]["problem"] is None


def test_the_apply_that_runs_ends_before_the_process_does(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.http() as http, ThreadPoolExecutor() as pool:
        server.until("applied: ")
        body = {"config": configured("http://slow"), "apply": True}
        answer = pool.submit(http.post, "/v1/configurations/register", json=body)
        wait_for(tmp_path / "slow-began")
        server.send(signal.SIGTERM)
        (tmp_path / "go-on").touch()
        assert answer.result().json()["report"]["state"] == "applied"
        assert server.end() == 0
    assert "taken back" not in server.text


def test_an_apply_that_outlasts_its_grace_is_taken_back(tmp_path: Path) -> None:
    stack = STACK.replace("config: {}", "config: {size: 2}")
    with serving(tmp_path, "--grace", "0.2") as server, server.http() as http, ThreadPoolExecutor() as pool:
        server.until("applied: ")
        (tmp_path / "stack.yaml").write_text(stack.replace("http://one", "http://slow"), encoding="utf-8")
        server.send(signal.SIGHUP)
        server.until("an apply would: change inference/one, change vector_io/memory")
        answer = pool.submit(http.post, "/v1/apply")
        wait_for(tmp_path / "slow-began")
        server.send(signal.SIGTERM)
        server.until("taking back the apply that runs")
        (tmp_path / "go-on").touch()
        assert answer.result().status_code == 500
        assert "vector_io/memory: stopped: the server is shutting down; 1 rolled back" in answer.result().text
        assert server.end() == 0
    assert server.acts() == ["inference/one join", "vector_io/memory join", "inference/one change"]
    with serving(tmp_path, "--no-apply") as server, server.http() as http:
        standing = {each["provider"]: each["state"] for each in http.get("/v1/status").json()["providers"]}
    assert "unknown" not in standing.values()


def test_another_process_neither_hosts_nor_applies_beside(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, *arguments, "-s", "stack.yaml", "--plugin", "plugin.py"]
        return subprocess.run(
            command, cwd=tmp_path, env=clean_environ(tmp_path), capture_output=True, text=True, check=False
        )

    with serving(tmp_path) as server:
        server.until("applied: ")
        done = run("serve", "--port", "0")
        assert done.returncode == 1
        assert f"hosted by process {server.process.pid} at {server.url}" in done.stderr
        (tmp_path / "other.json").write_text(
            '{"inference": [{"provider_id": "one", "config": {"threads": 2}}]}'
        )
        assert run("configurations", "register", "other.json").returncode == 0
        done = run("apply")
        assert done.returncode == 1
        assert f"--url {server.url}" in done.stderr
        with server.http() as http:
            assert (
                http.get("/v1/inspect/configurations").json()["providers"]["inference"][0]["config"][
                    "threads"
                ]
                == 2
            )
            assert http.post("/v1/apply").json()["state"] == "applied"
    assert run("apply").returncode == 0


def test_what_was_down_is_tried_again(tmp_path: Path) -> None:
    stack = STACK.replace("http://one", "http://down")
    with serving(tmp_path, stack=stack) as server:
        server.until(r"pending: inference/one \(cannot reach it\); applied: vector_io/memory")
        (tmp_path / "up").touch()
        server.until("trying again: applied: inference/one")


def test_an_address_that_is_taken_is_said_before_anything_is_touched(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.until("applied: ")
        port = server.url.rpartition(":")[2]
        (tmp_path / "second").mkdir()
        with serving(tmp_path / "second", "--port", port) as second:
            assert second.process.wait(60) == 1
            second.until(f"cannot listen on {server.url}: Address already in use; choose another --port")
            assert second.acts() == []


def test_a_wrong_path_or_method_says_what_there_is(tmp_path: Path) -> None:
    with serving(tmp_path, "--no-apply") as server, server.http() as http:
        assert http.get("/").json()["openapi"] == "/openapi.json"
        missing = http.get("/v1/inspect/configuration")
        assert missing.status_code == 404
        assert "did you mean `/v1/inspect/configurations`?" in missing.json()["detail"]
        assert "/openapi.json says what there is" in http.get("/nonsense").json()["detail"]
        wrong = http.put("/v1/configurations/some")
        assert wrong.status_code == 405
        assert {"DELETE", "GET"} <= set(wrong.headers["allow"].split(", "))


def test_a_line_end_in_a_path_leads_nowhere(tmp_path: Path) -> None:
    with serving(tmp_path, "--no-apply") as server, server.http() as http:
        for path in ("/v1/providers/%0A", "/v1/plan%0A", "/v1/configurations/a%0Ab"):
            answer = http.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
