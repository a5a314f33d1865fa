"""What nobody should send, to a real server: a clear 4xx as problem details, and nothing has changed."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_kit import Server, serving

if TYPE_CHECKING:
    import httpx

REGISTER = "/v1/configurations/register"
CONFIG: dict[str, Any] = {"inference": [{"provider_id": "one", "config": {"threads": 2}}]}
JSON = {"Content-Type": "application/json"}
PROBLEM = "application/problem+json"
DEEP = 10_000
HUGE = 100 * 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("bad")) as server:
        server.until("applied: ")
        yield server
        assert "Traceback" not in server.text
        assert "defect" not in server.text
        assert "s3cret" not in server.text


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with server.http() as http:
        yield http


@pytest.fixture(autouse=True)
def nothing_changes(server: Server, http: httpx.Client) -> Iterator[None]:
    before = state(server, http)
    yield
    assert state(server, http) == before


def state(server: Server, http: httpx.Client) -> object:
    """All that a request could have changed."""
    history = http.get("/v1/history").json()
    return history["revisions"], history["attempts"], server.acts()


def refused(answer: httpx.Response, status: int, *words: str) -> dict[str, Any]:
    """What a refusal says, when it is one as it should be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    data: dict[str, Any] = answer.json()
    assert data["status"] == status
    assert data["title"]
    for word in words:
        assert word in data["detail"], data["detail"]
    return data


def exchange(server: Server, request: bytes, seconds: float = 30.0) -> bytes:
    """The bytes that come back for bytes, until the server hangs up or an answer is whole."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), seconds) as connection:
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65536):
            answer += data
            head, found, body = answer.partition(b"\r\n\r\n")
            lengths = [
                line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
            ]
            if found and lengths and len(body) >= int(lengths[0]):
                break
    return answer


def status_of(answer: bytes) -> int:
    """The status of an answer's bytes."""
    return int(answer.split(b" ", 2)[1])


BODIES: dict[str, tuple[bytes, str]] = {
    "nothing but space": (b"   ", "not JSON"),
    "cut off": (b'{"config": {', "line 1"),
    "two values": (b"{} {}", "not JSON"),
    "a list": (b"[]", "the body"),
    "a text": (b'"stack.yaml"', "the body"),
    "a number": (b"5", "the body"),
    "null": (b"null", "the body"),
    "NaN": (b'{"config": {"inference": []}, "wait": NaN}', "NaN"),
    "Infinity": (b'{"config": {"inference": []}, "wait": -Infinity}', "Infinity"),
    "a number without end": (b'{"config": {"inference": []}, "wait": ' + b"9" * 5000 + b"}", "number"),
    "a number beyond floats": (
        b'{"config": {"inference": [{"provider_id": "one", "config": {"threads": 1e999}}]}}',
        "number",
    ),
    "a key twice": (b'{"config": {}, "config": {}}', "`config` is given twice"),
    "a key twice, deep down": (b'{"config": {"inference": [{"config": {"a": 1, "a": 2}}]}}', "`a` is given"),
    "half a surrogate pair": (b'{"config": {"inference": []}, "name": "\\ud800"}', "surrogate"),
    "half a surrogate pair as a key": (b'{"\\udfff": 1}', "surrogate"),
    "half a surrogate pair in bytes": (b'{"name": "\xed\xa0\x80"}', "not UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "not JSON"),
    "UTF-16": ('{"config": {}}'.encode("utf-16"), "not UTF-8"),
    "UTF-16 without a mark": ('{"config": {}}'.encode("utf-16-le"), "not JSON"),
    "latin-1": ('{"name": "é"}'.encode("latin-1"), "not UTF-8"),
    "NUL": (b'{"config": {}}\x00', "not JSON"),
    "a control character": (b'{"name": "a\x01b"}', "not JSON"),
    "deep lists": (b"[" * DEEP + b"]" * DEEP, "deep"),
    "deep objects": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, "deep"),
    "deep and cut off": (b'{"config":' + b"[" * DEEP, ""),
    "a single quote": (b"{'config': {}}", "not JSON"),
}


@pytest.mark.parametrize("what", BODIES)
def test_a_body_that_is_no_strict_json(http: httpx.Client, what: str) -> None:
    body, said = BODIES[what]
    for path in (REGISTER, "/v1/apply", "/v1/rollback", "/v1/configurations/x/assign"):
        data = refused(http.post(path, content=body, headers=JSON), 422)
        assert said in data["detail"] or path != REGISTER, data["detail"]


def test_a_key_twice_among_very_many_is_found_at_once(http: httpx.Client) -> None:
    keys = ",".join(f'"k{number}":0' for number in range(200_000))
    body = f'{{{keys},"k199999":1}}'.encode()
    answer = http.post(REGISTER, content=body, headers=JSON, timeout=20)
    refused(answer, 422, "`k199999` is given twice")


WRONG: dict[str, tuple[str, Any, str]] = {
    "wait is a text": (REGISTER, {"config": CONFIG, "wait": "x"}, "wait"),
    "wait is a number as text": (REGISTER, {"config": CONFIG, "wait": "5"}, "wait"),
    "wait is negative": ("/v1/apply", {"wait": -1}, "wait"),
    "wait is too long": ("/v1/apply", {"wait": 1e9}, "wait"),
    "wait is true": ("/v1/recover", {"wait": True}, "wait"),
    "apply is a text": (REGISTER, {"config": CONFIG, "apply": "yes"}, "apply"),
    "apply is a number": (REGISTER, {"config": CONFIG, "apply": 1}, "apply"),
    "apply is null": (REGISTER, {"config": CONFIG, "apply": None}, "apply"),
    "assign is a list": (REGISTER, {"config": CONFIG, "assign": []}, "assign"),
    "seal is a text": (REGISTER, {"config": CONFIG, "seal": "no"}, "seal"),
    "name is a number": (REGISTER, {"config": CONFIG, "name": 5}, "name"),
    "name is empty": (REGISTER, {"config": CONFIG, "name": ""}, "name"),
    "name is too long": (REGISTER, {"config": CONFIG, "name": "n" * 10_000}, "name"),
    "name has NUL": (REGISTER, {"config": CONFIG, "name": "a\x00b"}, "name"),
    "name has a line": (REGISTER, {"config": CONFIG, "name": "a\nb"}, "name"),
    "expected_revision is true": (REGISTER, {"config": CONFIG, "expected_revision": True}, "expected_rev"),
    "expected_revision is a text": (REGISTER, {"config": CONFIG, "expected_revision": "0"}, "expected_rev"),
    "expected_revision is 0.5": (REGISTER, {"config": CONFIG, "expected_revision": 0.5}, "expected_rev"),
    "expected_revision is negative": (REGISTER, {"config": CONFIG, "expected_revision": -1}, "expected_rev"),
    "on_dropped": (REGISTER, {"config": CONFIG, "on_dropped": "eror"}, "on_dropped"),
    "on_conflict": (REGISTER, {"config": CONFIG, "on_conflict": 3}, "on_conflict"),
    "a key that is not there": (REGISTER, {"config": CONFIG, "aply": True}, "did you mean `apply`"),
    "another key": (REGISTER, {"config": CONFIG, "xyzzy": True}, "xyzzy"),
    "a list of providers": (REGISTER, {"config": []}, ""),
    "an api that is no list": (REGISTER, {"config": {"inference": 5}}, "inference"),
    "an entry that is no mapping": (REGISTER, {"config": {"inference": ["one"]}}, "inference"),
    "a provider that is not there": (
        REGISTER,
        {"config": {"inference": [{"provider_id": "oen", "config": {}}]}, "on_dropped": "error"},
        "did you mean",
    ),
    "a field that is not the user's": (
        REGISTER,
        {
            "config": {"inference": [{"provider_id": "one", "config": {"mode": "x"}}]},
            "on_dropped": "error",
        },
        "mode",
    ),
    "a value of another type": (
        REGISTER,
        {"config": {"inference": [{"provider_id": "one", "config": {"threads": "many"}}]}},
        "threads",
    ),
    "a value out of bounds": (
        REGISTER,
        {"config": {"inference": [{"provider_id": "one", "config": {"threads": 10**30}}]}},
        "threads",
    ),
    "a path as text": (REGISTER, {"config": "/etc/passwd"}, ""),
    "a file as text": (REGISTER, {"config": "stack.yaml"}, ""),
    "an address as text": (REGISTER, {"config": "file:///etc/passwd"}, ""),
    "a text that is no YAML": (REGISTER, {"config": "a: ["}, ""),
    "a bomb as text": (REGISTER, {"config": "a: &a [x]\nb: &b [*a,*a]\ninference: [*b, *b]"}, ""),
    "no configuration": (REGISTER, {"name": "x", "config": None}, ""),
    "rollback without a revision": ("/v1/rollback", {}, "revision"),
    "rollback to true": ("/v1/rollback", {"revision": True}, "revision"),
    "rollback to a list": ("/v1/rollback", {"revision": [1]}, "revision"),
    "a plan that is a text": ("/v1/apply", {"plan": "x"}, "plan"),
    "a plan that is empty": ("/v1/apply", {"plan": {}}, "plan"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_body_that_says_something_wrong(http: httpx.Client, what: str) -> None:
    path, body, said = WRONG[what]
    data = refused(http.post(path, content=json.dumps(body), headers=JSON), 422)
    assert said in json.dumps(data), data
    assert "root:" not in json.dumps(data)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/rollback", {"revision": 10**6}, 404),
        ("/v1/rollback", {"revision": "yesterday"}, 404),
        ("/v1/rollback", {"revision": 10**30}, 404),
        ("/v1/rollback", {"revision": -(10**30)}, 404),
        ("/v1/configurations/nobody/assign", {}, 404),
        ("/v1/configurations/nobody/unassign", {}, 404),
        (REGISTER, {"config": CONFIG, "expected_revision": 10**30}, 409),
        (REGISTER, {"config": CONFIG, "expected_revision": 17}, 409),
    ],
)
def test_what_is_not_there(http: httpx.Client, path: str, body: dict[str, Any], status: int) -> None:
    refused(http.post(path, json=body), status)


@pytest.mark.parametrize(
    ("tag", "status"),
    [
        ('"17"', 412),
        ('W/"17"', 412),
        ('"999999999999999999"', 412),
        ('"' + "9" * 5000 + '"', 422),
        ("17", 422),
        ('"abc"', 422),
        ('"1", "2"', 422),
        ('"-1"', 422),
        ("", 422),
        ('"', 422),
        ("**", 422),
        ('"¹"', 422),
    ],
)
def test_an_if_match_that_is_stale_or_none(http: httpx.Client, tag: str, status: int) -> None:
    head = {"If-Match": tag.encode("latin-1")}
    for method, path, body in (
        ("POST", REGISTER, {"config": CONFIG}),
        ("POST", "/v1/apply", {}),
        ("POST", "/v1/rollback", {"revision": 0}),
    ):
        refused(http.request(method, path, json=body, headers=head), status)


def test_if_none_match(http: httpx.Client) -> None:
    tag = http.get("/v1/status").headers["etag"]
    for given_tag, status in (
        (tag, 304),
        (f"W/{tag}", 304),
        (f'"x", {tag}', 304),
        ("*", 304),
        ('"x"', 200),
        ("", 200),
        (",,,", 200),
        ("x" * 5000, 200),
    ):
        answer = http.get("/v1/status", headers={"If-None-Match": given_tag})
        assert answer.status_code == status, given_tag
        assert (answer.content == b"") == (status == 304)


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json", "a/b"],
)
def test_another_type_of_body(http: httpx.Client, media_type: str) -> None:
    head = {"Content-Type": media_type}
    refused(http.post(REGISTER, content=json.dumps(CONFIG), headers=head), 415)
    refused(http.request("DELETE", "/v1/configurations/x", content="{}", headers=head), 415)


def test_yaml_is_for_configurations_only(http: httpx.Client) -> None:
    refused(http.post("/v1/apply", content="wait: 1", headers={"Content-Type": "application/yaml"}), 415)


def test_a_body_that_is_compressed(http: httpx.Client) -> None:
    body = gzip.compress(json.dumps(CONFIG).encode())
    refused(http.post(REGISTER, content=body, headers={**JSON, "Content-Encoding": "gzip"}), 415, "Encoding")


@pytest.mark.parametrize(
    "body",
    [
        "a: &a [x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 8)}]\n" for n in range(12)
        ),
        "inference: &a [*a]",
        "a: " + "[" * DEEP,
        "!!python/object/apply:os.system ['touch owned']",
        "inference: [{provider_id: one, config: {threads: .nan}}]",
        "inference: [{provider_id: one, config: {threads: 2, threads: 3}}]",
        "a\x00b: 1",
        "- a\n- b",
        "/etc/passwd",
        "stack.yaml",
        "--- {}\n--- {}",
        "",
    ],
)
def test_yaml_that_is_too_much(http: httpx.Client, server: Server, body: str) -> None:
    head = {"Content-Type": "application/yaml"}
    refused(http.post(REGISTER, content=body.encode(), headers=head, params={"on_dropped": "error"}), 422)
    refused(http.post(REGISTER, content=b"\xff\xfe" + body.encode("utf-16-le"), headers=head), 422)
    assert not (server.folder / "owned").exists()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/history?limit=-1", 422),
        ("/v1/history?limit=0", 422),
        ("/v1/history?limit=x", 422),
        ("/v1/history?limit=1e3", 422),
        ("/v1/history?limit=99999999999999999999999999", 422),
        ("/v1/history?limt=1", 422),
        ("/v1/history?limit=1&limit=2", 422),
        ("/v1/history?limit=", 422),
        ("/v1/plan?x=1", 422),
        ("/v1/inspect/configurations?pretty=1", 422),
        ("/v1/diff", 422),
        ("/v1/diff?before=x", 404),
        ("/v1/diff?before=0&after=99", 404),
        ("/v1/diff?before=0&effective=maybe", 422),
        ("/v1/revisions/99", 404),
        ("/v1/revisions/99999999999999999999999999", 404),
        ("/v1/revisions/-1", 404),
        ("/v1/revisions/x", 404),
        ("/v1/revisions/head-99999999999999999999999999", 404),
        ("/v1/revisions/%00", 404),
        ("/v1/revisions/%F0%9F%98%80", 404),
        ("/v1/configurations/nobody", 404),
        ("/v1/configurations/..", 404),
        ("/v1/configurations/%2e%2e", 404),
        ("/v1/configurations/a%2Fb", 404),
        ("/v1/configurations/..%2f..%2fetc%2fpasswd", 404),
        ("/v1/configurations/%00", 404),
        ("/v1/configurations/%ff", 404),
        ("/v1/configurations/%0d%0aX-Evil:%201", 404),
        ("/v1/configurations/" + "n" * 20_000, 404),
        ("/v1/explain/nobody", 404),
        ("/v1/explain/inference/one?field=nothing", 404),
        ("/v1/explain/%00?field=%00", 404),
        ("/v1/provider-types/x/y", 404),
        ("/v1/providers/nobody", 404),
        ("/v1/providers/%00", 404),
        ("/v1/inspect/routes?api_filter=x", 422),
        ("/v1/export?applied=2", 422),
        ("/v1", 404),
        ("/v1/", 404),
        ("/v1/plan/", 404),
        ("//v1/plan", 404),
        ("/v1//plan", 404),
        ("/V1/plan", 404),
        ("/v1/%70lan/../status", 404),
        ("/docs", 404),
        ("/favicon.ico", 404),
    ],
)
def test_a_path_or_query_that_is_not_there(server: Server, path: str, status: int) -> None:
    answer = exchange(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert status_of(answer) == status, answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"content-type: {PROBLEM}".encode() in head.lower()
    assert b"x-evil" not in head.lower()
    assert json.loads(body)["status"] == status


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", REGISTER, "DELETE, GET, HEAD, POST"),
        ("PATCH", "/v1/configurations/x", "DELETE, GET, HEAD"),
        ("DELETE", "/v1/plan", "GET, HEAD"),
        ("GET", "/v1/apply", "POST"),
        ("POST", "/v1/providers", "GET, HEAD"),
        ("OPTIONS", "/v1/apply", "POST"),
        ("TRACE", "/v1/apply", "POST"),
        ("HEAD", "/v1/apply", "POST"),
    ],
)
def test_another_method(http: httpx.Client, method: str, path: str, allowed: str) -> None:
    answer = http.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    assert method == "HEAD" or answer.json()["status"] == 405


def test_head_is_as_get_without_a_body(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    paths = [path for path, methods in document["paths"].items() if "get" in methods and "{" not in path]
    assert len(paths) > 15
    for path in [*paths, "/v1/configurations/nobody", "/v1/revisions/head"]:
        read, head = http.get(path), http.head(path)
        assert (head.status_code, head.content) == (read.status_code, b""), path
        assert head.headers["content-type"] == read.headers["content-type"]
        if path not in {"/v1/status", "/v1/apply/events", "/metrics"}:
            assert head.headers["content-length"] == str(len(read.content)), path


def test_a_body_of_100_megabytes(server: Server, http: httpx.Client) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(HUGE // 2**20):
            yield b" " * 2**20

    refused(http.post(REGISTER, content=parts(), headers=JSON), 413, "4194304 bytes")
    for length in (HUGE, 10**15):
        head = f"POST {REGISTER} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        answer = exchange(server, f"{head}Content-Length: {length}\r\n\r\n".encode())
        assert status_of(answer) == 413
    refused(http.post(REGISTER, content=b" " * HUGE, headers=JSON), 413)


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}   ",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: -1\r\n\r\n{}",
        "Content-Length: +2\r\n\r\n{}",
        "Content-Length: 0x2\r\n\r\n{}",
        "Content-Length: 99999999999999999999999999\r\n\r\n{}",
        "Transfer-Encoding: gzip\r\n\r\n{}",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        "Content-Type : text/plain\r\n\r\n",
        "X: a\x00b\r\n\r\n",
        "Content-Type: application/json\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_a_body_whose_length_is_a_lie(server: Server, framing: str) -> None:
    head = f"POST {REGISTER} HTTP/1.1\r\nHost: localhost\r\n"
    answer = exchange(server, (head + framing).encode("latin-1"))
    assert 400 <= status_of(answer) < 500, answer
    assert PROBLEM.encode() in answer
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_body_longer_than_said_is_a_request_of_its_own(server: Server) -> None:
    head = f"POST {REGISTER} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = exchange(server, f'{head}Content-Length: 2\r\n\r\n{{}}{{"config": 1}}'.encode())
    assert 400 <= status_of(answer) < 500


@pytest.mark.parametrize(
    "request_",
    [
        b"\r\n\r\n\r\nGARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
    ],
)
def test_what_is_not_http(server: Server, request_: bytes) -> None:
    answer = exchange(server, request_)
    assert status_of(answer) == 400
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 400


def test_a_head_without_end(server: Server, http: httpx.Client) -> None:
    answer = exchange(server, b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 100_000)
    assert status_of(answer) == 431
    assert status_of(exchange(server, b"GET /" + b"a" * 500_000)) == 431


def test_an_upgrade_is_not_followed(server: Server) -> None:
    head = "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    answer = exchange(
        server,
        f"GET /v1/health HTTP/1.1\r\n{head}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode(),
    )
    assert status_of(answer) == 200


def test_trailers_are_no_headers(server: Server) -> None:
    head = f"POST {REGISTER} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    body = json.dumps({"config": CONFIG, "expected_revision": 3})
    chunks = f"{len(body):x}\r\n{body}\r\n0\r\nIf-Match: *x\r\n\r\n"
    answer = exchange(server, f"{head}Transfer-Encoding: chunked\r\n\r\n{chunks}".encode())
    assert status_of(answer) == 409  # the revision in the body, and no wrong If-Match


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    [
        "config",
        "name",
        "assign",
        "on_dropped",
        "seal",
        "wait",
        "expected_revision",
        "on_conflict",
        "plan",
        "revision",
    ]
)
FUZZED = st.sampled_from(
    [REGISTER, "/v1/apply", "/v1/recover", "/v1/rollback", "/v1/configurations/x/assign"]
)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(path=FUZZED, body=st.dictionaries(KEYS, JSONS, min_size=1, max_size=5) | JSONS)
def test_any_json_is_refused_or_understood(http: httpx.Client, path: str, body: Any) -> None:
    body = {**body, "on_dropped": 5, "wait": "x"} if isinstance(body, dict) else body
    answer = http.post(path, content=json.dumps(body), headers=JSON)
    assert answer.status_code in {404, 409, 422}, (path, body, answer.text)
    assert answer.headers["content-type"] == PROBLEM


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(path=FUZZED, body=st.binary(min_size=1, max_size=60))
def test_any_bytes_are_refused(http: httpx.Client, path: str, body: bytes) -> None:
    answer = http.post(path, content=b"\x80" + body, headers=JSON)
    assert answer.status_code == 422, (path, body, answer.text)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(config=st.dictionaries(st.sampled_from(["inference", "vector_io", "x", ""]), JSONS, max_size=3))
def test_any_configuration_is_refused_or_has_nothing_in_it(http: httpx.Client, config: Any) -> None:
    """It would be registered for a revision that is not the head, so nothing can come of it."""
    body = {"config": config, "expected_revision": 10**6, "on_dropped": "error"}
    answer = http.post(REGISTER, content=json.dumps(body), headers=JSON)
    assert answer.status_code in {409, 422}, (config, answer.text)


def test_what_a_configuration_says_is_never_read_from_the_disk(server: Server, http: httpx.Client) -> None:
    (server.folder / "other.yaml").write_text(json.dumps(CONFIG), encoding="utf-8")
    for text in ("other.yaml", str(server.folder / "other.yaml"), "-", "@other.yaml", "~/other.yaml"):
        refused(http.post(REGISTER, json={"config": text}), 422)
        refused(http.post(REGISTER, content=text, headers={"Content-Type": "application/yaml"}), 422)
    assert Path(server.folder / "other.yaml").exists()
