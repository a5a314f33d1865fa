"""Surgical edits: the text says afterwards what the patch says, and every other line stays."""

from __future__ import annotations

import difflib
from random import Random
from typing import Any

import pytest
import yaml

from stackconf.stackfile.edit import DROP, Put, edited, patched, recommented, replaced_scalars
from stackconf.stackfile.load import parse

TEXT = """\
# head
a: &q
  k: "z"  # beside
e: *q
f: [1, {a: b, c: }, x,]
g:
- é: 1
  h: !!str 12
-
  z: 2
# between
- <<: *q
  w: |
    some

    lines

- - 1
  - 2
l: |+
  kept


m: {<<: *q, z: 1}
n:
  o: &s [1, 2]   # beside
  p: *s
list: &l
  - 1
  - # beside
    b: 1
uses: *l
empty:
empty_too:   # beside
'quoted key': 'it''s'
last:
  deep:
    x: 'several
      lines'
"""
TEXTS = {
    "plain": TEXT,
    "crlf": TEXT.replace("\n", "\r\n"),
    "no end": TEXT.rstrip("\n"),
    "mark": "\ufeff" + TEXT,
    "flow": yaml.safe_dump(yaml.safe_load(TEXT), default_flow_style=True),
}
VALUES: list[Any] = [
    *("a", "${env.X}", "yes", "0123", "x: y", "a\nb", "é😀\u2028\x85", "", "- x", "#c", " lead", "tab\tx"),
    *("'q'", '"d"', "{", "null", "2024-01-01", "1:20", "<<", "=", "*a", "&a", "!x", "long " * 60),
    *(None, True, 1.5, 1e20, [], {}, [1, "b"], {"k": {"z": [{"q": 1}, [2]]}}),
]


def any_patch(data: Any, random: Random) -> Any:
    keys = list(data) if isinstance(data, dict) else list(range(len(data)))
    patch: dict[Any, Any] = {}
    for key in random.sample(keys, min(len(keys), random.randint(0, 2))):
        choice = random.random()
        if choice < 0.15:
            patch[key] = DROP
        elif choice < 0.4 or not isinstance(data[key], (dict, list)) or not data[key]:
            patch[key] = Put(random.choice(VALUES))
        else:
            patch[key] = any_patch(data[key], random)
    if random.random() < 0.4:
        for number in range(random.randint(1, 2)):
            new = f"new{number}" if isinstance(data, dict) else len(data) + number
            patch[new] = Put(random.choice(VALUES))
    return patch


@pytest.mark.parametrize("seed", range(150))
@pytest.mark.parametrize("form", TEXTS)
def test_the_text_says_afterwards_what_the_patch_says(form, seed):
    text = TEXTS[form]
    data = parse(text, name="x").data
    patch = any_patch(data, Random(f"{form}{seed}"))
    after = edited(text, data, patch)
    assert parse(after, name="x").data == patched(data, patch)


def changed(patch: Any, text: str = TEXT) -> list[str]:
    """The lines that differ, `-` gone and `+` new."""
    after = edited(text, parse(text, name="x").data, patch)
    return [line for line in difflib.ndiff(text.splitlines(), after.splitlines()) if line[0] in "+-"]


@pytest.mark.parametrize(
    ("patch", "lines"),
    [
        ({}, []),
        (
            {"a": {"new": Put(1)}},  # what repeats it is written out
            [
                *("+   new: 1", "- e: *q", "+ e: {k: z}", "- - <<: *q", "+ - <<: {k: z}"),
                *("- m: {<<: *q, z: 1}", "+ m: {<<: {k: z}, z: 1}"),
            ],
        ),
        (
            {"f": {1: {"c": Put("x")}, 2: Put(None)}},
            ["- f: [1, {a: b, c: }, x,]", "+ f: [1, {a: b, c: x}, null,]"],
        ),
        ({"g": {0: {"é": Put("${env.X}")}}}, ["- - é: 1", "+ - é: ${env.X}"]),
        ({"g": {1: DROP}}, ["- -", "-   z: 2"]),
        ({"g": {2: {"w": Put("one")}}}, ["-   w: |", "-     some", "- ", "-     lines", "+   w: one"]),
        ({"l": Put("x")}, ["- l: |+", "-   kept", "+ l: x"]),
        ({"n": {"p": DROP}}, ["-   p: *s"]),
        ({"empty": Put({"x": 1})}, ["+   x: 1"]),
        ({"empty_too": Put(0)}, ["- empty_too:   # beside", "+ empty_too: 0   # beside"]),
        ({"quoted key": Put("a")}, ["- 'quoted key': 'it''s'", "+ 'quoted key': a"]),
        ({"last": {"deep": {"y": Put([1])}}}, ["+     y:", "+     - 1"]),
        ({"new": Put({"a": {"b": None}})}, ["+ new:", "+   a:", "+     b: null"]),
    ],
)
def test_only_the_lines_that_must_are_touched(patch, lines):
    assert sorted(changed(patch)) == sorted(lines)


def test_scalars_are_replaced_where_they_stand_once_for_all_who_repeat_them():
    after = replaced_scalars(TEXT, {("e", "k"): "new", ("m", "k"): "never", ("n", "p", 1): "${env.X}"})
    assert "  k: new  # beside\n" in after
    assert "  o: &s [1, '${env.X}']   # beside\n" in after
    assert len([line for line in difflib.ndiff(TEXT.splitlines(), after.splitlines()) if line[0] == "+"]) == 2


def test_comments_are_found_and_what_only_looks_like_one_is_not():
    text = "# a\nb: 'x # y'  # c\nd: e#f\ng: |\n  # text\n# h"
    assert recommented(text, lambda comment: comment.upper()) == text.replace("# a", "# A").replace(
        "# c", "# C"
    ).replace("# h", "# H")
