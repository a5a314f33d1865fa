"""The unit and the container file in `examples/serve`: what they name exists, and their times fit."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from stackconf.cli.serve import serve
from stackconf.server.tokens import read_tokens

FOLDER = Path(__file__).parents[2] / "examples" / "serve"
LAST_ANSWERS = 5.0


def unit() -> dict[str, list[str]]:
    """Every directive of the unit with its values."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / "stackconf.service").read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def instructions() -> dict[str, list[str]]:
    """Every instruction of the container file with what follows it."""
    found: dict[str, list[str]] = {}
    text = (FOLDER / "Containerfile").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            found.setdefault(name, []).append(rest)
    return found


def options(arguments: list[str]) -> dict[str, str]:
    """The options of a command line of `stackconf serve`, each with its value; all must exist."""
    known = {name for each in serve.params for name in each.opts}
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert set(given) <= known, set(given) - known
    help_text = CliRunner().invoke(serve, ["--help"]).output
    assert all(name in help_text for name in given)
    return given


def test_the_unit_gives_an_apply_its_grace_and_reloads() -> None:
    found = unit()
    [start] = found["ExecStart"]
    program, command, *arguments = shlex.split(start)
    assert (Path(program).name, command) == ("stackconf", "serve")
    given = options(arguments)
    assert float(found["TimeoutStopSec"][0]) >= 2 * (float(given["--grace"]) + LAST_ANSWERS)
    assert found["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert given["--token-file"].startswith("%d/")
    assert found["LoadCredential"][0].partition(":")[0] == Path(given["--token-file"]).name
    assert given["--store"].startswith(f"/var/lib/{found['StateDirectory'][0]}/")
    assert {name: found[name] for name in ("NoNewPrivileges", "ProtectSystem", "DynamicUser")} == {
        "NoNewPrivileges": ["yes"],
        "ProtectSystem": ["strict"],
        "DynamicUser": ["yes"],
    }


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = (FOLDER / "stackconf.service").read_text()
    file = tmp_path / "stackconf.service"
    file.write_text(text.replace("/opt/stackconf/bin/stackconf", shutil.which("true") or ""))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, check=False
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if "stackconf.service" in line]
    assert said == []


def test_the_container_runs_as_nobody_in_particular_and_ends_with_sigterm() -> None:
    found = instructions()
    assert json.loads(found["ENTRYPOINT"][0]) == ["stackconf", "serve"]
    given = options(json.loads(found["CMD"][0]))
    assert given["--host"] == "0.0.0.0"
    assert "--token-file" in given
    assert found["USER"] == ["10001"]
    assert found["STOPSIGNAL"] == ["SIGTERM"]
    [check] = found["HEALTHCHECK"]
    port = re.search(r"127\.0\.0\.1:(\d+)/v1/health", check)
    assert port is not None
    assert found["EXPOSE"] == [port[1]]
    assert given.get("--port", "8420") == port[1]
    readme = (FOLDER / "README.md").read_text()
    stop = re.search(r"--stop-timeout (\d+)", readme)
    assert stop is not None
    assert float(stop[1]) >= 2 * (float(given["--grace"]) + LAST_ANSWERS)


def test_the_readme_makes_tokens_that_are_read(tmp_path: Path) -> None:
    readme = (FOLDER / "README.md").read_text()
    [command] = re.findall(r"^\$ (printf .*) > tokens$", readme, re.MULTILINE)
    made = subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, check=True).stdout
    file = tmp_path / "tokens"
    file.write_text(made)
    file.chmod(0o600)
    assert [(each.name, each.scope) for each in read_tokens(file).listed] == [
        ("operator", "write"),
        ("monitor", "read"),
    ]
