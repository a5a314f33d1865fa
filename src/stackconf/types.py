"""The words of stackconf as values: frozen attrs classes that every layer shares.

Nothing here does anything. Provider authors meet `ProviderType`, `Provider`, `because`,
`Issue` and `Applied`; the rest of the house passes the same objects around.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

from attrs import field, frozen

if TYPE_CHECKING:
    from pydantic import BaseModel

T = TypeVar("T")

Level: TypeAlias = Literal["error", "warning", "ignored"]
"""`error` stops an apply, `warning` does not, `ignored` reports a value that was dropped."""

LayerName: TypeAlias = Literal["class", "hardware", "stack", "overlay"]
"""The sources of values, low to high."""

UpdateClass: TypeAlias = Literal["in_place", "reload", "restart"]
"""What a change of a field costs the running provider."""

Accelerated: TypeAlias = bool | Literal["little"]
"""Whether a provider uses accelerators, or only a corner of one."""


@frozen
class ProviderType:
    """A kind of provider that a plugin serves, keyed `(api, provider_type)`.

    `config_class` is a pydantic model, or where to find one (`"package.module:Class"`), which is
    imported when a stack uses the type. `api_dependencies` are the apis whose providers are
    applied before this one. `accelerators` says that its providers use the machine's accelerators
    where there are any: several of them are given shares, and `"little"` only a corner of a card.
    Where that depends on the provider, such as on whether its server is here, it is a function of the
    `config` that the stack file has for it.
    Providers of types with one `flow` run one after another, never at once: they have one share
    together. Name it after your distribution.
    `user_fields` are the fields that users may set where the class, which somebody else wrote, does
    not say so itself: dotted paths, each with what a change of it costs (`None`: not the user's, below
    one that is); `update` is what a change of any other field costs.
    `in_process` says that its providers live in the process that applies, and end with it: one that
    begins to host the stack joins them anew.

    >>> kind = ProviderType("inference", "remote::ollama", "stackconf_ollama.config:OllamaConfig")
    >>> kind.key
    'inference/remote::ollama'
    """

    api: str
    provider_type: str
    config_class: type[BaseModel] | str = field(repr=False)
    description: str = ""
    api_dependencies: tuple[str, ...] = ()
    accelerators: Accelerated | Callable[[Mapping[str, Any]], Accelerated] = False
    user_fields: Mapping[str, UpdateClass | None] | None = field(default=None, repr=False, hash=False)
    update: UpdateClass = "restart"
    in_process: bool = False
    flow: str = ""

    @property
    def key(self) -> str:
        """`api/provider_type`, the name of the type's entry point."""
        return f"{self.api}/{self.provider_type}"


@frozen
class Provider:
    """One instance of a provider type in a stack, keyed `(api, provider_id)`.

    >>> provider = Provider("inference", "ollama", "remote::ollama")
    >>> provider.key, provider.type_key
    ('inference/ollama', 'inference/remote::ollama')
    """

    api: str
    provider_id: str
    provider_type: str

    @property
    def key(self) -> str:
        """`api/provider_id`, as people write it."""
        return f"{self.api}/{self.provider_id}"

    @property
    def type_key(self) -> str:
        """`api/provider_type`."""
        return f"{self.api}/{self.provider_type}"


@frozen
class Placement:
    """What the operator gives one provider of the machine's accelerators.

    `cards` by index, PCI address or uuid; `None` for every one that is visible. `memory` of each: a
    fraction (`float`, at most 1) or bytes (`int`); `None` for what is left.

    >>> Placement((0, 1), 0.6)
    Placement(cards=(0, 1), memory=0.6)
    """

    cards: tuple[int | str, ...] | None = None
    memory: float | int | None = None


@frozen
class Position:
    """A place in a text file; line and column count from 1.

    >>> str(Position("stack.yaml", 12, 7))
    'stack.yaml:12:7'
    """

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@frozen
class Issue:
    """Something wrong (or dropped), said in one line: where, what, and what to do.

    A plugin gives `message`, `path` and perhaps `hint`; the manager adds `provider` and `where`.
    `path` is the field's path below `config`, dotted (`"kvstore.db_path"`), or empty.

    >>> issue = Issue(
    ...     "unknown field", path="config.urll", hint="did you mean `url`?", code="unknown-field",
    ...     provider="inference/ollama", where=Position("stack.yaml", 12, 7),
    ... )
    >>> str(issue)
    'stack.yaml:12:7: error: inference/ollama: config.urll: unknown field; did you mean `url`?'
    """

    message: str
    level: Level = "error"
    path: str = ""
    hint: str = ""
    code: str = ""
    provider: str = ""
    where: Position | None = None

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        subject = "".join(f"{part}: " for part in (self.provider, self.path) if part)
        advice = f"; {self.hint}" if self.hint else ""
        text = f"{place}{self.level}: {subject}{self.message}{advice}"
        return text if text.isprintable() else _on_one_line(text)


def _on_one_line(text: str) -> str:
    """The text with its line ends as spaces, and what else is not printable written out."""
    line = " ".join(text.splitlines())
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)


@frozen
class Because(Generic[T]):
    """A value together with the reason for it. Made by `because`."""

    value: T
    reason: str


def because(value: T, reason: str) -> Because[T]:
    """Give a value in `default_config` the reason that `explain` and `plan` show.

    >>> because(8, "8 physical cores; SMT siblings slow matrix work down").value
    8
    """
    return Because(value, reason)


Undo: TypeAlias = Callable[[], Awaitable[object] | object]
Check: TypeAlias = Callable[[], Awaitable[str | None] | str | None]
Retire: TypeAlias = Callable[[], Awaitable[object] | object]


@frozen
class Applied:
    """What `apply_config` did, and how to take it back.

    `detail` is one line for people. `undo` restores what was there before; without one, the hook is
    called the other way round. `check` returns `None` while the provider is healthy with the new
    configuration, otherwise what is wrong; `check_undo` says the same after `undo`. Each may be
    async. `pending` says why the provider could not be *reached*: nothing was rejected, the change
    is retried by the next apply, and the three are not used. `retire` takes down what was only kept
    for the way back: it is called once the whole apply is kept and written down, and what it raises
    is a warning.

    >>> Applied("threads 4 -> 8").pending is None
    True
    """

    detail: str = ""
    undo: Undo | None = field(default=None, repr=False)
    check: Check | None = field(default=None, repr=False)
    pending: str | None = None
    check_undo: Check | None = field(default=None, repr=False)
    retire: Retire | None = field(default=None, repr=False)


@frozen
class Origin:
    """Where one leaf of an effective configuration came from.

    `path` is dotted below `config`. `source` names the file and position, the plugin, or the
    configuration that gave the value; `beat` are the candidates of lower layers, highest first.
    Secret values are redacted before they come here.
    """

    path: str
    layer: LayerName
    value: object
    source: str
    reason: str = ""
    user_field: bool = False
    update: UpdateClass = "restart"
    beat: Sequence[Origin] = ()
