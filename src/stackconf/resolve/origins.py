"""Where each value came from: computed from the kept layers when somebody asks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen
from pydantic import BaseModel

from stackconf.fields import ClassPlan, Labels, class_default, labels_at
from stackconf.redact import REDACTED, redact_free, replaced_passwords
from stackconf.resolve.layers import Data, Path, canonical, dotted, leaves, merge, value_at
from stackconf.resolve.references import is_reference
from stackconf.resolve.render import SHOWN
from stackconf.stackfile.env import EnvText
from stackconf.types import Because, LayerName, Origin

if TYPE_CHECKING:
    from stackconf.resolve.resolve import Resolved, TakenOverlay
    from stackconf.stackfile.model import StackFile

_REFERENCE = re.compile(r"\$\{[^{}]*\}")
_NOTHING: Any = object()
COMPUTED = "computed by the class"
"""The reason of a value that the class made where nobody gave one and its default is null."""


def origins(resolved: Resolved, stack: StackFile | None = None) -> list[Origin]:
    """One `Origin` for each leaf of a provider's effective configuration, in the class's order.

    Empty where the provider could not be resolved.
    """
    if resolved.config is None:
        return []
    told = Origins(resolved, stack)
    return [told.of(path, value) for path, value in leaves(told.shown) if path]


@frozen
class _Layer:
    """One layer with what the merge had become when it was on top."""

    name: LayerName
    values: Data
    merged: Data
    overlay: TakenOverlay | None = None


class Origins:
    """Where the leaves of one resolved provider came from."""

    def __init__(self, resolved: Resolved, stack: StackFile | None = None) -> None:
        assert resolved.config is not None  # noqa: S101 (only a resolved provider has origins)
        assert resolved.owned is not None  # noqa: S101 (and it has an owner)
        self._resolved, self._stack = resolved, stack
        self._config, self._owned = resolved.config, resolved.owned
        self._plan = resolved.owned.plan
        self.shown = SHOWN.render(resolved.config)
        """The effective configuration as people see it."""
        self._reasons = computed_reasons(resolved.config)
        self._layers: list[_Layer] = []
        self._add("hardware", resolved.hardware_values)
        self._add("stack", resolved.stack_values)
        for taken in resolved.overlays:
            self._add("overlay", taken.values, taken)

    def of(self, path: Path, value: object) -> Origin:
        """The origin of one leaf; `value` is the effective one, already redacted."""
        labels = labels_at(self._plan, path, self.shown)
        winner, *beaten = self._candidates(path, labels)
        reason = winner.reason
        if (winner.value is None) != (value is None):  # the class put it there, or took it away
            usual = COMPUTED if winner.layer == "class" else reason
            reason = self._told(path) or usual
        return Origin(
            dotted(path),
            winner.layer,
            value,
            winner.source,
            reason,
            labels.user,
            labels.update,
            tuple(beaten),
        )

    def _told(self, path: Path) -> str:
        """What the class says of a path, or of what stands above it."""
        above = (dotted(path[:length]) for length in range(len(path), 0, -1))
        return next((self._reasons[each] for each in above if each in self._reasons), "")

    def _add(self, name: LayerName, values: Data, overlay: TakenOverlay | None = None) -> None:
        below = self._layers[-1].merged if self._layers else {}
        self._layers.append(_Layer(name, values, merge(below, values, self._plan), overlay))

    def _candidates(self, path: Path, labels: Labels) -> list[Origin]:
        """Who gives a value for a path, the winner first. What a layer replaced as a whole (by a
        null, a list, another member of a union) is no candidate any more.
        """
        found: list[Origin] = []
        for layer in self._layers:
            given = covering(layer.values, path)
            if given is not _NOTHING:
                found.append(self._origin(path, labels, layer.name, given, *self._source(layer, path, given)))
            if covering(layer.merged, path) is _NOTHING:
                found.clear()
        default, source = self._class_default(path)
        return [*reversed(found), self._origin(path, labels, "class", default, source)]

    def _origin(
        self, path: Path, labels: Labels, layer: LayerName, value: object, source: str, reason: str = ""
    ) -> Origin:
        hidden = labels.secret and value not in (None, "")
        shown = REDACTED if hidden else redact_free(_plain(value), str(path[-1]))
        return Origin(dotted(path), layer, shown, source, reason, labels.user, labels.update)

    def _source(self, layer: _Layer, path: Path, given: object) -> tuple[str, str]:
        if layer.overlay is not None:
            overlay = layer.overlay.overlay
            written = covering(canonical(overlay.values, self._plan), path)
            reason = f"from {_told(str(written))}" if is_reference(written) else ""
            return f"configuration `{overlay.name}` (revision {overlay.revision})", reason
        if layer.name == "stack":
            return _place(self._resolved, path, self._stack), _reference(given)
        reason = reason_at(self._resolved.defaults, path, self._plan)
        return " and ".join(self._owned.hooks.labels("default_config")), reason

    def _class_default(self, path: Path) -> tuple[object, str]:
        """What the class itself gives: its default for the field, or that of the class inside."""
        owner: Any = self._config
        source = f"{type(owner).__module__}.{type(owner).__qualname__}"
        info = type(owner).model_fields.get(str(path[0]))
        default = class_default(info) if info is not None else None
        for length, step in enumerate(path):
            found = value_at(_dumped(default), path[length + 1 :], _NOTHING)
            if found is not _NOTHING:
                return found, source
            owner = getattr(owner, str(step), None) if isinstance(owner, BaseModel) else None
            if not isinstance(owner, BaseModel) or length + 1 == len(path):
                break
            info = type(owner).model_fields.get(str(path[length + 1]))
            default = class_default(info) if info is not None else None
        return None, source


def _dumped(default: object) -> object:
    return default.model_dump(mode="python") if isinstance(default, BaseModel) else default


def computed_reasons(config: BaseModel) -> Mapping[str, str]:
    """Why the class computed what it did, by dotted path, where it says so (`stackconf_reasons`)."""
    try:
        told = getattr(config, "stackconf_reasons", None)
        return {str(path): str(why) for path, why in told.items()} if isinstance(told, Mapping) else {}
    except Exception:  # noqa: BLE001 (a plugin's own code; what it would say is only an explanation)
        return {}


def covering(layer: object, path: Path) -> Any:
    """What a layer says about a path: the value there, or one that stands above and covers it."""
    here = layer
    for step in path:
        if isinstance(here, Mapping):
            if step not in here:
                return _NOTHING
            here = here[step]
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
        else:
            return here
    return here


def covers(layer: object, path: Path) -> bool:
    """Whether a layer says anything about a path.

    >>> covers({"a": None}, ("a", "b")), covers({"a": {"c": 1}}, ("a", "b"))
    (True, False)
    """
    return covering(layer, path) is not _NOTHING


def reason_at(defaults: Mapping[str, object], path: Path, plan: ClassPlan | None = None) -> str:
    """The reason that `default_config` gave for a path, or for what stands above it."""
    here: object = defaults
    spot: ClassPlan | None = plan
    reason = ""
    for step in path:
        names = spot.aliases_of(str(step)) if spot is not None else [str(step)]
        field = spot.fields.get(str(step)) if spot is not None else None
        given = (
            next((here[name] for name in names if name in here), None) if isinstance(here, Mapping) else None
        )
        if isinstance(given, Because):
            reason, given = given.reason, given.value
        here, spot = given, field.model_for(given) if field is not None else None
    return reason


def _place(resolved: Resolved, path: Path, stack: StackFile | None) -> str:
    if stack is None or resolved.entry is None:
        return "stack file"
    plan = resolved.plan
    for names in _spellings(path, plan.aliases_of(str(path[0])) if plan and path else []):
        position = stack.document.position((*resolved.entry.path, "config", *names))
        if position is not None:
            return str(position)
    return stack.name


def _spellings(path: Path, first: list[str]) -> Iterator[Path]:
    for length in range(len(path), 0, -1):
        for name in first:
            yield (name, *path[1:length])


def _reference(value: object) -> str:
    return f"from {_told(value.shown)}" if isinstance(value, EnvText) else ""


def _told(text: str) -> str:
    """A text with references, without the passwords that stand in it beside them."""
    return replaced_passwords(text, lambda each: each if _REFERENCE.fullmatch(each) else REDACTED)


def _plain(value: object) -> object:
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value, fallback=str, inf_nan_mode="strings")
