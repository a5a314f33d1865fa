"""Whether a model fits on cards, with what context, over how many of them.

    weights + activations + KV cache + NCCL + other <= fraction x total memory, on each card

Source: AIConfigurator, see `memory`. vLLM's own arithmetic is the same with measured figures
(`gpu_worker.py`: what is left of total x utilisation after the peak becomes KV cache).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from stackconf import size_text
from stackconf_models.memory import (
    OTHER_BYTES,
    KvCache,
    activation_bytes,
    kv_cache,
    nccl_bytes,
    weight_bytes,
    weights_on_each,
)
from stackconf_models.precision import supports
from stackconf_models.shape import BYTES_PER_VALUE, LatentAttention, ModelShape, Quantisation

if TYPE_CHECKING:
    from stackconf_models.devices import Device

BLOCK = 16
"""Tokens in a block of KV cache; a context is a multiple of it. Source: vLLM's `block_size`."""
_MLA_BLOCK, _MLA_BLOCK_BLACKWELL = 64, 128
"""Those of FlashMLA and of CUTLASS MLA. Source: vLLM `platforms/cuda.py`, "Forcing kv cache block size
to 64 for FlashMLA backend"."""
LEAST_CONTEXT = 4096
"""Less is no use; a model of shorter context needs its own. Source: llama.cpp, `--fit-ctx`."""
MOST_CARDS = 64
_ALTERNATIVES = (Quantisation("fp8", 8), Quantisation("awq", 4, 128))
_MANY = 10_000


@frozen
class Serving:
    """What is asked of an engine, beside the model.

    `context` is what the user wants, `None` for the longest that fits; `sequences` of that length
    are to fit at once. `quantisation` asks about another one than the model is stored in.
    """

    fraction: float = 0.9
    """Of the card's total memory, as vLLM's `gpu_memory_utilization` counts."""
    batched_tokens: int = 2048
    """Tokens processed at once; the activations grow with them."""
    context: int | None = None
    sequences: int = 1
    least_context: int = LEAST_CONTEXT
    dtype: str | None = None
    kv_dtype: str | None = None
    quantisation: Quantisation | None = None
    other_bytes: int = OTHER_BYTES


@frozen
class Need:
    """Memory on one card, in bytes, beside the KV cache."""

    weights: int
    activations: int
    nccl: int
    other: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.activations + self.nccl + self.other

    def __str__(self) -> str:
        parts = {"weights": self.weights, "activations": self.activations, "NCCL": self.nccl}
        told = [f"{size_text(size)} {name}" for name, size in parts.items() if size]
        return ", ".join([*told, f"{size_text(self.other)} other"])


@frozen
class Fit:
    """The answer: `fits` is `None` where it cannot be said.

    `tokens` is what the memory left for the KV cache holds, of all sequences together; `context`
    what one sequence can have: whole blocks, at most the model's own. Both are `None` where
    unknown; `tokens` also where any number fits. `advice` says what would fit where this does not.
    """

    fits: bool | None
    tp: int
    reason: str
    context: int | None = None
    tokens: int | None = None
    need: Need | None = None
    room: int | None = None
    """The share of each card's memory, in bytes."""
    cache: KvCache | None = None
    device: Device | None = None
    advice: str = ""


def tp_problem(shape: ModelShape, tp: int) -> str | None:
    """Why a model cannot be split over `tp` GPUs, or `None`.

    The heads are dealt out evenly, the KV heads too or each on as many GPUs as it must; the
    feed-forward part is cut evenly, and never through a block of quantised weights that share a
    scale. Sources: vLLM `ModelConfig.verify_with_parallel_config`, `QKVParallelLinear`; vLLM recipes
    (a width of 1536 in blocks of 128 needs at most 4); AIConfigurator `sdk/models/base.py`.

    >>> from stackconf_models.known import known_model
    >>> [tp for tp in range(1, 9) if tp_problem(known_model("Qwen2.5-7B-Instruct"), tp) is None]
    [1, 2, 4]
    >>> tp_problem(known_model("Llama-3.1-8B"), 3)
    '32 heads cannot be dealt out to 3'
    """
    if tp == 1:
        return None
    heads, kv_heads = shape.heads, shape.kv_heads
    if heads is None or kv_heads is None:
        return "the number of heads is unknown"
    if heads % tp:
        return f"{heads} heads cannot be dealt out to {tp}"
    if kv_heads % tp and tp % kv_heads:
        return f"{kv_heads} KV heads cannot be dealt out to {tp}"
    block = shape.quantisation.block if shape.quantisation else None
    return next((wrong for width in _widths(shape) if (wrong := _cut_problem(width, tp, block))), None)


def _cut_problem(width: int, tp: int, block: int | None) -> str | None:
    if width % tp:
        return f"a width of {width} cannot be cut into {tp}"
    if block is not None and (width // tp) % block:
        return f"a width of {width} cut into {tp} would cut its blocks of {block}"
    return None


def _widths(shape: ModelShape) -> Iterator[int]:
    experts = shape.experts
    if experts is not None and experts.intermediate_size is not None:
        yield experts.intermediate_size
    if shape.intermediate_size is not None and (
        experts is None or experts.dense_layers or not (experts.intermediate_size)
    ):
        yield shape.intermediate_size


def allowed_tp(shape: ModelShape, most: int) -> tuple[int, ...]:
    """The numbers of GPUs, up to `most`, that a model can be split over."""
    return tuple(tp for tp in range(1, most + 1) if tp_problem(shape, tp) is None)


def fit(shape: ModelShape, device: Device, *, tp: int = 1, serving: Serving | None = None) -> Fit:
    """Whether a model fits on `tp` devices of this kind, each with this much memory.

    >>> from stackconf_models import Device, known_model
    >>> l40s = Device("NVIDIA L40S", 46068 * 1024**2, (8, 9))
    >>> answer = fit(known_model("Llama-3.1-8B"), l40s, serving=Serving(fraction=0.92))
    >>> answer.context
    131072
    >>> print(answer.reason)
    KV cache 128 KiB per token; 22.8 GiB left of 0.92 x 45 GiB beside 15 GiB weights, 176 MiB activations, \
3.5 GiB other; 186k tokens, capped at the model's 131072
    """
    serving = serving or Serving()
    problem = tp_problem(_as_served(shape, serving), tp)
    if problem is not None:
        return Fit(False, tp, problem, device=device)
    need, cache, missing = _parts(shape, tp, serving)
    missing = missing or f"the memory of {device} is unknown"
    if need is None or cache is None or device.memory_bytes is None:
        return Fit(None, tp, missing, need=need, cache=cache, device=device)
    room = int(device.memory_bytes * serving.fraction)
    answer = Fit(False, tp, "", None, cache.tokens(room - need.total), need, room, cache, device)
    return _judged(shape, answer, serving)


def _as_served(shape: ModelShape, serving: Serving) -> ModelShape:
    """The model with the quantisation that is asked about: its blocks decide too."""
    return shape if serving.quantisation is None else evolve(shape, quantisation=serving.quantisation)


def _parts(shape: ModelShape, tp: int, serving: Serving) -> tuple[Need | None, KvCache | None, str]:
    """What a card must hold, and what of it is unknown."""
    weights = weights_on_each(shape, tp, quantisation=serving.quantisation, dtype=serving.dtype)
    size = BYTES_PER_VALUE.get(serving.kv_dtype or serving.dtype or "bfloat16", 2)
    cache = kv_cache(shape, tp=tp, value_bytes=size, ahead=serving.batched_tokens)
    activations = activation_bytes(shape, serving.batched_tokens, tp=tp)
    if weights.value is None:
        return None, cache.value, weights.reason
    if activations is None:
        return None, cache.value, f"the size of {shape.name}'s layers is unknown"
    need = Need(weights.value, activations, nccl_bytes(tp), serving.other_bytes)
    return need, cache.value, cache.reason if cache.value is None else ""


def _judged(shape: ModelShape, answer: Fit, serving: Serving) -> Fit:
    need, room, cache, device = answer.need, answer.room, answer.cache, answer.device
    assert need is not None and room is not None and cache is not None and device is not None  # noqa: S101, PT018
    assert device.memory_bytes is not None  # noqa: S101
    share = f"{serving.fraction:g} x {size_text(device.memory_bytes)}"
    over = f" on each of {answer.tp} GPUs" if answer.tp > 1 else ""
    left = room - need.total
    if left < 0:
        text = f"does not fit: {need} take {size_text(need.total)}, more than {share}{over}"
        return evolve(answer, context=0, reason=text)
    block = block_size(shape, device)
    context = _context(shape, cache.tokens(left // serving.sequences), serving, block)
    wanted = serving.context or min(serving.least_context, shape.max_context or serving.least_context)
    begun = f"{cache}; {size_text(left)} left of {share}{over} beside {need}"
    if left < cache.size(-(-wanted // block) * block) * serving.sequences:
        asked = f"{wanted} wanted" if serving.context else f"at least {wanted} needed"
        times = f" for each of {serving.sequences} sequences" if serving.sequences > 1 else ""
        text = f"does not fit: {begun}; {_count(answer.tokens)} tokens, {asked}{times}"
        return evolve(answer, context=context, reason=text)
    return evolve(
        answer, fits=True, context=context, reason=f"{begun}; {_told(shape, answer, context, serving, block)}"
    )


def block_size(shape: ModelShape, device: Device) -> int:
    """Tokens in a block of KV cache: 16; with MLA 64, on Blackwell 128.

    >>> from stackconf_models import Device, known_model
    >>> block_size(known_model("DeepSeek-V3"), Device("NVIDIA H200", compute_capability=(9, 0)))
    64
    """
    if not isinstance(shape.attention, LatentAttention):
        return BLOCK
    older = device.compute_capability is not None and device.compute_capability < (10, 0)
    return _MLA_BLOCK if older else _MLA_BLOCK_BLACKWELL


def _context(shape: ModelShape, tokens: int | None, serving: Serving, block: int) -> int | None:
    """The longest context of one sequence: whole blocks, at most the model's or the wanted one."""
    limit = serving.context or shape.max_context
    if tokens is None:
        return limit
    most = tokens // block * block
    return most if limit is None else min(limit, most)


def _told(shape: ModelShape, answer: Fit, context: int | None, serving: Serving, block: int) -> str:
    tokens = f"{_count(answer.tokens)} tokens"
    if serving.context is not None:
        return f"{tokens}, {serving.context} wanted"
    if context is not None and context == shape.max_context and context != answer.tokens:
        return f"{tokens}, capped at the model's {context}"
    return tokens if context == answer.tokens else f"{tokens}, in blocks of {block}: {context}"


def _count(tokens: int | None) -> str:
    if tokens is None:
        return "any number of"
    return f"{tokens / 1000:.0f}k" if tokens >= _MANY else str(tokens)


def choose_tp(shape: ModelShape, cards: Sequence[Device], *, serving: Serving | None = None) -> Fit:
    """Over how many of these devices to split a model: the fewest that give the longest context.

    That is the model's own, or the one asked for, on as few as hold it; where none do, as long as
    can be. So neither more memory nor one device more ever gives a shorter context. Devices of one
    kind only, the ones with the most memory first; MIG instances are never joined. Where it fits
    nowhere, the answer is the largest split, with advice on what would fit. Where the answer would
    depend on something unknown, `fits` is `None`.

    >>> from stackconf_models import Device, known_model
    >>> h100 = Device("NVIDIA H100 80GB HBM3", 81559 * 1024**2, (9, 0))
    >>> choose_tp(known_model("Llama-3.1-70B"), [h100] * 8, serving=Serving(fraction=0.92)).tp
    4
    >>> shorter = Serving(fraction=0.92, context=8192)
    >>> choose_tp(known_model("Llama-3.1-70B"), [h100] * 8, serving=shorter).tp
    2
    >>> choose_tp(known_model("Llama-3.1-70B"), [h100]).advice
    '2 GPUs of this kind would hold 13k tokens; or awq (4 bit) weights, 37 GiB'
    """
    serving = serving or Serving()
    if not cards:
        return Fit(None, 1, "no accelerator is known")
    answers = list(_answers(shape, cards, serving))
    good = [answer for answer in answers if answer.fits]
    if good:
        return max(good, key=lambda answer: (_longest(answer), -answer.tp))
    unsure = next((answer for answer in answers if answer.fits is None), None)
    if unsure is not None:
        return unsure
    last = max(answers, key=lambda answer: (answer.room or 0) * answer.tp)
    return evolve(last, advice=_advice(shape, last, serving))


def _longest(answer: Fit) -> float:
    return inf if answer.context is None else answer.context


def _answers(shape: ModelShape, cards: Sequence[Device], serving: Serving) -> Iterator[Fit]:
    """One answer for each way to split, the kind with the largest memory first."""
    kinds: dict[object, list[Device]] = {}
    for card in cards:
        kinds.setdefault(card.kind, []).append(card)
    groups = [
        sorted(group, key=lambda card: card.memory_bytes or 0, reverse=True) for group in kinds.values()
    ]
    for group in sorted(groups, key=lambda group: group[0].memory_bytes or 0, reverse=True):
        for tp in allowed_tp(_as_served(shape, serving), 1 if group[0].part_of_card else len(group)):
            # The least memory among those that share decides.
            yield fit(shape, group[tp - 1], tp=tp, serving=serving)


def _advice(shape: ModelShape, answer: Fit, serving: Serving) -> str:
    """What would fit instead: more cards, other weights, or a shorter context."""
    device = answer.device
    assert device is not None  # noqa: S101 (an answer about devices)
    ideas = []
    more = () if device.part_of_card else allowed_tp(_as_served(shape, serving), MOST_CARDS)
    for tp in (tp for tp in more if tp > answer.tp):
        better = fit(shape, device, tp=tp, serving=serving)
        if better.fits:
            ideas.append(f"{tp} GPUs of this kind would hold {_count(better.tokens)} tokens")
            break
    ideas += list(_other_weights(shape, answer, serving))[:1]
    if serving.context is not None and answer.context:
        ideas.append(f"a context of at most {answer.context}")
    return "; or ".join(ideas) or "larger cards or a smaller model are needed"


def _other_weights(shape: ModelShape, answer: Fit, serving: Serving) -> Iterator[str]:
    device = answer.device
    assert device is not None  # noqa: S101
    have = shape.quantisation.bits if shape.quantisation else None
    if serving.dtype == "float32":
        return  # Quantised weights are computed with in 16 bits: vLLM's `get_supported_act_dtypes`.
    for other in _ALTERNATIVES:
        if (have is not None and have <= (other.bits or 0)) or not supports(other, device).value:
            continue
        weights = weight_bytes(shape, quantisation=other).value
        changed = evolve(serving, quantisation=other)
        if weights is not None and fit(shape, device, tp=answer.tp, serving=changed).fits:
            yield f"{other} weights, {size_text(weights)}"
