"""The real library with a tiny model of random weights, made here. Skipped where it is not installed.

pip install -e 'plugins/sentence-transformers[engine]' && pytest plugins/sentence-transformers
"""

from __future__ import annotations

import json
import warnings

import pytest

from stackconf import ApplyError, StackconfError
from stackconf.testing import machine, stack_with
from stackconf_sentence_transformers import engine, plugin
from stackconf_sentence_transformers.running import held

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    library = pytest.importorskip("sentence_transformers")

pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own

KEY, TYPE = "inference/st", "inline::sentence-transformers"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "text", "to", "embed", "query", "##s", ":"]
TEXTS = ["a text to embed", "texts", "a query : embed"] * 3


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A BERT of two layers with random weights, in sentence-transformers' layout."""
    from transformers import BertConfig, BertModel, BertTokenizer

    plain = tmp_path_factory.mktemp("plain")
    (plain / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    torch.manual_seed(7)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        BertTokenizer(str(plain / "vocab.txt")).save_pretrained(plain)
        BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, **shape)).save_pretrained(
            plain
        )
        path = tmp_path_factory.mktemp("tiny")
        model = library.SentenceTransformer(str(plain), device="cpu")
        model.max_seq_length = 48
        model.save(str(path))
    return path


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    held.clear()


def applied(**config):
    entry = {"provider_id": "st", "provider_type": TYPE, "config": config}
    return stack_with([plugin], {"inference": [entry]}, hardware=machine(cores=2))


def outcome(stack):
    try:
        (each,) = stack.apply().outcomes
    except ApplyError as error:
        (each,) = error.report.outcomes
    return each


def threads_of_an_encode():
    """PyTorch's threads while the engine computes."""
    seen = []
    handle = engine(KEY).loaded.model.register_forward_pre_hook(
        lambda *_: seen.append(torch.get_num_threads())
    )
    engine(KEY).encode(TEXTS[:1])
    handle.remove()
    return seen


def test_a_model_is_loaded_proven_and_embeds(tiny):
    with applied(model_path=str(tiny)) as stack:
        config = stack.resolution.providers[KEY].config
        assert (config.device, config.dtype, config.max_seq_length, config.batch_size) == (
            "cpu",
            "float32",
            48,
            32,
        )
        done = outcome(stack)
        assert done.state == "applied", done
        assert f"loaded: {tiny} on cpu, 32 texts at once" in str(done.detail)
        assert threads_of_an_encode() == [2]
        vectors = engine(KEY).encode(TEXTS)
        assert (vectors.shape, str(vectors.dtype)) == ((9, 32), "float32")
        expected = library.SentenceTransformer(str(tiny), device="cpu").encode(TEXTS)
        assert abs(vectors - expected).max() < 1e-5
        assert stack.plan().changes == ()


def test_settings_that_need_no_loading_change_in_place(tiny):
    with applied(model_path=str(tiny), threads=1) as stack:
        stack.apply()
        first = engine(KEY)
        changes = {"batch_size": 2, "normalize_embeddings": True, "truncate_dim": 8, "max_seq_length": 5}
        changes |= {"prompts": {"query": "query : "}, "threads": 2}
        stack.configurations.register(
            {"providers": {"inference": [{"provider_id": "st", "config": changes}]}}
        )
        assert "still loaded" in str(outcome(stack).detail)
        assert engine(KEY).loaded is first.loaded
        assert threads_of_an_encode() == [2]
        vectors = engine(KEY).encode(TEXTS)
        assert vectors.shape == (9, 8)
        assert (vectors**2).sum(axis=1) == pytest.approx([1] * 9, abs=1e-5)
        asked = engine(KEY).encode(["a text"], prompt_name="query")
        assert abs(asked - engine(KEY).encode(["query : a text"])).max() < 1e-6
        with pytest.raises(StackconfError, match="there is no prompt `passage`; use "):
            engine(KEY).encode(["a"], prompt_name="passage")
        stack.rollback(0)
        stack.apply()
        assert (engine(KEY).encode(TEXTS).shape, threads_of_an_encode()) == ((9, 32), [1])


def test_bfloat16_is_what_the_weights_are(tiny):
    with applied(model_path=str(tiny), dtype="bfloat16") as stack:
        stack.apply()
        assert next(engine(KEY).loaded.model.parameters()).dtype == torch.bfloat16
        assert engine(KEY).encode(TEXTS).dtype == "float32"


def test_a_large_request_is_divided_among_processes(tiny):
    with applied(model_path=str(tiny), processes=2, batch_size=2, threads=1) as stack:
        stack.apply()
        alone = engine(KEY).encode(TEXTS[:3])
        shared = engine(KEY).encode(TEXTS)
        assert engine(KEY)._pool is not None
        assert abs(shared[:3] - alone).max() < 1e-5
        engine(KEY).close()
        assert engine(KEY)._pool is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: (path / "model.safetensors").write_bytes(b"garbage"), "cannot be loaded: "),
        (lambda path: (path / "modules.json").write_text("[", encoding="utf-8"), "cannot be loaded: "),
        (lambda path: (path / "tokenizer.json").write_text("{", encoding="utf-8"), "cannot be loaded: "),
    ],
)
def test_a_broken_model_is_one_line_and_the_one_before_stays(tiny, tmp_path, damage, said):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(tiny, broken)
    damage(broken)
    with applied(model_path=str(broken)) as stack:
        failed = outcome(stack)
        assert failed.state == "failed"
        assert said in str(failed.error)
        assert "\n" not in str(failed.error)
        assert engine(KEY) is None


def test_weights_that_give_no_numbers_are_refused(tiny, tmp_path):
    model = library.SentenceTransformer(str(tiny), device="cpu")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    model.save(str(tmp_path / "nan"))
    with applied(model_path=str(tmp_path / "nan")) as stack:
        assert "gives values that are no numbers" in str(outcome(stack).error)


def test_a_model_that_is_not_here_waits_and_is_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with applied(model="all-MiniLM-L6-v2") as stack:
        waiting = outcome(stack)
        assert waiting.state == "pending"
        assert "hf download all-MiniLM-L6-v2" in str(waiting)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this PyTorch has a card")
def test_a_device_that_this_pytorch_does_not_have_is_refused(tiny):
    devices = [{"device": "cuda:0", "memory_bytes": 2**33, "vendor": "nvidia", "compute_capability": "8.0"}]
    with applied(model_path=str(tiny), devices=devices) as stack:
        assert "this PyTorch has no cuda device; install a PyTorch for it" in str(outcome(stack).error)


def test_the_threads_of_the_rest_of_the_process_stay(tiny):
    before = torch.get_num_threads()
    with applied(model_path=str(tiny), threads=before + 1) as stack:
        stack.apply()
        assert threads_of_an_encode() == [before + 1]
        assert torch.get_num_threads() == before


def test_without_a_model_nothing_is_loaded():
    with applied() as stack:
        assert outcome(stack).detail == "no model is set, so none is loaded"
        with pytest.raises(StackconfError, match="no model is set"):
            engine(KEY).encode(["a"])


def test_the_shape_that_is_read_is_the_one_that_is_loaded(tiny):
    from stackconf_sentence_transformers.models import read_embedding_folder

    read = read_embedding_folder(tiny)
    model = library.SentenceTransformer(str(tiny), device="cpu")
    config = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    assert (read.max_seq_length, read.positions) == (model.max_seq_length, config["max_position_embeddings"])
    count = sum(each.numel() for each in model.parameters())
    assert read.shape.weight_bytes == pytest.approx(4 * count, rel=0.02)
