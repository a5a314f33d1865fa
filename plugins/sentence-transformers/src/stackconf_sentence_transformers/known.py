"""Well-known embedding models, for planning where their files are not on the machine.

Each row is what the files of the named repository on Hugging Face say: `config.json`,
`sentence_bert_config.json`, the number of parameters of its safetensors file. A test computes the
parameters from the other figures. The prompts are those of the model's card, where its files have none.
"""

from __future__ import annotations

from collections.abc import Mapping

from stackconf_models import FullAttention, ModelShape, NoCache
from stackconf_sentence_transformers.models import EmbeddingModel

SOURCE = "its files on Hugging Face"
_E5 = {"query": "query: ", "document": "passage: "}
_BGE = {"query": "Represent this sentence for searching relevant passages: "}
_NOMIC = {"query": "search_query: ", "document": "search_document: "}

# Layers, hidden size, heads, feed-forward width, words, positions, parameters, longest text.
_MINI_6 = (6, 384, 12, 1536, 30522, 512, 22_713_216)
_MINI_12 = (12, 384, 12, 1536, 30522, 512, 33_360_000)
_BASE = (12, 768, 12, 3072, 30522, 512, 109_482_240)
_LARGE = (24, 1024, 16, 4096, 30522, 512, 335_141_888)

_ENCODERS: tuple[tuple[str, str, tuple[int, ...], int, Mapping[str, str]], ...] = (
    ("sentence-transformers/all-MiniLM-L6-v2", "bert", _MINI_6, 256, {}),
    ("sentence-transformers/all-MiniLM-L12-v2", "bert", _MINI_12, 128, {}),
    (
        "sentence-transformers/all-mpnet-base-v2",
        "mpnet",
        (12, 768, 12, 3072, 30527, 514, 109_486_464),
        384,
        {},
    ),
    ("BAAI/bge-small-en-v1.5", "bert", _MINI_12, 512, _BGE),
    ("BAAI/bge-base-en-v1.5", "bert", _BASE, 512, _BGE),
    ("BAAI/bge-large-en-v1.5", "bert", _LARGE, 512, _BGE),
    ("BAAI/bge-m3", "xlm-roberta", (24, 1024, 16, 4096, 250002, 8194, 567_754_752), 8192, {}),
    ("intfloat/e5-small-v2", "bert", _MINI_12, 512, _E5),
    ("intfloat/e5-base-v2", "bert", _BASE, 512, _E5),
    ("intfloat/e5-large-v2", "bert", _LARGE, 512, _E5),
    (
        "intfloat/multilingual-e5-small",
        "bert",
        (12, 384, 12, 1536, 250037, 512, 117_653_760),
        512,
        _E5,
    ),
    (
        "intfloat/multilingual-e5-base",
        "xlm-roberta",
        (12, 768, 12, 3072, 250002, 514, 278_043_648),
        512,
        _E5,
    ),
    (
        "intfloat/multilingual-e5-large",
        "xlm-roberta",
        (24, 1024, 16, 4096, 250002, 514, 559_890_432),
        512,
        _E5,
    ),
    (
        "nomic-ai/nomic-embed-text-v1.5",
        "nomic_bert",
        (12, 768, 12, 3072, 30528, 8192, 136_731_648),
        8192,
        _NOMIC,
    ),
)

# Layers, hidden size, heads, KV heads, width, words, positions, parameters. Texts of up to 32768 tokens.
_DECODERS = (
    ("Qwen/Qwen3-Embedding-0.6B", (28, 1024, 16, 8, 3072, 151669, 32768, 595_776_512)),
    ("Qwen/Qwen3-Embedding-4B", (36, 2560, 32, 8, 9728, 151665, 40960, 4_021_774_336)),
    ("Qwen/Qwen3-Embedding-8B", (36, 4096, 32, 8, 12288, 151665, 40960, 7_567_295_488)),
)
_QWEN_LENGTH = 32768


def _encoder(
    name: str, architecture: str, figures: tuple[int, ...], length: int, prompts: Mapping[str, str]
) -> EmbeddingModel:
    layers, hidden, heads, wide, words, positions, parameters = figures
    shape = ModelShape(
        name,
        source=SOURCE,
        architecture=architecture,
        layers=layers,
        hidden_size=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        vocabulary=words,
        max_context=positions,
        intermediate_size=wide,
        attention=NoCache(),
        parameters=parameters,
        dtype="float32",
    )
    usable = positions - 2 if architecture in {"mpnet", "xlm-roberta"} else positions
    return EmbeddingModel(
        shape, length, usable, prompts, own_code=architecture == "nomic_bert", source=SOURCE
    )


def _decoder(name: str, figures: tuple[int, ...]) -> EmbeddingModel:
    layers, hidden, heads, kv_heads, wide, words, positions, parameters = figures
    shape = ModelShape(
        name,
        source=SOURCE,
        architecture="qwen3",
        layers=layers,
        hidden_size=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=128,
        vocabulary=words,
        max_context=positions,
        intermediate_size=wide,
        attention=FullAttention(),
        parameters=parameters,
        dtype="bfloat16",
    )
    return EmbeddingModel(shape, _QWEN_LENGTH, positions, source=SOURCE)


_MODELS = (*(_encoder(*row) for row in _ENCODERS), *(_decoder(*row) for row in _DECODERS))
_BY_NAME = {each.shape.name.lower(): each for each in _MODELS}
_BY_NAME |= {each.name.lower(): each for each in _MODELS}


def known_embedding_model(name: str) -> EmbeddingModel | None:
    """A well-known model by its name on Hugging Face, with or without the organisation.

    >>> known_embedding_model("nomic-ai/nomic-embed-text-v1.5").max_seq_length
    8192
    >>> known_embedding_model("somebody/a-fine-tune") is None
    True
    """
    return _BY_NAME.get(name.strip().lower())


def known_embedding_models() -> tuple[str, ...]:
    """The names of all well-known models."""
    return tuple(each.shape.name for each in _MODELS)
