"""Upstream's routes of a real server; `test_server_upstream_clients` asks them with upstream's clients."""

from __future__ import annotations

import pytest
from server_kit import STACK, serving

PREFIXES = ["/v1", "/v1alpha/admin"]
SHARED = STACK.replace("provider_id: memory", "provider_id: one")


@pytest.fixture(scope="module")
def http(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server"), stack=SHARED) as server, server.http() as http:
        server.until("applied: ")
        yield http
        assert server.end() == 0
    assert "s3cret" not in server.text
    assert "Traceback" not in server.text


def keys(answer) -> list[str]:
    return [f"{each['api']}/{each['provider_id']}" for each in answer.json()["data"]]


@pytest.mark.parametrize("path", ["/providers", "/providers/one", "/health", "/version"])
def test_both_prefixes_have_the_same_bytes_and_a_tag(http, path):
    first, second = (http.get(prefix + path) for prefix in PREFIXES)
    assert first.status_code == 200
    assert first.headers["content-type"] == "application/json"
    assert (first.content, first.headers["etag"]) == (second.content, second.headers["etag"])
    again = http.get(PREFIXES[1] + path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_provider_can_be_had(http, prefix):
    listed = http.get(f"{prefix}/providers")
    assert keys(listed) == ["inference/one", "vector_io/one"]
    assert "s3cret" not in listed.text
    assert http.get(f"{prefix}/providers/").content == listed.content
    inference, vector_io = listed.json()["data"]
    assert (inference["config"]["token"], inference["health"]["status"]) == ("********", "OK")
    assert http.get(f"{prefix}/providers/one").json() == {**inference, "same_id": ["vector_io/one"]}
    for path in ("vector_io/one", "vector_io%2Fone", "one?api=vector_io"):
        assert http.get(f"{prefix}/providers/{path}").json() == vector_io


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("on", "did you mean `one`?"),
        ("one?api=agents", "no provider `agents/one`"),
        ("vector_io/one/more", "no provider `vector_io/one/more`"),
        ("%00", "no provider"),
    ],
)
def test_what_nobody_has_is_not_found(http, prefix, path, said):
    answer = http.get(f"{prefix}/providers/{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert said in answer.json()["detail"]
    assert "s3cret" not in answer.text


def test_what_is_told_follows_what_is_registered_and_applied(http):
    before = http.get("/v1/providers")
    wanted = {"vector_io": [{"provider_id": "one", "config": {"size": 7}}]}
    assert http.post("/v1/configurations/register", json={"config": wanted}).status_code == 200
    registered = http.get("/v1/providers/vector_io/one").json()
    assert registered["config"] == {"size": 7}
    assert registered["health"]["message"].endswith("an apply would change it to revision 1")
    assert http.post("/v1/apply", json={}).status_code == 200
    applied = http.get("/v1/providers/vector_io/one").json()
    assert applied["health"]["message"].startswith("runs with revision 1, applied at ")
    after = http.get("/v1/providers", headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.json()["data"][0] == before.json()["data"][0]


def test_routes_are_those_of_the_document(http):
    document = http.get("/openapi.json").json()
    listed = [(each["route"], each["method"]) for each in http.get("/v1/inspect/routes").json()["data"]]
    assert listed == [
        (path, method.upper()) for path, operations in document["paths"].items() for method in operations
    ]
    assert ("/v1/configurations/{name}", "DELETE") in listed
    only = http.get("/v1alpha/admin/inspect/routes", params={"api_filter": "v1alpha"}).json()["data"]
    assert len(only) == 5
    assert http.get("/v1/inspect/routes?api_filter=deprecated").json() == {"data": []}
    assert http.get("/v1/inspect/routes?api_filter=v9").status_code == 422


def test_every_operation_is_documented_with_an_example(http):
    document = http.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if "upstream" in operation["tags"]:
                content = operation["responses"]["200"]["content"]["application/json"]
                assert content["example"], path
                assert set(content["schema"]["required"]) <= set(content["example"]), path
                assert operation["summary"], path
    refused = document["paths"]["/v1/providers/{provider_id}"]["get"]["responses"]["404"]["content"]
    example = refused["application/problem+json"]["example"]
    assert example == http.get("/v1/providers/olama").json() | {"detail": example["detail"]}
