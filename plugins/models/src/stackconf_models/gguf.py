"""The header of a GGUF file: what llama.cpp and Ollama load.

Only the header is read, never the tensors. Source: ggml's `docs/gguf.md` and llama.cpp's
`gguf-py/gguf/constants.py` (keys, tensor types and their sizes).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from attrs import define, field, frozen

from stackconf_models.reading import MOST, open_regular
from stackconf_models.shape import (
    Attention,
    Experts,
    FullAttention,
    LatentAttention,
    ModelShape,
    ModelUnreadable,
    NoCache,
    OtherAttention,
    Quantisation,
    SlidingWindow,
)

HEADER_BYTES = 128 * 1024**2
"""No header is read further; a vocabulary of a quarter of a million words takes some 10 MiB."""
MOST_ENTRIES = 100_000
MOST_TEXTS = 2_000_000
"""In all arrays together; the largest real vocabularies have some 800 000 words and merges."""
MOST_KEPT = 4_096
"""Arrays up to this length are kept (one value a layer); longer ones are only counted."""
_TEXT_BYTES = 1024**2
_VERSIONS = (2, 3)

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

TENSOR_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}  # fmt: skip
"""Name, values in a block, bytes of a block."""

_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL",
    26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
    36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4", 40: "Q1_0",
}  # fmt: skip
"""`general.file_type`. Source: llama.cpp `llama_ftype`."""

_UNQUANTISED = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_WINDOW_PERIOD = {"gemma2": 2, "gemma3": 6, "cohere2": 4, "gpt-oss": 2}
"""Where the file does not say which layers have a window. Source: `set_swa_pattern` in llama.cpp."""
_STATE_MARKS = (
    "ssm.", "shortconv.", "wkv.", "kda.", "token_shift_count", "full_attention_interval",
    "attention.key_length_swa",
)  # fmt: skip
"""Beginnings of keys of architectures whose layers do not all keep keys and values alike."""
_BLOCK = re.compile(r"blk\.(\d{1,6})\.")
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")

Value: TypeAlias = int | float | bool | str | tuple[Any, ...]


@frozen
class Tensor:
    """One tensor: its name, how many values it holds, and their type (a key of `TENSOR_TYPES`)."""

    name: str
    values: int
    kind: int
    offset: int

    @property
    def size(self) -> int | None:
        """Its bytes, or `None` for a type that is not known here."""
        if self.kind not in TENSOR_TYPES:
            return None
        _, block, size = TENSOR_TYPES[self.kind]
        return -(-self.values // block) * size


@frozen
class GgufHeader:
    """What stands before the tensors. `lengths` are the arrays' lengths, `file_bytes` the file's."""

    values: dict[str, Value]
    lengths: dict[str, int]
    tensors: tuple[Tensor, ...]
    data_start: int
    file_bytes: int


def read_header(path: str | Path) -> GgufHeader:
    """The header of a GGUF file of version 2 or 3. Raises `ModelUnreadable`.

    At most `HEADER_BYTES` are read, whatever the file claims.
    """
    file = Path(path)
    with open_regular(file) as opened:
        reader = _Reader(opened, file)
        try:
            return reader.header()
        except (struct.error, OSError, UnicodeDecodeError) as error:
            raise ModelUnreadable(f"{file}: cannot be read as GGUF: {error}") from None


def read_gguf(path: str | Path) -> ModelShape:
    """The shape of the model in a GGUF file; of a split one, name any part.

    Raises `ModelUnreadable`, also where the file is shorter than its header says (a download that
    was cut off).
    """
    first, *others = _parts(Path(path))
    headers = [read_header(part) for part in (first, *others)]
    for part, header in zip((first, *others), headers, strict=True):
        _refuse_short(part, header)
    return _Described(first, headers).shape()


def _parts(path: Path) -> list[Path]:
    """All files of a split model, the first one first."""
    match = _SPLIT.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    if not 1 <= count <= 1000:  # noqa: PLR2004
        raise ModelUnreadable(f"{path}: says that it is one of {count} parts")
    parts = [path.with_name(f"{match['stem']}-{n:05}-of-{match['count']}.gguf") for n in range(1, count + 1)]
    missing = [part.name for part in parts if not part.exists()]
    if missing:
        raise ModelUnreadable(f"{path}: {len(missing)} of its {count} parts are missing, first {missing[0]}")
    return parts


def _refuse_short(path: Path, header: GgufHeader) -> None:
    ends = [each.offset + each.size for each in header.tensors if each.size is not None]
    needed = header.data_start + max(ends, default=0)
    if header.file_bytes < needed:
        raise ModelUnreadable(
            f"{path}: is cut off: {header.file_bytes} of {needed} bytes are there; download it again"
        )


@define
class _Reader:
    """Reads forward through one header and counts what it read."""

    file: BinaryIO
    path: Path
    order: str = "<"
    size: int = field(init=False, default=0)
    texts: int = field(init=False, default=0)

    def header(self) -> GgufHeader:
        self.size = self.file.seek(0, 2)
        self.file.seek(0)
        if self.take(4) != b"GGUF":
            raise self.wrong("is no GGUF file")
        self.version()
        tensors, entries = self.number("Q"), self.number("Q")
        if tensors > MOST_ENTRIES or entries > MOST_ENTRIES:
            raise self.wrong(f"claims {tensors} tensors and {entries} entries")
        values: dict[str, Value] = {}
        lengths: dict[str, int] = {}
        for _ in range(entries):
            key = self.text()
            value = self.value(self.number("I"))
            if isinstance(value, _Long):
                lengths[key] = value.length
            else:
                values[key] = value
                if isinstance(value, tuple):
                    lengths[key] = len(value)
        found = tuple(self.tensor() for _ in range(tensors))
        return GgufHeader(values, lengths, found, self.aligned(values), self.size)

    def version(self) -> None:
        version = self.number("I")
        if version > 0xFFFF:  # noqa: PLR2004 (a small number with its bytes the other way round)
            self.order = ">"
            version = int.from_bytes(version.to_bytes(4, "little"), "big")
        if version not in _VERSIONS:
            raise self.wrong(f"has version {version} of the format; 2 and 3 can be read")

    def aligned(self, values: dict[str, Value]) -> int:
        step = values.get("general.alignment", 32)
        if not isinstance(step, int) or isinstance(step, bool) or not 0 < step <= HEADER_BYTES:
            raise self.wrong("has an impossible alignment")
        return -(-self.file.tell() // step) * step

    def tensor(self) -> Tensor:
        name = self.text()
        dimensions = self.number("I")
        if dimensions > 8:  # noqa: PLR2004 (ggml has four)
            raise self.wrong(f"claims a tensor of {dimensions} dimensions")
        values = 1
        for _ in range(dimensions):
            values *= self.number("Q")
        if values > MOST:
            raise self.wrong("claims a tensor of impossible size")
        kind, offset = self.number("I"), self.number("Q")
        return Tensor(name, values, kind, offset)

    def value(self, kind: int) -> Value | _Long:
        if kind in _NUMBERS:
            number: int | float | bool = self.unpacked(_NUMBERS[kind])
            return number
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self.array(self.number("I"), self.number("Q"))
        raise self.wrong(f"has a value of unknown type {kind}")

    def array(self, kind: int, length: int) -> Value | _Long:
        """Short arrays of numbers as they are; of anything else only the length."""
        if kind in _NUMBERS:
            code = _NUMBERS[kind]
            if length <= MOST_KEPT:
                data = self.take(length * struct.calcsize(code))
                return tuple(struct.unpack(f"{self.order}{length}{code}", data))
            self.skip(length * struct.calcsize(code))
        elif kind == _STRING:
            self.skip_texts(length)
        else:
            raise self.wrong("has an array of arrays or of an unknown type")
        return _Long(length)

    def skip_texts(self, length: int) -> None:
        self.texts += length
        if self.texts > MOST_TEXTS:
            raise self.wrong(f"claims {self.texts} words")
        little = self.order == "<"
        for _ in range(length):
            size = int.from_bytes(self.file.read(8), "little" if little else "big")
            if size > _TEXT_BYTES:
                raise self.wrong(f"claims a text of {size} bytes")
            self.file.seek(size, 1)
        self.allow(0)

    def text(self) -> str:
        length = self.number("Q")
        if length > _TEXT_BYTES:
            raise self.wrong(f"claims a text of {length} bytes")
        return self.take(length).decode("utf-8", "replace")

    def number(self, code: str) -> int:
        return int(self.unpacked(code))

    def unpacked(self, code: str) -> Any:
        return struct.unpack(self.order + code, self.take(struct.calcsize(code)))[0]

    def take(self, length: int) -> bytes:
        self.allow(length)
        data = self.file.read(length)
        if len(data) < length:
            raise self.wrong("is cut off within its header; download it again")
        return data

    def skip(self, length: int) -> None:
        self.allow(length)
        self.file.seek(length, 1)

    def allow(self, length: int) -> None:
        end = self.file.tell() + length
        if end > self.size:
            raise self.wrong("is cut off within its header; download it again")
        if end > HEADER_BYTES:
            raise self.wrong(f"claims a header of more than {HEADER_BYTES // 1024**2} MiB")

    def wrong(self, what: str) -> ModelUnreadable:
        return ModelUnreadable(f"{self.path}: {what}")


@frozen
class _Long:
    length: int


@define
class _Described:
    """A model's shape from the headers of its parts; the first one has the model's facts."""

    path: Path
    headers: list[GgufHeader]
    problems: list[str] = field(factory=list)

    def shape(self) -> ModelShape:
        architecture = self.word("general.architecture")
        layers, hidden = self.whole("block_count"), self.whole("embedding_length")
        if architecture is None or layers is None or hidden is None:
            raise ModelUnreadable(f"{self.path}: does not say how many layers of what size; it is no model")
        heads = self.whole("attention.head_count")
        key_dim = self.whole("attention.key_length") or (hidden // heads if heads else None)
        value_dim = self.whole("attention.value_length")
        tensors = [tensor for header in self.headers for tensor in header.tensors]
        sizes = [tensor.size for tensor in tensors]
        total = sum(size for size in sizes if size is not None) if None not in sizes else None
        if total is None:
            kinds = sorted({tensor.kind for tensor in tensors if tensor.size is None})
            self.problems.append(f"weights: tensors of unknown type {kinds[0]}")
        parameters = sum(tensor.values for tensor in tensors)
        return ModelShape(
            name=self.word("general.name") or self.path.stem,
            source=str(self.path),
            architecture=architecture,
            layers=layers,
            hidden_size=hidden,
            heads=heads,
            kv_heads=self.whole("attention.head_count_kv") or heads,
            head_dim=key_dim,
            value_dim=value_dim if value_dim != key_dim else None,
            vocabulary=self.whole("vocab_size") or self.headers[0].lengths.get("tokenizer.ggml.tokens"),
            max_context=self.whole("context_length"),
            intermediate_size=self.whole("feed_forward_length"),
            experts=self.experts(),
            attention=self.attention(architecture, layers),
            tied_embeddings=not any(tensor.name == "output.weight" for tensor in tensors)
            if tensors
            else None,
            parameters=parameters or None,
            weight_bytes=total or None,
            layer_bytes=_layer_bytes(tensors, layers),
            input_bytes=next((each.size for each in tensors if each.name == "token_embd.weight"), None),
            dtype=_UNQUANTISED.get(self.file_type() or ""),
            quantisation=self.quantisation(total, parameters),
            problems=self.problems,
        )

    def entry(self, name: str) -> Value | None:
        prefix = self.headers[0].values.get("general.architecture")
        return self.headers[0].values.get(f"{prefix}.{name}")

    def has(self, mark: str) -> bool:
        """Whether some entry of this architecture begins so."""
        prefix = f"{self.headers[0].values.get('general.architecture')}.{mark}"
        return any(key.startswith(prefix) for key in self.headers[0].values)

    def word(self, key: str) -> str | None:
        value = self.headers[0].values.get(key)
        return value[:200] if isinstance(value, str) and value and value.isprintable() else None

    def whole(self, name: str) -> int | None:
        """A positive whole number; of one for each layer, the largest."""
        value = self.entry(name)
        if isinstance(value, tuple):
            value = max((each for each in value if type(each) is int), default=0)
        return value if type(value) is int and 0 < value <= MOST else None

    def experts(self) -> Experts | None:
        count = self.whole("expert_count")
        if count is None or count == 1:
            return None
        return Experts(
            count,
            self.whole("expert_used_count"),
            self.whole("expert_feed_forward_length"),
            self.whole("expert_shared_count") or 0,
            self.whole("leading_dense_block_count") or 0,
        )

    def attention(self, architecture: str, layers: int) -> Attention:
        rank, rope = self.whole("attention.kv_lora_rank"), self.whole("rope.dimension_count")
        state = any(self.has(mark) for mark in _STATE_MARKS)
        window = self.whole("attention.sliding_window")
        by_layer = self.entry("attention.head_count_kv")
        if self.entry("attention.causal") is False:
            return NoCache()
        if rank is not None and rope is not None:
            query = self.whole("attention.q_lora_rank")
            return LatentAttention(rank, rope, query, value_dim=self.whole("attention.value_length_mla"))
        if (
            state
            or self.whole("attention.shared_kv_layers")
            or (isinstance(by_layer, tuple) and len(set(by_layer)) > 1)
        ):
            return OtherAttention(
                "its layers keep different amounts (states, or KV heads of their own or of others)"
            )
        return FullAttention() if window is None else self.windowed(architecture, layers, window)

    def windowed(self, architecture: str, layers: int, window: int) -> Attention:
        pattern = self.entry("attention.sliding_window_pattern")
        if isinstance(pattern, tuple):
            sliding = sum(map(bool, pattern[:layers]))
            return SlidingWindow(window, sliding) if sliding else FullAttention()
        period = pattern if type(pattern) is int and pattern > 0 else _WINDOW_PERIOD.get(architecture)
        if period is None:
            return OtherAttention(f"it has windows of {window} tokens, and which layers have one is unknown")
        return SlidingWindow(window, layers - layers // period)

    def file_type(self) -> str | None:
        kind = self.headers[0].values.get("general.file_type")
        return _FILE_TYPES.get(kind) if type(kind) is int else None

    def quantisation(self, total: int | None, parameters: int) -> Quantisation | None:
        label = self.file_type() or ""
        if label in _UNQUANTISED:
            return None
        bits = round(total * 8 / parameters, 2) if total and parameters else None
        return Quantisation("gguf", bits, None, label)


def _layer_bytes(tensors: list[Tensor], layers: int) -> tuple[int, ...] | None:
    """The bytes of each layer's tensors, where every layer has some and every type is known."""
    if layers > MOST_ENTRIES or any(tensor.size is None for tensor in tensors):
        return None
    sizes: dict[int, int] = {}
    for number, size in _numbered(tensors):
        sizes[number] = sizes.get(number, 0) + size
    if any(number not in sizes for number in range(layers)):
        return None
    return tuple(map(partial(dict.__getitem__, sizes), range(layers)))


def _numbered(tensors: list[Tensor]) -> Iterator[tuple[int, int]]:
    for tensor in tensors:
        match = _BLOCK.match(tensor.name)
        if match is not None and tensor.size is not None:
            yield int(match[1]), tensor.size
