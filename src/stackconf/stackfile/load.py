"""Bytes to plain data: YAML 1.1's safe subset, with limits, and positions on demand.

The parser's *events* are turned into dictionaries and lists directly, by a loop that does not
recurse: nesting, size and alias expansion are counted on the way, so that no input can overflow the
stack (libyaml's composer crashes the process on deep nesting) or fill the memory, and no node
objects are built. A position is wanted only when something is wrong; then, and only then, the node
graph is composed, of a text that is by now known to be harmless.

Typed values (`true`, `12`, `2024-01-31`, `on`) are what PyYAML's safe loader makes of them. The
text a person typed stays within reach: `Document.raw_text`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import yaml
from attrs import define, evolve, field, frozen
from yaml.constructor import SafeConstructor
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.resolver import Resolver

from stackconf.errors import InvalidConfig
from stackconf.types import Issue, Position

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_BYTES: Final = 8 * 1024 * 1024
"""The largest file that is read; the largest real one seen has 50 KB."""
MAX_DEPTH: Final = 100
"""How deep mappings and lists may be nested."""
MAX_NODES: Final = 500_000
"""How many keys, values and collections a file may hold (about 12 000 providers)."""
MAX_ALIASED_NODES: Final = 100_000
"""How many nodes aliases (`*name`) may add."""
MAX_TAG_DIRECTIVES: Final = 64
"""libyaml takes quadratic time over `%TAG` lines."""
MAX_NUMBER_LENGTH: Final = 1000
"""A longer plain value is text: building a number of it could take very long."""

MAX_ISSUES: Final = 10_000
"""How many issues of one file are gathered."""

PathPart = str | int
_Trail = tuple["_Trail | None", PathPart]
"""A path from its end: what is above, and the last part."""

_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG_PREFIX = "tag:yaml.org,2002:"
_IMPLICIT: dict[str, list[tuple[str, re.Pattern[str]]]] = Resolver.yaml_implicit_resolvers
_TYPED_TAGS = frozenset(_TAG_PREFIX + kind for kind in ("null", "bool", "int", "float", "timestamp"))
_SCALAR_TAGS = _TYPED_TAGS | {_TAG_PREFIX + "binary"}
_TEXT_TAGS = ("!", _TAG_PREFIX + "str", _TAG_PREFIX + "value")
_MAP_TAGS = frozenset((None, "!", _TAG_PREFIX + "map"))
_SEQ_TAGS = frozenset((None, "!", _TAG_PREFIX + "seq"))
_MERGE_TAG = _TAG_PREFIX + "merge"
_NOT_PRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

_HINTS = (
    ("mapping values are not allowed", "check the indentation, and quote a value that holds `: `"),
    ("could not find expected ':'", "a `:` is missing, or a quote is not closed"),
    ("tab character", "use spaces instead of tabs"),
    ("did not find expected key", "check the indentation of this line and of those before it"),
    ("expected <block end>", "check the indentation of this line and of those before it"),
    ("did not find expected '-'", "check the indentation of this line and of those before it"),
    ("block sequence entries are not allowed", "put the list on its own line, below its key"),
    ("expected ',' or", "a bracket or a comma is missing"),
    ("unknown escape character", "write `\\\\` for a backslash, or use single quotes"),
    ("did not find expected node content", "a value or a bracket is missing"),
    ("unexpected end of stream", "a quote is not closed"),
)


_KINDS = {
    "bool": "a boolean",
    "int": "a number",
    "float": "a number",
    "timestamp": "a date",
    "null": "a null",
}


class _Marker:
    """A value that no file can hold."""

    __slots__ = ()


_NO_KEY: Final = _Marker()
_MERGE: Final = _Marker()


@frozen(eq=False)
class Document:
    r"""One YAML file as plain data.

    `data` is what the file says, as dictionaries, lists and scalars; read it, never change it
    (parts that an alias repeats are the same object). `references` are the texts that hold
    `${`, for telling the environment grammar. `issues` are the problems that do not keep the file
    from being read. `digest` is the SHA-256 of the bytes, in hex.

    >>> document = parse(b"providers:\n  inference: []\n", name="stack.yaml")
    >>> document.data
    {'providers': {'inference': []}}
    >>> str(document.position(["providers", "inference"]))
    'stack.yaml:2:14'
    >>> str(document.position(["providers", "inference"], key=True))
    'stack.yaml:2:3'
    """

    name: str
    data: Any = field(repr=False)
    digest: str
    references: tuple[str, ...] = field(repr=False, default=())
    issues: tuple[Issue, ...] = ()
    _graph: _Graph | None = field(repr=False, default=None, alias="graph")

    @property
    def text(self) -> str:
        """The whole text; a byte order mark stays."""
        return self._graph.text if self._graph else ""

    def position(self, path: Sequence[PathPart], *, key: bool = False) -> Position | None:
        """Where the value at `path` begins (or its key), or `None` where there is no such value."""
        found = self._graph.find(path) if self._graph else None
        if found is None:
            return None
        key_node, node = found
        return _position(self.name, key_node if key and key_node is not None else node)

    def nearest(self, path: Sequence[PathPart]) -> Position | None:
        """The position of `path`, or of the key of the nearest thing around it that exists."""
        exact = self.position(path)
        if exact is not None:
            return exact
        for length in range(len(path) - 1, -1, -1):
            position = self.position(path[:length], key=True)
            if position is not None:
                return position
        return None

    def raw_text(self, path: Sequence[PathPart]) -> str | None:
        """The text of a plain (unquoted) scalar as it was typed; `None` for anything else.

        >>> document = parse(b"key: 0123", name="stack.yaml")
        >>> document.data["key"], document.raw_text(["key"])
        (83, '0123')
        """
        found = self._graph.find(path) if self._graph else None
        if found is None or not isinstance(found[1], ScalarNode) or found[1].style:
            return None
        text: str = found[1].value
        return text


def read(path: str | os.PathLike[str]) -> Document:
    """Parse the file at `path`. Raises `InvalidConfig` with every reason why it cannot be loaded."""
    return parse(read_bytes(path), name=os.fspath(path))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of the file at `path`, at most one more than a file may have. Raises `InvalidConfig`."""
    name = os.fspath(path)
    try:
        # One byte more than allowed tells a file that is too large from one that just fits.
        with Path(path).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        message, hint = _cannot_read(name, error)
        _refuse(Issue(message, hint=hint, code="unreadable-file"))


def parse(text: bytes | str, *, name: str) -> Document:
    """Parse YAML. `name` stands for the file in positions.

    Raises `InvalidConfig` when nothing can be loaded; what can be lived with is in
    `Document.issues` (a key that stands twice, a key that is no text).
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    digest = hashlib.sha256(data).hexdigest()
    data = _checked_bytes(data, name)
    builder = _Builder(name)
    try:
        builder.run(_LOADER(data).get_event)
    except yaml.reader.ReaderError:
        _refuse(_bad_character(data.decode(), name))
    except yaml.MarkedYAMLError as error:
        _refuse(_syntax_issue(error, data.decode(), name))
    except RecursionError:  # pragma: no cover - only the pure Python scanner could recurse
        _refuse(_too_deep(Position(name, 1, 1)))
    graph = _Graph(data)
    issues = [*builder.issues]
    if builder.odd_keys:
        issues.extend(islice(_key_issues(graph.root, name), MAX_ISSUES))
    issues.sort(key=by_position)
    if builder.fatal:
        _refuse(*issues)
    return Document(
        name=name,
        data=builder.root[0],
        digest=digest,
        references=tuple(builder.references),
        issues=tuple(issues),
        graph=graph,
    )


def by_position(issue: Issue) -> tuple[int, int]:
    """The sort key that puts issues in the order of the file; those without a position come first."""
    return (issue.where.line, issue.where.column) if issue.where else (0, 0)


def _refuse(*issues: Issue) -> NoReturn:
    more = f" (and {len(issues) - 1} more)" if len(issues) > 1 else ""
    raise InvalidConfig(f"{issues[0]}{more}", issues) from None


def _cannot_read(name: str, error: OSError | ValueError) -> tuple[str, str]:
    name = _one_line(name, limit=500)
    if isinstance(error, IsADirectoryError):
        return f"`{name}` is a folder", "give the path of the stack file in it"
    if isinstance(error, FileNotFoundError):
        return f"there is no file `{name}`", "check the path"
    if isinstance(error, PermissionError):
        return f"`{name}` may not be read", "give yourself permission to read it"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"`{name}` cannot be read: {_one_line(reason)}", "check the path"


def _checked_bytes(data: bytes, name: str) -> bytes:
    """The text as UTF-8, or one clear refusal."""
    start = Position(name, 1, 1)
    if len(data) > MAX_BYTES:
        _refuse(
            Issue(
                f"the file is larger than {MAX_BYTES // 1024 // 1024} MiB",
                hint="is this a stack file?",
                code="too-large",
                where=start,
            )
        )
    if data.startswith(_UTF16_MARKS):
        try:
            data = data.decode("utf-16").encode()
        except UnicodeDecodeError:
            _refuse(
                Issue(
                    "the file begins as UTF-16 but is not",
                    hint="save it as UTF-8",
                    code="bad-encoding",
                    where=start,
                )
            )
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        good = data[: error.start].decode("utf-8")
        _refuse(
            Issue(
                f"byte 0x{data[error.start]:02x} is not UTF-8",
                hint="save the file as UTF-8",
                code="bad-encoding",
                where=_end_of(good, name),
            )
        )
    if data.count(b"%TAG") > MAX_TAG_DIRECTIVES:
        _refuse(
            Issue(
                f"more than {MAX_TAG_DIRECTIVES} `%TAG` directives",
                hint="remove them",
                code="too-many-tags",
                where=start,
            )
        )
    return data


class _Builder:
    """Turns the parser's events into plain data, counting what they cost."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.root: list[Any] = []
        self.references: list[str] = []
        self.issues: list[Issue] = []
        self.odd_keys = False
        self.fatal = False
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.anchored: set[str] = set()
        self.merges: dict[int, list[Any]] = {}
        self.scalars: dict[str, Any] = {}
        self.constructor = SafeConstructor()

    def run(self, next_event: Callable[[], Any]) -> None:
        next_event()  # the stream's start
        event = next_event()
        if type(event) is StreamEndEvent:
            self._empty()
        self._document(next_event)
        if self.root[0] is None:
            self._empty()
        next_event()  # the document's end
        event = next_event()
        if type(event) is DocumentStartEvent:
            _refuse(
                Issue(
                    "a second document begins here",
                    hint="a stack file holds one; remove this `---` and what follows",
                    code="several-documents",
                    where=_at(event.start_mark, self.name),
                )
            )

    def _empty(self) -> NoReturn:
        _refuse(
            Issue(
                "the file is empty",
                hint="a stack file has at least `providers:`",
                code="empty-file",
                where=Position(self.name, 1, 1),
            )
        )

    def _document(self, next_event: Callable[[], Any]) -> None:  # noqa: C901, PLR0912, PLR0915
        # One loop over every event, inlined because a call per event costs as much as the event.
        known = self.scalars
        # `target` is the collection being filled; `key` is what its next value belongs to: a key,
        # or _NO_KEY where a key comes next, or None in a list.
        target: Any = self.root
        key: Any = None
        outer: list[tuple[Any, Any, str | None, int]] = []
        nodes = aliased = 0
        while True:
            event = next_event()
            kind = type(event)
            nodes += 1
            if kind is ScalarEvent:
                plain, quoted = event.implicit
                value = event.value
                if plain:
                    try:
                        value = known[value]
                    except KeyError:
                        value = self._plain(event)
                elif not quoted:
                    value = self._tagged(event)
                elif "${" in value:
                    self.references.append(value)
                if event.anchor is not None:
                    self._begin_anchor(event)
                    self.anchors[event.anchor] = (value if value is not _MERGE else "<<", 1)
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                if len(outer) >= MAX_DEPTH:
                    _refuse(_too_deep(_at(event.start_mark, self.name)))
                if event.tag not in (_MAP_TAGS if kind is MappingStartEvent else _SEQ_TAGS):
                    self._bad_tag(event)
                if event.anchor is not None:
                    self._begin_anchor(event)
                outer.append((target, key, event.anchor, nodes + aliased))
                target, key = ({}, _NO_KEY) if kind is MappingStartEvent else ([], None)
                continue
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                nodes -= 1
                value = target
                if self.merges and id(target) in self.merges:
                    value = self._merged(target)
                target, key, anchor, before = outer.pop()
                if anchor is not None:
                    self.anchors[anchor] = (value, nodes + aliased - before + 1)
            elif kind is AliasEvent:
                value, size = self._alias(event)
                aliased += size
                if aliased > MAX_ALIASED_NODES:
                    self._too_many(event, f"aliases add more than {MAX_ALIASED_NODES} values", "alias-bomb")
                if len(outer) + _height(value) > MAX_DEPTH:
                    _refuse(_too_deep(_at(event.start_mark, self.name)))
            else:  # pragma: no cover - the parser's grammar has nothing else inside a document
                raise AssertionError(kind)
            if nodes > MAX_NODES:
                self._too_many(event, f"the file holds more than {MAX_NODES} values", "too-many-values")

            if key is None:
                target.append(value if value is not _MERGE else "<<")
                if not outer:
                    return
            elif key is _NO_KEY:
                if type(value) is not str:
                    value = self._odd_key(value, event)
                elif value in target:
                    self.odd_keys = True
                key = value
            else:
                if key is _MERGE:
                    self._merge(target, value, event)
                else:
                    target[key] = value if value is not _MERGE else "<<"
                key = _NO_KEY

    def _plain(self, event: ScalarEvent) -> Any:
        """What an unquoted scalar means, remembered by its text."""
        text: str = event.value
        value: Any = text
        if "${" in text:
            self.references.append(text)
        elif len(text) <= MAX_NUMBER_LENGTH:
            tag = _implicit_tag(text)
            if tag in _TYPED_TAGS:
                value = self._typed(tag, event)
            elif tag == _MERGE_TAG:
                value = _MERGE
        self.scalars[text] = value
        return value

    def _tagged(self, event: ScalarEvent) -> Any:
        """A scalar with a tag of its own, such as `!!str 12`."""
        tag = event.tag or "!"
        if tag in _TEXT_TAGS:
            return event.value
        if tag not in _SCALAR_TAGS:
            self._bad_tag(event)
            return event.value
        return self._typed(tag, event)

    def _typed(self, tag: str, event: ScalarEvent) -> Any:
        node = ScalarNode(tag, event.value)
        try:
            if len(event.value) > MAX_NUMBER_LENGTH and tag in _TYPED_TAGS:
                raise ValueError(tag)  # noqa: TRY301 - too long to be one, and slow to find out
            make = SafeConstructor.yaml_constructors[tag]
            return make(self.constructor, node)
        except (ValueError, LookupError, OverflowError, AttributeError, yaml.YAMLError):
            self.issues.append(
                Issue(
                    f"this is written as {_kind(tag)}, but is not a valid one",
                    hint="put it in quotes if it is text",
                    code="bad-value",
                    where=_at(event.start_mark, self.name),
                )
            )
            return event.value

    def _odd_key(self, value: Any, event: Any) -> Any:
        """A key that is not text: remembered for a closer look, and kept as the text it was."""
        if value is _MERGE:
            return value
        self.odd_keys = True
        if type(event) is ScalarEvent:
            return event.value
        return f"<key at line {event.end_mark.line + 1}>"

    def _begin_anchor(self, event: Any) -> None:
        if event.anchor in self.anchored:
            _refuse(
                Issue(
                    f"the anchor `&{_one_line(event.anchor)}` is defined a second time",
                    hint="rename one of the two",
                    code="duplicate-anchor",
                    where=_at(event.start_mark, self.name),
                )
            )
        self.anchored.add(event.anchor)

    def _alias(self, event: AliasEvent) -> tuple[Any, int]:
        anchor = event.anchor or ""
        found = self.anchors.get(anchor)
        if found is not None:
            return found
        name = _one_line(anchor)
        where = _at(event.start_mark, self.name)
        if anchor in self.anchored:
            _refuse(Issue(f"the alias `*{name}` contains itself", code="recursive-alias", where=where))
        _refuse(
            Issue(
                f"the alias `*{name}` has no anchor `&{name}` before it",
                hint="define it first, or quote a value that begins with `*`",
                code="unknown-alias",
                where=where,
            )
        )

    def _merge(self, target: dict[str, Any], value: Any, event: Any) -> None:
        parts = value if type(value) is list else [value]
        if not all(type(part) is dict for part in parts):
            self.issues.append(
                Issue(
                    "`<<` merges mappings, and this is none",
                    hint="give an alias of a mapping (`<<: *name`), or a list of them",
                    code="bad-merge",
                    where=_at(event.start_mark, self.name),
                )
            )
            return
        # PyYAML: within one `<<` the first mapping wins, of several `<<` the last.
        self.merges.setdefault(id(target), []).extend(reversed(parts))

    def _merged(self, target: dict[str, Any]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for part in self.merges.pop(id(target)):
            merged.update(part)
        merged.update(target)
        return merged

    def _bad_tag(self, event: Any) -> None:
        self.fatal = True
        shown = event.tag or ""
        if shown.startswith(_TAG_PREFIX):
            shown = "!!" + shown.removeprefix(_TAG_PREFIX)
        self.issues.append(
            Issue(
                f"the tag `{_one_line(shown)}` is not allowed here",
                hint="remove it: a stack file holds plain data",
                code="forbidden-tag",
                where=_at(event.start_mark, self.name),
            )
        )

    def _too_many(self, event: Any, message: str, code: str) -> NoReturn:
        where = _at(event.start_mark, self.name)
        _refuse(Issue(message, hint="is this a stack file?", code=code, where=where))


def _height(value: Any) -> int:
    """How many levels of collections `value` has."""
    height = 0
    level = [value]
    while level := [item for item in level if type(item) is dict or type(item) is list]:
        height += 1
        level = [part for item in level for part in (item.values() if type(item) is dict else item)]
    return height


@define(eq=False)
class _Graph:
    """The node graph of a text that has passed every limit, composed when first asked for."""

    _data: bytes
    _root: Node | None = None
    _keys: dict[int, dict[str, tuple[Node, Node]]] = field(factory=dict)

    @property
    def text(self) -> str:
        return self._data.decode()

    @property
    def root(self) -> Node:
        if self._root is None:
            self._root = cast(Node, yaml.compose(self._data, Loader=_LOADER))
        return self._root

    def find(self, path: Sequence[PathPart]) -> tuple[Node | None, Node] | None:
        """The key's node and the value's node at `path`."""
        key: Node | None = None
        node = self.root
        for part in path:
            if isinstance(node, SequenceNode) and isinstance(part, int) and 0 <= part < len(node.value):
                key, node = None, node.value[part]
            elif isinstance(node, MappingNode) and isinstance(part, str):
                entry = self._entries(node).get(part)
                if entry is None:
                    return None
                key, node = entry
            else:
                return None
        return key, node

    def _entries(self, mapping: MappingNode) -> dict[str, tuple[Node, Node]]:
        """A mapping's keys and values by key, those that `<<` brings included."""
        known = self._keys.get(id(mapping))
        if known is not None:
            return known
        own: dict[str, tuple[Node, Node]] = {}
        merged: dict[str, tuple[Node, Node]] = {}
        for key, value in mapping.value:
            if _is_merge(key):
                sources = value.value if isinstance(value, SequenceNode) else [value]
                for source in reversed(sources):
                    if isinstance(source, MappingNode):
                        merged.update(self._entries(source))
            elif isinstance(key, ScalarNode):
                own[key.value] = key, value
        self._keys[id(mapping)] = entries = {**merged, **own}
        return entries


def _is_merge(key: Node) -> bool:
    return bool(key.tag == _MERGE_TAG)


def _key_issues(root: Node, name: str) -> Iterator[Issue]:
    """One issue per key that stands twice or is no text."""
    seen: set[int] = set()
    waiting: list[tuple[Node, _Trail | None]] = [(root, None)]
    while waiting:
        node, trail = waiting.pop()
        if id(node) in seen or isinstance(node, ScalarNode):
            continue
        seen.add(id(node))
        if isinstance(node, SequenceNode):
            waiting.extend((item, (trail, index)) for index, item in enumerate(node.value))
            continue
        first: dict[str, Node] = {}
        for key, value in node.value:
            own = (trail, str(key.value)) if isinstance(key, ScalarNode) else trail
            waiting.append((value, own))
            if _is_merge(key):
                continue
            if not isinstance(key, ScalarNode) or key.tag not in _TEXT_TAGS:
                yield evolve(_key_is_no_text(key, name), path=_walked(own))
            elif key.value in first:
                yield Issue(
                    f"the key `{_one_line(key.value)}` stands here twice;"
                    f" the first is at {_position(name, first[key.value])}",
                    path=_walked(own),
                    hint="remove one of the two",
                    code="duplicate-key",
                    where=_position(name, key),
                )
            first.setdefault(key.value if isinstance(key, ScalarNode) else "", key)


def _walked(trail: _Trail | None) -> str:
    parts: list[PathPart] = []
    while trail is not None:
        trail, part = trail
        parts.append(part)
    return path_text(reversed(parts))


def path_text(path: Iterable[PathPart]) -> str:
    """A path as people write it, whatever its keys are made of.

    >>> path_text(("providers", "inference", 0, "config"))
    'providers.inference[0].config'
    """
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + _one_line(part)
    return text


def _key_is_no_text(key: Node, name: str) -> Issue:
    if isinstance(key, ScalarNode):
        message = f"the key `{_one_line(key.value)}` is read as {_kind(key.tag)}, not as text"
        hint = "put it in quotes"
        if not key.value:
            message, hint = "a key is missing before the `:`", "give it a name"
    else:
        message, hint = "a key is a list or a mapping", "use text as the key, or quote a text with `{` or `[`"
    return Issue(message, hint=hint, code="key-not-text", where=_position(name, key))


def _kind(tag: str) -> str:
    kind = tag.removeprefix(_TAG_PREFIX)
    return _KINDS.get(kind, f"a {kind}")


def _implicit_tag(text: str) -> str | None:
    """The tag that YAML 1.1 gives an unquoted scalar, or `None` for text."""
    for tag, pattern in _IMPLICIT.get(text[:1], ()):
        if pattern.match(text):
            return tag
    return None


def _syntax_issue(error: yaml.MarkedYAMLError, text: str, name: str) -> Issue:
    problem = _one_line(error.problem or "not YAML", limit=120)
    mark = error.problem_mark or error.context_mark
    context = error.context or ""
    if "end of stream" in problem and "scalar" in context and error.context_mark:
        mark = error.context_mark
    where = _at(mark, name) if mark else Position(name, 1, 1)
    hint = next((hint for sign, hint in _HINTS if sign in problem), "")
    lines = text.splitlines()
    line = lines[where.line - 1] if where.line <= len(lines) else ""
    character = line[where.column - 1 : where.column]
    if problem.startswith("did not find expected ','") and line[: where.column].endswith("${"):
        problem = "a reference inside `{...}` or `[...]` needs quotes"
        hint = 'write it as "${env.NAME}", quotes included'
        where = Position(name, where.line, where.column - 1)
    elif "cannot start any token" in problem:
        problem = "a tab stands where YAML allows only spaces"
        hint = "use spaces instead of tabs"
        if character != "\t":
            problem = f"a value cannot begin with `{character}`"
            hint = "put the value in quotes"
    return Issue(f"not valid YAML: {problem}", hint=hint, code="yaml-syntax", where=where)


def _bad_character(text: str, name: str) -> Issue:
    match = _NOT_PRINTABLE.search(text)
    position = _end_of(text[: match.start()], name) if match else Position(name, 1, 1)
    code_point = f" U+{ord(match.group()):04X}" if match else ""
    hint = "remove it"
    if match and match.group() == "\0":
        hint = "remove it; if the file is UTF-16, save it as UTF-8"
    return Issue(
        f"the control character{code_point} is not allowed", hint=hint, code="bad-character", where=position
    )


def _too_deep(where: Position) -> Issue:
    return Issue(
        f"nested more than {MAX_DEPTH} levels deep",
        hint="is this a stack file?",
        code="too-deep",
        where=where,
    )


def _end_of(text: str, name: str) -> Position:
    """The position just after `text`."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return Position(name, text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1)


def _at(mark: Any, name: str) -> Position:
    return Position(name, mark.line + 1, mark.column + 1)


def _position(name: str, node: Node) -> Position:
    return _at(node.start_mark, name)


def _one_line(text: str, limit: int = 60) -> str:
    shown = "".join(character if character.isprintable() else "?" for character in text[: limit + 1])
    return shown if len(shown) <= limit else shown[:limit] + "..."
