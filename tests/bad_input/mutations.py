"""Stack files made wrong at random, from a seed: as text, and as data."""

from __future__ import annotations

from random import Random
from typing import Any

import yaml

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7.5, 10**30, -(10**30), 1e308, float("nan"), float("inf"), "", " ", "~",
    "no", "0123", "\u200b", "\u202e", "é" * 50, "日本語", "a\nb", "a\tb", "\x7f", "\ufeff", "x" * 5000, [],
    {}, [[]], [None], {"a": {"b": {}}}, {"": 1}, {"type": "sqlite"}, {"type": "nonsense"}, {"type": None},
    {"backend": "kv_default"}, {"backend": "kv_default", "namespace": "n"}, ["console", 3],
    "console,nonsense", "http://", "http://[", "http://h:99999999", "http://u:p@h/?q#f", "//",
    "postgresql://", "remote::", "::", "inline::faiss", "__disabled__",
)  # fmt: skip
REFERENCES = (
    "${env.BAD_X}", "${env.BAD_X:=}", "${env.BAD_X:=7}", "${env.BAD_X:+on}", "${env.BAD_X:7}",
    "${env.BAD_X+on}", "${env.bad_x}", "${env.BAD_X:-7}", "${env.BAD_X:?no}",
    "${env.BAD_X:=${env.BAD_Y:=1}}", "${env.BAD_X", "${env.}", "${env:BAD_X}", "$BAD_X", "${BAD_X}",
    "{{ BAD_X }}", "$env.BAD_X", "${env.BAD_KEY}", "a${env.BAD_KEY}b", "${env.BAD_X:={}}", "$", "${", "}",
    "${file:/etc/hostname}",
)  # fmt: skip
FRAGMENTS = (
    "\t", "  ", "- ", ": ", "#", "'", '"', "{", "}", "[", "]", "&a ", "*a", "!!str ", "!x ", "---\n",
    "...\n", "%TAG ! x\n", "|\n", ">\n", "? ", "<<: ", ",", "@", "`", "\x00", "\x1b[2J", "\r", "\u2028",
    "\\", "${env.",
)  # fmt: skip


def mutated(text: str, random: Random) -> str:
    """The text with one to three random changes."""
    for _ in range(random.randint(1, 3)):
        text = random.choice((_line, _line, _characters, _data, _data, _data))(text, random)
    return text


def misspelt(name: str, random: Random) -> str:
    """The name with one edit: a letter left out, doubled, exchanged with the next or replaced."""
    at = random.randrange(len(name) - 1)
    return random.choice(
        (
            name[:at] + name[at + 1 :],
            name[:at] + name[at] + name[at:],
            name[:at] + name[at + 1] + name[at] + name[at + 2 :],
            name[:at] + random.choice("aeinrstx") + name[at + 1 :],
        )
    )


def _line(text: str, random: Random) -> str:
    lines = text.splitlines(keepends=True) or [""]
    at = random.randrange(len(lines))
    change = random.randrange(5)
    if change == 0:
        del lines[at]
    elif change == 1:
        lines.insert(random.randrange(len(lines)), lines[at])
    elif change == 2:
        lines[at] = "  " + lines[at]
    elif change == 3:
        lines[at] = lines[at].removeprefix("  ")
    else:
        other = random.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    return "".join(lines)


def _characters(text: str, random: Random) -> str:
    at = random.randrange(len(text) + 1)
    change = random.randrange(3)
    if change == 0:
        return text[:at] + text[at + random.randint(1, 5) :]
    if change == 1:
        return text[:at] + random.choice(FRAGMENTS) + text[at:]
    return text[:at] + random.choice(REFERENCES) + text[at:]


def _data(text: str, random: Random) -> str:
    """Change one place of what the text means; text that means nothing stays."""
    try:
        data = yaml.safe_load(text)
        places = list(_places(data))
    except (yaml.YAMLError, RecursionError, ValueError):
        return text
    if not places:
        return text
    holder, key = random.choice(places)
    change = random.randrange(6)
    if change == 0:
        del holder[key]
    elif change == 1:
        holder[key] = random.choice(VALUES)
    elif change == 2:
        holder[key] = random.choice(REFERENCES)
    elif change == 3:
        holder[key] = random.choice(([holder[key]], {"a": holder[key]}, str(holder[key])))
    elif change == 4 and isinstance(key, str) and len(key) > 1:
        name = random.choice((misspelt(key, random), misspelt(key, random), "two\nlines", "a.b[0]", "\x7f"))
        holder[name] = holder.pop(key)
    else:
        other, there = random.choice(places)
        holder[key] = other[there]
    try:
        return yaml.safe_dump(data, allow_unicode=True, sort_keys=False, width=10**6)
    except (yaml.YAMLError, RecursionError):
        return text


def _places(data: Any) -> Any:
    """Every (container, key) below `data`."""
    waiting, seen = [data], set()
    while waiting:
        here = waiting.pop()
        if not isinstance(here, (dict, list)) or id(here) in seen:
            continue
        seen.add(id(here))
        for key in here if isinstance(here, dict) else range(len(here)):
            yield here, key
            waiting.append(here[key])
