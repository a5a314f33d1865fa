"""A stack file as providers, settings and issues.

This layer knows no plugin and no config class. It says which providers a file enables and what the
file (with the environment) gives each of them, in the llama-stack and OGX form of every version:

    version: 2
    apis: [inference]
    providers:
      inference:
      - provider_id: ollama
        provider_type: remote::ollama
        config:
          url: ${env.OLLAMA_URL:=http://localhost:11434}
    stackconf:
      sealed: false

Everything wrong with a file is reported at once, each issue with its position. A provider is
disabled by an id that is null, empty, `__disabled__`, or a reference that yields nothing; what else
stands there is then neither expanded nor judged, as upstream's resolver does it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from attrs import evolve, field, frozen

from stackconf.errors import InvalidConfig
from stackconf.stackfile.env import (
    EnvText,
    Expanded,
    Grammar,
    detect,
    expand,
    faults,
    holds_env_text,
    may_refer,
)
from stackconf.stackfile.load import MAX_ISSUES, Document, PathPart, by_position, parse, path_text, read
from stackconf.suggest import did_you_mean
from stackconf.types import Issue, Level, Placement, Position, Provider

if TYPE_CHECKING:
    from collections.abc import Iterator

NodePath: TypeAlias = tuple[PathPart, ...]

DISABLED: Final = "__disabled__"
SECTION: Final = "stackconf"
"""The top-level key that holds stackconf's own settings."""

ENTRY_KEYS: Final = ("provider_id", "provider_type", "config", "module")
OLD_ENTRY_KEYS: Final = ("provider_id", "provider_type", "config", "routing_key")

UPSTREAM_KEYS: Final = frozenset(
    {
        "api_providers",
        "apis",
        "apis_to_serve",
        "benchmarks",
        "built_at",
        "conda_env",
        "connectors",
        "container_image",
        "datasets",
        "distro_name",
        "docker_image",
        "eval_tasks",
        "external_apis_dir",
        "external_providers_dir",
        "image_name",
        "inference_store",
        "logging",
        "memory_banks",
        "metadata_store",
        "models",
        "provider_map",
        "providers",
        "registered_resources",
        "routing_table",
        "safety",
        "scoring_fns",
        "server",
        "shields",
        "storage",
        "telemetry",
        "tool_groups",
        "vector_dbs",
        "vector_stores",
        "version",
    }
)
"""Every top-level key of upstream's run configuration, llama-stack 0.0.41 to OGX 1.5.0. Source: the fields
of `StackRunConfig` and `StackConfig` in each version's `datatypes.py`, and what
`upgrade_from_routing_table` in `configure.py` reads."""

MAX_ID: Final = 200
"""The longest provider id; a model's name, which some use, has well under 100 characters."""

SETTINGS: Final[Mapping[str, tuple[object, ...]]] = MappingProxyType(
    {
        "sealed": (False, True),
        "secret_key_file": (),
        "unknown_types": ("error", "skip"),
        "keep_revisions": ("all",),
        "placement": (),
        "runtime": (),
        "policy": (),
    }
)
"""The settings of the `stackconf:` section and the values each may have; none: any text.

`placement` has a form of its own, see `stackfile/placement.py`; `policy` is the runtime's."""

COUNTS: Final = frozenset({"keep_revisions"})
"""The settings that may be a whole number from 1 besides."""

_LONGEST_COUNT: Final = 10
_IN_PROVIDER: Final = re.compile(r"providers\.(?P<api>[^.\[]+)\[(?P<index>\d{1,9})\](?:\.(?P<path>.*))?")
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@frozen
class ProviderEntry:
    """One provider as the stack file has it.

    `config` holds the file's values, references expanded (leaves that came from the environment are
    `EnvText`). `path` leads to the entry in the document. `issues` are those of this provider;
    a path that one of them names has been judged already. `provider_id` is `None` only where `disabled`.
    """

    api: str
    provider_id: str | None
    provider_type: str
    config: Mapping[str, Any] = field(default=_NOTHING, repr=False)
    module: str | None = None
    path: NodePath = ()
    disabled: bool = False
    issues: tuple[Issue, ...] = ()
    provider: Provider = field(init=False, repr=False, eq=False)
    """The provider, as plugins are told of it."""
    key: str = field(init=False, repr=False, eq=False)
    """`api/provider_id`, as people write it."""
    from_environment: bool = field(init=False, repr=False, eq=False)
    """Whether anything in `config` came from the environment."""

    @provider.default
    def _provider(self) -> Provider:
        return Provider(self.api, self.provider_id or DISABLED, self.provider_type)

    @key.default
    def _key(self) -> str:
        return self.provider.key

    @from_environment.default
    def _from_environment(self) -> bool:
        return holds_env_text(self.config)


@frozen
class StackFile:
    """What one stack file says.

    `providers` are the enabled ones that have an id, a type and a config of the right shape, in the
    order of the file; `disabled` the others that mean to be off. `apis` lists every api of the
    stack: those under `apis:`, then those that only `providers:` names. `settings` is the
    `stackconf:` section, `other` every other top-level key as it is. `environment` names the variables
    that were looked up. `issues` are all of the file's, in its order.
    """

    name: str
    document: Document = field(repr=False)
    grammar: Grammar
    providers: tuple[ProviderEntry, ...] = ()
    disabled: tuple[ProviderEntry, ...] = ()
    apis: tuple[str, ...] = ()
    settings: Mapping[str, Any] = _NOTHING
    other: Mapping[str, Any] = field(default=_NOTHING, repr=False)
    issues: tuple[Issue, ...] = ()
    environment: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """The SHA-256 of the file's bytes, in hex."""
        return self.document.digest

    @property
    def sealed(self) -> bool:
        """Whether this file is the stack's only truth. A `sealed` that cannot be read counts as one
        that is set.
        """
        section = self.document.data.get(SECTION)
        return bool(self.settings.get("sealed", isinstance(section, dict) and "sealed" in section))

    @property
    def errors(self) -> tuple[Issue, ...]:
        """The issues that keep this file from being applied."""
        return tuple(issue for issue in self.issues if issue.level == "error")

    def position_of(
        self, entry: ProviderEntry, field_path: str | Sequence[PathPart] = "", *, key: bool = False
    ) -> Position | None:
        """Where a field of `entry`'s config stands; the nearest thing around it if it stands nowhere.

        `field_path` is below `config`, dotted (`"kvstore.db_path"`, `"sinks.0"`) or in parts.
        """
        path = (*entry.path, "config", *self._parts(entry, field_path))
        if key:
            exact = self.document.position(path, key=True)
            if exact is not None:
                return exact
        return self.document.nearest(path)

    def raw_text(self, entry: ProviderEntry, field_path: str | Sequence[PathPart]) -> str | None:
        """The text of an unquoted value of `entry`'s config as it was typed, such as `0123`."""
        return self.document.raw_text((*entry.path, "config", *self._parts(entry, field_path)))

    @staticmethod
    def _parts(entry: ProviderEntry, field_path: str | Sequence[PathPart]) -> list[PathPart]:
        if not isinstance(field_path, str):
            return list(field_path)
        parts: list[PathPart] = []
        value: Any = entry.config
        for name in field_path.split(".") if field_path else ():
            part = int(name) if isinstance(value, list) and name.isdecimal() else name
            parts.append(part)
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                value = None
        return parts


def load(path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> StackFile:
    """Read a stack file. `environ` is the process's environment unless given. The grammar of its
    references follows from their form.

    Raises `InvalidConfig` when nothing can be loaded; whatever else is wrong is in `issues`.
    """
    return from_document(read(path), environ)


def loads(text: bytes | str, name: str, environ: Mapping[str, str] | None = None) -> StackFile:
    """As `load`, for a text that is at hand. `name` stands for the file in positions.

    >>> stack = loads("providers: {inference: [{provider_id: a, provider_type: 'remote::a'}]}", "x.yaml", {})
    >>> [entry.key for entry in stack.providers], stack.apis, stack.issues
    (['inference/a'], ('inference',), ())
    """
    return from_document(parse(text, name=name), environ)


def from_document(
    document: Document, environ: Mapping[str, str] | None = None, grammar: Grammar | None = None
) -> StackFile:
    """The stack that a parsed file describes, its references read in one grammar where that is known.

    Raises `InvalidConfig` if it describes none.
    """
    reader = _Reader(document, os.environ if environ is None else environ, grammar)
    return reader.run()


class _Reader:
    """Goes through one document once, gathering providers and issues."""

    def __init__(
        self, document: Document, environ: Mapping[str, str], grammar: Grammar | None = None
    ) -> None:
        self.document = document
        self.environ = environ
        self.grammar = grammar or ("old" if detect(document.references) == "old" else "new")
        self.issues: list[Issue] = [self._addressed(issue) for issue in document.issues]
        self.names: set[str] = set()
        self.base = 0
        """How much of a path leads to the provider that is being read."""
        self.enabled: list[ProviderEntry] = []
        self.disabled: list[ProviderEntry] = []
        self.backends = _backends(document.data)

    def run(self) -> StackFile:
        data = self._top(self.document.data)
        self._unknown_keys(data)
        if "providers" in data:
            self._providers(data["providers"])
        elif "routing_table" in data or "api_providers" in data or "provider_map" in data:
            self._old_form(data)
        apis = self._apis(data)
        settings = self._settings(data.get(SECTION))
        other = {key: value for key, value in data.items() if key not in {"providers", SECTION}}
        self._look_through(other)
        self.issues.sort(key=by_position)
        return StackFile(
            name=self.document.name,
            document=self.document,
            grammar=self.grammar,
            providers=tuple(self.enabled),
            disabled=tuple(self.disabled),
            apis=apis,
            settings=settings,
            other=other,
            issues=tuple(self.issues),
            environment=frozenset(self.names),
        )

    # Reporting

    def _addressed(self, issue: Issue) -> Issue:
        """An issue of the text with the provider in which it stands, if it stands in one."""
        match = _IN_PROVIDER.fullmatch(issue.path)
        if match is None:
            return issue
        try:
            provider_id = self.document.data["providers"][match["api"]][int(match["index"])]["provider_id"]
        except (LookupError, TypeError, ValueError):
            return issue
        if not isinstance(provider_id, str) or not provider_id or may_refer(provider_id):
            return issue
        return evolve(
            issue, path=match["path"] or "", provider=_short(f"{match['api']}/{provider_id}", 2 * MAX_ID)
        )

    def _report(
        self,
        message: str,
        path: NodePath,
        *,
        code: str,
        hint: str = "",
        level: Level = "error",
        provider: str = "",
        key: bool = False,
    ) -> None:
        """Add an issue about the value (or the key) at `path`."""
        if len(self.issues) >= MAX_ISSUES:
            enough = Issue(
                f"more than {MAX_ISSUES} issues",
                hint="is this a stack file?",
                code="too-many-issues",
                where=Position(self.document.name, 1, 1),
            )
            raise InvalidConfig(str(enough), (*sorted(self.issues, key=by_position), enough))
        where = self.document.position(path, key=True) if key else None
        below = path[self.base :] if provider else path
        self.issues.append(
            Issue(
                message,
                level=level,
                path=path_text(below),
                hint=hint,
                code=code,
                provider=_short(provider, 2 * MAX_ID),
                where=where or self.document.nearest(path),
            )
        )

    # The top level

    def _top(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            issue = Issue(
                f"a stack file is a mapping with `providers:`, and this is {_kind(data)}",
                code="wrong-shape",
                where=self.document.position(()),
            )
            raise InvalidConfig(str(issue), (*self.issues, issue))
        if "distribution_spec" in data and "providers" not in data:
            issue = Issue(
                "this is a build file (`distribution_spec`), not a stack file",
                hint="give the run.yaml or config.yaml that was made from it",
                code="build-file",
                where=self.document.position(("distribution_spec",), key=True),
            )
            raise InvalidConfig(str(issue), (*self.issues, issue))
        return data

    def _unknown_keys(self, data: dict[str, Any]) -> None:
        meant = set()
        for key in data:
            if key in UPSTREAM_KEYS or key == SECTION or key.startswith(("x-", ".")):
                continue
            advice = did_you_mean(key, (*sorted(UPSTREAM_KEYS), SECTION))
            meant.add(advice)
            self._report(
                f"unknown top-level key `{_short(key)}`",
                (key,),
                code="unknown-key",
                hint=advice or "remove it; to hold anchors, begin it with `x-`",
                key=True,
            )
        if data.keys() & {"providers", "routing_table", "api_providers", "provider_map"}:
            return
        if "did you mean `providers`?" not in meant:
            self._report(
                "there is no `providers:`",
                (),
                code="no-providers",
                hint="list the stack's providers by api: `providers: {inference: [...]}`",
            )

    def _apis(self, data: dict[str, Any]) -> tuple[str, ...]:
        key = "apis" if "apis" in data or "apis_to_serve" not in data else "apis_to_serve"
        listed = data.get(key)
        found: dict[str, None] = {}
        if listed is not None and not isinstance(listed, list):
            self._report(
                f"`{key}` must be a list, and is {_kind(listed)}",
                (key,),
                code="wrong-shape",
                hint=f"write `{key}: [inference]`",
            )
            listed = None
        for index, api in enumerate(listed or ()):
            if isinstance(api, str) and api:
                found[api] = None
            else:
                self._report(
                    f"the name of an api must be text, and this is {_kind(api)}",
                    (key, index),
                    code="wrong-shape",
                    hint="put it in quotes" if isinstance(api, int | float) else "give it a name",
                )
        for section in ("providers", "routing_table", "api_providers", "provider_map"):
            providers = data.get(section)
            if isinstance(providers, dict):
                found.update(dict.fromkeys(providers))
        return tuple(found)

    def _settings(self, section: Any) -> Mapping[str, Any]:
        if section is None:
            return _NOTHING
        if not isinstance(section, dict):
            message = f"`{SECTION}` must be a mapping, and is {_kind(section)}"
            self._report(
                message, (SECTION,), code="wrong-shape", hint=f"known settings: {', '.join(SETTINGS)}"
            )
            return _NOTHING
        settings: dict[str, Any] = {}
        for name, value in section.items():
            path = (SECTION, name)
            if name not in SETTINGS:
                self._report(
                    f"unknown setting `{_short(name)}`",
                    path,
                    code="unknown-setting",
                    hint=did_you_mean(name, SETTINGS) or f"known settings: {', '.join(SETTINGS)}",
                    key=True,
                )
                continue
            if name in {"placement", "policy"}:
                settings[name] = self._placement(value) if name == "placement" else self._policy(value)
                continue
            wanted = SETTINGS[name]
            expanded = self._text(value, path) if isinstance(value, str) else value
            if isinstance(expanded, EnvText):
                if expanded.failed:
                    continue
                # The environment has only text: the setting's own kind says what it stands for.
                expanded = _setting_of(str(expanded), name)
            if not wanted and isinstance(expanded, str) and expanded.strip():
                settings[name] = str(expanded)
            elif _is_count(expanded, name) or any(
                expanded is allowed or (expanded == allowed and type(expanded) is str) for allowed in wanted
            ):
                settings[name] = expanded
            else:
                choice = " or ".join(f"`{str(allowed).lower()}`" for allowed in wanted)
                choice = choice or ("a runtime's name" if name == "runtime" else "a path")
                choice += " or a whole number from 1" if name in COUNTS else ""
                self._report(f"`{name}` must be {choice}", path, code="bad-setting")
        return settings

    def _policy(self, value: Any) -> Mapping[str, Any]:
        """What the operator says about the user fields of types; the runtime that has them reads it."""
        if isinstance(value, dict):
            return value
        message = f"`policy` must map types to what users may set, and is {_kind(value)}"
        hint = "write `policy: {inference/remote::ollama: {allow: [base_url]}}`"
        self._report(message, (SECTION, "policy"), code="bad-policy", hint=hint)
        return _NOTHING

    def _placement(self, value: Any) -> Mapping[str, Placement]:
        from stackconf.stackfile.placement import read_placement

        def report(
            message: str,
            path: Sequence[PathPart],
            /,
            *,
            hint: str = "",
            level: Level = "error",
            key: bool = False,
        ) -> None:
            where = (SECTION, "placement", *path)
            self._report(message, where, code="bad-placement", hint=hint, level=level, key=key)

        root = (SECTION, "placement")
        expanded = self._tree(value, root, "") if isinstance(value, (dict, list)) else value
        keys = [entry.key for entry in self.enabled]
        return read_placement(expanded, keys, frozenset(entry.api for entry in self.disabled), report)

    def _look_through(self, other: dict[str, Any]) -> None:
        """Warn of references that upstream would leave as they are; nothing is expanded here."""
        if not self.document.references:
            return
        skipped = {"routing_table", "api_providers", "provider_map"}
        for path, text in texts({key: value for key, value in other.items() if key not in skipped}):
            for issue in faults(text, self.grammar):
                if issue.code != "env-lookalike":
                    self._report(issue.message, path, code=issue.code, hint=issue.hint, level="warning")

    # Providers

    def _providers(self, providers: Any) -> None:
        if providers is None:
            self._report(
                "`providers` has no value",
                ("providers",),
                code="no-value",
                hint="list providers by api, or write `providers: {}`",
                level="warning",
                key=True,
            )
            return
        if not isinstance(providers, dict):
            self._report(
                f"`providers` must map each api to a list of providers, and is {_kind(providers)}",
                ("providers",),
                code="wrong-shape",
                hint="write `providers: {inference: [...]}`",
            )
            return
        for api, entries in providers.items():
            path: NodePath = ("providers", api)
            if entries is None:
                self._report(
                    f"the api `{_short(api)}` has no value, which upstream refuses",
                    path,
                    code="no-value",
                    hint="write `[]` if it has no providers",
                    level="warning",
                    key=True,
                )
            elif not isinstance(entries, list):
                hint = (
                    "begin the provider with `- `"
                    if isinstance(entries, dict)
                    else "write a list of providers"
                )
                self._report(
                    f"the api `{_short(api)}` must have a list of providers, and has {_kind(entries)}",
                    path,
                    code="wrong-shape",
                    hint=hint,
                )
            else:
                self._entries(api, entries, path)

    def _entries(self, api: str, entries: list[Any], path: NodePath) -> None:
        self._keep(
            [self._entry(api, entry, (*path, index), ENTRY_KEYS) for index, entry in enumerate(entries)]
        )

    def _keep(self, entries: Sequence[ProviderEntry | None]) -> None:
        """Take over one api's providers, of several with the same id the first."""
        taken: dict[str | None, NodePath] = {}
        for entry in entries:
            if entry is None:
                continue
            if entry.disabled:
                self.disabled.append(entry)
                continue
            if entry.provider_id not in taken:
                taken[entry.provider_id] = entry.path
                self.enabled.append(entry)
                continue
            self.base = len(entry.path)
            first = self.document.nearest((*taken[entry.provider_id], "provider_id"))
            self._report(
                f"the provider id `{_short(entry.provider_id or '')}` is taken in {_short(entry.api)};"
                f" the first is at {first}",
                (*entry.path, "provider_id"),
                code="duplicate-provider",
                hint="rename or remove one of the two",
                provider=entry.key,
            )

    def _entry(self, api: str, entry: Any, path: NodePath, known: tuple[str, ...]) -> ProviderEntry | None:
        """One provider, or `None` where too little of it is right to go on with."""
        if not isinstance(entry, dict):
            self._report(
                f"a provider is a mapping with `provider_id` and `provider_type`, and this is {_kind(entry)}",
                path,
                code="wrong-shape",
                hint="write `provider_id: ...` and `provider_type: ...`",
            )
            return None
        before = len(self.issues)
        self.base = len(path)
        provider_id = self._provider_id(entry, path)
        if provider_id == DISABLED:
            return _disabled(api, entry, path)
        label = f"{api}/{provider_id}" if provider_id else ""
        misspelt = self._unknown_entry_keys(entry, path, known, label)
        if "provider_id" not in entry and "provider_id" not in misspelt:
            self._report(
                "`provider_id` is missing",
                path,
                code="missing-key",
                hint="give the provider a name, or write `provider_id: null` to turn it off",
            )
        provider_type = self._required_text(entry, "provider_type", path, label, misspelt)
        module = self._optional_text(entry, "module", path, label)
        config = self._config(entry.get("config"), path, label)
        if config and self.backends is not None:
            self._store_references(config, (*path, "config"), self.backends, label)
        if not label or provider_type is None or config is None:
            return None
        return ProviderEntry(
            api=api,
            provider_id=provider_id,
            provider_type=provider_type,
            config=config,
            module=module,
            path=path,
            issues=tuple(self.issues[before:]),
        )

    def _provider_id(self, entry: dict[str, Any], path: NodePath) -> str:
        """The id, `DISABLED` in all its spellings, or an empty text where it is missing or wrong."""
        if "provider_id" not in entry:
            return ""
        value, path = entry["provider_id"], (*path, "provider_id")
        if value is None:
            return DISABLED
        if not isinstance(value, str):
            message = f"`provider_id` must be text, and is {_kind(value)}"
            self._report(message, path, code="wrong-shape", hint="put it in quotes")
            return ""
        text = self._text(value, path)
        if _failed(text):
            return ""
        if not text.isprintable() or len(text) > MAX_ID:
            self._report(
                f"a provider id is one line of at most {MAX_ID} printable characters",
                path,
                code="bad-id",
                hint="give it a short name",
            )
            return ""
        return str(text) or DISABLED

    def _unknown_entry_keys(
        self, entry: dict[str, Any], path: NodePath, known: tuple[str, ...], label: str
    ) -> frozenset[str]:
        """Report them; returns the known keys that they were meant to be."""
        meant: set[str] = set()
        for key in entry:
            if key in known:
                continue
            advice = did_you_mean(key, [name for name in known if name not in entry])
            meant.update(name for name in known if f"`{name}`" in advice)
            self._report(
                f"a provider has no key `{_short(key)}`",
                (*path, key),
                code="unknown-key",
                hint=advice or "if it is a setting of the provider, put it under `config:`",
                provider=label,
                key=True,
            )
        return frozenset(meant)

    def _required_text(
        self, entry: dict[str, Any], key: str, path: NodePath, label: str, misspelt: frozenset[str]
    ) -> str | None:
        value = entry.get(key)
        text = self._text(value, (*path, key), label) if isinstance(value, str) else ""
        if text:
            return None if _failed(text) else str(text)
        if _failed(text) or key in misspelt:
            return None
        if value is None or isinstance(value, str):
            message = f"`{key}` is missing" if key not in entry else f"`{key}` is empty"
            hint = "say what kind of provider this is, such as `remote::ollama`"
            code = "missing-key"
        else:
            message, hint, code = (
                f"`{key}` must be text, and is {_kind(value)}",
                "put it in quotes",
                "wrong-shape",
            )
        self._report(message, (*path, key) if key in entry else path, code=code, hint=hint, provider=label)
        return None

    def _optional_text(self, entry: dict[str, Any], key: str, path: NodePath, label: str) -> str | None:
        value = entry.get(key)
        if value is None:
            return None
        if isinstance(value, str):
            text = self._text(value, (*path, key), label)
            return None if not text or _failed(text) else str(text)
        self._report(
            f"`{key}` must be text, and is {_kind(value)}",
            (*path, key),
            code="wrong-shape",
            hint="put it in quotes",
            provider=label,
        )
        return None

    def _config(self, value: Any, path: NodePath, label: str) -> Mapping[str, Any] | None:
        if value is None:
            return _NOTHING
        if isinstance(value, dict):
            config: Mapping[str, Any] = self._tree(value, (*path, "config"), label)
            return config
        self._report(
            f"`config` must be a mapping, and is {_kind(value)}",
            (*path, "config"),
            code="wrong-shape",
            hint="write the settings as `name: value` below it",
            provider=label,
        )
        return None

    def _store_references(self, value: Any, path: NodePath, backends: Sequence[str], label: str) -> None:
        """Report references to a storage backend that the file does not define.

        A reference is a mapping with `backend` and a `namespace` or a `table_name`: `KVStoreReference`
        and `SqlStoreReference` of upstream's `core/storage/datatypes.py`, from llama-stack 0.3 on.
        """
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            if isinstance(item, (Mapping, list)):
                self._store_references(item, (*path, key), backends, label)
        if not isinstance(value, Mapping) or not {"namespace", "table_name"} & value.keys():
            return
        backend = value.get("backend")
        if isinstance(backend, str) and backend and backend not in backends and not _failed(backend):
            self._report(
                f"`storage.backends` has no `{_short(backend)}`",
                (*path, "backend"),
                code="unknown-backend",
                hint=did_you_mean(backend, backends)
                or (f"it has {', '.join(map(_short, backends))}" if backends else "define it there"),
                provider=label,
            )

    # References

    def _tree(self, value: Any, path: NodePath, label: str) -> Any:
        """`value` with every reference in it expanded; nothing that it shares is changed."""
        items = value.items() if type(value) is dict else enumerate(value)
        expanded = []
        for key, item in items:
            kind = type(item)
            if kind is str:
                if may_refer(item):
                    item = self._text(item, (*path, key), label)  # noqa: PLW2901
            elif kind is dict or kind is list:
                item = self._tree(item, (*path, key), label)  # noqa: PLW2901
            expanded.append((key, item))
        return dict(expanded) if type(value) is dict else [item for _, item in expanded]

    def _text(self, text: str, path: NodePath, label: str = "") -> str:
        if not may_refer(text):
            return text
        expanded: Expanded = expand(text, self.environ, self.grammar)
        self.names.update(expanded.names)
        for issue in expanded.issues:
            self._report(
                issue.message, path, code=issue.code, hint=issue.hint, level=issue.level, provider=label
            )
        return expanded.value

    # The form of October 2024

    def _old_form(self, data: dict[str, Any]) -> None:
        """Convert as upstream's `upgrade_from_routing_table` does (`configure.py`, 0.2.12)."""
        first = next(key for key in ("routing_table", "api_providers", "provider_map") if key in data)
        self._report(
            "this is the form of October 2024 (`routing_table`), read as upstream upgrades it",
            (first,),
            code="old-form",
            hint="write `providers:` instead",
            level="warning",
            key=True,
        )
        found: dict[str, list[ProviderEntry | None]] = {}
        for api, entries in self._old_section(data, "routing_table"):
            path: NodePath = ("routing_table", api)
            if not isinstance(entries, list):
                self._report(
                    f"the api `{_short(api)}` must have a list of providers, and has {_kind(entries)}",
                    path,
                    code="wrong-shape",
                    hint="begin the provider with `- `",
                )
                continue
            found[api] = [
                self._old_entry(api, entry, (*path, index), f"-{index:02d}" if len(entries) > 1 else "")
                for index, entry in enumerate(entries)
            ]
        section = "api_providers" if "api_providers" in data else "provider_map"
        for api, entry in self._old_section(data, section):
            if isinstance(entry, dict) and "provider_type" in entry:
                found[api] = [self._old_entry(api, entry, (section, api), "")]
        for candidates in found.values():
            self._keep(candidates)

    def _old_section(self, data: dict[str, Any], name: str) -> list[tuple[str, Any]]:
        section = data.get(name)
        if isinstance(section, dict):
            return list(section.items())
        if section is not None:
            self._report(
                f"`{name}` must map each api to its providers, and is {_kind(section)}",
                (name,),
                code="wrong-shape",
                hint="write `providers:` instead",
            )
        return []

    def _old_entry(self, api: str, entry: Any, path: NodePath, suffix: str) -> ProviderEntry | None:
        if not isinstance(entry, dict):
            return self._entry(api, entry, path, OLD_ENTRY_KEYS)
        own = entry.get("provider_type")
        named = {"provider_id": f"{own}{suffix}", **entry} if isinstance(own, str) and own else entry
        if "provider_id" not in named:
            named = {"provider_id": f"{api}{suffix}", **entry}
        return self._entry(api, named, path, OLD_ENTRY_KEYS)


def _backends(data: Any) -> list[str] | None:
    """The names of the stores that a file defines, `None` where it defines none."""
    storage = data.get("storage") if isinstance(data, dict) else None
    backends = storage.get("backends") if isinstance(storage, dict) else None
    return list(backends) if isinstance(backends, dict) else None


def _disabled(api: str, entry: dict[str, Any], path: NodePath) -> ProviderEntry:
    provider_type, config, module = entry.get("provider_type"), entry.get("config"), entry.get("module")
    return ProviderEntry(
        api=api,
        provider_id=None,
        provider_type=provider_type if isinstance(provider_type, str) else "",
        config=config if isinstance(config, dict) else _NOTHING,
        module=module if isinstance(module, str) else None,
        path=path,
        disabled=True,
    )


def _failed(text: str) -> bool:
    return isinstance(text, EnvText) and text.failed


def texts(value: Any, path: NodePath = ()) -> Iterator[tuple[NodePath, str]]:
    """Every text below `value` that may hold a reference."""
    if isinstance(value, str):
        if may_refer(value):
            yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from texts(item, (*path, index))


def _kind(value: object) -> str:
    """What a value is, for people."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "a boolean (true or false)"
    for types, name in (
        (str, "text"),
        ((int, float), "a number"),
        (dict, "a mapping"),
        (list, "a list"),
    ):
        if isinstance(value, types):
            return name
    return f"a {type(value).__name__}"


def _setting_of(text: str, name: str) -> object:
    """What a text from the environment stands for as the value of a setting."""
    if name in COUNTS and text.isascii() and text.isdecimal() and len(text) < _LONGEST_COUNT:
        return int(text)
    return {"true": True, "false": False}.get(text.lower(), text)


def _is_count(value: object, name: str) -> bool:
    return name in COUNTS and type(value) is int and value > 0


def _short(text: str, limit: int = 60) -> str:
    shown = "".join(character if character.isprintable() else "?" for character in text[: limit + 1])
    return shown if len(shown) <= limit else shown[:limit] + "..."
