"""References inside values: environment text of the stack file, secret references of overlays.

A stack file's reference was expanded to text when the file was read; here the text meets the type
of its field. pydantic converts text for a typed field. What no type decides is converted as
upstream would, and an empty default becomes a null where the field can be null.
An overlay's reference (`${env.NAME}`, `${file:/run/secrets/x}`, `${sealed:ID}`) stays a reference
wherever it is kept and shown; only the resolved configuration holds the value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from stackconf.errors import SecretError
from stackconf.fields import labels_at
from stackconf.redact import names_secret, redact_free
from stackconf.resolve.layers import Data, Path, dotted
from stackconf.stackfile.env import EnvText
from stackconf.types import Issue

if TYPE_CHECKING:
    from stackconf.fields import ClassPlan, FieldPlan
    from stackconf.types import Provider

_SECRET_REFERENCE = re.compile(
    r"\$\{(?:env\.(?P<variable>[A-Z0-9_]+)|file:(?P<file>/[^}]+)|sealed:(?P<sealed>[0-9a-f]{16}))\}"
)
_BEGINNINGS = ("${env.", "${file:", "${sealed:")
_MOST_TEXT = 1 << 20

Opener: TypeAlias = "Callable[[str, str, Path], object]"
"""Opens a sealed secret: its id, the provider's key and the field's path, to the value that was
sealed there. Raises `SecretError`.
"""

Unknown: TypeAlias = list[tuple[Path, "ClassPlan"]]
"""Paths that no field knows, each with the class that does not know it."""


def knows_all(plan: ClassPlan, data: Data) -> bool:
    """Whether it is certain at a glance that every key is a field's, at every level, as it is for
    most providers. Of layers that were merged, it is then certain for each.
    """
    if not plan.names.issuperset(data):
        return False
    for name, inner in plan.nested:
        if name in data:
            value = data[name]
            if type(value) is not dict or inner is None or not knows_all(inner, value):
                return False
    return True


def settle_layer(data: Data, plan: ClassPlan, unknown: Unknown, above: Path = ()) -> Data:
    """A layer with every environment text in it ready for its field's type.

    On the way, every key that no field knows is added to `unknown`; a class that says
    `extra="allow"` knows every key.
    """
    settled: dict[str, Any] | None = None
    for key, value in data.items():
        field = plan.fields.get(key)
        if field is None and plan.extra != "allow" and key not in plan.open_keys:
            unknown.append(((*above, key), plan))
            continue
        new = _settled(value, field, unknown, (*above, key))
        if new is not value:
            settled = dict(data) if settled is None else settled
            settled[key] = new
    return data if settled is None else settled


def _settled(value: Any, field: FieldPlan | None, unknown: Unknown, path: Path) -> Any:
    kind = type(value)
    if kind is EnvText:
        return _typed(value, field)
    if kind is dict:
        return _settled_mapping(value, field, unknown, path)
    if kind is list:
        item = field.item if field else None
        new = [_settled(inner, item, unknown, (*path, index)) for index, inner in enumerate(value)]
        return value if all(map(_same, new, value)) else new
    return value


def _settled_mapping(value: Data, field: FieldPlan | None, unknown: Unknown, path: Path) -> Data:
    model = field.model_for(value) if field else None
    if model is not None:
        return settle_layer(value, model, unknown, path)
    item = field.item if field else None
    new = {key: _settled(inner, item, unknown, (*path, key)) for key, inner in value.items()}
    return value if all(new[key] is value[key] for key in value) else new


def _same(one: object, other: object) -> bool:
    return one is other


def _typed(value: EnvText, field: FieldPlan | None) -> Any:
    untyped = field is None or field.free
    if value.null:
        return None if untyped or (field is not None and field.nullable) else value
    if value.whole and value.grammar == "new":
        if untyped:
            return _by_looks(value)
        # Where text or a path would do as well, pydantic would leave it text.
        if field is not None and field.boolean and value.lower() in {"true", "false"}:
            return value.lower() == "true"
    return value


def _by_looks(text: str) -> object:
    """What upstream makes of environment text, for values that no type decides."""
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def is_reference(value: object) -> bool:
    """Whether an overlay's value is a secret reference.

    >>> is_reference("${env.API_KEY}"), is_reference("${file:/run/secrets/key}"), is_reference("abc")
    (True, True, False)
    """
    return isinstance(value, str) and _SECRET_REFERENCE.fullmatch(value) is not None


def looks_like_reference(value: object) -> bool:
    """Whether a text has the beginning of a reference somewhere in it."""
    return isinstance(value, str) and any(each in value for each in _BEGINNINGS)


def kind_of(reference: str) -> Literal["env", "file", "sealed"]:
    """What a reference refers to."""
    match = _SECRET_REFERENCE.fullmatch(reference)
    assert match is not None  # noqa: S101 (asked before)
    return "env" if match["variable"] else "file" if match["file"] else "sealed"


def file_of(reference: str) -> str | None:
    """The file that a reference refers to, or `None`.

    >>> file_of("${file:/run/secrets/key}"), file_of("${env.X}")
    ('/run/secrets/key', None)
    """
    match = _SECRET_REFERENCE.fullmatch(reference)
    return match["file"] if match else None


def sealed_id(value: object) -> str | None:
    """The id of the sealed secret that a value refers to, or `None`.

    >>> sealed_id("${sealed:0123456789abcdef}"), sealed_id("${env.X}")
    ('0123456789abcdef', None)
    """
    match = _SECRET_REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return match["sealed"] if match else None


def sealed_ids(text: str) -> list[str]:
    """The ids of all the sealed secrets that a text refers to."""
    return [match["sealed"] for match in _SECRET_REFERENCE.finditer(text) if match["sealed"]]


def sealed_reference(identity: str) -> str:
    """The reference to a sealed secret."""
    return f"${{sealed:{identity}}}"


def scalars(value: object, above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every scalar below a value with its path, those in lists too.

    >>> list(scalars({"a": [1, {"b": "x"}], "c": None}))
    [(('a', 0), 1), (('a', 1, 'b'), 'x'), (('c',), None)]
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from scalars(inner, (*above, key))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from scalars(inner, (*above, number))
    else:
        yield above, value


def replaced(data: Any, path: Path, value: object) -> Any:
    """A copy of plain data with another value at a path.

    >>> replaced({"a": [1, 2], "b": 3}, ("a", 1), 9)
    {'a': [1, 9], 'b': 3}
    """
    if not path:
        return value
    step, below = path[0], path[1:]
    copy: Any = list(data) if isinstance(data, list) else dict(data)
    copy[step] = replaced(copy[step], below, value)
    return copy


def references_in(data: object) -> list[tuple[Path, str]]:
    """Every reference below a value, with its path."""
    if not _may_refer(data):  # as for most, which are asked at every resolve
        return []
    return [(path, value) for path, value in scalars(data) if is_reference(value)]


def secret_top(path: Path, data: object, plan: ClassPlan) -> Path | None:
    """The uppermost part of a path that holds a secret, or `None`. What stands below a secret may
    be a part of it.
    """
    tops = (path[:at] for at in range(1, len(path) + 1))
    return next((top for top in tops if labels_at(plan, top, data).secret), None)


def settled_references(
    values: Data,
    plan: ClassPlan,
    configuration: str,
    provider: Provider,
    issues: list[Issue],
    opener: Opener | None = None,
) -> Data:
    """What an overlay sets, with the references of its secret fields resolved on this machine."""
    if plan.extra != "allow" and values.keys().isdisjoint(plan.secretive):
        return values
    if not _may_refer(values):
        return values
    settled = values
    for path, reference in references_in(values):
        if secret_top(path, values, plan) is None:
            continue
        found: object = None
        try:
            found = fetched(reference, provider.key, path, opener)
        except SecretError as error:
            issues.append(_unresolved(error, configuration, provider, path))
        settled = replaced(settled, path, found)
    return settled


def _may_refer(data: object) -> bool:
    kind = type(data)
    if kind is dict:
        return any(map(_may_refer, data.values()))  # type: ignore[attr-defined]
    if kind is list:
        return any(map(_may_refer, data))  # type: ignore[call-overload]
    return kind is str and "${" in data  # type: ignore[operator]


def _unresolved(error: SecretError, configuration: str, provider: Provider, path: Path) -> Issue:
    return Issue(
        f"{error.problem}; given by configuration `{configuration}`",
        path=f"config.{dotted(path)}",
        hint=error.hint,
        provider=provider.key,
        code="missing-secret",
    )


def fetched(reference: str, provider: str, path: Path, opener: Opener | None) -> object:
    """What a reference stands for on this machine, now. Raises `SecretError`."""
    match = _SECRET_REFERENCE.fullmatch(reference)
    assert match is not None  # noqa: S101 (asked before)
    if match["variable"]:
        name = match["variable"]
        found = os.environ.get(name)
        if not found:
            raise SecretError(f"the environment variable `{name}` is not set, or empty", "set it")
        return found
    if match["file"]:
        return _content(match["file"])
    if opener is None:
        raise SecretError("a sealed secret is opened only by a stack with its store", "open it as a `Stack`")
    return opener(match["sealed"], provider, path)


def _content(name: str) -> str:
    hint = "put the secret there"
    try:
        with open(name, "rb", opener=_without_waiting) as file:
            data = file.read(_MOST_TEXT + 1) or b""
        text = data.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise SecretError(f"the secret file {name} cannot be read: it is not utf-8 text", hint) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "no file has that name"
        raise SecretError(f"the secret file {name} cannot be read: {why.lower()}", hint) from None
    if not text or len(data) > _MOST_TEXT:
        why = "is larger than 1 MiB" if text else "is empty"
        raise SecretError(f"the secret file {name} {why}", hint)
    return text


def _without_waiting(name: str, flags: int) -> int:
    """Open a file that may be a pipe to which nobody writes."""
    return os.open(name, flags | os.O_NONBLOCK)


def shown(value: object, *names: str) -> object:
    """What an overlay says, as it may be shown: references as they stand, any secret redacted.

    `names` are those of the fields above the value; one of them may say that it is a secret.

    >>> shown({"api_key": "${env.KEY}", "token": "abc", "url": "http://me:pw@db"})
    {'api_key': '${env.KEY}', 'token': '********', 'url': 'http://me:********@db'}
    """
    name = next((each for each in names if names_secret(each)), names[-1] if names else "")
    if is_reference(value):
        return value
    if isinstance(value, Mapping):
        above = name if names_secret(name) else ""
        return {key: shown(inner, above or str(key)) for key, inner in value.items()}
    if isinstance(value, (list, tuple)) and references_in(value):
        return [shown(inner, name) for inner in value]
    return redact_free(value, name)
