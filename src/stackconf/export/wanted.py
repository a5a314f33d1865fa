"""What a provider's `config` must say, so that the file alone yields a configuration.

Wanted is a tree by field name: mappings to descend into, and leaves that know where they are from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from attrs import field, frozen

from stackconf.fields import ClassPlan, class_default, labels_at
from stackconf.plan import SECRET, Digest, shown, snapshot
from stackconf.redact import REDACTED, passwords_in, redact_free
from stackconf.resolve.layers import EMPTY, MISSING, Path, canonical, leaves, merge, value_at
from stackconf.resolve.origins import Origins, covers
from stackconf.resolve.projection import project
from stackconf.resolve.references import is_reference
from stackconf.resolve.render import Renderer
from stackconf.stackfile.env import EnvText

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stackconf.drift import Then
    from stackconf.resolve.resolve import Resolved
    from stackconf.stackfile.model import StackFile

Tree = dict[str, Any]


class _Keep:
    """The leaf stays as the file has it."""


KEEP: Final = _Keep()


@frozen
class Leaf:
    """One leaf to be written, a list as a whole. `value` is what it comes to, `given` how it was given:
    perhaps with references. `source` says who wants it, for people.
    """

    value: Any = field(repr=False)
    given: Any = field(default=None, repr=False)
    unknown: bool = False
    """A secret in it of which only the digest is known."""
    source: str = ""

    @property
    def text(self) -> str | None:
        """The reference that stands for the value."""
        return self.given if is_reference(self.given) else None

    def part(self, key: str | int) -> Leaf:
        """What stands at a key or a place of it; all of a secret's parts stand for its reference."""
        given = self.given if self.text else value_at(self.given, (key,))
        return Leaf(self.value[key], given, self.unknown, self.source)


@frozen
class Wanted:
    """What one provider's config must say. `is_secret` judges a path of it."""

    values: Tree = field(repr=False)
    is_secret: Callable[[Path], bool] = field(repr=False)
    plan: ClassPlan | None = field(default=None, repr=False)
    kept: tuple[tuple[Path, str], ...] = ()
    """Paths whose reference stays although what is applied is another value."""


_MARK: Any = object()
_HIDDEN = Renderer(secret=lambda _: _MARK, url=lambda text: text)


def secrecy(config: BaseModel | None, plan: ClassPlan | None, data: Any) -> Callable[[Path], bool]:
    """Which paths of a config hold a secret: as it renders, as its class labels them, as they are
    named.
    """
    hidden = _HIDDEN.render(config) if config is not None else {}
    by_name = redact_free(_plainly(data)) if plan is None else {}

    def is_secret(path: Path) -> bool:
        for length in range(1, len(path) + 1):
            if value_at(hidden, path[:length]) is _MARK:
                return True
        if plan is not None:
            return labels_at(plan, path, data).secret
        return bool(value_at(by_name, path) == REDACTED)

    return is_secret


def _plainly(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plainly(inner) for key, inner in value.items()}
    return [_plainly(inner) for inner in value] if isinstance(value, list) else value


def of_resolution(resolved: Resolved, *, whole: bool) -> Wanted:
    """What the layers above the class want; with `whole`, what the class gives as well."""
    plan, entry = resolved.plan, resolved.entry
    assert plan is not None  # noqa: S101 (a valid provider has a class)
    assert entry is not None  # noqa: S101 (and stands in the file)
    own = canonical(entry.config, plan)
    hardware = _jsonable(resolved.hardware_values)
    written = merge(hardware, own, plan)
    comes_to = written
    overlays = []
    for taken in resolved.overlays:
        kept, _ = project(taken.overlay.values, plan, written)
        written = merge(written, kept, plan)
        comes_to = merge(comes_to, taken.values, plan)
        overlays.append((kept, taken))

    def leaf(path: Path, value: Any) -> Leaf:
        for kept, taken in reversed(overlays):
            if covers(kept, path):
                source = f"configuration `{taken.overlay.name}`"
                return Leaf(value_at(comes_to, path, value), value, source=source)
        if covers(own, path):
            return Leaf(value, source="stack file")
        return Leaf(value, source="hardware")

    values = _tree(written, leaf)
    if whole and resolved.config is not None:
        _add_defaults(values, written, resolved.config)
    return Wanted(values, secrecy(resolved.config, plan, _plainly(comes_to)), plan)


def _add_defaults(values: Tree, written: Any, config: BaseModel) -> None:
    for path, value in leaves(_HIDDEN.render(config)):
        if path and not covers(written, path) and not _holds_secret(value):
            _put(values, path, Leaf(value, source="class"))


def _holds_secret(value: Any) -> bool:
    if isinstance(value, (list, dict)):
        return any(map(_holds_secret, value.values() if isinstance(value, dict) else value))
    return value is _MARK or (isinstance(value, str) and bool(passwords_in(value)))


def _tree(data: Any, leaf: Callable[[Path, Any], Any], above: Path = ()) -> Tree:
    tree: Tree = {}
    for key, value in data.items():
        path = (*above, key)
        is_inner = type(value) is dict and value
        tree[key] = _tree(value, leaf, path) if is_inner else leaf(path, value)
    return tree


def _put(tree: Tree, path: Path, leaf: Any) -> None:
    for step in path[:-1]:
        below = tree.get(str(step))
        if not isinstance(below, dict):
            below = tree[str(step)] = {}
        tree = below
    tree[str(path[-1])] = leaf


def _jsonable(value: Any) -> Any:
    """What a plugin gave as plain data; secrets are opened, for whoever writes them."""
    from pydantic import SecretBytes, SecretStr
    from pydantic_core import to_jsonable_python

    if isinstance(value, Mapping):
        return {key: _jsonable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(inner) for inner in value]
    if isinstance(value, (SecretStr, SecretBytes)):
        revealed = value.get_secret_value()
        return revealed if isinstance(revealed, str) else revealed.decode("utf-8", "replace")
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return to_jsonable_python(value, fallback=str)


# What is applied


def of_snapshot(
    applied: Mapping[str, Any],
    resolved: Resolved | None,
    then: Then,
    stack: StackFile,
    digest: Digest,
    *,
    whole: bool,
) -> Wanted:
    """What a snapshot wants. `resolved` is what the files say of the provider now, if they have it;
    `then` what the configurations of its revision said.
    """
    comparison = _Applied(resolved, then, stack, digest, whole=whole)
    values = comparison.tree(applied)
    plan = resolved.plan if resolved is not None else None
    config = resolved.config if resolved is not None else None
    data = shown(applied)
    judged = secrecy(config, plan, data)

    def is_secret(path: Path) -> bool:
        return judged(path) or value_at(data, path) == REDACTED

    return Wanted(values, is_secret, plan, tuple(comparison.kept))


class _Applied:
    """How each applied leaf is written, given what the files say of it now."""

    def __init__(
        self, resolved: Resolved | None, then: Then, stack: StackFile, digest: Digest, *, whole: bool
    ) -> None:
        self._then, self._digest, self._whole = then, digest, whole
        self._resolved = resolved
        self._now: Any = EMPTY
        self._told: Origins | None = None
        self._own: Any = EMPTY
        self.kept: list[tuple[Path, str]] = []
        if resolved is None:
            return
        if resolved.entry is not None:
            plan = resolved.plan
            self._own = canonical(resolved.entry.config, plan) if plan else resolved.entry.config
        if resolved.config is not None:
            self._now = snapshot(resolved, digest)
            self._told = Origins(resolved, stack)

    def tree(self, data: Mapping[str, Any], above: Path = ()) -> Tree:
        """What must be written of a mapping of the snapshot, and what stays."""
        tree: Tree = {}
        for key, value in data.items():
            path = (*above, key)
            made: Any = MISSING
            if isinstance(value, Mapping) and value and not _is_digest(value):
                made = self.tree(value, path)
                if not made:  # all of it is as the class has it
                    made = KEEP if covers(self._own, path) else MISSING
            else:
                made = self.leaf(path, value)
            if made is not MISSING:
                tree[key] = made
        return tree

    def leaf(self, path: Path, value: Any) -> Any:
        """The leaf, `KEEP`, or `MISSING` where nothing need be written."""
        if self._told is not None and value_at(self._now, path, MISSING) == value:
            return self._as_files_say(path, value)
        own = value_at(self._own, path, MISSING)
        if isinstance(own, str) and _is_same(own, value, self._digest):
            return KEEP
        brought = self._brought(path, value)
        if brought is not None:
            return brought
        if isinstance(own, EnvText):
            self.kept.append((path, own.shown))
            return KEEP
        needless = own is MISSING and not self._whole and self._is_class_default(path, value)
        return MISSING if needless else self._literal(value, "what is applied")

    def _as_files_say(self, path: Path, value: Any) -> Any:
        assert self._told is not None  # noqa: S101 (asked before)
        layer = self._told.of(path, shown(value)).layer
        if layer == "stack":
            return KEEP
        if layer == "class" and not self._whole:
            return MISSING
        return self._literal(value, layer)

    def _brought(self, path: Path, value: Any) -> Leaf | None:
        """As the configuration says it that brought the value."""
        taken = self._then.brought(path, value)
        if taken is None:
            return None
        given = value_at(taken.overlay.values, path, MISSING)
        source = f"configuration `{taken.overlay.name}`"
        if given is MISSING:
            return self._literal(value, source)
        return Leaf(value_at(taken.values, path), given, source=source)

    def _is_class_default(self, path: Path, value: Any) -> bool:
        """Whether the class alone gives the value; only where the hardware says nothing."""
        resolved = self._resolved
        if resolved is None or resolved.owned is None or covers(resolved.hardware_values, path):
            return False
        info = resolved.owned.config_class.model_fields.get(str(path[0]))
        default = class_default(info) if info is not None and not info.is_required() else MISSING
        if default is MISSING:
            return False
        rendered = default if default is None or isinstance(default, (str, int, float, bool)) else MISSING
        return len(path) == 1 and type(rendered) is type(value) and rendered == value

    def _literal(self, value: Any, source: str) -> Leaf:
        if _is_digest(value):
            return Leaf(value["shown"], unknown=True, source=source)
        return Leaf(shown(value), unknown=_has_digest(value), source=source)


def _is_digest(value: Any) -> bool:
    return isinstance(value, Mapping) and SECRET in value


def _has_digest(value: Any) -> bool:
    return isinstance(value, list) and any(_is_digest(item) or _has_digest(item) for item in value)


def _is_same(own: str, value: Any, digest: Digest) -> bool:
    """Whether the file's text, expanded, is what is applied."""
    return bool(digest(own) == value[SECRET]) if _is_digest(value) else str(own) == value
