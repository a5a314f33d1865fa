"""What a person hands over to be registered: read from any of its forms into one.

A mapping, JSON text, YAML text, or the path of such a file; with or without the top `providers:`
key; in the stack file's shape, `{api: [{provider_id, provider_type, config}]}`. Nothing is
expanded here: a reference such as `${env.KEY}` is kept as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from attrs import field, frozen

from stackconf.errors import InvalidConfig
from stackconf.stackfile.load import MAX_DEPTH, path_text
from stackconf.suggest import did_you_mean
from stackconf.types import Issue, Position

if TYPE_CHECKING:
    from stackconf.stackfile.load import Document


@frozen
class Text:
    """The text of a file that is elsewhere, and the file's name there, for the positions."""

    data: bytes
    name: str


Source: TypeAlias = Mapping[str, Any] | str | bytes | os.PathLike[str] | Text

OnDropped: TypeAlias = Literal["warn", "error", "ignore"]

_LONGEST_NAME = 200
_ENTRY_KEYS = ("provider_id", "provider_type", "config")
_SHAPE = "write `{api: [{provider_id: …, config: {…}}]}`"
_MAX_BITS = 3500
"""About a thousand digits, as in a file."""
_PATH_SUFFIXES = (".yaml", ".yml", ".json")


@frozen
class Entry:
    """What a configuration says of one provider. `provider_type` may be empty: then the stack's."""

    api: str
    provider_id: str
    provider_type: str
    config: Mapping[str, Any] = field(repr=False)
    path: tuple[str | int, ...] = ()

    @property
    def key(self) -> str:
        """`api/provider_id`."""
        return f"{self.api}/{self.provider_id}"


@frozen
class Given:
    """A configuration as it was handed over. `ignored` lists top-level keys that do not count."""

    entries: tuple[Entry, ...]
    ignored: tuple[Issue, ...] = ()
    document: Document | None = None

    def where(self, entry: Entry, path: tuple[str | int, ...]) -> Position | None:
        """Where the text says it, if it was text."""
        if self.document is None:
            return None
        whole = (*entry.path, "config", *path)
        for length in range(len(whole), len(entry.path), -1):
            found = self.document.position(whole[:length], key=isinstance(whole[length - 1], str))
            if found is not None:
                return found
        return self.document.position(entry.path)


def read_configuration(source: Source, *, name: str = "configuration") -> Given:
    """The configuration in any of its forms. Raises `InvalidConfig` with every issue of its shape.

    >>> given = read_configuration('{"inference": [{"provider_id": "ollama", "config": {"url": "x"}}]}')
    >>> given.entries[0].key, given.entries[0].config
    ('inference/ollama', {'url': 'x'})
    """
    data, document = _parsed(source, name)
    reader = _Reader(document)
    entries, ignored = reader.read(data)
    if reader.issues:
        raise InvalidConfig.of(reader.issues)
    return Given(tuple(entries), tuple(ignored), document)


def _parsed(source: object, name: str) -> tuple[Any, Document | None]:
    from stackconf.stackfile.load import parse, read

    if isinstance(source, Mapping):
        return source, None
    if isinstance(source, Text):
        return _without_issues(parse(source.data, name=source.name))
    if not isinstance(source, (str, bytes, os.PathLike)):
        kind = type(source).__name__
        raise InvalidConfig.of([Issue(f"a configuration is a mapping, a text or a path, not {kind}")])
    if isinstance(source, os.PathLike) or (isinstance(source, str) and is_path(source)):
        return _without_issues(read(Path(source)))
    return _without_issues(parse(source, name=f"<{name}>"))


def _without_issues(document: Document) -> tuple[Any, Document]:
    if document.issues:
        raise InvalidConfig.of(document.issues)
    return document.data, document


def refuse_name(name: object) -> None:
    """Raise `InvalidConfig` for what cannot be a configuration's name."""
    fine = isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name.isprintable()
    if not fine or str(name).strip() != name:
        problem = f"a configuration's name is one line of 1 to {_LONGEST_NAME} characters"
        raise InvalidConfig(f"{problem}, without spaces around it")


def refuse_on_dropped(value: object) -> None:
    """Raise `InvalidConfig` for what `on_dropped` cannot be."""
    known = get_args(OnDropped)
    if value not in known:
        raise InvalidConfig(f"on_dropped is one of {', '.join(known)}, not {value!r}")


def is_path(text: str) -> bool:
    """Whether a text is the name of a file rather than a configuration."""
    if not text.strip() or "\n" in text or text.lstrip()[:1] in {"{", "["}:
        return False
    if text.endswith(_PATH_SUFFIXES):
        return True
    try:
        return Path(text).exists()
    except OSError:  # too long for a name
        return False


class _Reader:
    def __init__(self, document: Document | None) -> None:
        self.issues: list[Issue] = []
        self._document = document

    def read(self, data: Any) -> tuple[list[Entry], list[Issue]]:
        data = self._plain(data, ())
        if self.issues:
            return [], []
        if not isinstance(data, Mapping):
            self._wrong((), f"a configuration is a mapping of apis, not {_kind(data)}", _SHAPE)
            return [], []
        ignored: list[Issue] = []
        root: tuple[str, ...] = ()
        if "providers" in data:
            ignored = [self._ignored(key) for key in data if key != "providers"]
            data, root = data["providers"], ("providers",)
            if not isinstance(data, Mapping):
                self._wrong(root, f"`providers` is a mapping of apis, not {_kind(data)}", _SHAPE)
                return [], ignored
        entries = [
            entry for api, listed in data.items() for entry in self._api(str(api), listed, (*root, api))
        ]
        self._check_duplicates(entries)
        return entries, ignored

    def _api(self, api: str, listed: Any, path: tuple[Any, ...]) -> Iterator[Entry]:
        if not isinstance(listed, list):
            self._wrong(path, f"`{api}` is a list of providers, not {_kind(listed)}", _api_hint(api))
            return
        for index, item in enumerate(listed):
            entry = self._entry(api, item, (*path, index))
            if entry is not None:
                yield entry

    def _entry(self, api: str, item: Any, path: tuple[Any, ...]) -> Entry | None:
        if not isinstance(item, Mapping):
            self._wrong(path, f"a provider is a mapping, not {_kind(item)}", "write `provider_id: …`")
            return None
        for key in item:
            if key not in _ENTRY_KEYS:
                hint = did_you_mean(str(key), _ENTRY_KEYS) or f"a provider has {', '.join(_ENTRY_KEYS)}"
                self._wrong((*path, key), f"unknown key `{key}`", hint)
        provider_id = self._text(item, "provider_id", path)
        provider_type = self._text(item, "provider_type", path)
        config = item.get("config")
        config = {} if config is None else config
        if not isinstance(config, Mapping):
            where = (*path, "config")
            self._wrong(where, f"`config` is a mapping of fields, not {_kind(config)}", "write `name: value`")
        elif provider_id:
            return Entry(api, provider_id, provider_type or "", config, path)
        elif provider_id == "" and not any("`provider_id`" in issue.hint for issue in self.issues):
            self._wrong(path, "a provider has no `provider_id`", "say which provider is meant")
        return None

    def _text(self, item: Mapping[str, Any], key: str, path: tuple[Any, ...]) -> str | None:
        """The text of a provider's key, empty where it is not given, `None` where it is no text."""
        value = item.get(key)
        if value is None:
            return ""
        if isinstance(value, str) and value.isprintable():
            return value
        kind = "text of several lines" if isinstance(value, str) else _kind(value)
        self._wrong((*path, key), f"`{key}` is one line of text, not {kind}", "put it in quotes")
        return None

    def _check_duplicates(self, entries: list[Entry]) -> None:
        seen: set[str] = set()
        for entry in entries:
            if entry.key in seen:
                self._wrong(entry.path, f"`{entry.key}` is given twice", "give each provider once")
            seen.add(entry.key)

    def _ignored(self, key: object) -> Issue:
        return Issue(
            f"top-level key `{key}` ignored",
            level="ignored",
            hint="only `providers` is registered",
            code="ignored-key",
            where=self._where((str(key),)),
        )

    def _wrong(self, path: tuple[Any, ...], message: str, hint: str = "") -> None:
        where = self._where(path)
        self.issues.append(Issue(message, path=path_text(path), hint=hint, code="wrong-shape", where=where))

    def _plain(self, value: Any, path: tuple[Any, ...]) -> Any:
        """The value as data that a store can keep: texts, numbers, booleans, nulls, lists, mappings."""
        if len(path) > MAX_DEPTH:
            raise InvalidConfig.of([Issue(f"nested more than {MAX_DEPTH} levels deep", code="too-deep")])
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str) or not key.isprintable():
                    self._wrong(path, f"a key is {_key(key)}", "give it a name of one line")
            return {key: self._plain(inner, (*path, key)) for key, inner in value.items() if type(key) is str}
        if isinstance(value, (list, tuple)):
            return [self._plain(inner, (*path, index)) for index, inner in enumerate(value)]
        if isinstance(value, str):
            return str(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, (int, float)) and (isinstance(value, float) or value.bit_length() <= _MAX_BITS):
            return value
        problem = (
            "too large a number" if isinstance(value, int) else f"{_kind(value)}, which is no plain data"
        )
        self._wrong(path, f"this is {problem}", "put it in quotes if it is text")
        return None

    def _where(self, path: tuple[Any, ...]) -> Position | None:
        return self._document.position(path) if self._document is not None else None


def _key(key: object) -> str:
    return "more than one line" if isinstance(key, str) else f"{_kind(key)}, not text"


def _api_hint(api: str) -> str:
    keys = (*_ENTRY_KEYS, "providers")
    near = did_you_mean(api, keys)
    return near or _SHAPE


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, str)):
        return "a list" if isinstance(value, list) else "text"
    if isinstance(value, date):
        return "a date"
    return f"`{value}`" if isinstance(value, (int, float)) else f"an object of type {type(value).__name__}"
