"""JSON that came in, read strictly: what two readers could understand differently is refused."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any, NoReturn

from stackconf.errors import InvalidConfig
from stackconf.stackfile.load import MAX_DEPTH


def read_json(body: bytes) -> Any:
    """The value that a body says. Raises `InvalidConfig`, in one line, for anything that is not plain
    JSON in UTF-8: a key given twice, NaN, half a surrogate pair, or nesting deeper than a stack file's.

    >>> read_json(b'{"a": [1, null]}')
    {'a': [1, None]}
    >>> read_json(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ...
    stackconf.errors.InvalidConfig: the body is not usable: the key `a` is given twice
    """
    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"the body is not UTF-8: byte {error.start}") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidConfig(f"the body is not JSON: {error.msg} at {where}") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # a number of more digits than Python reads
        raise InvalidConfig("the body is not usable: a number is too long") from error
    _check(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidConfig(f"the body is not usable: the key `{_shown(twice)}` is given twice")
    return found


def _constant(name: str) -> NoReturn:
    raise InvalidConfig(f"the body is not JSON: {name} is no number there")


def _float(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise InvalidConfig("the body is not usable: a number is too large")
    return value


def _check(value: Any) -> None:
    todo = [(value, 1)]
    while todo:
        each, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise _too_deep()
        if isinstance(each, str):
            _check_text(each)
        elif isinstance(each, dict):
            for key, inner in each.items():
                _check_text(key)
                todo.append((inner, depth + 1))
        elif isinstance(each, list):
            todo += [(inner, depth + 1) for inner in each]


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidConfig("the body is not usable: a text holds half a surrogate pair") from error


def _too_deep() -> InvalidConfig:
    return InvalidConfig(f"the body is not usable: it is nested deeper than {MAX_DEPTH} levels")


def _shown(key: str) -> str:
    return key.encode("unicode_escape").decode()[:80]
