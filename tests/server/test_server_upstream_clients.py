"""Upstream's own clients, installed from the package index, against `stackconf serve`: they run as
they are, in environments of their own, which take a minute to install and are kept between runs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from server_kit import serving
from upstream_probes import LLAMA_STACK_CLIENT, OGX_CLIENT, OGX_CLIENT_REFUSED

from stackconf import __version__

if TYPE_CHECKING:
    from server_kit import Server

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTED = "http://127.0.0.1:8420"
CANARY = "sk-canary-7d1f5a"
TOKEN = "token-of-this-test-5b1c"
LLAMA_STACK = ("llama-stack-client==0.2.12", "fire", "requests")
"""Its wheel imports the other two and does not say so."""
OGX = ("ogx-client>=1.5,<2",)
OGX_PYTHON = (3, 12)

pytestmark = pytest.mark.exhaustive

STACK = {
    "version": 2,
    "providers": {
        "inference": [
            {
                "provider_id": "ollama",
                "provider_type": "remote::ollama",
                "config": {"url": "http://127.0.0.1:9", "auth_credential": "${env.OLLAMA_CREDENTIAL}"},
            }
        ],
        "agents": [
            {
                "provider_id": "meta-reference",
                "provider_type": "inline::meta-reference",
                "config": {
                    "persistence_store": {"type": "sqlite", "db_path": "agents.db"},
                    "responses_store": {"type": "sqlite", "db_path": "responses.db"},
                },
            }
        ],
        "telemetry": [
            {
                "provider_id": "meta-reference",
                "provider_type": "inline::meta-reference",
                "config": {"sinks": "sqlite", "sqlite_db_path": "traces.db"},
            }
        ],
    },
}
NAMES = ["inference/ollama", "agents/meta-reference", "telemetry/meta-reference"]


class Client:
    """An environment with a client in it, and its programs, pointed at a server."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.bin, self.home = folder / "bin", home

    def run(self, *command: object, **environ: str) -> str:
        program, *arguments = map(str, command)
        clean = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PYTHON", "LLAMA", "OGX", "COLUMNS"))
        }
        done = subprocess.run(
            [self.bin / program, *arguments],
            capture_output=True,
            text=True,
            env={**clean, "HOME": str(self.home), "COLUMNS": "200", "NO_COLOR": "1", **environ},
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def probe(self, code: str, server: str, *token: str) -> dict:
        said = json.loads(self.run("python", "-W", "ignore", "-c", code, server, *token))
        assert CANARY not in json.dumps(said)
        return said


@pytest.fixture(scope="session")
def clients(pytestconfig, tmp_path_factory):
    """Where the clients are installed: with tox in its environment's folder, else in pytest's cache."""
    home = tmp_path_factory.mktemp("home")

    def installed(python: str, *requirements: str) -> Client:
        version = _version(python)
        name = f"{requirements[0].translate(str.maketrans('=<>,', '____'))}-{'.'.join(map(str, version))}"
        base = os.environ.get("TOX_ENV_DIR")
        folder = (Path(base) / "clients" if base else pytestconfig.cache.mkdir("upstream-clients")) / name
        done = folder / "installed"
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            if python == sys.executable:
                venv.create(folder, with_pip=True)
            else:
                subprocess.run([python, "-m", "venv", folder], check=True)
            pip = [folder / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check", "-q"]
            installing = subprocess.run([*pip, *requirements], capture_output=True, text=True, check=False)
            assert installing.returncode == 0, installing.stderr
            done.touch()
        return Client(folder, home)

    return installed


@pytest.fixture(scope="session")
def llama_stack(clients):
    return clients(sys.executable, *LLAMA_STACK)


@pytest.fixture(scope="session")
def ogx(clients):
    for python in (sys.executable, *map(shutil.which, ("python3.13", "python3.12")), _from_uv()):
        if python and _version(python) >= OGX_PYTHON:
            return clients(python, *OGX)
    pytest.skip("ogx-client needs Python 3.12, and there is none here")


def _version(python: str) -> tuple[int, ...]:
    """A Python's version, `()` for what does not run."""
    if python == sys.executable:
        return sys.version_info[:2]
    code = "import sys, venv; print(*sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else ()


def _from_uv() -> str:
    uv = shutil.which("uv")
    if uv is None:
        return ""
    done = subprocess.run([uv, "python", "find", ">=3.12"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def ask(server: Server, path: str, body: object = None) -> Any:
    with server.http() as http:
        answer = http.get(path) if body is None else http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server whose first apply has ended."""
    folder = tmp_path_factory.mktemp("server")
    stack = yaml.safe_dump(STACK, sort_keys=False)
    with serving(folder, stack=stack, environ={"OLLAMA_CREDENTIAL": CANARY}) as server:
        server.until("applied: ")
        yield server
        assert server.end() == 0
    assert CANARY not in server.text


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A server of the documentation's example, with nothing applied."""
    stack = (ROOT / "examples" / "issue-993" / "stack.yaml").read_text(encoding="utf-8")
    with serving(tmp_path_factory.mktemp("example"), "--no-apply", stack=stack) as server:
        yield server


@pytest.fixture
def guarded(tmp_path):
    """A server that wants a token."""
    with serving(tmp_path, environ={"STACKCONF_SERVE_TOKEN": TOKEN}) as server:
        yield server
        assert server.end() == 0
    assert TOKEN not in server.text


def keys(providers) -> list[str]:
    return [f"{each['api']}/{each['provider_id']}" for each in providers]


def check_told(said: dict, server: Server) -> None:
    """What any of upstream's clients reads is what the stack is, every provider of it."""
    assert keys(said["providers"]) == NAMES
    ollama, agents, telemetry = said["providers"]
    assert said["ollama"] == ollama
    assert ollama["provider_type"] == "remote::ollama"
    assert ollama["config"]["url"] == "http://127.0.0.1:9"
    assert ollama["config"]["auth_credential"] == "********"
    assert ollama["health"]["status"] == "Error"
    assert "pending: " in ollama["health"]["message"]
    assert agents["health"]["status"] == telemetry["health"]["status"] == "OK"
    assert said["shared"]["api"] == "agents"
    assert said["by name"] == telemetry
    assert telemetry["config"]["sinks"] == ["sqlite"], "it is the effective one"
    assert "max_queue_size" in telemetry["config"], "the class's defaults are part of it"
    name, status, body = said["unknown"]
    assert (name[:8], status) == ("NotFound", 404)
    assert "did you mean `ollama`?" in body["detail"]
    listed = {(each["method"], each["route"]) for each in said["routes"]}
    assert {("GET", "/v1/providers"), ("POST", "/v1/configurations/register")} <= listed
    assert {("GET", "/v1/providers/{provider_id}"), ("GET", "/v1alpha/admin/providers")} <= listed


def test_llama_stack_clients_sdk(llama_stack, server):
    said = llama_stack.probe(LLAMA_STACK_CLIENT, server.url)
    check_told(said, server)
    assert said["shared"]["same_id"] == ["telemetry/meta-reference"]
    assert said["by query"] == said["by name"]
    assert said["no route"][:2] == ["NotFoundError", 404]
    assert said["health"] == {"status": "OK"}
    assert said["version"] == {"version": __version__}
    assert said["async"] == ["ollama", "OK"]


def test_ogx_client(ogx, server):
    said = ogx.probe(OGX_CLIENT, server.url)
    for told in (said["v1"], said["admin"]):
        check_told(told, server)
        assert (told["health"], told["version"]) == ("OK", __version__)
    assert said["v1"]["providers"] == said["admin"]["providers"]
    assert said["alpha"]
    assert all(route.startswith("/v1alpha/admin/") for route in said["alpha"])
    assert said["async"] == ["ollama", "OK"]


def test_llama_stack_clients_commands(llama_stack, server):
    run = partial(llama_stack.run, "llama-stack-client", "--endpoint", server.url, OPENAI_API_KEY=CANARY)
    rows = [re.findall(r"[\w:-]+", line) for line in run("providers", "list").splitlines() if "::" in line]
    assert rows == [
        ["inference", "ollama", "remote::ollama"],
        ["agents", "meta-reference", "inline::meta-reference"],
        ["telemetry", "meta-reference", "inline::meta-reference"],
    ]

    shown = run("providers", "inspect", "ollama")
    assert shown.startswith("provider_id=ollama\nprovider_type=remote::ollama\nconfig:\n")
    config = yaml.safe_load(shown.partition("config:\n")[2])
    assert config["url"] == "http://127.0.0.1:9"
    assert config["auth_credential"] == "********"

    assert "persistence_store" in run("providers", "inspect", "meta-reference")
    telemetry = run("providers", "inspect", "telemetry/meta-reference")
    assert "sqlite_db_path: traces.db" in telemetry

    refused = run("providers", "inspect", "olama")
    assert "Error Type: NotFoundError" in refused
    assert "did you mean `ollama`?" in refused
    assert f"VersionInfo(version='{__version__}')" in run("inspect", "version")
    # It sends every key that it finds in its environment with each request.
    assert CANARY not in server.text


def test_what_is_registered_and_applied_is_seen_by_upstreams_client(llama_stack, server):
    wanted = {"telemetry": [{"provider_id": "meta-reference", "config": {"max_queue_size": 4096}}]}
    ask(server, "/v1/configurations/register", {"config": wanted})
    inspect = partial(llama_stack.run, "llama-stack-client", "--endpoint", server.url, "providers", "inspect")
    assert "max_queue_size: 4096" in inspect("telemetry/meta-reference")
    health = ask(server, "/v1/providers/telemetry/meta-reference")["health"]
    assert health == {
        "status": "OK",
        "message": "runs with revision 0; an apply would change it to revision 1",
    }
    ask(server, "/v1/apply", {})
    health = ask(server, "/v1/providers/telemetry/meta-reference")["health"]
    assert health["status"] == "OK"
    assert health["message"].startswith("runs with revision 1, applied at ")


def test_the_clients_own_api_key_is_the_token(llama_stack, guarded):
    run = partial(llama_stack.run, "llama-stack-client", "--endpoint", guarded.url)
    assert "Error Type: AuthenticationError" in run("providers", "list")
    assert "Provider Type" in run("--api-key", TOKEN, "providers", "list")


def test_ogx_clients_api_key_is_the_token(ogx, guarded):
    assert ogx.probe(OGX_CLIENT_REFUSED, guarded.url) == ["UnauthorizedException", 401]
    assert ogx.probe(OGX_CLIENT_REFUSED, guarded.url, TOKEN) == ["one", "memory"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_upstreams_routes_only_read(server, method):
    with server.http() as http:
        for path in (
            "/v1/providers",
            "/v1/providers/ollama",
            "/v1alpha/admin/providers/ollama",
            "/v1/health",
        ):
            answer = http.request(method, path)
            assert (answer.status_code, answer.json()["status"]) == (405, 405)


def documented() -> list[tuple[str, str]]:
    """Each fenced block of the documentation's section with what stands after its backticks."""
    page = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    section = page.partition("\n## Upstream's clients\n")[2].partition("\n## ")[0]
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def said_as_documented(got: str, wanted: str) -> bool:
    shown = "\n".join(line.rstrip() for line in got.strip().splitlines())
    return OutputChecker().check_output(wanted.strip() + "\n", shown + "\n", ELLIPSIS | NORMALIZE_WHITESPACE)


def test_the_commands_of_the_documentation(llama_stack, example):
    (console,) = (text for info, text in documented() if info == "console")
    commands = re.findall(r"^\$ ([^\n]*)\n(.*?)(?=^\$ |\Z)", console, re.MULTILINE | re.DOTALL)
    assert len(commands) == 3
    for command, wanted in commands:
        got = llama_stack.run(*command.replace(DOCUMENTED, example.url).split())
        assert said_as_documented(got, wanted), f"{command}\n{got}"


@pytest.mark.parametrize("client", ["llama-stack-client", "ogx-client"])
def test_the_programs_of_the_documentation(client, example, request):
    shown = documented()
    ((code, wanted),) = (
        (text, shown[number + 1][1]) for number, (info, text) in enumerate(shown) if info.endswith(client)
    )
    environment = request.getfixturevalue({"llama-stack-client": "llama_stack", "ogx-client": "ogx"}[client])
    got = environment.run("python", "-c", code.replace(DOCUMENTED, example.url))
    assert said_as_documented(got, wanted), got
