"""The OpenAPI document against a real server: what it promises is what is sent, for every operation.

The examples in the document were recorded by these tests: `STACKCONF_RECORD=1` writes them anew.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from pydantic import TypeAdapter
from server_kit import Server, serving

from stackconf import simulate
from stackconf.server import openapi
from stackconf.shapes.hardware import hardware_data

ELSEWHERE = {"inference": [{"provider_id": "one", "config": {"url": "http://gpu-box:11434"}}]}
EXAMPLES = Path(openapi.__file__).with_name("examples.json")
RECORD = "STACKCONF_RECORD"
MACHINES = {name: hardware_data(simulate(f"cpu={name}")) for name in ("4", "8")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("openapi")) as server:
        server.until("applied: ")
        yield server


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Server]:
    """A server whose stack nobody has given what fails."""
    with serving(tmp_path) as server:
        server.until("applied: ")
        yield server


@pytest.fixture(scope="module")
def answers(server: Server) -> dict[str, tuple[int, Any, Any]]:
    """Of every operation: the status, the answer, and the body that was sent."""
    said: dict[str, tuple[int, Any, Any]] = {}
    with server.http() as http:

        def ask(name: str, path: str | None = None, body: Any = None, **headers: str) -> None:
            method, _, route = name.partition(" ")
            if method == "problem":
                method = "GET" if body is None else "POST"
            answer = http.request(method, path or route.split(" ")[0], json=body, headers=headers)
            said[name] = answer.status_code, answer.json(), body

        ask("POST /v1/configurations/register", body={"config": ELSEWHERE, "name": "gpu-box", "apply": True})
        ask("POST /v1/configurations/{name}/unassign", "/v1/configurations/gpu-box/unassign", {})
        ask(
            "POST /v1/configurations/{name}/assign",
            "/v1/configurations/gpu-box/assign",
            {"expected_revision": 2},
        )
        ask("GET /v1/plan")
        ask("POST /v1/apply", body={"require_healthy": True, "wait": 10})
        ask("POST /v1/apply 202", body={}, Prefer="respond-async")
        assert http.get("/v1/apply/events").status_code == 200  # it ends with the apply
        ask("GET /v1/configurations/{name}", "/v1/configurations/gpu-box")
        ask("GET /v1/explain/{provider}", "/v1/explain/inference/one?field=url")
        for path in (
            "inspect/configurations",
            "inspect/effective",
            "inspect/hardware",
            "status",
            "issues",
            "drift",
            "applied",
            "export",
            "history",
            "ready",
            "provider-types",
        ):
            ask(f"GET /v1/{path}")
        ask("GET /v1/configurations")
        ask("GET /v1/revisions/{revision}", "/v1/revisions/head")
        ask("GET /v1/diff", "/v1/diff?before=1&after=2&effective=true")
        ask("GET /v1/provider-types/{api}/{provider_type}", "/v1/provider-types/inference/remote::acme")
        ask("GET /v1/stack", "/v1/stack?provider=one")
        ask("GET /v1/inspect/providers")
        ask("GET /v1/inspect/shares")
        ask("GET /v1/inspect/provider-type", "/v1/inspect/provider-type?name=vector_io/memory")
        ask("POST /v1/compare", body={"machines": MACHINES})
        ask("POST /v1/retry", body={})
        ask("POST /v1/retry 202", body={}, Prefer="respond-async")
        ask("POST /v1/recover", body={"wait": 5})
        ask("POST /v1/recover 202", body={}, Prefer="respond-async")
        assert http.get("/v1/apply/events").status_code == 200
        ask("POST /v1/rollback", body={"revision": 2})
        ask("DELETE /v1/configurations/{name}", "/v1/configurations/gpu-box", {"on_conflict": "refuse"})
        ask("POST /v1/history/prune", body={"keep": 2})
        ask("GET /v1/ready 503", "/v1/ready")
        ask("problem 4XX", "/v1/explain/inference/oone", None)
        ask("problem 5XX", "/v1/configurations/register", {"config": failing(), "apply": True})
    return said


def failing() -> dict[str, Any]:
    return {"inference": [{"provider_id": "one", "config": {"url": "http://fail"}}]}


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    with server.http() as http:
        answer = http.get("/openapi.json")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def steady(value: Any) -> Any:
    """A value without what differs from run to run: times, digests, processes, folders."""
    text = json.dumps(value)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "2026-11-22T10:15:00Z", text)
    text = re.sub(r'"([0-9a-f]{32,})"', lambda found: f'"{"0" * len(found[1])}"', text)
    text = re.sub(r'"seconds": [\d.e-]+', '"seconds": 0.004', text)
    text = re.sub(r'/[^" ]*/(?=stack\.yaml|\.stackconf)', "/srv/stack/", text)
    text = re.sub(r'"path": "/srv[^"]*"', '"path": "/srv/stack/.stackconf/stack.yaml.sqlite3"', text)
    return json.loads(text)


@pytest.mark.parametrize("name", openapi.OPERATIONS)
def test_an_answer_is_what_the_document_says(name: str, answers: dict[str, tuple[int, Any, Any]]) -> None:
    operation = openapi.OPERATIONS[name]
    if name == "GET /v1/apply/events":
        return
    status, data, body = answers[name]
    assert status == 200, data
    if operation.answer is not None:
        TypeAdapter(operation.answer).validate_python(data, strict=True)
    if body is not None and operation.asked is not None:
        TypeAdapter(operation.asked).validate_python(body, strict=True)


def test_what_went_wrong_is_what_the_document_says(answers: dict[str, tuple[int, Any, Any]]) -> None:
    for name, least in (("problem 4XX", 400), ("problem 5XX", 500)):
        status, data, _ = answers[name]
        assert least <= status < least + 100
        openapi.documents.Problem.model_validate(data, strict=True)
        assert data["status"] == status


def test_the_examples_are_what_a_server_says(answers: dict[str, tuple[int, Any, Any]]) -> None:
    found = {name: steady(data) for name, (_, data, _) in answers.items()}
    types = found["GET /v1/provider-types"]["types"]
    types[:] = [each for each in types if "acme" in each["type"]]  # the others are what is installed
    found |= {f"{name} body": steady(body) for name, (_, _, body) in answers.items() if body is not None}
    if os.environ.get(RECORD):
        EXAMPLES.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        openapi.examples.cache_clear()
    recorded = openapi.examples()
    assert recorded.keys() == found.keys()
    different = [name for name in found if shape(found[name]) != shape(recorded[name])]
    assert different == []


def shape(value: Any) -> Any:
    """The keys of a value, and what is below them; how many alike there are depends on what is installed."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if not isinstance(value, list):
        return type(value).__name__
    kinds: list[Any] = []
    for each in map(shape, value):
        if each not in kinds:
            kinds.append(each)
    return kinds


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            yield f"{method.upper()} {path}", told


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    found = dict(operations(document))
    assert openapi.OPERATIONS.keys() <= found.keys()
    for name, told in found.items():
        assert told["summary"], name
        assert told["description"], name
        assert {"200", "4XX", "5XX"} <= told["responses"].keys(), name
        for code, response in told["responses"].items():
            if code == "304":
                continue
            for content in response["content"].values():
                assert "example" in content or "examples" in content, f"{name} {code}"
        for content in told.get("requestBody", {}).get("content", {}).values():
            assert "example" in content or "examples" in content, f"{name} body"


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_dict(document)
    schema.validate()


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_requests_made_of_the_document_find_no_failure(fresh: Server, mode: str) -> None:
    server = fresh
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    # A schema cannot say which configurations a stack takes.
    unfit = [positive_data_acceptance]
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    failures: list[str] = []
    count = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=25,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
        def run(case: Any) -> None:
            nonlocal count
            count += 1
            case.call_and_validate(base_url=server.url, excluded_checks=unfit)

        try:
            run()
        except Unsatisfiable:
            assert mode == "NEGATIVE", operation.label  # there is nothing to get wrong about it
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 (all of them are told at the end)
            failures.append(f"{operation.label}: {error}")
    assert failures == []
    assert count > 150
    with httpx.Client(base_url=server.url) as http:
        assert http.get("/v1/inspect/configurations").status_code == 200
    assert "Traceback" not in server.text
