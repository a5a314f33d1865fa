"""How Ollama loads a model on a machine: each value with its reason, or why there is none.

what is set, the model, the machine  --size-->  Sizing
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import evolve, field, frozen

from stackconf import Because, size_text
from stackconf_models import Device, KvCache, LlamaCppFit, ModelShape, kv_cache, llama_cpp_fit
from stackconf_ollama.defaults import CPU_CONTEXT_LEAST, CPU_CONTEXT_MOST, CPU_CONTEXT_SHARE, usual_context
from stackconf_ollama.models import find_model, in_fewer_bits

LEAST_CONTEXT = 4096
"""What is kept of a context before layers go to main memory. Source: llama.cpp `--fit-ctx`."""

MOST_CARDS = 16


@frozen
class Asked:
    """What is set, by whoever it was; `None` is to be derived."""

    model: str | None = None
    models_folder: str | None = None
    engine_version: str | None = None
    num_ctx: int | None = None
    num_gpu: int | None = None
    num_parallel: int | None = None

    @property
    def parallel(self) -> int:
        """Requests at once: `OLLAMA_NUM_PARALLEL`, 1 where nothing else is said."""
        return self.num_parallel or 1


@frozen
class Sizing:
    """The values that follow, and by field the reason of each or of its absence.

    `problem` says what does not fit and `advice` what would; `certain` where the weights alone are more
    than the cards and main memory together, so that the server refuses.
    """

    values: Mapping[str, object] = field(factory=dict)
    reasons: Mapping[str, str] = field(factory=dict)
    shape: ModelShape | None = None
    problem: str = ""
    advice: str = ""
    certain: bool = False


def size(asked: Asked, cards: Sequence[Device] | None, memory_bytes: int | None) -> Sizing:
    """Derive what is not set from the model, the machine and what is set. `memory_bytes` is main memory.

    * `num_ctx`: what the server would choose by the cards' memory, or 1/8 of main memory without any;
      no more than the model's own, and than what leaves all layers on the cards.
    * `num_gpu`: only where the cards are shared and not all layers fit: the server would fill them.

    >>> l4 = Device("NVIDIA L4", 23034 * 1024**2)
    >>> told = size(Asked("llama3.1:8b", models_folder="/nowhere"), [l4], 2**36)
    >>> told.values, told.reasons["num_gpu"]
    ({'num_ctx': 4096}, 'not set: the server decides; all 33 layers fit')
    >>> size(Asked("llama3.3", models_folder="/nowhere"), [l4], 2**36).problem
    '41 of 81 layers fit on the cards, the rest is computed in main memory'
    """
    if cards is None:
        return _unset(asked, "whether there are accelerators is unknown")
    usual = usual_context(cards, memory_bytes, asked.engine_version)
    if asked.model is None:
        return _with_usual(Sizing(), asked, usual, "")
    found = find_model(asked.model, asked.models_folder)
    shape = found.value
    cache = None if shape is None else kv_cache(shape, ahead=512)
    if shape is None or cache is None or cache.value is None:
        why = found.reason if cache is None else cache.reason
        return _with_usual(Sizing(shape=shape), asked, usual, why)
    told = Sizing(shape=shape)
    if not cards:
        return _in_main_memory(told, asked, shape, cache.value, memory_bytes)
    if any(card.memory_bytes is None for card in cards):
        return _with_usual(told, asked, usual, "the memory of a card is unknown")
    return _on_cards(told, asked, shape, _usable(cards), memory_bytes, usual)


def _usable(cards: Sequence[Device]) -> Sequence[Device]:
    """Whole cards together, or one MIG instance: CUDA uses one."""
    whole = [card for card in cards if not card.part_of_card]
    return whole or [max(cards, key=lambda card: card.memory_bytes or 0)]


def _on_cards(
    told: Sizing,
    asked: Asked,
    shape: ModelShape,
    cards: Sequence[Device],
    memory: int | None,
    usual: Because[int] | None,
) -> Sizing:
    most = min(each for each in (usual.value if usual else None, shape.max_context, 2**24) if each)
    fit = _fit(shape, cards, memory, asked, asked.num_ctx or most)
    if _all(shape, fit):
        return _fits(told, asked, shape, fit, most, usual)
    shrunk = llama_cpp_fit(shape, cards, host_bytes=memory, sequences=asked.parallel)
    longest = (shrunk.context.value or 0) // asked.parallel if _all(shape, shrunk) else 0
    if longest and asked.num_ctx is None:
        reason = f"{longest} leaves all layers on the cards: {shrunk.context.reason}{_parallel(asked)}"
        return _with(told, asked, longest, reason, _layers_reason(shape, shrunk))
    least = asked.num_ctx or min(most, LEAST_CONTEXT)
    fit = _fit(shape, cards, memory, asked, least)
    told = _with(
        told,
        asked,
        least,
        f"the least that is set: {fit.gpu_layers.reason}{_parallel(asked)}",
        _layers_reason(shape, fit),
    )
    shared = any(card.share < 1 for card in cards)
    layers = fit.gpu_layers.value
    if shared and asked.num_gpu is None and layers is not None:
        reason = f"its share of the cards: {fit.gpu_layers.reason}; the server would fill them"
        told = evolve(
            told,
            values={**told.values, "num_gpu": layers},
            reasons={**told.reasons, "num_gpu": reason},
        )
    return _misfit(told, asked, shape, cards, memory, fit, longest)


def _fits(
    told: Sizing,
    asked: Asked,
    shape: ModelShape,
    fit: LlamaCppFit,
    most: int,
    usual: Because[int] | None,
) -> Sizing:
    parts = [usual.reason if usual else "the model's own context"]
    if usual and most < usual.value:
        parts.append(f"capped at the model's {most}")
    parts.append(f"{fit.gpu_layers.reason}{_parallel(asked)}")
    return _with(told, asked, most, "; ".join(parts), _layers_reason(shape, fit))


def _in_main_memory(
    told: Sizing, asked: Asked, shape: ModelShape, cache: KvCache, memory: int | None
) -> Sizing:
    if memory is None:
        return _unset(asked, "the usable main memory is unknown")
    room = memory // CPU_CONTEXT_SHARE
    tokens = cache.tokens(room // asked.parallel)
    fitting = CPU_CONTEXT_MOST if tokens is None else 1 << max(tokens, 1).bit_length() - 1
    value = min(max(fitting, CPU_CONTEXT_LEAST), CPU_CONTEXT_MOST, shape.max_context or CPU_CONTEXT_MOST)
    taken = size_text(cache.size(value) * asked.parallel)
    reason = (
        f"no usable accelerator; {cache}: {value} tokens take {taken}{_parallel(asked)}, of 1/"
        f"{CPU_CONTEXT_SHARE} of {size_text(memory)} usable memory = {size_text(room)}"
    )
    fit = _fit(shape, (), memory, asked, asked.num_ctx or value)
    told = _with(told, asked, value, reason, "not set: there is no card")
    if fit.fits is False:
        return _misfit(told, asked, shape, (), memory, fit, 0)
    return told


def _misfit(
    told: Sizing,
    asked: Asked,
    shape: ModelShape,
    cards: Sequence[Device],
    memory: int | None,
    fit: LlamaCppFit,
    longest: int,
) -> Sizing:
    """Not all of it is on the cards, or there is not even main memory for the rest."""
    layers, all_of_them = fit.gpu_layers.value or 0, (shape.layers or 0) + 1
    if fit.fits is False:
        parts = [size_text(sum(card.memory_bytes or 0 for card in cards)) + " on cards"] if cards else []
        parts += [f"{size_text(memory or 0)} main memory"]
        problem = f"does not fit: {size_text(shape.weight_bytes or 0)} weights with a context of "
        problem += f"{told.values.get('num_ctx', asked.num_ctx)}{_parallel(asked)}; {', '.join(parts)}"
    else:
        problem = f"{layers} of {all_of_them} layers fit on the cards, the rest is computed in main memory"
    ideas = []
    if longest and asked.num_ctx is not None:
        ideas.append(f"a context of at most {longest} leaves all of it on the cards")
    ideas += _smaller(asked, shape, cards, memory)
    ideas += _more_cards(asked, shape, cards, memory)
    if any(card.share < 1 for card in cards):
        ideas.append("more of its cards may hold it, see `stackconf: placement:`")
    advice = "; or ".join(ideas) or f"{'larger cards' if cards else 'more memory'} or a smaller model needed"
    have = (memory or 0) + sum(card.memory_bytes or 0 for card in cards)
    certain = fit.fits is False and (shape.weight_bytes or 0) > have
    return evolve(told, problem=problem, advice=advice, certain=certain)


def _smaller(asked: Asked, shape: ModelShape, cards: Sequence[Device], memory: int | None) -> list[str]:
    """The largest of the smaller quantisations that fits."""
    for name, smaller in in_fewer_bits(shape):
        fit = _fit(smaller, cards, memory, asked, asked.num_ctx or LEAST_CONTEXT)
        if _all(smaller, fit) if cards else fit.fits:
            return [f"{name} weights, {size_text(smaller.weight_bytes or 0)}, would fit"]
    return []


def _more_cards(
    asked: Asked, shape: ModelShape, cards: Sequence[Device], memory: int | None
) -> Iterator[str]:
    """How many more of the same whole cards would hold all of it."""
    if not cards or any(card.part_of_card or card.share < 1 for card in cards):
        return
    largest = max(cards, key=lambda card: card.memory_bytes or 0)
    for count in range(len(cards) + 1, MOST_CARDS + 1):
        if _all(shape, _fit(shape, [largest] * count, memory, asked, asked.num_ctx or LEAST_CONTEXT)):
            yield f"{count} such cards would hold all of it"
            return


def _fit(
    shape: ModelShape, cards: Sequence[Device], memory: int | None, asked: Asked, context: int
) -> LlamaCppFit:
    """`num_ctx` is of each request: so many of them take that much together."""
    parallel = asked.parallel
    return llama_cpp_fit(shape, cards, host_bytes=memory, context=context * parallel, sequences=parallel)


def _all(shape: ModelShape, fit: LlamaCppFit) -> bool:
    return shape.layers is not None and fit.gpu_layers.value == shape.layers + 1


def _layers_reason(shape: ModelShape, fit: LlamaCppFit) -> str:
    if _all(shape, fit):
        return f"not set: the server decides; all {fit.gpu_layers.value} layers fit"
    return f"not set: the server decides; {fit.gpu_layers.reason}"


def _parallel(asked: Asked) -> str:
    return f", for each of {asked.parallel} requests" if asked.parallel > 1 else ""


def _with(told: Sizing, asked: Asked, context: int, reason: str, layers: str) -> Sizing:
    values, reasons = dict(told.values), dict(told.reasons)
    if asked.num_ctx is None:
        values["num_ctx"], reasons["num_ctx"] = context, reason
    if asked.num_gpu is None:
        reasons["num_gpu"] = layers
    return evolve(told, values=values, reasons=reasons)


def _with_usual(told: Sizing, asked: Asked, usual: Because[int] | None, why: str) -> Sizing:
    """What holds whatever the model is."""
    if asked.num_ctx is not None:
        return told
    if usual is None:
        return evolve(told, reasons={"num_ctx": f"not set: {why or 'too little is known of the machine'}"})
    reason = f"{usual.reason}; {why}" if why else usual.reason
    return evolve(told, values={"num_ctx": usual.value}, reasons={"num_ctx": reason})


def _unset(asked: Asked, why: str) -> Sizing:
    return Sizing() if asked.num_ctx is not None else Sizing(reasons={"num_ctx": f"not set: {why}"})
