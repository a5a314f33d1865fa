"""Inputs that crash, hang or fill the memory of a careless reader, each in a process of its own."""

import subprocess
import sys

import pytest

MEGABYTE = 1024 * 1024
HOSTILE = {
    "flow sequences": ("b'[' * 200_000", "too-deep"),
    "flow mappings": ("b'{a: ' * 200_000", "too-deep"),
    "block sequences on one line": ("b'- ' * 200_000", "too-deep"),
    "complex keys on one line": ("b'? ' * 200_000", "too-deep"),
    "single pairs in flow sequences": ("b'[a: ' * 200_000", "too-deep"),
    "keys in flow sequences": ("b'[? ' * 200_000", "too-deep"),
    "a staircase": ("b''.join(b' ' * n + b'a:\\n' for n in range(3000))", "too-deep"),
    "empty lists": ("b'[' + b'[],' * (2 * MEGABYTE) + b']'", "too-many-values"),
    "empty items": ("b'-\\n' * (4 * MEGABYTE - 1)", "too-many-values"),
    "tag directives": (
        "b''.join(b'%%TAG !a%d! tag:x\\n' % n for n in range(300_000)) + b'--- a\\n'",
        "too-many-tags",
    ),
    "a sexagesimal number": ("b'a: 1' + b':0' * (4 * MEGABYTE - 10)", "unknown-key no-providers"),
    "one key many times": ("b'a:\\n' * 200_000", "duplicate-key too-many-issues"),
    "many unknown keys": ("b''.join(b'k%d:\\n' % n for n in range(200_000))", "unknown-key too-many-issues"),
    "an open quote": ("b'\"' + b'a' * (8 * MEGABYTE - 10)", "yaml-syntax"),
    "open references": (
        "PROVIDER % (b'${env.A:' * 900_000)",
        "env-unclosed",
    ),
    "many references": (
        "PROVIDER % (b'${env.A}' * 900_000)",
        "env-missing",
    ),
}
LONG = ("a sexagesimal number", "one key many times", "many unknown keys")
"""Seconds of plain work each; they have nothing to do with the stack of the interpreter."""
PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from stackconf.errors import InvalidConfig
from stackconf.stackfile.model import loads
MEGABYTE = 1024 * 1024
PROVIDER = b"providers: {{i: [{{provider_id: a, provider_type: b, config: {{x: '%s'}}}}]}}"
try:
    issues = loads({text}, "f", {{}}).issues
except InvalidConfig as error:
    issues = error.issues
print(*dict.fromkeys(issue.code for issue in issues))
"""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.exhaustive if name in LONG else ()) for name in HOSTILE],
)
def test_hostile_input_costs_one_clear_answer(name):
    text, codes = HOSTILE[name]
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(text=text)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(result.stdout.split()) == sorted(codes.split())
