"""Many at once, some of whom go away: applies of a real server, and those who watch them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from server_kit import STACK, Server, serving, wait_for

from stackconf import AsyncClient

STREAM = {"Accept": "text/event-stream"}
SECONDS = 8.0


def body(url: str = "", **fields: object) -> dict[str, Any]:
    """A configuration of the provider, as it is registered."""
    config = {**({"url": url} if url else {}), **fields}
    return {"config": {"inference": [{"provider_id": "one", "config": config}]}}


def slowly(server: Server, http: httpx.Client) -> None:
    """Begin an apply that goes on until `go-on` is there."""
    assert http.post("/v1/configurations/register", json=body("http://slow")).status_code == 200
    assert http.post("/v1/apply", headers={"Prefer": "respond-async"}).status_code == 202
    wait_for(server.folder / "slow-began")


def told(http: httpx.Client, **headers: str) -> list[tuple[str, str, Any]]:
    """The events of the apply: each with its name, its id and its data."""
    with http.stream("GET", "/v1/apply/events", headers=headers) as answer:
        assert answer.status_code == 200
        blocks = "".join(answer.iter_text()).strip().split("\n\n")
    events = []
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            events.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return events


def raw(server: Server, request: str) -> socket.socket:
    """A connection on which something was sent."""
    parts = urlsplit(server.url)
    assert parts.hostname is not None
    connection = socket.create_connection((parts.hostname, parts.port or 80), timeout=30)
    connection.sendall(request.replace("\n", "\r\n").encode())
    return connection


def test_who_goes_away_stops_no_apply(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.http() as http:
        server.until("applied: ")
        http.post("/v1/configurations/register", json=body("http://slow"))
        host = "Host: localhost"
        asked = raw(server, f"POST /v1/apply HTTP/1.1\n{host}\nContent-Length: 0\n\n")
        wait_for(tmp_path / "slow-began")
        asked.close()
        watching = raw(server, f"GET /v1/apply/events HTTP/1.1\n{host}\n\n")
        assert b"progress" in watching.recv(4096) + watching.recv(4096)
        watching.close()

        async def cancelled() -> None:
            async with AsyncClient(server.url) as client:
                task = asyncio.create_task(client.apply(wait=20))
                await asyncio.sleep(0.3)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(cancelled())
        assert http.get("/v1/ready").json()["applying"] is True
        (tmp_path / "go-on").touch()
        events = told(http)
        assert (events[-1][0], events[-1][2]["state"]) in {("report", "applied"), ("report", "nothing")}
        assert http.get("/v1/ready").json()["settled"] is True
    assert server.acts().count("inference/one change") == 1
    assert "Traceback" not in server.text


def test_every_watcher_sees_every_event_and_one_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.http() as http, ThreadPoolExecutor(12) as pool:
        server.until("applied: ")
        slowly(server, http)
        never = raw(server, "GET /v1/apply/events HTTP/1.1\nHost: localhost\n\n")
        watchers = [pool.submit(told, http) for _ in range(8)]
        sleep(0.5)
        (tmp_path / "go-on").touch()
        first, *others = [each.result() for each in watchers]
        assert all(each == first for each in others)
        assert told(http) == first
        assert [event[2].get("event") for event in first] == ["begin", "end", "report"]
        ids = [event[1] for event in first]
        apply = ids[0].rpartition("-")[0]
        assert ids == [f"{apply}-{number}" for number in range(1, len(ids) + 1)]
        for number, identity in enumerate(ids[:-1], 1):
            assert told(http, **{"Last-Event-ID": identity}) == first[number:]
        over = http.get("/v1/apply/events", headers={"Last-Event-ID": ids[-1]})
        assert (over.status_code, over.content) == (204, b"")
        for strange in ("5c0f1e2d-2", "2", "9" * 5000, f"{apply}-", f"{apply}-{'9' * 5000}", "-", "x-1"):
            assert told(http, **{"Last-Event-ID": strange}) == first
        # Another apply is told from its beginning to who has events of the one before.
        http.post("/v1/configurations/register", json=body("http://fail"))
        assert http.post("/v1/apply").status_code == 500
        failed = told(http, **{"Last-Event-ID": ids[1]})
        assert [event[0] for event in failed][-2:] == ["report", "problem"]
        assert failed[-1][2]["type"] == "/problems/apply-error"
        assert failed[0][2]["event"] == "begin"
        last = http.get("/v1/apply/events", headers={"Last-Event-ID": failed[-1][1]})
        assert last.status_code == 204
        never.close()


def test_any_number_may_wait_for_their_turn_and_nobody_else_waits(tmp_path: Path) -> None:
    """More of them than the server has threads."""
    with serving(tmp_path) as server, server.http(limits=httpx.Limits(max_connections=200)) as http:
        server.until("applied: ")
        slowly(server, http)
        with ThreadPoolExecutor(100) as pool:
            waiting = [pool.submit(http.post, "/v1/apply", json={"wait": 60}) for _ in range(60)]
            impatient = [pool.submit(http.post, "/v1/apply", json={"wait": 0.2}) for _ in range(5)]
            assert {each.result().status_code for each in impatient} == {409}
            longest = 0.0
            for _ in range(20):
                for path in ("/v1/history", "/v1/plan", "/v1/ready", "/v1/providers"):
                    began = monotonic()
                    assert http.get(path).status_code == 200
                    longest = max(longest, monotonic() - began)
            assert not any(each.done() for each in waiting)
            (tmp_path / "go-on").touch()
            answers = [each.result() for each in waiting]
        assert Counter(each.status_code for each in answers) == {200: 60}
        assert {each.json()["state"] for each in answers} == {"nothing"}
        assert longest < 2, longest


def test_providers_are_told_as_they_are_while_an_apply_runs(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.http() as http:
        server.until("applied: ")

        def health() -> str:
            [one] = (each for each in http.get("/v1/providers").json()["data"] if each["api"] == "inference")
            return str(one["health"]["message"])

        http.post("/v1/configurations/register", json=body("http://slow"))
        assert "an apply would change it" in health()
        assert http.post("/v1/apply", headers={"Prefer": "respond-async"}).status_code == 202
        wait_for(tmp_path / "slow-began")
        assert health() == "an apply is at it"
        (tmp_path / "go-on").touch()
        told(http)
        assert health().startswith("runs with revision 1")


def test_everything_at_once(tmp_path: Path) -> None:
    """Whatever order they come in: only documented answers, a history without a gap, and at the end what
    is applied is what was asked for last.
    """
    environ = {"PYTHONFAULTHANDLER": "1"}
    with serving(tmp_path, environ=environ) as server:
        server.until("applied: ")
        with server.http(limits=httpx.Limits(max_connections=40)) as http, ThreadPoolExecutor(20) as pool:
            end = monotonic() + SECONDS
            work = (_register, _register, _switch, _read, _apply)
            done: list[Future[list[tuple[str, int, str]]]] = [
                pool.submit(_until, end, http, work[number % len(work)], number) for number in range(20)
            ]
            answers = [answer for each in done for answer in each.result(timeout=SECONDS + 60)]
            allowed = {
                "register": {200, 409, 412},
                "switch": {200, 404, 409, 412},
                "read": {200, 304},
                "apply": {200, 202, 409, 412},
            }
            wrong = [each for each in answers if each[1] not in allowed[each[0]]]
            assert wrong == []
            seen = Counter((kind, status) for kind, status, _ in answers)
            assert all(seen[kind, 200] > 3 for kind in allowed), seen
            made = http.post("/v1/apply", json={"wait": 30})
            assert made.status_code == 200, made.text
            history = http.get("/v1/history").json()
            numbers = [each["revision"] for each in history["revisions"]]
            assert numbers == list(range(len(numbers), 0, -1))
            assert not [each for each in history["attempts"] if each["finished_at"] is None]
            ready = http.get("/v1/ready").json()
            assert (ready["settled"], ready["revision"], ready["applying"]) == (True, numbers[0], False)
        assert server.end() == 0
    assert "Traceback" not in server.text, server.text


def _until(end: float, http: httpx.Client, ask: Any, number: int) -> list[tuple[str, int, str]]:
    found: list[tuple[str, int, str]] = []
    turn = 0
    while monotonic() < end:
        turn += 1
        answer = ask(http, number, turn)
        found.append((ask.__name__[1:], answer.status_code, answer.text[:300]))
    return found


def _register(http: httpx.Client, number: int, turn: int) -> httpx.Response:
    headers = {}
    if turn % 3 == 0:
        headers["If-Match"] = http.get("/v1/inspect/configurations").headers["etag"]
    data = {**body(threads=turn % 64 + 1), "name": f"of-{number}", "apply": turn % 5 == 0, "wait": 20}
    return http.post("/v1/configurations/register", json=data, headers=headers)


def _switch(http: httpx.Client, number: int, turn: int) -> httpx.Response:
    name = f"of-{turn % 20 // 5 * 5}"
    if turn % 7 == 0:
        return http.delete(f"/v1/configurations/{name}")
    return http.post(f"/v1/configurations/{name}/{('assign', 'unassign')[(turn + number) % 2]}")


def _read(http: httpx.Client, number: int, turn: int) -> httpx.Response:
    paths = ("inspect/configurations", "plan", "status", "history", "providers", "ready", "applied", "drift")
    return http.get(f"/v1/{paths[(number + turn) % len(paths)]}")


def _apply(http: httpx.Client, number: int, turn: int) -> httpx.Response:
    if turn % 4 == 0:
        with http.stream("POST", "/v1/apply", json={"wait": 20}, headers=STREAM) as answer:
            if answer.status_code != 200:
                answer.read()
                return answer
            next(answer.iter_bytes())  # and goes away
        return httpx.Response(answer.status_code)
    prefer = {"Prefer": "respond-async"} if (number + turn) % 3 == 0 else {}
    return http.post("/v1/apply", json={"wait": turn % 2 * 20}, headers=prefer)


def test_reads_are_quick_beside_a_long_apply(tmp_path: Path) -> None:
    with serving(tmp_path, stack=STACK) as server, server.http() as http:
        server.until("applied: ")
        times: dict[bool, list[float]] = {}
        for applying in (False, True):
            if applying:
                slowly(server, http)
            for number in range(200):
                began = monotonic()
                path = ("/v1/inspect/configurations", "/v1/plan", "/v1/status")[number % 3]
                assert http.get(path).status_code == 200
                times.setdefault(applying, []).append(monotonic() - began)
        assert http.get("/v1/ready").json()["applying"] is True
        (tmp_path / "go-on").touch()
        told(http)
        still, beside = (sorted(times[each])[100] for each in (False, True))
        assert beside < 10 * still + 0.05, (still, beside)
