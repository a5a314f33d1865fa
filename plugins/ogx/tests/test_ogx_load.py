"""No request is lost: swaps of the inference provider under a steady load of upstream's own client."""

from __future__ import annotations

import pytest
from hosting_kit import (
    FIELDS,
    FILES,
    Load,
    asked,
    backend,
    client_of,
    embedding_client_of,
    hosting,
)
from standin_ollama import pieces, wrong

SWAPS = 100
FAULTS = ("", "breaks", "ends early", "mixes", "refuses")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of ogx-client about its own models


def test_the_check_of_an_answer_finds_what_is_wrong_with_it() -> None:
    whole = "".join(pieces("A", "1x2", 5))
    other = "".join(pieces("B", "1x2", 5))
    assert not wrong(whole, "1x2", 5)
    assert wrong(whole, "1x3", 5)
    assert wrong(whole[: len(whole) // 2], "1x2", 5)
    assert wrong(whole.replace("A/1x2/1 ", ""), "1x2", 5)
    assert wrong(whole[:12] + other[12:], "1x2", 5)
    assert wrong("", "1x2", 5)


def test_the_load_finds_requests_that_are_lost(upstream) -> None:
    with Load(client_of(upstream.name, "http://127.0.0.1:9"), threads=1) as load:
        load.until(lambda: bool(load.faults))
    assert "onnection" in load.faults[0]


def test_the_load_finds_whatever_a_backend_does_wrong(upstream, tmp_path) -> None:
    name = upstream.name
    with backend("A") as a, hosting(tmp_path, name, a) as hosted:
        for fault in FAULTS:
            asked(f"{a}/fault", {"fault": fault})
            with Load(client_of(name, hosted.url), threads=1) as load:
                load.until(lambda load=load: sum(load.answers.values()) >= 2)
            wrong_ones = {"": 0, "breaks": load.streams}.get(fault, sum(load.answers.values()))
            assert len(load.faults) == wrong_ones, (fault, load.faults)


def test_a_backend_that_hangs_is_left_after_a_while() -> None:
    with backend("A") as a:
        asked(f"{a}/fault", {"fault": "hangs"})
        body = {"model": "m", "messages": [{"role": "user", "content": "#1x1"}]}
        with pytest.raises(TimeoutError):
            asked(f"{a}/v1/chat/completions", body, patience=0.2)
        asked(f"{a}/fault", {"fault": ""})
        answer = asked(f"{a}/v1/chat/completions", body)
    assert not wrong(answer["choices"][0]["message"]["content"], "1x1", 5)


def test_a_hundred_swaps_lose_no_request(upstream, tmp_path) -> None:
    name, field = upstream.name, FIELDS[upstream.name]
    below = "/v1" if name == "ogx" else ""
    with backend("A", delay=0.02) as a, backend("B", delay=0.02) as b, hosting(tmp_path, name, a) as hosted:
        url = hosted.url
        with Load(client_of(name, url)) as load:
            load.until(lambda: load.streams > 0)
            for number in range(SWAPS):
                hosted.register("inference", "ollama", **{field: f"{(b, a)[number % 2]}{below}"})
                report = hosted.apply()
                assert report["state"] == "applied", report
                assert "swapped" in report["outcomes"][0]["detail"]
        assert load.faults == []
        assert set(load.answers) == {"A", "B"}
        assert load.streams > SWAPS
        cut = [asked(f"{each}/counts")["cut"] for each in (a, b)]
        assert cut == [0, 0]
        assert hosted.end() == 0, hosted.said


TOLD_OF_MODELS = """\
models:
- model_id: all-minilm:latest
  provider_id: ollama
  model_type: embedding
  metadata: {{embedding_dimension: 8}}
"""
"""What llama-stack's file says of its models, which OGX asks its providers for."""


def test_swaps_lose_no_embedding(upstream, tmp_path) -> None:
    name, field = upstream.name, FIELDS[upstream.name]
    below = "/v1" if name == "ogx" else ""
    models = "llama3.2:3b,all-minilm:latest,all-minilm:l6-v2"
    text = FILES[name].replace("models:\n", TOLD_OF_MODELS)
    with (
        backend("A", models=models) as a,
        backend("B", models=models) as b,
        hosting(tmp_path, name, a, text=text) as hosted,
    ):
        with Load(embedding_client_of(name, hosted.url, "AB"), threads=2) as load:
            for number in range(10):
                before = sum(load.answers.values())
                load.until(lambda before=before: sum(load.answers.values()) > before)
                hosted.register("inference", "ollama", **{field: f"{(b, a)[number % 2]}{below}"})
                assert hosted.apply()["state"] == "applied"
        assert load.faults == []
        assert set(load.answers) == {"A", "B"}
