from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from stackconf import Accelerator, Hardware, MigInstance, Problem, because
from stackconf.testing import GIB, machine, no_hardware
from stackconf_ollama import plugin
from stackconf_ollama.config import OllamaConfig
from stackconf_ollama.defaults import KV_BYTES_PER_TOKEN, facts

MIB = 1024**2


def context_length(hardware):
    """`num_ctx` where nothing is known of the model: its value and reason, `None` where none is set."""
    given = {name: because.value for name, because in facts(hardware).items()}
    config = OllamaConfig(**given)
    reason = config.stackconf_reasons.get("num_ctx", "")
    return None if config.num_ctx is None else because(config.num_ctx, reason)


def cards(*sizes_mib, **facts):
    return [Accelerator("nvidia", memory_bytes=size and size * MIB, **facts) for size in sizes_mib]


@pytest.mark.parametrize(
    ("sizes_mib", "tokens"),
    [
        ([15360], 4096),  # Tesla T4
        ([24564], 32768),  # GeForce RTX 4090: 23.99 GiB
        ([23034], 4096),  # L4: 22.5 GiB, just under the step
        ([15360, 15360], 32768),
        ([46068], 32768),  # L40S
        ([81559], 262144),  # H100 80 GB
        ([24564, 24564], 262144),
    ],
)
def test_context_by_the_sum_of_visible_memory(sizes_mib, tokens):
    assert context_length(machine(accelerators=cards(*sizes_mib))).value == tokens


@pytest.mark.parametrize(
    ("gib", "said"),
    [
        (24, "16384 tokens at 128 KiB each take 2 GiB, the largest power of two within 1/8 of 24 GiB"),
        (512, "32768 tokens at 128 KiB each take 4 GiB, the most that is set; 1/8 of 512 GiB"),
        (1, "2048 tokens at 128 KiB each take 256 MiB, the least that is set; 1/8 of 1 GiB"),
    ],
)
def test_the_reason_without_accelerators_is_the_sum_that_was_done(gib, said):
    assert said in context_length(machine(memory_gib=gib)).reason


def test_a_detector_that_failed_might_have_seen_an_accelerator():
    failed = Problem("acme", "everything", "timeout", "did not answer within 10 s")
    box = machine(memory_gib=16)
    assert context_length(evolve(box, problems=(*box.problems, failed))) is None


def test_the_reason_holds_the_numbers():
    because = context_length(machine(accelerators=cards(81559)))
    assert because.reason == "79.6 GiB on 1 visible accelerator: Ollama's step for at least 47 GiB"


def test_a_hidden_card_does_not_count():
    both = cards(81559) + cards(81559, visible=False)
    assert "on 1 visible accelerator:" in context_length(machine(accelerators=both)).reason
    hidden = machine(memory_gib=16, accelerators=cards(81559, visible=False))
    assert context_length(hidden).value == 16384


def test_the_instances_of_a_cut_card_count_and_not_the_card():
    cut = Accelerator(
        "nvidia", memory_bytes=80 * GIB, mig_enabled=True, mig=[MigInstance(memory_bytes=10 * GIB)]
    )
    assert context_length(machine(accelerators=[cut])).value == 4096
    unknown = evolve(cut, mig=[MigInstance()])
    assert context_length(machine(accelerators=[unknown])) is None


def test_unknown_card_memory_is_not_zero():
    assert context_length(machine(accelerators=cards(None))) is None
    partly = context_length(machine(accelerators=cards(24564, None)))
    assert partly.value == 32768
    assert "at least 24.0 GiB" in partly.reason
    assert "1 of unknown size" in partly.reason


@pytest.mark.parametrize(
    ("memory_gib", "tokens"),
    [(0.5, 2048), (4, 4096), (8, 8192), (15.5, 8192), (16, 16384), (64, 32768), (512, 32768)],
)
def test_context_by_main_memory_without_accelerators(memory_gib, tokens):
    assert context_length(machine(memory_gib=memory_gib)).value == tokens


def test_the_memory_limit_counts():
    assert context_length(machine(memory_gib=256, memory_limit_gib=4)).value == 4096


def test_whether_there_are_accelerators_may_be_unknown():
    box = machine(memory_gib=64)
    timeout = Problem("nvidia", "accelerators", "timeout", "no answer within 5 s")
    assert context_length(evolve(box, problems=[timeout])) is None
    assert context_length(evolve(box, problems=())) is None
    absent = Problem("amd", "accelerators", "absent", "no driver")
    assert context_length(evolve(box, problems=[*box.problems, absent, timeout])) is None
    assert context_length(evolve(box, problems=[*box.problems, absent])).value == 32768


def test_threads_follow_the_quota():
    defaults = plugin.default_config(hardware=machine(cores=16, cpu_quota=4.5))
    assert defaults["num_thread"].value == 4
    assert "4 usable of 16 physical cores" in defaults["num_thread"].reason


def test_nothing_is_said_of_an_unknown_machine():
    assert plugin.default_config(hardware=no_hardware()) is None
    assert plugin.default_config(hardware=Hardware()) is None


def values(hardware):
    return {name: each.value for name, each in (plugin.default_config(hardware=hardware) or {}).items()}


@given(
    st.integers(1, 512),
    st.floats(0.25, 4096),
    st.lists(st.one_of(st.none(), st.integers(1, 300_000)), max_size=9),
)
def test_defaults_are_always_valid_and_bounded(cores, memory_gib, sizes):
    box = machine(cores=cores, memory_gib=memory_gib, accelerators=cards(*sizes))
    config = OllamaConfig(**values(box))
    assert config.num_thread <= cores
    if config.num_ctx is not None and not sizes:
        share = box.memory.usable_bytes // 8
        assert config.num_ctx == 2048 or config.num_ctx * KV_BYTES_PER_TOKEN <= share


def validated(user_config, hardware, **config):
    return list(plugin.validate_user_config(user_config, OllamaConfig(**config), hardware))


def test_this_machines_figures_for_another_machine_are_warned_of():
    box = machine(cores=8, memory_gib=16)
    config = {"url": "http://gpu-box:11434", "model": "llama3.2", "num_ctx": 16384, "num_thread": 8}
    issues = validated({"url": "http://gpu-box:11434"}, box, **config)
    assert [(issue.path, issue.level) for issue in issues] == [("num_thread", "warning")]
    assert "null" in issues[0].hint
    away = OllamaConfig(url="http://gpu-box:11434", **values(box))
    assert (away.num_ctx, away.devices, away.memory_bytes) == (None, None, None)
    assert away.stackconf_reasons["num_ctx"] == (
        "not set: Ollama runs at http://gpu-box:11434, of which this machine's hardware says nothing"
    )
    assert validated({"num_ctx": 16384, "num_thread": 8}, box, **config) == []
    assert validated({}, box, **{**config, "num_ctx": None, "num_thread": None}) == []
    assert validated({}, box, **{**config, "url": "http://localhost:11434"}) == []


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]", "0.0.0.0", "ollama.localhost"]
)
def test_addresses_of_this_machine(host):
    box = machine(cores=8, memory_gib=16)
    assert validated({}, box, url=f"http://{host}:11434", model="a", num_ctx=16384) == []


def test_more_threads_than_cores_are_warned_of():
    issues = validated({"num_thread": 64}, machine(cores=4), model="a", num_thread=64)
    assert [issue.path for issue in issues] == ["num_thread"]
    assert issues[0].hint == "use at most 4"
    assert validated({"num_thread": 64}, no_hardware(), model="a", num_thread=64) == []


def test_options_without_a_model_are_warned_of():
    issues = validated({"num_ctx": 4096}, machine(), num_ctx=4096)
    assert [(issue.path, issue.hint) for issue in issues] == [("num_ctx", "set model")]


def test_a_missing_port_and_two_servers_and_withheld_credentials_are_warned_of():
    box = no_hardware()
    assert [i.path for i in validated({"url": "http://gpu"}, box, url="http://gpu")] == ["url"]
    assert validated({"url": "https://gpu"}, box, url="https://gpu") == []
    two = validated({}, box, url="http://a:1", base_url="http://b:1/v1")
    assert [issue.path for issue in two] == ["base_url"]
    withheld = validated(
        {"url": "http://a:1"}, box, url="http://a:1", base_url="http://b:1/v1", auth_credential="CANARY"
    )
    assert [issue.path for issue in withheld] == ["url"]
    assert "CANARY" not in str(withheld)
