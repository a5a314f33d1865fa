"""Reading what was sent, key by key: strict about what is needed, silent about what is new."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeAlias, TypeVar, get_args

from stackconf.errors import StackconfError
from stackconf.packing import unpacked

T = TypeVar("T")
Read: TypeAlias = Callable[[object], T]

_LONGEST = 20
"""Longer text is not repeated: it might be a secret in the wrong place."""
_LONGEST_LINE = 250


class Misshapen(StackconfError):
    """What was sent is not what it should be. `where` is the place in it, `problem` what is wrong there.

    >>> str(Misshapen("expected text, not null", "issues[0].message"))
    'what was sent cannot be read: issues[0].message: expected text, not null'
    """

    def __init__(self, problem: str, where: str = "") -> None:
        self.problem = problem
        self.where = where
        place = f"{where}: " if where else ""
        super().__init__(_line(f"what was sent cannot be read: {place}{problem}"))

    def below(self, where: str) -> Self:
        """The same, seen from further up."""
        dot = "." if self.where and not self.where.startswith("[") else ""
        return type(self)(self.problem, f"{where}{dot}{self.where}")


class Given:
    """An object that was sent. Each method raises `Misshapen` where a key has not what it asks for.

    >>> given = Given({"name": "acme", "tries": 3})
    >>> given.text("name"), given.whole("tries"), given.maybe("since", text)
    ('acme', 3, None)
    """

    def __init__(self, data: object) -> None:
        if not isinstance(data, Mapping):
            raise _expected("an object", data)
        self.data: Mapping[Any, Any] = data

    def one(self, key: str, read: Read[T]) -> T:
        """What stands there, which must be something."""
        if key not in self.data:
            raise Misshapen("is missing", key)
        try:
            return read(self.data[key])
        except Misshapen as error:
            raise error.below(key) from None

    def maybe(self, key: str, read: Read[T]) -> T | None:
        """What stands there; `None` for null, and where the key is missing."""
        return None if self.data.get(key) is None else self.one(key, read)

    def text(self, key: str) -> str:
        """Text."""
        return self.one(key, text)

    def some_text(self, key: str) -> str:
        """Text; "" for null, and where the key is missing."""
        return self.maybe(key, text) or ""

    def whole(self, key: str) -> int:
        """A whole number."""
        return self.one(key, whole)

    def flag(self, key: str) -> bool:
        """Whether."""
        return self.one(key, flag)

    def value(self, key: str) -> Any:
        """Any value, as `packed` wrote it."""
        return self.one(key, value)

    def each(self, key: str, read: Read[T]) -> tuple[T, ...]:
        """A list of them."""
        return self.one(key, tuple_of(read))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        return self.each(key, text)

    def named(self, key: str, read: Read[T]) -> dict[str, T]:
        """An object that has one under each of its keys."""
        inside = self.one(key, Given)
        try:
            return {text(name): inside.one(name, read) for name in inside.data}
        except Misshapen as error:
            raise error.below(key) from None


def text(data: object) -> str:
    """Text."""
    if not isinstance(data, str):
        raise _expected("text", data)
    return data


def whole(data: object) -> int:
    """A whole number."""
    if not isinstance(data, int) or isinstance(data, bool):
        raise _expected("a whole number", data)
    return data


def number(data: object) -> float:
    """A finite number."""
    if isinstance(data, (int, float)) and not isinstance(data, bool):
        try:
            if math.isfinite(found := float(data)):
                return found
        except OverflowError:
            pass
    raise _expected("a number", data)


def flag(data: object) -> bool:
    """True or false."""
    if not isinstance(data, bool):
        raise _expected("true or false", data)
    return data


def value(data: object) -> Any:
    """Any value, as `packed` wrote it."""
    try:
        return unpacked(data)
    except RecursionError:
        raise Misshapen("is nested too deeply") from None
    except ValueError as error:
        raise Misshapen(str(error)) from None


def mapping(data: object) -> dict[str, Any]:
    """A mapping with any values, as `packed` wrote it."""
    found = value(data)
    if not isinstance(found, dict):
        raise _expected("an object", data)
    return found


def choice(words: Any) -> Read[Any]:
    """A reader of one of the words of a `Literal`."""
    known = get_args(words)

    def read(data: object) -> Any:
        if not isinstance(data, str) or data not in known:
            raise _expected(f"one of {', '.join(known)}", data)
        return data

    return read


def tuple_of(read: Read[T]) -> Read[tuple[T, ...]]:
    """A reader of a list."""

    def read_all(data: object) -> tuple[T, ...]:
        if not isinstance(data, (list, tuple)):
            raise _expected("a list", data)
        return tuple(_item(index, item) for index, item in enumerate(data))

    def _item(index: int, item: object) -> T:
        try:
            return read(item)
        except Misshapen as error:
            raise error.below(f"[{index}]") from None

    return read_all


def _line(text: str) -> str:
    """As one line that can be printed, whatever keys were sent."""
    short = text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}..."
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in short)


def _expected(what: str, data: object) -> Misshapen:
    return Misshapen(f"expected {what}, not {_said(data)}")


def _said(data: object) -> str:
    """What stands there instead, in a few words: never a whole document, which may hold anything."""
    if data is None or isinstance(data, bool):
        return {None: "null", True: "true", False: "false"}[data]
    if isinstance(data, str):
        return repr(data) if len(data) <= _LONGEST else f"text of {len(data)} characters"
    if isinstance(data, (int, float)):
        return "a number"
    return "a list" if isinstance(data, (list, tuple)) else "an object"
