"""The front door: a manager opened on a stack file and a store."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from attrs import evolve

from stackconf.actor import current_actor
from stackconf.choosing import Chosen, Listed
from stackconf.configurations import Configurations, Registered
from stackconf.conflicts import Expected
from stackconf.errors import InvalidConfig, UnknownName
from stackconf.given import OnDropped
from stackconf.manager import Manager, Resolution
from stackconf.registry.registry import Registry
from stackconf.resolve.origins import origins
from stackconf.resolve.render import SHOWN
from stackconf.sealing import SETTING, keyring
from stackconf.store.sqlite import SqliteStore
from stackconf.suggest import did_you_mean
from stackconf.vault import Vault

if TYPE_CHECKING:
    from stackconf.apply import Observer, Report
    from stackconf.comparison import Comparison
    from stackconf.described import DescribedType, ListedProvider, ListedType
    from stackconf.drift import Drift
    from stackconf.errors import PluginLoadError
    from stackconf.events import Event, Run
    from stackconf.export.export import Exported
    from stackconf.hardware.facts import Hardware
    from stackconf.hardware.shares import Share
    from stackconf.history import Difference, History, RolledBack
    from stackconf.plan import Plan
    from stackconf.sealing import Keyring
    from stackconf.stackfile.model import StackFile
    from stackconf.status import StackStatus
    from stackconf.store.base import Pruned, Revision, Store
    from stackconf.store.lastgood import LastGood
    from stackconf.store.salvage import Recovered
    from stackconf.types import Issue, Origin

__all__ = [
    "Chosen",
    "Configurations",
    "Listed",
    "OnDropped",
    "Registered",
    "Stack",
    "current_actor",
    "default_store_path",
]


class Stack:
    r"""One stack: its effective configuration, registered configurations, plan and apply.

    >>> import tempfile, pathlib
    >>> from stackconf.testing import machine
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = pathlib.Path(folder.name, "stack.yaml")
    >>> _ = file.write_text("version: 2\nproviders: {}\n")
    >>> with Stack.open(file, hardware=machine()) as stack:
    ...     stack.configurations.inspect()
    {'providers': {}}
    >>> folder.cleanup()
    """

    def __init__(self, manager: Manager, store: Store) -> None:
        self.manager = manager
        self.store = store
        self.secrets = Vault(store, self._keyring)
        self.configurations = Configurations(manager, store, self.secrets)
        manager.opener = self.secrets.open
        self._environ: Mapping[str, str] = os.environ
        self.bind()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        store: Store | str | os.PathLike[str] | None = None,
        registry: Registry | None = None,
        hardware: Hardware | Callable[[], Hardware] | None = None,
        environ: Mapping[str, str] | None = None,
        skip_unknown: bool | None = None,
        runtime: str | None = None,
    ) -> Stack:
        """Open a stack on its file. The store is embedded beside it unless one is given.

        `runtime` names the server that hosts the providers, with its types and policies (`ogx`,
        `llama-stack`); without it that of the file's `stackconf:` section counts, and without that
        the installed plugins act themselves (`local`).

        Nothing is written until something is registered or applied. Raises `InvalidConfig` when
        the file cannot be read at all; what is wrong inside it is in `issues`. Raises `UnknownName`
        or `PluginLoadError` when there is no such runtime, or it cannot serve.
        """
        from stackconf.runtimes import hosted
        from stackconf.stackfile.model import load

        file = load(path, os.environ if environ is None else environ)
        file, registry = hosted(file, registry or Registry(), runtime, environ)
        if store is None:
            store = default_store_path(Path(path))
        if isinstance(store, (str, os.PathLike)):
            store = SqliteStore(Path(store))
        manager = Manager(file, registry, hardware=hardware, skip_unknown=skip_unknown)
        stack = cls(manager, store)
        stack._environ = os.environ if environ is None else environ
        return stack

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def beside(self) -> Stack:
        """The same stack once more, on the same store, for another thread. It is not to be closed."""
        other = Stack(self.manager.beside(), self.store)
        other._environ = self._environ
        return other

    def bind(self) -> None:
        """Have the store do as this stack's file says: which key opens its secrets, how much it keeps."""
        keep = self.manager.stack.settings.get("keep_revisions")
        self.store.guard = self.secrets
        self.store.keep = keep if isinstance(keep, int) else None

    @property
    def file(self) -> StackFile:
        """The stack file as it was read."""
        return self.manager.stack

    @property
    def hardware(self) -> Hardware:
        """What is known about this machine."""
        return self.manager.hardware

    @property
    def shares(self) -> Mapping[str, Share]:
        """What of the accelerators each provider that uses them may use, and why, by `api/provider_id`."""
        return self.manager.shares

    @property
    def revision(self) -> int:
        """The head revision."""
        return self.store.head()

    @property
    def resolution(self) -> Resolution:
        """Every provider's effective configuration at the head revision."""
        return self.manager.at_head(self.store)

    @property
    def issues(self) -> tuple[Issue, ...]:
        """Everything that is wrong with the stack, or was dropped."""
        return self.resolution.issues

    @property
    def problems(self) -> tuple[PluginLoadError, ...]:
        """The plugins that could not be loaded and that no provider of the stack waits for, such
        as a site policy: the rest goes on without them.
        """
        self.manager.registry.cross_cutting()
        return tuple(self.manager.registry.problems)

    def plan(self) -> Plan:
        """What an apply would change now."""
        return self.manager.plan(self.store)

    def write_plan(self, path: str | os.PathLike[str], *, actor: str | None = None) -> Plan:
        """Write what an apply would change now to a file, for `read_plan`, and return it.

        The store is made if there is none: a plan is for one store. The file holds no secret, is
        readable by its owner only, and is written whole or not at all. Raises `InvalidConfig`, and
        writes nothing, when the configuration has errors or the file cannot be written.
        """
        from stackconf.planfile import keep_plan

        self.store.ensure()
        plan = self.plan()
        store = self.store.identity()
        keep_plan(path, plan, stack=self.name, store=store, actor=actor or current_actor())
        return plan

    def read_plan(self, path: str | os.PathLike[str]) -> Plan:
        """The plan in a file, for `apply`, which refuses it if anything moved since.

        Raises `InvalidConfig` when it is no such file, was changed, or is another stack's.
        """
        from stackconf.planfile import kept_plan

        return kept_plan(path, stack=self.name, store=self.store.identity())

    def _keyring(self) -> Keyring:
        named = self.file.settings.get(SETTING)
        return keyring(Path(self.file.name).parent / named if named else None)

    @property
    def name(self) -> str:
        """The stack file's name, without its folder."""
        return Path(self.file.name).name

    def apply(
        self,
        plan: Plan | None = None,
        *,
        require_healthy: bool = False,
        actor: str | None = None,
        observer: Observer | None = None,
        wait: float = 0.0,
    ) -> Report:
        """Apply the head revision to the running providers, all or nothing.

        `wait` is how many seconds another apply of the same stack may still take; after that,
        `ApplyBusy` is raised. What an apply that was killed had touched is gone through again.
        """
        return self.manager.apply(
            self.store,
            plan,
            require_healthy=require_healthy,
            actor=actor or current_actor(),
            observer=observer,
            wait=wait,
        )

    def status(self) -> StackStatus:
        """For each provider what is wanted, what was tried last, and what it runs with."""
        return self.manager.status(self.store)

    @property
    def pending(self) -> tuple[str, ...]:
        """The providers that could not be reached when the head revision was applied."""
        return self.manager.pending(self.store)

    def retry(self, *, actor: str | None = None, observer: Observer | None = None) -> Report:
        """Apply what is pending, and nothing else. Raises as `apply` does."""
        return self.manager.retry(self.store, actor=actor or current_actor(), observer=observer)

    def recover(
        self, *, actor: str | None = None, observer: Observer | None = None, wait: float = 0.0
    ) -> Report:
        """Take the providers of which nobody knows what they run with back to what they had: those
        that a killed apply had touched, and those that a failed one could not take back.

        `apply` goes on to what is wanted instead.
        """
        return self.manager.recover(self.store, actor=actor or current_actor(), observer=observer, wait=wait)

    def drift(self) -> Drift:
        """Where what is applied differs from what the files say, and who or what did it.

        Changes nothing. A provider that no longer validates is told as such; the rest is compared.
        """
        from stackconf.drift import find_drift

        return find_drift(self.manager, self.store)

    def compare(self, machines: Mapping[str, Hardware]) -> Comparison:
        """The effective configuration on several machines side by side, under the assigned
        configurations. `machines` has a name for each. Changes nothing, and looks at no machine.

        Raises `InvalidConfig` when there is no machine.
        """
        from stackconf.comparison import compare

        return compare(self.manager, self.store, machines)

    def apply_events(
        self,
        plan: Plan | None = None,
        *,
        require_healthy: bool = False,
        actor: str | None = None,
        wait: float = 0.0,
    ) -> Iterator[Event]:
        """As `apply`, yielding each `Progress` as it happens and the `Report` at the end.

        It begins with the first event that is asked for. A failed apply yields its report, then
        raises `ApplyError`. Once begun it runs to its end: a reader that stops early is held up
        until then, and an interrupt is raised after it.
        """
        from stackconf.events import events

        return events(self._run(plan, require_healthy, actor, wait))

    def apply_events_async(
        self,
        plan: Plan | None = None,
        *,
        require_healthy: bool = False,
        actor: str | None = None,
        wait: float = 0.0,
    ) -> AsyncIterator[Event]:
        """As `apply_events`, for `async for`; the event loop goes on meanwhile."""
        from stackconf.events import events_async

        return events_async(self._run(plan, require_healthy, actor, wait))

    def _run(self, plan: Plan | None, require_healthy: bool, actor: str | None, wait: float) -> Run:  # noqa: FBT001
        def run(observer: Observer) -> Report:
            return self.apply(
                plan, require_healthy=require_healthy, actor=actor, observer=observer, wait=wait
            )

        return run

    def export(
        self,
        to: str | os.PathLike[str] | None = None,
        *,
        in_place: bool = False,
        applied: bool = False,
        class_defaults: bool = False,
    ) -> Exported:
        """The configuration as a stack file: what hardware and configurations set is written into it.

        With neither `to` nor `in_place` nothing is written, and `text` of the answer is the file. A
        file that exists keeps its comments, order, mode and whatever else is in it. `applied` exports
        what is applied instead of what is resolved; `class_defaults` writes those too. No secret is
        written: `variables` of the answer are what must be set where the file is read.

        Raises `InvalidConfig` when the stack is invalid (not with `applied`), or when the file would
        not be read as what it stands for; then nothing is written.
        """
        from stackconf.export.export import Options, export
        from stackconf.export.target import Target

        target = Target(self.file, self.file.name if in_place else to)
        options = Options(applied=applied, whole=class_defaults, copied=not target.exists)
        base = target.base(self._environ)
        exported = export(self.manager, self.store, base, self._environ, options)
        target.write(exported.text)
        return exported

    def applied(self) -> LastGood:
        """What was last applied to each provider, secrets redacted: from the store, or where that is
        damaged, from the file that each apply leaves beside it. `stackconf.store.lastgood`'s
        `last_applied(path)` tells it without a stack file.
        """
        from stackconf.store.lastgood import applied_of

        return applied_of(self.store)

    @staticmethod
    def recover_store(store: str | os.PathLike[str], *, actor: str | None = None) -> Recovered:
        """Put a damaged store aside, and make a new one of all that can be read of it.

        `store` is the store's file, which no stack of this process has open. Raises `StoreError`
        with nothing changed when it is sound, or another process has it open.
        """
        from stackconf.store.salvage import recover

        return recover(store, actor=actor or current_actor())

    def history(self, *, limit: int | None = None) -> History:
        """The revisions and the attempts to apply them, newest first, at most `limit` of each."""
        from stackconf.history import read_history

        return read_history(self.store, limit)

    def show(self, revision: int | str = "head") -> Revision:
        """A revision with what is registered and assigned at it; any secret is redacted.

        `revision` is a number, `head`, or so many before it: `head-1`, `-1`. Raises `UnknownName`
        for one that does not exist, or was pruned.
        """
        from stackconf.history import shown_revision

        return shown_revision(self._revision(revision))

    def diff(self, before: int | str, after: int | str = "head", *, effective: bool = False) -> Difference:
        """What changed from one revision to another, by configuration and field; with `effective`
        also what the providers would have otherwise. Revisions as for `show`.
        """
        from stackconf.history import difference, effective_difference
        from stackconf.plan import digester

        one, other = self._revision(before), self._revision(after)
        found = difference(one, other)
        if not effective:
            return found
        changes, unresolved = effective_difference(
            one,
            other,
            lambda state: self.manager.resolve(self.manager.overlays(state)).providers,
            digester(self.store.digest_key()),
            self.file,
        )
        return evolve(found, effective=changes, unresolved=unresolved)

    def rollback(
        self, revision: int | str, *, actor: str | None = None, expected_revision: int | None = None
    ) -> RolledBack:
        """Register and assign again what an old revision had, as a new one that says so.

        There is no new one where nothing would change. Raises `InvalidConfig` with every issue when
        it does not fit the stack any more, `Conflict` when the head is not `expected_revision`,
        `UnknownName` and `Sealed` as elsewhere; nothing is written then.
        """
        expected = Expected(expected_revision)
        return self.configurations._restore(self._revision(revision), actor, expected)  # noqa: SLF001

    def prune(self, keep: int) -> Pruned:
        """Forget all but the newest `keep` revisions and attempts, and nothing that is in use: the
        head, what is applied, and what an open attempt is for.
        """
        if keep < 1:
            raise InvalidConfig(f"keep at least 1 revision, not {keep}")
        return self.store.prune(keep)

    def _revision(self, revision: int | str) -> Revision:
        from stackconf.history import number_of

        return self.store.read(number_of(self.store, revision))

    def effective(self) -> dict[str, Any]:
        """Every provider's whole configuration, secrets redacted, in the stack file's shape."""
        return self.resolution.rendered(SHOWN)

    def explain(self, provider: str, field: str | None = None) -> list[Origin]:
        """Where each value of a provider is from, or those at and below one field.

        `provider` is `api/provider_id`, or a `provider_id` that only one api has.
        """
        key = self.key_of(provider)
        resolved = self.resolution.providers[key]
        if resolved.config is None:
            mine = [issue for issue in self.issues if issue.provider == key and issue.level == "error"]
            raise InvalidConfig(f"{key} has no effective configuration", mine)
        found = origins(resolved, self.file)
        if field is None:
            return found
        wanted = field.removeprefix("config.")
        chosen = [each for each in found if _is_at(each.path, wanted)]
        if not chosen:
            hint = did_you_mean(wanted, [each.path for each in found])
            raise UnknownName(f"{key} has no field `{wanted}`" + (f"; {hint}" if hint else ""))
        return chosen

    def providers(self) -> tuple[ListedProvider, ...]:
        """The stack's providers and their state, in the file's order; then those that it disables."""
        from stackconf.described import listed_providers

        return listed_providers(self.resolution.providers, self.file, self.store.status())

    def provider_types(self) -> tuple[ListedType, ...]:
        """The installed provider types, or those of the runtime, by name."""
        from stackconf.described import listed_types

        return listed_types(self.manager.registry)

    def provider_type(self, name: str) -> DescribedType:
        """A provider type with its fields and its JSON schema.

        `name` is a type (`inference/remote::ollama`, `remote::ollama`) or a provider of the stack.
        Raises `UnknownName`, and `PluginLoadError` when it cannot be loaded.
        """
        from stackconf.described import described, type_key

        registry = self.manager.registry
        return described(registry, type_key(registry, name, self.file.providers))

    def key_of(self, provider: str) -> str:
        """The `api/provider_id` that a person means. Raises `UnknownName`."""
        return self.manager.key_of(provider)


def default_store_path(stack_file: Path) -> Path:
    """Where the embedded store of a stack file is: in a hidden folder beside it.

    >>> default_store_path(Path("site/stack.yaml")).as_posix()
    'site/.stackconf/stack.yaml.sqlite3'
    """
    return stack_file.parent / ".stackconf" / f"{stack_file.name}.sqlite3"


def _is_at(path: str, wanted: str) -> bool:
    return path == wanted or path.startswith((f"{wanted}.", f"{wanted}["))
