"""The Configuration API beside another server: who answers which path, and who is served where."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import ssl
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from test_server_access import certificate

from stackconf import InvalidConfig
from stackconf.runtimes import Listens
from stackconf.server.access import Rules
from stackconf.server.app import create_app, own_paths
from stackconf.server.beside import Beside
from stackconf.server.listener import Listener
from stackconf.server.listening import ANYWHERE, Listening, bound, of_runtime
from stackconf.server.tls import Tls
from stackconf.server.tokens import Tokens, tokens_of

UPSTREAM = """
/v1/agents /v1/agents/{agent_id} /v1/agents/{agent_id}/session
/v1/agents/{agent_id}/session/{session_id} /v1/agents/{agent_id}/session/{session_id}/turn
/v1/agents/{agent_id}/session/{session_id}/turn/{turn_id}
/v1/agents/{agent_id}/session/{session_id}/turn/{turn_id}/resume
/v1/agents/{agent_id}/session/{session_id}/turn/{turn_id}/step/{step_id} /v1/agents/{agent_id}/sessions
/v1/datasetio/append-rows/{dataset_id:path} /v1/datasetio/iterrows/{dataset_id:path} /v1/datasets
/v1/datasets/{dataset_id:path} /v1/eval/benchmarks /v1/eval/benchmarks/{benchmark_id}
/v1/eval/benchmarks/{benchmark_id}/evaluations /v1/eval/benchmarks/{benchmark_id}/jobs
/v1/eval/benchmarks/{benchmark_id}/jobs/{job_id} /v1/files /v1/files/{bucket} /v1/files/session:{upload_id}
/v1/health /v1/inference/batch-chat-completion /v1/inference/batch-completion
/v1/inference/chat-completion /v1/inference/completion /v1/inference/embeddings /v1/inspect/routes
/v1/models /v1/models/{model_id:path} /v1/openai/v1/chat/completions
/v1/openai/v1/chat/completions/{completion_id} /v1/openai/v1/completions /v1/openai/v1/embeddings
/v1/openai/v1/files /v1/openai/v1/files/{file_id}/content /v1/openai/v1/models /v1/openai/v1/responses
/v1/openai/v1/responses/{response_id} /v1/openai/v1/responses/{response_id}/input_items
/v1/post-training/job/artifacts /v1/post-training/job/status /v1/post-training/jobs
/v1/post-training/preference-optimize /v1/post-training/supervised-fine-tune /v1/providers
/v1/providers/{provider_id} /v1/safety/run-shield /v1/scoring-functions
/v1/scoring-functions/{scoring_fn_id:path} /v1/scoring/score /v1/scoring/score-batch /v1/shields
/v1/shields/{identifier:path} /v1/synthetic-data-generation/generate /v1/telemetry/events
/v1/telemetry/metrics/{metric_name} /v1/telemetry/spans /v1/telemetry/spans/{span_id:path}/tree
/v1/telemetry/traces/{trace_id:path}/spans/{span_id:path} /v1/tool-runtime/invoke
/v1/tool-runtime/list-tools /v1/tool-runtime/rag-tool/insert /v1/toolgroups
/v1/toolgroups/{toolgroup_id:path} /v1/tools /v1/tools/{tool_name:path} /v1/vector-dbs
/v1/vector-dbs/{vector_db_id:path} /v1/vector-io/insert /v1/vector-io/query /v1/version
/v1/admin/health /v1alpha/admin/providers /v1/conversations /v1/responses /v1/chat/completions
/v1/embeddings /v1/prompts /v1/connectors /v1/batches /v1/messages /v1/containers /v1/skills
/ /docs /redoc /openapi.json
"""
"""Paths of llama-stack 0.2 and of OGX 1.5, as their servers and documents have them."""


class Side:
    """Writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope)


def who(path: str, kind: str = "http", paths: frozenset[str] | None = None) -> tuple[str, Any]:
    """Which side was asked, and with which scope."""
    ours, theirs = Side(), Side()
    beside = Beside(ours, theirs, own_paths() if paths is None else paths)
    asyncio.run(beside({"type": kind, "path": path, "raw_path": path.encode()}, None, None))
    assert len(ours.asked) + len(theirs.asked) == 1
    return ("ours", ours.asked[0]) if ours.asked else ("theirs", theirs.asked[0])


def filled(template: str) -> str:
    return re.sub(r"\{[^}]*\}", "x", template)


def own_templates() -> list[str]:
    """As the document of the application has them, where it stands beside another."""
    app = create_app(None, prefix="/stackconf")  # type: ignore[arg-type] (asked for its document only)
    paths = app.openapi()["paths"].keys() - {"/", "/openapi.json"}
    assert len(paths) > 20
    return sorted(paths)


@pytest.mark.parametrize("template", own_templates())
def test_every_route_of_our_own_comes_to_us(template):
    assert who(filled(template))[0] == "ours"


@pytest.mark.parametrize("template", UPSTREAM.split())
def test_every_route_of_upstream_goes_to_upstream(template):
    side, scope = who(filled(template))
    assert side == "theirs"
    assert scope["path"] == filled(template)


@pytest.mark.parametrize(
    ("path", "inner"),
    [
        ("/stackconf", "/"),
        ("/stackconf/", "/"),
        ("/stackconf/openapi.json", "/openapi.json"),
        ("/stackconf/v1/plan", "/v1/plan"),
    ],
)
def test_what_both_have_is_ours_under_a_prefix(path, inner):
    side, scope = who(path)
    assert (side, scope["path"], scope["raw_path"]) == ("ours", inner, inner.encode())


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/stackconfig",
        "/stackconf2/x",
        "/STACKCONF",
        "/x/stackconf",
        "//stackconf",
        "/v1",
        "/v1/",
        "*",
    ],
)
def test_what_only_looks_like_ours_is_theirs(path):
    assert who(path)[0] == "theirs"


def test_what_is_no_request_is_theirs():
    assert who("/v1/plan", "websocket")[0] == "theirs"
    assert who("/v1/agents", "websocket")[0] == "theirs"


@given(st.text(max_size=60) | st.lists(st.sampled_from(["v1", "plan", "x", ""]), max_size=6).map("/".join))
def test_any_path_goes_somewhere(path):
    assert who(path)[0] in {"ours", "theirs"}


# -- where it listens ------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> Tls:
    certificate(tmp_path, "mine")
    return Tls(tmp_path / "mine.pem", tmp_path / "mine.key")


@pytest.mark.parametrize(
    ("host", "port", "listens", "where"),
    [
        (None, None, Listens(), (ANYWHERE, None, "http://localhost:8420")),
        (None, None, Listens(port=8321), (ANYWHERE, 8321, "http://localhost:8321")),
        (None, None, Listens("10.1.2.3", 1), ("10.1.2.3", 1, "http://10.1.2.3:1")),
        (None, None, Listens("::1", 1), ("::1", 1, "http://[::1]:1")),
        ("127.0.0.1", None, Listens("10.1.2.3", 1), ("127.0.0.1", 1, "http://127.0.0.1:1")),
        (None, 5, Listens("10.1.2.3", 1), ("10.1.2.3", 5, "http://10.1.2.3:5")),
        (None, 0, Listens("127.0.0.1", 1), ("127.0.0.1", 0, "http://127.0.0.1:0")),
        (None, None, Listens(clear=False, port=1), ("127.0.0.1", 1, "http://127.0.0.1:1")),
        (None, None, Listens("localhost", 1, clear=False), ("localhost", 1, "http://localhost:1")),
        ("::1", 2, Listens("0.0.0.0", 1, clear=False), ("::1", 2, "http://[::1]:2")),
    ],
)
def test_the_options_win_over_the_file(host, port, listens, where):
    found = of_runtime(Listening(host, port), listens)
    assert (found.host, found.port, found.url) == where


@pytest.mark.parametrize(
    ("host", "listens"),
    [
        (None, Listens("0.0.0.0", 1, clear=False)),
        (None, Listens("::", 1, clear=False)),
        ("0.0.0.0", Listens(port=1, clear=False)),
        ("", Listens(port=1, clear=False)),
        ("stack.example", Listens("127.0.0.1", 1, clear=False)),
        (None, Listens("0.0.0.0", 1, certificate="cert.pem", clear=False)),
    ],
)
def test_a_server_that_wants_tls_is_not_served_to_others_without(host, listens):
    with pytest.raises(InvalidConfig, match="without TLS") as raised:
        of_runtime(Listening(host), listens)
    assert "tls_certfile" in str(raised.value)
    assert "insecure: true" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_certificate_of_the_file_is_used_and_one_of_the_options_wins(pair):
    listens = Listens("0.0.0.0", 1, str(pair.certificate), str(pair.key), clear=False)
    found = of_runtime(Listening(), listens)
    assert (found.tls, found.url) == (pair, "https://0.0.0.0:1")
    assert of_runtime(Listening(), Listens(None, 1, str(pair.certificate), str(pair.key), False)).host == ""
    mine = Tls(pair.certificate, pair.key)
    elsewhere = Listens("0.0.0.0", 1, "/nowhere.pem", "/nowhere.key", clear=False)
    assert of_runtime(Listening(tls=mine), elsewhere).tls == mine
    strict = evolve(elsewhere, authority=str(pair.certificate))
    assert of_runtime(Listening(tls=mine), strict).tls == evolve(mine, authority=pair.certificate)


def test_who_asks_must_show_a_certificate_where_the_file_says_so(pair):
    listens = Listens(
        "0.0.0.0", 1, str(pair.certificate), str(pair.key), authority=str(pair.certificate), ciphers="AESGCM"
    )
    found = of_runtime(Listening(), listens).tls
    assert found is not None
    config = Listener(print, ending=bool, seconds=1, tls=found).config
    config.load()
    assert config.ssl is not None
    assert config.ssl.verify_mode is ssl.CERT_REQUIRED
    assert config.ssl.cert_store_stats()["x509"] == 1
    assert any("AES" in each["name"] for each in config.ssl.get_ciphers())
    config = Listener(print, ending=bool, seconds=1, tls=pair).config
    config.load()
    assert config.ssl is not None
    assert config.ssl.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    ("authority", "ciphers", "said"),
    [("/nowhere.pem", "", r"/nowhere\.pem"), (None, "no-such", "`no-such` are no ciphers")],
)
def test_what_of_tls_cannot_be_used_is_one_line(pair, authority, ciphers, said):
    listens = Listens(None, 1, str(pair.certificate), str(pair.key), authority=authority, ciphers=ciphers)
    with pytest.raises(InvalidConfig, match=said) as raised:
        of_runtime(Listening(), listens)
    assert "\n" not in str(raised.value)


def test_a_certificate_that_is_not_there_is_one_line():
    with pytest.raises(InvalidConfig, match=r"/nowhere\.pem") as raised:
        of_runtime(Listening(), Listens(None, 1, "/nowhere.pem", "/nowhere.key"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("host", "warned"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True), (None, True)]
)
def test_to_serve_others_in_the_clear_is_warned_of(host, warned, caplog):
    with caplog.at_level(logging.WARNING):
        bound(of_runtime(Listening(), Listens(host, 0))).close()
    assert ("without TLS" in caplog.text) is warned


# -- who is told the configuration -----------------------------------------------------------------


async def _asked(rules: Rules, client: str | None, token: str = "") -> int:
    """The status of an answer to a question from an address; 299 where it comes through."""
    from stackconf.server.access import Guard

    status: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        status.append(299)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [(b"host", b"localhost")]
    headers += [(b"authorization", f"Bearer {token}".encode())] if token else []
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/plan",
        "headers": headers,
        "client": None if client is None else (client, 5),
    }
    await Guard(app, rules)(scope, receive, send)
    assert len(status) == 1
    return status[0]


@pytest.mark.parametrize(
    ("client", "status"),
    [
        ("127.0.0.1", 299),
        ("127.9.9.9", 299),
        ("::1", 299),
        ("::ffff:127.0.0.1", 299),
        ("::ffff:7f00:1", 299),
        (None, 299),
        ("10.0.0.1", 403),
        ("::ffff:10.0.0.1", 403),
        ("192.168.0.1", 403),
        ("2001:db8::1", 403),
        ("fe80::1%eth0", 403),
        ("0.0.0.0", 403),
        ("::", 403),
        ("", 403),
    ],
)
def test_only_this_machine_is_told(client, status):
    assert asyncio.run(_asked(Rules(only_here=True), client)) == status
    assert asyncio.run(_asked(Rules(), client)) == 299


def test_a_token_lets_others_ask():
    rules = Rules(tokens_of({"STACKCONF_SERVE_TOKEN": "t" * 32}, None))
    assert asyncio.run(_asked(rules, "10.0.0.1", "t" * 32)) == 299
    assert asyncio.run(_asked(rules, "10.0.0.1")) == 401
    assert asyncio.run(_asked(rules, "127.0.0.1")) == 401
    assert not Tokens()


# -- what comes before connections are taken -------------------------------------------------------


class First:
    """What comes first, and last; it writes down what happens."""

    def __init__(self, seconds: float, error: Exception | None = None) -> None:
        self.acts: list[str] = []
        self._seconds, self._error = seconds, error
        self.began = Event()

    async def first(self) -> None:
        self.began.set()
        try:
            await asyncio.sleep(self._seconds)
        except asyncio.CancelledError:
            self.acts.append("broken off")
            raise
        if self._error is not None:
            raise self._error
        self.acts.append("first")

    async def last(self) -> None:
        self.acts.append("last")


def listener_of(what: First) -> Listener:
    return Listener(Side(), ending=lambda: None, seconds=1.0, first=what.first, last=what.last)


def test_an_end_in_the_middle_of_what_comes_first_breaks_it_off():
    what = First(60.0)
    server = listener_of(what)
    with bound(Listening(port=0)) as taken:
        thread = Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        assert what.began.wait(30.0)
        server.handle_exit(signal.SIGINT, None)
        thread.join(30.0)
        assert not thread.is_alive()
    assert what.acts == ["broken off", "last"]
    assert not server.started


def test_what_comes_first_may_fail_and_what_comes_last_comes():
    what = First(0.0, ValueError("no"))
    with bound(Listening(port=0)) as taken, pytest.raises(ValueError, match="no"):
        listener_of(what).run(sockets=[taken])
    assert what.acts == ["last"]
