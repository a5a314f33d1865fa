"""How vLLM is sized for a model on cards: each value with its reason, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attrs import evolve, field, frozen

from stackconf_models import (
    Device,
    Fit,
    ModelShape,
    Quantisation,
    Serving,
    VllmDefaults,
    choose_dtype,
    choose_tp,
    find_model,
    fit,
    vllm_defaults,
)

FRACTION = 0.9
"""The lower of vLLM's own defaults, where its version does not say which one."""
FIRST = "0.9"
"""The first version whose batch defaults are known; earlier ones without chunked prefill need as
many batched tokens as the context is long."""
DTYPES = {"half": "float16", "float": "float32"}
"""vLLM's other names for a type."""
QUANTISATIONS: Mapping[str, Quantisation] = {
    "fp8": Quantisation("fp8", 8),
    "awq": Quantisation("awq", 4, 128),
    "awq_marlin": Quantisation("awq", 4, 128),
    "gptq": Quantisation("gptq", 4, 128),
    "gptq_marlin": Quantisation("gptq", 4, 128),
    "bitsandbytes": Quantisation("bitsandbytes", 4),
}
"""Methods whose memory is known, by vLLM's names."""
WHILE_LOADING = frozenset({"fp8", "bitsandbytes"})
"""Methods that vLLM can apply to weights that are stored in another way."""

LEAST_CONTEXT = 4096
"""What a fit needs room for where no context is set."""
_STEP = 1000
_TOLERANCE = 1e-9


@frozen
class Asked:
    """What is set, by whoever it was; `None` is to be derived."""

    model: str | None = None
    engine_version: str | None = None
    tensor_parallel_size: int | None = None
    dtype: str | None = None
    quantization: str | None = None
    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None


@frozen
class Sizing:
    """The values that follow, and by field the reason of each or of its absence.

    `problem` says what does not fit and `advice` what would; `certain` where the weights alone do
    not, whatever the estimates of the rest are worth.
    """

    values: Mapping[str, object] = field(factory=dict)
    reasons: Mapping[str, str] = field(factory=dict)
    shape: ModelShape | None = None
    fit: Fit | None = None
    problem: str = ""
    advice: str = ""
    certain: bool = False
    unknown: str = ""
    """Why the model's needs cannot be computed."""


def size(asked: Asked, cards: Sequence[Device] | None) -> Sizing:
    """Derive what is not set from the model, the cards and what is set.

    * `gpu_memory_utilization`: vLLM's own default of the version, 0.9 where that is not known; times
      the share that is given to it of the cards it computes on, the least where they differ.
    * `max_num_seqs`, `max_num_batched_tokens`: vLLM's own defaults for the card.
    * `dtype`: bfloat16 where the card has it. See `stackconf_models.choose_dtype`.
    * `tensor_parallel_size`: the fewest cards that give the longest context.
    * `max_model_len`: what is left for the KV cache, at most the model's own.

    They are written down even where they equal vLLM's defaults: the context was computed with them.

    >>> from stackconf_models import Device
    >>> l4 = Device("NVIDIA L4", 23034 * 1024**2, (8, 9))
    >>> told = size(Asked("meta-llama/Llama-3.1-8B", "0.22.0"), [l4])
    >>> told.values["tensor_parallel_size"], told.values["max_model_len"]
    (1, 16912)
    >>> size(Asked("meta-llama/Llama-3.3-70B-Instruct", "0.22.0"), [l4]).advice
    '8 GPUs of this kind would hold 5989 tokens'
    >>> half = Device("NVIDIA L4", 23034 * 1024**2 // 2, (8, 9), share=0.5, whole_bytes=23034 * 1024**2)
    >>> told = size(Asked("Qwen/Qwen2.5-0.5B-Instruct", "0.22.0"), [half])
    >>> told.values["gpu_memory_utilization"], told.reasons["gpu_memory_utilization"]
    (0.46, "0.92 x 0.5, its share of the card; 0.92 is vLLM's default from 0.21 on")
    """
    told = Sizing()
    if cards is None:
        return evolve(told, unknown="what there is to compute on is unknown; `stackconf hardware` says why")
    if not cards:
        return evolve(told, unknown="there is no accelerator, and vLLM's CPU build sizes itself")
    # All of them with the least share, or fewer with more of each: it knows one fraction only.
    shares = sorted({each.share for each in cards}, reverse=True)
    answers = [_size_on(asked, [each for each in cards if each.share >= share], share) for share in shares]
    if asked.gpu_memory_utilization is not None:
        return answers[-1]
    fitting = [(each.fit.context or 0, each) for each in answers if each.fit and each.fit.fits]
    return max(fitting, key=lambda each: each[0])[1] if fitting else answers[-1]


def _size_on(asked: Asked, cards: Sequence[Device], share: float) -> Sizing:
    """As `size`, with that share of each of these cards."""
    # vLLM counts by the whole memory of a card: the share is in the fraction.
    cards = [each.whole for each in cards]
    card = max(cards, key=lambda each: each.memory_bytes or 0)
    told = _engine_values(asked, card, share)
    if asked.model is None:
        return _without(told, asked, "no model is set")
    found = find_model(asked.model)
    if found.value is None:
        return _without(told, asked, found.reason)
    told = _for_model(evolve(told, shape=found.value), found.value, asked, cards, card)
    if told.problem and share < 1 and asked.gpu_memory_utilization is None:
        alone = _for_model(_engine_values(asked, card, 1.0), found.value, asked, cards, card)
        return _with_more(told, alone, asked)
    return told


def _engine_values(asked: Asked, card: Device, share: float) -> Sizing:
    own = vllm_defaults(asked.engine_version, card)
    # Only the batch rules hold for every version from 0.9 on; the share of memory does not.
    batch = own if asked.engine_version else vllm_defaults(FIRST, card)
    values: dict[str, object] = {}
    reasons: dict[str, str] = {}
    if asked.gpu_memory_utilization is None:
        values["gpu_memory_utilization"], reasons["gpu_memory_utilization"] = _fraction(own, share)
    for name in ("max_num_seqs", "max_num_batched_tokens"):
        if getattr(asked, name) is None:
            given = getattr(batch, name)
            reasons[name] = given.reason
            if given.value is not None:
                values[name] = given.value
    return Sizing(values, reasons)


def _fraction(own: VllmDefaults, share: float) -> tuple[float, str]:
    given = own.gpu_memory_utilization
    whole = FRACTION if given.value is None else given.value
    lower = f"{given.reason}; {FRACTION} is the lower of its two defaults"
    if share >= 1:
        return whole, lower if given.value is None else given.reason
    why = lower if given.value is None else f"{whole:g} is {given.reason}"
    return _part(whole * share), f"{whole:g} x {share:.4g}, its share of the card; {why}"


def _part(fraction: float) -> float:
    """As people write it, never more."""
    return max(int(fraction * _STEP + _TOLERANCE), 1) / _STEP


def _for_model(
    told: Sizing, shape: ModelShape, asked: Asked, cards: Sequence[Device], card: Device
) -> Sizing:
    values, reasons = dict(told.values), dict(told.reasons)
    dtype = DTYPES.get(asked.dtype or "", asked.dtype)
    if dtype is None:
        chosen = choose_dtype(shape, card)
        dtype, reasons["dtype"] = chosen.value, chosen.reason
        if dtype is not None:
            values["dtype"] = dtype
    told = evolve(told, values=values, reasons=reasons)
    quantisation, unknown = _quantisation(shape, asked.quantization)
    if unknown:
        return _without(told, asked, unknown)
    tokens = asked.max_num_batched_tokens or values.get("max_num_batched_tokens")
    fraction = asked.gpu_memory_utilization or values.get("gpu_memory_utilization")
    if card.memory_bytes is None:
        return _without(told, asked, f"the memory of {card} is unknown")
    if not isinstance(tokens, int) or not isinstance(fraction, float):
        return _without(told, asked, f"what it processes at once is unknown: {_batch_reason(told)}")
    serving = Serving(
        fraction=fraction,
        batched_tokens=tokens,
        context=asked.max_model_len,
        dtype=None if dtype == "auto" else dtype,
        quantisation=quantisation,
    )
    return _with_fit(told, asked, cards, _fit(shape, asked, cards, serving))


def _batch_reason(told: Sizing) -> str:
    return told.reasons.get("max_num_batched_tokens", "")


def _quantisation(shape: ModelShape, wanted: str | None) -> tuple[Quantisation | None, str]:
    """What is to be asked about instead of what is stored, or why that is unknown."""
    if wanted is None:
        return None, ""
    known = QUANTISATIONS.get(wanted)
    stored = shape.quantisation
    if stored is not None and stored.method == (known.method if known else wanted):
        return None, ""
    return known, "" if known else f"what {wanted} weights take is not known here"


def _fit(shape: ModelShape, asked: Asked, cards: Sequence[Device], serving: Serving) -> Fit:
    tp = asked.tensor_parallel_size
    if tp is None:
        return choose_tp(shape, cards, serving=serving)
    kinds: dict[object, list[Device]] = {}
    for each in cards:
        kinds.setdefault(each.kind, []).append(each)
    enough = [kind for kind in kinds.values() if len(kind) >= tp and not (tp > 1 and kind[0].part_of_card)]
    if not enough:
        most = max(1 if kind[0].part_of_card else len(kind) for kind in kinds.values())
        return Fit(False, tp, f"{tp} GPUs of one kind are wanted, there are at most {most} to share a model")
    kind = max(enough, key=lambda each: each[0].memory_bytes or 0)
    smallest = sorted(kind, key=lambda each: each.memory_bytes or 0, reverse=True)[tp - 1]
    return fit(shape, smallest, tp=tp, serving=serving)


def _with_fit(told: Sizing, asked: Asked, cards: Sequence[Device], answer: Fit) -> Sizing:
    told = evolve(told, fit=answer)
    if answer.fits is None:
        return _without(told, asked, answer.reason)
    if not answer.fits:
        weights = answer.need.weights if answer.need else None
        certain = weights is None or answer.room is None or weights > answer.room
        told = _without(told, asked, answer.reason)
        return evolve(told, problem=answer.reason, advice=answer.advice, certain=certain, unknown="")
    values, reasons = dict(told.values), dict(told.reasons)
    if asked.tensor_parallel_size is None:
        values["tensor_parallel_size"] = answer.tp
        reasons["tensor_parallel_size"] = _tp_reason(answer, told.shape, cards)
    if asked.max_model_len is None and answer.context is not None:
        values["max_model_len"] = answer.context
        reasons["max_model_len"] = answer.reason
    return evolve(told, values=values, reasons=reasons)


def _tp_reason(answer: Fit, shape: ModelShape | None, cards: Sequence[Device]) -> str:
    alike = sum(answer.device is not None and each.kind == answer.device.kind for each in cards)
    if alike == 1 or (answer.device is not None and answer.device.part_of_card):
        return f"one {answer.device} holds it"
    whole = shape is not None and answer.context == shape.max_context
    what = "hold it with its whole context" if whole else "hold it with the longest context"
    return f"the fewest of {alike} x {answer.device} that {what}"


def _with_more(told: Sizing, alone: Sizing, asked: Asked) -> Sizing:
    """What would fit where it does not on its share: a larger one, or what would without the others."""
    answer, shape = alone.fit, told.shape
    if answer is None or shape is None:
        return told
    if not answer.fits:
        return evolve(told, advice=f"alone on its cards neither: {alone.advice}" if alone.advice else "")
    need, cache, device = answer.need, answer.cache, answer.device
    fraction = alone.values["gpu_memory_utilization"]
    if not (need and cache and device and device.memory_bytes and isinstance(fraction, float)):
        return told
    tokens = asked.max_model_len or min(LEAST_CONTEXT, shape.max_context or LEAST_CONTEXT)
    wanted = (need.total + cache.size(tokens)) / device.memory_bytes / fraction
    cards = "the card" if answer.tp == 1 else f"each of {answer.tp} cards"
    idea = f"{math.ceil(wanted * 100) / 100:g} of {cards} would hold {tokens} tokens"
    return evolve(told, advice=f"{idea}, see `stackconf: placement:`")


def _without(told: Sizing, asked: Asked, why: str) -> Sizing:
    missing = [name for name in ("tensor_parallel_size", "max_model_len") if getattr(asked, name) is None]
    return evolve(told, reasons={**told.reasons, **dict.fromkeys(missing, f"not set: {why}")}, unknown=why)
