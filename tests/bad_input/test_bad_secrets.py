"""Secrets that look like something else keep their text, and no secret is shown, whatever happens."""

from __future__ import annotations

import json

import pytest
from bad_files import ENVIRON, SECRET, STACK
from bad_kit import overlay

from stackconf import Stack
from stackconf.testing import machine

SEARCH = "tool_runtime/brave-search"


@pytest.mark.parametrize("key", ["0123", "1e5", "nan", "true", "null", "2024-01-31", "0x1F", " 7 "])
def test_a_key_from_the_environment_stays_the_text_it_is(here, key):
    """Upstream makes a number of `0123`; the type of the field says that it is text."""
    (here / "stack.yaml").write_text(STACK, encoding="utf-8")
    with Stack.open("stack.yaml", hardware=machine(), environ={"BAD_SECRET": key}) as stack:
        config = stack.resolution.providers[SEARCH].config
        assert config.api_key.get_secret_value() == key.strip()
        assert stack.issues == ()


def test_no_command_shows_a_secret(cli, here):
    """`Ran` looks for it in everything that is printed; here it stands in four fields."""
    text = STACK.replace(
        "network:\n", f"auth_credential: {SECRET}\n      network:\n        headers: {{K: {SECRET}}}\n"
    )
    text = text.replace("type: sqlite\n", f"type: postgres\n        user: u\n        password: {SECRET}\n")
    text = text.replace("        db_path: ${env.BAD_FOLDER:=state}/faiss.db\n", "        host: db\n")
    (here / "stack.yaml").write_text(text, encoding="utf-8")
    assert text.count(SECRET) == 3
    assert ENVIRON["BAD_SECRET"] == SECRET
    for command in (
        ["check"],
        ["inspect"],
        ["plan"],
        ["explain", "inference/ollama"],
        ["explain", "vector_io/faiss"],
        ["explain", SEARCH],
    ):
        assert cli(*command).code == 0
        assert "********" in cli(*command, "--json").out or command[0] in {"check", "inspect"}


REFUSED = (
    "a secret is not stored in the clear, and there is no key here; give a reference, `${env.NAME}` or"
    " `${file:/run/secrets/name}`; or to have it encrypted: `stackconf secrets new-key -o FILE` makes a"
    " key, STACKCONF_SECRET_KEY_FILE=FILE uses it"
)
NO_REFERENCE = (
    "a secret is not stored in the clear, and this is no reference; write `${env.NAME}`, in capitals, or"
    " `${file:/run/secrets/name}`, and nothing before it or after it"
)


@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        12345678,
        [SECRET],
        {SECRET: 1},
        "${env.lowercase}",
        f"${{env.BAD_KEY:={SECRET}}}",
        "${file:key}",
    ],
)
def test_a_literal_secret_is_not_registered(cli, here, value):
    (here / "stack.yaml").write_text(STACK, encoding="utf-8")
    ran = cli("configurations", "register", json.dumps(overlay(SEARCH, {"api_key": value})))
    assert ran.code == 1
    line = ran.lines()[1].split(": error: ", 1)[1]
    refused = NO_REFERENCE if "${" in str(value) else REFUSED
    assert line == f"{SEARCH}: config.api_key: {refused}"
    database = here / ".stackconf" / "stack.yaml.sqlite3"
    assert not database.exists() or SECRET.encode() not in database.read_bytes()


def test_a_password_in_a_url_is_not_registered(cli, here):
    (here / "stack.yaml").write_text(STACK, encoding="utf-8")
    config = overlay("inference/ollama", {"url": f"http://me:{SECRET}@localhost:1"})
    ran = cli("configurations", "register", json.dumps(config))
    assert ran.code == 1
    assert ran.lines()[1].endswith(
        "config.url: a password is not stored in the clear; leave it out of the URL"
    )
