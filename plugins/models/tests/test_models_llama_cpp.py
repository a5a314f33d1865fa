from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from models_kit import GIB, MIB

from stackconf_models import Device, OtherAttention, known_model, kv_cache, llama_cpp_fit
from stackconf_models.llama_cpp import MARGIN_BYTES, _compute

# Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf
Q4 = evolve(known_model("Llama-3.1-8B"), weight_bytes=4_920_739_232)
PER_TOKEN = 131_072


def card(gib: float) -> Device:
    return Device("card", int(gib * GIB))


def test_the_compute_buffer_is_the_one_that_llama_cpp_logs():
    """`CUDA0 compute buffer size = 258.50 MiB`, Llama 3 8B with a micro-batch of 512."""
    assert _compute(Q4) == 258.5 * MIB


def test_on_a_large_card_nothing_is_changed():
    answer = llama_cpp_fit(Q4, [card(24)])
    assert (answer.fits, answer.gpu_layers.value, answer.context.value) == (True, 33, 131_072)
    assert answer.context.reason.startswith("the model's own; 4.6 GiB weights, KV cache 128 KiB per token, ")


def test_first_the_context_is_shrunk_to_a_multiple_of_256():
    answer = llama_cpp_fit(Q4, [card(8)])
    assert answer.gpu_layers.value == 33
    tokens = (8 * GIB - MARGIN_BYTES - Q4.weight_bytes - _compute(Q4)) // PER_TOKEN
    assert answer.context.value == tokens // 256 * 256
    assert 4096 < answer.context.value < 131_072


def test_then_layers_are_left_to_main_memory():
    answer = llama_cpp_fit(Q4, [card(4)], host_bytes=32 * GIB)
    assert (answer.fits, answer.context.value) == (True, 4096)
    output = -(-Q4.weight_bytes // 33)  # nothing better is known without a GGUF header
    room = 4 * GIB - MARGIN_BYTES - _compute(Q4) - output
    assert answer.gpu_layers.value == 1 + room // (output + 4096 * PER_TOKEN // 32)
    assert "stay in main memory" in answer.gpu_layers.reason


def test_the_sizes_of_a_gguf_header_decide_where_there_is_one():
    """The output of a model with many words is larger than three layers: it is put first."""
    small, outside = 100 * MIB, 1000 * MIB
    model = evolve(Q4, layer_bytes=(small,) * 32, weight_bytes=32 * small + outside)
    each = small + 4096 * PER_TOKEN // 32
    room = MARGIN_BYTES + _compute(Q4) + outside + 7 * each
    assert llama_cpp_fit(model, [Device("card", room)]).gpu_layers.value == 8
    assert llama_cpp_fit(model, [Device("card", room - 1)]).gpu_layers.value == 7
    less = MARGIN_BYTES + _compute(Q4) + outside - 1
    assert llama_cpp_fit(model, [Device("card", less)]).gpu_layers.value == 0


def test_what_main_memory_cannot_hold_does_not_fit():
    answer = llama_cpp_fit(Q4, [card(2)], host_bytes=1 * GIB)
    assert answer.fits is False
    assert "which has 1 GiB only" in answer.gpu_layers.reason
    assert llama_cpp_fit(Q4, [card(2)]).fits is None


def test_the_users_context_is_kept_and_layers_give_way():
    answer = llama_cpp_fit(Q4, [card(8)], context=65_536)
    assert (answer.context.value, answer.context.reason) == (65_536, "the user's")
    assert 0 < answer.gpu_layers.value < 33


def test_two_cards_lose_part_of_a_layer_each():
    one, two = llama_cpp_fit(Q4, [card(8)]), llama_cpp_fit(Q4, [card(4.63), card(4.63)])
    assert two.gpu_layers.value == 33
    assert two.context.value < one.context.value
    sequences = llama_cpp_fit(Q4, [card(8)], sequences=4)
    assert sequences.context.value % (4 * 256) == 0


def test_without_a_card_main_memory_decides():
    answer = llama_cpp_fit(Q4, [], host_bytes=8 * GIB)
    assert (answer.fits, answer.gpu_layers.value) == (True, 0)
    assert answer.context.value % 256 == 0
    assert llama_cpp_fit(Q4, [], host_bytes=4 * GIB).fits is False
    assert llama_cpp_fit(Q4, []).fits is None


def test_a_card_of_unknown_memory_is_not_used():
    answer = llama_cpp_fit(Q4, [Device("GB10")], host_bytes=64 * GIB)
    assert answer.gpu_layers.value == 0
    assert answer.gpu_layers.reason == "the memory of GB10 is unknown, so it is not used"


@pytest.mark.parametrize(
    "change", [{"weight_bytes": None}, {"vocabulary": None}, {"attention": OtherAttention("x")}]
)
def test_what_is_unknown_stays_unknown(change):
    answer = llama_cpp_fit(evolve(Q4, **change), [card(24)])
    assert (answer.fits, answer.gpu_layers.value, answer.context.value) == (None, None, None)
    assert answer.context.reason


rooms = st.lists(st.floats(1, 100), min_size=1, max_size=4)


@given(sizes=rooms, more=st.floats(0, 50), weights=st.integers(GIB, 80 * GIB), sequences=st.integers(1, 4))
def test_more_memory_never_gives_a_smaller_context_or_fewer_layers(sizes, more, weights, sequences):
    model = evolve(Q4, weight_bytes=weights)
    less = llama_cpp_fit(model, [card(size) for size in sizes], sequences=sequences)
    larger = llama_cpp_fit(model, [card(size + more) for size in sizes], sequences=sequences)
    assert larger.context.value >= less.context.value
    assert larger.gpu_layers.value >= less.gpu_layers.value
    assert 0 <= less.gpu_layers.value <= 33


@given(sizes=rooms, weights=st.integers(GIB, 80 * GIB), context=st.none() | st.integers(256, 200_000))
def test_all_layers_on_the_cards_really_fit(sizes, weights, context):
    model = evolve(Q4, weight_bytes=weights)
    have = [card(size) for size in sizes]
    answer = llama_cpp_fit(model, have, context=context)
    assert context is None or answer.context.value == context
    if answer.fits:
        used = weights + kv_cache(model).value.size(answer.context.value) + _compute(model) * len(have)
        assert used <= sum(each.memory_bytes - MARGIN_BYTES for each in have)
