"""How a model is loaded where its shape is known: from the server's own files, or by its name."""

from __future__ import annotations

import hashlib
import json
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackconf import simulate
from stackconf.hardware.shares import shared_out
from stackconf.testing import GIB, machine, stack_with
from stackconf_models import Device, kv_cache
from stackconf_ollama import plugin
from stackconf_ollama.config import OllamaConfig
from stackconf_ollama.models import BITS, find_model
from stackconf_ollama.sizing import Asked, size

MIB = 1024**2
NOWHERE = "/nowhere/models"


def values(hardware):
    return {name: each.value for name, each in (plugin.default_config(hardware=hardware) or {}).items()}


def on(box, model="llama3.1:8b", **config):
    hardware = simulate(box) if isinstance(box, str) else box
    return OllamaConfig(**{**values(hardware), "model": model, "models_folder": NOWHERE, **config})


def issues(config, **user_config):
    found = plugin.validate_user_config(user_config, config, machine(cores=64))
    return [(each.level, each.path, f"{each.message}; {each.hint}") for each in found]


# What is known of a model


@pytest.mark.parametrize(
    ("model", "published"),
    [
        # The sizes that https://ollama.com/library shows, in units of 10^9 bytes.
        ("llama3.1", 4.9),
        ("llama3.1:70b", 43),
        ("llama3.2", 2.0),
        ("llama3.2:1b", 1.3),
        ("llama3.3", 43),
        ("qwen2.5:1.5b", 0.986),
        ("qwen2.5:7b", 4.7),
        ("qwen2.5:14b", 9.0),
        ("qwen2.5:32b", 20),
        ("gemma2", 5.4),
        ("gemma2:27b", 16),
        ("mistral:7b", 4.4),
        ("mixtral:8x7b", 26),
        ("llama3.1:8b-instruct-q8_0", 8.5),
        ("llama3.1:8b-instruct-fp16", 16),
        ("llama3.1:8b-instruct-q5_K_M", 5.7),
    ],
)
def test_the_estimate_of_a_file_is_the_published_size_within_5_percent(model, published):
    found = find_model(model, NOWHERE)
    assert found.value.weight_bytes == pytest.approx(published * 1e9, rel=0.05)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("llama3.1:405b", "no well-known model"),
        ("acme/llama3.1:8b", "no well-known model"),
        ("hf.co/acme/llama3.1:8b", "no well-known model"),
        ("llama3.1:8b-instruct-iq1_s", "what IQ1_S weights of llama3.1:8b-instruct-iq1_s take is not known"),
        ("../../etc/passwd", "is no name of a model"),
        ("a/b/c/d", "is no name of a model"),
        ("llama3.1:../x", "is no name of a model"),
        (":", "is no name of a model"),
    ],
)
def test_what_is_not_known_is_told(model, said):
    found = find_model(model, NOWHERE)
    assert found.value is None
    assert said in found.reason


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(layers=4, heads=8, width=64, context=8192):
    """A file as llama.cpp writes it, of a model with one tensor of zeros for each layer."""
    facts = {
        "general.architecture": "llama",
        "llama.block_count": layers,
        "llama.embedding_length": width,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": heads,
        "llama.context_length": context,
        "llama.vocab_size": 32000,
    }
    head = b""
    for name, value in facts.items():
        kind = struct.pack("<I", 8) + text(value) if isinstance(value, str) else struct.pack("<II", 4, value)
        head += text(name) + kind
    tensors = [f"blk.{number}.ffn_up.weight" for number in range(layers)]
    for number, name in enumerate(tensors):
        head += text(name) + struct.pack("<IQQIQ", 2, width, width, 0, number * width * width * 4)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts)) + head
    return head + bytes(-len(head) % 32 + layers * width * width * 4)


def store(folder, name="acme", tag="latest", data=None):
    data = gguf() if data is None else data
    digest = hashlib.sha256(data).hexdigest()
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    (folder / "blobs" / f"sha256-{digest}").write_bytes(data)
    manifest = folder / "manifests" / "registry.ollama.ai" / "library" / name / tag
    manifest.parent.mkdir(parents=True, exist_ok=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    other = {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:" + 64 * "0"}
    manifest.write_text(json.dumps({"layers": [other, layer]}), encoding="utf-8")
    return manifest


def test_a_model_that_the_server_has_is_read_from_its_own_file(tmp_path):
    store(tmp_path)
    found = find_model("acme", str(tmp_path))
    assert (found.value.layers, found.value.max_context, found.value.weight_bytes) == (
        4,
        8192,
        4 * 64 * 64 * 4,
    )
    assert found.reason.startswith("acme:latest, 64 KiB, from ")
    # Where servers keep them, by the variables.
    assert find_model("acme", environ={"OLLAMA_MODELS": str(tmp_path)}).value == found.value
    home = tmp_path / "home"
    store(home / ".ollama" / "models", "other", "v1")
    assert find_model("other:v1", environ={"HOME": str(home)}).value.layers == 4
    # Its own file goes before what a well-known model of that name would be.
    store(tmp_path, "llama3.1", "8b")
    assert find_model("llama3.1:8b", str(tmp_path)).value.layers == 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda manifest: manifest.write_text("{", encoding="utf-8"),
        lambda manifest: manifest.write_text("[]", encoding="utf-8"),
        lambda manifest: manifest.write_text('{"layers": [{"mediaType": 5}]}', encoding="utf-8"),
        lambda manifest: manifest.write_text(
            '{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "../../x"}]}',
            encoding="utf-8",
        ),
        lambda manifest: manifest.write_bytes(b"\xff"),
        lambda manifest: [each.unlink() for each in (manifest.parents[4] / "blobs").iterdir()],
        lambda manifest: [each.write_bytes(b"GGUF") for each in (manifest.parents[4] / "blobs").iterdir()],
    ],
)
def test_a_damaged_store_is_no_error_and_the_table_has_to_do(tmp_path, damage):
    damage(store(tmp_path, "llama3.1", "8b"))
    assert find_model("llama3.1:8b", str(tmp_path)).value.layers == 32
    damage(store(tmp_path, "acme"))
    assert find_model("acme", str(tmp_path)).value is None


def test_a_file_that_changed_is_read_again(tmp_path):
    store(tmp_path, data=gguf(layers=4))
    assert find_model("acme", str(tmp_path)).value.layers == 4
    store(tmp_path, data=gguf(layers=6))
    assert find_model("acme", str(tmp_path)).value.layers == 6


# Golden sizes. Llama-3.1-8B as Q4_K_M: 4.58 GiB, 128 KiB a token; Llama-3.3-70B: 40.2 GiB, 320 KiB a token.
# llama.cpp keeps 1 GiB free on each card, and computes in 0.25 GiB there.


@pytest.mark.parametrize(
    ("box", "model", "context"),
    [
        ("t4,memory=32GiB", "llama3.1:8b", 4096),  # Ollama's step below 23 GiB
        ("l4:2,memory=64GiB", "llama3.1:8b", 32768),  # 45 GiB
        ("l40s:2,memory=256GiB", "llama3.1:8b", 131072),  # the step is 262144, the model's own 131072
        # (79.65 - 1 - 40.2 - 0.26) GiB / 320 KiB = 125143, in steps of 256
        ("h100-80gb-sxm,memory=1TiB", "llama3.3", 124928),
        ("h100-80gb-sxm:8,memory=2TiB", "llama3.3", 131072),
        # 1/8 of 16 GiB / 128 KiB = 16384; of 64 GiB / 320 KiB = 26214, the power of two below it
        ("cpu=8,memory=16GiB", "llama3.1:8b", 16384),
        ("cpu=8,memory=64GiB", "llama3.3", 16384),
        # 112 KiB a token, three times as many as of the model of which nothing is known
        ("cpu=8,memory=16GiB", "llama3.2:3b", 16384),
        ("cpu=8,memory=16GiB", "qwen2.5:1.5b", 32768),
    ],
)
def test_the_context_is_what_the_formulas_give(box, model, context):
    config = on(box, model)
    assert config.num_ctx == context
    assert config.num_gpu is None
    assert issues(config) == []


def test_the_reasons_are_sums_that_can_be_checked():
    assert on("h100-80gb-sxm,memory=1TiB", "llama3.3").stackconf_reasons == {
        "num_ctx": "124928 leaves all layers on the cards: shrunk to fit: 40.2 GiB weights, KV cache 320 KiB "
        "per token, 78.6 GiB on 1 device",
        "num_gpu": "not set: the server decides; all 81 layers fit",
    }
    assert on("l40s:2,memory=1TiB").stackconf_reasons["num_ctx"] == (
        "90.0 GiB on 2 visible accelerators: Ollama's step for at least 47 GiB; capped at the model's 131072"
        "; everything fits: 4.6 GiB weights, KV cache 128 KiB per token, 88 GiB on 2 devices"
    )
    assert on("cpu=8,memory=16GiB", "llama3.2:3b").stackconf_reasons["num_ctx"] == (
        "no usable accelerator; KV cache 112 KiB per token: 16384 tokens take 1.8 GiB, of 1/8 of 16 GiB "
        "usable memory = 2 GiB"
    )


def test_requests_at_once_each_have_their_context():
    alone, four = (
        on("l40s,memory=64GiB", "qwen2.5:32b"),
        on("l40s,memory=64GiB", "qwen2.5:32b", num_parallel=4),
    )
    assert alone.num_ctx == 32768
    # (44.99 - 1 - 18.66 - 0.29) GiB / 256 KiB / 4 = 25638, in steps of 256
    assert four.num_ctx == 25600
    assert four.stackconf_reasons["num_ctx"].endswith("on 1 device, for each of 4 requests")


@pytest.mark.parametrize(
    ("version", "context"),
    [
        (None, 131072),
        ("0.15.5", 131072),
        ("v0.17.1-rc1", 131072),
        ("0.15.4", 4096),
        ("0.6.7", 4096),
        ("0.6.6", 2048),
    ],
)
def test_the_servers_own_default_depends_on_its_version(version, context):
    assert on("h100-80gb-sxm,memory=1TiB", engine_version=version).num_ctx == context


@pytest.mark.parametrize(
    ("box", "model", "level", "said"),
    [
        (
            "l4,memory=64GiB",
            "llama3.3",
            "warning",
            "41 of 81 layers fit on the cards, the rest is computed in main memory; 2 such cards would",
        ),
        (
            "l4,memory=16GiB",
            "llama3.3",
            "error",
            "does not fit: 40.2 GiB weights with a context of 4096; 22.5 GiB on cards, 16 GiB main memory",
        ),
        ("cpu=4,memory=16GiB", "llama3.3", "error", "16 GiB main memory; more memory or a smaller model"),
        (
            "cpu=4,memory=16GiB",
            "llama3.1:8b-instruct-fp16",
            "warning",
            "16 GiB main memory; Q8_0 weights, 7.9 GiB, would fit",
        ),
        (
            "t4,memory=32GiB",
            "llama3.1:8b-instruct-fp16",
            "warning",
            "Q8_0 weights, 7.9 GiB, would fit; or 2 such",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_what_would(box, model, level, said):
    ((found, path, words),) = issues(on(box, model))
    assert (found, path) == (level, "model")
    assert said in words


def test_a_context_that_was_set_stays_and_says_what_would_fit():
    config = on("l4,memory=64GiB", num_ctx=262_144)
    assert (config.num_ctx, "num_ctx" in config.stackconf_reasons) == (262_144, False)
    (_, path, words), (_, _, longer) = issues(config, num_ctx=262_144)
    assert path == "num_ctx"
    assert "layers fit on the cards" in words
    # (22.49 - 1 - 4.58 - 0.26) GiB / 128 KiB = 136k, more than the model's own
    assert "a context of at most 131072 leaves all of it on the cards" in words
    assert "longer than the model's own context" in longer
    assert issues(on("l4,memory=64GiB", num_ctx=100_000)) == []


def test_on_a_shared_card_the_layers_are_limited_where_they_do_not_all_fit():
    share = shared_out(simulate("l40s,memory=64GiB"), ["inference/a", "inference/b"])["inference/a"]
    config = on(share.hardware, "llama3.3")
    # (0.475 x 44.99 - 1 - 0.26) GiB hold the output layer and 38 others of 0.5 GiB with their cache
    assert config.num_gpu == 39
    assert config.stackconf_reasons["num_gpu"].startswith("its share of the cards: 39 of 81 layers fit; ")
    small = on(share.hardware)
    assert (small.num_gpu, small.num_ctx) == (None, 4096)
    assert small.devices == [f"1x{int(46068 * 0.475)}MiB shared"]
    set_by_hand = on(share.hardware, "llama3.3", num_gpu=10)
    assert set_by_hand.num_gpu == 10


def test_an_unknown_model_has_what_its_server_would_choose_and_the_reason_says_so():
    config = on("l40s:2,memory=64GiB", "acme")
    assert config.num_ctx == 262_144
    assert config.stackconf_reasons["num_ctx"].endswith(
        "the shape of acme is unknown: no file of it can be read here, and it is no well-known model"
    )
    unified = on("gb10,memory=128GiB")
    assert unified.num_ctx is None
    assert "not set: the memory of a card is unknown" in unified.stackconf_reasons["num_ctx"]


def test_explain_says_why():
    entry = {
        "provider_id": "ollama",
        "provider_type": "remote::ollama",
        "config": {"model": "llama3.1:8b", "models_folder": NOWHERE},
    }
    with stack_with([plugin], {"inference": [entry]}, hardware=simulate("t4,memory=32GiB")) as stack:
        (origin,) = [each for each in stack.explain("ollama", "num_ctx") if each.layer == "class"]
        assert origin.value == 4096
        assert origin.reason.startswith("15.0 GiB on 1 visible accelerator: Ollama's step for below 23 GiB; ")
        assert stack.issues == ()


def test_a_configuration_survives_being_dumped_and_read_again():
    config = on("h100-80gb-sxm,memory=1TiB", "llama3.3")
    assert OllamaConfig(**config.model_dump()).model_dump() == config.model_dump()


@pytest.mark.parametrize(
    "bad",
    [{"devices": ["2x"]}, {"devices": ["0x5MiB"]}, {"models_folder": "here"}, {"engine_version": "new"}],
)
def test_bad_facts_are_refused(bad):
    with pytest.raises(ValueError, match=r"devices|models_folder|engine_version"):
        OllamaConfig(**bad)


MODELS = st.sampled_from(["llama3.1:8b", "llama3.2:1b", "llama3.3", "gemma2:9b", "qwen2.5:14b", "mixtral"])


@given(
    MODELS,
    st.lists(st.integers(2 * 1024, 200 * 1024), max_size=4),
    st.integers(4, 1024),
    st.integers(0, 64 * 1024),
    st.integers(1, 4),
)
def test_what_is_derived_fits_and_more_memory_never_gives_less(model, cards, gib, more, parallel):
    asked = Asked(model, NOWHERE, num_parallel=parallel)
    small, large = (
        size(asked, [Device("Acme", (each + extra) * MIB) for each in cards], gib * GIB)
        for extra in (0, more)
    )
    shape = small.shape
    context = small.values["num_ctx"]
    assert 2048 <= context <= max(4096, shape.max_context)
    if not small.problem and cards:
        taken = shape.weight_bytes + kv_cache(shape, ahead=512).value.size(context * parallel)
        assert taken <= sum(cards) * MIB
    if not small.problem:
        assert not large.problem
        assert large.values["num_ctx"] >= context
    assert small.advice or not small.problem


def test_fewer_bits_are_smaller():
    assert all(one > other for one, other in pairwise(BITS.values()))
