"""`stackconf --url`: what a command prints over HTTP is what it prints where the stack is."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from server_kit import PLUGIN, STACK, clean_environ, serving

from stackconf.cli.main import main

OFF = "  - provider_id: __disabled__\n    provider_type: remote::acme\n  vector_io:"
DISABLED = STACK.replace("  vector_io:", OFF)
OVERLAY = '{"inference": [{"provider_id": "one", "config": {"threads": 2, "thraeds": 1}}]}'
MORE = '{"vector_io": [{"provider_id": "memory", "config": {"size": 3}}]}'
FAILING = '{"inference": [{"provider_id": "one", "config": {"url": "http://fail"}}]}'
DOWN = '{"inference": [{"provider_id": "one", "config": {"url": "http://down"}}]}'

SCRIPT: list[str] = [
    "plan",
    "plan --json",
    "plan --exit-code",
    "status",
    "apply",
    "apply",
    "configurations list",
    "configurations register overlay.json --name mine",
    "configurations register overlay.json --name mine --on-dropped error",
    "configurations register nowhere.json",
    "configurations register other.json --name more --no-assign --json",
    "configurations list",
    "configurations list --json",
    "configurations get mine",
    "configurations get mnie",
    "configurations assign more --expect-revision 1",
    "configurations assign more",
    "configurations unassign more --json",
    "configurations inspect",
    "inspect",
    "inspect --json",
    "inspect --all",
    "explain one",
    "explain one url",
    "explain one ulr",
    "explain one -v",
    "explain one --json",
    "plan",
    "plan -v",
    "plan -o plan.json",
    "apply plan.json",
    "apply plan.json",
    "status --exit-code",
    "status --json",
    "history --attempts",
    "history --json",
    "show",
    "show -1",
    "show 99",
    "show --json",
    "diff 1",
    "diff 1 head --effective",
    "diff 0 2 --json",
    "drift",
    "drift --json --exit-code",
    "export",
    "export --all --json",
    "export -o exported.yaml",
    "rollback 1",
    "rollback head",
    "rollback 2 --apply --json",
    "configurations register fail.json --name bad",
    "apply",
    "apply --json",
    "status",
    "apply --events",
    "history --attempts --limit 2",
    "configurations unregister bad",
    "configurations unregister bad",
    "recover",
    "configurations register down.json --name away",
    "apply --require-healthy",
    "apply",
    "inspect --applied",
    "inspect --applied --json",
    "history prune --keep 2",
    "history",
    "providers list",
    "providers list --json",
    "providers list --types",
    "providers show one",
    "providers show inference/remote::acme --json",
    "providers show nonsense",
    "hardware",
    "hardware --json",
    "hardware --usage",
    "hardware --usage --json",
    "check",
    "check --json",
]


def run(folder: Path, *arguments: str, **environ: str) -> tuple[int, str, str]:
    """One command line, in this process: its code, and what it printed."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        for name in [name for name in os.environ if name.startswith("STACKCONF_")]:
            patch.delenv(name)
        for name, value in {**clean_environ(folder), **environ}.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        code = main(arguments)
    out, err = (stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]
    return code, steady(out, folder), steady(err, folder)


def steady(text: str, folder: Path) -> str:
    """What is printed without what differs from run to run: times, keyed digests, folders, the machine's
    free memory.
    """
    text = text.replace(str(folder.resolve()), "FOLDER")
    text = re.sub(r"\d{4}-\d\d-\d\d[T ][\d:.]+(Z|\+00:00)?", "TIME", text)
    text = re.sub(r"\b[0-9a-f]{32,}\b", "DIGEST", text)
    text = re.sub(r"\d+\.\d\d+ s\b", "SECONDS", text)
    text = re.sub(r"TIME UTC +[\d.]+ +", "TIME UTC SECONDS ", text)
    return re.sub(r'"(seconds|pid)": [\d.e-]+', r'"\1": 0', text)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[int, str, str]]]:
    """What each command of the script printed, at home and over HTTP: one stack here, one served."""
    told: dict[str, list[tuple[int, str, str]]] = {}
    for where in ("home", "url"):
        folder = tmp_path_factory.mktemp(where)
        for name, text in (
            ("plugin.py", PLUGIN),
            ("stack.yaml", DISABLED),
            ("overlay.json", OVERLAY),
            ("other.json", MORE),
            ("fail.json", FAILING),
            ("down.json", DOWN),
        ):
            (folder / name).write_text(text, encoding="utf-8")
        told[where] = [*_answers(where, folder)]
    return told


def _answers(where: str, folder: Path) -> Iterator[tuple[int, str, str]]:
    if where == "home":
        for command in SCRIPT:
            yield run(folder, "-s", "stack.yaml", "--plugin", "plugin.py", *command.split())
        return
    with serving(folder, "--no-apply", stack=DISABLED) as server:
        for command in SCRIPT:
            yield run(folder, "--url", server.url, *command.split())
        assert server.end() == 0
    assert "Traceback" not in server.text


@pytest.mark.parametrize("number", range(len(SCRIPT)), ids=[f"{n}-{each}" for n, each in enumerate(SCRIPT)])
def test_a_command_says_over_http_what_it_says_at_home(said, number: int) -> None:
    home, url = said["home"][number], said["url"][number]
    assert url == home
    assert "s3cret" not in str(url)
    assert home[1] or home[2]


def test_the_script_does_what_it_is_for(said) -> None:
    codes = dict(zip(SCRIPT, (code for code, _, _ in said["home"]), strict=True))
    assert codes["plan --exit-code"] == 3
    assert codes["configurations get mnie"] == 1
    assert codes["providers show nonsense"] == 1
    assert codes["check"] == 0
    assert set(codes.values()) == {0, 1, 3}
