import pytest

from stackconf.suggest import MAX_NAME, closest, did_you_mean

TYPES = ["remote::ollama", "remote::vllm", "inline::faiss", "inline::sqlite-vec", "remote::hf::endpoint"]
FIELDS = ["url", "api_key", "max_results", "db_path", "kvstore"]


@pytest.mark.parametrize(
    ("name", "candidates", "meant"),
    [
        ("urll", FIELDS, "url"),
        ("ulr", FIELDS, "url"),
        ("URL", FIELDS, "url"),
        ("api-key", FIELDS, "api_key"),
        ("max_result", FIELDS, "max_results"),
        ("db_pth", FIELDS, "db_path"),
        ("inferense", ["inference", "safety"], "inference"),
        ("provider", ["providers", "version"], "providers"),
        ("confg", ["config", "module"], "config"),
        ("remote::olama", TYPES, "remote::ollama"),
        ("remote:ollama", TYPES, "remote::ollama"),
        ("remot::ollama", TYPES, "remote::ollama"),
        ("inline::ollama", TYPES, "remote::ollama"),
        ("ollama", TYPES, "remote::ollama"),
        ("inline::sqlite_vec", TYPES, "inline::sqlite-vec"),
        ("remote::hf::endpont", TYPES, "remote::hf::endpoint"),
    ],
)
def test_a_misspelt_name_finds_the_one_that_was_meant(name, candidates, meant):
    assert closest(name, candidates) == meant
    assert did_you_mean(name, candidates) == f"did you mean `{meant}`?"


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("remote::together", TYPES),
        ("remote::foo", TYPES),
        ("host", ["port", "user"]),
        ("user", ["url"]),
        ("weather", ["inference", "safety"]),
        ("", FIELDS),
        ("url", []),
        ("u" * (MAX_NAME + 1), ["u" * MAX_NAME]),
    ],
)
def test_a_far_word_finds_nothing(name, candidates):
    assert closest(name, candidates) is None
    assert did_you_mean(name, candidates) == ""


def test_the_nearest_of_several_wins_and_a_tie_goes_to_the_first():
    assert closest("model", ["module", "models"]) == "models"
    assert closest("shiel", ["shields", "shield"]) == "shield"
    assert closest("ab_c", ["ab-c", "ab_c"]) == "ab-c"
