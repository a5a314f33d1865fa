"""What holds for every machine and every model: through the plugin's `default_config` and its class.

Machines and models are generated; a model is a folder with a `config.json`, as on a real disk.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from stackconf import Accelerator, Because, Hardware, MigInstance, Provider
from stackconf.testing import machine
from stackconf_vllm import plugin
from stackconf_vllm.config import SIZES, RemoteVllmConfig

MIB, GIB = 1024**2, 1024**3
FOLDERS = itertools.count()
OFTEN = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@st.composite
def models(draw) -> dict[str, object]:
    """A `config.json`, and the bytes of its weights."""
    kv_heads = draw(st.sampled_from([1, 2, 4, 8]))
    heads = kv_heads * draw(st.sampled_from([1, 2, 4, 7, 8]))
    length = draw(st.sampled_from([64, 128, 256]))
    config: dict[str, object] = {
        "model_type": "llama",
        "num_hidden_layers": draw(st.integers(2, 100)),
        "hidden_size": heads * length,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": length,
        "intermediate_size": draw(st.sampled_from([2048, 14336, 18944])),
        "max_position_embeddings": draw(st.sampled_from([2000, 40960, 131072, 10**7])),
        "vocab_size": 32000,
        "torch_dtype": draw(st.sampled_from(["bfloat16", "float16"])),
    }
    kind = draw(st.sampled_from(["full", "windows", "latent", "mixture", "quantised"]))
    if kind == "windows":
        config |= {"model_type": "gemma2", "sliding_window": 4096}
    elif kind == "latent":
        config |= {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "q_lora_rank": 1536}
    elif kind == "mixture":
        config |= {"num_experts": 64, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
    elif kind == "quantised":
        config |= {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    return config | {"bytes": draw(st.integers(GIB, 60 * GIB) | st.integers(GIB, 400 * GIB))}


def on_disk(disk: Path, model: dict[str, object]) -> str:
    folder = disk / str(next(FOLDERS))
    folder.mkdir()
    config = {key: value for key, value in model.items() if key != "bytes"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    index = {"metadata": {"total_size": model["bytes"]}, "weight_map": {}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return str(folder)


@st.composite
def boxes(draw) -> Hardware:
    """Cards of one or two kinds, perhaps cut up, perhaps of unknown memory."""
    cards: list[Accelerator] = []
    for name in draw(st.sampled_from([("Acme 1",), ("Acme 1", "Acme 2")])):
        memory = draw(st.integers(4 * 1024, 300 * 1024)) if draw(st.integers(0, 9)) else None
        card = Accelerator(
            "nvidia",
            name=name,
            memory_bytes=None if memory is None else memory * MIB,
            compute_capability=draw(st.sampled_from([(7, 5), (8, 0), (8, 9), (9, 0), (10, 0)])),
        )
        if memory is not None and draw(st.integers(0, 5)) == 0:
            card = evolve(card, mig_enabled=True, mig=[MigInstance(memory_bytes=memory * MIB // 4)] * 4)
        cards += [card] * draw(st.integers(1, 8))
    return machine(accelerators=cards)


# The batch is set: vLLM's own grows at 70 GiB, and takes a little from the context there.
asked = st.fixed_dictionaries(
    {"max_num_batched_tokens": st.sampled_from([2048, 8192]), "max_num_seqs": st.just(256)},
    optional={
        "tensor_parallel_size": st.sampled_from([1, 2, 4]),
        "gpu_memory_utilization": st.floats(0.2, 1.0),
        "max_model_len": st.integers(1, 20_000),
        "dtype": st.sampled_from(["float16", "bfloat16", "auto"]),
        "engine_version": st.sampled_from(["0.12.0", "0.22.1"]),
    },
)


def configured(box: Hardware, path: str, **config: object) -> RemoteVllmConfig:
    provider = Provider("inference", "vllm", "remote::vllm")
    given = plugin.default_config(provider=provider, hardware=box) or {}
    values = {name: each.value if isinstance(each, Because) else each for name, each in given.items()}
    usual = {"config_file": "/etc/vllm.yaml", "restart_command": ["true"], "model": "acme/model"}
    return RemoteVllmConfig(**values, **usual, model_path=path, **config)


@OFTEN
@given(model=models(), box=boxes(), config=asked)
def test_what_is_set_stays_and_every_other_size_has_a_reason(disk, model, box, config):
    found = configured(box, on_disk(disk, model), **config)
    for name, value in config.items():
        assert getattr(found, name) == value
    for name in SIZES:
        reason = found.stackconf_reasons.get(name)
        assert (name in config) == (reason is None), name
        assert reason is None or (reason and "None" not in reason)
    issues = plugin.validate_user_config(user_config=config, config=found)
    if found.max_model_len is None:
        assert issues, "nothing is missing without a word"


@OFTEN
@given(model=models(), box=boxes(), config=asked)
def test_no_card_is_oversubscribed_and_the_heads_are_dealt_out(disk, model, box, config):
    found = configured(box, on_disk(disk, model), **config)
    answer = found.told.fit
    if answer is None or not answer.fits:
        return
    shape, tp = found.told.shape, found.tensor_parallel_size
    assert answer.tp == tp
    assert 0 < found.gpu_memory_utilization <= 1
    used = answer.need.total + answer.cache.size(found.max_model_len)
    assert used <= found.gpu_memory_utilization * answer.device.memory_bytes
    assert shape.heads % tp == 0
    assert shape.kv_heads % tp == 0 or tp % shape.kv_heads == 0
    alike = [unit for unit in found.devices if (unit.name, unit.capability) == answer.device.kind[1:]]
    assert sum(1 if unit.part_of_card else unit.count for unit in alike) >= tp
    assert found.max_model_len <= shape.max_context or "max_model_len" in config


@OFTEN
@given(
    model=models(),
    memory=st.integers(4 * 1024, 300 * 1024),
    capability=st.sampled_from([(8, 0), (9, 0), (10, 0)]),
    count=st.integers(1, 8),
    more=st.integers(0, 100 * 1024),
    further=st.integers(0, 4),
    config=asked,
)
def test_neither_memory_nor_cards_more_give_a_shorter_context(
    disk, model, memory, capability, count, more, further, config
):
    config = {name: value for name, value in config.items() if name != "max_model_len"}
    path = on_disk(disk, model)

    def context(mib: int, cards: int) -> int:
        card = Accelerator("nvidia", name="Acme", memory_bytes=mib * MIB, compute_capability=capability)
        return configured(machine(accelerators=[card] * cards), path, **config).max_model_len or 0

    assert context(memory + more, count + further) >= context(memory, count)


@OFTEN
@given(model=models(), memory=st.integers(8 * 1024, 300 * 1024), share=st.floats(0.2, 0.9))
def test_a_larger_share_never_gives_a_shorter_context(disk, model, memory, share):
    path = on_disk(disk, model)
    card = Accelerator("nvidia", name="Acme", memory_bytes=memory * MIB, compute_capability=(9, 0))
    box = machine(accelerators=[card] * 4)
    small, large = (
        configured(box, path, gpu_memory_utilization=part, max_num_batched_tokens=2048).max_model_len or 0
        for part in (share, share + 0.1)
    )
    assert large >= small


@pytest.mark.parametrize(("mib", "batch"), [(70 * 1024 - 1, 2048), (70 * 1024, 8192)])
def test_at_70_gib_vllms_own_batch_grows_and_costs_its_activations(disk, mib, batch):
    """The one step where a little more memory leaves less: vLLM's default there, not a choice here."""
    model = {
        "model_type": "llama", "num_hidden_layers": 80, "hidden_size": 8192, "num_attention_heads": 64,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 28672, "vocab_size": 128256,
        "max_position_embeddings": 131072, "torch_dtype": "bfloat16", "bytes": 141_107_412_992,
    }  # fmt: skip
    card = Accelerator("nvidia", name="Acme", memory_bytes=mib * MIB, compute_capability=(9, 0))
    path = on_disk(disk, model)
    found = configured(machine(accelerators=[card] * 4), path, engine_version="0.22.1")
    assert found.max_num_batched_tokens == batch
    assert found.told.fit.need.activations == 2 * batch * 8192 * 5
