"""Upstream's shapes: what a stack knows of its providers, as upstream's clients read it."""

from __future__ import annotations

import signal

import pytest
from core_kit import Owner, one, open_stack, overlay
from pydantic import BaseModel, SecretStr
from test_core_apply import Service, World, services
from test_core_journal import killed

from stackconf import ApplyError, user_field
from stackconf.errors import UnknownName
from stackconf.server.upstream import chosen, providers, routes

CANARY = "sk-canary-4f1c"


class Search(BaseModel):
    api_key: SecretStr = SecretStr("")
    url: str = user_field("http://localhost")
    max_results: int = user_field(3)


def health_by_id(stack) -> dict[str, tuple[str, str]]:
    return {
        each["provider_id"]: (each["health"]["status"], each["health"]["message"])
        for each in providers(stack)
    }


def test_a_provider_is_told_in_exactly_upstreams_keys_with_its_effective_configuration(tmp_path):
    config = {"api_key": CANARY, "url": f"http://me:{CANARY}@host/?api_key={CANARY}"}
    with open_stack(tmp_path, one(config), Owner(Search, defaults={"max_results": 5})) as stack:
        (told,) = providers(stack)
    assert told == {
        "api": "inference",
        "provider_id": "acme",
        "provider_type": "remote::acme",
        "config": {
            "api_key": "********",
            "url": "http://me:********@host/?api_key=********",
            "max_results": 5,
        },
        "health": {"status": "Error", "message": "nothing is applied to it yet"},
    }


def test_health_says_how_the_last_apply_went(tmp_path):
    world = World(tmp_path)
    data = services(good="ok", far="away", quiet="ok")
    with open_stack(tmp_path, data, Owner(Service, applying=world.apply)) as stack:
        assert set(health_by_id(stack).values()) == {("Error", "nothing is applied to it yet")}
        stack.apply()
        at = {each.provider.split("/")[1]: each.tried.at for each in stack.status().providers}
        assert health_by_id(stack) == {
            "good": ("OK", f"runs with revision 0, applied at {at['good']}"),
            "far": ("Error", "pending: connection refused; nothing is applied to it yet"),
            "quiet": ("OK", f"runs with revision 0, applied at {at['quiet']}"),
        }
        stack.configurations.register(overlay({"port": 81, "mode": "reject"}, "inference/good"))
        assert health_by_id(stack)["good"] == (
            "OK",
            "runs with revision 0; an apply would change it to revision 1",
        )
        with pytest.raises(ApplyError):
            stack.apply()
        status, message = health_by_id(stack)["good"]
        assert (status, message.startswith("failed: ")) == ("Error", True)
        assert message.endswith("raised ValueError: port 81 is taken; runs with revision 0")
        assert health_by_id(stack)["quiet"][0] == "OK"


def test_health_of_what_is_invalid_or_nobodys_says_so(tmp_path):
    data = services(good="ok", bad={"port": "many"})
    data["providers"]["inference"].append({"provider_id": "odd", "provider_type": "remote::odd"})
    with open_stack(tmp_path, data, Owner(Service), skip_unknown=True) as stack:
        told = {each["provider_id"]: each for each in providers(stack)}
        assert told["bad"]["config"] == told["odd"]["config"] == {}
        assert told["bad"]["health"]["status"] == "Error"
        assert "inference/bad: config.port" in told["bad"]["health"]["message"]
        assert "stack.yaml:" in told["bad"]["health"]["message"]
        message = "no plugin knows its type, so it is left alone"
        assert told["odd"]["health"] == {"status": "Not Implemented", "message": message}


def test_a_provider_that_runs_and_is_in_the_file_no_more_is_still_told(tmp_path):
    owner = Owner(Service, applying=World(tmp_path).apply)
    with open_stack(tmp_path, services(stays="ok", goes={"port": 81}), owner) as stack:
        stack.apply()
    with open_stack(tmp_path, services(stays="ok"), owner) as stack:
        stays, goes = providers(stack)
        assert (stays["provider_id"], goes["provider_id"]) == ("stays", "goes")
        assert goes["config"]["port"] == 81
        assert goes["health"] == {
            "status": "OK",
            "message": "runs with revision 0; it is in the stack file no more, and an apply would end it",
        }


def test_what_a_killed_apply_touched_is_no_provider_in_good_health(tmp_path):
    open_stack(tmp_path, services(a="ok", b="ok"), Owner(Service)).close()
    assert killed(tmp_path, "after apply", 1) == -signal.SIGKILL
    with open_stack(tmp_path, services(a="ok", b="ok"), Owner(Service)) as stack:
        told = health_by_id(stack)
        assert told["a"] == ("Error", "nobody knows what it runs with: an apply of it did not end")
        assert {status for status, _ in told.values()} == {"Error"}


SHARED = [
    {"api": "agents", "provider_id": "meta-reference", "n": 1},
    {"api": "telemetry", "provider_id": "meta-reference", "n": 2},
    {"api": "inference", "provider_id": "ollama", "n": 3},
]


@pytest.mark.parametrize(
    ("name", "api", "number", "others"),
    [
        ("ollama", None, 3, None),
        ("inference/ollama", None, 3, None),
        ("meta-reference", None, 1, ["telemetry/meta-reference"]),
        ("agents/meta-reference", None, 1, None),
        ("telemetry/meta-reference", None, 2, None),
        ("meta-reference", "telemetry", 2, None),
        ("telemetry/meta-reference", "telemetry", 2, None),
    ],
)
def test_an_id_of_several_apis_hides_none_of_them(name, api, number, others):
    found = chosen(SHARED, name, api)
    assert (found["n"], found.get("same_id")) == (number, others)
    assert "same_id" not in SHARED[0], "the list's own entry was changed"


def test_an_id_that_looks_like_another_providers_name_hides_none_of_them():
    infos = [{"api": "a", "provider_id": "b"}, {"api": "x", "provider_id": "a/b"}]
    assert chosen(infos, "a/b") == {**infos[1], "same_id": ["a/b"]}
    assert chosen(infos, "a/b", "a") == infos[0]
    assert chosen(infos, "x/a/b") == infos[1]


@pytest.mark.parametrize(
    ("name", "api", "said"),
    [
        ("olama", None, "no provider `olama` in the stack; did you mean `ollama`?"),
        ("meta-reference", "inference", "no provider `inference/meta-reference` in the stack; it has inf"),
        ("ollama", "nope", "no provider `nope/ollama` in the stack; it has agents/meta-reference, tele"),
        ("", None, "no provider `` in the stack; it has agents/meta-reference"),
    ],
)
def test_an_unknown_provider_is_said_to_be_unknown(name, api, said):
    with pytest.raises(UnknownName) as raised:
        chosen(SHARED, name, api)
    assert str(raised.value).startswith(said)


def test_routes_are_filtered_by_level_as_upstream_does():
    paths = [("/v1/health", "GET"), ("/v1alpha/admin/health", "GET"), ("/v1/apply", "POST")]
    assert [each["route"] for each in routes(paths)] == [path for path, _ in paths]
    assert routes(paths, "v1") == [
        {"route": "/v1/health", "method": "GET", "provider_types": []},
        {"route": "/v1/apply", "method": "POST", "provider_types": []},
    ]
    assert routes(paths, "v1beta") == routes(paths, "deprecated") == []
