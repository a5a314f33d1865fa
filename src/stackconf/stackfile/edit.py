r"""Surgical edits of a YAML text: only what changes is written, every other byte stays.

A text is read once more as events, whose marks say where each key and each value stands. A `Patch`
names what is to be put or dropped; each change becomes a replacement of a few characters or an
insertion of a few lines. Quotes, comments, indentation, long lines and line ends elsewhere are not
touched, which no library that loads and dumps can promise.

What an alias repeats is written out where a change would otherwise reach its other places.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import yaml
from attrs import define, field, frozen
from yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from stackconf.errors import InvalidConfig
from stackconf.types import Issue

PathPart: TypeAlias = str | int

_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STEP = 2
_FLOW_WIDTH: Final = 2**30
_COMMENT = re.compile(r"(?:^|(?<=[ \t\n]))#[^\r\n]*")


@frozen
class Put:
    """A value to stand at a place, plain data."""

    value: Any = field(repr=False)


@frozen
class Drop:
    """A key or an item that goes."""


DROP: Final = Drop()

Patch: TypeAlias = "dict[PathPart, Patch | Put | Drop]"
"""By key, or by place in a list (a place after its end appends), what changes there or below."""


def patched(data: Any, patch: Patch) -> Any:
    """The data with a patch applied; what it does not touch is shared.

    >>> patched({"a": {"x": 1, "y": 2}, "b": [1]}, {"a": {"x": Put(3), "y": DROP}, "b": {1: Put(2)}})
    {'a': {'x': 3}, 'b': [1, 2]}
    """
    if isinstance(data, list):
        items = list(data)
        for place, change in sorted(patch.items(), key=lambda each: int(each[0])):
            old = items[int(place)] if int(place) < len(items) else None
            new = _changed(old, change)
            if int(place) < len(items):
                items[int(place)] = new
            else:
                items.append(new)
        return [item for item in items if item is not DROP]
    new = dict(data) if isinstance(data, Mapping) else {}
    for key, change in patch.items():
        value = _changed(new.get(key), change)
        if value is DROP:
            new.pop(key, None)
        else:
            new[key] = value
    return new


def _changed(old: Any, change: Patch | Put | Drop) -> Any:
    if isinstance(change, Put):
        return change.value
    return DROP if isinstance(change, Drop) else patched(old, change)


def edited(text: str, data: Any, patch: Patch) -> str:
    r"""The text with a patch applied. `data` is what the text says, as the loader reads it.

    >>> text = "a:  # one\n  x: 'old'   # keep\nb: [1, 2]\n"
    >>> data = {"a": {"x": "old"}, "b": [1, 2]}
    >>> print(edited(text, data, {"a": {"x": Put("0123"), "y": Put({"z": [True]})}, "b": DROP}), end="")
    a:  # one
      x: '0123'   # keep
      y:
        z:
        - true
    """
    mark = text[:1] if text.startswith("\ufeff") else ""
    return mark + _Editor(text.removeprefix("\ufeff"), data).run(patch)


def replaced_scalars(text: str, values: Mapping[tuple[PathPart, ...], str]) -> str:
    """The text with other scalars at these paths, wherever an alias leads; collections stay."""
    mark = text[:1] if text.startswith("\ufeff") else ""
    return mark + _Editor(text.removeprefix("\ufeff"), None).replace_scalars(values)


def recommented(text: str, change: Any) -> str:
    r"""The text with each comment as `change` returns it.

    >>> recommented("a: '# no'  # yes\n", str.upper)
    "a: '# no'  # YES\n"
    """
    mark = text[:1] if text.startswith("\ufeff") else ""
    text = text.removeprefix("\ufeff")
    found = []
    last = 0
    for start, end in (*_scalar_spans(text), (len(text), len(text))):
        found += [(match.start(), match.end()) for match in _COMMENT.finditer(text, last, start)]
        last = max(last, end)
    pieces, last = [], 0
    for start, end in found:
        pieces += [text[last:start], change(text[start:end])]
        last = end
    return mark + "".join(pieces) + text[last:]


def _scalar_spans(text: str) -> list[tuple[int, int]]:
    events: list[Any] = [each for each in yaml.parse(text, Loader=_LOADER) if isinstance(each, ScalarEvent)]
    return [(event.start_mark.index, event.end_mark.index) for event in events]


# Where everything stands


@define(eq=False)
class _Spot:
    """One node of the text: its place, in characters, and what is below."""

    kind: str
    start: int
    end: int
    """Behind its last character; without the comments and blank lines that follow."""
    flow: bool = False
    anchor: str = ""
    pairs: list[tuple[_Spot, _Spot]] = field(factory=list)
    items: list[_Spot] = field(factory=list)
    name: str = ""
    """A scalar's text, or the anchor that an alias means."""

    def value_of(self, key: PathPart) -> tuple[_Spot | None, _Spot] | None:
        """The key's spot and the value's, of the keys that stand here."""
        if self.kind == "list" and isinstance(key, int):
            return (None, self.items[key]) if key < len(self.items) else None
        found = [pair for pair in self.pairs if pair[0].name == key]
        return found[-1] if found else None

    def parts(self) -> list[_Spot]:
        """What stands directly below."""
        return [part for pair in self.pairs for part in pair] + self.items


class _Reader:
    """Events into spots; nesting was limited when the text was first read."""

    def __init__(self, text: str) -> None:
        self._text = text
        loader = _LOADER(text.encode())
        self._next = loader.get_event
        self.aliases: dict[str, list[_Spot]] = {}
        self.anchors: dict[str, _Spot] = {}

    def root(self) -> _Spot:
        self._next()  # the stream's start
        self._next()  # the document's
        return self._spot(self._next())

    def _spot(self, event: Any) -> _Spot:
        start, end = event.start_mark.index, event.end_mark.index
        anchor = getattr(event, "anchor", None) or ""
        if isinstance(event, AliasEvent):
            spot = _Spot("alias", start, end, name=anchor)
            self.aliases.setdefault(anchor, []).append(spot)
            return spot
        if isinstance(event, ScalarEvent):
            if event.style in {"|", ">"}:
                head = self._text[start : self._text.find("\n", start)]
                end = end if "+" in head else start + len(self._text[start:end].rstrip())
            spot = _Spot("scalar", start, end, anchor=anchor, name=event.value)
        elif isinstance(event, MappingStartEvent):
            spot = self._mapping(event, start, anchor)
        else:
            spot = self._list(event, start, anchor)
        if anchor:
            self.anchors[anchor] = spot
        return spot

    def _mapping(self, event: Any, start: int, anchor: str) -> _Spot:
        spot = _Spot("mapping", start, start, flow=bool(event.flow_style), anchor=anchor)
        while not isinstance(event := self._next(), MappingEndEvent):
            key = self._spot(event)
            spot.pairs.append((key, self._spot(self._next())))
        return self._ended(spot, event)

    def _list(self, event: Any, start: int, anchor: str) -> _Spot:
        assert isinstance(event, SequenceStartEvent)  # noqa: S101 (what else a document may hold)
        spot = _Spot("list", start, start, flow=bool(event.flow_style), anchor=anchor)
        while not isinstance(event := self._next(), SequenceEndEvent):
            spot.items.append(self._spot(event))
        return self._ended(spot, event)

    def _ended(self, spot: _Spot, event: Any) -> _Spot:
        last = spot.parts()[-1:]
        spot.end = event.end_mark.index if spot.flow or not last else last[0].end
        return spot


# Changes


@define(eq=False)
class _Editor:
    """Turns a patch into replacements of spans of one text."""

    text: str
    data: Any
    _found: list[tuple[int, int, int, str]] = field(factory=list)
    """Each replacement: where it begins, what goes first there, where it ends, and the new text."""
    _reader: _Reader = field(init=False)
    _root: _Spot = field(init=False)
    _newline: str = field(init=False)
    _expanded: set[str] = field(factory=set)

    def __attrs_post_init__(self) -> None:
        self._reader = _Reader(self.text)
        self._root = self._reader.root()
        self._newline = "\r\n" if "\r\n" in self.text else "\n"

    def run(self, patch: Patch) -> str:
        if self._root.kind != "mapping":
            raise InvalidConfig.of([Issue("this text cannot be edited: it is no mapping")])
        self._patch(self._root, self.data, patch, None)
        return self._result()

    def replace_scalars(self, values: Mapping[tuple[PathPart, ...], str]) -> str:
        done: set[int] = set()
        for path, value in values.items():
            spot, flow = self._at(path)
            if spot is not None and spot.kind == "scalar" and id(spot) not in done:
                done.add(id(spot))
                keep = f"&{spot.anchor} " if spot.anchor else ""
                self._replace(spot.start, spot.end, keep + scalar_text(value, flow=flow))
        return self._result()

    def _at(self, path: tuple[PathPart, ...]) -> tuple[_Spot | None, bool]:
        """The spot at a path, through aliases and `<<`, and whether it stands in braces or brackets."""
        spot, flow = self._root, False
        for part in path:
            spot = self._reader.anchors[spot.name] if spot.kind == "alias" else spot
            flow = spot.flow
            found = self._lookup(spot, part)
            if found is None:
                return None, flow
            spot, flow = found[0], flow or found[1]
        return (self._reader.anchors[spot.name] if spot.kind == "alias" else spot), flow

    def _lookup(self, spot: _Spot, part: PathPart) -> tuple[_Spot, bool] | None:
        found = spot.value_of(part)
        if found is not None:
            return found[1], spot.flow
        for key, value in spot.pairs:
            if key.name != "<<":
                continue
            for each in value.items if value.kind == "list" else [value]:
                source = self._reader.anchors[each.name] if each.kind == "alias" else each
                inner = self._lookup(source, part)
                if inner is not None:
                    return inner
        return None

    def _result(self) -> str:
        pieces: list[str] = []
        last = 0
        for start, _, end, new in sorted(self._found, key=lambda each: each[:3]):
            if start < last:  # within something that was replaced as a whole
                continue
            pieces += [self.text[last:start], new]
            last = end
        return "".join(pieces) + self.text[last:]

    def _replace(self, start: int, end: int, new: str, *, rank: int = 0) -> None:
        self._found.append((start, rank, end, new))

    # Walking

    def _patch(self, spot: _Spot, data: Any, patch: Patch, key: _Spot | None) -> None:
        """Apply a patch to a collection that stands in the text."""
        self._write_out(spot, data)
        dropped = [part for part, change in patch.items() if isinstance(change, Drop)]
        if spot.kind == "list":
            self._patch_list(spot, data, patch, dropped, key)
        elif dropped and not self._droppable(spot, dropped):
            self._put(spot, data, patched(data, patch), key, flow=spot.flow)
        else:
            self._patch_mapping(spot, data, patch)

    def _patch_mapping(self, spot: _Spot, data: Any, patch: Patch) -> None:
        added: dict[PathPart, Any] = {}
        for part, change in patch.items():
            found = spot.value_of(part)
            if isinstance(change, Drop):
                if found is not None:
                    self._write_out(found[1], data[part], whole=True)
                    self._drop_lines(found[0] or found[1], found[1])
            elif found is None:
                below = data.get(part) if isinstance(data, Mapping) else None
                added[part] = _changed(below, change)
            else:
                self._change(found[1], found[0], data[part], change, flow=spot.flow)
        if added:
            self._add_pairs(spot, added)

    def _change(self, spot: _Spot, key: _Spot | None, data: Any, change: Patch | Put, *, flow: bool) -> None:
        if isinstance(change, Put):
            self._put(spot, data, change.value, key, flow=flow)
        elif spot.kind in {"alias", "scalar"} or not spot.parts():
            self._put(spot, data, patched(data, change), key, flow=flow)
        else:
            self._patch(spot, data, change, key)

    def _patch_list(
        self, spot: _Spot, data: Any, patch: Patch, dropped: list[PathPart], key: _Spot | None
    ) -> None:
        count = len(spot.items)
        resized = dropped or any(int(part) >= count for part in patch)
        if (spot.flow and resized) or len(dropped) == count or (dropped and not self._has_own_lines(spot)):
            self._put(spot, data, patched(data, patch), key, flow=spot.flow)
            return
        for part, change in patch.items():
            place = int(part)
            if isinstance(change, Drop):
                self._write_out(spot.items[place], data[place], whole=True)
                self._drop_item(spot, place)
            elif place < count:
                self._change(spot.items[place], None, data[place], change, flow=spot.flow)
        new = [_changed(None, change) for part, change in sorted(patch.items()) if int(part) >= count]
        if new:
            self._insert_lines(spot.end, _block(new, self._dash_column(spot)))

    # Single changes

    def _put(self, spot: _Spot, data: Any, value: Any, key: _Spot | None, *, flow: bool) -> None:
        """Let a value stand where a spot is."""
        self._write_out(spot, data, whole=True)
        if flow or key is None:
            self._put_text(spot, key, flow_text(value))
        elif not (isinstance(value, (dict, list)) and value):
            self._put_text(spot, key, scalar_text(value))
        else:
            self._put_block(spot, key, value)

    def _put_text(self, spot: _Spot, key: _Spot | None, new: str) -> None:
        end = self._visible_end(spot)
        if spot.start == spot.end:  # an empty value
            space = "" if self.text[spot.start - 1] == " " else " "
            self._replace(spot.start, spot.start, space + new)
            return
        if key is not None and not spot.flow and spot.kind in {"mapping", "list"}:
            colon = self.text.index(":", key.end) + 1
            self._replace(colon, colon, f" {new}")
            line_end = self._line_end(colon)
            if spot.start >= line_end:
                self._replace(line_end, self._line_end(spot.end), "")
                return
            self._replace(colon, end, "")
            return
        self._replace(spot.start, end, new)

    def _put_block(self, spot: _Spot, key: _Spot, value: Any) -> None:
        column = self._column(key.start) + (_STEP if isinstance(value, dict) else 0)
        colon = self.text.index(":", key.end) + 1
        line_end = self._line_end(colon)
        if spot.start >= line_end:  # it stands below its key
            own = self._column(spot.start) if spot.kind != "scalar" else column
            lines = _block(value, max(own, column) if isinstance(value, dict) else own)
            start = self.text.rfind("\n", 0, spot.start) + 1
            self._replace(start, self._line_end(spot.end), self._joined(lines, spot.end))
            return
        end = self._visible_end(spot)
        if spot.start != spot.end:
            self._replace(len(self.text[: spot.start].rstrip(" ")), end, "")
        self._insert_lines(end, _block(value, column))

    def _add_pairs(self, spot: _Spot, added: dict[PathPart, Any]) -> None:
        if spot.flow:
            at = spot.pairs[-1][1].end if spot.pairs else spot.start + 1
            text = ", ".join(flow_text({part: value})[1:-1] for part, value in added.items())
            self._replace(at, at, f", {text}" if spot.pairs else text)
            return
        self._insert_lines(spot.end, _block(added, self._column(spot.pairs[0][0].start)))

    def _drop_lines(self, first: _Spot, last: _Spot) -> None:
        start = self.text.rfind("\n", 0, first.start) + 1
        self._replace(start, self._line_end(last.end), "")

    def _droppable(self, spot: _Spot, dropped: list[PathPart]) -> bool:
        """Whether these keys can go by taking away whole lines."""
        starts = [found[0].start for part in dropped if (found := spot.value_of(part)) and found[0]]
        if spot.flow or len(starts) < len(dropped) or len(starts) == len(spot.pairs):
            return False
        return all(not self.text[self.text.rfind("\n", 0, start) + 1 : start].strip(" ") for start in starts)

    def _drop_item(self, spot: _Spot, place: int) -> None:
        column = self._dash_column(spot)
        start = self._dash(spot.items[place].start, column)
        following = spot.items[place + 1].start if place + 1 < len(spot.items) else None
        end = self._line_end(spot.items[place].end) if following is None else self._dash(following, column)
        if following is not None:  # comments between the two belong to the next one
            end = min(end, self._line_end(spot.items[place].end))
        self._replace(start, end, "")

    def _has_own_lines(self, spot: _Spot) -> bool:
        """Whether the first item's dash is the first thing on its line."""
        dash = self.text.rfind("-", 0, spot.items[0].start)
        return not self.text[self.text.rfind("\n", 0, dash) + 1 : dash].strip(" ")

    def _dash_column(self, spot: _Spot) -> int:
        return self._column(self.text.rfind("-", 0, spot.items[0].start))

    def _dash(self, start: int, column: int) -> int:
        """The start of the line on which an item's dash is."""
        line = self.text.rfind("\n", 0, start) + 1
        while self.text[line : line + column + 1] != " " * column + "-" and line > 0:
            line = self.text.rfind("\n", 0, line - 1) + 1
        return line

    # Aliases

    def _write_out(self, spot: _Spot, data: Any, *, whole: bool = False) -> None:
        """Before a place changes: what aliases repeat of it is written out where they stand."""
        if spot.anchor and spot.anchor not in self._expanded and spot.anchor in self._reader.aliases:
            self._expanded.add(spot.anchor)
            for alias in self._reader.aliases[spot.anchor]:
                self._replace(alias.start, alias.end, flow_text(data), rank=1)
        if not whole:
            return
        if spot.kind == "list":
            for item, value in zip(spot.items, data, strict=True):
                self._write_out(item, value, whole=True)
        for key, value in spot.pairs:
            if key.name != "<<" and isinstance(data, Mapping) and key.name in data:
                self._write_out(value, data[key.name], whole=True)

    # Lines

    def _visible_end(self, spot: _Spot) -> int:
        return spot.start + len(self.text[spot.start : spot.end].rstrip())

    def _column(self, at: int) -> int:
        return at - (self.text.rfind("\n", 0, at) + 1)

    def _line_end(self, at: int) -> int:
        """The start of the next line."""
        if at and self.text[at - 1] == "\n":
            return at
        end = self.text.find("\n", at)
        return len(self.text) if end < 0 else end + 1

    def _insert_lines(self, after: int, lines: list[str]) -> None:
        at = self._line_end(after)
        self._replace(at, at, self._joined(lines, at))

    def _joined(self, lines: list[str], after: int) -> str:
        at = self._line_end(after)
        ended = at < len(self.text) or self.text.endswith("\n")
        text = self._newline.join(lines)
        return text + self._newline if ended else self._newline + text


# Values as text


class _Dumper(yaml.SafeDumper):
    """Plain data, each text on one line."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> Any:
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _dumped(value: Any, *, flow: bool) -> str:
    return yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=flow,
        sort_keys=False,
        allow_unicode=True,
        width=_FLOW_WIDTH,
    )


def flow_text(value: Any) -> str:
    """A value on one line, as it may stand within brackets.

    >>> flow_text({"a": ["x, y", None]}), flow_text("${env.X}")
    ("{a: ['x, y', null]}", "'${env.X}'")
    """
    return _dumped([value], flow=True).strip()[1:-1]


def scalar_text(value: Any, *, flow: bool = False) -> str:
    """A scalar (or an empty collection) as it may stand after a key.

    >>> [scalar_text(each) for each in ("${env.X}", "yes", "0123", "a: b", 12, None, {})]
    ['${env.X}', "'yes'", "'0123'", "'a: b'", '12', 'null', '{}']
    """
    if flow:
        return flow_text(value)
    return _dumped({"k": value}, flow=False).removeprefix("k:").strip()


def _block(value: Any, column: int) -> list[str]:
    return [" " * column + line for line in _dumped(value, flow=False).splitlines()]
