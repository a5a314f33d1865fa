"""The request log of a real server: one line for each request, who asked, what came of it, no secret."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

from server_kit import Server, serving

READ, WRITE = "reader-0123456789abcdef", "writer-0123456789abcdef"
CONFIG = {"inference": [{"provider_id": "one", "config": {"threads": 2}}]}


def tokens(folder: Path) -> tuple[str, ...]:
    """The options for a server with two tokens."""
    file = folder / "tokens"
    file.write_text(f"watch read {READ}\nci write {WRITE}\n")
    file.chmod(0o600)
    return "--token-file", str(file)


def raw(server: Server, request: bytes) -> bytes:
    host, port = server.url.partition("://")[2].split(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(request)
        return connection.recv(65536)


def test_a_line_says_who_asked_and_what_came_of_it(tmp_path: Path) -> None:
    with serving(tmp_path, *tokens(tmp_path)) as server, server.http() as http:
        writer = {"Authorization": f"Bearer {WRITE}"}
        http.get("/v1/plan")
        server.until(r"info GET /v1/plan 401 [\d.]+ ms 127.0.0.1\n")
        http.get("/v1/plan?field=s3cret-query", headers=writer)
        server.until(r"info GET /v1/plan 422 [\d.]+ ms 127.0.0.1 \(ci\)\n")
        http.post("/v1/apply", headers={"Authorization": f"Bearer {READ}", "Stackconf-Actor": "eve (ci)"})
        server.until(r"info POST /v1/apply 403 [\d.]+ ms 127.0.0.1 eve \[ci\] \(watch\)\n")
        body = {"config": CONFIG}
        made = http.post(
            "/v1/configurations/register", json=body, headers={**writer, "Stackconf-Actor": "alice"}
        )
        assert made.status_code == 200
        server.until(r"info POST /v1/configurations/register 200 [\d.]+ ms 127.0.0.1 alice \(ci\)\n")
        assert http.get("/v1/history", headers=writer).json()["revisions"][0]["actor"] == "alice (ci)"
        http.get("/v1/status", headers={"Authorization": f"bearer {READ}", "X-Forwarded-For": "6.6.6.6"})
        server.until(r"info GET /v1/status 200 [\d.]+ ms 127.0.0.1 \(watch\)\n")
        assert server.end() == 0
    for secret in (READ, WRITE, "s3cret", "threads"):
        assert secret not in server.text


def test_nothing_that_is_sent_begins_a_line_of_its_own(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.until("applied: ")
        for path in ("/a%0a2026-11-22 info forged", "/b%0D%0Aforged", "/c%1b[31m", "/d%E2%80%A8forged"):
            raw(server, f"GET {path.replace(' ', '%20')} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        actor = "x\x85forged \xe2\x80\xa8forged\x9b31m"
        raw(
            server,
            f"GET /e HTTP/1.1\r\nHost: localhost\r\nStackconf-Actor: {actor}\r\n\r\n".encode("latin-1"),
        )
        raw(server, b"GET /" + b"f" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        raw(server, b"GET /g\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n")
        raw(server, b"GET /postgres://me:hunter2@db/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        raw(server, b"forged\r\n\r\n")
        server.until(r"info - - 400 0.0 ms 127.0.0.1 bad request\n")
        assert server.end() == 0
    lines = server.text.splitlines()
    assert all(re.match(r"[\d-]{10} [\d:,]{12} (info|warning|error) ", line) for line in lines), server.text
    assert all(line.isprintable() and len(line) < 400 for line in lines)
    assert not any(line.split(" ", 3)[3].startswith("forged") for line in lines)
    assert "hunter2" not in server.text


def test_json_lines(tmp_path: Path) -> None:
    with serving(tmp_path, "--log-format", "json", *tokens(tmp_path)) as server:
        server.until("applied: ")
        address = server.until(r'at (http://[^"]+)"')[1]
        host, port = address.partition("://")[2].split(":")
        with socket.create_connection((host, int(port)), 30) as connection:
            head = f"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {READ}\r\n"
            connection.sendall(f"{head}Stackconf-Actor: alice\r\n\r\n".encode())
            assert b" 200 " in connection.recv(65536)
        server.until("GET /v1/status 200")
        assert server.end() == 0
    lines = [json.loads(line) for line in server.text.splitlines()]
    assert all(line["message"] for line in lines)
    asked = next(line for line in lines if line.get("path") == "/v1/status")
    assert asked.pop("ms") > 0
    assert asked.pop("at").endswith("Z")
    assert asked.pop("message").startswith("GET /v1/status 200 ")
    assert asked == {
        "level": "info",
        "method": "GET",
        "path": "/v1/status",
        "status": 200,
        "from": "127.0.0.1",
        "token": "watch",
        "actor": "alice",
    }
