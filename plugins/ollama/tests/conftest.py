from __future__ import annotations

from collections.abc import Iterator

import pytest
from ollama_stand_in import OllamaStandIn, serving

collect_ignore = ["conftest.py"]  # not to be read again for doctests: others have its name


@pytest.fixture
def ollama() -> Iterator[OllamaStandIn]:
    models = {"llama3.2:latest": 131_072, "qwen3:0.6b": 40_960, "all-minilm:latest": 512}
    with serving(OllamaStandIn(models, embedding=("all-minilm:latest",))) as stand_in:
        yield stand_in
