"""How the tests of bad input run the command, and what they look at afterwards."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen
from bad_files import SECRET

STACKCONF = shutil.which("stackconf", path=str(Path(sys.executable).parent)) or "stackconf"

USER_FIELDS = {
    "remote::ollama": {"num_gpu": 1},
    "inline::faiss": {"add_batch_size": 7},
    "inline::sqlite-vec": {"insert_batch_size": 7},
    "inline::braintrust": {"max_concurrency": 7},
    "remote::brave-search": {"api_key": "${env.BAD_KEY}", "max_results": 7},
    "inline::meta-reference": {"sqlite_cache_bytes": 100_000, "max_queue_size": 7},
}
"""A setting that each type takes from a user; `inline::meta-reference` is two types."""


@frozen
class Ran:
    """How a run of the command ended."""

    code: int
    out: str = field(repr=False)
    err: str

    def __attrs_post_init__(self) -> None:
        """What holds for every run, whatever it was given."""
        assert "Traceback" not in self.out + self.err, self.err
        assert SECRET not in self.out + self.err
        assert "defect of stackconf" not in self.err, self.err

    @property
    def data(self) -> Any:
        """The JSON that it printed."""
        return json.loads(self.out)

    def lines(self, level: str = "error") -> list[str]:
        """The issues of a level among the lines on standard error."""
        return [line for line in self.err.splitlines() if re.match(rf"(\S+:\d+:\d+: )?{level}: ", line)]


def process(*arguments: str, cwd: Path, env: Mapping[str, str], timeout: float = 60) -> Ran:
    """Run the installed command as a process of its own."""
    done = subprocess.run(
        [STACKCONF, *arguments],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with a digest of what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def overlay(provider: str, config: Mapping[str, object]) -> dict[str, Any]:
    """A configuration for one provider, in the form that `register` takes."""
    api, provider_id = provider.split("/")
    return {api: [{"provider_id": provider_id, "config": dict(config)}]}
