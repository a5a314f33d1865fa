from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from models_kit import GIB, MIB

from stackconf import Accelerator, MigInstance
from stackconf.testing import machine, no_hardware
from stackconf_models import (
    Device,
    Experts,
    FullAttention,
    KvCache,
    LatentAttention,
    ModelShape,
    NoCache,
    OtherAttention,
    Quantisation,
    Serving,
    SlidingWindow,
    activation_bytes,
    allowed_tp,
    choose_dtype,
    choose_tp,
    devices,
    fit,
    known_model,
    known_models,
    kv_cache,
    start_problem,
    supports,
    tp_problem,
    vllm_defaults,
    weight_bytes,
)
from stackconf_models.memory import OTHER_BYTES, nccl_bytes

T4 = Device("Tesla T4", 15360 * MIB, (7, 5))
L4 = Device("NVIDIA L4", 23034 * MIB, (8, 9))
L40S = Device("NVIDIA L40S", 46068 * MIB, (8, 9))
A100_40 = Device("NVIDIA A100-SXM4-40GB", 40960 * MIB, (8, 0))
A100 = Device("NVIDIA A100-SXM4-80GB", 81920 * MIB, (8, 0))
H100 = Device("NVIDIA H100 80GB HBM3", 81559 * MIB, (9, 0))
H200 = Device("NVIDIA H200", 143771 * MIB, (9, 0))
B200 = Device("NVIDIA B200", 183359 * MIB, (10, 0))

EIGHT, SEVENTY = known_model("Llama-3.1-8B"), known_model("Llama-3.1-70B")
GEMMA, DEEPSEEK = known_model("gemma-2-9b-it"), known_model("DeepSeek-V3")
WORKED = Serving(fraction=0.92, batched_tokens=1)


# --- the sources' own numbers -----------------------------------------------------------------------


def test_kv_bytes_per_token_of_the_worked_check():
    assert kv_cache(EIGHT).value == KvCache(131_072)
    assert kv_cache(SEVENTY, tp=4).value == KvCache(81_920)
    # With more GPUs than KV heads, each keeps a whole one.
    assert kv_cache(SEVENTY, tp=16).value == kv_cache(SEVENTY, tp=8).value == KvCache(40_960)


def tokens_without_activations(shape, card, tp=1):
    """The worked check leaves the activations out; AIConfigurator's are 70 MiB at least."""
    need = -(-weight_bytes(shape).value // tp) + nccl_bytes(tp) + OTHER_BYTES
    return kv_cache(shape, tp=tp).value.tokens(int(card.memory_bytes * 0.92) - need)


@pytest.mark.parametrize(("card", "thousands"), [(L4, 18), (L40S, 188), (H100, 449)])
def test_the_worked_check_of_the_8b_model(card, thousands):
    """KV tokens as worked out; with the least activations of the formula within 3 %."""
    assert round(tokens_without_activations(EIGHT, card) / 1000) == thousands
    assert fit(EIGHT, card, serving=WORKED).tokens == pytest.approx(1000 * thousands, rel=0.03)


@pytest.mark.parametrize(("card", "thousands"), [(L40S, 61), (H100, 479)])
def test_the_worked_check_of_the_70b_model_on_four(card, thousands):
    assert round(tokens_without_activations(SEVENTY, card, 4) / 1000) == thousands
    assert fit(SEVENTY, card, tp=4, serving=WORKED).tokens == pytest.approx(1000 * thousands, rel=0.03)


def test_the_worked_check_of_the_70b_model_on_a_card_where_it_does_not_serve():
    """Worked out: 449 tokens. 1000 tokens are 0.2 % of the card, the accuracy of its inputs."""
    assert 0 < tokens_without_activations(SEVENTY, A100_40, 4) < 1000
    answer = fit(SEVENTY, A100_40, tp=4, serving=WORKED)
    assert answer.fits is False
    assert answer.reason.startswith("does not fit: ")


def test_the_worked_check_of_a_card_without_bfloat16():
    assert choose_dtype(EIGHT, T4).value == "float16"
    assert fit(EIGHT, T4, serving=WORKED).fits is False


def test_activations_as_aiconfigurator_has_them():
    """`_get_memory_usage` in https://github.com/ai-dynamo/aiconfigurator: 2 x tokens x h x (11, 6.5, 5, 5),
    70 MiB at least; experts (22, 13, 10, 10). Exact."""
    assert [activation_bytes(EIGHT, 8192, tp=tp) // (2 * 8192 * 4096 // 2) for tp in (1, 2, 4, 8)] == [
        22,
        13,
        10,
        10,
    ]
    assert activation_bytes(EIGHT, 1) == 70 * MIB
    mixtral = known_model("Mixtral-8x7B-Instruct-v0.1")
    assert [activation_bytes(mixtral, 8192, tp=tp) // (2 * 8192 * 4096) for tp in (1, 2, 4, 8)] == [
        22,
        13,
        10,
        10,
    ]


def test_nccl_and_the_rest_as_in_aiconfigurators_system_files():
    """`nccl_mem` and `other_mem` in https://github.com/ai-dynamo/aiconfigurator, systems/*.yaml. Exact."""
    assert [nccl_bytes(tp) for tp in (1, 2, 4, 8)] == [0, 358_612_992, 411_041_792, 411_041_792]
    assert OTHER_BYTES == 3_758_096_384


def test_mla_caches_what_deepseek_published():
    """DeepSeek-V3: (512 + 64) values in 61 layers; 70.3 kB a token in 16 bits, on every GPU alike."""
    assert kv_cache(DEEPSEEK).value.per_token == 70_272
    assert kv_cache(DEEPSEEK, tp=8).value == kv_cache(DEEPSEEK).value


def test_a_window_keeps_its_tokens_and_those_in_work():
    cache = kv_cache(GEMMA, ahead=2048).value
    each = 2 * 8 * 256 * 2
    assert (cache.per_token, cache.in_window, cache.window) == (21 * each, 21 * each, 4096 + 2048)
    assert cache.size(10_000) == 21 * each * (10_000 + 6144)


def test_llama_cpp_logs_the_same_windowed_cache():
    """Gemma 3's window of 1024 with a micro-batch of 512: `SWA KV cache, size = 1536 cells`."""
    gemma3 = ModelShape("g", "log", layers=6, kv_heads=1, head_dim=1, attention=SlidingWindow(1024, 5))
    assert kv_cache(gemma3, ahead=512).value.window == 1536


def test_other_attention_is_unknown_with_its_reason():
    hybrid = evolve(EIGHT, attention=OtherAttention("some layers keep a state"))
    assert kv_cache(hybrid).value is None
    answer = fit(hybrid, H100)
    assert (answer.fits, answer.context) == (None, None)
    assert "some layers keep a state" in answer.reason


def test_an_encoder_keeps_nothing():
    answer = fit(known_model("all-MiniLM-L6-v2"), L4)
    assert (answer.fits, answer.context, answer.tokens) == (True, 512, None)


# What the quantised models on Hugging Face take, by their index: hugging-quants AWQ INT4 and
# neuralmagic FP8 of Llama 3.1 8B, as their pages show it (5.74 GB and 9.08 GB).
@pytest.mark.parametrize(
    ("quantisation", "gigabytes"), [(Quantisation("awq", 4, 128), 5.74), (Quantisation("fp8", 8), 9.08)]
)
def test_what_quantised_weights_take(quantisation, gigabytes):
    assert weight_bytes(EIGHT, quantisation=quantisation).value == pytest.approx(gigabytes * 1e9, rel=0.01)


def test_weights_as_stored_are_taken_as_they_are():
    stored = evolve(EIGHT, weight_bytes=16_060_522_496)
    assert weight_bytes(stored).value == 16_060_522_496
    assert weight_bytes(stored, dtype="float16").value == 16_060_522_496
    assert weight_bytes(stored, dtype="float32").value == 2 * 16_060_522_496
    quantised = evolve(stored, weight_bytes=5_000, quantisation=Quantisation("awq", 4))
    assert weight_bytes(quantised, dtype="float32").value == 5_000


def test_weights_that_nobody_knows_are_unknown():
    strange = ModelShape("strange", "x", architecture="other", layers=2, hidden_size=8)
    assert weight_bytes(strange).value is None
    assert "unknown" in weight_bytes(strange).reason
    assert weight_bytes(EIGHT, quantisation=Quantisation("magic")).value is None
    assert fit(strange, H100).fits is None
    assert fit(EIGHT, Device("GB10")).reason == "the memory of GB10 is unknown"


# --- how many cards -----------------------------------------------------------------------------------


def test_heads_and_blocks_decide_what_can_be_split():
    assert allowed_tp(EIGHT, 8) == (1, 2, 4, 8)
    assert allowed_tp(known_model("Qwen2.5-7B-Instruct"), 8) == (1, 2, 4)  # 28 heads, 4 KV heads
    assert allowed_tp(known_model("Qwen2.5-32B-Instruct"), 8) == (1, 2, 4, 8)  # 40 heads, but 8 KV heads
    uneven = ModelShape("uneven", "x", heads=12, kv_heads=4, head_dim=64, intermediate_size=3072)
    assert tp_problem(uneven, 3) == "4 KV heads cannot be dealt out to 3"
    assert allowed_tp(uneven, 12) == (1, 2, 4, 12)
    experts = Experts(128, 8, 1536)
    recipe = ModelShape("qwen3-moe-fp8", "vLLM recipes", heads=64, kv_heads=4, head_dim=128, hidden_size=4096,
                        layers=94, intermediate_size=12288, experts=experts,
                        quantisation=Quantisation("fp8", 8, 128))  # fmt: skip
    assert allowed_tp(recipe, 8) == (1, 2, 4)
    assert tp_problem(recipe, 8) == "a width of 1536 cut into 8 would cut its blocks of 128"
    assert allowed_tp(evolve(recipe, quantisation=None), 8) == (1, 2, 4, 8)


def test_the_blocks_of_a_quantisation_that_is_asked_about_decide_too():
    """Qwen2.5-72B is 29568 wide: for groups of 128 its publisher had to pad it to 29696."""
    shape = known_model("Qwen2.5-72B-Instruct")
    awq = Serving(fraction=0.92, quantisation=Quantisation("awq", 4, 128))
    assert fit(shape, A100_40, tp=2, serving=awq).reason == (
        "a width of 29568 cut into 2 would cut its blocks of 128"
    )
    assert fit(evolve(shape, intermediate_size=29696), A100_40, tp=2, serving=awq).fits


@pytest.mark.parametrize(
    ("shape", "cards", "tp"),
    [
        (EIGHT, [H100] * 8, 1),
        (EIGHT, [L4], 1),
        (EIGHT, [T4] * 2, 2),
        (SEVENTY, [H100] * 2, 2),
        (SEVENTY, [H100] * 8, 4),  # 2 would serve 19136 tokens of its 131072
        (SEVENTY, [H100] * 3, 2),
        (SEVENTY, [L40S] * 4, 4),
        (SEVENTY, [H200], None),
        (SEVENTY, [A100_40] * 8, 8),
        (DEEPSEEK, [H200] * 8, 8),
        (DEEPSEEK, [H100] * 8, None),
    ],
)
def test_the_fewest_cards_that_give_the_longest_context(shape, cards, tp):
    answer = choose_tp(shape, cards, serving=Serving(fraction=0.92, batched_tokens=8192))
    assert (answer.tp if answer.fits else None) == tp
    assert answer.reason


def test_several_sequences_share_what_is_left():
    alone, four = (fit(EIGHT, L4, serving=Serving(fraction=0.92, sequences=count)) for count in (1, 4))
    assert alone.tokens == four.tokens
    assert four.context == alone.tokens // 4 // 16 * 16
    asked = Serving(fraction=0.92, context=alone.context, sequences=2)
    assert fit(EIGHT, L4, serving=asked).fits is False


def test_twice_the_memory_does_not_shorten_the_context_by_fewer_cards():
    """Two cards of 80 GiB hold the model, with 25248 tokens; eight of 40 GiB serve all 131072."""
    usual = Serving(fraction=0.92)
    small, large = (choose_tp(SEVENTY, [card] * 8, serving=usual) for card in (A100_40, A100))
    assert (small.tp, small.context) == (8, 131_072)
    assert (large.tp, large.context) == (4, 131_072)
    assert fit(SEVENTY, A100, tp=2, serving=usual).context == 25_248


def test_a_longer_context_takes_more_cards():
    asked = Serving(fraction=0.92, batched_tokens=8192, context=16_384)
    assert choose_tp(SEVENTY, [H100] * 8, serving=asked).tp == 2
    assert choose_tp(SEVENTY, [H100] * 8, serving=evolve(asked, context=32_768)).tp == 4


def test_what_does_not_fit_says_what_would():
    alone = choose_tp(SEVENTY, [A100_40] * 4, serving=Serving(fraction=0.92))
    assert alone.fits is False
    assert alone.tp == 4
    assert alone.advice.startswith("8 GPUs of this kind would hold ")
    assert "awq (4 bit) weights, 37 GiB" in alone.advice
    assert "fp8" not in alone.advice, "an A100 computes no FP8"
    assert "fp8 (8 bit) weights" in choose_tp(SEVENTY, [H200], serving=Serving(fraction=0.92)).advice
    asked = choose_tp(EIGHT, [L4], serving=Serving(fraction=0.92, context=131_072))
    assert asked.fits is False
    assert f"a context of at most {asked.context}" in asked.advice
    shorter = Serving(fraction=0.92, context=asked.context)
    assert choose_tp(EIGHT, [L4], serving=shorter).fits
    assert (
        choose_tp(EIGHT, [Device("tiny", 2 * GIB, (6, 0), part_of_card=True)]).advice
        == "larger cards or a smaller model are needed"
    )


def test_every_advice_is_true():
    """More cards, or the other weights, really fit by the same formula."""
    for shape in (EIGHT, SEVENTY, DEEPSEEK):
        for card in (T4, L4, L40S, A100_40, H100):
            answer = choose_tp(shape, [card])
            if "GPUs of this kind" in answer.advice:
                count = int(answer.advice.split()[0])
                assert choose_tp(shape, [card] * count).fits, (shape.name, card.name)
                assert not choose_tp(shape, [card] * (count - 1)).fits
            if "awq" in answer.advice:
                assert fit(shape, card, serving=Serving(quantisation=Quantisation("awq", 4))).fits


def test_cards_of_different_kinds_are_not_joined_and_the_smallest_of_a_kind_decides():
    assert choose_tp(SEVENTY, [H100, A100]).fits is False
    smaller = evolve(H100, memory_bytes=60 * GIB)
    assert choose_tp(SEVENTY, [H100, H100]).fits is True
    assert choose_tp(SEVENTY, [H100, smaller]).fits is False
    mig = Device("NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40 * GIB, (9, 0), part_of_card=True)
    assert choose_tp(SEVENTY, [mig] * 8).fits is False
    assert choose_tp(EIGHT, [mig] * 2).tp == 1


def test_nothing_is_said_about_what_is_unknown():
    assert choose_tp(EIGHT, []).fits is None
    answer = choose_tp(SEVENTY, [H100, Device("GB10")])
    assert (answer.fits, answer.reason) == (None, "the memory of GB10 is unknown")
    assert choose_tp(EIGHT, [H100, Device("GB10")]).fits is True


def test_reasons_have_the_numbers_in_them():
    said = fit(EIGHT, H100, serving=WORKED).reason
    assert said == (
        "KV cache 128 KiB per token; 54.7 GiB left of 0.92 x 79.6 GiB beside 15 GiB weights, "
        "70 MiB activations, 3.5 GiB other; 449k tokens, capped at the model's 131072"
    )
    assert "on each of 4 GPUs" in fit(SEVENTY, H100, tp=4).reason


# --- what always holds ----------------------------------------------------------------------------------

attentions = st.sampled_from(
    [FullAttention(), SlidingWindow(1024, 2), SlidingWindow(4096, 4), LatentAttention(512, 64), NoCache()]
)


@st.composite
def shapes(draw):
    kv_heads = draw(st.sampled_from([1, 2, 4, 8]))
    heads = kv_heads * draw(st.sampled_from([1, 2, 4, 7]))
    return ModelShape(
        "any", "hypothesis", architecture="llama", layers=draw(st.integers(4, 100)),
        hidden_size=heads * 64, heads=heads, kv_heads=kv_heads, head_dim=64,
        vocabulary=draw(st.sampled_from([1000, 128_256])),
        intermediate_size=draw(st.sampled_from([1024, 14_336])),
        max_context=draw(st.none() | st.integers(100, 10**6)), attention=draw(attentions),
        tied_embeddings=draw(st.booleans()), dtype="bfloat16", parameters=draw(st.integers(10**6, 10**11)),
        quantisation=draw(st.none() | st.just(Quantisation("fp8", 8, 128))),
    )  # fmt: skip


servings = st.builds(
    Serving,
    fraction=st.floats(0.1, 1),
    batched_tokens=st.integers(1, 20_000),
    context=st.none() | st.integers(1, 10**6),
    sequences=st.integers(1, 300),
)
cards = st.builds(Device, st.just("card"), st.integers(GIB, 300 * GIB), st.just((9, 0)))


@given(
    shape=shapes(),
    card=cards,
    serving=servings,
    more=st.integers(1, 200 * GIB),
    tp=st.sampled_from([1, 2, 4]),
)
def test_more_memory_never_gives_a_smaller_context(shape, card, serving, more, tp):
    less = fit(shape, card, tp=tp, serving=serving)
    larger = fit(shape, evolve(card, memory_bytes=card.memory_bytes + more), tp=tp, serving=serving)
    assert not (less.fits and not larger.fits)
    if less.context is not None and larger.context is not None:
        assert larger.context >= less.context


@given(shape=shapes(), card=cards, serving=servings, count=st.integers(1, 9))
def test_what_fits_really_fits_by_the_same_formula(shape, card, serving, count):
    answer = choose_tp(shape, [card] * count, serving=serving)
    if not answer.fits:
        assert answer.reason
        assert answer.advice or answer.fits is None
        return
    assert shape.heads % answer.tp == 0
    assert answer.tp <= count
    context = answer.context if answer.context is not None else 10**9
    used = answer.need.total + answer.cache.size(context) * serving.sequences
    assert used <= answer.room <= card.memory_bytes * serving.fraction
    if serving.context is not None:
        assert answer.context == serving.context
    elif shape.max_context is not None:
        assert answer.context <= shape.max_context
    for tp in range(1, answer.tp):
        fewer = fit(shape, card, tp=tp, serving=serving)
        assert not fewer.fits or fewer.context < answer.context, "fewer would have done"


@given(
    shape=shapes(),
    card=cards,
    serving=servings,
    count=st.integers(1, 8),
    more=st.integers(0, 200 * GIB),
    further=st.integers(0, 4),
)
def test_neither_memory_nor_cards_more_ever_give_less(shape, card, serving, count, more, further):
    fewer = choose_tp(shape, [card] * count, serving=serving)
    larger = evolve(card, memory_bytes=card.memory_bytes + more)
    better = choose_tp(shape, [larger] * (count + further), serving=serving)
    assert not (fewer.fits and not better.fits)
    if fewer.fits and fewer.context is not None:
        assert better.context >= fewer.context


@given(shape=shapes(), card=cards, serving=servings)
def test_what_asks_for_more_leaves_less(shape, card, serving):
    answer = fit(shape, card, serving=evolve(serving, context=None))
    for change in ({"batched_tokens": serving.batched_tokens + 1000}, {"other_bytes": OTHER_BYTES + GIB},
                   {"fraction": serving.fraction * 0.9}, {"dtype": "float32"}):  # fmt: skip
        worse = fit(shape, card, serving=evolve(serving, context=None, **change))
        assert not (worse.fits and not answer.fits)
        if answer.context is not None and worse.context is not None:
            assert worse.context <= answer.context


@given(shape=shapes(), card=cards, serving=servings, longer=st.integers(1, 10**6))
def test_a_shorter_context_fits_where_a_longer_one_does(shape, card, serving, longer):
    asked = evolve(serving, context=serving.context or 1)
    if fit(shape, card, serving=evolve(asked, context=asked.context + longer)).fits:
        assert fit(shape, card, serving=asked).fits


@given(
    cache=st.builds(KvCache, st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**5)),
    room=st.integers(-(10**9), 10**12),
)
def test_the_tokens_of_a_cache_are_as_many_as_there_is_room_for(cache, room):
    tokens = cache.tokens(room)
    if tokens is None:
        assert cache.size(10**15) <= max(room, 0)
    else:
        assert cache.size(tokens) <= max(room, 0) < cache.size(tokens + 1)


# --- number formats, engines' own defaults -------------------------------------------------------------


@pytest.mark.parametrize(
    ("card", "name", "dtype"),
    [
        (H100, "Llama-3.1-8B", "bfloat16"),
        (A100, "Llama-3.1-8B", "bfloat16"),
        (T4, "Llama-3.1-8B", "float16"),
        (T4, "gemma-2-9b-it", "float32"),
        (H100, "all-MiniLM-L6-v2", "bfloat16"),
        (Device("NVIDIA GeForce RTX 4090"), "Llama-3.1-8B", None),
        (Device("AMD Instinct MI300X", vendor="amd"), "Llama-3.1-8B", None),
    ],
)
def test_the_type_by_compute_capability(card, name, dtype):
    assert choose_dtype(known_model(name), card).value == dtype


@pytest.mark.parametrize(
    ("method", "card", "runs"),
    [
        ("fp8", L4, True), ("fp8", H100, True), ("fp8", A100, False), ("nvfp4", B200, True),
        ("nvfp4", H100, False), ("awq", T4, True), ("gptq", T4, True), ("unheard-of", H100, None),
        ("fp8", Device("?"), None),
    ],
)  # fmt: skip
def test_quantisation_by_compute_capability(method, card, runs):
    assert supports(Quantisation(method, 4), card).value is runs


@pytest.mark.parametrize(
    ("version", "share"),
    [
        *((version, 0.9) for version in ("0.9.0", "0.19.3")),
        *((version, 0.92) for version in ("0.21.0", "v0.22.0", "0.28.1rc1+cu129", "1.0")),
        *((version, None) for version in ("0.20.0", "nightly", None, "")),
    ],
)
def test_vllms_share_of_memory_by_its_version(version, share):
    answer = vllm_defaults(version, H100).gpu_memory_utilization
    assert answer.value == share
    assert answer.reason


@pytest.mark.parametrize(
    ("version", "card", "usage", "tokens", "sequences"),
    [
        ("0.22.0", H100, "server", 8192, 1024),
        ("0.22.0", H100, "library", 16384, 1024),
        ("0.22.0", A100, "server", 2048, 256),
        ("0.22.0", A100, "library", 8192, 256),
        ("0.22.0", L40S, "server", 2048, 256),
        ("0.27.9", B200, "server", 8192, 1024),
        ("0.28.0", B200, "server", 16384, 1024),
        ("0.28.0", H200, "server", 8192, 1024),
        ("0.8.5", H100, "server", None, None),
        ("0.22.0", Device("GB10"), "server", None, None),
        ("0.22.0", None, "server", None, None),
    ],
)
def test_vllms_batch_by_card_and_version(version, card, usage, tokens, sequences):
    answer = vllm_defaults(version, card, usage=usage)
    assert (answer.max_num_batched_tokens.value, answer.max_num_seqs.value) == (tokens, sequences)


def test_vllm_starts_only_with_its_share_free():
    assert start_problem(evolve(L4, free_bytes=22 * GIB), 0.9) is None
    assert start_problem(L4, 0.9) is None, "nobody knows what is free"
    assert "at most 0.08 can start" in start_problem(evolve(L4, free_bytes=2 * GIB), 0.9)


def test_what_can_be_used_of_a_machine():
    whole = Accelerator("nvidia", name="NVIDIA L4", memory_bytes=L4.memory_bytes, compute_capability=(8, 9))
    hidden = evolve(whole, visible=False)
    part = MigInstance(profile="1g.10gb", memory_bytes=10 * GIB)
    cut = Accelerator("nvidia", name="NVIDIA H100 80GB HBM3", mig_enabled=True, mig=[part] * 7)
    empty = evolve(cut, mig=())
    found = devices(machine(accelerators=[whole, hidden, cut, empty]))
    assert len(found) == 8
    assert found[0] == L4
    assert (found[1].name, found[1].memory_bytes) == ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10 * GIB)
    assert found[1].part_of_card
    assert devices(machine()) == devices(no_hardware()) == ()


def test_every_known_model_has_an_answer_on_every_card():
    for name in known_models():
        for card in (T4, L4, L40S, A100_40, A100, H100, H200, B200):
            answer = choose_tp(known_model(name), [card] * 8)
            assert answer.fits is not None, (name, card)
            assert "None" not in answer.reason + answer.advice
