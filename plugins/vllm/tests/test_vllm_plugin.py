"""Against a stand-in that follows vLLM's documented protocol; vLLM itself is not installed here."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from vllm_stand_in import VllmStandIn

from stackconf import simulate
from stackconf.testing import fresh_process, serve, stack_with, unused_port
from stackconf_models import EngineFailed
from stackconf_vllm import plugin
from stackconf_vllm.config import InlineVllmConfig, RemoteVllmConfig
from stackconf_vllm.server import Rejected

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
RESTART = """
[ -e "$1/fail" ] && { echo "vllm.service is masked, key sk-secret-1" >&2; exit 3; }
[ -e "$1/pid" ] && kill -9 "$(cat "$1/pid")" && sleep 0.05
"$2" -I "$3" "$1/vllm.yaml" > /dev/null 2>&1 &
echo $! > "$1/pid"
"""


def stand_in(key=None, **arguments):
    return serve(type("Handler", (VllmStandIn,), {"arguments": {"model": MODEL, **arguments}, "key": key}))


def apply(config, previous=None):
    return plugin.apply_config(config=config, previous=previous)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder with vLLM's file, and the settings of a vLLM that is restarted there."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-models"))
    (tmp_path / "restart.sh").write_text(RESTART, encoding="utf-8")
    port = unused_port()
    program = Path(__file__).with_name("vllm_stand_in.py")
    settings = {
        "url": f"http://127.0.0.1:{port}/v1",
        "model": MODEL,
        "engine_version": "0.22.1",
        "config_file": str(tmp_path / "vllm.yaml"),
        "restart_command": ["sh", str(tmp_path / "restart.sh"), str(tmp_path), sys.executable, str(program)],
        "health_timeout": 20,
        "engine_args": {"port": port},
    }
    yield tmp_path, settings
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text(encoding="utf-8")), signal.SIGKILL)


def test_a_server_elsewhere_is_asked_what_it_serves_with_stand_in():
    with stand_in() as url:
        applied = apply(RemoteVllmConfig(url=f"{url}/v1", model=MODEL))
        assert applied.detail == f"vLLM at {url} serves {MODEL}, context 131072"
        assert applied.check() is None
        applied.undo()
        assert applied.check_undo() is None
    assert "cannot reach" in applied.check()


def test_a_token_is_sent_and_its_lack_is_told_with_stand_in():
    with stand_in(key="sk-secret-1") as url:
        assert "serves" in apply(RemoteVllmConfig(base_url=f"{url}/v1", auth_credential="sk-secret-1")).detail
        with pytest.raises(Rejected, match=r"answers 401: Unauthorized; check api_token"):
            apply(RemoteVllmConfig(url=url, api_token="fake"))


def test_another_model_than_the_one_served_is_refused_with_stand_in():
    with stand_in() as url, pytest.raises(Rejected, match=f"serves {MODEL}, not acme/other; set model"):
        apply(RemoteVllmConfig(url=url, model="acme/other"))


def test_a_server_that_is_down_is_pending_and_one_that_is_no_vllm_is_refused():
    assert "cannot reach" in apply(RemoteVllmConfig(url=f"http://127.0.0.1:{unused_port()}")).pending
    with stand_in() as url, pytest.raises(Rejected, match="answers 404"):
        apply(RemoteVllmConfig(url=f"{url}/other"))


def test_without_an_address_nothing_is_asked():
    assert apply(RemoteVllmConfig(url="", base_url="")).detail == "no url is set, so nothing was asked"


def test_the_file_is_written_and_vllm_restarted_with_it_with_stand_in(site):
    folder, settings = site
    entry = {"provider_id": "vllm", "provider_type": "remote::vllm", "config": settings}
    with stack_with([plugin], {"inference": [entry]}, hardware=simulate("l4:1")) as stack:
        assert stack.apply().state == "applied"
        assert stack.explain("vllm", "max_model_len")[0].reason.startswith(
            "KV cache 128 KiB per token; 2.1 GiB"
        )
    text = (folder / "vllm.yaml").read_text(encoding="utf-8")
    assert text.startswith("# Written by stackconf")
    assert yaml.safe_load(text) == {
        "model": MODEL,
        "tensor-parallel-size": 1,
        "dtype": "bfloat16",
        "gpu-memory-utilization": 0.92,
        "max-model-len": 16912,
        "max-num-seqs": 256,
        "max-num-batched-tokens": 2048,
        "port": settings["engine_args"]["port"],
    }


def test_a_change_is_undone_to_the_old_file_and_an_engine_that_runs_with_it_with_stand_in(site):
    folder, settings = site
    first = RemoteVllmConfig(**settings, max_model_len=4096)
    assert apply(first).check() is None
    second = RemoteVllmConfig(**settings, max_model_len=8192)
    applied = apply(second, first)
    assert applied.check() is None
    assert "restarted; the engine is well after" in applied.detail
    applied.undo()
    assert applied.check_undo() is None
    assert yaml.safe_load((folder / "vllm.yaml").read_text(encoding="utf-8"))["max-model-len"] == 4096
    assert apply(first, first).detail.startswith(f"{folder}/vllm.yaml says so already")


def test_an_engine_that_was_not_restarted_is_found_out_with_stand_in(site):
    _, settings = site
    assert apply(RemoteVllmConfig(**settings, max_model_len=4096)).check() is None
    idle = {**settings, "restart_command": ["true"], "health_timeout": 1}
    wrong = apply(RemoteVllmConfig(**idle, max_model_len=8192)).check()
    assert "with a context of 4096, not 8192; was it restarted" in wrong


def test_a_restart_that_fails_says_why_without_the_token_and_is_undone_with_stand_in(site):
    folder, settings = site
    settings = {**settings, "api_token": "sk-secret-1"}
    assert apply(RemoteVllmConfig(**settings, max_model_len=4096)).check() is None
    (folder / "fail").touch()
    applied = apply(RemoteVllmConfig(**settings, max_model_len=8192))
    assert "vllm.service is masked" in applied.check()
    assert "sk-secret-1" not in applied.check()
    (folder / "fail").unlink()
    applied.undo()
    assert applied.check_undo() is None


def test_an_argument_that_vllm_does_not_know_ends_in_an_undo_with_stand_in(site):
    folder, settings = site
    assert apply(RemoteVllmConfig(**settings)).check() is None
    bad = {**settings, "health_timeout": 1, "engine_args": {**settings["engine_args"], "max-modle": 1}}
    applied = apply(RemoteVllmConfig(**bad))
    assert "not well within 1 s" in applied.check()
    applied.undo()
    assert applied.check_undo() is None
    assert "max-modle" not in (folder / "vllm.yaml").read_text(encoding="utf-8")


def test_a_folder_or_program_that_is_not_there_is_refused_before_anything_is_touched(site):
    folder, settings = site
    with pytest.raises(EngineFailed, match="there is no folder"):
        apply(RemoteVllmConfig(**{**settings, "config_file": "/nowhere/at/all/vllm.yaml"}))
    with pytest.raises(EngineFailed, match="there is no such program"):
        apply(RemoteVllmConfig(**{**settings, "restart_command": ["no-such-program-9"]}))
    assert not (folder / "vllm.yaml").exists()


def test_a_token_in_the_restart_command_is_refused(site):
    _, settings = site
    with pytest.raises(EngineFailed, match="holds a secret") as refused:
        apply(
            RemoteVllmConfig(
                **{**settings, "restart_command": ["sh", "-c", "sk-secret-1"]}, api_token="sk-secret-1"
            )
        )
    assert "sk-secret-1" not in str(refused.value)


def test_leaving_leaves_the_server_as_it_is(site):
    _, settings = site
    assert "left running" in plugin.apply_config(config=None, previous=RemoteVllmConfig(**settings)).detail
    assert plugin.apply_config(config=None, previous=None) is None


def test_inline_is_taken_by_the_stacks_own_process():
    assert "at its start" in apply(InlineVllmConfig()).detail


def test_both_types_are_advertised():
    names = {each.name for each in entry_points(group="stackconf.providers") if "vllm" in each.name}
    assert names == {f"{each.api}/{each.provider_type}" for each in plugin.provides}


def test_the_plugin_module_is_light():
    heavy = "[m for m in sys.modules if m.startswith(('yaml', 'http', 'pydantic'))]"
    code = f"import sys, stackconf_vllm.plugin; print(*{heavy})"
    done = fresh_process(code)
    assert done.stdout.strip() == "", done.stderr


def test_the_cards_are_written_for_the_service_and_a_change_of_them_restarts_it_with_stand_in(site):
    folder, settings = site
    environment = folder / "vllm.env"
    settings = {**settings, "environment_file": str(environment)}
    first = RemoteVllmConfig(**settings)
    assert apply(first).check() is None
    assert environment.read_text(encoding="utf-8").endswith("\n# all cards\n")
    pid = (folder / "pid").read_text(encoding="utf-8")
    second = RemoteVllmConfig(**settings, visible_devices="2,3")
    applied = apply(second, first)
    assert applied.check() is None
    assert "restarted; the engine is well" in applied.detail
    assert f"its cards: wrote {environment}" in applied.detail
    assert environment.read_text(encoding="utf-8").splitlines()[1:] == [
        "CUDA_DEVICE_ORDER=PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES=2,3",
    ]
    assert "CUDA_VISIBLE_DEVICES=2,3" in (folder / "vllm.yaml").read_text(encoding="utf-8")
    assert (folder / "pid").read_text(encoding="utf-8") != pid
    applied.undo()
    assert applied.check_undo() is None
    assert environment.read_text(encoding="utf-8").endswith("\n# all cards\n")
    environment.write_text("CUDA_VISIBLE_DEVICES=7\n", encoding="utf-8")
    assert applied.check_undo() is not None


def test_an_engine_that_cannot_be_configured_keeps_its_environment(site):
    folder, settings = site
    settings = {**settings, "environment_file": str(folder / "vllm.env"), "restart_command": ["no-such-9"]}
    with pytest.raises(EngineFailed, match="there is no such program"):
        apply(RemoteVllmConfig(**settings, visible_devices="1"))
    assert not (folder / "vllm.env").exists()
