"""Where each value came from: computed from the kept layers when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stackconf.fields import Labels, labels_at
from stackconf.redact import REDACTED, redact_free
from stackconf.resolve.layers import Path, dotted, leaves, value_at
from stackconf.resolve.render import SHOWN
from stackconf.stackfile.env import EnvText
from stackconf.types import Because, LayerName, Origin

if TYPE_CHECKING:
    from stackconf.resolve.resolve import Resolved
    from stackconf.stackfile.model import StackFile

_NOTHING: Any = object()


def origins(resolved: Resolved, stack: StackFile | None = None) -> list[Origin]:
    """One `Origin` for each leaf of a provider's effective configuration, in the class's order.

    Empty where the provider could not be resolved.
    """
    if resolved.config is None:
        return []
    shown = SHOWN.render(resolved.config)
    return [origin_of(resolved, path, value, stack) for path, value in leaves(shown) if path]


def origin_of(resolved: Resolved, path: Path, value: object, stack: StackFile | None) -> Origin:
    """The origin of one leaf; `value` is the effective one, already redacted."""
    plan = resolved.plan
    assert plan is not None  # noqa: S101 (a provider with a config has a class)
    labels = labels_at(plan, path, resolved.config and SHOWN.render(resolved.config))
    candidates = list(_candidates(resolved, path, labels, stack))
    winner, *beaten = candidates
    return Origin(
        dotted(path),
        winner.layer,
        value,
        winner.source,
        winner.reason,
        labels.user,
        labels.update,
        tuple(beaten),
    )


def _candidates(resolved: Resolved, path: Path, labels: Labels, stack: StackFile | None) -> Iterator[Origin]:
    def origin(layer: LayerName, value: object, source: str, reason: str = "") -> Origin:
        name = str(path[-1])
        shown = REDACTED if labels.secret and value not in (None, "") else redact_free(_plain(value), name)
        return Origin(dotted(path), layer, shown, source, reason, labels.user, labels.update)

    for taken in reversed(resolved.overlays):
        given = covering(taken.values, path)
        if given is not _NOTHING:
            overlay = taken.overlay
            yield origin("overlay", given, f"configuration `{overlay.name}` (revision {overlay.revision})")
    given = covering(resolved.stack_values, path)
    if given is not _NOTHING:
        yield origin("stack", given, _place(resolved, path, stack), _reference(given))
    given = covering(resolved.hardware_values, path)
    if given is not _NOTHING:
        plugin = resolved.owned.hooks.owner if resolved.owned else None
        source = f"plugin {plugin.label}" if plugin else "plugin"
        yield origin("hardware", given, source, reason_at(resolved.defaults, path))
    yield origin("class", *_class_default(resolved, path))


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


def reason_at(defaults: Mapping[str, object], path: Path) -> str:
    """The reason that `default_config` gave for a path, or for what stands above it."""
    here: object = defaults
    reason = ""
    for step in path:
        here = here.get(str(step)) if isinstance(here, Mapping) else None
        if isinstance(here, Because):
            reason, here = here.reason, here.value
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
    return f"from {value.shown}" if isinstance(value, EnvText) else ""


def _class_default(resolved: Resolved, path: Path) -> tuple[object, str]:
    assert resolved.owned is not None  # noqa: S101 (a provider with a config has an owner)
    config_class = resolved.owned.config_class
    source = f"{config_class.__module__}.{config_class.__qualname__}"
    info = config_class.model_fields.get(str(path[0]))
    if info is None or info.is_required() or info.default_factory_takes_validated_data:
        return None, source
    default = info.get_default(call_default_factory=True)
    if hasattr(default, "model_dump"):
        default = default.model_dump(mode="python")
    return value_at(default, path[1:]) if len(path) > 1 else default, source


def _plain(value: object) -> object:
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value, fallback=str, inf_nan_mode="strings")
