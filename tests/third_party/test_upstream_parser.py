"""What `export` writes is read by llama-stack 0.2.12 itself, where it is installed: `tox -e llama-stack`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, SecretStr

from stackconf import ProviderType, Registry, Stack, because, hookimpl, user_field
from stackconf.testing import machine

VERSION = "0.2.12"
READER = """
import json, sys, warnings
warnings.simplefilter("ignore")
import yaml
from llama_stack.distribution.configure import parse_and_maybe_upgrade_config
from llama_stack.distribution.stack import replace_env_vars
with open(sys.argv[1], encoding="utf-8") as file:
    config = parse_and_maybe_upgrade_config(replace_env_vars(yaml.safe_load(file)))
print(json.dumps(config.model_dump(mode="json")))
"""

STACK = """\
# the operator's
version: '2'
image_name: starter   # kept
apis:
- inference
- safety
providers:
  inference:
  - provider_id: acme
    provider_type: remote::acme
    config:
      url: ${env.ACME_URL:http://localhost:7860}  # where
      api_key: ${env.ACME_KEY:}
  - provider_id: other
    provider_type: remote::acme
    config: {}
  safety:
  - provider_id: guard
    provider_type: inline::guard
    config: {excluded_categories: []}
metadata_store:
  type: sqlite
  db_path: ${env.SQLITE_STORE_DIR:~/x}/registry.db
models:
- metadata: {embedding_dimension: 384}
  model_id: all-MiniLM-L6-v2
  provider_id: acme
  model_type: embedding
shields: []
vector_dbs: []
datasets: []
scoring_fns: []
benchmarks: []
tool_groups: []
server:
  port: 8321
"""

STRANGE = [
    "0123",
    "yes",
    "1e3",
    "null",
    "${",
    "${X}",
    "a\nb",
    " x ",
    "é 日本 😀",
    "a: b #c",
    "'",
    '"',
    "\\",
    "2024-01-31",
]


class Config(BaseModel):
    url: str = user_field("http://class")
    api_key: SecretStr | None = user_field(None)
    texts: list[str] = user_field([])
    nested: dict[str, Any] = user_field({})
    threads: int = user_field(1)
    empty: str | None = user_field("x")


class Acme:
    provides = (ProviderType("inference", "remote::acme", Config),)

    @hookimpl
    def default_config(self):
        return {"threads": because(8, "one for each core")}


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    """What llama-stack makes of a file."""
    try:
        found = version("llama-stack")
    except PackageNotFoundError:
        found = ""
    if found != VERSION:
        why = f"llama-stack=={VERSION} is not installed; `tox -e llama-stack` runs this"
        (pytest.fail if os.environ.get("STACKCONF_OGX_REQUIRED") == "llama-stack" else pytest.skip)(why)
    home = tmp_path_factory.mktemp("home")

    def read(file: Path, **environ: str) -> dict[str, Any]:
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith(("STACKCONF", "PYTHON"))
        }
        done = subprocess.run(
            [sys.executable, "-c", READER, file],
            capture_output=True,
            text=True,
            env={**clean, "HOME": str(home), **environ},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        config: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return config

    return read


def opened(file: Path) -> Stack:
    registry = Registry(plugins=[Acme()], entry_points=False)
    return Stack.open(file, registry=registry, hardware=machine(), environ={}, skip_unknown=True)


def registered(file: Path, key: Path) -> Stack:
    key.write_text("sk-4711", encoding="utf-8")
    stack = opened(file)
    config = {
        "texts": STRANGE,
        "nested": {"yes": {"0123": [None, True, 1.5, {"deep": []}]}},
        "api_key": f"${{file:{key}}}",
        "empty": None,
    }
    stack.configurations.register({"inference": [{"provider_id": "other", "config": config}]})
    return stack


@pytest.mark.parametrize("way", ["in place", "copied", "applied", "all"])
def test_upstream_reads_every_value_of_an_export_as_it_was_meant(tmp_path, upstream, way):
    file, copy = tmp_path / "run.yaml", tmp_path / "copy.yaml"
    file.write_text(STACK, encoding="utf-8")
    before = upstream(file)
    with registered(file, tmp_path / "key") as stack:
        if way == "applied":
            stack.apply()
        target = {"in_place": True} if way == "in place" else {"to": copy}
        exported = stack.export(**target, applied=way == "applied", class_defaults=way == "all")
        effective = stack.resolution.providers["inference/other"].config
    (variable,) = exported.variables
    after = upstream(file if way == "in place" else copy, **{variable.name: "sk-4711"})
    assert "sk-4711" not in exported.text
    assert {**after, "providers": None} == {**before, "providers": None}
    acme, other = after["providers"]["inference"]
    assert acme["config"].items() >= {**before["providers"]["inference"][0]["config"], "threads": 8}.items()
    assert after["providers"]["safety"] == before["providers"]["safety"]
    assert Config(**other["config"]) == effective
    assert other["config"]["texts"] == STRANGE
    assert (
        yaml.safe_load(exported.text)["metadata_store"]["db_path"]
        == "${env.SQLITE_STORE_DIR:~/x}/registry.db"
    )
