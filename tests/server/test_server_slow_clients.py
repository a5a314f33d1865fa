"""Clients that take their time, and many of them: a real server cuts them off, and answers the others."""

from __future__ import annotations

import resource
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter, sleep
from typing import TYPE_CHECKING

import pytest
from server_kit import Server, serving

from stackconf.server.connection import HEAD_SECONDS, LINGER_SECONDS, most_connections

if TYPE_CHECKING:
    import httpx

MANY = 1000
POST = b"POST /v1/apply HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def connect(server: Server) -> socket.socket:
    host, port = server.url.partition("://")[2].split(":")
    return socket.create_connection((host, int(port)), 60)


def trickle(server: Server, begin: bytes, each: bytes) -> tuple[float, bytes]:
    """Send something a little at a time until the server hangs up: for how long that goes, and its answer."""
    began, answer = monotonic(), b""
    with connect(server) as connection:
        connection.sendall(begin)
        connection.settimeout(0.25)
        while monotonic() - began < 60:
            try:
                part = connection.recv(65536)
                if not part:
                    break
                answer += part
            except TimeoutError:
                pass
            except OSError:
                break
            try:
                connection.sendall(each)
            except OSError:
                break
    return monotonic() - began, answer


def usual(http: httpx.Client) -> float:
    """The usual time of an answer that is made anew, in seconds."""
    times = []
    for _ in range(20):
        began = perf_counter()
        assert http.get("/v1/status").status_code == 200
        times.append(perf_counter() - began)
    return median(times)


@pytest.mark.exhaustive
def test_who_trickles_is_cut_off(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.http() as http, ThreadPoolExecutor(5) as pool:
        server.until("applied: ")
        chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n"
        head = pool.submit(trickle, server, b"GET /v1/plan HTTP/1.1\r\nHost: localhost\r\n", b"A: b\r\n")
        body = pool.submit(trickle, server, POST + b"Content-Length: 1000\r\n\r\n{", b" ")
        chunks = pool.submit(trickle, server, chunked, b"1\r\n \r\n")
        silent = pool.submit(trickle, server, b"", b"")
        unread = b"GET /v1/plan HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        after = pool.submit(trickle, server, unread, b"1\r\n \r\n")
        for _ in range(20):
            assert http.get("/v1/status").status_code == 200
        for each, code in ((head, 408), (body, 408), (chunks, 408)):
            seconds, answer = each.result()
            assert answer.startswith(b"HTTP/1.1 %d " % code), answer
            assert answer.count(b"HTTP/1.1") == 1
            assert HEAD_SECONDS - 1 < seconds < HEAD_SECONDS + LINGER_SECONDS + 5
        seconds, answer = silent.result()
        assert answer == b""
        assert seconds < HEAD_SECONDS + 5
        seconds, answer = after.result()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert seconds < LINGER_SECONDS + 5
        assert len(http.get("/v1/history").json()["attempts"]) == 1
    assert "Traceback" not in server.text


def test_an_open_file_limit_leaves_room_for_more_than_connections() -> None:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert most_connections() < files or files == resource.RLIM_INFINITY


def test_a_thousand_connections_keep_nobody_waiting(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving(tmp_path) as server, ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        server.until("applied: ")
        with server.http() as http:
            before = usual(http)
        for number in range(MANY + 200):
            connection = stack.enter_context(connect(server))
            if number % 2:
                connection.sendall(b"GET /v1/plan HTTP/1.1\r\nHost: localhost\r\n")
        with server.http() as http:
            during = usual(http)
            assert during < max(5 * before, 0.1)
        assert server.end() == 0
    assert "Traceback" not in server.text
    assert "Too many open files" not in server.text


def test_events_that_nobody_reads_hold_up_nothing(tmp_path: Path) -> None:
    config = {"inference": [{"provider_id": "one", "config": {"url": "http://slow"}}]}
    with serving(tmp_path) as server, server.http() as http, ExitStack() as stack:
        server.until("applied: ")
        asked = {"config": config, "apply": True}
        with ThreadPoolExecutor() as pool:
            answer = pool.submit(http.post, "/v1/configurations/register", json=asked)
            while not (tmp_path / "slow-began").exists():
                sleep(0.02)
            for _ in range(50):
                connection = stack.enter_context(connect(server))
                connection.sendall(b"GET /v1/apply/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with server.http() as other:
                assert usual(other) < 0.5
            (tmp_path / "go-on").touch()
            assert answer.result().json()["report"]["state"] == "applied"
        assert server.end() == 0
