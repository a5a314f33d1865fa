"""References inside values: environment text of the stack file, secret references of overlays.

A stack file's reference was expanded to text when the file was read; here the text meets the type
of its field. pydantic converts text for a typed field. What no type decides is converted as
upstream would, and an empty default becomes a null where the field can be null.
An overlay's reference (`${env.NAME}`, `${file:/run/secrets/x}`) stays a reference wherever it is
kept and shown; only the resolved configuration holds the value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve

from stackconf.resolve.layers import Data, dotted
from stackconf.stackfile.env import EnvText
from stackconf.types import Issue

if TYPE_CHECKING:
    from stackconf.fields import ClassPlan, FieldPlan
    from stackconf.resolve.resolve import TakenOverlay
    from stackconf.types import Provider

_SECRET_REFERENCE = re.compile(r"\$\{(?:env\.(?P<variable>[A-Z0-9_]+)|file:(?P<file>/[^}]+))\}")


def settle_environment(data: Data, plan: ClassPlan) -> Data:
    """The stack layer with every environment text ready for its field's type."""
    settled: dict[str, Any] | None = None
    for key, value in data.items():
        if type(value) is EnvText or isinstance(value, (Mapping, list)):
            field = plan.fields.get(key)
            new = _settled(value, field)
            if new is not value:
                settled = settled if settled is not None else dict(data)
                settled[key] = new
    return data if settled is None else settled


def _settled(value: Any, field: FieldPlan | None) -> Any:
    if type(value) is EnvText:
        return _typed(value, field)
    if isinstance(value, Mapping):
        return _settled_mapping(value, field)
    if isinstance(value, list):
        item = field.item if field else None
        new = [_settled(inner, item) for inner in value]
        return value if all(map(_same, new, value)) else new
    return value


def _settled_mapping(value: Data, field: FieldPlan | None) -> Data:
    model = field.model_for(value) or next(iter(field.models), None) if field else None
    if model is not None:
        return settle_environment(value, model)
    item = field.item if field else None
    new = {key: _settled(inner, item) for key, inner in value.items()}
    return value if all(new[key] is value[key] for key in value) else new


def _same(one: object, other: object) -> bool:
    return one is other


def _typed(value: EnvText, field: FieldPlan | None) -> Any:
    untyped = field is None or field.free
    if value.null:
        return None if untyped or (field is not None and field.nullable) else value
    if untyped and value.whole and value.grammar == "new":
        return _by_looks(value)
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


def settle_references(
    taken: TakenOverlay, plan: ClassPlan, provider: Provider, issues: list[Issue]
) -> TakenOverlay:
    """The overlay with the references of its secret fields resolved on this machine."""

    def settle(data: Data, here: ClassPlan, above: tuple[str, ...]) -> Data:
        new: dict[str, Any] = {}
        for key, value in data.items():
            field = here.fields.get(key)
            new[key] = value
            if isinstance(value, Mapping) and field is not None and field.models:
                model = field.model_for(value) or field.models[0]
                new[key] = settle(value, model, (*above, key))
            elif isinstance(value, str) and "${" in value:
                new[key] = resolve(value, field, (*above, key))
        return new

    def resolve(value: str, field: FieldPlan | None, path: tuple[str, ...]) -> Any:
        if field is None or not field.secret:
            return value
        resolved, problem = _resolved(value)
        if problem:
            configuration = f"configuration `{taken.overlay.name}`"
            issues.append(
                Issue(
                    f"{problem}; given by {configuration}",
                    path=f"config.{dotted(path)}",
                    provider=provider.key,
                    code="missing-secret",
                )
            )
        return resolved

    if not plan.has_secret:
        return taken
    return evolve(taken, values=settle(taken.values, plan, ()))


def _resolved(value: str) -> tuple[Any, str]:
    match = _SECRET_REFERENCE.fullmatch(value)
    if match is None:
        return value, ""
    if match["variable"]:
        found = os.environ.get(match["variable"])
        return found, "" if found else f"environment variable {match['variable']} is not set"
    try:
        return Path(match["file"]).read_text(encoding="utf-8").strip(), ""
    except (OSError, UnicodeDecodeError) as error:
        return None, f"cannot read the secret file {match['file']}: {type(error).__name__}"
