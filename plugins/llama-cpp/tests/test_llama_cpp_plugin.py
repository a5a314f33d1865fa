"""Against a real `llama-server` where one is on the PATH, and always against a stand-in for it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from llama_gguf import llama, lora
from llama_stand_in import handler

from stackconf.testing import fresh_process, machine, serve, stack_with, unused_port
from stackconf_llama_cpp import plugin
from stackconf_llama_cpp.config import LlamaCppServerConfig
from stackconf_llama_cpp.environment import variables
from stackconf_llama_cpp.memory import Slots, cache, compute_bytes, weights
from stackconf_llama_cpp.server import Rejected
from stackconf_models import EngineFailed

REAL = shutil.which("llama-server")
NO_REAL = pytest.mark.skipif(REAL is None, reason="there is no llama-server on the PATH")
# What systemd does with EnvironmentFile=: the variables of the file, nothing on the command line.
RESTART = """
[ -e "$1/fail" ] && { echo "llama-server.service is masked, key sk-secret-1" >&2; exit 3; }
[ -e "$1/pid" ] && kill -9 "$(cat "$1/pid")" && sleep 0.05
set -a; . "$1/llama.env"; set +a; shift
"$@" > "$LOG" 2>&1 &
echo $! > "$FOLDER/pid"
"""


def apply(config, previous=None):
    return plugin.apply_config(config=config, previous=previous)


def stand_in(model="tiny", adapters=(), **variables):
    given = {"LLAMA_ARG_ALIAS": model, "LLAMA_ARG_MODEL": "/m.gguf", **variables}
    return serve(handler(given, *adapters))


@pytest.fixture(
    params=[
        "stand_in",
        pytest.param("real", marks=NO_REAL),
    ]
)
def site(request, tmp_path, monkeypatch):
    """A folder with a model, and the settings of a server that is restarted there."""
    stand_in = [sys.executable, "-I", str(Path(__file__).with_name("llama_stand_in.py"))]
    program = stand_in if request.param == "stand_in" else [REAL]
    (tmp_path / "restart.sh").write_text(RESTART, encoding="utf-8")
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    settings = {
        "base_url": f"http://127.0.0.1:{unused_port()}/v1",
        "model": "tiny",
        "model_path": str(llama(tmp_path / "tiny.gguf")),
        "engine_version": "b11434",
        "config_file": str(tmp_path / "llama.env"),
        "restart_command": ["sh", str(tmp_path / "restart.sh"), str(tmp_path), *program],
        "health_timeout": 20,
        "cache_ram": 0,
    }
    yield tmp_path, settings
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text(encoding="utf-8")), signal.SIGKILL)


def test_the_file_is_written_and_the_server_runs_with_what_was_computed(site):
    folder, settings = site
    entry = {"provider_id": "llama", "provider_type": "remote::llama-cpp-server", "config": settings}
    box = machine(cores=2, memory_gib=4)
    with stack_with([plugin], {"inference": [entry]}, hardware=box) as stack:
        assert stack.apply().state == "applied"
        reason = stack.explain("llama", "ctx_size")[0].reason
    assert reason.startswith(
        "KV cache 512 B per token; 3 GiB left of 3 GiB of main memory (4 GiB less 1 GiB)"
    )
    lines = (folder / "llama.env").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# Written by stackconf")
    port = settings["base_url"].rpartition(":")[2].removesuffix("/v1")
    assert dict(line.split("=") for line in lines[1:]) == {
        "LLAMA_ARG_MODEL": settings["model_path"],
        "LLAMA_ARG_ALIAS": "tiny",
        "LLAMA_ARG_N_GPU_LAYERS": "0",
        "LLAMA_ARG_CTX_SIZE": "32768",
        "LLAMA_ARG_N_PARALLEL": "4",
        "LLAMA_ARG_KV_UNIFIED": "false",
        "LLAMA_ARG_BATCH": "2048",
        "LLAMA_ARG_UBATCH": "512",
        "LLAMA_ARG_THREADS": "2",
        "LLAMA_ARG_FLASH_ATTN": "auto",
        "LLAMA_ARG_CACHE_TYPE_K": "f16",
        "LLAMA_ARG_CACHE_TYPE_V": "f16",
        "LLAMA_ARG_CACHE_RAM": "0",
        "LLAMA_ARG_LOAD_MODE": "mmap",
        "LLAMA_ARG_FIT": "off",
        "LLAMA_ARG_PORT": port,
    }
    asked = apply(LlamaCppServerConfig(base_url=settings["base_url"], model="tiny"))
    assert asked.detail.endswith("serves tiny, 4 slots of 8192 tokens, build 11434")
    assert asked.check() is None


def test_slots_that_share_one_cache_have_all_of_it(site):
    _, settings = site
    applied = apply(LlamaCppServerConfig(**settings, ctx_size=5000, parallel=2, kv_unified=True))
    assert applied.check() is None
    asked = apply(LlamaCppServerConfig(base_url=settings["base_url"]))
    assert "2 slots of 5120 tokens" in asked.detail


def test_the_models_own_context_is_not_exceeded(site):
    _, settings = site
    applied = apply(LlamaCppServerConfig(**settings, ctx_size=16384, parallel=1))
    assert applied.check() is None
    assert "8192 tokens" in apply(LlamaCppServerConfig(base_url=settings["base_url"])).detail


def test_a_change_is_undone_to_the_old_file_and_a_server_that_runs_with_it(site):
    folder, settings = site
    first = LlamaCppServerConfig(**settings, ctx_size=4096, parallel=1)
    assert apply(first).check() is None
    second = LlamaCppServerConfig(**settings, ctx_size=2048, parallel=2, cache_type_k="q8_0")
    applied = apply(second, first)
    assert applied.check() is None
    assert "restarted; the engine is well after" in applied.detail
    applied.undo()
    assert applied.check_undo() is None
    assert "LLAMA_ARG_CTX_SIZE=4096\n" in (folder / "llama.env").read_text(encoding="utf-8")
    assert "serves tiny, 4096 tokens" in apply(LlamaCppServerConfig(base_url=settings["base_url"])).detail
    assert apply(first, first).detail.startswith(f"{folder}/llama.env says so already")


def test_a_server_that_was_not_restarted_is_found_out(site):
    _, settings = site
    assert apply(LlamaCppServerConfig(**settings, ctx_size=4096, parallel=1)).check() is None
    idle = {**settings, "restart_command": ["true"], "health_timeout": 1}
    wrong = apply(LlamaCppServerConfig(**idle, ctx_size=4096, parallel=2)).check()
    assert "has 1 slots, not 2; was it restarted, and with the variables of" in wrong
    wrong = apply(LlamaCppServerConfig(**idle, ctx_size=2048, parallel=1)).check()
    assert "has a context of 4096 for each slot, not 2048" in wrong


def test_a_server_that_does_not_start_ends_in_an_undo(site):
    folder, settings = site
    good = LlamaCppServerConfig(**settings, ctx_size=4096, parallel=1)
    assert apply(good).check() is None
    (folder / "broken.gguf").write_bytes(b"no model")
    bad = {**settings, "health_timeout": 1, "model_path": str(folder / "broken.gguf")}
    applied = apply(LlamaCppServerConfig(**bad), good)
    assert "not well within 1 s" in applied.check()
    applied.undo()
    assert applied.check_undo() is None


def test_adapters_are_scaled_after_a_restart_and_without_one(site):
    folder, settings = site
    adapter = lora(folder / "de.gguf")
    settings["restart_command"] += ["--lora", str(adapter)]
    settings |= {"ctx_size": 4096, "parallel": 1}
    first = LlamaCppServerConfig(**settings, lora_scales={"de.gguf": 0.5})
    applied = apply(first)
    assert applied.check() is None
    assert applied.detail.endswith("adapters: de.gguf 1 -> 0.5")
    pid = (folder / "pid").read_text(encoding="utf-8")
    applied = apply(LlamaCppServerConfig(**settings, lora_scales={"de.gguf": 0.1}), first)
    assert applied.check() is None
    assert "says so already" in applied.detail
    assert "de.gguf 0.5 -> 0.1" in applied.detail
    applied.undo()
    assert applied.check() == "the adapter de.gguf counts 0.5, not 0.1"
    assert (folder / "pid").read_text(encoding="utf-8") == pid
    longer = {**settings, "ctx_size": 8192}
    applied = apply(LlamaCppServerConfig(**longer, lora_scales={"de.gguf": 0.3}), first)
    assert applied.check() is None
    applied.undo()
    assert applied.check_undo() is None
    assert apply(first).detail.endswith("says so already; the engine is well")
    assert apply(first).check() is None


@pytest.mark.parametrize(
    "settings",
    [
        {"ctx_size": 8192, "parallel": 1},
        {"ctx_size": 8192, "parallel": 4, "flash_attn": "off"},
        {"ctx_size": 6000, "parallel": 3, "cache_type_k": "q8_0", "cache_type_v": "q4_0"},
        {"ctx_size": 8192, "parallel": 4, "kv_unified": True, "ubatch_size": 128},
    ],
)
@NO_REAL
def test_a_real_server_takes_what_was_computed(tmp_path, settings):
    """Its log: the cache to the byte, the weights to the page, computing at most the formula and 4 MiB."""
    path = llama(tmp_path / "tiny.gguf", layers=3, width=512, wide=1024, words=2048)
    config = LlamaCppServerConfig(
        base_url=f"http://127.0.0.1:{unused_port()}/v1",
        model_path=str(path),
        engine_version="b11434",
        config_file="/etc/llama.env",
        engine_env={"LLAMA_ARG_REPACK": False, "LLAMA_ARG_LOG_VERBOSITY": 4},
        devices=[],
        memory_bytes=8 * 1024**3,
        **settings,
    )
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([REAL], env=os.environ | variables(config), stdout=out, stderr=out)
    try:
        waited = next(each for each in range(200) if b"listening" in log.read_bytes() or time.sleep(0.1))
    finally:
        process.kill()
        process.wait()
    assert waited < 200
    text = log.read_text(encoding="utf-8", errors="replace")
    logged = dict(re.findall(r"CPU\w* (KV|compute|model) buffer size = +([\d.]+) MiB", text))
    shape, mib = config.told.shape, 1024**2
    kept = cache(shape, type_k=config.cache_type_k, type_v=config.cache_type_v).value
    slots = Slots(config.ctx_size, config.parallel, config.kv_unified)
    assert float(logged["KV"]) * mib == pytest.approx(kept.size(slots), abs=0.005 * mib)
    assert float(logged["model"]) * mib == pytest.approx(weights(shape).value.total, abs=0.01 * mib)
    formula = compute_bytes(
        shape, ubatch=config.ubatch_size, context=slots.each, flash=config.flash_attn != "off"
    )
    assert float(logged["compute"]) * mib <= formula + 4 * mib


def test_a_restart_that_fails_says_why_without_the_token(site):
    folder, settings = site
    settings = {**settings, "auth_credential": "sk-secret-1"}
    (folder / "fail").touch()
    applied = apply(LlamaCppServerConfig(**settings))
    assert "llama-server.service is masked" in applied.check()
    assert "sk-secret-1" not in applied.check()


def test_a_folder_or_program_that_is_not_there_is_refused_before_anything_is_touched(site):
    folder, settings = site
    with pytest.raises(EngineFailed, match="there is no folder"):
        apply(LlamaCppServerConfig(**{**settings, "config_file": "/nowhere/at/all/llama.env"}))
    with pytest.raises(EngineFailed, match="there is no such program"):
        apply(LlamaCppServerConfig(**{**settings, "restart_command": ["no-such-program-9"]}))
    assert not (folder / "llama.env").exists()


def test_the_key_is_sent_and_its_lack_is_told_with_stand_in():
    with stand_in(LLAMA_API_KEY="sk-secret-1", adapters=["/a.gguf"]) as url:
        known = LlamaCppServerConfig(base_url=f"{url}/v1", auth_credential="sk-secret-1")
        assert "slots of" in apply(known).detail
        unknown = LlamaCppServerConfig(url=url, auth_credential="sk-other-2")
        with pytest.raises(Rejected, match=r"answers 401: Invalid API Key; check auth_credential") as refused:
            apply(unknown)
    assert "sk-other-2" not in str(refused.value)


def test_another_model_than_the_one_served_is_refused_with_stand_in():
    with (
        stand_in() as url,
        pytest.raises(Rejected, match="serves tiny, not acme/other; set model"),
    ):
        apply(LlamaCppServerConfig(url=url, model="acme/other"))


def test_a_server_that_is_down_or_still_loads_is_pending_with_stand_in():
    assert "cannot reach" in apply(LlamaCppServerConfig(url=f"http://127.0.0.1:{unused_port()}")).pending
    loading = handler({"LLAMA_ARG_MODEL": "/m.gguf"})
    loading.ready = float("inf")
    with serve(loading) as url:
        assert "is not ready (503): Loading model" in apply(LlamaCppServerConfig(url=url)).pending
    with stand_in() as url, pytest.raises(Rejected, match="answers 404"):
        apply(LlamaCppServerConfig(url=f"{url}/other"))


def test_scales_of_adapters_are_set_in_place_and_put_back_with_stand_in():
    with stand_in(adapters=["/lora/en.gguf", "/lora/de.gguf"]) as url:
        applied = apply(LlamaCppServerConfig(url=url, lora_scales={"de.gguf": 0.25}))
        assert applied.detail.endswith("adapters: de.gguf 1 -> 0.25")
        assert applied.check() is None
        again = apply(LlamaCppServerConfig(url=url, lora_scales={"de.gguf": 0.25}))
        assert "adapters" not in again.detail
        applied.undo()
        assert applied.check_undo() is None
        assert applied.check() == "the adapter de.gguf counts 1.0, not 0.25"
        with pytest.raises(
            Rejected, match=r"no adapter fr\.gguf; it has de\.gguf, en\.gguf, from its --lora"
        ):
            apply(LlamaCppServerConfig(url=url, lora_scales={"fr.gguf": 1}))


def test_leaving_leaves_the_server_as_it_is():
    config = LlamaCppServerConfig(config_file="/etc/llama.env")
    left = plugin.apply_config(config=None, previous=config)
    assert left.detail == "llama.cpp is left running as it is; /etc/llama.env stays"
    assert plugin.apply_config(config=None, previous=None) is None


def test_the_type_is_advertised():
    names = {each.name for each in entry_points(group="stackconf.providers") if "llama-cpp" in each.name}
    assert names == {f"{each.api}/{each.provider_type}" for each in plugin.provides}


def test_the_plugin_module_is_light():
    heavy = "[m for m in sys.modules if m.startswith(('http', 'pydantic', 'stackconf_models'))]"
    done = fresh_process(f"import sys, stackconf_llama_cpp.plugin; print(*{heavy})")
    assert done.stdout.strip() == "", done.stderr
