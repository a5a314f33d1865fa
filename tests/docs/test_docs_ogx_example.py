"""`examples/ogx` and what the pages say to type for a real server, as far as it runs without one.

With the real servers it runs in `plugins/ogx/tests/test_ogx_example.py`.
"""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from urllib.request import Request, urlopen

import click
import pytest
import yaml
from docs_kit import DOCS, ROOT, blocks

from stackconf.cli.root import root

FOLDER = ROOT / "examples" / "ogx"
PAGES = [
    ROOT / "README.md",
    DOCS / "runtimes.md",
    FOLDER / "README.md",
    ROOT / "plugins" / "ogx" / "README.md",
]
SECONDS = 30.0


def typed(page: Path) -> list[list[str]]:
    """Every command of a page that calls `stackconf` itself."""
    lines = [
        line.removeprefix("$ ")
        for block in blocks(page.read_text(encoding="utf-8"))
        for line in block.text.splitlines()
        if block.language in {"sh", "console"}
    ]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("stackconf ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_exist(page):
    commands = typed(page)
    assert commands
    for arguments in commands:
        parsed(root, arguments)


def parsed(command: click.Command, arguments: list[str], parent: click.Context | None = None) -> None:
    """Raise `click.UsageError` where a word or an option of a command line is wrong."""
    context = command.make_context(command.name, list(arguments), parent=parent)
    rest = [*context._protected_args, *context.args]
    if isinstance(command, click.Group) and rest:
        _, found, others = command.resolve_command(context, rest)
        assert found is not None
        parsed(found, others, context)


def test_the_two_files_are_one_stack_and_the_overlays_fit():
    for name, overlay, field in (
        ("config.yaml", "elsewhere.json", "base_url"),
        ("run.yaml", "elsewhere-llama-stack.json", "url"),
    ):
        stack = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
        [there] = stack["providers"]["inference"]
        [other] = json.loads((FOLDER / overlay).read_text(encoding="utf-8"))["inference"]
        assert {"provider_id": "ollama", "provider_type": "remote::ollama"}.items() <= other.items()
        assert (there["provider_id"], list(there["config"])) == (other["provider_id"], [field])
        assert other["config"] == {field: re.sub("11434", "11435", default_of(there["config"][field]))}
        assert stack["server"]["host"] == "127.0.0.1"


def default_of(reference: str) -> str:
    """The default of a reference in either grammar."""
    found = re.fullmatch(r"\$\{env\.\w+:=?(.*)\}", reference)
    assert found is not None
    return found[1]


def test_the_stand_in_streams_ten_words():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(FOLDER / "backend.py"), str(port), "first"])
    try:
        end = monotonic() + SECONDS
        while True:
            with socket.socket() as asking:
                if asking.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert monotonic() < end
            sleep(0.05)
        body = json.dumps({"model": "m", "stream": True, "messages": []}).encode()
        with urlopen(
            Request(f"http://127.0.0.1:{port}/v1/chat/completions", body), timeout=SECONDS
        ) as answer:
            events = [line.decode().removeprefix("data: ") for line in answer if line.strip()]
    finally:
        process.kill()
        process.wait(SECONDS)
    words = [json.loads(each)["choices"][0]["delta"].get("content") for each in events[:-1]]
    assert words == [*(f"{number} from first\n" for number in range(1, 11)), None]
    assert events[-1].strip() == "[DONE]"


def test_the_swap_says_in_one_line_that_no_server_is_there():
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, str(FOLDER / "swap.py"), url, "http://a", "http://b"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{url}: ")
    assert len(done.stderr.splitlines()) == 1
