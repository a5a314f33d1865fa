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
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import frozen

from stackconf.redact import names_secret
from stackconf.resolve.layers import Data, Path, dotted
from stackconf.stackfile.env import EnvText
from stackconf.types import Issue

if TYPE_CHECKING:
    from stackconf.fields import ClassPlan, FieldPlan
    from stackconf.types import Provider

_SECRET_REFERENCE = re.compile(r"\$\{(?:env\.(?P<variable>[A-Z0-9_]+)|file:(?P<file>/[^}]+))\}")


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


def settled_references(
    values: Data, plan: ClassPlan, configuration: str, provider: Provider, issues: list[Issue]
) -> Data:
    """What an overlay sets, with the references of its secret fields resolved on this machine."""
    if plan.extra != "allow" and values.keys().isdisjoint(plan.secretive):
        return values
    if not _may_refer(values):
        return values
    return _resolved_in(values, plan, (), _Reporter(configuration, provider, issues))


def _may_refer(data: Data) -> bool:
    for value in data.values():
        kind = type(value)
        if kind is list or (kind is str and "${" in value) or (kind is dict and _may_refer(value)):
            return True
    return False


@frozen
class _Reporter:
    """Says which reference of which configuration could not be resolved."""

    configuration: str
    provider: Provider
    issues: list[Issue]

    def report(self, problem: str, path: Path, hint: str) -> None:
        self.issues.append(
            Issue(
                f"{problem}; given by configuration `{self.configuration}`",
                path=f"config.{dotted(path)}",
                hint=hint,
                provider=self.provider.key,
                code="missing-secret",
            )
        )


def _resolved_in(data: Data, plan: ClassPlan, above: Path, reporter: _Reporter) -> Data:
    settled: dict[str, Any] | None = None
    for name, value in data.items():
        field = plan.fields.get(name)
        if field is None:
            new = _resolved_free(value, (*above, name), reporter, secret=names_secret(name))
        elif name in plan.secretive:
            new = _resolved_value(value, field, (*above, name), reporter)
        else:
            continue
        if new is not value:
            settled = dict(data) if settled is None else settled
            settled[name] = new
    return data if settled is None else settled


def _resolved_value(value: Any, field: FieldPlan, path: Path, reporter: _Reporter) -> Any:
    kind = type(value)
    if kind is dict and (model := field.model_for(value)) is not None:
        return _resolved_in(value, model, path, reporter)
    item = field.item
    if item is None or not (item.models or item.item):
        return _resolved_free(value, path, reporter, secret=field.secret)
    if kind is dict:
        return {key: _resolved_value(inner, item, (*path, key), reporter) for key, inner in value.items()}
    if kind is list:
        return [_resolved_value(inner, item, (*path, number), reporter) for number, inner in enumerate(value)]
    return value


def _resolved_free(value: Any, path: Path, reporter: _Reporter, *, secret: bool) -> Any:
    """What no class describes further: its keys say which of it is secret, or it is as a whole."""
    kind = type(value)
    if kind is str:
        return _resolved(value, path, reporter) if secret and "${" in value else value
    if kind is dict:
        return {
            key: _resolved_free(inner, (*path, key), reporter, secret=secret or names_secret(key))
            for key, inner in value.items()
        }
    if kind is list:
        return [_resolved_free(each, (*path, at), reporter, secret=secret) for at, each in enumerate(value)]
    return value


def _resolved(value: str, path: Path, reporter: _Reporter) -> str | None:
    match = _SECRET_REFERENCE.fullmatch(value)
    if match is None:
        return value
    if match["variable"]:
        found = os.environ.get(match["variable"])
        if not found:
            name = match["variable"]
            reporter.report(f"the environment variable `{name}` is not set, or empty", path, "set it")
        return found
    try:
        return FilePath(match["file"]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8 text"
        problem = f"the secret file {match['file']} cannot be read: {why.lower()}"
        reporter.report(problem, path, "put the secret there")
    return None
