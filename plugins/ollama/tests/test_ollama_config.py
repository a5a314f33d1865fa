from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stackconf_ollama.config import FOREVER, OllamaConfig, keep_alive_seconds, server_address


@pytest.mark.parametrize(
    ("block", "address"),
    [
        ({}, "http://localhost:11434"),
        ({"url": "http://localhost:11434"}, "http://localhost:11434"),
        ({"url": "http://localhost:11434", "raise_on_connect_error": False}, "http://localhost:11434"),
        ({"url": "http://gpu:1/", "refresh_models": True}, "http://gpu:1"),
        ({"url": "http://gpu:1", "auth_credential": "x", "allowed_models": ["a"]}, "http://gpu:1"),
        ({"base_url": "http://gpu:11434/v1"}, "http://gpu:11434"),
        ({"base_url": None}, "http://localhost:11434"),
        ({"base_url": "https://proxy.example/ollama/v1/"}, "https://proxy.example/ollama"),
        ({"url": "http://[::1]:11434"}, "http://[::1]:11434"),
        (
            {
                "base_url": "https://gpu/v1",
                "auth_credential": "",
                "allowed_models": None,
                "refresh_models": False,
                "network": {
                    "tls": {"verify": "/etc/ca.pem", "min_version": "TLSv1.3", "ciphers": ["ECDHE+AESGCM"]},
                    "proxy": {"https": "http://proxy:3128", "no_proxy": ["localhost"]},
                    "timeout": {"connect": 1, "read": 60},
                    "headers": {"X-Site": "a"},
                    "limits": {"max_connections": None},
                },
            },
            "https://gpu",
        ),
        ({"network": {"timeout": 30}}, "http://localhost:11434"),
    ],
)
def test_every_versions_form_is_accepted(block, address):
    assert OllamaConfig(**block).address == address


def test_the_issues_own_url_stays_as_it_was_written():
    assert OllamaConfig(url="http://localhost:12345").url == "http://localhost:12345"
    label = OllamaConfig.model_fields["url"].json_schema_extra
    assert label["user_field"] is True


def test_url_decides_over_base_url():
    config = OllamaConfig(url="http://mine:1", base_url="http://theirs:2/v1")
    assert config.address == "http://mine:1"
    assert config.openai_url == "http://mine:1/v1"


def test_a_configuration_survives_being_dumped_and_read_again():
    config = OllamaConfig(base_url="http://gpu:11434/v1", model="qwen3:0.6b", keep_alive="5m", num_ctx="4096")
    assert config.num_ctx == 4096
    assert OllamaConfig.model_validate(config.model_dump()) == config


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:11434",
        "localhost",
        "ftp://localhost",
        "http://",
        "http:///x",
        "http://host:0",
        "http://host:70000",
        "http://host:port",
        "http://a b",
        "http://host/\n",
        "http://me:pass@host",
        "http://host?x=1",
        "http://host#x",
        "http://[::1",
        "file:///etc/passwd",
        "http://host\\@evil",
    ],
)
@pytest.mark.parametrize("field", ["url", "base_url"])
def test_a_bad_address_is_refused_in_words_and_without_its_password(field, url):
    if url == "http://host/\n":
        url = "http://ho\nst/"
    with pytest.raises(ValidationError) as caught:
        OllamaConfig(**{field: url})
    errors = caught.value.errors()
    assert {error["loc"][0] for error in errors} == {field}
    assert "http://localhost:11434" in errors[0]["msg"] or "auth_credential" in errors[0]["msg"]
    assert "pass" not in str(caught.value).replace("password", "")


@given(st.text(max_size=30))
def test_an_address_is_read_or_refused_and_nothing_else(text):
    try:
        address = server_address(text)
    except ValueError:
        return
    assert server_address(address) == address


@pytest.mark.parametrize(
    ("written", "kept", "seconds"),
    [
        (300, 300, 300),
        ("300", 300, 300),
        ("5m", "5m", 300),
        ("1h30m", "1h30m", 5400),
        ("1.5s", "1.5s", 1.5),
        ("250ms", "250ms", 0.25),
        (-1, -1, FOREVER),
        ("-1", -1, FOREVER),
        ("-1m", "-1m", FOREVER),
        (0, 0, 0),
        ("0s", "0s", 0),
    ],
)
def test_keep_alive(written, kept, seconds):
    config = OllamaConfig(keep_alive=written)
    assert config.keep_alive == kept
    assert keep_alive_seconds(config.keep_alive) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "block",
    [
        {"urll": "http://localhost:11434"},
        {"network": {"timeouts": 3}},
        {"network": {"tls": {"client_cert": "a.pem"}}},
        {"network": {"proxy": {"url": "http://p", "http": "http://q"}}},
        {"keep_alive": "five minutes"},
        {"keep_alive": "5"[:0]},
        {"num_ctx": 0},
        {"num_ctx": "many"},
        {"num_thread": 0},
        {"num_gpu": -2},
        {"model": "two words"},
        {"load_timeout": 0},
    ],
)
def test_what_is_wrong_is_refused(block):
    with pytest.raises(ValidationError):
        OllamaConfig(**block)


def test_a_credential_shows_nowhere():
    config = OllamaConfig(
        base_url="http://gpu/v1",
        auth_credential="CANARY-1",
        network={"headers": {"Authorization": "CANARY-2"}},
    )
    assert "CANARY" not in repr(config) + str(config) + str(config.model_dump()) + config.model_dump_json()


def test_credentials_are_for_the_server_of_base_url_only():
    assert OllamaConfig(base_url="http://gpu:1/v1", auth_credential="x").may_see_credentials
    assert OllamaConfig(url="http://gpu:1", base_url="http://gpu:1/v1").may_see_credentials
    assert not OllamaConfig(url="http://evil:1", base_url="http://gpu:1/v1").may_see_credentials
    assert not OllamaConfig(url="http://gpu:1").may_see_credentials


def test_every_field_is_described_and_few_are_for_users():
    fields = OllamaConfig.model_fields
    assert all(field.description for field in fields.values())
    users = {name for name, field in fields.items() if (field.json_schema_extra or {}).get("user_field")}
    assert users == {"url", "model", "num_ctx", "num_thread", "num_batch", "num_gpu", "keep_alive"}
