"""Random damage: nothing but a stackconf error escapes, and every issue has its place and its line."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from time import monotonic

import pytest
import yaml
from bad_files import ENVIRON, STACK
from mutations import misspelt, mutated

from stackconf.errors import InvalidConfig
from stackconf.manager import Manager
from stackconf.registry.registry import Registry
from stackconf.stack import Stack
from stackconf.stackfile.model import loads
from stackconf.store.sqlite import SqliteStore
from stackconf.testing import machine

SECONDS = 12.0
"""How long the random part may take; a slow machine tries fewer."""

OLDER = """\
version: '2'
image_name: older
apis: [agents, inference, telemetry, tool_runtime, vector_io]
providers:
  agents:
  - provider_id: meta-reference
    provider_type: inline::meta-reference
    config:
      persistence_store: {type: redis, host: localhost, port: 6379, namespace: agents}
      responses_store: {type: postgres, host: db, port: 5432, user: me, password: "${env.BAD_SECRET:none}"}
  inference:
  - provider_id: "${env.BAD_ENABLE+ollama}"
    provider_type: remote::ollama
  - provider_id: ollama
    provider_type: remote::ollama
    config:
      url: ${env.BAD_URL:http://localhost:11434}
      model: llama3.2:3b
      keep_alive: 5m
      allowed_models: [llama3.2:3b, "${env.BAD_MODEL:qwen3:4b}"]
      network:
        tls: {verify: false, min_version: TLSv1.2}
        proxy: {http: http://proxy:3128, no_proxy: [localhost]}
        headers: {X-Team: blue}
  telemetry:
  - provider_id: meta-reference
    provider_type: inline::meta-reference
    config:
      sinks: ${env.BAD_SINKS:console,sqlite}
      otel_trace_endpoint: http://localhost:4318/v1/traces
      max_queue_size: 4096
  tool_runtime:
  - provider_id: tavily-search
    provider_type: remote::tavily-search
    config: {api_key: "${env.BAD_TAVILY_KEY:}", max_results: 5, timeout: 20}
  vector_io:
  - provider_id: sqlite_vec
    provider_type: inline::sqlite_vec
    config:
      db_path: ${env.BAD_FOLDER:~/.llama}/vec.db
      kvstore: {type: mongodb, host: localhost, db: x, user: y, password: z}
      page_size: 8192
stackconf:
  sealed: false
"""
TEXTS = (STACK, OLDER)


class Workshop:
    """One registry, machine and store for very many files."""

    def __init__(self, folder: Path) -> None:
        self.registry = Registry()
        self.hardware = machine()
        self.store = SqliteStore(folder / "store.sqlite3")

    def issues_of(self, text: str) -> list:
        """Everything that is said of a file by load, resolve, inspect and plan."""
        try:
            file = loads(text.encode("utf-8", "surrogatepass"), "stack.yaml", ENVIRON)
            stack = Stack(Manager(file, self.registry, hardware=self.hardware), self.store)
            json.dumps([stack.configurations.inspect(), stack.effective()])
            plan = stack.plan()
        except InvalidConfig as error:
            return list(error.issues)
        assert plan.issues[: len(stack.issues)] == stack.issues
        return list(plan.issues)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    work = Workshop(tmp_path_factory.mktemp("store"))
    yield work
    work.store.close()


def check(issues: list, text: str) -> None:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").split("\n")
    for issue in issues:
        line = str(issue)
        assert line.isprintable()
        assert issue.message
        assert issue.level != "error" or issue.where is not None, line
        if issue.where is not None:
            assert issue.where.file == "stack.yaml"
            assert 1 <= issue.where.line <= len(lines) + 1
            here = lines[issue.where.line - 1] if issue.where.line <= len(lines) else ""
            assert 1 <= issue.where.column <= len(here) + 2, (line, here)


@pytest.mark.parametrize("text", TEXTS, ids=["newer", "older"])
def test_the_files_themselves_are_right(workshop, text):
    assert not [issue for issue in workshop.issues_of(text) if issue.level == "error"]


@pytest.mark.exhaustive
def test_random_damage(workshop):
    started = monotonic()
    wrong = 0
    for seed in range(1500):
        if monotonic() - started > SECONDS:
            break
        random = Random(seed)
        text = mutated(random.choice(TEXTS), random)
        before = monotonic()
        try:
            issues = workshop.issues_of(text)
            check(issues, text)
        except BaseException as error:
            error.add_note(f"seed {seed}:\n{text}")
            raise
        wrong += any(issue.level == "error" for issue in issues)
        assert monotonic() - before < 10
    assert wrong > seed // 3


def fields(data: object, above: tuple = ()):
    """The path of every field of every provider in a file's data."""
    if isinstance(data, dict):
        for key, value in data.items():
            if "config" in above:
                yield (*above, key)
            yield from fields(value, (*above, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from fields(value, (*above, index))


def renamed(data: dict, path: tuple, name: str) -> dict:
    """A copy of the data with the key at the end of the path renamed, in its place."""
    copy = json.loads(json.dumps(data))
    here = copy
    for step in path[:-1]:
        here = here[step]
    entries = [(name if key == path[-1] else key, value) for key, value in here.items()]
    here.clear()
    here.update(entries)
    return copy


def test_a_misspelt_field_is_recognised(workshop):
    """At least 95 of 100 names with one edit get the right advice, in one line about that place."""
    random = Random(7)
    tried, right, missed = 0, 0, []
    for text in TEXTS:
        data = yaml.safe_load(text)
        free = [path for path in fields(data["providers"], ("providers",)) if path[-2] != "headers"]
        for path in free:
            siblings = data
            for step in path[:-1]:
                siblings = siblings[step]
            name = misspelt(path[-1], random)
            if len(path[-1]) < 4 or name in siblings or name == path[-1]:
                continue
            tried += 1
            issues = workshop.issues_of(
                yaml.safe_dump(renamed(data, path, name), sort_keys=False, width=10**6)
            )
            errors = [issue for issue in issues if issue.level == "error"]
            good = len(errors) == 1 and errors[0].hint == f"did you mean `{path[-1]}`?"
            right += good
            if not good:
                missed.append((name, [str(error) for error in errors]))
    assert tried > 40
    assert right >= 0.95 * tried, missed
