"""What is derived, on simulated machines: each row of `llama_sizes.txt` reckoned a second time.

Run as a program, this file writes `llama_sizes.txt` anew; the tests then say which row is wrong, if any.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from llama_gguf import llama
from llama_reckoning import GIB, MACHINES, MIB, MODELS, reckon

from stackconf import simulate
from stackconf_llama_cpp.machine import Card, Machine, cards
from stackconf_llama_cpp.memory import CACHE_TYPES, Slots, cache, compute_bytes, row_bytes, weights
from stackconf_llama_cpp.placing import Load, by_shares, spread, used
from stackconf_llama_cpp.search import MARGIN_BYTES, Asked
from stackconf_llama_cpp.sizing import size
from stackconf_models import OtherAttention, SlidingWindow, known_model, read_gguf

SIZES = Path(__file__).with_name("llama_sizes.txt")
BUILD = 11434
EIGHT = known_model("Llama-3.1-8B")


def box(expression: str) -> Machine:
    hardware = simulate(expression)
    memory = hardware.memory
    limited = memory.bound_by not in {None, "total"}
    cores = hardware.cpu.usable_physical_cores
    return Machine(cards(hardware), cores, memory.usable_bytes, limited, memory.swap_bytes)


def told(expression: str, model: str):
    return size(Asked(model, "Q4_K_M", BUILD), box(expression))


def row(expression: str, model: str) -> str:
    found = told(expression, model)
    if found.problem:
        return f"-\n    {found.problem}\n    {found.advice}"
    values, reasons = found.values, found.reasons
    how = f" {'that share' if values['kv_unified'] else 'apart'}" if values["parallel"] > 1 else ""
    head = f"{values['n_gpu_layers']} layers, context {values['ctx_size']}, slots {values['parallel']}{how}"
    parts = [f"{name} {values[name]}" for name in ("threads", "no_mmap", "cache_ram")]
    if values.get("split_mode"):
        parts.append(str(values.get("tensor_split") or f"card {values['main_gpu']} alone"))
    named = [reasons[name] for name in ("n_gpu_layers", "ctx_size")]
    return "\n    ".join([f"{head}; {', '.join(parts)}", *named])


def table() -> str:
    lines = []
    for expression in MACHINES:
        lines.append(f"== {expression}, b{BUILD}, Q4_K_M")
        lines += [f"{name}: {row(expression, name)}" for name in MODELS]
    return "\n".join(lines) + "\n"


def committed() -> dict[tuple[str, str], str]:
    found = {}
    for section in SIZES.read_text(encoding="utf-8").split("== ")[1:]:
        head, _, body = section.partition("\n")
        for each in re.split(r"\n(?! )", body.rstrip("\n")):
            name, _, rest = each.partition(": ")
            found[head.removesuffix(f", b{BUILD}, Q4_K_M"), name] = rest
    return found


GOLDEN = committed() if SIZES.exists() else {}


# --- the table --------------------------------------------------------------------------------------


def test_the_table_is_as_it_was_reviewed():
    assert table() == SIZES.read_text(encoding="utf-8")


def test_the_table_has_every_machine_and_model():
    assert set(GOLDEN) == {(expression, name) for expression in MACHINES for name in MODELS}


@pytest.mark.parametrize(("expression", "name"), GOLDEN)
def test_each_row_reckoned_a_second_time(expression, name):
    golden, machine = GOLDEN[expression, name], MACHINES[expression]
    best = reckon(MODELS[name], machine)
    if best is None:
        assert golden.startswith("-\n    does not fit: ")
        return
    share = f" {'that share' if best.shared else 'apart'}" if best.slots > 1 else ""
    assert golden.startswith(f"{best.layers} layers, context {best.context}, slots {best.slots}{share}; ")
    everything = best.layers == MODELS[name].layers + 1
    assert f"threads {min(4, machine.cores) if everything else machine.cores}," in golden
    if len(machine.rooms) > 1 and best.cards == 1:
        assert "card 0 alone" in golden
    elif len(machine.rooms) > 1:
        split = [float(each) for each in re.search(r"\[(.*)\]", golden)[1].split(",")]
        assert sum(split) == best.layers
        assert sum(each > 0 for each in split) == best.cards


@pytest.mark.parametrize(("expression", "name"), GOLDEN)
def test_the_amounts_in_the_reasons_are_the_reckoned_ones(expression, name):
    golden, machine, model = GOLDEN[expression, name], MACHINES[expression], MODELS[name]
    best = reckon(model, machine)
    found = re.search(r"([\d.]+) GiB left of ([\d.]+) GiB", golden)
    if best is None or found is None:
        assert best is None or 0 < best.layers <= model.layers
        return
    each = best.context if best.shared or best.slots == 1 else best.context // 4
    kept = model.layers * model.layer + model.output + model.computing(each) * max(1, best.cards)
    room = sum(sorted(machine.rooms, reverse=True)[: best.cards]) or machine.host
    left = room - kept - (0 if machine.rooms else model.input)
    assert float(found[1]) == pytest.approx(left / GIB, abs=0.06)
    assert float(found[2]) == pytest.approx(room / GIB, abs=0.06)
    assert f"KV cache {model.token // 1024} KiB per token" in golden


README = Path(__file__).parents[1].joinpath("README.md")


@pytest.mark.parametrize(
    ("machine", "expression"),
    [
        ("16 GiB, no card", "cpu=8/16,memory=16GiB"),
        ("1 x L4, 32 GiB", "l4,cpu=8/16,memory=32GiB"),
        ("RTX 4090, 64 GiB", "rtx-4090,cpu=16/32,memory=64GiB"),
        ("2 x L40S", "l40s:2,cpu=32/64,memory=128GiB"),
        ("8 x H100", "h100-80gb-sxm:8,cpu=96/192,memory=1TiB"),
    ],
)
def test_the_readmes_table_says_the_same(machine, expression):
    line = next(
        each for each in README.read_text(encoding="utf-8").splitlines() if each.startswith(f"| {machine} |")
    )
    for cell, model in zip(line.split(" | ")[1:], MODELS, strict=False):
        found = told(expression, model)
        if found.problem:
            assert cell.strip(" |") == f"does not fit; {found.advice}"
            continue
        times = "4 x " if found.values["parallel"] == 4 and not found.values["kv_unified"] else ""
        assert f"{times}{found.placed.slots.each}" in cell
        if found.placed.gpu_layers:
            everything = found.placed.gpu_layers == found.shape.layers + 1
            assert cell.startswith("all" if everything else f"{found.placed.gpu_layers} of 81 layers, ")


# --- formulas, with the figures of their sources --------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "context", "ubatch", "flash", "logged"),
    [
        # "CUDA0 compute buffer size" with flash_attn = 0, as public logs of 2024 and 2025 have it. Exactly.
        ("Llama-3.1-8B", 512, 512, False, 258.50),
        ("Llama-3.1-8B", 8192, 512, False, 560.00),
        # https://github.com/fedora-copr/logdetective/pull/106
        ("Mistral-7B-Instruct-v0.3", 2048, 512, False, 164.00),
        ("Mistral-7B-Instruct-v0.3", 32768, 512, False, 2144.00),
    ],
)
def test_what_computing_takes_is_what_llama_cpp_logs_on_a_card(model, context, ubatch, flash, logged):
    assert compute_bytes(known_model(model), ubatch=ubatch, context=context, flash=flash) == logged * MIB


@pytest.mark.parametrize(
    ("context", "ubatch", "flash", "logged"),
    [
        (8192, 512, False, 580.01),
        (16384, 512, False, 1108.01),
        (32768, 512, False, 2164.01),
        (512, 512, False, 129.01),
        (8192, 512, True, 132.02),
        (65536, 512, True, 188.02),
        (131072, 512, True, 252.02),
        (8192, 2048, True, 528.07),
    ],
)
def test_what_computing_takes_is_not_less_than_on_a_processor(context, ubatch, flash, logged):
    """`CPU compute buffer size` of b11434, logged here for the sizes of Llama 3.1 8B. It asks for the
    words of a few tokens only, so the formula is an upper bound; but for 20 MiB without flash attention."""
    formula = compute_bytes(EIGHT, ubatch=ubatch, context=context, flash=flash) / MIB
    assert formula >= 0.96 * logged


@pytest.mark.parametrize(
    ("slots", "kinds", "logged"),
    [
        # b11434, Llama 3.1 8B: "KV buffer size", "K (q8_0): 272.00 MiB, V (f16): 512.00 MiB". Exactly.
        (Slots(8192), ("f16", "f16"), 1024),
        (Slots(8192, 4), ("f16", "f16"), 1024),
        (Slots(16384), ("f16", "f16"), 2048),
        (Slots(8192), ("q8_0", "f16"), 784),
        (Slots(512), ("f16", "f16"), 64),
    ],
)
def test_the_cache_is_what_llama_cpp_logs(slots, kinds, logged):
    kept = cache(EIGHT, type_k=kinds[0], type_v=kinds[1]).value
    assert kept.size(slots) == logged * MIB


def test_the_tables_of_words_are_what_llama_cpp_logs():
    """Llama 3 8B, Q4_0 with a Q6_K output: `CPU buffer size = 281.81 MiB`, the incoming words alone."""
    q4_0 = 128256 * 4096 // 32 * 18
    assert q4_0 / MIB == pytest.approx(281.81, abs=0.01)
    told = weights(EIGHT, "Q4_K_M").value
    assert told.output / MIB == pytest.approx(410.98, abs=0.01)


@pytest.mark.parametrize(("label", "gib"), [("Q4_K_M", 4.58), ("Q8_0", 7.95), ("Q2_K", 2.95), ("F16", 14.96)])
def test_the_weights_are_those_of_llama_quantizes_table(label, gib):
    """Within 0.2 %: the table has two digits."""
    told = weights(EIGHT, label).value
    assert told.total / GIB == pytest.approx(gib, rel=2e-3)


def test_windows_keep_a_micro_batch_more_padded_and_for_each_slot():
    """Gemma 3's windows of 1024 with 512: 1536 cells in each of the slots; shared, 1024 for each and 512."""
    model = evolve(EIGHT, attention=SlidingWindow(1024, 20))
    layer, kept = 2 * row_bytes(1024, "f16"), cache(model).value
    assert kept.size(Slots(32768)) == layer * (12 * 32768 + 20 * 1536)
    assert kept.size(Slots(32768, 4)) == layer * (12 * 32768 + 20 * 1536 * 4)
    assert kept.size(Slots(32768, 4, shared=True)) == layer * (12 * 32768 + 20 * (4 * 1024 + 512))


def test_a_file_says_what_stays_in_main_memory(tmp_path):
    shape = read_gguf(llama(tmp_path / "tiny.gguf"))
    told = weights(shape).value
    assert told.input == 1024 * 256 // 256 * 144
    assert told.output == 1024 * 256 // 256 * 210 + 256 * 4
    assert told.total == shape.weight_bytes


# --- what is set ----------------------------------------------------------------------------------------

SETTINGS = {
    "n_gpu_layers": st.integers(0, 40),
    "ctx_size": st.integers(256, 300_000),
    "parallel": st.integers(1, 8),
    "kv_unified": st.booleans(),
    "batch_size": st.integers(32, 8192),
    "ubatch_size": st.integers(32, 4096),
    "threads": st.integers(1, 64),
    "threads_batch": st.integers(1, 64),
    "flash_attn": st.sampled_from(["on", "off", "auto"]),
    "cache_type_k": st.sampled_from(sorted(CACHE_TYPES)),
    "cache_type_v": st.sampled_from(sorted(CACHE_TYPES)),
    "split_mode": st.sampled_from(["none", "layer", "row"]),
    "main_gpu": st.integers(0, 1),
    "mlock": st.booleans(),
    "no_mmap": st.booleans(),
    "cache_ram": st.integers(0, 9000),
}
BUILDS = st.sampled_from([None, 5000, 7079, 10114, 11434])
asked = st.fixed_dictionaries({}, optional=SETTINGS)
sizes = st.lists(st.floats(1.5, 90), min_size=0, max_size=4)


def with_cards(gib, memory=64.0):
    listed = tuple(Card("card", int(each * GIB), (8, 9)) for each in gib)
    return Machine(listed, 16, None if memory is None else int(memory * GIB), False, 0)


@given(given_=asked, gib=sizes, memory=st.none() | st.floats(2, 200), build=BUILDS)
def test_what_is_set_is_never_derived_and_what_is_derived_fits(given_, gib, memory, build):
    machine = with_cards(gib, memory)
    found = size(Asked("Llama-3.1-8B", "Q4_K_M", build, **given_), machine)
    assert not found.values.keys() & given_.keys()
    placed = found.placed
    if placed is None:
        assert found.problem or found.unknown
        return
    assert 0 <= placed.gpu_layers <= 33
    assert sum(placed.counts) == (placed.gpu_layers if placed.counts else 0)
    for card, held in zip(machine.cards, placed.used, strict=False):
        assert held <= card.memory_bytes - MARGIN_BYTES
    if machine.memory_bytes is not None:
        assert placed.host <= max(machine.memory_bytes - MARGIN_BYTES, 0)
    if "ctx_size" not in given_:
        assert placed.slots.each <= 131_072
        assert placed.slots.each % 256 == 0
    else:
        assert placed.slots.context == given_["ctx_size"]


@given(
    gib=sizes.filter(bool), more=st.floats(0, 60), memory=st.floats(4, 300), extra=st.floats(0, 200),
    build=BUILDS, name=st.sampled_from([*MODELS, "Mixtral-8x7B-Instruct-v0.1", "gemma-2-9b-it"]),
)  # fmt: skip
def test_more_memory_never_gives_a_smaller_context_or_fewer_layers(gib, more, memory, extra, build, name):
    question = Asked(name, "Q4_K_M", build)
    less = size(question, with_cards(gib, memory))
    larger = size(question, with_cards([each + more for each in gib], memory + extra))
    if less.placed is None:
        return
    assert larger.placed is not None
    assert larger.placed.slots.each >= less.placed.slots.each
    assert larger.values["ctx_size"] >= less.values["ctx_size"]
    assert larger.values["n_gpu_layers"] >= less.values["n_gpu_layers"]


@given(memory=st.floats(2, 300), extra=st.floats(0, 200), build=BUILDS)
def test_more_main_memory_never_gives_a_smaller_context(memory, extra, build):
    question = Asked("Llama-3.1-8B", "Q4_K_M", build)
    less, larger = size(question, with_cards([], memory)), size(question, with_cards([], memory + extra))
    if less.placed is not None:
        assert larger.placed.slots.each >= less.placed.slots.each
        assert larger.values["ctx_size"] >= less.values["ctx_size"]


@given(
    layers=st.lists(st.integers(1, 100), min_size=1, max_size=40), output=st.integers(0, 300),
    rooms=st.lists(st.integers(0, 2000), min_size=1, max_size=5), compute=st.integers(0, 50),
)  # fmt: skip
def test_a_spread_fits_and_its_shares_mean_the_same_to_llama_cpp(layers, output, rooms, compute):
    load = Load(tuple(layers), output, compute)
    counts = spread(load, rooms, len(layers) + 1)
    if counts is not None:
        assert all(held <= room for held, room in zip(used(load, counts), rooms, strict=True))
        assert by_shares(counts, sum(counts)) == counts


# --- cases ----------------------------------------------------------------------------------------------


def test_layers_that_somebody_chose_leave_their_room_to_the_context():
    machine = with_cards([12])
    some = size(Asked("Llama-3.1-8B", "Q4_K_M", BUILD, n_gpu_layers=20), machine)
    all_of_them = size(Asked("Llama-3.1-8B", "Q4_K_M", BUILD), machine)
    assert some.values["ctx_size"] > all_of_them.values["ctx_size"]
    assert "n_gpu_layers" not in some.values


def test_a_context_that_somebody_chose_pushes_layers_out():
    found = size(Asked("Llama-3.1-8B", "Q4_K_M", BUILD, ctx_size=65536), with_cards([8]))
    assert 0 < found.values["n_gpu_layers"] < 33
    assert "then layers of" in found.reasons["n_gpu_layers"]


def test_what_does_not_fit_says_what_would():
    found = size(Asked("Llama-3.3-70B-Instruct", "Q8_0", BUILD), with_cards([24], 32))
    assert found.problem.startswith("does not fit: 69.8 GiB weights, 1.2 GiB cache for 4096 tokens")
    assert found.problem.endswith("there are 23 GiB on card and 24 GiB of main memory")
    assert found.advice == "Q4_K_M weights, 40.2 GiB would do"
    longer = size(Asked("Llama-3.1-8B", "Q4_K_M", BUILD, ctx_size=1_000_000), with_cards([24], 32))
    assert longer.advice.startswith("a context of at most 131072")
    fewer = size(Asked("Llama-3.1-8B", "Q4_K_M", BUILD, n_gpu_layers=33, ctx_size=16384), with_cards([6], 32))
    assert "with 33 of 33 layers on the devices" in fewer.problem
    assert fewer.advice == "24 layers would do"
    alone = size(Asked("Llama-3.1-8B", "Q4_K_M", BUILD), with_cards([], 6))
    assert alone.advice.startswith("Q3_K_M weights, ")
    assert alone.advice.endswith("GiB of main memory would do")


def test_an_old_or_unknown_build_is_given_what_every_build_takes():
    """Layers without the output, slots with a cache each, flash attention by what the card has."""
    new, old = (size(Asked("Llama-3.1-8B", "Q4_K_M", build), with_cards([4])) for build in (BUILD, None))
    assert old.values["n_gpu_layers"] == new.values["n_gpu_layers"] - 1
    assert old.reasons["n_gpu_layers"].endswith("builds before b11434 may count without the output")
    assert (old.values["flash_attn"], new.values["flash_attn"]) == ("on", "auto")
    assert not old.values["kv_unified"]
    many = size(Asked("Llama-3.1-8B", "Q4_K_M", None), with_cards([48]))
    assert (many.values["parallel"], many.values["ctx_size"]) == (2, 2 * 131072)


@pytest.mark.parametrize(
    ("card", "value"),
    [
        (Card("P100", 16 * GIB, (6, 0)), None),
        (Card("T4", 16 * GIB, (7, 5)), "on"),
        (Card("MI210", 64 * GIB, None, "amd"), None),
    ],
)
def test_flash_attention_is_asked_for_where_the_card_has_it(card, value):
    found = size(Asked("Llama-3.1-8B", "Q4_K_M", None), Machine((card,), 8, 64 * GIB))
    assert found.values.get("flash_attn") == value
    # Without it the scores of every head need memory, and the context is shorter.
    assert found.values["ctx_size"] % 256 == 0


def test_a_quantised_cache_gives_a_longer_context():
    machine = with_cards([8])
    plain, half = (
        size(Asked("Llama-3.1-8B", "Q4_K_M", BUILD, cache_type_k=kind, cache_type_v=kind), machine)
        for kind in ("f16", "q8_0")
    )
    assert half.values["ctx_size"] / plain.values["ctx_size"] == pytest.approx(128 / 68, rel=0.05)


def test_a_limit_on_each_card_is_kept():
    found = size(Asked("Llama-3.1-8B", "Q4_K_M", BUILD, accelerator_bytes=10 * GIB), with_cards([24, 24]))
    assert max(found.placed.used) <= 10 * GIB


def test_shares_and_a_single_device_are_computed_with():
    machine = with_cards([24, 24])
    uneven = size(Asked("Llama-3.1-8B", "Q4_K_M", BUILD, tensor_split=(3.0, 1.0)), machine)
    assert uneven.placed.counts == (25, 8)
    one = size(Asked("Llama-3.1-8B", "Q4_K_M", BUILD, split_mode="none", main_gpu=1), machine)
    assert one.placed.counts == (0, 33)
    main = size(Asked("Llama-3.1-8B", "Q4_K_M", BUILD, main_gpu=1), machine)
    assert (main.values["split_mode"], main.placed.counts) == ("none", (0, 33))
    both = size(Asked("Llama-3.1-8B", "Q4_K_M", BUILD, split_mode="layer"), machine)
    assert both.values["tensor_split"] == [16.0, 17.0]


def test_a_device_of_unknown_memory_keeps_its_place_and_gets_nothing():
    known = Card("card", 24 * GIB, (8, 9))
    machine = Machine((Card("other"), known, known), 16, 64 * GIB, False, 0)
    found = size(Asked("Llama-3.3-70B-Instruct", "Q4_K_M", BUILD), machine)
    assert found.values["tensor_split"][0] == 0
    assert len(found.values["tensor_split"]) == 3


@pytest.mark.parametrize(
    ("machine", "no_mmap", "mlock"),
    [
        (Machine((), 8, 16 * GIB, False, 0), False, False),
        (Machine((), 8, 16 * GIB, False, None), False, None),
        (Machine((), 8, 16 * GIB, True, 0), True, False),
        (Machine((), 8, 16 * GIB, False, 2 * GIB), False, True),
        (Machine((), 8, 9 * GIB, False, 2 * GIB), False, False),
        (Machine((Card("L4", 23034 * MIB, (8, 9)),), 8, 16 * GIB, True, 2 * GIB), False, False),
    ],
)
def test_how_the_file_is_loaded_follows_from_the_limit_and_the_swap(machine, no_mmap, mlock):
    found = size(Asked("Llama-3.1-8B", "Q4_K_M", BUILD), machine)
    assert (found.values["no_mmap"], found.values.get("mlock")) == (no_mmap, mlock)


def test_cards_that_compute_in_main_memory_have_every_layer():
    machine = Machine((Card("GB10", None, (12, 1), unified=True),), 20, 119 * GIB, False, 0)
    found = size(Asked("Llama-3.3-70B-Instruct", "Q4_K_M", BUILD), machine)
    assert found.values["n_gpu_layers"] == 81
    assert found.values["ctx_size"] == 131072
    assert found.reasons["n_gpu_layers"] == "all 81: GB10 computes in main memory"
    half = evolve(machine, cards=(evolve(machine.cards[0], share=0.475),))
    shared = size(Asked("Llama-3.3-70B-Instruct", "Q4_K_M", BUILD), half)
    assert shared.placed.host <= 0.475 * 119 * GIB
    assert 0 < shared.values["ctx_size"] < 20_000


def test_what_is_unknown_gives_no_sizes_and_says_why():
    nothing = size(Asked("Llama-3.1-8B", "Q4_K_M", BUILD), Machine())
    assert nothing.unknown == "what there is to compute on is unknown; `stackconf hardware` says why"
    assert "ctx_size" not in nothing.values
    assert size(Asked("Llama-3.1-8B", "Q4_K_M"), Machine((), 8)).unknown.endswith("main memory is unknown")
    assert "set model_path or quantization" in size(Asked("Llama-3.1-8B"), with_cards([24])).unknown
    other = evolve(EIGHT, attention=OtherAttention("it has states"))
    assert cache(other).reason.endswith("it has states")
    blind = size(Asked("Llama-3.1-8B", "Q4_K_M", BUILD), Machine((Card("X"),), 8, 64 * GIB))
    assert blind.values["n_gpu_layers"] == 0
    assert blind.reasons["n_gpu_layers"] == "the memory of X is unknown, so it is not used"


if __name__ == "__main__":
    SIZES.write_text(table(), encoding="utf-8")
