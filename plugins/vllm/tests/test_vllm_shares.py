"""Several providers that want the same cards: each is sized for what is given to it."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackconf import Accelerator, MigInstance, Stack, simulate
from stackconf.registry.registry import Registry
from stackconf.testing import GIB, machine, stack_with
from stackconf_ollama import plugin as ollama
from stackconf_vllm import plugin

SMALL, LARGE = "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.3-70B-Instruct"
TINY = "Qwen/Qwen2.5-0.5B-Instruct"


@pytest.fixture(autouse=True)
def no_models_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))


def vllm(name, model=SMALL, **config):
    usual = {"engine_version": "0.22.1", "config_file": f"/etc/{name}.yaml", "restart_command": ["true"]}
    given = {**usual, "visible_devices": None, "model": model, **config}
    return {"provider_id": name, "provider_type": "remote::vllm", "config": given}


def away(name, **config):
    config = {"url": "http://gpu-box:8000/v1", **config}
    return {"provider_id": name, "provider_type": "remote::vllm", "config": config}


def inline(name, **config):
    return {"provider_id": name, "provider_type": "inline::vllm", "config": config}


OLLAMA = {"provider_id": "ollama", "provider_type": "remote::ollama", "config": {"model": "llama3.2"}}


@contextmanager
def stack_of(box, *entries, placement=None):
    hardware = simulate(box) if isinstance(box, str) else box
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "stack.yaml")
        data = {"version": 2, "providers": {"inference": entries}}
        if placement is not None:
            data["stackconf"] = {"placement": placement}
        file.write_text(json.dumps(data), encoding="utf-8")
        registry = Registry(plugins=[plugin, ollama], entry_points=False)
        with Stack.open(file, registry=registry, hardware=hardware, environ={}) as stack:
            yield stack


def config_of(stack, name):
    return stack.resolution.providers[f"inference/{name}"].config


def said(stack):
    return [(issue.level, issue.code, issue.message) for issue in stack.issues]


def why(stack, name, path):
    return next(each.reason for each in stack.explain(f"inference/{name}") if each.path == path)


def test_two_on_one_card_have_the_half_each_and_are_sized_for_it():
    with stack_of("h100-80gb-sxm", vllm("a"), vllm("b")) as stack:
        assert said(stack) == []
        for name in "ab":
            config = config_of(stack, name)
            # 0.92 x 0.475 = 0.437; (0.437 x 81559 - 15316.5 - 704 - 3584) MiB / 128 KiB = 128296
            assert (config.gpu_memory_utilization, config.max_model_len) == (0.437, 128288)
            assert config.tensor_parallel_size == 1
        assert why(stack, "a", "gpu_memory_utilization") == (
            "0.92 x 0.475, its share of the card; 0.92 is vLLM's default from 0.21 on"
        )
        assert "left of 0.437 x 79.6 GiB beside" in why(stack, "b", "max_model_len")
        (entry,) = config_of(stack, "a").devices
        assert (entry.memory_bytes, entry.share) == (81559 * 1024**2, 0.475)


def test_two_on_eight_cards_have_four_each_and_split_a_model_over_their_own():
    with stack_of("h100-80gb-sxm:8", vllm("a", LARGE), vllm("b", LARGE, max_model_len=16384)) as stack:
        assert said(stack) == []
        a, b = config_of(stack, "a"), config_of(stack, "b")
        assert (a.tensor_parallel_size, a.max_model_len, a.gpu_memory_utilization) == (4, 131072, 0.92)
        assert (b.tensor_parallel_size, b.max_model_len) == (2, 16384)
        claimed = [(claim.provider, claim.unit[0]) for claim in stack.resolution.claims]
        assert claimed == [("inference/a", n) for n in range(4)] + [("inference/b", n) for n in (4, 5)]
    with stack_of("h100-80gb-sxm:8", vllm("a"), vllm("b", LARGE, tensor_parallel_size=8)) as stack:
        ((level, _, message),) = said(stack)
        assert level == "error"
        assert "8 GPUs of one kind are wanted, there are at most 4 to share a model" in message


def test_vllm_and_ollama_on_one_card():
    with stack_of("l40s", vllm("vllm"), OLLAMA) as stack:
        assert said(stack) == []
        vllms, ollamas = config_of(stack, "vllm"), config_of(stack, "ollama")
        # (0.437 x 46068 - 15316.5 - 176 - 3584) MiB / 128 KiB = 8441
        assert (vllms.gpu_memory_utilization, vllms.max_model_len) == (0.437, 8432)
        # Ollama's step for 23 GiB is not reached by 0.475 x 45 GiB.
        assert ollamas.num_ctx == 4096
        assert stack.shares["inference/ollama"].units == {(0, None): 0.475}


def test_a_fraction_of_ones_own_beside_one_that_claims_nothing_is_warned_of():
    with stack_of("l40s", vllm("vllm", gpu_memory_utilization=0.9), OLLAMA) as stack:
        ((level, code, message),) = said(stack)
        assert (level, code) == ("warning", "over-claimed")
        assert message.startswith("card 0: 1.375 of its memory is claimed: inference/vllm 0.9 (`gpu_memory")
        assert "inference/ollama 0.475 (given to it)" in message
    with stack_of("l40s", vllm("vllm", gpu_memory_utilization=0.47), OLLAMA) as stack:
        assert said(stack) == []


def test_a_users_fraction_that_oversubscribes_names_both():
    with stack_of("h100-80gb-sxm", vllm("a"), vllm("b")) as stack:
        change = {"inference": [{"provider_id": "a", "config": {"gpu_memory_utilization": 0.7}}]}
        stack.configurations.register(change, name="more")
        config = config_of(stack, "a")
        assert config.gpu_memory_utilization == 0.7
        (issue,) = stack.issues
        assert (issue.level, issue.code) == ("error", "over-claimed")
        assert "1.137 of its memory is claimed" in issue.message
        assert (
            "inference/a 0.7 (`gpu_memory_utilization`, configuration `more` (revision 1))" in issue.message
        )
        assert "inference/b 0.437 (`gpu_memory_utilization`, stackconf_vllm" in issue.message
        assert "placement" in issue.hint


def test_a_placement_decides():
    placement = {"inference/a": {"cards": [1], "memory": 0.6}, "inference/b": {"cards": [1, 2]}}
    with stack_of("l40s:3", vllm("a"), vllm("b"), vllm("c"), placement=placement) as stack:
        assert said(stack) == []
        a, b, c = (config_of(stack, name) for name in "abc")
        assert a.gpu_memory_utilization == 0.552
        assert [(entry.count, entry.share) for entry in a.devices] == [(1, 0.6)]
        # vLLM knows one fraction for all cards: more of one card is better here than a third of two.
        assert (b.gpu_memory_utilization, b.tensor_parallel_size) == (0.92, 1)
        assert [(entry.count, entry.share) for entry in b.devices] == [(1, 0.35), (1, 1.0)]
        assert (c.gpu_memory_utilization, c.devices[0].count) == (0.92, 1)
    with stack_of("l40s:2", vllm("a"), vllm("b"), placement={"inference/a": {"cards": []}}) as stack:
        assert (config_of(stack, "a").devices, config_of(stack, "a").gpu_memory_utilization) == ([], None)
        assert (config_of(stack, "b").gpu_memory_utilization, config_of(stack, "b").devices[0].count) == (
            0.92,
            2,
        )


def test_one_fraction_for_all_cards_is_chosen_with_the_cards():
    # Card 0 has a guest: 0.9 of it is left, and all of the other.
    placement = {"inference/a": {"cards": [0, 1]}, "inference/b": {"cards": [0], "memory": 0.05}}
    with stack_of("l40s:2", vllm("a"), OLLAMA | {"provider_id": "b"}, placement=placement) as stack:
        a = config_of(stack, "a")
        assert (a.tensor_parallel_size, a.gpu_memory_utilization, a.max_model_len) == (1, 0.92, 131072)
        assert {claim.unit for claim in stack.resolution.claims} == {(1, None)}
    # Over both it must be content with 0.9 of each, and the model needs both.
    with stack_of(
        "l40s:2", vllm("a", "google/gemma-2-27b-it"), OLLAMA | {"provider_id": "b"}, placement=placement
    ) as stack:
        a = config_of(stack, "a")
        assert (a.tensor_parallel_size, a.gpu_memory_utilization) == (2, 0.828)
        assert {claim.unit for claim in stack.resolution.claims} == {(0, None), (1, None)}
    own = vllm("a", environment_file="/etc/a.env")
    del own["config"]["visible_devices"]
    with stack_of("l40s:2", own, OLLAMA | {"provider_id": "b"}, placement=placement) as stack:
        assert config_of(stack, "a").visible_devices == "1,0"


def mig_card(index, *uuids):
    parts = [MigInstance(uuid=uuid, memory_bytes=40 * GIB, profile="3g.40gb") for uuid in uuids]
    name = "NVIDIA H100 80GB HBM3"
    return Accelerator(
        "nvidia",
        index,
        name=name,
        memory_bytes=80 * GIB,
        mig_enabled=True,
        mig=parts,
        compute_capability=(9, 0),
    )


def test_instances_of_a_card_that_is_cut_up_are_dealt_out():
    box = machine(accelerators=[mig_card(0, "MIG-a", "MIG-b", "MIG-c")])
    with stack_of(box, vllm("a"), vllm("b"), vllm("c")) as stack:
        assert said(stack) == []
        for name in "abc":
            config = config_of(stack, name)
            # (0.92 x 40960 - 15316.5 - 176 - 3584) MiB / 128 KiB = 148k
            assert (config.gpu_memory_utilization, config.max_model_len) == (0.92, 131072)
            assert [(entry.count, entry.part_of_card) for entry in config.devices] == [(1, True)]
    with stack_of(box, *(vllm(name, TINY) for name in "abcd")) as stack:
        fractions = {name: config_of(stack, name).gpu_memory_utilization for name in "abcd"}
        assert fractions == {"a": 0.437, "b": 0.92, "c": 0.92, "d": 0.437}
        assert config_of(stack, "a").devices[0].memory_bytes == 40 * GIB


def test_a_server_elsewhere_takes_no_cards_and_claims_nothing():
    with stack_of("h100-80gb-sxm:2", vllm("a"), away("b", gpu_memory_utilization=0.9)) as stack:
        assert set(stack.shares) == {"inference/a"}
        assert config_of(stack, "a").devices[0].count == 2
        assert {claim.provider for claim in stack.resolution.claims} == {"inference/a"}
        assert config_of(stack, "b").devices is None
    with stack_of("h100-80gb-sxm", vllm("a"), vllm("c"), away("b")) as stack:
        assert set(stack.shares) == {"inference/a", "inference/c"}


@pytest.mark.parametrize(
    ("box", "models", "advice"),
    [
        ("l4", (SMALL, TINY), "0.93 of the card would hold 4096 tokens, see `stackconf: placement:`"),
        ("h100-80gb-sxm", (LARGE, TINY), "alone on its cards neither: 2 GPUs of this kind would hold 19k"),
    ],
)
def test_what_does_not_fit_on_its_share_says_on_which_it_would(box, models, advice):
    entries = [vllm(name, model) for name, model in zip("ab", models, strict=True)]
    with stack_of(box, *entries) as stack:
        (issue,) = stack.issues
        assert (issue.level, issue.provider) == ("error", "inference/a")
        assert advice in issue.hint
        assert config_of(stack, "b").max_model_len == 32768


def test_the_share_that_is_advised_is_enough():
    placement = {"inference/a": {"memory": 0.93}}
    with stack_of("l4", vllm("a"), placement=placement) as stack:
        assert said(stack) == []
        assert config_of(stack, "a").max_model_len >= 4096


def test_without_a_card_nobody_has_a_fraction():
    with stack_of(machine(), vllm("a"), vllm("b"), OLLAMA) as stack:
        assert [level for level, _, _ in said(stack)] == ["warning", "warning"]
        assert config_of(stack, "a").gpu_memory_utilization is None


def test_cards_of_unknown_memory_are_divided_too():
    with stack_of("gb10", vllm("a"), vllm("b")) as stack:
        assert config_of(stack, "a").gpu_memory_utilization == 0.437
        assert config_of(stack, "a").max_model_len is None


def test_inline_without_a_model_takes_upstreams_part_or_less():
    with stack_of("l40s", inline("a"), inline("b")) as stack:
        assert said(stack) == []
        assert config_of(stack, "a").gpu_memory_utilization == 0.3
        assert why(stack, "a", "gpu_memory_utilization").startswith("upstream's own default")
    with stack_of("l40s", *(inline(name) for name in "abcd")) as stack:
        assert said(stack) == []
        # 0.9 x 0.237
        assert config_of(stack, "d").gpu_memory_utilization == 0.213
        assert why(stack, "d", "gpu_memory_utilization").startswith("0.9 x 0.237, its share of the card")


# Which cards the engine's own process takes


def test_an_engine_is_told_its_cards_where_it_would_take_others():
    own = {"config_file": "/etc/b.yaml", "restart_command": ["true"], "model": SMALL}
    second = {"provider_id": "b", "provider_type": "remote::vllm", "config": own}
    with stack_of("l40s:4", vllm("a"), second) as stack:
        assert config_of(stack, "a").visible_devices is None
        assert config_of(stack, "b").visible_devices == "2,3"
        assert why(stack, "b", "visible_devices") == "cards 2,3 are its own, and CUDA begins with card 0"
        (issue,) = stack.issues
        assert (issue.level, issue.provider) == ("warning", "inference/b")
        assert "vLLM takes other cards unless its service has CUDA_VISIBLE_DEVICES=2,3" in issue.message
    own["environment_file"] = "/etc/b.env"
    with stack_of("l40s:4", vllm("a"), second) as stack:
        assert said(stack) == []
    with stack_of(machine(accelerators=[mig_card(0, "MIG-a", "MIG-b")]), vllm("a"), second) as stack:
        assert config_of(stack, "b").visible_devices == "MIG-b"


ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(["vllm", "inline", "ollama"]),
        st.sampled_from([SMALL, LARGE, TINY, None]),
        st.sampled_from([None, "0.19.0", "0.22.1"]),
    ),
    min_size=1,
    max_size=6,
)
PLACED = st.none() | st.fixed_dictionaries(
    {"cards": st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)},
    optional={"memory": st.sampled_from([0.2, 0.3, 0.45])},
)


@settings(max_examples=60, deadline=None)
@given(
    box=st.sampled_from(["l4", "l40s:3", "h100-80gb-sxm:3", "gb10:3", "t4:3"]),
    wanted=ENTRIES,
    placed=st.lists(PLACED, min_size=6, max_size=6),
)
def test_derived_fractions_never_oversubscribe_a_card(box, wanted, placed):
    entries, placement = [], {}
    for (kind, model, version), place, name in zip(wanted, placed, "abcdef", strict=False):
        if kind == "ollama":
            entries.append({**OLLAMA, "provider_id": name})
        elif kind == "inline":
            given_model = {} if model is None else {"model": model}
            entries.append(inline(name, **given_model))
        else:
            entries.append(vllm(name, model, engine_version=version))
        if place is not None and box != "l4":
            placement[f"inference/{name}"] = place
    with stack_of(box, *entries, placement=placement or None) as stack:
        placed_wrongly = any(issue.code == "bad-placement" for issue in stack.issues)
        sums: dict[object, list[float]] = {}
        for claim in stack.resolution.claims:
            sums.setdefault(claim.unit, []).append(claim.share)
            # Never more than what is given to it, and never less than something.
            share = stack.shares[claim.provider].units[claim.unit]
            assert 0 < claim.share <= max(0.92 * share, 0.001) + 1e-9
        if not placed_wrongly:
            assert all(sum(each) <= (0.95 if len(each) > 1 else 0.92) + 1e-9 for each in sums.values())
            assert not [issue for issue in stack.issues if issue.code == "over-claimed"]


def test_the_kit_takes_both_types_without_a_stack_file_of_their_own():
    with stack_with([plugin], {"inference": [vllm("a"), inline("b")]}, hardware=simulate("l40s")) as stack:
        assert set(stack.shares) == {"inference/a", "inference/b"}
