"""Run the benchmarks: `python benchmarks/run.py [NAME ...] [--json FILE]`.

Names: import commands hardware objects linear files incremental registration calls durable peers
serving hosting.
All, without one.
Exits with 1 when a budget is not met.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import asdict
from durable import durable
from hosting import hosting
from peers import peers
from registering import addressed_call, registration
from resolving import from_files, from_objects, incremental, linear
from serving import serving
from starting import commands, hardware, imports

if TYPE_CHECKING:
    from harness import Row

MANY = 100
"""Ratios above this are shown without decimals."""

BENCHMARKS: dict[str, Callable[[], Iterator[Row]]] = {
    "import": imports,
    "commands": commands,
    "hardware": hardware,
    "objects": from_objects,
    "linear": linear,
    "files": from_files,
    "incremental": incremental,
    "registration": registration,
    "calls": addressed_call,
    "durable": durable,
    "peers": peers,
    "serving": serving,
    "hosting": hosting,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Benchmarks of stackconf, as ratios of one run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    rows: list[Row] = []
    print(f"Python {platform.python_version()}")
    print(f"{'':53}{'compared with':34}{'median':>10}{'best':>10}{'budget':>10}")
    for name in options.names or BENCHMARKS:
        for row in BENCHMARKS[name]():
            rows.append(row)
            print(line(row), flush=True)
    if options.json:
        figures = {"python": platform.python_version(), "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return int(any_missed(rows))


def line(row: Row) -> str:
    if row.median is None:
        return f"{row.subject:53}"
    figures = "".join(f"{shown(value, row.unit):>10}" for value in (row.median, row.best, row.limit))
    verdict = {True: "", False: "  missed", None: ""}[row.met]
    return f"{row.subject:53}{row.against:34}{figures}{verdict}{'  ' + row.note if row.note else ''}"


def shown(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "x":
        return f"x{value:.2f}" if value < MANY else f"x{value:.0f}"
    if unit == "modules":
        return f"{value:.0f} mod"
    return f"{value:.2f} {unit}"


def any_missed(rows: Iterable[Row]) -> bool:
    return any(row.met is False for row in rows)


if __name__ == "__main__":
    sys.exit(main())
