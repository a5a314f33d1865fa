"""What can be set, what is said about it, and what the file says then."""

from __future__ import annotations

import pytest
from attrs import evolve
from llama_gguf import llama
from pydantic import ValidationError

from stackconf import Accelerator, Hardware, MigInstance, simulate
from stackconf.testing import machine, no_hardware, stack_with
from stackconf_llama_cpp import plugin
from stackconf_llama_cpp.builds import build_number
from stackconf_llama_cpp.config import LlamaCppServerConfig
from stackconf_llama_cpp.environment import file_text, variables
from stackconf_llama_cpp.machine import as_cards, cards
from stackconf_llama_cpp.validation import issues

GIB = 1024**3
HERE = {"config_file": "/etc/llama.env", "engine_version": "b11434"}
EIGHT = {**HERE, "model": "Llama-3.1-8B-Instruct", "quantization": "Q4_K_M"}
L4 = {"devices": [{"name": "NVIDIA L4", "memory_bytes": 23034 * 1024**2, "compute_capability": "8.9"}]}
BOX = {**L4, "cores": 8, "memory_bytes": 32 * GIB, "memory_limited": False, "swap_bytes": 0}


def told(user=None, **settings):
    return {each.path: each for each in issues(user or {}, LlamaCppServerConfig(**settings))}


def entry(name="llama", **config):
    return {"provider_id": name, "provider_type": "remote::llama-cpp-server", "config": config}


def uuids(hardware):
    named = [evolve(card, uuid=f"GPU-{place}") for place, card in enumerate(hardware.accelerators)]
    return evolve(hardware, accelerators=named)


# --- what it accepts --------------------------------------------------------------------------------


def test_upstreams_own_settings_are_accepted():
    """OGX 1.5 and llama-stack: `base_url` and what every remote provider has."""
    config = LlamaCppServerConfig(
        base_url="http://localhost:8080/v1",
        auth_credential="sk-1",
        allowed_models=["a"],
        refresh_models=True,
        network={"timeout": 3},
    )
    assert (config.address, config.token, config.port) == ("http://localhost:8080", "sk-1", 8080)
    assert LlamaCppServerConfig().address == "http://localhost:8080"
    assert LlamaCppServerConfig(base_url="", url=" ").address == "http://localhost:8080"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"restart_command": ["x"]}, "set config_file"),
        ({"model": "/srv/models/a.gguf"}, "a file into model_path"),
        ({"config_file": "llama.env"}, "not an absolute path"),
        ({"model_path": "/srv/model.safetensors"}, r"loads a \.gguf file"),
        ({"model_path": "/srv/it's.gguf"}, "cannot carry everywhere"),
        ({"engine_version": "0.6"}, "write it like b11434"),
        ({"quantization": "awq"}, "its size is unknown; one of F16"),
        ({"tensor_split": [0, 0]}, "a device must have a share"),
        ({"engine_env": {"LLAMA_API_KEY": "sk"}}, "is a secret and the file is not"),
        ({"engine_env": {"LLAMA_ARG_CTX_SIZE": 1}}, "is a setting of its own"),
        ({"engine_env": {"cache-ram": 1}}, "write it like LLAMA_ARG_PORT"),
        ({"engine_env": {"LLAMA_ARG_X": "a\nB=c"}}, "cannot carry everywhere"),
        ({"engine_env": {"LLAMA_ARG_X": "$HOME"}}, "cannot carry everywhere"),
        ({"cache_type_k": "q3"}, "q8_0"),
        ({"base_url": "localhost:8080"}, "write it like http://localhost:8080/v1"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_write(settings, message):
    with pytest.raises(ValidationError, match=message):
        LlamaCppServerConfig(**settings)


def test_builds_are_read_as_the_server_says_them():
    assert build_number("b11434-stand-in") == 11434
    assert build_number("9439") == 9439
    assert build_number("latest") is None


# --- the machine ----------------------------------------------------------------------------------------


def test_the_hardware_becomes_settings_and_cards_again():
    box = uuids(simulate("rtx-4090,t4:2,cpu=16/32,memory=64GiB"))
    given = {name: each.value for name, each in plugin.default_config(hardware=box).items()}
    assert [(unit["name"], unit["count"]) for unit in given["devices"]] == [
        ("NVIDIA GeForce RTX 4090", 1),
        ("Tesla T4", 2),
    ]
    config = LlamaCppServerConfig(**HERE, **given)
    assert as_cards(config.devices) == cards(box)
    assert (config.cores, config.memory_bytes, config.memory_limited) == (16, 64 * GIB, False)


def test_a_quota_and_a_limit_are_what_the_server_may_use():
    box = machine(cores=16, memory_gib=64, cpu_quota=4, memory_limit_gib=16)
    given = plugin.default_config(hardware=box)
    assert (given["cores"].value, given["memory_bytes"].value) == (4, 16 * GIB)
    assert given["memory_bytes"].reason == "16 GiB, by cgroup v2 memory.max"


def test_unknown_hardware_gives_nothing():
    assert plugin.default_config(hardware=no_hardware()) == {}
    assert cards(no_hardware()) is None
    assert cards(machine()) == ()


def test_of_several_vendors_the_one_with_most_memory_and_of_mig_one_instance():
    mixed = (
        Accelerator("amd", name="A", memory_bytes=GIB),
        Accelerator("nvidia", name="N", memory_bytes=2 * GIB),
    )
    assert [card.name for card in cards(Hardware(accelerators=mixed))] == ["N"]
    parts = (MigInstance(profile="1g.10gb", memory_bytes=10), MigInstance(profile="3g.40gb", memory_bytes=40))
    cut = Accelerator("nvidia", name="H100", mig_enabled=True, mig=parts)
    assert [str(card) for card in cards(Hardware(accelerators=(cut, cut)))] == ["H100 MIG 3g.40gb"]


# --- plans ----------------------------------------------------------------------------------------------


def test_a_plan_shows_each_value_with_its_reason_and_keeps_what_is_set():
    box = simulate("l4,cpu=8/16,memory=32GiB")
    with stack_with([plugin], {"inference": [entry(**EIGHT, ctx_size=16384)]}, hardware=box) as stack:
        context = stack.explain("llama", "ctx_size")[0]
        layers = stack.explain("llama", "n_gpu_layers")[0]
        cores = stack.explain("llama", "cores")[0]
        assert not [each for each in stack.plan().issues if each.level == "error"]
    assert (context.value, context.layer) == (16384, "stack")
    assert (layers.value, layers.layer) == (33, "class")
    assert layers.reason.startswith("all 33 (32 layers and the output) fit on NVIDIA L4")
    assert cores.reason == "8 physical cores, one thread each"


def test_two_servers_share_the_cards_and_see_only_their_own():
    box = uuids(simulate("l40s:2,cpu=32,memory=128GiB"))
    listed = [
        entry("a", **EIGHT),
        entry("b", **{**EIGHT, "config_file": "/etc/b.env", "url": "http://localhost:8081"}),
    ]
    with stack_with([plugin], {"inference": listed}, hardware=box) as stack:
        seen = {
            name: (
                stack.explain(name, "devices")[0].value[0]["uuids"],
                stack.explain(name, "n_gpu_layers")[0].value,
            )
            for name in ("a", "b")
        }
        assert not [each for each in stack.plan().issues if each.level == "error"]
    assert seen == {"a": (["GPU-0"], 33), "b": (["GPU-1"], 33)}


def test_a_server_elsewhere_takes_no_cards_from_one_that_is_here():
    box = uuids(simulate("l40s:2,cpu=32,memory=128GiB"))
    away = {
        "provider_id": "b",
        "provider_type": "remote::llama-cpp-server",
        "config": {"base_url": "http://gpu:1/v1"},
    }
    with stack_with([plugin], {"inference": [entry("a", **EIGHT), away]}, hardware=box) as stack:
        assert stack.explain("a", "devices")[0].value[0]["uuids"] == ["GPU-0", "GPU-1"]
        assert set(stack.shares) == {"inference/a"}


def test_a_shared_card_is_not_filled_twice():
    box = simulate("l40s,cpu=32,memory=128GiB")
    listed = [entry("a", **EIGHT), entry("b", **EIGHT)]
    with stack_with([plugin], {"inference": listed}, hardware=box) as stack:
        taken = [stack.explain(name, "accelerator_bytes")[0].value for name in ("a", "b")]
        assert not [each for each in stack.plan().issues if each.code == "over-claimed"]
    assert sum(taken) < 0.95 * 46068 * 1024**2
    forced = [entry("a", **EIGHT, n_gpu_layers=33, ctx_size=300_000), entry("b", **EIGHT)]
    with stack_with([plugin], {"inference": forced}, hardware=box) as stack:
        assert any("does not fit" in each.message for each in stack.plan().issues)


def test_servers_on_a_card_without_memory_of_its_own_share_main_memory():
    box = simulate("gb10,cpu=20,memory=119GiB")
    with stack_with(
        [plugin], {"inference": [entry("a", **EIGHT), entry("b", **EIGHT)]}, hardware=box
    ) as stack:
        assert stack.explain("a", "devices")[0].reason == "1 x NVIDIA GB10, in 47.5 % of main memory"
        context = stack.explain("b", "ctx_size")[0]
    assert "42.4 GiB of main memory (0.75 x 56.5 GiB)" in context.reason


# --- what is said ---------------------------------------------------------------------------------------


def test_what_does_not_fit_is_an_error_with_what_would():
    found = told(**{**EIGHT, **BOX, "model": "Llama-3.3-70B-Instruct", "quantization": "Q8_0"})["model"]
    assert found.level == "error"
    assert found.message.startswith("does not fit: 69.8 GiB weights")
    assert found.hint.startswith("Q4_K_M weights, ")


@pytest.mark.parametrize(
    ("settings", "path", "level", "words"),
    [
        ({}, "model_path", "warning", "does not say which model to load"),
        ({}, "config_file", "warning", "nothing restarts it"),
        ({"base_url": "http://gpu-box:8080"}, "url", "warning", "is sized for this machine"),
        ({"model": "acme/unheard-of"}, "model", "warning", "its sizes are not derived"),
        ({"ctx_size": 400_000, "parallel": 2}, "ctx_size", "warning", "more than the model's own 131072"),
        ({"ctx_size": 4, "parallel": 8}, "parallel", "error", "8 slots cannot share 4 tokens"),
        ({"ubatch_size": 512, "batch_size": 64}, "ubatch_size", "warning", "512 tokens cannot be computed"),
        ({"cache_type_v": "q8_0", "flash_attn": "off"}, "cache_type_v", "error", "need flash attention"),
        ({"n_gpu_layers": 90}, "n_gpu_layers", "warning", "90 count as 33"),
        ({"n_gpu_layers": 9, "devices": []}, "n_gpu_layers", "warning", "there is no accelerator"),
        ({"tensor_split": [1, 1]}, "tensor_split", "error", "2 shares for 1 device"),
        ({"main_gpu": 3}, "main_gpu", "error", "there is no device 3"),
        ({"threads": 16}, "threads", "warning", "16 threads on 8 usable cores"),
        ({"threads_batch": 6}, "threads_batch", "warning", "takes no variable for it"),
        ({"cache_ram": 99_999}, "cache_ram", "warning", "99999 MiB are more than"),
        (
            {"mlock": True, "devices": [], "memory_bytes": 4 * GIB, "n_gpu_layers": 0},
            "n_gpu_layers",
            "error",
            "not fit",
        ),
    ],
)
def test_what_cannot_work_together_is_said(settings, path, level, words):
    found = told(**{**EIGHT, **BOX, **settings})
    assert found[path].level == level
    assert words in found[path].message
    assert found[path].hint or path == "model"


def test_heads_that_a_quantised_cache_cannot_hold_are_said(tmp_path):
    narrow = {**HERE, **BOX, "model": "tiny", "model_path": str(llama(tmp_path / "t.gguf", heads=16))}
    found = told(**narrow, cache_type_k="q8_0", cache_type_v="f16")
    assert found["cache_type_k"].message == "heads of 16 values are no multiple of its blocks of 32"
    assert "cache_type_v" not in found


def test_a_server_elsewhere_is_not_sized_and_a_size_is_warned_of():
    config = LlamaCppServerConfig(url="http://gpu-box:8080", **BOX, threads=4)
    assert config.devices is None
    assert config.n_gpu_layers is None
    assert config.stackconf_reasons["devices"].startswith("not used")
    assert told(url="http://gpu-box:8080", threads=4)["threads"].level == "warning"
    assert not told(url="http://gpu-box:8080", model="m")


def test_a_credential_is_not_sent_where_a_user_wants():
    found = told(
        {"url": "http://evil:1"}, url="http://evil:1", base_url="http://gpu-box:8080", auth_credential="sk-1"
    )
    assert found["url"].level == "error"
    assert "sk-1" not in str(found["url"])


# --- the file -------------------------------------------------------------------------------------------


def test_cards_are_named_by_their_uuids_so_that_their_order_is_certain():
    units = [{**L4["devices"][0], "count": 2, "uuids": ["GPU-a", "GPU-b"]}]
    named = variables(LlamaCppServerConfig(**{**EIGHT, **BOX, "devices": units}))
    assert named["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    bare = variables(LlamaCppServerConfig(**{**EIGHT, **BOX, "devices": [{**units[0], "uuids": None}]}))
    assert bare["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "CUDA_VISIBLE_DEVICES" not in bare


def test_a_split_is_written_as_shares():
    units = [{**L4["devices"][0], "count": 2}]
    settings = {**EIGHT, **BOX, "devices": units, "quantization": "Q8_0", "ctx_size": 131072}
    named = variables(LlamaCppServerConfig(**settings))
    assert named["LLAMA_ARG_SPLIT_MODE"] == "layer"
    assert sum(map(int, named["LLAMA_ARG_TENSOR_SPLIT"].split(","))) == 33
    assert "LLAMA_ARG_MAIN_GPU" not in named


@pytest.mark.parametrize(
    ("build", "mlock", "no_mmap", "expected"),
    [
        ("b11434", True, False, {"LLAMA_ARG_LOAD_MODE": "mlock"}),
        ("b11434", False, True, {"LLAMA_ARG_LOAD_MODE": "none"}),
        ("b11434", False, False, {"LLAMA_ARG_LOAD_MODE": "mmap"}),
        ("b7079", True, True, {"LLAMA_ARG_MLOCK": "true", "LLAMA_ARG_NO_MMAP": "true"}),
        ("b7079", False, False, {}),
        (None, False, True, {"LLAMA_ARG_LOAD_MODE": "none", "LLAMA_ARG_NO_MMAP": "true"}),
    ],
)
def test_how_the_file_is_loaded_is_said_as_the_build_reads_it(build, mlock, no_mmap, expected):
    settings = {**EIGHT, "engine_version": build, "mlock": mlock, "no_mmap": no_mmap}
    named = variables(LlamaCppServerConfig(**settings))
    loading = ("LLAMA_ARG_LOAD_MODE", "LLAMA_ARG_MLOCK", "LLAMA_ARG_NO_MMAP")
    assert {name: named[name] for name in loading if name in named} == expected


def test_further_variables_and_no_secret_are_in_the_file():
    config = LlamaCppServerConfig(
        **EIGHT,
        auth_credential="sk-1",
        engine_env={"LLAMA_ARG_ENDPOINT_METRICS": True, "LLAMA_ARG_PORT": 9000},
    )
    text = file_text(config)
    assert "LLAMA_ARG_ENDPOINT_METRICS=true\n" in text
    assert "LLAMA_ARG_PORT=9000\n" in text
    assert "sk-1" not in text
    elsewhere = LlamaCppServerConfig(**EIGHT, base_url="https://proxy/llama")
    assert "LLAMA_ARG_PORT" not in file_text(elsewhere)


@pytest.mark.parametrize(("machine", "model", "cards"), [("h100-80gb-sxm:4", "8B", 1), ("l40s:2", "8B", 2)])
def test_only_the_devices_that_hold_some_of_it_are_claimed(machine, model, cards):
    block = {**HERE, "model": f"Llama-3.1-{model}", "quantization": "Q4_K_M"}
    with stack_with([plugin], {"inference": [entry(**block)]}, hardware=simulate(machine)) as stack:
        assert [claim.unit for claim in stack.resolution.claims] == [(card, None) for card in range(cards)]


@pytest.mark.parametrize(
    ("block", "reason"),
    [({}, "where llama-server listens by itself"), ({"base_url": "http://gpu:8080/v1"}, "as base_url says")],
)
def test_an_address_that_nobody_set_has_its_reason(block, reason):
    with stack_with([plugin], {"inference": [entry(**block)]}, hardware=no_hardware()) as stack:
        assert stack.explain("inference/llama", "url")[0].reason == reason
