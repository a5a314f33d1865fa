"""The real llama-stack 0.2.12, served and changed while it serves.

One server for most of it: each test leaves it with the file and the configuration that it found.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import httpx
import pytest
import yaml
from llama_serving_kit import (
    HIDDEN,
    MODEL,
    PATIENCE,
    PROGRAM,
    Ollama,
    Server,
    environ,
    hanging,
    serving,
    stack,
)
from ogx_kit import installed

MISSING = installed("llama-stack")
REQUIRED = os.environ.get("STACKCONF_OGX_REQUIRED", "") == "llama-stack"
pytestmark = pytest.mark.skipif(bool(MISSING) and not REQUIRED, reason=f"{MISSING}; `tox -e llama-stack`")

OLLAMA = "inference/ollama"


@pytest.fixture(scope="module")
def backends() -> Iterator[tuple[Ollama, Ollama]]:
    """Two that have the model."""
    with closing(Ollama("first")) as first, closing(Ollama("second")) as second:
        yield first, second


@pytest.fixture(scope="module")
def started(tmp_path_factory, backends) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("stack")
    with serving(folder, stack(folder, backends[0].url), "--host", "0.0.0.0") as server:
        server.until("applied: .*agents/meta-reference")
        yield server
        server.end()


@pytest.fixture
def server(started: Server, backends) -> Iterator[Server]:
    """With the file and the configuration of its beginning, before and after."""
    assert started.process.poll() is None, started.text
    yield started
    assert started.process.poll() is None, started.text
    with started.http() as http:
        for each in http.get("/v1/configurations").json()["configurations"]:
            http.delete(f"/v1/configurations/{each['name']}")
    data = stack(started.folder, backends[0].url)
    if yaml.safe_load(started.file.read_text()) != data:
        started.rewrite(data)
    answer = started.apply()
    assert answer.status_code == 200, answer.text
    assert started.say() == "first one two three"


@contextmanager
def clients(server: Server, count: int = 4) -> Iterator[list[str]]:
    """Clients that ask without a break; what went wrong with any of them, and `answers` in all."""
    wrong: list[str] = []
    over = threading.Event()

    def ask() -> None:
        with server.http() as http:
            while not over.is_set():
                try:
                    answer = http.get(f"/v1/models/{MODEL}")
                    if answer.status_code != 200:
                        wrong.append(f"{answer.status_code} {answer.text[:200]}")
                except httpx.HTTPError as error:
                    wrong.append(repr(error))
                sleep(0.002)

    threads = [Thread(target=ask) for _ in range(count)]
    for each in threads:
        each.start()
    try:
        yield wrong
    finally:
        over.set()
        for each in threads:
            each.join()


def providers(server: Server) -> dict[str, dict[str, Any]]:
    """What upstream's own route tells of each, by key."""
    with server.http() as http:
        found = http.get("/v1/providers").json()["data"]
    return {f"{each['api']}/{each['provider_id']}": each for each in found}


class Stream:
    """A streamed answer of the model that is being read."""

    def __init__(self, server: Server) -> None:
        self.text, self.error = "", ""
        self._server = server
        self.began = threading.Event()
        self._thread = Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
        try:
            with (
                self._server.http() as http,
                http.stream("POST", "/v1/openai/v1/chat/completions", json=body) as answer,
            ):
                for line in answer.iter_lines():
                    if line.startswith("data: {"):
                        chunk = json.loads(line.removeprefix("data: "))
                        assert "error" not in chunk, chunk
                        self.text += chunk["choices"][0]["delta"]["content"] or ""
                        self.began.set()
        except Exception as error:  # noqa: BLE001 (told by who asks for the end)
            self.error = repr(error)
        finally:
            self.began.set()

    def end(self) -> str:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        assert not self.error, self.error
        return self.text


# -- what it is when it has started ----------------------------------------------------------------


def test_it_is_the_real_server_with_the_configuration_beside(server):
    with server.http() as http:
        assert http.get("/v1/health").json() == {"status": "OK"}
        assert http.get("/v1/version").json() == {"version": "0.2.12"}
        assert len(http.get("/openapi.json").json()["paths"]) > 50
        assert [each["identifier"] for each in http.get("/v1/models").json()["data"]] == [MODEL]
        status = http.get("/v1/status").json()["providers"]
        assert {each["state"] for each in status} == {"applied"}
        assert http.get("/v1/ready").json()["settled"] is True
        assert http.get("/stackconf/openapi.json").json()["info"]["title"] == "stackconf"
    assert server.say() == "first one two three"


def test_upstreams_own_route_shows_what_is_in_force_and_how_each_is(server):
    found = providers(server)
    assert found.keys() >= {"agents/meta-reference", "telemetry/meta-reference", OLLAMA}
    assert found[OLLAMA]["health"]["status"] == "OK"
    # The same id in two apis: upstream itself mixes them up.
    assert found["telemetry/meta-reference"]["config"]["service_name"] == "issue-993"
    assert "persistence_store" in found["agents/meta-reference"]["config"]
    assert found["tool_runtime/brave"]["config"] == {"api_key": "********", "max_results": 3}
    server.register({"tool_runtime/brave": {"max_results": 7}})
    assert providers(server)["tool_runtime/brave"]["config"] == {"api_key": "********", "max_results": 7}


def test_upstreams_own_client(server):
    from llama_stack_client import LlamaStackClient

    with LlamaStackClient(base_url=server.url) as client:
        listed = {f"{each.api}/{each.provider_id}" for each in client.providers.list()}
        assert listed == set(providers(server))
        answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])
        assert answer.choices[0].message.content == "first one two three"


# -- swaps -----------------------------------------------------------------------------------------


def test_an_overlay_leads_requests_to_another_backend_and_a_stream_is_ended_by_the_old_one(server, backends):
    first, second = backends
    first.gate.clear()
    stream = Stream(server)
    try:
        stream.began.wait(PATIENCE)
        answer = server.register({OLLAMA: {"url": second.url}})
        assert answer.status_code == 200, answer.text
        state, said = server.outcomes(answer)[OLLAMA]
        assert (state, said.startswith("swapped in ")) == ("applied", True)
        assert server.say() == "second one two three"
        assert providers(server)[OLLAMA]["config"]["url"] == second.url
    finally:
        first.gate.set()
    assert stream.end() == "first one two three"


def test_many_swaps_under_load_lose_nothing(server, backends):
    streams: list[str] = []
    over = threading.Event()

    def talk() -> None:
        while not over.is_set():
            streams.append(Stream(server).end())

    talking = [Thread(target=talk) for _ in range(2)]
    with clients(server, 2) as wrong:
        for each in talking:
            each.start()
        for number in range(20):
            answer = server.register({OLLAMA: {"url": backends[(number + 1) % 2].url}})
            assert answer.status_code == 200, answer.text
        over.set()
        for each in talking:
            each.join()
    assert wrong == []
    assert {each.partition(" ")[0] for each in streams} == {"first", "second"}
    assert {each.partition(" ")[2] for each in streams} == {"one two three"}


def test_an_address_where_nobody_is_leaves_the_old_one_and_is_tried_again(server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    answer = server.register({OLLAMA: {"url": f"http://127.0.0.1:{port}"}})
    state, said = server.outcomes(answer)[OLLAMA]
    assert state == "pending", answer.text
    assert "Failed to connect to Ollama" in said
    assert server.say() == "first one two three"
    with closing(Ollama("third", port=port)):
        end = monotonic() + PATIENCE
        while server.say() != "third one two three":
            assert monotonic() < end, server.text
            sleep(0.2)
        with server.http() as http:
            for each in http.get("/v1/configurations").json()["configurations"]:
                http.delete(f"/v1/configurations/{each['name']}")
        assert server.apply().status_code == 200


def test_a_backend_without_the_files_model_is_refused(server):
    with closing(Ollama("other", "mistral:7b")) as other:
        answer = server.register({OLLAMA: {"url": other.url}})
        assert answer.status_code == 500, answer.text
        said = answer.text
        assert "is not available in Ollama" in said
        assert server.say() == "first one two three"
        assert providers(server)[OLLAMA]["config"]["url"] != other.url


def test_the_first_of_two_is_swapped_back_where_the_second_fails(server, backends):
    data = stack(server.folder, backends[1].url)
    data["providers"]["agents"][0]["config"]["persistence_store"]["db_path"] = str(server.file)
    server.rewrite(data)
    with clients(server) as wrong:
        answer = server.apply()
    assert answer.status_code == 500, answer.text
    states = {key: state for key, (state, _) in server.outcomes(answer).items()}
    assert states == {OLLAMA: "rolled_back", "agents/meta-reference": "failed"}
    assert wrong == []
    assert server.say() == "first one two three"
    assert providers(server)[OLLAMA]["config"]["url"] == backends[0].url


# -- what upstream keeps itself --------------------------------------------------------------------


def turn(http: httpx.Client, agent: str, session: str) -> str:
    """What an agent says in a turn, by its last event."""
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    url = f"/v1/agents/{agent}/session/{session}/turn"
    said = ""
    with http.stream("POST", url, json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                assert "error" not in event, event
                payload = event["event"]["payload"]
                if payload["event_type"] == "turn_complete":
                    said = payload["turn"]["output_message"]["content"]
    return said


def test_agents_are_swapped_and_those_that_were_there_still_work(server, backends):
    data = stack(server.folder, backends[0].url)
    data["providers"]["agents"][0]["config"]["responses_store"]["db_path"] = str(server.folder / "r2.db")
    said: list[str] = []
    with server.http() as http:
        config = {"model": MODEL, "instructions": "be brief"}
        agent = http.post("/v1/agents", json={"agent_config": config}).json()["agent_id"]
        session = http.post(f"/v1/agents/{agent}/session", json={"session_name": "s"}).json()["session_id"]
        assert turn(http, agent, session) == "first one two three"
        backends[0].gate.clear()
        talking = Thread(target=lambda: said.append(turn(http, agent, session)))
        talking.start()
        try:
            asked = len(backends[0].asked)
            while len(backends[0].asked) == asked:
                sleep(0.01)
            server.rewrite(data)
            answer = server.apply()
            assert server.outcomes(answer)["agents/meta-reference"][1].startswith("swapped in "), answer.text
            assert said == []
        finally:
            backends[0].gate.set()
            talking.join(PATIENCE)
        assert said == ["first one two three"]
        assert turn(http, agent, session) == "first one two three"
        assert http.get(f"/v1/agents/{agent}").status_code == 200
    shown = providers(server)["agents/meta-reference"]["config"]
    assert shown["responses_store"]["db_path"].endswith("r2.db")


def spans(file: Path) -> int:
    if not file.exists():
        return 0
    with closing(sqlite3.connect(file)) as db:
        count: int = db.execute("SELECT count(*) FROM spans").fetchone()[0]
    return count


def test_telemetry_is_planned_as_a_restart_and_done_with_nobody_refused(server, backends):
    data = stack(server.folder, backends[0].url)
    fresh = server.folder / "trace2.db"
    data["providers"]["telemetry"][0]["config"]["sqlite_db_path"] = str(fresh)
    server.say()
    assert spans(server.folder / "trace.db") > 0
    server.rewrite(data)
    with server.http() as http:
        (change,) = http.get("/v1/plan").json()["changes"]
    assert change["provider"] == "telemetry/meta-reference"
    assert {each["update"] for each in change["fields"]} == {"restart"}
    with clients(server) as wrong:
        sleep(0.3)
        answer = server.apply()
        sleep(0.3)
    assert answer.status_code == 200, answer.text
    assert server.outcomes(answer)["telemetry/meta-reference"][1].startswith("the server was set up anew in")
    assert wrong == []
    server.say()
    assert spans(fresh) > 0
    before = spans(server.folder / "trace.db")
    server.say()
    sleep(0.5)
    assert spans(server.folder / "trace.db") == before


def test_a_restart_that_fails_is_back_where_it_was(server, backends):
    data = stack(server.folder, backends[0].url)
    data["providers"]["telemetry"][0]["config"]["sqlite_db_path"] = str(server.folder / "run.yaml")
    server.rewrite(data)
    with clients(server) as wrong:
        answer = server.apply()
        sleep(0.2)
    assert answer.status_code == 500, answer.text
    assert "not a database" in answer.text
    assert wrong == []
    assert server.say() == "first one two three"
    assert providers(server)["telemetry/meta-reference"]["config"]["sqlite_db_path"].endswith("trace.db")


# -- the file --------------------------------------------------------------------------------------


def models(server: Server) -> set[str]:
    with server.http() as http:
        return {each["identifier"] for each in http.get("/v1/models").json()["data"]}


def tools(server: Server) -> set[str]:
    with server.http() as http:
        return {each["identifier"] for each in http.get("/v1/tools").json()["data"]}


def test_a_provider_comes_with_its_models_and_leaves_with_them(server, backends):
    data = stack(server.folder, backends[0].url)
    more = copy.deepcopy(data)
    other = {"provider_id": "other", "provider_type": "remote::ollama", "config": {"url": backends[1].url}}
    more["providers"]["inference"].append(other)
    more["models"].append(
        {
            "model_id": "other/llama",
            "provider_id": "other",
            "provider_model_id": MODEL,
            "model_type": "llm",
            "metadata": {},
        }
    )
    server.rewrite(more)
    answer = server.apply()
    assert server.outcomes(answer)["inference/other"][1].startswith("joined in "), answer.text
    assert models(server) == {MODEL, "other/llama"}
    assert server.say(model="other/llama") == "second one two three"
    server.rewrite(data)
    assert server.outcomes(server.apply())["inference/other"] == ("applied", "left")
    assert models(server) == {MODEL}
    assert "inference/other" not in providers(server)


def test_tools_come_and_go_with_their_provider(server, backends):
    data = stack(server.folder, backends[0].url)
    assert tools(server) == {"web_search"}
    less = copy.deepcopy(data)
    del less["providers"]["tool_runtime"][0]
    less["tool_groups"] = []
    server.rewrite(less)
    assert server.outcomes(server.apply())["tool_runtime/brave"] == ("applied", "left")
    assert tools(server) == set()
    server.rewrite(data)
    assert server.outcomes(server.apply())["tool_runtime/brave"][0] == "applied"
    assert tools(server) == {"web_search"}


def test_a_provider_of_another_type_takes_the_place(server, backends):
    data = stack(server.folder, backends[0].url)
    data["providers"]["tool_runtime"][0] = {
        "provider_id": "brave",
        "provider_type": "remote::bing-search",
        "config": {"api_key": "b", "top_k": 2},
    }
    server.rewrite(data)
    answer = server.apply()
    assert answer.status_code == 200, answer.text
    assert providers(server)["tool_runtime/brave"]["provider_type"] == "remote::bing-search"
    assert tools(server) == {"web_search"}


def test_an_api_for_which_upstream_has_no_routes_yet(server, backends):
    data = stack(server.folder, backends[0].url)
    data["apis"].append("files")
    data["providers"]["files"] = [
        {
            "provider_id": "local",
            "provider_type": "inline::localfs",
            "config": {
                "storage_dir": str(server.folder / "files"),
                "metadata_store": {"type": "sqlite", "db_path": str(server.folder / "files.db")},
            },
        }
    ]
    with server.http() as http:
        assert http.get("/v1/openai/v1/files").status_code == 404
    server.rewrite(data)
    with clients(server) as wrong:
        answer = server.apply()
    assert answer.status_code == 200, answer.text
    assert wrong == []
    with server.http() as http:
        assert http.get("/v1/openai/v1/files").json()["data"] == []


def test_a_file_that_is_wrong_changes_nothing(server, backends):
    data = stack(server.folder, backends[0].url)
    data["providers"]["inference"][0]["config"]["url"] = 5
    begin = len(server.text)
    server.rewrite(data)
    assert "the old one goes on" in server.text[begin:]
    assert server.say() == "first one two three"
    server.rewrite(stack(server.folder, backends[0].url))


# -- who may -----------------------------------------------------------------------------------------


def other_address() -> str:
    """This machine's, as others see it; none where it has no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        address: str = probe.getsockname()[0]
    return "" if address.startswith("127.") else address


def test_without_a_token_the_configuration_is_told_to_this_machine_only(server):
    address = other_address()
    if not address:
        pytest.skip("this machine has no other address")
    port = server.url.rpartition(":")[2]
    with httpx.Client(base_url=f"http://{address}:{port}", timeout=PATIENCE) as http:
        assert http.get("/v1/health").status_code == 200
        assert http.get(f"/v1/models/{MODEL}").status_code == 200
        for path in ("/v1/plan", "/v1/inspect/configurations", "/stackconf/v1/plan", "/stackconf"):
            refused = http.get(path)
            assert refused.status_code == 403, path
            assert "this machine only" in refused.json()["detail"]
        assert http.post("/v1/configurations/register", json={"config": {}}).status_code == 403


def test_a_second_process_is_refused_in_one_line(server):
    again = cli(server, "--runtime", "llama-stack", "serve", "-s", "run.yaml", "--port", "0")
    assert again.returncode == 1
    assert "Traceback" not in again.stderr
    assert "hosted" in again.stderr.splitlines()[-1] or "is served" in again.stderr.splitlines()[-1]


def cli(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line beside the server."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=server.folder,
        env=environ(server.folder),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_the_command_line_asks_the_server(server, backends):
    status = cli(server, "status", "--url", server.url, "--json")
    assert status.returncode == 0, status.stderr
    assert OLLAMA in status.stdout
    server.rewrite(stack(server.folder, backends[1].url))
    planned = cli(server, "plan", "--url", server.url)
    assert (planned.returncode, backends[1].url in planned.stdout) == (0, True), planned.stderr
    explained = cli(server, "explain", OLLAMA, "url", "--url", server.url)
    assert explained.returncode == 0, explained.stderr
    assert "run.yaml" in explained.stdout


def test_a_sealed_stack_takes_no_overlay_and_tells_drift(server, backends):
    data = {**stack(server.folder, backends[0].url), "stackconf": {"sealed": True}}
    server.rewrite(data)
    refused = server.register({OLLAMA: {"url": backends[1].url}})
    assert refused.status_code in {403, 409, 423}, refused.text
    assert "sealed" in refused.text
    assert server.say() == "first one two three"


# -- secrets -----------------------------------------------------------------------------------------


def test_no_secret_is_said_anywhere(server):
    for file in server.folder.rglob("*"):
        if file.is_file() and not file.is_socket():
            data = file.read_bytes()
            for hidden in HIDDEN:
                assert hidden.encode() not in data, file.name
    shown = json.dumps(providers(server))
    assert not any(hidden in shown for hidden in HIDDEN)


def test_nothing_was_a_traceback(started):
    assert "Traceback" not in started.text


# -- how it begins and ends ------------------------------------------------------------------------


def test_a_provider_that_is_down_at_the_start_comes_later_and_an_interrupt_ends_its_streams(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with serving(tmp_path, stack(tmp_path, f"http://127.0.0.1:{port}")) as server:
        server.until("serving run.yaml at")
        server.until("inference/ollama.*Failed to connect to Ollama")
        shown = providers(server)
        assert shown[OLLAMA]["health"]["status"] == "Error"
        assert shown["tool_runtime/brave"]["config"]["max_results"] == 3
        with server.http() as http:
            assert http.get("/v1/health").status_code == 200
            assert http.get("/v1/agents").status_code == 200
        assert tools(server) == {"web_search"}
        with closing(Ollama("late", port=port)) as late:
            end = monotonic() + PATIENCE
            while providers(server)[OLLAMA]["health"]["status"] != "OK":
                assert monotonic() < end, server.text
                sleep(0.2)
            assert server.say() == "late one two three"
            late.gate.clear()
            stream = Stream(server)
            stream.began.wait(PATIENCE)
            server.process.send_signal(signal.SIGINT)
            sleep(0.5)
            assert server.process.poll() is None
            late.gate.set()
            assert stream.end() == "late one two three"
            assert server.process.wait(PATIENCE) == 0
        assert "Traceback" not in server.text
        assert server.text.rstrip().endswith("ended")

    # What is wrong now is told; what was applied is served.
    with (
        closing(Ollama("late", port=port)),
        closing(Ollama("other", "mistral:7b")) as other,
        serving(tmp_path, stack(tmp_path, other.url)) as again,
    ):
        again.until("was started with what was applied last")
        assert "is not available in Ollama" in again.text
        again.until("serving run.yaml at")
        assert again.say() == "late one two three"
        assert providers(again)[OLLAMA]["config"]["url"].endswith(str(port))
        assert again.end(signal.SIGINT) == 0
        assert "Traceback" not in again.text


def test_a_provider_that_refuses_at_the_first_start_ends_it_in_one_line(tmp_path):
    with (
        closing(Ollama("other", "mistral:7b")) as other,
        serving(tmp_path, stack(tmp_path, other.url)) as server,
    ):
        assert server.process.wait(PATIENCE) == 1
        assert "Traceback" not in server.text
        errors = [each for each in server.text.splitlines() if each.startswith("error: ")]
        assert len(errors) == 1, server.text
        assert "inference/ollama" in errors[0]
        assert "is not available in Ollama" in errors[0]


def test_who_never_answers_is_not_waited_for_for_ever(tmp_path, backends):
    with (
        hanging() as nobody,
        serving(tmp_path, stack(tmp_path, nobody), STACKCONF_APPLY_TIMEOUT="4") as server,
    ):
        server.until(r"inference/ollama.*it was not ready within 3\.6 s")
        assert server.register({OLLAMA: {"url": backends[0].url}}).status_code == 200
        assert server.say() == "first one two three"
        answer = server.register({OLLAMA: {"url": nobody}})
        assert server.outcomes(answer)[OLLAMA][0] == "pending", answer.text
        assert server.say() == "first one two three"
        server.register({OLLAMA: {"url": backends[0].url}})
        it_comes_up_again_when_it_can(server, nobody)
        assert server.end(signal.SIGINT) == 0
        assert "Traceback" not in server.text


def it_comes_up_again_when_it_can(server: Server, url: str) -> None:
    """After a restart that failed, and a way back that failed as well."""
    data = stack(server.folder, url)
    data["providers"]["telemetry"][0]["config"]["sqlite_db_path"] = str(server.folder / "trace2.db")
    server.rewrite(data)
    registry = server.folder / "registry.db"
    whole = registry.read_bytes()
    registry.write_bytes(b"no database" * 1000)
    assert server.apply().status_code == 500
    server.until("is down, for it does not come up as it was: .*not a database")
    assert providers(server)[OLLAMA]["health"]["message"].startswith("it is not running")
    registry.write_bytes(whole)
    server.until("llama-stack 0.2.12 is up again")
    assert server.say() == "first one two three"
    assert server.apply().status_code == 200
    assert providers(server)["telemetry/meta-reference"]["config"]["sqlite_db_path"].endswith("trace2.db")


def test_an_interrupt_ends_a_start_that_hangs(tmp_path):
    with hanging() as nobody, serving(tmp_path, stack(tmp_path, nobody)) as server:
        server.until("checking connectivity to Ollama")
        assert server.end(signal.SIGINT) == 0
        assert "serving run.yaml" not in server.text
        assert "Traceback" not in server.text
