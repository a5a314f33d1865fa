from __future__ import annotations

import json
import os
import random
import resource
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models_kit import LLAMA_8B, MIB, TINY, TINY_TENSORS, folder, gguf, safetensors

from stackconf.testing import fresh_process
from stackconf_models import (
    Experts,
    FullAttention,
    LatentAttention,
    ModelShape,
    ModelUnreadable,
    NoCache,
    OtherAttention,
    Quantisation,
    SlidingWindow,
    cached_model,
    find_model,
    known_model,
    known_models,
    nearest_model,
    parameters,
    read_folder,
    read_gguf,
)
from stackconf_models.memory import computed_parameters


def one_line(said: str) -> None:
    assert len(said.splitlines()) == 1
    assert len(said) < 1000


# --- a folder --------------------------------------------------------------------------------------


def test_a_folder_gives_the_shape_and_where_it_is_from(tmp_path):
    shape = read_folder(folder(tmp_path / "Llama-3.1-8B", total_size=16_060_522_496))
    assert (shape.name, shape.source) == ("Llama-3.1-8B", str(tmp_path / "Llama-3.1-8B" / "config.json"))
    assert (shape.layers, shape.hidden_size, shape.heads, shape.kv_heads, shape.head_dim) == (
        32,
        4096,
        32,
        8,
        128,
    )
    assert (shape.vocabulary, shape.max_context, shape.intermediate_size) == (128256, 131072, 14336)
    assert (shape.weight_bytes, shape.dtype, shape.tied_embeddings) == (16_060_522_496, "bfloat16", False)
    assert (shape.attention, shape.experts, shape.quantisation, shape.problems) == (
        FullAttention(),
        None,
        None,
        (),
    )


def test_the_model_in_the_table_is_the_one_in_the_folder(tmp_path):
    read, known = read_folder(folder(tmp_path, total_size=16_060_522_496)), known_model("Llama-3.1-8B")
    for name in ("layers", "hidden_size", "heads", "kv_heads", "head_dim", "vocabulary", "max_context",
                 "intermediate_size", "attention", "dtype", "tied_embeddings"):  # fmt: skip
        assert getattr(read, name) == getattr(known, name), name


def test_the_text_model_of_a_larger_one_is_what_is_described(tmp_path):
    config = {"model_type": "llava", "torch_dtype": "bfloat16", "vision_config": {"num_layers": 3},
              "text_config": {**LLAMA_8B, "torch_dtype": None}}  # fmt: skip
    shape = read_folder(folder(tmp_path, config))
    assert (shape.layers, shape.architecture, shape.dtype) == (32, "llama", "bfloat16")


@pytest.mark.parametrize(
    ("changes", "attention"),
    [
        ({"model_type": "mistral", "sliding_window": 4096}, SlidingWindow(4096, 32)),
        ({"model_type": "mistral", "sliding_window": None}, FullAttention()),
        ({"model_type": "qwen2", "sliding_window": 131072, "use_sliding_window": False}, FullAttention()),
        (
            {"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": True,
             "max_window_layers": 28},
            SlidingWindow(4096, 4),
        ),
        ({"model_type": "gemma2", "num_hidden_layers": 42, "sliding_window": 4096}, SlidingWindow(4096, 21)),
        (
            {"model_type": "gemma3_text", "num_hidden_layers": 34, "sliding_window": 1024},
            SlidingWindow(1024, 29),
        ),
        (
            {"layer_types": ["sliding_attention", "full_attention"] * 16, "sliding_window": 128},
            SlidingWindow(128, 16),
        ),
        ({"layer_types": ["full_attention"] * 32}, FullAttention()),
        (
            {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
             "v_head_dim": 128},
            LatentAttention(512, 64, 1536, 128, 128),
        ),
        ({"model_type": "bert"}, NoCache()),
    ],
)  # fmt: skip
def test_the_kind_of_attention(tmp_path, changes, attention):
    assert read_folder(folder(tmp_path, **changes)).attention == attention


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"layer_types": ["linear_attention", "full_attention"] * 16}, "linear_attention"),
        ({"layer_types": ["full_attention"] * 3}, "3 entries"),
        ({"layer_types": ["sliding_attention"] * 32}, "unknown size"),
        ({"model_type": "jamba"}, "keep a state"),
        ({"mamba_d_state": 16}, "mamba_d_state"),
        ({"attention_chunk_size": 8192}, "chunked"),
        ({"is_encoder_decoder": True}, "an encoder with a decoder"),
        ({"num_kv_shared_layers": 15}, "of others"),
        ({"global_head_dim": 512}, "different length"),
        ({"kv_lora_rank": 512}, "qk_rope_head_dim"),
    ],
)
def test_attention_that_no_formula_covers_says_so(tmp_path, changes, reason):
    attention = read_folder(folder(tmp_path, **changes)).attention
    assert isinstance(attention, OtherAttention)
    assert reason in attention.reason


@pytest.mark.parametrize(
    ("config", "quantisation"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, Quantisation("awq", 4, 128)),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, Quantisation("gptq", 8)),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, Quantisation("fp8", 8, 128)),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, Quantisation("bitsandbytes", 4)),
        ({"quant_method": "mxfp4"}, Quantisation("mxfp4", 4)),
        (
            {"quant_method": "compressed-tensors",
             "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 128}}}},
            Quantisation("int4", 4, 128),
        ),
        ({"quant_method": "compressed-tensors"}, Quantisation("compressed-tensors")),
        ({"quant_method": "new-one"}, Quantisation("new_one")),
    ],
)  # fmt: skip
def test_the_quantisation(tmp_path, config, quantisation):
    assert read_folder(folder(tmp_path, quantization_config=config)).quantisation == quantisation


def test_the_quantisation_that_modelopt_writes_beside_it(tmp_path):
    path = folder(tmp_path)
    inner = {"quantization": {"quant_algo": "NVFP4", "group_size": 16}}
    (path / "hf_quant_config.json").write_text(json.dumps(inner), encoding="utf-8")
    assert read_folder(path).quantisation == Quantisation("nvfp4", 4, 16)


@pytest.mark.parametrize(
    ("changes", "longest"),
    [
        ({}, 131072),  # llama3's factor is counted in
        ({"rope_scaling": None, "max_position_embeddings": 4096}, 4096),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}, "max_position_embeddings": 4096}, 8192),
        (
            {"rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}},
            163840,
        ),  # DeepSeek-V3's
        ({"rope_scaling": {"type": "linear", "factor": 8.0}, "model_type": "gemma3_text"}, 131072),
        ({"rope_scaling": {"type": "linear", "factor": 1e300}}, 131072),
    ],
)
def test_the_longest_context(tmp_path, changes, longest):
    assert read_folder(folder(tmp_path, **changes)).max_context == longest


def test_older_names_and_what_transformers_assumes(tmp_path):
    gpt2 = {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024}
    shape = read_folder(folder(tmp_path, gpt2))
    assert (shape.layers, shape.heads, shape.kv_heads, shape.head_dim, shape.max_context) == (
        12,
        12,
        12,
        64,
        1024,
    )
    assert read_folder(folder(tmp_path, {**gpt2, "multi_query": True})).kv_heads == 1


def test_experts(tmp_path):
    shape = read_folder(folder(tmp_path, num_local_experts=8, num_experts_per_tok=2))
    assert shape.experts == Experts(8, 2)


def test_the_weights_are_measured_where_there_is_no_index(tmp_path):
    path = folder(tmp_path)
    safetensors(path / "model-00001-of-00002.safetensors", 1000)
    safetensors(path / "model-00002-of-00002.safetensors", 500)
    safetensors(path / "consolidated.safetensors", 1500)  # the same once more, in Mistral's own layout
    assert read_folder(path).weight_bytes == 1500


def test_weights_that_are_not_there_are_unknown_with_a_reason(tmp_path):
    shape = read_folder(folder(tmp_path))
    assert shape.weight_bytes is None
    assert "holds no weights" in shape.problems[0]


def test_an_index_that_does_not_say_the_size_is_told_and_the_files_measured(tmp_path):
    path = folder(tmp_path)
    (path / "model.safetensors.index.json").write_text("{", encoding="utf-8")
    safetensors(path / "model.safetensors", 10)
    shape = read_folder(path)
    assert shape.weight_bytes == 10
    assert "does not say their total_size" in shape.problems[0]


@pytest.mark.parametrize("first", [True, False])
def test_the_size_in_a_large_index_is_found_at_either_end(tmp_path, first):
    names = {f"model.layers.{n}.weight": "model-00001-of-00001.safetensors" for n in range(5000)}
    parts = [("metadata", {"total_size": 123}), ("weight_map", names)]
    index = dict(parts if first else reversed(parts))
    path = folder(tmp_path)
    (path / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    assert read_folder(path).weight_bytes == 123


def test_a_safetensors_file_that_was_cut_off_is_not_measured(tmp_path):
    path = folder(tmp_path)
    (path / "model.safetensors").write_bytes((2**40).to_bytes(8, "little"))
    shape = read_folder(path)
    assert shape.weight_bytes is None
    assert "was cut off" in shape.problems[0]


BAD_CONFIGS = {
    "empty": b"",
    "no JSON": b"{'a': 1}",
    "a list": b"[]",
    "deep": b"[" * 200_000,
    "no layers": b"{}",
    "digits": b'{"num_hidden_layers": ' + b"9" * 10_000 + b"}",
    "wrong types": b'{"num_hidden_layers": true, "hidden_size": "many"}',
    "negative": b'{"num_hidden_layers": -5, "hidden_size": 1e400}',
    "no UTF-8": b"\xff\xfe{}\x00",
    "huge": b'{"a": "' + b"x" * 5 * MIB + b'"}',
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_a_bad_config_is_one_clear_line(tmp_path, name):
    (tmp_path / "config.json").write_bytes(BAD_CONFIGS[name])
    with pytest.raises(ModelUnreadable) as raised:
        read_folder(tmp_path)
    said = str(raised.value)
    assert said.startswith(f"{tmp_path / 'config.json'}: ")
    assert len(said.splitlines()) == 1
    assert len(said) < 300 + len(str(tmp_path))


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ModelUnreadable, match="is not a regular file"):
        read_folder(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
config_keys = st.sampled_from(
    [*LLAMA_8B, "text_config", "layer_types", "sliding_window", "quantization_config", "kv_lora_rank",
     "num_experts", "rope_parameters", "head_dim", "max_window_layers", "use_sliding_window"]
)  # fmt: skip


@settings(deadline=None)
@given(changes=st.dictionaries(config_keys, json_values, max_size=4))
def test_any_value_anywhere_gives_a_shape_or_one_line(tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("any")
    (path / "config.json").write_text(json.dumps({**LLAMA_8B, **changes}), encoding="utf-8")
    try:
        shape = read_folder(path)
    except ModelUnreadable as error:
        one_line(str(error))
    else:
        for size in (shape.layers, shape.hidden_size, shape.heads, shape.kv_heads, shape.head_dim):
            assert size is None or (isinstance(size, int) and size > 0)


# --- a GGUF file -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "order"), [(2, "<"), (3, "<"), (3, ">")])
def test_a_gguf_header_gives_the_shape(tmp_path, version, order):
    shape = read_gguf(gguf(tmp_path / "tiny.gguf", TINY, TINY_TENSORS, version=version, order=order))
    assert (shape.name, shape.architecture, shape.layers, shape.hidden_size) == ("Tiny", "llama", 2, 256)
    assert (shape.heads, shape.kv_heads, shape.head_dim, shape.max_context) == (8, 2, 32, 8192)
    assert (shape.vocabulary, shape.intermediate_size, shape.tied_embeddings) == (3, 512, False)
    first = 256 * 256 // 256 * 144 + 256 * 512 // 256 * 210
    assert shape.layer_bytes == (first, 256 * 256 // 256 * 144)
    assert shape.weight_bytes == sum(shape.layer_bytes) + 256 * 3 * 4 + 3 * 210
    assert shape.parameters == 256 * (3 + 256 + 512 + 256 + 3)
    assert str(shape.quantisation) == "Q4_K_M"


def test_a_gguf_split_in_parts_is_read_whole(tmp_path):
    names = list(TINY_TENSORS)
    parts = [{name: TINY_TENSORS[name] for name in half} for half in (names[:3], names[3:])]
    first = gguf(tmp_path / "m-00001-of-00002.gguf", TINY, parts[0])
    with pytest.raises(ModelUnreadable, match=r"1 of its 2 parts are missing, first m-00002-of-00002\.gguf"):
        read_gguf(first)
    second = gguf(tmp_path / "m-00002-of-00002.gguf", {"split.no": 1}, parts[1])
    assert read_gguf(first) == read_gguf(second)
    alone = read_gguf(gguf(tmp_path / "whole.gguf", TINY, TINY_TENSORS))
    assert read_gguf(first).weight_bytes == alone.weight_bytes


@pytest.mark.parametrize(
    ("changes", "attention"),
    [
        ({"gemma3.attention.sliding_window": 1024}, SlidingWindow(1024, 5)),
        (
            {"gemma3.attention.sliding_window": 1024,
             "gemma3.attention.sliding_window_pattern": [True, True, False, True, True, False]},
            SlidingWindow(1024, 4),
        ),
        ({"gemma3.attention.kv_lora_rank": 512, "gemma3.rope.dimension_count": 64}, LatentAttention(512, 64)),
        ({"gemma3.attention.causal": False}, NoCache()),
    ],
)  # fmt: skip
def test_the_kind_of_attention_in_a_gguf(tmp_path, changes, attention):
    tiny = {**{key.replace("llama.", "gemma3."): value for key, value in TINY.items()}, **changes}
    tiny |= {"general.architecture": "gemma3", "gemma3.block_count": 6}
    assert read_gguf(gguf(tmp_path / "a.gguf", tiny, {})).attention == attention


@pytest.mark.parametrize(
    "changes",
    [
        {"llama.ssm.state_size": 16},
        {"llama.shortconv.l_cache": 3},
        {"llama.attention.shared_kv_layers": 1},
        {"llama.attention.key_length_swa": 128},
        {"llama.attention.head_count_kv": [0, 2]},
        {"llama.attention.sliding_window": 4096},
    ],
)
def test_a_gguf_whose_cache_no_formula_covers_says_so(tmp_path, changes):
    shape = read_gguf(gguf(tmp_path / "a.gguf", {**TINY, **changes}, TINY_TENSORS))
    assert isinstance(shape.attention, OtherAttention)


def test_a_download_that_was_cut_off_is_told(tmp_path):
    with pytest.raises(ModelUnreadable, match=r"is cut off: .* bytes are there; download it again"):
        read_gguf(gguf(tmp_path / "tiny.gguf", TINY, TINY_TENSORS, data=10))


def test_every_cut_of_a_header_is_one_line(tmp_path):
    whole = gguf(tmp_path / "tiny.gguf", TINY, TINY_TENSORS).read_bytes()
    for length in range(0, 600, 7):
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        with pytest.raises(ModelUnreadable) as raised:
            read_gguf(tmp_path / "cut.gguf")
        assert len(str(raised.value).splitlines()) == 1


def test_a_header_with_bytes_changed_at_random_gives_a_shape_or_one_line(tmp_path):
    whole = gguf(tmp_path / "tiny.gguf", TINY, TINY_TENSORS).read_bytes()
    chance = random.Random(20)
    outcomes = set()
    for _ in range(600):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(700)] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        (tmp_path / "bad.gguf").write_bytes(damaged)
        try:
            outcomes.add(type(read_gguf(tmp_path / "bad.gguf")))
        except ModelUnreadable as error:
            outcomes.add(ModelUnreadable)
            one_line(str(error))
    assert outcomes == {ModelShape, ModelUnreadable}


def hostile(path: Path, after: bytes, size: int = 2**40) -> Path:
    """A sparse file of a terabyte that begins like a GGUF."""
    path.write_bytes(b"GGUF" + after)
    os.truncate(path, size)
    return path


def counts(tensors: int, entries: int) -> bytes:
    return (3).to_bytes(4, "little") + tensors.to_bytes(8, "little") + entries.to_bytes(8, "little")


def number(value: int, width: int) -> bytes:
    return value.to_bytes(width, "little")


KEY = number(1, 8) + b"k"
HOSTILE = {
    "entries": counts(0, 2**60),
    "tensors": counts(2**60, 0),
    "key": counts(0, 1) + number(2**50, 8),
    "text": counts(0, 1) + KEY + number(8, 4) + number(2**39, 8),
    "words": counts(0, 1) + KEY + number(9, 4) + number(8, 4) + number(2**50, 8),
    "empty words": counts(0, 1) + KEY + number(9, 4) + number(8, 4) + number(1_999_999, 8) + b"",
    "numbers": counts(0, 1) + KEY + number(9, 4) + number(4, 4) + number(2**37, 8),
    "arrays in arrays": counts(0, 1) + KEY + number(9, 4) + number(9, 4) + number(1, 8),
    "dimensions": counts(1, 0) + KEY + number(2**31, 4),
    "tensor": counts(1, 0) + KEY + number(4, 4) + number(2**63, 8) * 4,
    "version": number(77, 4) + number(0, 16),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_costs_neither_time_nor_memory(tmp_path, name):
    path = hostile(tmp_path / "hostile.gguf", HOSTILE[name])
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(ModelUnreadable) as raised:
        read_gguf(path)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert len(str(raised.value).splitlines()) == 1
    assert after.ru_maxrss - before.ru_maxrss < 64 * 1024  # KiB
    assert after.ru_utime - before.ru_utime < 10


def test_a_real_vocabulary_is_passed_over_quickly(tmp_path):
    words = [f"word{n}" for n in range(262_144)]
    path = gguf(tmp_path / "large.gguf", {**TINY, "tokenizer.ggml.tokens": words}, TINY_TENSORS)
    started = time.process_time()
    assert read_gguf(path).vocabulary == 262_144
    assert time.process_time() - started < 2


# --- the cache, the table, and all of them -----------------------------------------------------------


def cached(home: Path, name: str, commit: str = "0e9e39f249a16976918f6564b8830bc894c89659") -> Path:
    place = home / "hub" / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit, encoding="utf-8")
    return folder(place / "snapshots" / commit, total_size=1000)


def test_a_downloaded_model_is_found_by_its_name(tmp_path):
    path = cached(tmp_path, "acme/fine-tune")
    environ = {"HF_HOME": str(tmp_path)}
    assert cached_model("acme/fine-tune", environ=environ) == path
    assert cached_model("acme/fine-tune", path.name, environ=environ) == path
    found = find_model("acme/fine-tune", environ=environ)
    assert (found.value.name, found.value.weight_bytes) == ("acme/fine-tune", 1000)
    assert found.reason == f"fine-tune: 32 layers, 8 KV heads of 128, from {path / 'config.json'}"


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HOME": "/home/me"}, "/home/me/.cache/huggingface/hub"),
        ({"HF_HOME": "~/hf", "HOME": "/home/me"}, "/home/me/hf/hub"),
    ],
)
def test_where_the_cache_is(environ, place):
    assert f"it is not in {place}," in find_model("acme/nothing", environ=environ).reason


@pytest.mark.parametrize(
    "name", ["../../etc", "a/../b", "a/b/c", "", "/etc/passwd/..", "a\0b", "x" * 5000, "~nobody-here/x"]
)
def test_a_strange_name_leads_nowhere(tmp_path, name):
    assert cached_model(name, environ={"HF_HOME": str(tmp_path)}) is None
    assert find_model(name, environ={"HF_HOME": str(tmp_path)}).value is None


def test_a_reference_that_leads_out_of_the_cache_is_not_followed(tmp_path):
    path = cached(tmp_path, "acme/x")
    folder(tmp_path / "outside")
    leads_out = "../../../outside"
    assert (path.parent / leads_out / "config.json").is_file()
    (path.parents[1] / "refs" / "main").write_text(leads_out, encoding="utf-8")
    assert cached_model("acme/x", environ={"HF_HOME": str(tmp_path)}) is None


def test_a_bad_file_in_the_cache_is_told_and_not_replaced_by_the_table(tmp_path):
    path = cached(tmp_path, "meta-llama/Llama-3.1-8B")
    (path / "config.json").write_text("{", encoding="utf-8")
    found = find_model("meta-llama/Llama-3.1-8B", environ={"HF_HOME": str(tmp_path)})
    assert found.value is None
    assert "is not JSON" in found.reason


def test_paths_are_found_too(tmp_path):
    path = gguf(tmp_path / "Tiny.GGUF", TINY, TINY_TENSORS)
    assert find_model(str(path)).value.name == "Tiny"
    assert find_model(str(folder(tmp_path / "f"))).value.name == "f"
    assert find_model(str(tmp_path / "nothing")).reason == f"{tmp_path / 'nothing'}: there is no such folder"
    assert "cannot be read" in find_model(str(tmp_path / "nothing.gguf")).reason


@pytest.mark.parametrize("name", known_models())
def test_the_table_agrees_with_itself(name):
    """Layers, sizes, heads and vocabulary give the published number of parameters.

    What is left is norms, biases, positions and poolers: below 0.1 %, in small encoders more. A
    single wrong figure moves it by far more.
    """
    shape = known_model(name)
    assert shape.head_dim * shape.heads >= shape.hidden_size // 2
    computed = computed_parameters(shape)
    if isinstance(shape.attention, NoCache):
        gates = 3 if shape.architecture == "nomic_bert" else 2
        each = 4 * shape.hidden_size**2 + gates * shape.hidden_size * shape.intermediate_size
        computed = shape.vocabulary * shape.hidden_size + shape.layers * each
        assert computed == pytest.approx(shape.parameters, rel=0.02)
    else:
        assert computed == pytest.approx(shape.parameters, rel=0.001)
    assert parameters(shape).value == shape.parameters


def test_the_table_knows_the_names_people_use():
    for name in ("meta-llama/Meta-Llama-3.1-8B-Instruct", "META-LLAMA/LLAMA-3.1-8B", " Qwen2.5-7B-Instruct "):
        assert known_model(name) is not None


def test_reading_shapes_imports_nothing_heavy():
    done = fresh_process("import sys, stackconf_models; print(len(sys.modules), 'pydantic' in sys.modules)")
    assert done.stdout.split()[1] == "False"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("meta-lama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("Llama3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("qwen/Qwen2.5-7B-Intsruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen/Qwen2.5-3B-Instruct", None),  # another size, not a misspelling
        ("meta-llama/Llama-3-8B-Instruct", None),
        ("acme/my-own", None),
        ("x" * 10_000, None),
    ],
)
def test_only_a_misspelling_of_a_well_known_model_is_told(name, meant):
    assert nearest_model(name) == meant
