"""Entity tags, conditions and HEAD, for every operation that the document names, on a real server."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import pytest
from server_kit import PROGRAM, STACK, Server, clean_environ, serving, wait_for

from stackconf.stack import default_store_path

if TYPE_CHECKING:
    import httpx

SLOW = {"inference": [{"provider_id": "one", "config": {"url": "http://slow"}}]}
PATHS = {
    "/v1/configurations/{name}": "/v1/configurations/default",
    "/v1/explain/{provider}": "/v1/explain/inference/one",
    "/v1/revisions/{revision}": "/v1/revisions/1",
    "/v1/diff": "/v1/diff?before=1",
    "/v1/provider-types/{api}/{provider_type}": "/v1/provider-types/inference/remote::acme",
    "/v1/inspect/provider-type": "/v1/inspect/provider-type?name=remote::acme",
    "/v1/providers/{provider_id}": "/v1/providers/one",
    "/v1alpha/admin/providers/{provider_id}": "/v1alpha/admin/providers/one",
}
WITHOUT_TAG = ("/v1/apply/events", "/metrics")
NOT_OF_A_REVISION = ("/health", "/version", "/inspect/routes")


def threads(count: int) -> dict[str, Any]:
    """A configuration that gives the provider so many threads."""
    return {"config": {"inference": [{"provider_id": "one", "config": {"threads": count}}]}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("tags")) as server, server.http() as http:
        server.until("applied: ")
        assert http.post("/v1/configurations/register", json=threads(2)).status_code == 200
        assert http.post("/v1/configurations/register", json=threads(3)).status_code == 200
        assert http.post("/v1/apply").status_code == 200
        yield server


def reads(http: httpx.Client) -> list[str]:
    """Every path that is documented for GET, as it can be asked for."""
    paths = http.get("/openapi.json").json()["paths"]
    found = [PATHS.get(path, path) for path, methods in paths.items() if "get" in methods]
    assert len(found) > 20
    return found


def test_every_read_has_a_tag_and_is_spared_with_it(server: Server) -> None:
    with server.http() as http:
        for path in reads(http):
            whole = http.get(path)
            assert whole.status_code == 200, (path, whole.text)
            if path in WITHOUT_TAG:
                continue
            tag = whole.headers["etag"]
            begins = '"0-' if path.endswith(NOT_OF_A_REVISION) else '"2-'
            assert tag.startswith(begins), path
            spared = http.get(path, headers={"If-None-Match": tag})
            assert (spared.status_code, spared.content, spared.headers["etag"]) == (304, b"", tag), path
            assert "content-length" not in spared.headers, path
            assert http.get(path, headers={"If-None-Match": '"1-00"'}).content == whole.content, path


def test_head_is_get_without_the_body(server: Server) -> None:
    with server.http() as http:
        for path in [*reads(http), "/openapi.json", "/v1/nothing", "/v1/configurations/nobody"]:
            whole, head = http.get(path), http.head(path)
            assert (head.status_code, head.content) == (whole.status_code, b""), path
            for name in ("etag", "content-type", *(() if path == "/metrics" else ("content-length",))):
                assert head.headers.get(name) == whole.headers.get(name), (path, name)
            tag = whole.headers.get("etag", "")
            if tag:
                assert http.head(path, headers={"If-None-Match": tag}).status_code == 304, path
        refused = http.head("/v1/apply")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
        assert http.delete("/v1/status").headers["allow"] == "GET, HEAD"


def test_a_write_for_another_revision_is_refused_with_the_conflict(server: Server) -> None:
    writes: list[tuple[str, str, Any]] = [
        ("POST", "/v1/configurations/register", threads(4)),
        ("POST", "/v1/configurations/default/assign", {}),
        ("POST", "/v1/configurations/default/unassign", None),
        ("DELETE", "/v1/configurations/default", None),
        ("POST", "/v1/rollback", {"revision": 1}),
        ("POST", "/v1/apply", None),
        ("POST", "/v1/recover", None),
        ("POST", "/v1/retry", None),
        ("POST", "/v1/history/prune", {"keep": 1}),
    ]
    with server.http() as http:
        changing = {
            f"{method.upper()} {path}"
            for path, methods in http.get("/openapi.json").json()["paths"].items()
            for method in methods
            if method != "get" and path != "/v1/compare"
        }
        assert {f"{method} {path.replace('default', '{name}')}" for method, path, _ in writes} == changing
        before = http.get("/v1/status").content
        for method, path, body in writes:
            for tag in ('"1-0123456789abcdef"', 'W/"1-00"', '"1"'):
                refused = http.request(method, path, json=body, headers={"If-Match": tag})
                assert refused.status_code == 412, (path, refused.text)
                problem = refused.json()
                assert (problem["expected"], problem["head"]) == (1, 2), path
            assert http.request(method, path, json=body, headers={"If-Match": "tag"}).status_code == 422
        assert http.get("/v1/status").content == before
        same = {"If-Match": http.get("/v1/status").headers["etag"]}
        assert http.post("/v1/apply", headers=same).json()["state"] == "nothing"
        assert http.post("/v1/recover", headers=same).json()["state"] == "nothing"
        assert http.post("/v1/apply", headers={"If-Match": "*"}).status_code == 200


def test_an_apply_that_waited_is_refused_where_another_change_came_meanwhile(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.http() as http:
        server.until("applied: ")
        http.post("/v1/configurations/register", json={"config": SLOW})
        running = http.post("/v1/apply", headers={"Prefer": "respond-async"})
        assert running.status_code == 202
        wait_for(tmp_path / "slow-began")
        one = {"If-Match": '"1-00"', "Prefer": "respond-async"}
        busy = http.post("/v1/apply", headers=one)
        assert (busy.status_code, busy.headers["retry-after"]) == (409, "1")
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(http.post, "/v1/apply", json={"wait": 30}, headers={"If-Match": '"1-00"'})
            sleep(0.3)  # it may take another way there, but to the same answer
            made = http.post("/v1/configurations/register", json={**threads(9), "name": "more"})
            assert made.json()["revision"] == 2
            (tmp_path / "go-on").touch()
            assert waiting.result().status_code == 412, waiting.result().text
        assert http.get("/v1/ready").json()["settled"] is False


def test_what_changes_without_a_revision_gets_another_tag(tmp_path: Path) -> None:
    with serving(tmp_path, "--no-apply") as server, server.http() as http:
        (tmp_path / "token").write_text("one-token")
        referring = {
            "inference": [{"provider_id": "one", "config": {"token": f"${{file:{tmp_path}/token}}"}}]
        }
        assert http.post("/v1/configurations/register", json={"config": referring}).status_code == 200

        def tags(*paths: str) -> list[str]:
            return [http.get(path).headers["etag"] for path in paths]

        moving = ("/v1/status", "/v1/providers", "/v1/plan", "/v1/ready")
        before = tags(*moving)
        assert http.post("/v1/apply").json()["state"] == "applied"
        after = tags(*moving)
        assert all(one != other for one, other in zip(before, after, strict=True))

        stable = ("/v1/plan", "/v1/inspect/configurations", "/v1/inspect/effective", "/v1/providers")
        before = tags(*stable)
        assert tags(*stable) == before
        (tmp_path / "token").write_text("another-token")
        assert tags("/v1/plan")[0] != before[0]
        (tmp_path / "token").unlink()
        missing = tags(*stable)
        assert all(one != other for one, other in zip(before, missing, strict=True))
        assert http.get("/v1/ready").status_code == 503
        (tmp_path / "token").write_text("one-token")
        assert tags(*stable) == before

        (tmp_path / "stack.yaml").write_text(STACK.replace("http://one", "http://two"), encoding="utf-8")
        server.send(signal.SIGHUP)
        server.until("read stack.yaml again")
        assert tags(*stable)[1] != before[1]
        assert all(each.startswith('"1-') for each in (*tags(*stable), *missing, *before))


def test_a_server_that_is_not_ready_says_so_to_who_knows_its_tag(tmp_path: Path) -> None:
    stack = STACK.replace("url: http://one", "threads: 1000")
    with serving(tmp_path, stack=stack) as server, server.http() as http:
        first = http.get("/v1/ready")
        again = http.get("/v1/ready", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (503, first.content)
        assert http.head("/v1/ready").status_code == 503


def test_what_another_process_registers_is_there_with_the_next_read(tmp_path: Path) -> None:
    def run(*arguments: str) -> None:
        command = [sys.executable, "-c", PROGRAM, *arguments, "-s", "stack.yaml", "--plugin", "plugin.py"]
        subprocess.run(command, cwd=tmp_path, env=clean_environ(tmp_path), capture_output=True, check=True)

    with serving(tmp_path) as server, server.http() as http:
        server.until("applied: ")
        before = http.get("/v1/inspect/configurations")
        assert before.headers["etag"].startswith('"0-')
        (tmp_path / "other.json").write_text(
            '{"inference": [{"provider_id": "one", "config": {"threads": 7}}]}'
        )
        run("configurations", "register", "other.json")
        after = http.get("/v1/inspect/configurations", headers={"If-None-Match": before.headers["etag"]})
        assert after.status_code == 200
        assert after.json()["providers"]["inference"][0]["config"]["threads"] == 7
        assert after.headers["etag"].startswith('"1-')
        stale = http.post(
            "/v1/configurations/register", json=threads(8), headers={"If-Match": before.headers["etag"]}
        )
        assert stale.status_code == 412
        assert stale.json()["since"][0]["actor"] == "tester"


def test_reads_do_not_wait_for_another_process_that_writes(tmp_path: Path) -> None:
    """The event loop asks the store for its head with every read: a thread of the server that waits to
    write must not hold that up.
    """
    with serving(tmp_path) as server, server.http() as http, ThreadPoolExecutor() as pool:
        server.until("applied: ")
        assert http.post("/v1/configurations/register", json=threads(2)).status_code == 200
        http.get("/v1/inspect/configurations")
        other = sqlite3.connect(default_store_path(tmp_path / "stack.yaml"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = pool.submit(http.post, "/v1/configurations/register", json=threads(3))
        longest, end = 0.0, monotonic() + 2
        while monotonic() < end:
            began = monotonic()
            assert http.get("/v1/inspect/configurations").status_code == 200
            assert http.get("/v1/health").status_code == 200
            longest = max(longest, monotonic() - began)
        assert not waiting.done()
        other.execute("ROLLBACK")
        other.close()
        assert waiting.result().status_code == 200
        assert longest < 1, longest
