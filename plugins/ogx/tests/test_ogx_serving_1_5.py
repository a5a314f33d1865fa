"""The real OGX 1.5, served and changed while it serves.

One server for most of it: each test leaves it with the file and the configuration that it found.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any, Self

import httpx
import pytest
import yaml
from hosting_kit import PATIENCE, Hosted
from llama_serving_kit import MODEL, Ollama
from ogx_kit import REQUIRED, installed

MISSING = installed("ogx")
pytestmark = pytest.mark.skipif(bool(MISSING) and REQUIRED != "ogx", reason=MISSING or "it is here")

OLLAMA, FILES = "inference/ollama", "files/localfs"
LISTED = f"ollama/{MODEL}"
GROUP = "builtin::websearch"
HIDDEN = "tvly-ogx-canary"


def provider(provider_id: str, provider_type: str, **config: Any) -> dict[str, Any]:
    return {"provider_id": provider_id, "provider_type": provider_type, "config": config}


def stack(folder: Path, url: str, **apis: Any) -> dict[str, Any]:
    """Of each kind one: behind a router, with routes of its own, and what they need."""

    def table(name: str) -> dict[str, str]:
        return {"backend": "sql_default", "table_name": name}

    def keys(name: str) -> dict[str, str]:
        return {"backend": "kv_default", "namespace": name}

    tools = [
        provider("brave", "remote::brave-search", api_key="", max_results=3),
        provider("tavily", "remote::tavily-search", api_key="${env.OGX_T_TAVILY}", max_results=3),
    ]
    files = provider(
        "localfs", "inline::localfs", storage_dir=str(folder / "files"), metadata_store=table("files")
    )
    responses = provider("builtin", "inline::builtin", persistence={"responses": table("responses")})
    return {
        "version": 2,
        "distro_name": "hosted",
        "providers": {
            "inference": [provider("ollama", "remote::ollama", base_url=f"{url}/v1")],
            "tool_runtime": tools,
            "files": [files],
            "responses": [responses],
            "batches": [provider("reference", "inline::reference", sqlstore=table("batches"))],
            "messages": [provider("builtin", "inline::builtin", kvstore=keys("messages"))],
            "skills": [provider("builtin", "inline::builtin", persistence=keys("skills"))],
            **apis,
        },
        "registered_resources": {
            "models": [{"model_id": "any", "provider_id": "all", "provider_model_id": MODEL}]
        },
        "storage": {
            "backends": {
                "kv_default": {"type": "kv_sqlite", "db_path": str(folder / "kv.db")},
                "sql_default": {"type": "sql_sqlite", "db_path": str(folder / "sql.db")},
            },
            "stores": {
                "metadata": keys("registry"),
                "inference": {**table("inferences"), "max_write_queue_size": 100, "num_writers": 1},
                "conversations": table("conversations"),
                "prompts": table("prompts"),
                "connectors": table("connectors"),
            },
        },
        "server": {"host": "127.0.0.1", "port": 8321, "insecure": True},
    }


class Server(Hosted):
    """A process that serves OGX."""

    def __init__(self, folder: Path, **environ: str) -> None:
        super().__init__(folder, "ogx", OGX_T_TAVILY=HIDDEN, OGX_CONFIG="/the/operator's", **environ)
        self.file = folder / "stack.yaml"

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE)

    def asked(self, path: str) -> Any:
        with self.http() as http:
            answer = http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def models(self) -> dict[str, str]:
        """The provider of each model."""
        return {
            each["id"]: each["custom_metadata"]["provider_id"] for each in self.asked("/v1/models")["data"]
        }

    def providers(self, path: str = "/v1/providers") -> dict[str, Any]:
        return {f"{each['api']}/{each['provider_id']}": each for each in self.asked(path)["data"]}

    def group(self) -> str:
        """The provider of the only group of tools; the routes of this version tell nothing of tools."""
        with closing(sqlite3.connect(self.folder / "kv.db")) as database:
            rows = database.execute("select value from kvstore where key like '%tool_group:%'").fetchall()
        (found,) = [json.loads(value) for (value,) in rows]
        assert found["identifier"] == GROUP
        owner: str = found["provider_id"]
        return owner

    def say(self, model: str = LISTED) -> str:
        """What a model answers."""
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        with self.http() as http:
            answer = http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["choices"][0]["message"]["content"]
        return text

    def applied(self) -> dict[str, tuple[str, str]]:
        """How each provider fared in an apply: state, and what was said."""
        with self.http() as http:
            body = http.post("/v1/apply", json={"wait": PATIENCE}).json()
        report = body.get("report") or body
        return {
            each["provider"]: (each["state"], each["error"] or each["detail"]) for each in report["outcomes"]
        }

    def move(self, url: str) -> dict[str, tuple[str, str]]:
        """Have Ollama at another address."""
        self.register("inference", "ollama", base_url=f"{url}/v1")
        return self.applied()

    def rewrite(self, data: dict[str, Any]) -> None:
        """Have another stack file read."""
        begin = len(self.said)
        self.file.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
        self.process.send_signal(signal.SIGHUP)
        end = monotonic() + PATIENCE
        while not re.search(r"read stack.yaml again|the old one goes on", self.said[begin:]):
            assert monotonic() < end, self.said
            sleep(0.02)


@contextmanager
def serving(folder: Path, data: dict[str, Any], **environ: str) -> Iterator[Server]:
    (folder / "stack.yaml").write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    server = Server(folder, **environ)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def backends() -> Iterator[tuple[Ollama, Ollama]]:
    """Two that have the model, and each one that the other has not."""
    both = Ollama("first", MODEL, "only-first"), Ollama("second", MODEL, "only-second")
    with closing(both[0]), closing(both[1]):
        yield both


@pytest.fixture(scope="module")
def started(tmp_path_factory, backends) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("stack")
    with serving(folder, stack(folder, backends[0].url)) as server:
        server.until("info applied: inference/ollama, ")
        yield server
        assert server.end() == 0, server.said
        assert server.said.rstrip().endswith("ended")


@pytest.fixture
def server(started: Server, backends) -> Iterator[Server]:
    """With the file and the configuration of its beginning, before and after."""
    assert started.process.poll() is None, started.said
    yield started
    assert started.process.poll() is None, started.said
    with started.http() as http:
        for each in http.get("/v1/configurations").json()["configurations"]:
            http.delete(f"/v1/configurations/{each['name']}")
    data = stack(started.folder, backends[0].url)
    if yaml.safe_load(started.file.read_text()) != data:
        started.rewrite(data)
    started.applied()
    assert started.say() == "first one two three"
    assert started.models() == {LISTED: "ollama", "ollama/only-first": "ollama", "any": "ollama"}


class Asking:
    """Somebody who asks the same again and again, and what was not as it should be."""

    def __init__(self, server: Server, fine: Callable[[httpx.Client], object], count: int = 3) -> None:
        self.wrong: list[str] = []
        self.asked = 0
        self._stop = Event()
        self._server, self._fine = server, fine
        self._threads = [Thread(target=self._work) for _ in range(count)]

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join(PATIENCE)

    def _work(self) -> None:
        with self._server.http() as http:
            while not self._stop.is_set():
                try:
                    self._fine(http)
                except (AssertionError, ValueError, httpx.HTTPError) as error:
                    self.wrong.append(repr(error))
                self.asked += 1


# -- a provider behind a router --------------------------------------------------------------------


def test_it_serves_what_the_file_says(server):
    assert server.say() == server.say("any") == "first one two three"
    for path in ("/v1/providers", "/v1alpha/admin/providers"):
        shown = server.providers(path)
        assert shown[OLLAMA]["config"]["base_url"].endswith("/v1")
        assert shown[OLLAMA]["health"]["status"] == "OK"
        assert shown["tool_runtime/tavily"]["config"]["api_key"] == "********"
    assert server.asked("/v1/health") == {"status": "OK"}


def test_a_swap_is_seen_everywhere(server, backends):
    second = backends[1]
    outcome = server.move(second.url)
    assert outcome[OLLAMA][0] == "applied"
    assert re.fullmatch(r"swapped in \d+ ms", outcome[OLLAMA][1])
    assert server.say() == server.say("any") == "second one two three"
    for path in ("/v1/providers", "/v1alpha/admin/providers"):
        assert server.providers(path)[OLLAMA]["config"]["base_url"] == f"{second.url}/v1"
    for path in ("/v1/providers/ollama", "/v1alpha/admin/providers/ollama"):
        assert server.asked(path)["config"]["base_url"] == f"{second.url}/v1"
    # What the old address had is gone, what the file names stays.
    assert server.models() == {LISTED: "ollama", "ollama/only-second": "ollama", "any": "ollama"}


def test_no_model_is_missing_while_its_provider_is_swapped(server, backends):
    def fine(http: httpx.Client) -> None:
        assert http.get(f"/v1/models/{LISTED}").status_code == 200
        assert LISTED in {each["id"] for each in http.get("/v1/models").json()["data"]}

    with Asking(server, fine) as asking:
        for number in range(12):
            assert server.move(backends[(number + 1) % 2].url)[OLLAMA][0] == "applied"
    assert asking.wrong == []
    assert asking.asked > 30


def test_a_stream_is_ended_by_the_provider_that_began_it(server, backends):
    first, second = backends
    first.gate.clear()
    began, text = Event(), []

    def stream() -> None:
        body = {"model": LISTED, "messages": [{"role": "user", "content": "hi"}], "stream": True}
        with server.http() as http, http.stream("POST", "/v1/chat/completions", json=body) as answer:
            for line in answer.iter_lines():
                text.append(line)
                began.set()

    thread = Thread(target=stream)
    thread.start()
    assert began.wait(PATIENCE)
    assert server.move(second.url)[OLLAMA][0] == "applied"
    assert server.say() == "second one two three"
    first.gate.set()
    thread.join(PATIENCE)
    said = "".join(re.findall(r'"content":\s*"([^"]*)"', "".join(text)))
    assert said == "first one two three"


def test_an_address_where_nobody_answers_is_tried_again_and_the_old_one_serves(server, backends):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    state, said = server.move(f"http://127.0.0.1:{port}")[OLLAMA]
    assert (state, "its health check says" in said) == ("pending", True), said
    assert server.say() == "first one two three"
    assert server.providers()[OLLAMA]["config"]["base_url"] == f"{backends[0].url}/v1"
    with closing(Ollama("late", port=port)):
        end = monotonic() + PATIENCE
        while server.say() != "late one two three":
            assert monotonic() < end, server.said
            sleep(0.2)
        assert set(server.models()) == {LISTED, "any"}


# -- providers with routes of their own ------------------------------------------------------------


def uploaded(http: httpx.Client) -> None:
    made = http.post(
        "/v1/files", files={"file": ("a.txt", b"text")}, data={"purpose": "assistants"}
    ).raise_for_status()
    path = f"/v1/files/{made.json()['id']}"
    assert http.get(f"{path}/content").text == "text"
    assert http.delete(path).json()["deleted"]


def responded(http: httpx.Client) -> None:
    made = http.post("/v1/responses", json={"model": LISTED, "input": "hi"}).raise_for_status().json()
    assert made["output"][0]["content"][0]["text"] == "first one two three"
    kept = http.get(f"/v1/responses/{made['id']}").raise_for_status().json()
    assert kept["id"] == made["id"]
    body = {"model": LISTED, "input": "hi", "stream": True}
    with http.stream("POST", "/v1/responses", json=body) as answer:
        assert "response.completed" in answer.read().decode()


def batched(http: httpx.Client) -> None:
    assert http.get("/v1/batches").raise_for_status().json()["data"] == []


def messaged(http: httpx.Client) -> None:
    body = {"model": "nobody's", "max_tokens": 3, "messages": [{"role": "user", "content": "hi"}]}
    assert http.post("/v1/messages", json=body).json()["error"]["type"] == "not_found_error"
    assert http.get("/v1/messages/batches").raise_for_status().json()["data"] == []


def skilled(http: httpx.Client) -> None:
    assert http.get("/v1alpha/skills").raise_for_status().json()["data"] == []


@pytest.mark.parametrize(
    ("api", "change", "use"),
    [
        ("files", {"ttl_secs": 3600}, uploaded),
        ("responses", {"compaction_config": {"summary_prefix": "so far"}}, responded),
        ("batches", {"max_concurrent_batches": 2}, batched),
        ("messages", {"max_concurrent_batches": 2}, messaged),
        ("skills", {"persistence": {"backend": "kv_default", "namespace": "others"}}, skilled),
    ],
)
def test_a_provider_with_routes_of_its_own_is_swapped(server, backends, api, change, use):
    data = stack(server.folder, backends[0].url)
    with server.http() as http:
        use(http)
    data["providers"][api][0]["config"] |= change
    server.rewrite(data)
    with Asking(server, use, count=1) as asking:
        ((state, said),) = server.applied().values()
        before = asking.asked
        while asking.asked < before + 2:
            sleep(0.01)
    assert (state, said.startswith("swapped in ")) == ("applied", True), said
    assert asking.wrong == []
    key = f"{api}/{data['providers'][api][0]['provider_id']}"
    shown = server.providers()[key]["config"]
    assert all(shown[name] == value or name == "compaction_config" for name, value in change.items())


def test_what_a_swapped_provider_kept_is_there(server, backends):
    data = stack(server.folder, backends[0].url)
    with server.http() as http:
        made = http.post("/v1/responses", json={"model": LISTED, "input": "hi"}).raise_for_status().json()
        data["providers"]["responses"][0]["config"]["compaction_config"] = {"summary_prefix": "so far"}
        server.rewrite(data)
        assert server.applied()["responses/builtin"][0] == "applied"
        body = {"model": LISTED, "input": "and?", "previous_response_id": made["id"]}
        http.post("/v1/responses", json=body).raise_for_status()


def test_a_websocket_is_answered_by_the_provider_of_the_moment(server, backends):
    from websockets.sync.client import connect

    def turn(socket: Any) -> str:
        socket.send(json.dumps({"type": "response.create", "model": LISTED, "input": "hi"}))
        while True:
            event = json.loads(socket.recv(PATIENCE))
            if event["type"] in {"response.completed", "error"}:
                text: str = event["response"]["output"][0]["content"][0]["text"]
                return text

    data = stack(server.folder, backends[0].url)
    data["providers"]["responses"][0]["config"]["compaction_config"] = {"summary_prefix": "so far"}
    with connect(f"{server.url.replace('http', 'ws')}/v1/responses") as socket:
        assert turn(socket) == "first one two three"
        server.rewrite(data)
        assert server.applied()["responses/builtin"][0] == "applied"
        assert turn(socket) == "first one two three"
        assert server.move(backends[1].url)[OLLAMA][0] == "applied"
        assert turn(socket) == "second one two three"


def test_a_provider_that_refuses_leaves_the_old_one_in_place(server, backends):
    data = stack(server.folder, backends[0].url)
    data["providers"]["files"][0]["config"]["storage_dir"] = str(server.file / "below")
    server.rewrite(data)
    with Asking(server, uploaded, count=1) as asking:
        state, said = server.applied()[FILES]
    assert state == "failed"
    assert "Not a directory" in said
    assert asking.wrong == []
    assert server.providers()[FILES]["config"]["storage_dir"] == str(server.folder / "files")


# -- what comes and goes ---------------------------------------------------------------------------


def test_a_provider_comes_with_its_models_and_leaves_with_them(server, backends):
    data = stack(server.folder, backends[0].url)
    data["providers"]["inference"].append(
        provider("other", "remote::ollama", base_url=f"{backends[1].url}/v1")
    )
    data["registered_resources"]["models"].append(
        {"model_id": "other/named", "provider_id": "other", "provider_model_id": MODEL}
    )
    server.rewrite(data)
    assert server.applied()["inference/other"][1].startswith("joined in ")
    theirs = {name for name, owner in server.models().items() if owner == "other"}
    assert theirs == {"other/named", f"other/{MODEL}", "other/only-second"}
    assert server.say("other/named") == server.say(f"other/{MODEL}") == "second one two three"
    server.rewrite(stack(server.folder, backends[0].url))
    assert server.applied()["inference/other"] == ("applied", "left")
    assert "other" not in server.models().values()
    assert "inference/other" not in server.providers()


def test_a_model_for_any_provider_goes_to_one_that_is_left(server, backends):
    data = stack(server.folder, backends[0].url)
    (ollama,) = data["providers"]["inference"]
    other = provider("other", "remote::ollama", base_url=f"{backends[1].url}/v1")
    data["providers"]["inference"] = [ollama, other]
    server.rewrite(data)
    server.applied()
    assert server.models()["any"] == "ollama"
    data["providers"]["inference"] = [other]
    server.rewrite(data)
    assert server.applied()[OLLAMA] == ("applied", "left")
    assert set(server.models().values()) == {"other"}
    assert server.say("any") == "second one two three"
    data["providers"]["inference"] = []
    server.rewrite(data)
    assert server.applied()["inference/other"] == ("applied", "left")
    assert server.models() == {}


def test_a_group_of_tools_is_always_somebodys(server, backends):
    """The provider that has a key has it, as when the server starts; without it the other one."""

    def fine(_: httpx.Client) -> None:
        server.group()

    data = stack(server.folder, backends[0].url)
    tavily = data["providers"]["tool_runtime"].pop()
    with Asking(server, fine) as asking:
        assert server.group() == "tavily"
        server.rewrite(data)
        assert server.applied()["tool_runtime/tavily"] == ("applied", "left")
        assert server.group() == "brave"
        data["providers"]["tool_runtime"].append(tavily)
        server.rewrite(data)
        assert server.applied()["tool_runtime/tavily"][0] == "applied"
        assert server.group() == "tavily"
        data["providers"]["tool_runtime"][0]["config"]["api_key"] = "a key now"
        server.rewrite(data)
        assert server.applied()["tool_runtime/brave"][1].startswith("swapped in ")
        assert server.group() == "brave"
        sleep(0.2)
    assert asking.wrong == []
    assert asking.asked > 10


def test_an_api_for_which_upstream_has_no_routes_yet(server, backends):
    data = stack(server.folder, backends[0].url)
    store = {"backend": "sql_default", "table_name": "interactions"}
    data["providers"]["interactions"] = [provider("builtin", "inline::builtin", store=store)]
    body = {"model": LISTED, "input": "hi"}
    with server.http() as http:
        assert http.post("/v1alpha/interactions", json=body).status_code == 404
        server.rewrite(data)
        with Asking(server, uploaded, count=1) as asking:
            state, said = server.applied()["interactions/builtin"]
        assert (state, said.startswith("the server was set up anew in ")) == ("applied", True), said
        assert asking.wrong == []
        answer = http.post("/v1alpha/interactions", json=body).raise_for_status()
        assert "first one two three" in answer.text
        assert server.group() == "tavily"


# -- beginning and end -----------------------------------------------------------------------------


def test_no_secret_is_said_and_nothing_was_a_traceback(server):
    assert HIDDEN not in server.said
    assert "Traceback" not in server.said
    for file in server.folder.rglob("*"):
        if file.is_file() and os.access(file, os.R_OK):
            assert HIDDEN.encode() not in file.read_bytes(), file.name


def test_a_provider_that_is_down_at_the_start_has_its_models_when_it_comes(tmp_path):
    """Upstream itself would never ask it again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    data = stack(tmp_path, f"http://127.0.0.1:{port}")
    with serving(tmp_path, data) as server:
        server.until("inference/ollama .*health check")
        assert server.models() == {}
        assert server.providers()[OLLAMA]["health"]["status"] == "Error"
        assert server.group() == "tavily"
        began = monotonic()
        with closing(Ollama("late", port=port)):
            while set(server.models()) != {LISTED, "any"}:
                assert monotonic() < began + PATIENCE, server.said
                sleep(0.2)
            assert server.say() == server.say("any") == "late one two three"
            assert server.end() == 0
        assert "Traceback" not in server.said


def test_a_provider_of_an_api_that_the_file_does_not_list(tmp_path, backends):
    """Upstream makes it, and gives it no router: nobody can ask it."""
    data = stack(tmp_path, backends[0].url)
    tools, inference = data["providers"]["tool_runtime"], data["providers"]["inference"]
    data |= {"apis": ["inference"], "providers": {"inference": inference, "tool_runtime": tools}}
    with serving(tmp_path, data) as server:
        server.until("info applied: inference/ollama, tool_runtime/brave, tool_runtime/tavily")
        assert "set up anew" not in server.said
        tools[1]["config"]["max_results"] = 5
        server.rewrite(data)
        assert server.applied()["tool_runtime/tavily"][1].startswith("swapped in ")
        assert server.providers()["tool_runtime/tavily"]["config"]["max_results"] == 5
        tools.pop()
        server.rewrite(data)
        assert server.applied()["tool_runtime/tavily"] == ("applied", "left")
        assert server.say() == "first one two three"
        assert server.end() == 0
    assert "Traceback" not in server.said


class Silent(Ollama):
    """Is well, and does not say which models it has for as long as `talks` is not set."""

    talks = Event()

    def _get(self, request: BaseHTTPRequestHandler) -> None:
        if request.path == "/v1/models":
            self.talks.wait(PATIENCE)
        super()._get(request)


def test_who_never_lists_its_models_holds_up_neither_a_start_nor_a_swap(tmp_path, backends):
    silent = Silent("silent")
    with (
        closing(silent),
        serving(tmp_path, stack(tmp_path, silent.url), STACKCONF_APPLY_TIMEOUT="6") as server,
    ):
        server.until("not every provider listed its models within 3 s")
        server.until("info applied: inference/ollama")
        assert server.models() == {}
        assert server.move(backends[0].url)[OLLAMA][0] == "applied"
        assert set(server.models()) == {LISTED, "ollama/only-first", "any"}
        assert server.move(silent.url)[OLLAMA][0] == "applied"
        assert server.say() == "silent one two three"
        silent.talks.set()
        assert server.end() == 0
    assert "Traceback" not in server.said
