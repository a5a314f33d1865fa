"""Process start: importing the package, and the commands that need no plugin."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness import Program, Row, time_programs

BROKEN = "raise RuntimeError('this plugin is broken')\n"
SLOW = "import time\ntime.sleep(1)\nprovides = ()\n"


def imports() -> Iterator[Row]:
    """`import stackconf` beside `import pluggy`, each in a process of its own."""
    subjects = {
        "import stackconf": "import stackconf",
        "from stackconf import hookimpl": "from stackconf import hookimpl",
        "import pluggy": "import pluggy",
    }
    times = time_programs({name: Program([sys.executable, "-c", code]) for name, code in subjects.items()})
    base = times.pop("import pluggy")
    for name, timing in times.items():
        yield Row("import", name, "import pluggy", *timing.over(base))
        median, best = timing.minus(base)
        yield Row("import", name, "import pluggy, more", median * 1000, best * 1000, "ms", 5.0)
        modules = _modules(subjects[name])
        yield Row("import", name, "", modules, modules, "modules", 100.0)


def _modules(code: str) -> int:
    program = f"{code}; import sys; print(len(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return int(done.stdout)


def commands() -> Iterator[Row]:
    """`--version` and `--help` beside hatch's, also with a broken and a slow plugin installed."""
    hatch, stackconf = _script("hatch"), _script("stackconf")
    if not (hatch and stackconf):
        missing = "hatch" if stackconf else "stackconf"
        yield Row("commands", f"skipped: {missing} is not installed here", "", None, None)
        return
    with tempfile.TemporaryDirectory() as folder:
        bad = {"PYTHONPATH": os.pathsep.join([_bad_plugins(Path(folder)), os.environ.get("PYTHONPATH", "")])}
        subjects: dict[str, Program] = {}
        for option in ("--version", "--help"):
            subjects[f"hatch {option}"] = Program([hatch, option])
            subjects[f"stackconf {option}"] = Program([stackconf, option])
            subjects[f"stackconf {option}, bad plugins"] = Program([stackconf, option], bad)
        try:
            times = time_programs(subjects)
        except subprocess.CalledProcessError as error:
            yield Row("commands", f"skipped: `{error.cmd[0]}` exits {error.returncode}", "", None, None)
            return
    for name, timing in times.items():
        if name.startswith("stackconf"):
            against = f"hatch {name.split()[1].rstrip(',')}"
            yield Row("commands", name, against, *timing.over(times[against]), limit=0.75)


def hardware() -> Iterator[Row]:
    """`stackconf hardware` with all its processes beside a bare Python that asks psutil."""
    stackconf = _script("stackconf")
    if stackconf is None:
        yield Row("hardware", "skipped: stackconf is not installed here", "", None, None)
        return
    bare, subject = "python, psutil", "stackconf hardware"
    asks = "import psutil; psutil.cpu_count(); psutil.virtual_memory()"
    times = time_programs(
        {bare: Program([sys.executable, "-c", asks]), subject: Program([stackconf, "hardware"])}
    )
    yield Row("hardware", subject, bare, *times[subject].over(times[bare]))
    median, best = times[subject].minus(times[bare])
    yield Row("hardware", subject, f"{bare}, more", median * 1000, best * 1000, "ms", 150.0)


def _script(name: str) -> str | None:
    path = Path(sysconfig.get_path("scripts"), name)
    return str(path) if path.exists() else None


def _bad_plugins(folder: Path) -> str:
    """A folder to put on the path: one distribution that cannot be imported, one that takes a second."""
    for name, code in (("broken", BROKEN), ("slow", SLOW)):
        Path(folder, f"bench_{name}.py").write_text(code, encoding="utf-8")
        info = Path(folder, f"bench_{name}-1.0.dist-info")
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: bench-{name}\nVersion: 1.0\n"
        Path(info, "METADATA").write_text(metadata, encoding="utf-8")
        entries = (
            f"[stackconf.plugins]\n{name} = bench_{name}\n"
            f"[stackconf.providers]\ninference/remote::{name} = bench_{name}\n"
        )
        Path(info, "entry_points.txt").write_text(entries, encoding="utf-8")
    return str(folder)
