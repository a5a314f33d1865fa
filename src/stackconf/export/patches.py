"""From what is wanted of a provider to a patch of the file: only what is not there already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from stackconf.export.wanted import KEEP, Leaf, Wanted
from stackconf.fields import ClassPlan, FieldPlan
from stackconf.redact import REDACTED
from stackconf.resolve.layers import MISSING, Path, dotted
from stackconf.resolve.references import is_reference
from stackconf.stackfile.edit import DROP, Patch, Put
from stackconf.stackfile.env import EnvText, rewritten
from stackconf.stackfile.env import reference as env_reference

if TYPE_CHECKING:
    from stackconf.export.variables import Place, Variables
    from stackconf.types import Provider

_Spot = ClassPlan | FieldPlan | None


@frozen
class Change:
    """One value that is written into the file. `value` is as it is written: secrets are references."""

    provider: str
    path: str
    value: object
    source: str


class Writer:
    """Writes the configs of providers, and remembers what it changed."""

    def __init__(self, variables: Variables) -> None:
        self.variables = variables
        self.changes: list[Change] = []

    def patch(self, provider: Provider, wanted: Wanted, base: Mapping[str, Any]) -> Patch:
        """What changes in a provider's config; `base` is what the file has there, expanded."""
        return _Config(self, provider.key, wanted).patch(wanted.values, base, wanted.plan, ())

    def whole(self, provider: Provider, wanted: Wanted) -> dict[str, Any]:
        """A provider's config for a file that does not have it."""
        config: dict[str, Any] = {}
        for key, change in self.patch(provider, wanted, {}).items():
            assert isinstance(change, Put)  # noqa: S101 (there is nothing to descend into)
            config[str(key)] = change.value
        return config


@frozen
class _Config:
    """One provider's config on its way into the file."""

    writer: Writer
    provider: str
    wanted: Wanted = field(repr=False)

    def patch(self, tree: Mapping[str, Any], base: Mapping[str, Any], spot: _Spot, above: Path) -> Patch:
        """What changes in one mapping."""
        found: Patch = {}
        keys = _keys(base, spot)
        for name, wish in tree.items():
            path = (*above, name)
            inner = _below(spot, name)
            key = keys.get(name)
            if wish is KEEP or (key is not None and _is_there(wish, base[key])):
                continue
            if isinstance(wish, dict) and key is not None and isinstance(base[key], dict):
                below = self.patch(wish, base[key], _as_class(inner, base[key], wish), path)
                if below:
                    found[key] = below
                continue
            text = self.written(wish, inner, path)
            if text is not MISSING:
                found[key or _spelling(spot, name)] = Put(text)
        for name, key in keys.items():
            if name not in tree and not _reaches_below(spot, key):
                found[key] = DROP
                self._note((*above, name), None, "nothing wants it")
        return found

    def written(self, wish: Any, spot: _Spot, path: Path) -> Any:
        """A wish as plain data in the file's grammar."""
        if isinstance(wish, dict):
            inner = _as_class(spot, wish, wish)
            texts = {
                _spelling(inner, name): self.written(each, _below(inner, name), (*path, name))
                for name, each in wish.items()
                if each is not KEEP
            }
            return {key: text for key, text in texts.items() if text is not MISSING}
        assert isinstance(wish, Leaf)  # noqa: S101 (the other kinds were seen to)
        text = self._value(wish, path)
        self._note(path, text, wish.source)
        return text

    def _value(self, leaf: Leaf, path: Path) -> Any:
        value = leaf.value
        if isinstance(value, dict):
            return {key: self._value(leaf.part(key), (*path, key)) for key in value}
        if isinstance(value, list):
            return [self._value(leaf.part(at), (*path, at)) for at in range(len(value))]
        if value is None or value == "" or isinstance(value, bool):
            return value
        return self._scalar(leaf, value, path)

    def _scalar(self, leaf: Leaf, value: Any, path: Path) -> Any:
        variables = self.writer.variables
        place = variables.place(self.provider, path, f"config.{dotted(path)}")
        if leaf.text is not None and not leaf.text.startswith("${env."):
            return variables.new(place, f"what `{leaf.text}` holds, given by {leaf.source}", str(value))
        if leaf.unknown and isinstance(value, str) and REDACTED in value:
            return self._unknown(place, value)
        secret = self.wanted.is_secret(path)
        if isinstance(value, EnvText):
            return self._translated(place, value, secret=secret)
        if leaf.text is not None or (secret and is_reference(value) and value.startswith("${env.")):
            return leaf.text or value
        if secret:
            return variables.new(place, f"a secret, given by {leaf.source}", str(value))
        return place.literal(value) if isinstance(value, str) else value

    def _unknown(self, place: Place, shown: str) -> str:
        """What stands for a secret, or the password of a URL, that is nowhere to be had."""
        if shown == REDACTED:
            return self.writer.variables.new(place, "the secret that is applied", None)
        return place.shown_url(shown, REDACTED)

    def _translated(self, place: Place, value: EnvText, *, secret: bool) -> str:
        """A reference of the stack file, in the grammar of the file that is written."""
        grammar = self.writer.variables.grammar

        def translate(name: str, operator: str, rest: str) -> str:
            return env_reference(name, operator, rest, grammar)

        text = rewritten(value.reference, value.grammar, translate)
        return place.secret(text, str(value)) if secret else place.plain(text)

    def _note(self, path: Path, value: object, source: str) -> None:
        self.writer.changes.append(Change(self.provider, f"config.{dotted(path)}", value, source))


def _is_there(wish: Any, there: Any) -> bool:
    """Whether the file has a wish already, as far as what it comes to is concerned."""
    if isinstance(wish, dict):
        keeps = not isinstance(there, dict) and all(each is KEEP for each in wish.values())
        return keeps and bool(wish)
    assert isinstance(wish, Leaf)  # noqa: S101 (the third kind was seen to)
    return not wish.unknown and _same(wish.value, there)


def _same(value: Any, there: Any) -> bool:
    if value is there:
        return True
    if isinstance(value, str) and isinstance(there, str):
        nulls = [isinstance(each, EnvText) and each.null for each in (value, there)]
        return str(value) == str(there) and nulls[0] == nulls[1]
    if isinstance(value, list) and isinstance(there, list):
        return len(value) == len(there) and all(map(_same, value, there))
    if isinstance(value, dict) and isinstance(there, dict):
        return list(value) == list(there) and all(_same(value[key], there[key]) for key in value)
    return type(value) is type(there) and bool(value == there)


# Where a name stands in a class


def _keys(base: Mapping[str, Any], spot: _Spot) -> dict[str, str]:
    """The file's keys by the names that the class gives them."""
    names = spot.keys if isinstance(spot, ClassPlan) else {}
    found: dict[str, str] = {}
    for key in base:
        found.setdefault(names.get(key, key), key)
    return found


def _below(spot: _Spot, name: str) -> _Spot:
    if isinstance(spot, ClassPlan):
        return spot.fields.get(name)
    return spot.item if spot is not None else None


def _as_class(spot: _Spot, data: Mapping[str, Any], wish: Mapping[str, Any]) -> _Spot:
    """The class of a mapping, of several the one that it is meant for."""
    if not isinstance(spot, FieldPlan) or not spot.models:
        return spot
    values = {name: each.value if isinstance(each, Leaf) else each for name, each in wish.items()}
    plain = {key: each.value if isinstance(each, Leaf) else each for key, each in data.items()}
    return spot.model_for(values) or spot.model_for(plain)


def _spelling(spot: _Spot, name: str) -> str:
    """The key that the class itself takes for a field: its alias, where it knows no other."""
    if not isinstance(spot, ClassPlan) or name not in spot.fields:
        return name
    settings = spot.config_class.model_config
    if settings.get("populate_by_name") or settings.get("validate_by_name"):
        return name
    info = spot.config_class.model_fields[name]
    if info.alias is None and info.validation_alias is None:
        return name
    return next(iter(spot.aliases_of(name)[1:]), name)


def _reaches_below(spot: _Spot, key: str) -> bool:
    """Whether an alias path of the class reaches below a key, which then is no field's name."""
    return isinstance(spot, ClassPlan) and key in spot.open_keys
