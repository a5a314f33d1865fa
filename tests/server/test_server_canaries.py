"""Secrets over HTTP: each place has one of its own, and none is in anything that a real server says."""

from __future__ import annotations

import base64
import json
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from server_kit import STACK, serving

if TYPE_CHECKING:
    import httpx

VISIBLE = "visible-llama-0815"
"""No secret: where this is not found, nothing was searched."""
PLACES = (
    "stack file",
    "environment",
    "URL password",
    "overlay",
    "overlay, URL query",
    "overlay that is refused",
    "misspelt field",
    "unparsable body",
    "unparsable YAML",
    "failing apply",
    "read token",
    "write token",
    "wrong token",
    "query",
)
CANARY = {place: f"sk-proj-Cnry{number:03d}xK4T9wqZbN2vR8" for number, place in enumerate(PLACES)}


def needles(secret: str) -> set[bytes]:
    """How a secret might come out: as it is, in a URL, or within base64."""
    marker = secret[8:23]
    found = {marker, urllib.parse.quote(secret), marker.encode().hex()}
    for shift in range(3):
        found.add(
            base64.b64encode(bytes(shift) + marker.encode()).decode().rstrip("=")[4 if shift else 0 : -3]
        )
    return {each.encode() for each in found}


def found_in(what: bytes) -> list[str]:
    """The places whose secret is in it."""
    return [place for place, secret in CANARY.items() if any(each in what for each in needles(secret))]


def entry(**config: object) -> dict[str, object]:
    return {"inference": [{"provider_id": "one", "config": config}]}


def whole(answer: httpx.Response) -> bytes:
    """All of an answer: the status line, the headers, the body."""
    head = b"\n".join(name + b": " + value for name, value in answer.headers.raw)
    return answer.reason_phrase.encode() + b"\n" + head + b"\n" + answer.content


def test_no_answer_and_no_line_has_a_secret(tmp_path: Path) -> None:
    stack = (
        STACK.replace("${env.ACME_TOKEN:=s3cret}", CANARY["stack file"])
        .replace("http://one", f"http://me:{CANARY['URL password']}@{VISIBLE}/${{env.ACME_TOKEN}}")
        .replace("/${env.ACME_TOKEN}", "/?api_key=${env.ACME_TOKEN}")
    )
    file = tmp_path / "tokens"
    file.write_text(f"watch read {CANARY['read token']}\nci write {CANARY['write token']}\n")
    file.chmod(0o600)
    environ = {"ACME_TOKEN": CANARY["environment"]}
    options = "--token-file", "tokens", "--audit-file", "trail", "--verbose"
    said: list[bytes] = []
    with serving(tmp_path, *options, stack=stack, environ=environ) as server, server.http() as http:
        server.until("applied: ")
        token = {"Authorization": f"Bearer {CANARY['write token']}"}

        def ask(method: str, path: str, given: dict[str, str] = token, **more: object) -> httpx.Response:
            headers = {**given, **more.pop("headers", {})}  # type: ignore[dict-item]
            answer = http.request(method, path, headers=headers, **more)  # type: ignore[arg-type]
            said.append(whole(answer))
            return answer

        register = "/v1/configurations/register"
        reference = entry(url=f"http://{VISIBLE}?token={CANARY['overlay, URL query']}")
        refused = entry(token=[CANARY["overlay that is refused"]], threads=1000)
        bodies: list[dict[str, object]] = [
            {"config": entry(token=CANARY["overlay"]), "name": "sealed"},
            {"config": reference, "name": "query", "apply": True},
            {"config": refused, "on_dropped": "error"},
            {"config": entry(tokne=CANARY["misspelt field"]), "on_dropped": "error"},
            {"config": entry(url=f"http://me:{CANARY['failing apply']}@fail"), "seal": False, "apply": True},
        ]
        for body in bodies:
            ask("POST", register, json=body)
        json_type, yaml_type = {"Content-Type": "application/json"}, {"Content-Type": "application/yaml"}
        ask("POST", register, content=f'{{"token": "{CANARY["unparsable body"]}', headers=json_type)
        ask("POST", register, content=f"a: [{CANARY['unparsable YAML']}\n b: ]", headers=yaml_type)
        ask("GET", f"/v1/plan?token={CANARY['query']}")
        ask("POST", f"/v1/apply?api_key={CANARY['query']}", json={})
        for wrong in ("Bearer {}", "Basic {}", "{}"):
            ask("GET", "/v1/plan", {"Authorization": wrong.format(CANARY["wrong token"])})
        ask("POST", "/v1/apply", {"Authorization": f"Bearer {CANARY['read token']}"}, json={})
        document = ask("GET", "/openapi.json").json()
        for path, methods in document["paths"].items():
            if "get" in methods:
                names = {"{name}": "query", "{revision}": "head", "{provider}": "inference/one"}
                names |= {"{api}": "inference", "{provider_type}": "remote::acme", "{provider_id}": "one"}
                for name, value in names.items():
                    path = path.replace(name, value)  # noqa: PLW2901
                ask("GET", path)
        for more in ("/v1/diff?before=0", "/v1/diff?before=0&effective=true", "/v1/export?applied=true"):
            ask("GET", more)
        ask("POST", "/v1/apply", json={}, headers={"Accept": "text/event-stream"})
        assert server.end() == 0
    lines = [*said, server.text.encode(), (tmp_path / "trail").read_bytes()]
    assert len(said) > 40
    assert sum(VISIBLE.encode() in each for each in lines) > 5
    assert [
        (place, each[each.find(b"Cnry") - 300 :][:420]) for each in lines for place in found_in(each)
    ] == []
    assert json.loads((tmp_path / "trail").read_text().splitlines()[0])["token"] == "ci"
    assert found_in(stack.encode()) == ["stack file", "URL password"]
