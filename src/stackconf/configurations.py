"""What a person hands over to be registered: read from any of its forms into one.

A mapping, JSON text, YAML text, or the path of such a file; with or without the top `providers:`
key; in the stack file's shape, `{api: [{provider_id, provider_type, config}]}`. Nothing is
expanded here: a reference such as `${env.KEY}` is kept as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import frozen

from stackconf.errors import InvalidConfig
from stackconf.resolve.layers import plain
from stackconf.suggest import did_you_mean
from stackconf.types import Issue, Position

if TYPE_CHECKING:
    from stackconf.stackfile.load import Document

Source: TypeAlias = Mapping[str, Any] | str | bytes | os.PathLike[str]

_ENTRY_KEYS = ("provider_id", "provider_type", "config")
_PATH_SUFFIXES = (".yaml", ".yml", ".json")


@frozen
class Entry:
    """What a configuration says of one provider. `provider_type` may be empty: then the stack's."""

    api: str
    provider_id: str
    provider_type: str
    config: Mapping[str, Any]
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
        return self.document.position(whole, key=isinstance(whole[-1], str))


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


def _parsed(source: Source, name: str) -> tuple[Any, Document | None]:
    from stackconf.stackfile.load import parse, read

    if isinstance(source, Mapping):
        return plain(source), None
    if isinstance(source, os.PathLike) or (isinstance(source, str) and _is_path(source)):
        document = read(Path(source))
    else:
        document = parse(source.encode() if isinstance(source, str) else source, name=f"<{name}>")
    if document.issues:
        raise InvalidConfig.of(document.issues)
    return document.data, document


def _is_path(text: str) -> bool:
    if "\n" in text or text.lstrip()[:1] in {"{", "["}:
        return False
    return text.endswith(_PATH_SUFFIXES) or Path(text).exists()


class _Reader:
    def __init__(self, document: Document | None) -> None:
        self.issues: list[Issue] = []
        self._document = document

    def read(self, data: Any) -> tuple[list[Entry], list[Issue]]:
        if not isinstance(data, Mapping):
            self._wrong((), f"a configuration is a mapping of apis, not {_kind(data)}")
            return [], []
        ignored: list[Issue] = []
        root: tuple[str, ...] = ()
        if "providers" in data:
            ignored = [self._ignored(key) for key in data if key != "providers"]
            data, root = data["providers"], ("providers",)
            if not isinstance(data, Mapping):
                self._wrong(root, f"`providers` is a mapping of apis, not {_kind(data)}")
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
            self._wrong(path, f"a provider is a mapping, not {_kind(item)}")
            return None
        for key in item:
            if key not in _ENTRY_KEYS:
                hint = did_you_mean(str(key), _ENTRY_KEYS) or f"a provider has {', '.join(_ENTRY_KEYS)}"
                self._wrong((*path, key), f"unknown key `{key}`", hint)
        provider_id = item.get("provider_id")
        provider_type = item.get("provider_type") or ""
        config = item.get("config")
        config = {} if config is None else config
        if not isinstance(provider_id, str) or not provider_id:
            self._wrong(path, f"a provider of `{api}` has no provider_id", "say which provider is meant")
            return None
        if not isinstance(provider_type, str):
            self._wrong((*path, "provider_type"), f"provider_type is text, not {_kind(provider_type)}")
            return None
        if not isinstance(config, Mapping):
            self._wrong((*path, "config"), f"`config` is a mapping of fields, not {_kind(config)}")
            return None
        return Entry(api, provider_id, provider_type, config, path)

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
        self.issues.append(Issue(message, hint=hint, code="wrong-shape", where=self._where(path)))

    def _where(self, path: tuple[Any, ...]) -> Position | None:
        return self._document.position(path) if self._document is not None else None


def _api_hint(api: str) -> str:
    keys = (*_ENTRY_KEYS, "providers")
    near = did_you_mean(api, keys)
    return near or "write `{api: [{provider_id: …, config: {…}}]}`"


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    return (
        "a list" if isinstance(value, list) else f"`{value}`" if isinstance(value, (int, float)) else "text"
    )
