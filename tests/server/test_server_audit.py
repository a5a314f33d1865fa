"""The audit trail of a real server: a line for every change and every refused one, with no secret in it."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from server_kit import serving
from test_server_requests import CONFIG, READ, WRITE, tokens

REGISTER = "/v1/configurations/register"


def trail(file: Path) -> list[dict[str, Any]]:
    """What is in it."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def told(line: dict[str, Any]) -> tuple[Any, ...]:
    """The part that is the same each time."""
    return tuple(line.get(name) for name in ("outcome", "method", "path", "status", "token", "actor"))


def test_every_change_and_every_refusal_is_in_it(tmp_path: Path) -> None:
    with serving(tmp_path, *tokens(tmp_path), "--audit-file", "trail") as server, server.http() as http:
        server.until("applied: ")
        writer = {"Authorization": f"Bearer {WRITE}", "Stackconf-Actor": "alice"}
        secret = {"inference": [{"provider_id": "one", "config": {"token": "hunter2-hunter2"}}]}
        http.post(REGISTER, json={"config": CONFIG, "name": "two", "apply": True}, headers=writer)
        http.post(REGISTER, json={"config": CONFIG}, headers={"Authorization": f"Bearer {READ}"})
        http.post(REGISTER, json={"config": CONFIG})
        http.post(f"{REGISTER}?x=hunter2-hunter2", json={"config": secret}, headers=writer)
        http.post(REGISTER, content="{", headers={**writer, "Content-Type": "application/json"})
        http.post("/v1/apply", json={}, headers={**writer, "Accept": "text/event-stream"})
        http.post("/v1/apply", json={}, headers={**writer, "Prefer": "respond-async"})
        http.post("/v1/rollback", json={"revision": 0}, headers={**writer, "If-Match": '"9"'})
        http.delete("/v1/configurations/two", headers=writer)
        fail = {"inference": [{"provider_id": "one", "config": {"url": "http://fail"}}]}
        http.post(REGISTER, json={"config": fail, "apply": True}, headers=writer)
        http.put("/v1/plan", headers=writer)
        http.get("/v1/plan", headers=writer)
        revisions = http.get("/v1/history", headers=writer).json()["revisions"]
        assert server.end() == 0
    lines = trail(tmp_path / "trail")
    assert [told(line) for line in lines] == [
        ("done", "POST", REGISTER, 200, "ci", "alice"),
        ("refused", "POST", REGISTER, 403, "watch", ""),
        ("refused", "POST", REGISTER, 401, None, ""),
        ("refused", "POST", REGISTER, 422, "ci", "alice"),
        ("refused", "POST", REGISTER, 422, "ci", "alice"),
        ("done", "POST", "/v1/apply", 200, "ci", "alice"),
        ("begun", "POST", "/v1/apply", 202, "ci", "alice"),
        ("refused", "POST", "/v1/rollback", 412, "ci", "alice"),
        ("done", "DELETE", "/v1/configurations/two", 200, "ci", "alice"),
        ("failed", "POST", REGISTER, 500, "ci", "alice"),
        ("refused", "PUT", "/v1/plan", 405, "ci", "alice"),
    ]
    registered, applied, conflict, removed, failed = (lines[number] for number in (0, 5, 7, 8, 9))
    assert (registered["name"], registered["revision"], registered["attempt"]) == ("two", 1, 2)
    assert registered["state"] == "applied"
    assert applied["state"] == "nothing"
    assert conflict["problem"] == "conflict"
    assert (removed["revision"], removed["result"]) == (2, "unregistered")
    assert (failed["problem"], failed["state"]) == ("apply-error", "failed")
    assert {each["actor"] for each in revisions} == {"alice (ci)"}
    assert all(line["from"] == "127.0.0.1" and line["at"].endswith("Z") for line in lines)
    assert stat.S_IMODE((tmp_path / "trail").stat().st_mode) == 0o600
    for text in ((tmp_path / "trail").read_text(), server.text):
        for word in ("hunter2", READ, WRITE, "s3cret", "threads"):
            assert word not in text


def test_it_is_beside_the_store_and_may_be_moved_away(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.http() as http, ThreadPoolExecutor(4) as pool:
        server.until("applied: ")
        file = next((tmp_path / ".stackconf").glob("*.audit.jsonl"))
        assert trail(file) == []
        assert http.post("/v1/apply").status_code == 200
        Path(file).rename(tmp_path / "old")
        assert http.post("/v1/apply").status_code == 200
        assert (len(trail(tmp_path / "old")), len(trail(file))) == (1, 1)
        codes = [answer.status_code for answer in pool.map(lambda _: http.put("/v1/plan"), range(40))]
        assert codes == [405] * 40
        assert len(trail(file)) == 41


def test_a_place_where_it_cannot_be_is_said_before_anything_is_applied(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with serving(tmp_path, "--audit-file", "file/trail") as server:
        assert server.process.wait(60) == 1
        server.until("error: cannot write the audit trail file/trail: .*; give another --audit-file")
        assert server.acts() == []
