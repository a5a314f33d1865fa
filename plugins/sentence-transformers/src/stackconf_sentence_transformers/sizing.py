"""How a model of embeddings is set up on a machine: each value with its reason, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve, field, frozen

from stackconf import size_text
from stackconf_models import Device, choose_dtype, weight_bytes
from stackconf_sentence_transformers.devices import Place
from stackconf_sentence_transformers.models import EmbeddingModel, find_embedding_model, text_bytes

MIB = 1024**2
RUNTIME_BYTES = 551 * MIB
"""What CUDA and its libraries take on a card before any model. Source: NVIDIA AIConfigurator, `other_mem`
("increase from 551MB"), before it was raised for engines that record graphs."""
HOST_SHARE = 4
"""One part in so many of the usable main memory: the stack's other providers live in it too."""
LIBRARY_BATCH = 32
"""sentence-transformers' own `batch_size`."""
MOST_ON_CARD = 256
"""Texts at once on a card: beyond it short texts only wait for long ones."""
MOST_TOKENS = 2**15
"""Tokens at once: weights are read once for all of them, and a few hundred tokens keep the fastest card
as busy as its memory (295 operations per byte on an H100: 989e12 / 3.35e12). More takes memory only."""
ENOUGH_TEXTS = 4
"""So many texts at once come before longer texts."""
SHORTEST = 512
"""Texts are not cut below it to have more at once: upstream's chunks have 512 tokens."""
_TENSOR_CORES = (7, 0)
_BFLOAT16 = (8, 0)


@frozen
class Asked:
    """What is set, by whoever it was; `None` is to be derived."""

    model: str | None = None
    device: str | None = None
    dtype: str | None = None
    batch_size: int | None = None
    max_seq_length: int | None = None
    processes: int | None = None
    own_code: bool = False


@frozen
class Sizing:
    """The values that follow, and by field the reason of each or of its absence.

    `problem` says what does not fit and `advice` what would.
    """

    values: Mapping[str, object] = field(factory=dict)
    reasons: Mapping[str, str] = field(factory=dict)
    model: EmbeddingModel | None = None
    place: Place | None = None
    problem: str = ""
    advice: str = ""
    unknown: str = ""
    """Why the model's needs cannot be computed."""
    fitting: int | None = None
    """The most texts at once that fit, where more are set."""

    def with_(self, name: str, value: object, reason: str) -> Sizing:
        """The same with one more value, or with the reason why there is none."""
        values = self.values if value is None else {**self.values, name: value}
        return evolve(self, values=values, reasons={**self.reasons, name: reason})


@frozen
class _Room:
    """A model on one place: what its weights take, and what is left for texts. `None`: unknown."""

    place: Place
    dtype: str | None
    dtype_reason: str
    weights: int | None
    room: int | None
    told: str


def size(asked: Asked, places: Sequence[Place] | None) -> Sizing:
    """Derive what is not set from the model, the machine and what is set.

    * `device`: the first card that holds the model and a text of it, otherwise the processor.
    * `dtype`: on NVIDIA's cards bfloat16 from compute capability 8.0, float16 from 7.0; on a processor
      bfloat16 for models stored so where it computes in it; otherwise float32.
    * `max_seq_length`: the model's own; halved, down to 512, until 4 texts fit at once and have at
      most 32768 tokens together.
    * `batch_size`: the largest power of two that fits, at most 32 on a processor, 256 on a card, and
      32768 tokens together.
    * `device_memory_bytes`: what that takes of a card.

    >>> card = Place("cuda:0", "NVIDIA L4", 22 * 1024**3, (8, 9), "nvidia")
    >>> told = size(Asked("bge-base-en-v1.5"), [card, Place("cpu", None, 32 * 1024**3)])
    >>> told.values["device"], told.values["dtype"], told.values["batch_size"]
    ('cuda:0', 'bfloat16', 64)
    """
    told = Sizing()
    if asked.processes is None:
        told = told.with_("processes", 1, _processes_reason(places))
    found = find_embedding_model(asked.model) if asked.model is not None else None
    model = found.value if found is not None else None
    told = evolve(told, model=model)
    if found is None:
        told = evolve(told, unknown="no model is set")
    elif model is None:
        told = evolve(told, unknown=found.reason)
    if places is None:
        return _without(told, asked, told.unknown or "nothing is known of this machine")
    wanted = _wanted(asked.device, places)
    if model is None:
        return _without(
            _on(told, asked, wanted[0], f"not looked at closer: {told.unknown}"), asked, told.unknown
        )
    return _for_model(told, model, asked, wanted)


def _processes_reason(places: Sequence[Place] | None) -> str:
    cards = [place for place in places or () if place.kind != "cpu"]
    if len(cards) > 1:
        return f"one of {len(cards)} cards serves it; as many processes as cards use them all"
    return "one process, which all requests share"


def _wanted(device: str | None, places: Sequence[Place]) -> list[Place]:
    """The places to try: what is set, even where it is not known here, or everything in order."""
    if device is None:
        return list(places)
    same = [place for place in places if device in {place.device, place.kind}]
    return same[:1] or [Place(device)]


def _on(told: Sizing, asked: Asked, place: Place, why: str) -> Sizing:
    told = evolve(told, place=place)
    return told if asked.device is not None else told.with_("device", place.device, f"{place}; {why}")


def _for_model(told: Sizing, model: EmbeddingModel, asked: Asked, places: Sequence[Place]) -> Sizing:
    tried: list[str] = []
    for place in places:
        room = _room(model, place, asked)
        fits, why = _holds(model, room, asked)
        if fits is not False:
            told = _on(told, asked, place, "; ".join([*tried, why]))
            return _sized(told, model, room, asked)
        tried.append(f"{place.device}: {why}")
    last = places[-1]
    told = _on(told, asked, last, "; ".join(tried))
    told = _without(told, asked, tried[-1])
    advice = "a smaller model, or a shorter max_seq_length" if asked.max_seq_length else "a smaller model"
    if last.kind != "cpu":
        advice += "; or more of the card under `stackconf: placement:`"
    return evolve(told, problem="; ".join(tried), advice=f"it takes {advice}", unknown="")


def _room(model: EmbeddingModel, place: Place, asked: Asked) -> _Room:
    if asked.dtype is not None:
        dtype, why = (None, "as it is stored") if asked.dtype == "auto" else (asked.dtype, "as it is set")
    else:
        dtype, why = _dtype(model, place)
    weights = weight_bytes(model.shape, dtype=dtype or model.shape.dtype or "float32")
    memory = place.memory_bytes
    if weights.value is None or memory is None:
        reason = weights.reason if weights.value is None else f"the memory of {place} is unknown"
        return _Room(place, dtype, why, weights.value, None, reason)
    taken = size_text(weights.value)
    if place.kind == "cpu" or place.unified:
        room = memory // HOST_SHARE - weights.value
        return _Room(
            place,
            dtype,
            why,
            weights.value,
            room,
            f"1/{HOST_SHARE} of {size_text(memory)} less {taken} of weights",
        )
    room = memory - RUNTIME_BYTES - weights.value
    told = f"{size_text(memory)} less {size_text(RUNTIME_BYTES)} for the driver and {taken} of weights"
    return _Room(place, dtype, why, weights.value, room, told)


def _dtype(model: EmbeddingModel, place: Place) -> tuple[str | None, str]:
    shape, capability = model.shape, place.compute_capability
    if place.kind == "cpu":
        if shape.dtype == "bfloat16" and place.bfloat16:
            return "bfloat16", "the model's own type; the processor computes in it"
        return "float32", "a processor computes fastest in it" + (
            f"; {shape.dtype} would be unpacked" if shape.dtype not in {None, "float32"} else ""
        )
    if place.vendor == "nvidia" and capability is not None and capability < _TENSOR_CORES:
        version = ".".join(map(str, capability))
        return "float32", f"{place} ({version}) has no matrix units for 16-bit types, which need 7.0"
    chosen = choose_dtype(shape, Device(place.name, place.memory_bytes, capability, place.vendor))
    if chosen.value is None:
        return None, f"as it is stored ({shape.dtype or 'unknown'}): {chosen.reason}"
    return chosen.value, chosen.reason


def _holds(model: EmbeddingModel, room: _Room, asked: Asked) -> tuple[bool | None, str]:
    """Whether the model and one text of it fit at all; on a processor into all of the usable memory."""
    if room.room is None or room.weights is None:
        return None, room.told
    length = asked.max_seq_length or min(model.max_seq_length or SHORTEST, SHORTEST)
    need = text_bytes(model, length, _counted(model, room), own_code=asked.own_code)
    if need is None:
        return None, f"what {model.name} takes is unknown: its hidden size or heads are"
    need *= asked.batch_size if asked.batch_size is not None and asked.max_seq_length is not None else 1
    room_bytes = room.room
    if (room.place.kind == "cpu" or room.place.unified) and room.place.memory_bytes is not None:
        room_bytes = room.place.memory_bytes - room.weights
    if need > room_bytes:
        return False, (
            f"{size_text(room.weights)} of weights and {size_text(need)} for "
            f"{_texts(1 if asked.batch_size is None else asked.batch_size)} of {length} tokens do not fit "
            f"into {_limit(room)}"
        )
    return True, f"it holds {size_text(room.weights)} of weights and a text of {length} tokens"


def _limit(room: _Room) -> str:
    memory = room.place.memory_bytes or 0
    if room.place.kind == "cpu" or room.place.unified:
        return f"{size_text(memory)} of usable memory"
    return f"{size_text(memory)} less {size_text(RUNTIME_BYTES)} for the driver"


def _texts(count: int) -> str:
    return "a text" if count == 1 else f"{count} texts"


def _counted(model: EmbeddingModel, room: _Room) -> str:
    """The type that memory is counted in; where it is not known, the larger one."""
    return room.dtype or model.shape.dtype or "float32"


def _sized(told: Sizing, model: EmbeddingModel, room: _Room, asked: Asked) -> Sizing:
    if asked.dtype is None:
        told = told.with_("dtype", room.dtype, room.dtype_reason)
    own = model.max_seq_length
    if room.room is None:
        told = told if asked.max_seq_length else told.with_("max_seq_length", own, "the model's own")
        return _without(told, asked, room.told)
    length, why, reduced = _length(model, room, asked)
    if asked.max_seq_length is None:
        told = told.with_("max_seq_length", length, why)
    if length is None:
        return _without(told, asked, "how long its texts may be is unknown")
    each = _each(model, room, asked, length)
    if each is None:
        return _without(told, asked, f"what {model.name} takes is unknown: its hidden size or heads are")
    most = min(LIBRARY_BATCH if room.place.kind == "cpu" else MOST_ON_CARD, max(1, MOST_TOKENS // length))
    told = evolve(told, fitting=max(1, room.room // each))
    batch = asked.batch_size
    if batch is None:
        batch, why = _batch(most, each, length, room, reduced=reduced)
        told = told.with_("batch_size", batch, why)
    if room.place.kind == "cpu" or room.place.unified or room.weights is None:
        return told.with_("device_memory_bytes", None, "it takes no card's memory")
    total = RUNTIME_BYTES + room.weights + batch * each
    return told.with_(
        "device_memory_bytes",
        total,
        f"{size_text(RUNTIME_BYTES)} for the driver, {size_text(room.weights)} of weights, "
        f"{size_text(batch * each)} for {_texts(batch)} of {length} tokens",
    )


def _each(model: EmbeddingModel, room: _Room, asked: Asked, length: int) -> int | None:
    """The memory of one text among those that are computed at once."""
    return text_bytes(model, length, _counted(model, room), own_code=asked.own_code)


def _length(model: EmbeddingModel, room: _Room, asked: Asked) -> tuple[int | None, str, bool]:
    """The longest text, why, and whether it is shorter than the model's own for want of memory."""
    own = model.max_seq_length
    if asked.max_seq_length is not None or own is None:
        return asked.max_seq_length or own, "the model does not say how long a text may be", False
    texts = asked.batch_size or ENOUGH_TEXTS
    length = own
    while length > SHORTEST and not _all_fit(model, room, asked, length):
        length = max(SHORTEST, length // 2)
    if length == own:
        return own, "the model's own", False
    together = "" if asked.batch_size else f" with at most {MOST_TOKENS} tokens together"
    return (
        length,
        f"the model's own {own} halved until {_texts(texts)} at once{together} fit into {room.told}",
        True,
    )


def _all_fit(model: EmbeddingModel, room: _Room, asked: Asked, length: int) -> bool:
    texts = asked.batch_size or ENOUGH_TEXTS
    if asked.batch_size is None and texts * length > MOST_TOKENS:
        return False
    return (_each(model, room, asked, length) or 0) * texts <= (room.room or 0)


def _batch(most: int, each: int, length: int, room: _Room, *, reduced: bool) -> tuple[int, str]:
    """Texts at once, and why so many."""
    fitting = (room.room or 0) // each
    told = f"{size_text(each)} for a text of {length} tokens"
    if fitting < 1:
        return 1, f"{told}, more than {room.told}; one at a time"
    told = f"{told}; {room.told} holds {fitting}"
    if fitting >= most and not reduced:
        return _power(most), f"{told}; {_power(most)} is {_cap(_power(most), length)}"
    if reduced and fitting >= ENOUGH_TEXTS:
        return ENOUGH_TEXTS, f"{told}; {ENOUGH_TEXTS}, before there are more at once, texts are longer"
    count = _power(min(fitting, most))
    return count, f"{told}; {count} is the largest power of two"


def _power(number: int) -> int:
    """The largest power of two that is not more."""
    return 1 << number.bit_length() - 1


def _cap(count: int, length: int) -> str:
    """What keeps it from being more."""
    if count * 2 * length > MOST_TOKENS and count not in {LIBRARY_BATCH, MOST_ON_CARD}:
        return f"{count * length} tokens, and more keep nothing busier"
    return "sentence-transformers' own" if count == LIBRARY_BATCH else "the most that is set"


def _without(told: Sizing, asked: Asked, why: str) -> Sizing:
    """The rest is left to sentence-transformers, and each says why."""
    for name in ("dtype", "max_seq_length", "batch_size", "device"):
        if getattr(asked, name) is None and name not in told.reasons:
            own = LIBRARY_BATCH if name == "batch_size" else None
            text = f"sentence-transformers' own: {why}" if own else f"left to sentence-transformers: {why}"
            told = told.with_(name, own, text)
    return told
