from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from stackconf import Accelerator, Because, MigInstance, ProviderType, hookimpl, simulate, user_field
from stackconf.testing import GIB, fresh_process, machine, no_hardware, stack_with
from stackconf_models import ModelUnreadable
from stackconf_sentence_transformers import plugin
from stackconf_sentence_transformers.config import SentenceTransformersConfig
from stackconf_sentence_transformers.known import known_embedding_model, known_embedding_models
from stackconf_sentence_transformers.models import (
    find_embedding_model,
    read_embedding_folder,
    values_per_token,
)
from stackconf_sentence_transformers.running import MISSING, targets
from stackconf_sentence_transformers.sizing import MOST_TOKENS

MINI, BASE, QWEN = "all-MiniLM-L6-v2", "BAAI/bge-base-en-v1.5", "Qwen/Qwen3-Embedding-0.6B"
MIB = 1024**2
TYPE = "inline::sentence-transformers"


@pytest.fixture(autouse=True)
def no_models_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def given_by(hardware):
    given = plugin.default_config(hardware=hardware) or {}
    return {name: each.value if isinstance(each, Because) else each for name, each in given.items()}


def on(box, model=MINI, **config):
    hardware = simulate(box) if isinstance(box, str) else box
    return SentenceTransformersConfig(**{**given_by(hardware), "model": model, **config})


def issues(config):
    found = plugin.validate_user_config(config=config)
    return [(each.level, each.path, f"{each.message}; {each.hint}".removesuffix("; ")) for each in found]


def card(**facts):
    usual = {"index": 0, "ordinal": 0, "memory_bytes": 24 * GIB, "compute_capability": (8, 9), "name": "Card"}
    return Accelerator("nvidia", **{**usual, **facts})


# Upstream's forms


@pytest.mark.parametrize("block", [{}, {"trust_remote_code": False}, {"trust_remote_code": "true"}])
def test_every_versions_form_is_accepted(block):
    config = SentenceTransformersConfig(**block)
    assert (config.source, config.batch_size, config.device, config.processes) == (None, 32, None, 1)
    assert issues(config) == []


def test_variables_that_are_not_set_are_as_if_nothing_was_given():
    config = SentenceTransformersConfig(model="", device=" ", dtype="", batch_size="", threads="4")
    assert (config.model, config.device, config.batch_size, config.threads) == (None, None, 32, 4)


@pytest.mark.parametrize(
    "bad",
    [
        {"device": "gpu"},
        {"device": "cuda:x"},
        {"dtype": "int8"},
        {"batch_size": 0},
        {"max_seq_length": -1},
        {"model": "../etc/passwd"},
        {"model_path": "models/mini"},
        {"threads": "many"},
        {"batch": 3},
        {"prompts": {"query": 3}},
    ],
)
def test_nonsense_is_refused(bad):
    with pytest.raises(ValidationError):
        SentenceTransformersConfig(**bad)


# Models


def test_the_parameters_of_every_known_model_follow_from_its_other_figures():
    for name in known_embedding_models():
        shape = known_embedding_model(name).shape
        hidden, wide, layers, words = (
            shape.hidden_size,
            shape.intermediate_size,
            shape.layers,
            shape.vocabulary,
        )
        if shape.architecture == "qwen3":
            inside = hidden * 128 * (2 * shape.heads + 2 * shape.kv_heads) + 3 * hidden * wide
            computed = words * hidden + layers * (inside + 2 * hidden + 256) + hidden
        elif shape.architecture == "nomic_bert":
            computed = (words + 2) * hidden + 2 * hidden + layers * (4 * hidden**2 + 3 * hidden * wide)
            computed += layers * 4 * hidden
        else:
            kinds = {"mpnet": 0, "xlm-roberta": 1}.get(shape.architecture, 2)
            table = (words + shape.max_context + kinds) * hidden + 2 * hidden
            inside = 4 * hidden**2 + 4 * hidden + 2 * hidden * wide + wide + hidden + 4 * hidden
            computed = table + layers * inside + hidden**2 + hidden
            computed += 32 * shape.heads if shape.architecture == "mpnet" else 0
        assert shape.parameters == computed, name


@pytest.fixture
def folder(tmp_path):
    """A model's folder in sentence-transformers' layout."""

    def make(name="model", *, config=None, **files):
        path = tmp_path / name
        path.mkdir()
        usual = {
            "model_type": "bert",
            "num_hidden_layers": 6,
            "hidden_size": 384,
            "num_attention_heads": 12,
            "intermediate_size": 1536,
            "max_position_embeddings": 512,
            "vocab_size": 30522,
            "torch_dtype": "float32",
        }
        inner = path / "0_Transformer" if "modules" in files else path
        inner.mkdir(exist_ok=True)
        (inner / "config.json").write_text(json.dumps({**usual, **(config or {})}), encoding="utf-8")
        if "modules" in files:
            (path / "modules.json").write_text(json.dumps(files.pop("modules")), encoding="utf-8")
        for file, content in files.items():
            (inner / f"{file}.json").write_text(json.dumps(content), encoding="utf-8")
        return path

    return make


def test_a_model_is_read_from_its_folder(folder):
    path = folder(
        sentence_bert_config={"max_seq_length": 256},
        modules=[{"idx": 0, "path": "0_Transformer"}, {"idx": 1, "path": "1_Pooling"}],
    )
    model = read_embedding_folder(path)
    assert (model.max_seq_length, model.positions, model.shape.layers, model.source) == (
        256,
        512,
        6,
        str(path),
    )
    found = find_embedding_model(str(path))
    assert found.reason == f"model: 6 layers of 384, texts of up to 256 tokens, from {path}"
    config = on("l4", model_path=str(path), model="mine/model")
    assert (config.max_seq_length, config.told.model.source) == (256, str(path))


@pytest.mark.parametrize(
    ("config", "files", "length"),
    [
        ({}, {}, 512),
        ({}, {"tokenizer_config": {"model_max_length": 128}}, 128),
        ({}, {"tokenizer_config": {"model_max_length": 10**30}}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514}, {}, 512),
        ({}, {"sentence_bert_config": {"max_seq_length": None}}, 512),
        ({"max_position_embeddings": "x"}, {}, None),
    ],
)
def test_the_longest_text_is_what_sentence_transformers_takes(folder, config, files, length):
    assert read_embedding_folder(folder(config=config, **files)).max_seq_length == length


def test_code_of_a_publisher_is_seen_and_never_run(folder):
    path = folder(config={"auto_map": {"AutoModel": "modeling.Model"}})
    (path / "modeling.py").write_text("raise SystemExit", encoding="utf-8")
    config = on("l4", model=None, model_path=str(path))
    assert ("warning", "trust_remote_code") in [(level, path) for level, path, _ in issues(config)]
    assert issues(on("l4", model=None, model_path=str(path), trust_remote_code=True)) == []


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ([], "does not say where the first module is"),
        ({"a": 1}, "does not say where the first module is"),
        ([{"path": "/etc"}], "outside the model's folder"),
        ([{"path": "../../etc"}], "outside the model's folder"),
        ([{"path": 3}], "does not say where"),
    ],
)
def test_a_broken_folder_is_one_line_and_leaves_the_machine_s_values(folder, modules, said):
    path = folder(modules=modules)
    with pytest.raises(ModelUnreadable, match=said):
        read_embedding_folder(path)
    config = on("l4", model=None, model_path=str(path))
    assert (config.device, config.batch_size) == ("cuda", 32)
    ((level, where, message),) = issues(config)
    assert (level, where) == ("warning", "model_path")
    assert said in message
    assert "\n" not in message


def test_a_name_without_an_organisation_is_sentence_transformers_own(tmp_path, folder, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    home = tmp_path / "hub" / "models--sentence-transformers--all-MiniLM-L6-v2"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("abc", encoding="utf-8")
    (home / "snapshots").mkdir()
    folder(sentence_bert_config={"max_seq_length": 99}).rename(home / "snapshots" / "abc")
    assert find_embedding_model("all-MiniLM-L6-v2").value.max_seq_length == 99


def test_an_unknown_model_is_a_warning_and_nothing_is_sized_for_it():
    config = on("l4", model="acme/unheard-of")
    assert (config.device, config.dtype, config.max_seq_length, config.batch_size) == ("cuda", None, None, 32)
    ((level, path, message),) = issues(config)
    assert (level, path) == ("warning", "model")
    assert "acme/unheard-of is unknown" in message


# Memory


@pytest.mark.parametrize(
    ("name", "length", "measured"),
    [
        # torch 2.13 and transformers 5.17 on a processor: the growth of the process's peak while a batch of
        # 16384 to 32768 tokens is computed, divided by the tokens and the 4 bytes of a value.
        (MINI, 256, 4356),
        ("bge-base-en-v1.5", 512, 8738),
        ("bge-base-en-v1.5", 128, 8729),
        ("bge-large-en-v1.5", 512, 11531),
    ],
)
def test_a_token_takes_what_was_measured_and_at_most_two_fifths_more(name, length, measured):
    assert measured <= values_per_token(known_embedding_model(name), length) <= 1.4 * measured


@pytest.mark.parametrize(("length", "measured"), [(512, 16746), (2048, 58734)])
def test_scores_that_are_written_down_count(length, measured):
    model = known_embedding_model("bge-base-en-v1.5")
    assert measured <= values_per_token(model, length, own_code=True) <= 1.4 * measured


# Devices


def test_a_card_is_named_by_the_number_it_has_in_this_process():
    hidden = card(index=0, ordinal=None, visible=False, name="Other")
    box = machine(accelerators=[hidden, card(index=3, ordinal=0)])
    assert (on(box).device, on(box).told.place.name) == ("cuda:0", "Card")
    assert on(machine(accelerators=[card(ordinal=None)])).device == "cuda"


@pytest.mark.parametrize(
    ("vendor", "facts", "device", "dtype"),
    [
        ("amd", {"memory_bytes": 64 * GIB, "compute_capability": None}, "cuda:0", None),
        ("intel", {"memory_bytes": 16 * GIB, "compute_capability": None}, "xpu:0", None),
        ("apple", {"memory_kind": "unified", "memory_bytes": None, "compute_capability": None}, "mps", None),
        ("acme", {}, "cpu", "float32"),
    ],
)
def test_other_vendors_cards_have_pytorch_s_names(vendor, facts, device, dtype):
    base = {"index": 0, "ordinal": 0, "memory_bytes": GIB, "name": "X"}
    config = on(machine(accelerators=[Accelerator(vendor, **{**base, **facts})]))
    assert (config.device, config.dtype) == (device, dtype)
    assert config.batch_size == (128 if device != "cpu" else 32)


def test_an_instance_of_a_card_counts_by_its_own_memory():
    parts = [
        MigInstance("MIG-0", "1g.10gb", 10 * GIB),
        MigInstance("MIG-1", "1g.5gb", 700 * MIB, visible=True),
    ]
    config = on(machine(accelerators=[card(mig_enabled=True, mig=parts)]))
    assert (config.told.place.name, config.batch_size) == ("Card MIG 1g.5gb", 32)


def test_a_model_that_a_card_does_not_hold_is_computed_by_the_processor():
    box = machine(memory_gib=64, accelerators=[card(memory_bytes=600 * MIB)])
    config = on(box, BASE)
    assert (config.device, config.dtype, config.device_memory_bytes) == ("cpu", "float32", None)
    assert config.stackconf_reasons["device"].startswith("Synthetic CPU; cuda:0: 208.8 MiB of weights and ")
    assert issues(config) == []


def test_what_fits_nowhere_is_an_error_with_the_figures():
    config = on(machine(memory_gib=2, accelerators=[card(memory_bytes=GIB)]), QWEN)
    ((level, path, message),) = issues(config)
    assert (level, path) == ("error", "model")
    assert "do not fit into 1 GiB less 551 MiB for the driver" in message
    assert "do not fit into 2 GiB of usable memory; it takes a smaller model" in message


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((6, 1), "float32"),
        ((7, 0), "float16"),
        ((7, 5), "float16"),
        ((8, 0), "bfloat16"),
        ((12, 0), "bfloat16"),
    ],
)
def test_the_number_format_follows_the_compute_capability(capability, dtype):
    assert on(machine(accelerators=[card(compute_capability=capability)])).dtype == dtype


def test_a_processor_computes_in_bfloat16_only_where_it_can_and_the_model_is_stored_so():
    with_it, without = machine(isa=("avx512_bf16",)), machine(isa=("avx2",))
    assert (on(with_it, QWEN).dtype, on(without, QWEN).dtype) == ("bfloat16", "float32")
    assert on(with_it, MINI).dtype == "float32"


def test_threads_follow_the_quota():
    assert on(machine(cores=16, cpu_quota=3.5)).threads == 3
    assert on(machine(cores=16)).threads == 16


def test_nothing_known_leaves_everything_to_the_library():
    assert plugin.default_config(hardware=no_hardware()) is None
    config = SentenceTransformersConfig(model=MINI)
    assert (config.device, config.dtype, config.max_seq_length, config.batch_size) == (None, None, None, 32)
    assert "nothing is known of this machine" in config.stackconf_reasons["device"]


# Properties

sizes = st.integers(600, 96 * 1024).map(lambda mib: mib * MIB)
models = st.sampled_from(known_embedding_models())


@settings(max_examples=60)
@given(models, sizes, sizes, st.sampled_from(["card", "processor", "unified"]), st.sampled_from([None, 300]))
def test_more_memory_never_gives_a_smaller_batch_or_shorter_texts(name, one, other, kind, length):
    less, more = sorted((one, other))

    def at(memory):
        if kind == "card":
            place = {
                "device": "cuda:0",
                "memory_bytes": memory,
                "vendor": "nvidia",
                "compute_capability": "8.0",
            }
        else:
            place = {"device": "cpu" if kind == "processor" else "cuda:0", "memory_bytes": memory}
            place["unified"] = kind == "unified"
        return SentenceTransformersConfig(model=name, devices=[place], max_seq_length=length)

    small, large = at(less), at(more)
    if small.told.problem:
        return
    assert not large.told.problem
    assert small.batch_size <= large.batch_size
    assert small.max_seq_length <= large.max_seq_length
    for config in (small, large):
        assert config.batch_size & (config.batch_size - 1) == 0
        assert config.batch_size == 1 or config.batch_size * config.max_seq_length <= MOST_TOKENS
        if kind == "card":
            assert config.device_memory_bytes <= config.devices[0].memory_bytes


choices = st.fixed_dictionaries(
    {},
    optional={
        "device": st.sampled_from(["cpu", "cuda", "cuda:1", "mps"]),
        "dtype": st.sampled_from(["auto", "float32", "float16", "bfloat16"]),
        "batch_size": st.integers(1, 5000),
        "max_seq_length": st.integers(1, 40000),
        "threads": st.integers(1, 64),
        "processes": st.integers(1, 8),
        "prompts": st.dictionaries(st.text(min_size=1), st.text()),
    },
)


@settings(max_examples=60)
@given(st.sampled_from(["cpu=2,memory=4GiB", "l4", "h100-80gb-sxm:8"]), models, choices)
def test_what_is_set_survives_and_everything_else_has_a_reason(box, name, chosen):
    config = on(box, name, **chosen)
    assert {key: getattr(config, key) for key in chosen} == chosen
    for key in {"device", "dtype", "batch_size", "max_seq_length", "processes"} - chosen.keys():
        assert config.stackconf_reasons[key]
    assert all("\n" not in message for _, _, message in issues(config))
    # What an operator reads and writes down is the same again.
    again = SentenceTransformersConfig(**config.model_dump())
    assert again.model_dump() == config.model_dump()


# What a person is told


@pytest.mark.parametrize(
    ("config", "level", "path", "message"),
    [
        (
            {"device": "cuda:7"},
            "error",
            "device",
            "`cuda:7` is not there, or not for this provider; use cuda or",
        ),
        ({"max_seq_length": 600}, "error", "max_seq_length", "takes at most 512 tokens; use at most 256"),
        ({"max_seq_length": 300}, "warning", "max_seq_length", "was made for texts of at most 256 tokens"),
        ({"batch_size": 9999}, "warning", "batch_size", "use at most 7805"),
        ({"truncate_dim": 999}, "warning", "truncate_dim", "has 384 values"),
        ({"processes": 3}, "warning", "processes", "3 processes share 1 card, and each loads the model"),
        (
            {"default_prompt_name": "q", "prompts": {"query": "q: "}},
            "error",
            "default_prompt_name",
            "there is no prompt `q`; use query",
        ),
    ],
)
def test_what_does_not_go_is_told(config, level, path, message):
    ((said, where, text),) = issues(on("l4", **config))
    assert (said, where) == (level, path)
    assert message in text


def test_bfloat16_on_a_card_without_it_is_told():
    ((level, path, text),) = issues(on("t4", dtype="bfloat16"))
    assert (level, path) == ("warning", "dtype")
    assert "has no bfloat16, which needs 8.0; use float16" in text


def test_prompts_of_a_model_s_card_are_given_where_its_files_have_none():
    assert on("l4", "intfloat/e5-base-v2").prompts == {"query": "query: ", "document": "passage: "}
    assert on("l4", "intfloat/e5-base-v2", prompts={}).prompts == {}
    assert on("l4", MINI).prompts is None


# In a stack


class Engine:
    """Takes all it may have, as an engine for text does."""

    provides = (
        ProviderType(
            "inference",
            "inline::engine",
            "stackconf_sentence_transformers_engine:EngineConfig",
            accelerators=True,
        ),
    )

    @hookimpl
    def default_config(self, provider, hardware):
        if provider.provider_type != "inline::engine":
            return None
        cards = hardware.visible_accelerators
        return {"gpu_memory_utilization": 0.9 * min(card.share for card in cards)} if cards else None


def beside_an_engine(box, **config):
    class EngineConfig(BaseModel):
        gpu_memory_utilization: float = user_field(0.9, claims="accelerator_memory_fraction")

    module = ModuleType("stackconf_sentence_transformers_engine")
    module.EngineConfig = EngineConfig
    sys.modules[module.__name__] = module
    return stack_with(
        [plugin, Engine()],
        {
            "inference": [
                {"provider_id": "engine", "provider_type": "inline::engine"},
                {"provider_id": "embed", "provider_type": TYPE, "config": config},
            ]
        },
        hardware=simulate(box),
    )


def test_beside_an_engine_it_takes_a_corner_of_one_card():
    with beside_an_engine("l4:2", model=MINI) as stack:
        configs = {key: each.config for key, each in stack.resolution.providers.items()}
        embed = configs["inference/embed"]
        assert stack.issues == ()
        assert (embed.device, embed.batch_size) == ("cuda", 128)
        assert embed.device_memory_bytes < 0.05 * simulate("l4").accelerators[0].memory_bytes
        assert configs["inference/engine"].gpu_memory_utilization == pytest.approx(0.855)
        assert stack.shares["inference/embed"].units == {(1, None): 0.05}


def test_beside_vllm_on_one_small_card_both_have_room():
    vllm = pytest.importorskip("stackconf_vllm.plugin")
    server = {
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "engine_version": "0.22.1",
        "config_file": "/etc/vllm.yaml",
        "restart_command": ["true"],
    }
    providers = [
        {"provider_id": "vllm", "provider_type": "remote::vllm", "config": server},
        {"provider_id": "embed", "provider_type": TYPE, "config": {"model": BASE}},
    ]
    with stack_with([plugin, vllm], {"inference": providers}, hardware=simulate("l4")) as stack:
        configs = {key: each.config for key, each in stack.resolution.providers.items()}
        assert stack.issues == ()
        # 0.92 of the 95 % that the guest leaves, and a context that is of use.
        assert configs["inference/vllm"].gpu_memory_utilization == pytest.approx(0.874)
        assert configs["inference/vllm"].max_model_len > 8000
        assert (configs["inference/embed"].device, configs["inference/embed"].batch_size) == ("cuda", 32)
        (prompt,) = stack.explain("inference/embed", "prompts.query")
        assert prompt.reason == "as the card of bge-base-en-v1.5 says"


def test_what_is_set_beyond_its_corner_is_summed_up_with_the_others():
    with beside_an_engine("l4", model=MINI, batch_size=4096) as stack:
        found = {issue.code: str(issue) for issue in stack.issues}
        assert "inference/embed" in found["over-claimed"]
        assert "is claimed" in found["over-claimed"]


def test_a_model_too_large_for_its_corner_is_computed_by_the_processor():
    with beside_an_engine("l4,cpu=32,memory=128GiB", model="Qwen/Qwen3-Embedding-4B") as stack:
        embed = stack.resolution.providers["inference/embed"].config
        assert embed.device == "cpu"
        assert stack.issues == ()
        assert "for the driver" in embed.stackconf_reasons["device"]


def test_a_users_value_and_every_reason_are_explained():
    with stack_with(
        [plugin],
        {"inference": [{"provider_id": "st", "provider_type": TYPE, "config": {"model": MINI}}]},
        hardware=simulate("l4,cpu=8,memory=32GiB"),
    ) as stack:
        stack.configurations.register(
            {"providers": {"inference": [{"provider_id": "st", "config": {"batch_size": 7}}]}}, name="mine"
        )
        (batch,) = stack.explain("inference/st", "batch_size")
        assert (batch.value, batch.layer) == (7, "overlay")
        (length,) = stack.explain("inference/st", "max_seq_length")
        assert (length.value, length.reason) == (256, "the model's own")
        (threads,) = stack.explain("inference/st", "threads")
        assert (threads.value, threads.reason) == (8, "8 physical cores, one thread each")


# Apply without sentence-transformers


def test_planning_imports_no_torch():
    code = """
        import sys
        from stackconf import simulate
        from stackconf_sentence_transformers import plugin
        from stackconf_sentence_transformers.config import SentenceTransformersConfig
        plugin.default_config(hardware=simulate("l4"))
        plugin.validate_user_config(config=SentenceTransformersConfig(model="all-MiniLM-L6-v2"))
        print(sorted({"torch", "numpy", "transformers", "sentence_transformers"} & set(sys.modules)))
    """
    assert fresh_process(code).stdout == "[]\n"


def test_without_sentence_transformers_the_change_waits_and_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # as if it were not installed
    with stack_with(
        [plugin],
        {"inference": [{"provider_id": "st", "provider_type": TYPE, "config": {"model": MINI}}]},
        hardware=machine(),
    ) as stack:
        report = stack.apply()
        (outcome,) = report.outcomes
        assert outcome.state == "pending"
        assert MISSING in (outcome.error, outcome.detail)


def test_each_process_has_a_card_of_its_own_while_there_are_enough():
    box = simulate("l4:2")
    assert targets(on(box, processes=3, device="cuda")) == ["cuda", "cuda", "cuda"]
    assert targets(on(machine(), processes=2)) == ["cpu", "cpu"]


def test_no_visible_card_leaves_the_processor():
    box = machine(accelerators=[card(visible=False, ordinal=None)])
    assert on(box).device == "cpu"


@pytest.mark.parametrize(("processes", "cards"), [(None, 1), (2, 2), (8, 2)])
def test_only_the_cards_that_it_computes_on_are_claimed(processes, cards):
    block = {"model": "BAAI/bge-base-en-v1.5", "processes": processes}
    entry = {"provider_id": "e", "provider_type": "inline::sentence-transformers", "config": block}
    with stack_with([plugin], {"inference": [entry]}, hardware=simulate("l4:2")) as stack:
        assert [claim.unit for claim in stack.resolution.claims] == [(card, None) for card in range(cards)]


def test_a_misspelt_model_is_told_what_it_was_meant_to_be():
    found = find_embedding_model("BAI/bge-base-en-v1.5", {"HF_HOME": "/nowhere"})
    assert found.reason.endswith("did you mean BAAI/bge-base-en-v1.5?")
