"""pydantic's validation errors by the path of the data they are about, in the words of a YAML file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from attrs import frozen

from stackconf.fields import ClassPlan, FieldPlan
from stackconf.redact import looks_like_key, redact_free
from stackconf.resolve.layers import value_at
from stackconf.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails

    from stackconf.resolve.layers import Data, Path

_LONGEST_VALUE = 60
_QUOTED = re.compile(r"'([^']*)'")
_PREFIXES = re.compile(r"^(Value error,|Assertion failed,|Input|String|List|Dictionary) ?")

_WANTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "bytes_type": "text",
    "dataclass_type": "a mapping",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "frozen_set_type": "a list",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "mapping_type": "a mapping",
    "model_attributes_type": "a mapping",
    "model_type": "a mapping",
    "none_required": "null",
    "set_type": "a list",
    "string_type": "text",
    "string_unicode": "valid Unicode text",
    "tuple_type": "a list",
}
"""What the class wanted, by the type of pydantic's error."""

_WRONG_KIND = frozenset({*_WANTED, "literal_error", "is_instance_of"}) - {"finite_number", "int_from_float"}


@frozen
class Violation:
    """One thing that a config class refuses. `path` is where the data has it, or would have it."""

    kind: str
    path: Path
    text: str
    given: object
    hint: str = ""

    @property
    def about_text(self) -> bool:
        """Whether text was wanted, and something else was given."""
        return self.kind in {"string_type", "bytes_type"}

    def message(self, *, secret: bool) -> str:
        """What is wrong, in the middle of a line. Of a secret, only its kind is told."""
        if self.kind == "value_error" or not self.path:
            return self.text
        if isinstance(self.given, (Mapping, list, tuple)) or (secret and type(self.given) is not str):
            return f"{self.text}, not {_kind(self.given)}" if self.kind in _WANTED else self.text
        return self.text if secret else f"{self.text}, not {_shown(self.given, str(self.path[-1]))}"


def violations(details: Sequence[ErrorDetails], data: Data, plan: ClassPlan) -> Iterator[Violation]:
    """The violations by data path, unknown keys left out: those are found apart.

    pydantic reports each member of a union; the member that fits best speaks for all of them.
    """
    unions: dict[Path, dict[str, list[Violation]]] = {}
    for detail in details:
        path, branch_at, branch = _data_path(detail, data, plan)
        known = detail["type"] != "extra_forbidden"
        if branch_at is not None:
            members = unions.setdefault(branch_at, {}).setdefault(branch, [])
            members += [_violation(detail, path)] if known else []
        elif known:
            yield _violation(detail, path)
    for at, branches in unions.items():
        yield from min(branches.values(), key=lambda found: (_misses_the_kind(found, at), len(found)))


def forbidden(details: Sequence[ErrorDetails], data: Data, plan: ClassPlan) -> list[Path]:
    """The paths of keys that some class does not know and forbids."""
    paths = [_data_path(each, data, plan)[0] for each in details if each["type"] == "extra_forbidden"]
    return list(dict.fromkeys(paths))


def members_at(plan: ClassPlan, path: Path, data: Data) -> tuple[ClassPlan, ...]:
    """The classes that a mapping at a path may be of: several where a union is not decided."""
    here: Any = data
    spot: ClassPlan | FieldPlan | None = plan
    for step in path:
        spot = _field_at(spot, step, here)
        here = value_at(here, (step,))
    return spot.models if isinstance(spot, FieldPlan) else ()


def _misses_the_kind(found: list[Violation], at: Path) -> bool:
    """Whether a member of a union wants another kind of value altogether."""
    return any(each.path == at and each.kind in _WRONG_KIND for each in found)


def _violation(detail: ErrorDetails, path: Path) -> Violation:
    kind = detail["type"]
    context = detail.get("ctx", {})
    if kind == "union_tag_invalid":
        key, tag = str(context["discriminator"]).strip("'"), str(context["tag"])
        known = _QUOTED.findall(str(context["expected_tags"]))
        text = f"should be {_choice(known)}"
        return Violation(kind, (*path, key), text, tag, did_you_mean(tag, known))
    if kind == "union_tag_not_found":
        key = str(context["discriminator"]).strip("'")
        return Violation(kind, path, f"`{key}` is missing, which says what kind this is", {}, f"add `{key}`")
    wanted = _WANTED.get(kind)
    text = f"should be {wanted}" if wanted else _sentence(detail["msg"])
    hint = ""
    expected, given = context.get("expected"), detail["input"]
    if kind in {"literal_error", "enum"} and isinstance(expected, str) and isinstance(given, str):
        hint = did_you_mean(given, _QUOTED.findall(expected))
    return Violation(kind, path, text, given, hint)


def _data_path(detail: ErrorDetails, data: Data, plan: ClassPlan) -> tuple[Path, Path | None, str]:
    """Pydantic's `loc` without the names of union members, and where the first of those stood."""
    here: Any = data
    spot: ClassPlan | FieldPlan | None = plan
    path: Path = ()
    branch_at: Path | None = None
    branch = ""
    location = detail["loc"]
    for index, step in enumerate(location):
        known = _class_at(spot, here)
        name = known.keys.get(str(step)) if known else None
        key: str | int | None = None
        if isinstance(here, Mapping):
            named = name if name in here else None
            key = step if step in here else named
            missing = index == len(location) - 1 and detail["type"] == "missing"
            if key is None and (missing or name is not None):
                key = step if name is None else name
        elif isinstance(here, (list, tuple)) and isinstance(step, int) and step < len(here):
            key = step
        if key is not None:
            spot = _field_at(spot, key, here)
            here = here.get(key) if isinstance(here, Mapping) else here[key]
            path = (*path, key)
        elif branch_at is None:
            branch_at, branch = path, str(step)
    return path, branch_at, branch


def _class_at(spot: ClassPlan | FieldPlan | None, here: object) -> ClassPlan | None:
    if not isinstance(spot, FieldPlan):
        return spot
    return spot.model_for(here) or next(iter(spot.models), None)


def _field_at(spot: ClassPlan | FieldPlan | None, key: str | int, here: object) -> FieldPlan | None:
    known = _class_at(spot, here)
    if known is not None and isinstance(key, str):
        return known.fields.get(known.keys.get(key, ""))
    return spot.item if isinstance(spot, FieldPlan) else None


def _sentence(text: str) -> str:
    """Pydantic's message as the middle of a line: no capital, no prefix, never empty."""
    text = _PREFIXES.sub("", " ".join(text.split())).split(", unable to parse", 1)[0].rstrip(".")
    if text[1:2].islower():
        text = text[:1].lower() + text[1:]
    return text or "refused by the type's own check"


def _choice(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def _shown(value: object, name: str) -> str:
    """A refused value as its file might have it."""
    shown = redact_free(str(value) if isinstance(value, str) else value, name)
    if isinstance(shown, str) and looks_like_key(shown):
        return "what looks like a key"  # in a field where nobody expects one
    if shown is None or isinstance(shown, bool):
        return str(shown).lower().replace("none", "null")
    if isinstance(shown, date):
        return f"the date {shown.isoformat()}"
    if not isinstance(shown, (str, int, float)):
        return _kind(shown)
    text = repr(shown) if not isinstance(shown, int) or shown.bit_length() < _LONGEST_VALUE else _long(shown)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _long(number: int) -> str:
    """The beginning of a number that may have more digits than Python converts."""
    try:
        return str(number)
    except ValueError:
        return "so large a number"


def _kind(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "a null" if value is None else "a boolean"
    for types, name in (
        (Mapping, "a mapping"),
        ((list, tuple, set, frozenset), "a list"),
        ((int, float), "a number"),
        (str, "text"),
        (date, "a date"),
    ):
        if isinstance(value, types):
            return name
    return f"an object of type {type(value).__name__}"
