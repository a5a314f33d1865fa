"""The three providers: profiles, formulas, agreement, and files."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
import yaml
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from stackconf import Accelerator, InvalidConfig, ProviderType, Registry, Stack, simulate
from stackconf.fitting import read_requirement
from stackconf.testing import fresh_process, machine, no_hardware, stack_with
from stackconf_instructlab import plugin, profiles, sizing

PROFILES = sorted(Path(profiles.__file__).parent.glob("*.yaml"))
HUGE = "cpu=96,memory=1TiB"
MATCHES = {
    "a100-40gb-x4": f"a100-40gb-sxm:4,{HUGE}",
    "a100-40gb-x8": f"a100-40gb-pcie:8,{HUGE}",
    "a100-80gb-x2": f"a100-80gb-pcie:2,{HUGE}",
    "a100-80gb-x4": f"a100-80gb-sxm:4,{HUGE}",
    "a100-80gb-x8": f"a100-80gb-sxm:8,{HUGE}",
    "h100-x2": f"h100-94gb-nvl:2,{HUGE}",
    "h100-x4": f"h100-80gb-pcie:4,{HUGE}",
    "h100-x8": f"h100-80gb-sxm:8,{HUGE}",
    "h200-x2": f"h200-141gb-sxm:2,{HUGE}",
    "h200-x4": f"h200-141gb-sxm:4,{HUGE}",
    "h200-x8": f"h200-141gb-sxm:8,{HUGE}",
    "l4-x8": f"l4:8,{HUGE}",
    "l40s-x4": f"l40s:4,{HUGE}",
    "l40s-x8": f"l40s:8,{HUGE}",
    "cpu": "cpu=8/16,memory=96GiB",
}
APPLE = Accelerator("apple", name="Apple M2", memory_kind="unified")
APPLES = {
    "apple": machine(cores=4, memory_gib=16, accelerators=[APPLE]),
    "apple-max": machine(cores=6, memory_gib=96, accelerators=[APPLE]),
    "apple-ultra": machine(cores=12, memory_gib=128, accelerators=[APPLE]),
}
WITHOUT = ("b200-180gb-sxm:8", "rtx-4090:2", "l40:4", "t4:4", "mi300x:8", "gb10", "a100-40gb-sxm:3")
APIS = ("synthetic_data_generation", "post_training", "eval")


def providers(folder, **configs):
    return {
        api: [
            {
                "provider_id": "instructlab",
                "provider_type": "inline::instructlab",
                "config": {"config_file": str(folder / f"{api}.yaml"), **configs.get(api, {})},
            }
        ]
        for api in APIS
    }


@pytest.fixture
def opened(tmp_path):
    """A stack with the three, and the configurations that the distribution ships."""
    stacks = []

    def opening(hardware, **configs):
        file = tmp_path / f"stack{len(stacks)}.yaml"
        file.write_text(yaml.safe_dump({"providers": providers(tmp_path, **configs)}))
        stack = Stack.open(file, registry=Registry(), hardware=hardware, environ={})
        stacks.append(stack)
        return stack

    yield opening
    for stack in stacks:
        stack.close()


def config(stack, api):
    found = stack.resolution.providers[f"{api}/instructlab"].config
    assert found is not None, stack.issues
    return found


def machine_for(name):
    return APPLES[name] if name in APPLES else simulate(MATCHES[name])


@pytest.mark.parametrize("file", PROFILES, ids=lambda file: file.stem)
def test_each_profile_is_best_on_a_machine_that_it_is_for_and_the_three_agree(opened, file):
    stack = opened(machine_for(file.stem))
    chosen = stack.configurations.assign_best()
    assert chosen.name == f"instructlab/{file.stem}"
    assert chosen.fit.verdict == "fits"
    assert stack.issues == ()
    data = yaml.safe_load(file.read_text())
    for api in APIS:
        (entry,) = data["providers"][api]
        values = config(stack, api).model_dump()
        assert {key: values[key] for key in entry["config"]} == entry["config"]
    if config(stack, "post_training").device != "cuda":  # upstream's m2 had `gpus: 4`
        assert config(stack, "eval").gpus == config(stack, "synthetic_data_generation").gpus == 0


def test_every_profile_has_a_machine_in_these_tests():
    assert {file.stem for file in PROFILES} == {*MATCHES, *APPLES}


@pytest.mark.parametrize("expression", WITHOUT)
def test_where_no_profile_fits_it_is_said_what_the_nearest_lacks_and_formulas_agree(opened, expression):
    stack = opened(simulate(f"{expression},{HUGE}"))
    assert not [each.name for each in stack.configurations.list(fit=True) if each.best]
    with pytest.raises(InvalidConfig, match="fits this machine; the nearest are") as refused:
        stack.configurations.assign_best()
    assert refused.value.issues
    assert not [issue for issue in stack.issues if issue.level == "error"]


def test_the_nearest_is_the_one_of_the_right_card(opened):
    stack = opened(simulate(f"a100-40gb-sxm:3,{HUGE}"))
    with pytest.raises(InvalidConfig) as refused:
        stack.configurations.assign_best()
    assert str(refused.value.issues[0]) == (
        "error: `instructlab/a100-40gb-x4`: near miss: 1 more card a100-40gb-sxm; it is for 4 a100-40gb-sxm"
        " or a100-40gb-pcie, 192 GiB memory"
    )


def test_a_card_is_told_by_its_id_and_bytes_and_not_by_its_name(opened):
    nameless = [
        Accelerator(
            "nvidia",
            index=number,
            name="NVIDIA Graphics Device",
            pci_device_id="10DE:2330",
            memory_bytes=81559 * 1024**2,
            compute_capability=(9, 0),
        )
        for number in range(8)
    ]
    from stackconf.hardware.catalog import with_figures

    here = with_figures(machine(cores=96, memory_gib=1024, accelerators=nameless))
    assert opened(here).configurations.assign_best().name == "instructlab/h100-x8"
    parts = [evolve(card, memory_bytes=card.memory_bytes // 4) for card in nameless]
    virtual = with_figures(machine(cores=96, memory_gib=1024, accelerators=parts))
    assert not [each.name for each in opened(virtual).configurations.list(fit=True) if each.best]
    pretender = [Accelerator("acme", name="NVIDIA H100 80GB HBM3", memory_bytes=8 * 1024**3)] * 8
    assert not [
        each
        for each in opened(machine(accelerators=pretender)).configurations.list(fit=True)
        if each.fit is not None and each.fit.verdict == "fits"
    ]


def test_nothing_is_derived_from_what_is_not_known(opened):
    stack = opened(no_hardware())
    assert all(each.fit.verdict == "unknown" for each in stack.configurations.list(fit=True) if each.fit)
    assert stack.issues == ()
    derived = [each for each in stack.explain("post_training/instructlab") if each.layer == "hardware"]
    assert [(each.path, each.reason) for each in derived] == [
        ("max_seq_len", "what synthetic_data_generation/instructlab makes")
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("h100-x4", (4, 128, 54, 56)),
        ("h100-x8", (8, 128, 60, 60)),
        ("l40s-x4", (4, 128, 30, 42)),
        ("l4-x8", (8, 128, 18, 18)),
    ],
)
def test_the_formulas_are_near_the_profiles_figures(name, expected):
    processes, batch, least, most = expected
    with stack_with([plugin], providers(Path("/nonexistent")), hardware=machine_for(name)) as stack:
        found = config(stack, "post_training")
        assert (found.nproc_per_node, found.effective_batch_size) == (processes, batch)
        assert least * 1000 <= found.max_batch_len <= most * 1000
        assert stack.issues == ()
        (origin,) = stack.explain("post_training/instructlab", "max_batch_len")
        assert re.search(
            r"GiB of each .* less .* GiB, 1/\d of weights.* at 880 KiB for a token", origin.reason
        )


def test_more_memory_never_gives_fewer_tokens():
    cards = ("l4", "a100-40gb-sxm", "l40s", "a100-80gb-sxm", "h200-141gb-sxm", "b200-180gb-sxm")
    from stackconf_instructlab.sizing import training

    for count in (1, 2, 4, 8):
        found = [training(simulate(f"{card}:{count},{HUGE}")) for card in cards]
        for offloaded in (True, False):
            tokens = [
                each["max_batch_len"].value
                for each in found
                if each["cpu_offload_optimizer"].value is offloaded
            ]
            assert tokens == sorted(tokens), count
        places = [each["cpu_offload_optimizer"].value for each in found]
        assert places == sorted(places, reverse=True), "once it fits on the cards it stays there"


def users(api, **values):
    return {api: [{"provider_id": "instructlab", "config": values}]}


@pytest.mark.parametrize(
    ("api", "values", "said"),
    [
        ("post_training", {"max_seq_len": 2048}, "makes samples of up to 4096 tokens"),
        ("eval", {"max_seq_len": 2048}, "trains on samples of up to 4096 tokens"),
        ("synthetic_data_generation", {"max_seq_len": 70_000}, "a sample may have 70000"),
        ("eval", {"device": "cpu", "gpus": 0}, "the judge is on cpu, and the teacher"),
        ("post_training", {"device": "cpu", "pipeline": "full", "nproc_per_node": 1}, "training runs on cpu"),
        ("eval", {"gpus": 16}, "it takes 16, and the machine has 8 cards"),
        ("post_training", {"max_batch_len": 4000}, "takes 4000 tokens at once"),
    ],
)
def test_a_users_value_that_contradicts_another_is_not_registered(opened, api, values, said):
    stack = opened(machine_for("h100-x8"))
    stack.configurations.assign_best()
    before = stack.revision
    with pytest.raises(InvalidConfig) as refused:
        stack.configurations.register(users(api, **values))
    assert any(said in str(issue) for issue in refused.value.issues), refused.value.issues
    assert stack.revision == before


def test_the_three_may_be_changed_together(opened):
    stack = opened(machine_for("h100-x8"))
    together = {api: users(api, max_seq_len=8192)[api] for api in APIS}
    stack.configurations.register(together)
    assert [config(stack, api).max_seq_len for api in APIS] == [8192] * 3


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(["longer", "trained", "cards"]),
            st.integers(256, 18_000),
            st.sampled_from([0, 1, 2, 4, 8]),
        ),
        max_size=4,
    ),
    profile=st.booleans(),
)
def test_what_depends_on_another_provider_follows_it_whatever_is_registered(tmp_path, changes, profile):
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        file = Path(folder, "stack.yaml")
        file.write_text(yaml.safe_dump({"providers": providers(Path(folder))}))
        hardware = machine_for("l4-x8")
        with Stack.open(file, registry=Registry(), hardware=hardware, environ={}) as stack:
            if profile:
                stack.configurations.assign_best()
            for number, (what, length, cards) in enumerate(changes):
                values = {
                    "longer": ("synthetic_data_generation", {"max_seq_len": length}),
                    "trained": ("post_training", {"max_seq_len": length}),
                    "cards": (
                        "synthetic_data_generation",
                        {"gpus": cards, "device": "cuda" if cards else "cpu", "backend": "vllm"}
                        if cards
                        else {"gpus": 0, "device": "cpu", "backend": "llama-cpp"},
                    ),
                }[what]
                api, given_values = values
                longest = config(stack, "synthetic_data_generation").max_seq_len
                if what == "trained" and length < longest:
                    with pytest.raises(InvalidConfig):
                        stack.configurations.register(users(api, **given_values), name=str(number))
                    continue
                try:
                    stack.configurations.register(users(api, **given_values), name=str(number))
                except InvalidConfig:  # a training length that somebody set before is too short by now
                    assert what == "longer"
                    continue
                agree(stack)
            for number in range(len(changes)):
                if any(each.name == str(number) for each in stack.configurations.list()):
                    stack.configurations.unassign(str(number))
            agree(stack, errors=False)
            with Stack.open(file, registry=Registry(), hardware=hardware, environ={}) as again:
                assert again.configurations.inspect() == stack.configurations.inspect()


def agree(stack, *, errors=True):
    """What follows is what it follows, and no one of the three contradicts another."""
    made, trained, judged = (config(stack, api) for api in APIS)
    assert not errors or not [issue for issue in stack.issues if issue.level == "error"], stack.issues
    assert trained.max_seq_len >= made.max_seq_len
    assert judged.max_seq_len == trained.max_seq_len
    assert (judged.gpus, judged.device) == (made.gpus, made.device)
    assert made.tensor_parallel_size == max(1, made.gpus)


def test_an_overlay_of_one_is_followed_by_the_others_and_explain_and_plan_say_so(opened):
    stack = opened(machine_for("h100-x8"))
    stack.configurations.assign_best()
    stack.apply()
    registered = stack.configurations.register(users("synthetic_data_generation", max_seq_len=8192, gpus=8))
    assert [config(stack, api).max_seq_len for api in APIS] == [8192] * 3
    assert config(stack, "eval").gpus == config(stack, "synthetic_data_generation").tensor_parallel_size == 8
    assert {change.provider.api for change in registered.plan.changes} == set(APIS)
    (origin,) = stack.explain("eval/instructlab", "gpus")
    assert origin.reason == (
        "the judge is served where the teacher of synthetic_data_generation/instructlab was"
    )
    (origin,) = stack.explain("synthetic_data_generation/instructlab", "tensor_parallel_size")
    assert origin.reason == "all 8 cards of the teacher"


def test_what_the_operator_set_does_not_follow(opened):
    stack = opened(machine_for("h100-x8"), eval={"gpus": 2}, post_training={"max_seq_len": 6000})
    stack.configurations.register(users("synthetic_data_generation", max_seq_len=5000, gpus=8))
    assert config(stack, "eval").gpus == 2
    assert config(stack, "post_training").max_seq_len == 6000
    assert config(stack, "eval").max_seq_len == 6000


@pytest.mark.parametrize("file", PROFILES, ids=lambda file: file.stem)
def test_no_profile_is_offered_that_its_hardware_cannot_hold(opened, file):
    """On the least machine that each is for, by the formulas."""
    data = yaml.safe_load(file.read_text())
    asked = read_requirement(data["hardware"])
    values = {api: data["providers"][api][0]["config"] for api in APIS}
    made, trained = values["synthetic_data_generation"], values["post_training"]
    if not asked.cards.slugs:
        if trained["pipeline"] != "simple":
            assert sizing.training_bytes_on_cpu(8e9, trained["max_batch_len"]) <= asked.memory_bytes
        return
    assert trained["nproc_per_node"] == asked.cards.count
    assert trained["effective_batch_size"] % trained["nproc_per_node"] == 0
    if trained["cpu_offload_optimizer"]:
        assert asked.memory_bytes >= 2 * 8e9 * sizing.BYTES_OF_OPTIMIZER
    for slug in asked.cards.slugs:
        (card, *_) = simulate(f"{slug}:{asked.cards.count}").accelerators
        holds = sizing.training_bytes(
            8e9,
            asked.cards.count,
            trained["max_batch_len"],
            offloaded=trained["cpu_offload_optimizer"],
        )
        assert holds <= card.memory_bytes, (slug, holds)
        assert sizing.serving_bytes(46.7e9, made["gpus"]) <= 0.9 * card.memory_bytes, slug
        assert 32 % made["gpus"] == 0, "Mixtral's heads"
        stack = opened(simulate(f"{slug}:{asked.cards.count},cpu=64,memory=192GiB"))
        assert stack.configurations.assign_best().name == f"instructlab/{file.stem}"
        assert stack.issues == ()


def test_a_card_of_fewer_bytes_than_its_label_holds_the_40_gb_profile():
    """NVML says 40960 MiB of most A100 with 40 GB, and 39936 MiB of some."""
    assert sizing.training_bytes(8e9, 4, 30_000, offloaded=True) <= 39936 * 1024**2
    assert sizing.serving_bytes(46.7e9, 4) <= 0.9 * 39936 * 1024**2


class Engine(BaseModel):
    pass


class Serving:
    provides = (ProviderType("inference", "inline::engine", Engine, accelerators=True),)


def test_the_three_have_one_share_and_the_profile_is_for_that(opened, tmp_path):
    """Beside a provider that serves all the time they have half of the machine, and take turns with it."""
    file = tmp_path / "both.yaml"
    serving = {"provider_id": "engine", "provider_type": "inline::engine"}
    file.write_text(yaml.safe_dump({"providers": {**providers(tmp_path), "inference": [serving]}}))
    registry = Registry(plugins=[Serving()])
    with Stack.open(file, registry=registry, hardware=machine_for("h100-x8"), environ={}) as stack:
        assert stack.shares["eval/instructlab"].reason == (
            "cards 0-3, in turn with post_training/instructlab, synthetic_data_generation/instructlab:"
            " 8 cards divided among 2 users"
        )
        assert [len(each.units) for each in stack.shares.values()] == [4, 4, 4, 4]
        assert config(stack, "post_training").nproc_per_node == 4
        chosen = stack.configurations.assign_best()
        assert chosen.name == "instructlab/h100-x4"
        assert str(chosen.fit).endswith("(its share is 4 of 8 cards)")
        listed = {each.name: each for each in stack.configurations.list(fit=True)}
        assert str(listed["instructlab/h100-x8"].fit) == (
            "near miss: 4 more cards h100-80gb-sxm (its share is 4 of 8 cards)"
        )
        assert stack.issues == ()


def test_a_part_of_each_card_is_no_card_of_a_profile_and_the_engines_take_their_part(tmp_path):
    file = tmp_path / "part.yaml"
    placed = {f"{api}/instructlab": {"cards": [0, 1, 2, 3], "memory": 0.5} for api in APIS}
    file.write_text(yaml.safe_dump({"stackconf": {"placement": placed}, "providers": providers(tmp_path)}))
    with Stack.open(file, registry=Registry(), hardware=machine_for("h100-x4"), environ={}) as stack:
        assert stack.issues == (), "they take turns, so 3 x 0.5 is not too much"
        listed = {each.name: str(each.fit) for each in stack.configurations.list(fit=True)}
        assert listed["instructlab/h100-x4"] == (
            "near miss: 4 more cards h100-80gb-pcie (4 are only in part its own)"
            " (its share is 4 of 4 cards and 0.5 of each)"
        )
        with pytest.raises(InvalidConfig, match="fits this machine"):
            stack.configurations.assign_best()
        assert config(stack, "eval").gpu_memory_utilization == 0.45
        assert sum(claim.share for claim in stack.resolution.claims if claim.unit == (0, None)) == 0.9


def test_what_does_not_fit_is_said_with_what_would(opened):
    stack = opened(simulate(f"l4:1,{HUGE}"))
    assert config(stack, "synthetic_data_generation").pipeline == "simple"
    assert any("it fits on 8 of them" in str(issue) for issue in stack.issues)
    stack = opened(simulate(f"l4:8,{HUGE}"), synthetic_data_generation={"gpus": 4})
    assert any(
        "a teacher of 46.7 billion weights takes about 23.7 GiB of each of its 4 cards" in str(issue)
        for issue in stack.issues
    )
    stack = opened(simulate("cpu=8,memory=32GiB"))
    assert config(stack, "post_training").pipeline == "simple"
    assert stack.issues == ()
    stack = opened(simulate("cpu=8,memory=32GiB"), post_training={"pipeline": "full"})
    assert ["in fp32 takes about" in str(issue) for issue in stack.issues] == [True]


def test_the_operators_contradiction_is_an_error_at_its_place(opened):
    stack = opened(machine_for("cpu"), eval={"gpus": 4})
    said = [str(issue) for issue in stack.issues]
    assert any("config.gpus: it takes 4, and the machine has no card" in each for each in said)
    with pytest.raises(InvalidConfig):
        stack.apply()


def test_apply_writes_the_values_and_nothing_else_and_a_second_one_touches_nothing(opened, tmp_path):
    stack = opened(machine_for("l40s-x4"))
    stack.configurations.assign_best()
    assert {each.state for each in stack.apply().outcomes} == {"applied"}
    written = {file.name: yaml.safe_load(file.read_text()) for file in tmp_path.glob("*.yaml")}
    assert written["post_training.yaml"]["max_batch_len"] == 30000
    assert "config_file" not in written["post_training.yaml"]
    assert written["eval.yaml"]["gpus"] == 4
    assert stack.apply().state == "nothing"


def test_undo_puts_back_what_was_there_and_check_sees_what_others_did(tmp_path):
    from stackconf import Provider
    from stackconf_instructlab.config import EvaluationConfig
    from stackconf_instructlab.files import apply

    provider = Provider("eval", "instructlab", "inline::instructlab")
    file = tmp_path / "deep" / "eval.yaml"
    given = EvaluationConfig(config_file=str(file))
    first = apply(provider, given, None)
    assert first.check() is None
    again = apply(provider, given, None)
    assert "is as it should be" in again.detail
    second = apply(provider, EvaluationConfig(config_file=str(file), few_shots=2), given)
    assert yaml.safe_load(file.read_text())["few_shots"] == 2
    second.undo()
    assert second.check_undo() is None
    assert yaml.safe_load(file.read_text())["few_shots"] == 5
    file.write_text("few_shots: 9\n")
    assert first.check() == f"{file} is not as it was written"
    kept = apply(provider, None, given)
    assert "is kept" in kept.detail
    assert file.exists()
    first.undo()
    assert not file.exists()
    assert first.check_undo() is None


def test_a_provider_that_leaves_takes_its_file_along(tmp_path):
    from stackconf import Provider
    from stackconf_instructlab.config import TrainingConfig
    from stackconf_instructlab.files import apply

    provider = Provider("post_training", "instructlab", "inline::instructlab")
    file = tmp_path / "train.yaml"
    given = TrainingConfig(config_file=str(file))
    apply(provider, given, None)
    left = apply(provider, None, given)
    assert not file.exists()
    left.undo()
    assert file.exists()


def test_importing_the_plugin_imports_no_heavy_library():
    done = fresh_process(
        "import sys, stackconf_instructlab.plugin; print({'pydantic', 'yaml', 'torch'} & {*sys.modules})"
    )
    assert done.stdout == "set()\n", done.stderr
