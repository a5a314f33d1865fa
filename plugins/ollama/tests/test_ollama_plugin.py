"""Against a stand-in that follows Ollama's documented protocol; Ollama itself is not installed here."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest
from ollama_stand_in import (
    OllamaStandIn,
    close,
    cut,
    drip,
    drip_headers,
    garbage,
    hang,
    serving,
    status,
    wait_until,
)

from stackconf.testing import fresh_process, unused_port
from stackconf_ollama import loading, plugin
from stackconf_ollama.config import OllamaConfig
from stackconf_ollama.server import Rejected

HTML = "<html><body>It works!</body></html>"


def config_for(ollama, *, read=20.0, **settings):
    return OllamaConfig(url=ollama.url, network={"timeout": {"connect": 20, "read": read}}, **settings)


def unknown_name(*_args, **_options):
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def apply(config, previous=None):
    return plugin.apply_config(config=config, previous=previous)


def test_without_a_model_only_the_version_is_asked_with_stand_in(ollama):
    applied = apply(config_for(ollama, num_ctx=8192))
    assert applied.pending is None
    assert "0.12.3" in applied.detail
    assert "no model is set" in applied.detail
    assert ollama.paths() == ["/api/version"]
    assert applied.check() is None


def test_a_model_is_loaded_with_its_options_with_stand_in(ollama):
    config = config_for(ollama, model="llama3.2", num_ctx=8192, num_thread=4, num_batch=256, num_gpu=0)
    applied = apply(config)
    assert ollama.loaded == {
        "llama3.2:latest": {"num_ctx": 8192, "num_thread": 4, "num_batch": 256, "num_gpu": 0}
    }
    assert "loaded llama3.2: context 8192, num_thread 4" in applied.detail
    assert applied.check() is None
    applied.undo()
    assert ollama.loaded == {}
    assert "no longer loaded" in applied.check()


def test_unset_options_are_left_to_the_server_with_stand_in(ollama):
    apply(config_for(ollama, model="llama3.2"))
    request = next(body for _, path, body, _ in ollama.requests if path == "/api/generate")
    assert request == {"model": "llama3.2", "stream": False, "options": {}}


def test_applying_again_reloads_nothing_with_stand_in(ollama):
    config = config_for(ollama, model="llama3.2", num_ctx=8192)
    apply(config)
    apply(config, config)
    assert ollama.loads == 1


def test_a_change_is_undone_with_stand_in(ollama):
    before = config_for(ollama, model="llama3.2", num_ctx=4096, keep_alive=-1)
    after = config_for(ollama, model="llama3.2", num_ctx=16384, keep_alive=-1)
    apply(before)
    applied = apply(after, before)
    assert ollama.loaded["llama3.2:latest"] == {"num_ctx": 16384}
    applied.undo()
    assert ollama.loaded["llama3.2:latest"] == {"num_ctx": 4096}


def test_another_model_replaces_the_one_before_with_stand_in(ollama):
    before = config_for(ollama, model="llama3.2", num_ctx=8192)
    apply(before)
    applied = apply(config_for(ollama, model="qwen3:0.6b", num_ctx=2048), before)
    assert ollama.loaded == {"qwen3:0.6b": {"num_ctx": 2048}}
    assert "unloaded llama3.2" in applied.detail
    applied.undo()
    assert ollama.loaded == {"llama3.2:latest": {"num_ctx": 8192}}


def test_another_server_takes_over_with_stand_in(ollama):
    with serving(OllamaStandIn({"llama3.2:latest": 131_072})) as other:
        before = config_for(ollama, model="llama3.2", num_ctx=8192)
        apply(before)
        applied = apply(config_for(other, model="llama3.2", num_ctx=8192), before)
        assert ollama.loaded == {}
        assert list(other.loaded) == ["llama3.2:latest"]
        applied.undo()
        assert list(ollama.loaded) == ["llama3.2:latest"]
        assert other.loaded == {}


def test_moving_away_from_a_server_that_is_gone_with_stand_in(ollama):
    gone = OllamaConfig(url=f"http://127.0.0.1:{unused_port()}", model="llama3.2")
    applied = apply(config_for(ollama, model="llama3.2"), gone)
    assert applied.pending is None
    assert "could not be unloaded" in applied.detail
    assert list(ollama.loaded) == ["llama3.2:latest"]


def test_somebody_elses_model_is_put_back_with_its_context_with_stand_in(ollama):
    ollama.answer("POST", "/api/generate", {"model": "llama3.2", "options": {"num_ctx": 2048}})
    applied = apply(config_for(ollama, model="llama3.2", num_ctx=8192))
    applied.undo()
    assert ollama.loaded == {"llama3.2:latest": {"num_ctx": 2048}}


def test_leaving_unloads_and_undo_loads_again_with_stand_in(ollama):
    config = config_for(ollama, model="llama3.2", num_ctx=8192)
    apply(config)
    applied = apply(None, config)
    assert applied.detail == "unloaded llama3.2"
    assert ollama.loaded == {}
    applied.undo()
    assert ollama.loaded == {"llama3.2:latest": {"num_ctx": 8192}}


def test_leaving_a_server_that_is_gone_or_holds_nothing_with_stand_in(ollama):
    assert "no model" in apply(None, config_for(ollama, model="llama3.2")).detail
    assert "no model" in apply(None, config_for(ollama)).detail
    gone = OllamaConfig(url=f"http://127.0.0.1:{unused_port()}", model="llama3.2")
    applied = apply(None, gone)
    assert applied.pending is None
    assert "connection refused" in applied.detail


def test_a_missing_model_is_refused_with_advice_with_stand_in(ollama):
    with pytest.raises(Rejected, match=r"is not on http://127.0.0.1:\d+; get it with: ollama pull mistral$"):
        apply(config_for(ollama, model="mistral"))
    assert ollama.loaded == {}


def test_a_refused_load_leaves_what_was_there_with_stand_in(ollama):
    before = config_for(ollama, model="llama3.2", num_ctx=4096)
    apply(before)
    ollama.largest_context = 8192
    with pytest.raises(Rejected, match=r"answers 500: model requires more system memory \(90.1 GiB\)"):
        apply(config_for(ollama, model="llama3.2", num_ctx=65536), before)
    assert ollama.loaded == {"llama3.2:latest": {"num_ctx": 4096}}


def test_a_model_that_only_embeds_is_loaded_with_stand_in(ollama):
    applied = apply(config_for(ollama, model="all-minilm", num_ctx=512, keep_alive="10m"))
    assert ollama.loaded == {"all-minilm:latest": {"num_ctx": 512}}
    applied.undo()
    assert ollama.loaded == {}


def test_a_context_beyond_the_models_own_is_said_with_stand_in(ollama):
    applied = apply(config_for(ollama, model="qwen3:0.6b", num_ctx=262144))
    assert "context 40960 (asked for 262144; the server decided)" in applied.detail
    assert applied.check() is None


def test_a_server_that_does_not_tell_the_context_with_stand_in(ollama):
    ollama.tells_context = False
    applied = apply(config_for(ollama, model="llama3.2", num_ctx=8192))
    assert "context 8192 asked for" in applied.detail
    assert applied.check() is None


def test_keep_alive_zero_loads_nothing_with_stand_in(ollama):
    applied = apply(config_for(ollama, model="llama3.2", keep_alive="0s"))
    assert "keep_alive is 0" in applied.detail
    assert ollama.loaded == {}
    assert applied.check() is None


def test_an_unset_keep_alive_is_not_the_one_before_with_stand_in(ollama):
    plain = config_for(ollama, model="llama3.2", num_ctx=8192)
    forever = config_for(ollama, model="llama3.2", num_ctx=8192, keep_alive=-1)
    apply(plain)
    applied = apply(forever, plain)
    assert ollama.sessions["llama3.2:latest"] == float("inf")
    assert ollama.loads == 1
    applied.undo()
    assert ollama.sessions["llama3.2:latest"] == 300
    apply(forever, plain)
    apply(plain, forever)
    assert ollama.sessions["llama3.2:latest"] == 300


def test_a_model_that_goes_slowly_is_waited_for_with_stand_in(ollama):
    ollama.unload_delay = 0.2
    plain = config_for(ollama, model="llama3.2")
    forever = config_for(ollama, model="llama3.2", keep_alive=-1)
    apply(forever)
    applied = apply(plain, forever)
    time.sleep(0.3)
    assert applied.check() is None
    ollama.unload_delay = 30
    impatient = config_for(ollama, read=0.5, model="llama3.2")
    assert "unloads when its last request ends" in apply(None, impatient).detail


def test_a_cloud_model_is_not_loaded_with_stand_in(ollama):
    ollama.remote["gpt-oss:120b-cloud"] = "https://ollama.com:443"
    applied = apply(config_for(ollama, model="gpt-oss:120b-cloud"))
    assert applied.detail == "Ollama 0.12.3 has gpt-oss:120b-cloud, which runs at https://ollama.com:443"
    assert "/api/generate" not in ollama.paths()


def test_check_sees_a_reload_by_somebody_else_with_stand_in(ollama):
    applied = apply(config_for(ollama, model="llama3.2", num_ctx=8192))
    ollama.answer("POST", "/api/generate", {"model": "llama3.2"})
    assert applied.check() == (
        "llama3.2:latest now runs with context 4096 instead of 8192: a request with other options reloaded it"
    )


def test_a_model_whose_time_is_over_may_be_gone_with_stand_in(ollama, monkeypatch):
    applied = apply(config_for(ollama, model="llama3.2", keep_alive="1h"))
    assert applied.check() is None
    ollama.answer("POST", "/api/generate", {"model": "llama3.2", "keep_alive": 0})
    wait_until(lambda: ollama.loaded == {})
    assert "no longer loaded" in applied.check()
    later = time.monotonic() + 3600
    monkeypatch.setattr(loading, "time", SimpleNamespace(monotonic=lambda: later))
    assert applied.check() is None


def test_check_sees_a_server_that_went_away_with_stand_in():
    with serving(OllamaStandIn({"llama3.2:latest": 4096})) as stand_in:
        with_model = apply(config_for(stand_in, model="llama3.2"))
        without = apply(config_for(stand_in))
    assert "connection refused" in with_model.check()
    assert "connection refused" in without.check()


def test_nobody_listens():
    applied = apply(OllamaConfig(url=f"http://127.0.0.1:{unused_port()}", model="llama3.2"))
    assert applied.pending.startswith("cannot reach http://127.0.0.1:")
    assert applied.pending.endswith("connection refused")


def test_a_name_that_does_not_resolve(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", unknown_name)
    applied = apply(OllamaConfig(url="http://ollama.invalid:11434"))
    assert applied.pending == "cannot reach http://ollama.invalid:11434: name or service not known"


def test_a_host_name_that_cannot_be_one():
    with pytest.raises(Rejected, match="host name"):
        apply(OllamaConfig(url=f"http://{'a' * 70}.{'b' * 70}:1"))


@pytest.mark.parametrize("fault", [hang, drip, drip_headers], ids=["hangs", "drips", "drips-headers"])
@pytest.mark.parametrize("path", ["/api/version", "/api/tags", "/api/ps"])
def test_a_server_that_does_not_answer_in_time_is_pending_with_stand_in(ollama, path, fault):
    ollama.faults[path] = fault(ollama)
    started = time.monotonic()
    applied = apply(config_for(ollama, read=0.5, model="llama3.2"))
    assert time.monotonic() - started < 20
    assert f"no answer to GET {path} within 0.5 s" in applied.pending


def test_a_load_that_takes_too_long_is_pending_with_stand_in(ollama):
    ollama.faults["/api/generate"] = hang(ollama)
    applied = apply(config_for(ollama, model="llama3.2", load_timeout=0.3))
    assert "no answer to POST /api/generate within 0.3 s" in applied.pending


@pytest.mark.parametrize("fault", [close, cut], ids=["closes", "cuts"])
def test_a_closed_connection_is_pending_with_stand_in(ollama, fault):
    ollama.faults["/api/version"] = fault
    assert "closed the connection" in apply(config_for(ollama)).pending


@pytest.mark.parametrize("code", [502, 503, 504])
def test_a_gateway_without_ollama_behind_it_is_pending_with_stand_in(ollama, code):
    ollama.faults["/api/version"] = status(code, "text/html", HTML)
    assert f"is not ready ({code})" in apply(config_for(ollama)).pending


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (status(200, "text/html", HTML), "not like an Ollama server"),
        (status(200, "application/json", "[]"), "not like an Ollama server"),
        (status(200, "application/json", "{}"), "no version"),
        (status(200, "application/json", '{"version": 3}'), "no version"),
        (status(200, "application/json", "[" * 100_000), "not like an Ollama server"),
        (status(200, "application/json", ""), "not like an Ollama server"),
        (status(301, "text/html", HTML), "answers 301: Moved Permanently"),
        (status(401, "text/plain", "no"), "answers 401: Unauthorized"),
        (status(404, "text/plain", "404 page not found"), "answers 404: Not Found"),
        (status(500, "application/json", '{"error": "a\\nb\\u001b[31m"}'), r"answers 500: a b \[31m$"),
        (status(799, "text/plain", ""), "answers 799"),
        (garbage, "does not speak HTTP"),
    ],
)
def test_a_wrong_answer_is_refused_in_one_line_with_stand_in(ollama, fault, message):
    ollama.faults["/api/version"] = fault
    with pytest.raises(Rejected, match=message) as caught:
        apply(config_for(ollama))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("answer", ['{"models": [{}]}', '{"models": 3}', '{"models": [1]}'])
def test_a_wrong_list_is_refused_with_stand_in(ollama, answer):
    ollama.faults["/api/tags"] = status(200, "application/json", answer)
    with pytest.raises(Rejected, match="does not answer like an Ollama server"):
        apply(config_for(ollama, model="llama3.2"))


def test_a_server_without_models_with_stand_in(ollama):
    ollama.faults["/api/tags"] = status(200, "application/json", '{"models": null}')
    with pytest.raises(Rejected, match="ollama pull"):
        apply(config_for(ollama, model="llama3.2"))


def test_tls_to_a_server_without_it_is_refused_with_stand_in(ollama):
    url = ollama.url.replace("http:", "https:")
    with pytest.raises(Rejected, match="no trusted TLS connection"):
        apply(OllamaConfig(url=url))


def test_a_ca_file_that_is_not_there_is_refused():
    config = OllamaConfig(url="https://127.0.0.1:1", network={"tls": {"verify": "/nowhere/ca.pem"}})
    with pytest.raises(Rejected, match=r"network.tls names a file that cannot be read: no such file"):
        apply(config)


def test_proxy_variables_are_not_followed_with_stand_in(ollama, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_port()}")
    assert apply(config_for(ollama)).pending is None


def test_credentials_go_to_the_operators_server_only_with_stand_in(ollama):
    secrets = {
        "auth_credential": "CANARY-1",
        "network": {"headers": {"X-Site": "CANARY-2"}, "timeout": 1},
    }
    apply(OllamaConfig(base_url=f"{ollama.url}/v1", **secrets))
    sent = ollama.requests[-1][3]
    assert (sent["Authorization"], sent["X-Site"]) == ("Bearer CANARY-1", "CANARY-2")
    apply(OllamaConfig(url=ollama.url, base_url="http://elsewhere:1/v1", **secrets))
    assert "CANARY" not in str(ollama.requests[-1])


def test_no_outcome_repeats_a_credential_with_stand_in(ollama):
    config = OllamaConfig(base_url=f"{ollama.url}/v1", auth_credential="CANARY", network={"timeout": 2})
    seen = [repr(apply(config))]
    for fault in (close, garbage, hang(ollama), status(401, "application/json", '{"error": "not CANARY"}')):
        ollama.faults["/api/version"] = fault
        try:
            seen.append(repr(apply(config)))
        except Rejected as error:
            seen.append(repr(error))
    with pytest.raises(Rejected) as caught:
        apply(OllamaConfig(base_url="http://a:1/v1", auth_credential="CANARY\nX: y"))
    seen.append(repr(caught.value))
    assert any("********" in text for text in seen)
    assert "CANARY" not in "".join(seen)


def test_a_model_that_never_shows_as_loaded_is_refused_with_stand_in(ollama):
    ollama.faults["/api/ps"] = status(200, "application/json", '{"models": []}')
    with pytest.raises(Rejected, match="does not list it"):
        apply(config_for(ollama, model="llama3.2"))


def test_an_interrupted_undo_is_not_hidden_with_stand_in(ollama):
    applied = apply(config_for(ollama, model="llama3.2"))
    ollama.faults["/api/ps"] = status(500, "application/json", '{"error": "broken"}')
    with pytest.raises(Rejected, match="broken"):
        applied.undo()
    ollama.faults.clear()
    applied.undo()
    wait_until(lambda: ollama.loaded == {})


def test_an_undo_is_verified_with_stand_in(ollama):
    before = config_for(ollama, model="llama3.2", num_ctx=4096)
    apply(before)
    applied = apply(config_for(ollama, model="llama3.2", num_ctx=8192), before)
    assert applied.check_undo() == "llama3.2 runs with context 8192 instead of 4096"
    applied.undo()
    assert applied.check_undo() is None
    ollama.answer("POST", "/api/generate", {"model": "llama3.2", "keep_alive": 0})
    wait_until(lambda: ollama.loaded == {})
    assert applied.check_undo() == "llama3.2 was loaded before and is not loaded again"


def test_an_undone_join_is_verified_with_stand_in(ollama):
    applied = apply(config_for(ollama, read=0.5, model="llama3.2"))
    assert applied.check_undo() == "llama3.2 is still loaded: a request uses it"
    ollama.unload_delay = 1.5
    applied.undo()
    assert applied.check_undo() == "llama3.2 is still loaded: a request uses it"
    wait_until(lambda: ollama.loaded == {})
    assert applied.check_undo() is None


def test_an_undo_to_another_model_is_verified_with_stand_in(ollama):
    before = config_for(ollama, model="llama3.2", num_ctx=8192)
    apply(before)
    applied = apply(config_for(ollama, model="qwen3:0.6b"), before)
    ollama.largest_context = 4096
    with pytest.raises(Rejected, match="requires more system memory"):
        applied.undo()
    assert applied.check_undo() == "llama3.2 was loaded before and is not loaded again"
    ollama.largest_context = 2**24
    applied.undo()
    assert applied.check_undo() is None


def test_a_left_model_is_verified_to_be_back_with_stand_in(ollama):
    config = config_for(ollama, model="llama3.2", num_ctx=262_144)
    apply(config)
    applied = apply(None, config)
    assert applied.check_undo() == "llama3.2 was loaded before and is not loaded again"
    applied.undo()
    assert applied.check_undo() is None, "the context that the server decided on is the one before"


def test_a_model_that_stays_a_moment_only_may_be_gone_after_an_undo_with_stand_in(ollama):
    before = config_for(ollama, model="llama3.2", keep_alive="400ms")
    apply(before)
    applied = apply(config_for(ollama, model="llama3.2", num_ctx=8192), before)
    applied.undo()
    assert applied.check_undo() is None
    wait_until(lambda: "llama3.2" not in str(ollama.answer("GET", "/api/ps", None)))
    assert applied.check_undo() is None


def test_its_time_counts_from_the_undo_with_stand_in(ollama, monkeypatch):
    before = config_for(ollama, model="llama3.2", keep_alive="1h")
    apply(before)
    applied = apply(config_for(ollama, model="llama3.2", num_ctx=8192), before)
    later = time.monotonic() + 3600
    monkeypatch.setattr(loading, "time", SimpleNamespace(monotonic=lambda: later))
    applied.undo()
    ollama.answer("POST", "/api/generate", {"model": "llama3.2", "keep_alive": 0})
    wait_until(lambda: ollama.loaded == {})
    assert applied.check_undo() == "llama3.2 was loaded before and is not loaded again"


def test_after_an_undo_the_server_must_answer():
    with serving(OllamaStandIn({"llama3.2:latest": 4096})) as stand_in:
        with_model = apply(config_for(stand_in, model="llama3.2"))
        without = apply(config_for(stand_in))
        with_model.undo()
        without.undo()
        assert (with_model.check_undo(), without.check_undo()) == (None, None)
    assert "connection refused" in with_model.check_undo()
    assert "connection refused" in without.check_undo()
    left = apply(None, config_for(stand_in, model="llama3.2"))
    left.undo()
    assert left.check_undo() is None, "nothing was touched"


@pytest.mark.parametrize("loaded", [None, 4096, 8192], ids=["nothing", "the old", "the new"])
def test_a_join_of_what_may_run_already_is_idempotent_with_stand_in(ollama, loaded):
    if loaded:
        ollama.answer("POST", "/api/generate", {"model": "llama3.2", "options": {"num_ctx": loaded}})
    config = config_for(ollama, model="llama3.2", num_ctx=8192)
    first, second = apply(config), apply(config)
    assert ollama.loaded == {"llama3.2:latest": {"num_ctx": 8192}}
    assert ollama.loads == (1 if loaded in (None, 8192) else 2)
    assert first.detail == second.detail
    assert second.check() is None


def test_leaving_what_nobody_knows_of_is_fine():
    assert apply(None, None) is None


STACK = """
version: 2
providers:
  inference:
  - provider_id: ollama
    provider_type: remote::ollama
    config: {{url: "{url}", model: "{model}", num_ctx: {num_ctx}, num_thread: 4}}
"""


def test_an_apply_that_was_killed_while_it_loads_is_repaired_with_stand_in(ollama, tmp_path):
    stack = tmp_path / "stack.yaml"

    def write(model, num_ctx):
        stack.write_text(STACK.format(url=ollama.url, model=model, num_ctx=num_ctx), encoding="utf-8")

    def command(*arguments):
        run = [sys.executable, "-m", "stackconf", *arguments]
        return subprocess.Popen(
            run, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
        )

    def apply_again():
        process = command("apply")
        text = process.communicate()[0]
        return process.returncode, text

    def killed():
        ollama.requests.clear()
        ollama.faults["/api/generate"] = hang(ollama)
        process = command("apply")
        wait_until(lambda: "/api/generate" in ollama.paths())
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        ollama.faults.clear()

    write("llama3.2", 4096)
    assert apply_again()[0] == 0
    write("llama3.2", 8192)
    killed()
    # The server goes on loading for a client that is gone.
    ollama.answer("POST", "/api/generate", {"model": "llama3.2", "options": {"num_ctx": 8192}})
    code, text = apply_again()
    assert code == 0, text
    assert ollama.loaded == {"llama3.2:latest": {"num_ctx": 8192, "num_thread": 4}}

    write("qwen3:0.6b", 16384)
    killed()
    # What was tried turns out to be impossible: back to what it had, in a process that knew nothing.
    ollama.answer("POST", "/api/generate", {"model": "llama3.2", "keep_alive": 0})
    wait_until(lambda: ollama.loaded == {})
    ollama.largest_context = 8192
    code, text = apply_again()
    assert code == 1, text
    assert "requires more system memory" in text
    assert "undo failed" not in text
    assert ollama.loaded == {"llama3.2:latest": {"num_ctx": 8192, "num_thread": 4}}


def test_importing_the_plugin_imports_nothing_heavy():
    code = (
        "import sys; before = set(sys.modules); import stackconf_ollama.plugin; "
        "print(*sorted({m.partition('.')[0] for m in set(sys.modules) - before}))"
    )
    found = fresh_process(code)
    assert found.returncode == 0, found.stderr
    assert not {"http", "ssl", "asyncio", "pydantic", "urllib", "email"} & set(found.stdout.split())


def test_the_entry_points_are_what_the_plugin_provides():
    metadata = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    written = metadata["project"]["entry-points"]["stackconf.providers"]
    assert written == {kind.key: plugin.__name__ for kind in plugin.provides}
    installed = {point.name: point for point in entry_points(group="stackconf.providers")}
    for kind in plugin.provides:
        assert installed[kind.key].load() is plugin
