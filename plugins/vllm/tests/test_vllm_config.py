from __future__ import annotations

import json

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stackconf import Accelerator, Because, MigInstance, Problem, Provider, simulate
from stackconf.testing import GIB, machine, no_hardware, stack_with
from stackconf_models import known_model
from stackconf_vllm import plugin
from stackconf_vllm.config import InlineVllmConfig, RemoteVllmConfig

SMALL, LARGE = "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.3-70B-Instruct"
MIB = 1024**2


@pytest.fixture(autouse=True)
def no_models_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))


REMOTE = Provider("inference", "vllm", "remote::vllm")
INLINE = Provider("inference", "vllm", "inline::vllm")


def values(hardware, provider=REMOTE):
    given = plugin.default_config(provider=provider, hardware=hardware) or {}
    return {name: each.value if isinstance(each, Because) else each for name, each in given.items()}


def here(box, model=SMALL, **config):
    """vLLM on this machine, with what the hardware gives."""
    hardware = simulate(box) if isinstance(box, str) else box
    usual = {"config_file": "/etc/vllm.yaml", "restart_command": ["true"], "engine_version": "0.22.1"}
    return RemoteVllmConfig(**{**values(hardware), **usual, "model": model, **config})


def issues(config, **user_config):
    found = plugin.validate_user_config(user_config=user_config, config=config)
    return [(each.level, each.path, f"{each.message}; {each.hint}".removesuffix("; ")) for each in found]


# Upstream's forms


@pytest.mark.parametrize(
    ("block", "address", "token"),
    [
        ({}, None, None),
        (
            {"url": "http://a:1/v1", "max_tokens": "4096", "api_token": "fake", "tls_verify": "true"},
            "http://a:1",
            None,
        ),
        ({"url": None, "refresh_models": True, "tls_verify": "/etc/ca.pem"}, None, None),
        (
            {
                "url": "http://a:1/v1",
                "auth_credential": "k",
                "allowed_models": ["x"],
                "refresh_models": False,
            },
            "http://a:1",
            "k",
        ),
        (
            {
                "base_url": "https://a/v1",
                "api_token": "k",
                "network": {"tls": {"verify": True}, "timeout": 3, "limits": {"max_connections": 3}},
                "fairness_header_attribute": "teams",
            },
            "https://a",
            "k",
        ),
        ({"base_url": ""}, None, None),
    ],
)
def test_every_versions_form_of_the_remote_type_is_accepted(block, address, token):
    config = RemoteVllmConfig(**block)
    assert (config.address, config.token) == (address, token)


def test_upstreams_form_of_the_inline_type_is_accepted_and_has_its_defaults():
    assert InlineVllmConfig(enforce_eager=True, max_tokens=1).max_num_seqs == 4
    config = InlineVllmConfig(tensor_parallel_size=2, **values(simulate("l40s:2"), INLINE))
    assert (config.tensor_parallel_size, config.max_model_len, config.gpu_memory_utilization) == (
        2,
        4096,
        0.3,
    )


def test_inline_with_a_model_is_sized_like_a_server_on_this_machine():
    config = InlineVllmConfig(model=SMALL, **values(simulate("l4:1"), INLINE))
    assert (config.tensor_parallel_size, config.gpu_memory_utilization) == (1, 0.9)
    # (0.9 x 23034 - 15316.5 - 176 - 3584) MiB / 128 KiB = 13232.9
    assert config.max_model_len == 13232 // 16 * 16


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"url": "gpu:8000"}, "write it like http://localhost:8000/v1"),
        ({"url": "http://me:secret-pw@gpu"}, "use api_token"),
        ({"model": "../../etc"}, "not a model's name"),
        ({"model": "/models/llama"}, "a folder into model_path"),
        ({"dtype": "int3"}, "pattern"),
        ({"gpu_memory_utilization": 1.2}, "less than or equal to 1"),
        ({"gpu_memory_utilization": 0}, "greater than 0"),
        ({"max_model_len": 0}, "greater than or equal to 1"),
        ({"engine_version": "latest"}, "not a version of vLLM"),
        ({"config_file": "vllm.yaml"}, "not an absolute path"),
        ({"restart_command": ["true"]}, "set config_file"),
        ({"config_file": "/a", "restart_command": []}, "at least 1"),
        ({"environment_file": "/a"}, "set config_file"),
        ({"config_file": "/a", "environment_file": "/a"}, "name another one"),
        ({"config_file": "/a", "visible_devices": "0; rm"}, "pattern"),
        ({"devices": [{"share": 1.5}]}, "less than or equal to 1"),
        ({"engine_args": {"api_key": "secret-pw"}}, "set VLLM_API_KEY"),
        ({"engine_args": {"max_model_len": 5}}, "max_model_len is a setting of its own"),
        ({"engine_args": {"--port": 5}}, "without leading dashes"),
        ({"devices": [{"count": 0}]}, "greater than or equal to 1"),
        ({"tensor_paralel_size": 2}, "Extra inputs"),
    ],
)
def test_bad_input_is_told_in_one_place_without_a_secret(block, said):
    with pytest.raises(ValidationError, match=said) as refused:
        RemoteVllmConfig(**block)
    assert "secret-pw" not in str(refused.value)


def test_only_addresses_limits_and_sizes_are_the_users():
    users = {
        name
        for name, info in RemoteVllmConfig.model_fields.items()
        if (info.json_schema_extra or {}).get("user_field")
    }
    assert users == {
        *("url", "model", "max_tokens", "tensor_parallel_size", "dtype", "quantization"),
        *("gpu_memory_utilization", "max_model_len", "max_num_seqs", "max_num_batched_tokens"),
    }


# What the hardware gives


def test_equal_cards_stand_together_with_the_reason():
    given = plugin.default_config(provider=REMOTE, hardware=simulate("h100-80gb-sxm:8"))["devices"]
    assert given.reason == "8 x NVIDIA H100 80GB HBM3, 79.6 GiB each"
    assert given.value == [
        {
            "name": "NVIDIA H100 80GB HBM3",
            "count": 8,
            "memory_bytes": 81559 * MIB,
            "compute_capability": "9.0",
        }
    ]


def test_no_accelerator_is_not_an_unknown_one():
    assert values(machine()) == {"devices": []}
    assert plugin.default_config(provider=REMOTE, hardware=no_hardware()) is None
    failed = Problem("acme", "everything", "timeout", "did not answer within 10 s")
    assert plugin.default_config(provider=REMOTE, hardware=evolve(machine(), problems=(failed,))) is None


def test_what_is_free_now_does_not_change_the_sizes():
    card = Accelerator("nvidia", name="NVIDIA L4", memory_bytes=23034 * MIB, compute_capability=(8, 9))
    full = evolve(card, free_bytes=1)
    assert values(machine(accelerators=[card])) == values(machine(accelerators=[full]))


# Golden sizes. MiB: Llama-3.1-8B weighs 15316.5 (8 030 261 248 x 2 bytes), Llama-3.3-70B 134570.5. Beside
# the weights: activations (2048 tokens of the 8B model: 176), NCCL 342 for 2 cards, 3584 other.


@pytest.mark.parametrize(
    ("box", "model", "sizes"),
    [
        # (0.92 x 23034 - 15316.5 - 176 - 3584) / 0.125 = 16918 tokens
        ("l4:1", SMALL, (1, "bfloat16", 0.92, 16912, 256, 2048)),
        # (0.92 x 46068 - 15316.5 - 176 - 3584) / 0.125 = 186449
        ("l40s:2", SMALL, (1, "bfloat16", 0.92, 131072, 256, 2048)),
        # (0.92 x 40960 - 19076.5) / 0.125 = 148854
        ("a100-40gb-sxm:4", SMALL, (1, "bfloat16", 0.92, 131072, 256, 2048)),
        # (0.92 x 81559 - 15316.5 - 704 - 3584) / 0.125 = 443438
        ("h100-80gb-sxm:8", SMALL, (1, "bfloat16", 0.92, 131072, 1024, 8192)),
        # (0.92 x 81559 - 134570.5 / 2 - 832 - 342 - 3584) / 0.15625 = 19140
        ("h100-80gb-sxm:2", LARGE, (2, "bfloat16", 0.92, 19136, 1024, 8192)),
        # (0.92 x 81559 - 134570.5 / 4 - 640 - 392 - 3584) / 0.078125 = 470725
        ("h100-80gb-sxm:8", LARGE, (4, "bfloat16", 0.92, 131072, 1024, 8192)),
    ],
)
def test_sizes_are_what_the_formulas_give(box, model, sizes):
    config = here(box, model)
    assert (
        config.tensor_parallel_size,
        config.dtype,
        config.gpu_memory_utilization,
        config.max_model_len,
        config.max_num_seqs,
        config.max_num_batched_tokens,
    ) == sizes
    assert issues(config) == []
    derived = {"tensor_parallel_size", "dtype", "gpu_memory_utilization", "max_model_len", "max_num_seqs"}
    assert config.stackconf_reasons.keys() == derived | {"max_num_batched_tokens", "url"}


def test_the_reason_of_the_context_is_the_sum_that_was_done():
    told = here("h100-80gb-sxm:2", LARGE).stackconf_reasons
    assert told["max_model_len"] == (
        "KV cache 160 KiB per token; 2.9 GiB left of 0.92 x 79.6 GiB on each of 2 GPUs beside "
        "65.7 GiB weights, 832 MiB activations, 342 MiB NCCL, 3.5 GiB other; "
        "19k tokens, in blocks of 16: 19136"
    )
    all_two = "the fewest of 2 x NVIDIA H100 80GB HBM3 that hold it with the longest context"
    assert told["tensor_parallel_size"] == all_two
    whole = "the fewest of 8 x NVIDIA H100 80GB HBM3 that hold it with its whole context"
    assert here("h100-80gb-sxm:8", LARGE).stackconf_reasons["tensor_parallel_size"] == whole


@pytest.mark.parametrize(
    ("box", "model", "advice"),
    [
        ("t4:1", SMALL, "2 GPUs of this kind would hold 39k tokens; or awq (4 bit) weights, 5.3 GiB"),
        ("t4:1", LARGE, "16 GPUs of this kind would hold 36k tokens"),
        ("l4:1", LARGE, "8 GPUs of this kind would hold 5989 tokens"),
        ("l40s:2", LARGE, "4 GPUs of this kind would hold 59k tokens; or fp8 (8 bit) weights, 67.7 GiB"),
        (
            "a100-40gb-sxm:4",
            LARGE,
            "8 GPUs of this kind would hold 428k tokens; or awq (4 bit) weights, 37 GiB",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_with_what_would_and_no_value(box, model, advice):
    config = here(box, model)
    assert config.max_model_len is None
    assert config.tensor_parallel_size is None
    ((level, path, text),) = issues(config)
    assert (level, path) == ("error", "model")
    assert text.startswith("does not fit: ")
    assert advice in text


def test_a_t4_computes_in_float16():
    assert here("t4:2").dtype == "float16"
    assert "has no bfloat16" in issues(here("t4:2", dtype="bfloat16"))[0][2]


@pytest.mark.parametrize("model", [SMALL, LARGE])
def test_without_a_card_no_size_is_given(model):
    config = here(machine(), model)
    assert (config.max_model_len, config.gpu_memory_utilization) == (None, None)
    assert issues(config) == [
        (
            "warning",
            "model",
            "its sizes are not derived: there is no accelerator, and vLLM's CPU build sizes itself",
        )
    ]


def test_a_server_elsewhere_is_not_sized_by_this_machine():
    config = RemoteVllmConfig(url="http://gpu:8000", model=SMALL, **values(simulate("l4:1")))
    assert (config.devices, config.max_model_len, config.gpu_memory_utilization) == (None, None, None)
    assert issues(config) == []
    unused = RemoteVllmConfig(url="http://gpu:8000", max_model_len=8192)
    assert "set config_file if it runs on this machine" in issues(unused)[0][2]


# What somebody set


def test_what_is_set_stays_and_enters_the_rest():
    config = here("h100-80gb-sxm:8", LARGE, tensor_parallel_size=8)
    assert (config.tensor_parallel_size, config.max_model_len) == (8, 131072)
    less = here("l4:1", gpu_memory_utilization=0.95)
    # (0.95 x 23034 - 19076.5) / 0.125 = 22446
    assert (less.gpu_memory_utilization, less.max_model_len) == (0.95, 22432)
    tokens = here("l4:1", max_num_batched_tokens=8192)
    # activations of 8192 tokens: 704 MiB instead of 176
    assert tokens.max_model_len == (16918 - 528 * 8) // 16 * 16


def test_a_context_that_was_set_decides_over_how_many_cards():
    assert here("h100-80gb-sxm:8", LARGE, max_model_len=65536).tensor_parallel_size == 4
    assert here("h100-80gb-sxm:8", LARGE, max_model_len=16384).tensor_parallel_size == 2


def test_too_long_a_context_is_an_error_with_the_longest_that_fits():
    ((level, path, text),) = issues(here("l4:1", max_model_len=65536))
    assert (level, path) == ("error", "max_model_len")
    assert text.endswith("a context of at most 16912")


def test_an_estimate_only_warns_where_both_sizes_were_set():
    config = here("l4:1", max_model_len=17000, tensor_parallel_size=1)
    assert [level for level, _, _ in issues(config)] == ["warning"]
    assert config.max_model_len == 17000
    sure = here("t4:1", max_model_len=4096, tensor_parallel_size=1)
    assert [level for level, _, _ in issues(sure)] == ["error"]


@pytest.mark.parametrize(
    ("box", "tp", "said"),
    [
        ("l40s:2", 4, "4 GPUs of one kind are wanted, there are at most 2"),
        ("h100-80gb-sxm:8", 3, "32 heads cannot be dealt out to 3"),
    ],
)
def test_a_split_that_cannot_be_is_an_error(box, tp, said):
    ((level, path, text),) = issues(here(box, tensor_parallel_size=tp))
    assert (level, path) == ("error", "tensor_parallel_size")
    assert said in text


def test_instances_of_a_cut_card_share_no_model():
    part = MigInstance(memory_bytes=40 * GIB, profile="3g.40gb")
    card = Accelerator("nvidia", name="H100", compute_capability=(9, 0), mig_enabled=True, mig=[part, part])
    box = machine(accelerators=[card])
    assert here(box).tensor_parallel_size == 1
    assert "there are at most 1 to share a model" in issues(here(box, tensor_parallel_size=2))[0][2]


def test_other_problems_are_told():
    assert (
        "longer than the model's own context" in issues(here("h100-80gb-sxm:8", max_model_len=200_000))[0][2]
    )
    assert "use at least 256" in issues(here("l4:1", max_num_batched_tokens=128))[0][2]
    assert (
        "is not quantised, and vLLM cannot make awq of it" in issues(here("l4:1", quantization="awq"))[0][2]
    )
    assert "what exl9 weights take is not known" in issues(here("l4:1", quantization="exl9"))[0][2]
    assert "is unknown" in issues(here("l4:1", "acme/unheard-of"))[0][2]
    assert "nothing restarts it" in issues(here("l4:1", restart_command=None))[0][2]
    assert "is sized for this machine's cards" in issues(here("l4:1", url="http://gpu-box:8000"))[0][2]
    assert "set model to its name" in issues(here("l4:1", None, model_path="/srv/models/llama"))[0][2]


def test_fp8_halves_the_weights_while_loading():
    config = here("l40s:2", LARGE, quantization="fp8")
    assert config.tensor_parallel_size == 2
    assert issues(config) == []


def test_the_operators_token_does_not_go_where_a_user_says():
    config = RemoteVllmConfig(url="http://mine:1", base_url="http://theirs:2/v1", api_token="k")
    ((level, path, text),) = issues(config, url="http://mine:1")
    assert (level, path) == ("error", "url")
    assert "not for a server that a user names" in text
    same = RemoteVllmConfig(url="http://theirs:2", base_url="http://theirs:2/v1", api_token="k")
    assert issues(same, url="http://theirs:2") == []
    assert issues(RemoteVllmConfig(url="http://operators:1", api_token="k")) == []


@pytest.mark.parametrize(
    ("version", "fraction", "tokens"),
    [("0.19.1", 0.9, 2048), ("0.22", 0.92, 2048), ("0.20", 0.9, 2048), (None, 0.9, 2048)],
)
def test_the_share_of_memory_follows_the_version(version, fraction, tokens):
    config = here("l4:1", engine_version=version)
    assert (config.gpu_memory_utilization, config.max_num_batched_tokens) == (fraction, tokens)


def test_before_chunked_prefill_no_context_is_derived():
    config = here("l4:1", engine_version="0.6.3")
    assert config.max_model_len is None
    assert "the default of vLLM 0.6 is not known" in config.stackconf_reasons["max_model_len"]


def test_unified_memory_gives_no_context_and_says_what_to_do():
    config = here("gb10")
    unsized = "its sizes are not derived: the memory of NVIDIA GB10 is unknown"
    assert config.max_model_len is None
    assert issues(config) == [
        (
            "warning",
            "model",
            f"{unsized}; set devices, with the memory_bytes that vLLM may use",
        )
    ]
    # What CUDA grants of 128 GB in one report; the operator's own figure.
    given = [{"name": "NVIDIA GB10", "memory_bytes": int(119.7 * GIB), "compute_capability": "12.1"}]
    sized = here(machine(), devices=given, gpu_memory_utilization=0.7)
    assert (sized.max_model_len, issues(sized)) == (131_072, [])


@pytest.mark.parametrize(
    ("box", "level", "said"),
    [
        (
            "a100-40gb-sxm:8",
            "warning",
            "FP8 arithmetic needs 8.9; NVIDIA A100-SXM4-40GB lacks it (8.0); vLLM",
        ),
        ("h100-80gb-sxm:8", None, ""),
        ("mi300x:8", None, ""),
    ],
)
def test_weights_stored_in_a_format_that_a_card_lacks_are_told(tmp_path, box, level, said):
    config = {
        "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "max_position_embeddings": 8192,
        "torch_dtype": "bfloat16", "quantization_config": {"quant_method": "fp8"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    index = {"metadata": {"total_size": 9_081_000_000}, "weight_map": {}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    found = [each for each in issues(here(box, model_path=str(tmp_path))) if "arithmetic" in each[2]]
    assert [each[:2] for each in found] == ([] if level is None else [(level, "model")])
    assert all(said in each[2] for each in found)


def test_a_folder_is_served_under_the_models_name():
    config = here("l4:1", model_path="/srv/llama")
    assert config.arguments["model"] == "/srv/llama"
    assert config.arguments["served-model-name"] == SMALL


def test_a_configuration_survives_being_dumped_and_read_again():
    config = here("h100-80gb-sxm:8", LARGE)
    again = RemoteVllmConfig(**config.model_dump())
    assert again.model_dump() == config.model_dump()
    inline = InlineVllmConfig()
    assert InlineVllmConfig(**inline.model_dump()).model_dump() == inline.model_dump()


@settings(max_examples=60, deadline=None)
@given(
    memory=st.integers(8 * 1024, 200 * 1024),
    more=st.integers(0, 100 * 1024),
    count=st.integers(1, 8),
    model=st.sampled_from([SMALL, LARGE, "Qwen/Qwen2.5-7B-Instruct"]),
    fraction=st.none() | st.floats(0.3, 1.0),
)
def test_more_memory_never_gives_a_smaller_context_and_the_heads_are_dealt_out(
    memory, more, count, model, fraction
):
    def sized(mib, **config):
        card = Accelerator("nvidia", name="Acme", memory_bytes=mib * MIB, compute_capability=(9, 0))
        # The batch is set: vLLM's own grows with the card and takes memory from the context.
        usual = {"max_num_batched_tokens": 2048, "gpu_memory_utilization": fraction}
        return here(machine(accelerators=[card] * count), model, **usual, **config)

    small = sized(memory)
    assert fraction is None or small.gpu_memory_utilization == fraction
    if small.tensor_parallel_size is not None:
        assert known_model(model).heads % small.tensor_parallel_size == 0
        assert small.tensor_parallel_size <= count
        large = sized(memory + more, tensor_parallel_size=small.tensor_parallel_size)
        assert large.max_model_len >= small.max_model_len


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ({"config_file": "/etc/v.yaml"}, "where `vllm serve` listens by itself"),
        ({"base_url": "http://gpu:8000/v1"}, "as base_url says"),
    ],
)
def test_an_address_that_nobody_set_has_its_reason(block, reason):
    entry = {"provider_id": "v", "provider_type": "remote::vllm", "config": block}
    with stack_with([plugin], {"inference": [entry]}, hardware=no_hardware()) as stack:
        assert stack.explain("inference/v", "url")[0].reason == reason


def test_a_misspelt_model_is_told_what_it_was_meant_to_be():
    config = here(simulate("l4"), model="meta-lama/Llama-3.1-8B-Instruct")
    assert issues(config)[0][2].endswith("did you mean meta-llama/Llama-3.1-8B-Instruct?")
