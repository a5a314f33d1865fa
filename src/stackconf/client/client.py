"""A hosted stack over HTTP, for a program that waits for each answer."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import evolve

from stackconf.actor import current_actor
from stackconf.apply import Report
from stackconf.client import calls, http
from stackconf.client.surface import missing
from stackconf.errors import InvalidConfig

if TYPE_CHECKING:
    import httpx

    from stackconf.apply import Observer
    from stackconf.choosing import Chosen, Listed
    from stackconf.client.calls import Call
    from stackconf.comparison import Comparison
    from stackconf.configurations import Registered
    from stackconf.conflicts import OnConflict
    from stackconf.described import DescribedType, ListedProvider, ListedType
    from stackconf.drift import Drift
    from stackconf.errors import PluginLoadError
    from stackconf.events import Event
    from stackconf.export.export import Exported
    from stackconf.given import OnDropped, Source
    from stackconf.hardware.facts import Hardware
    from stackconf.hardware.shares import Share
    from stackconf.history import Difference, History, RolledBack
    from stackconf.plan import Plan
    from stackconf.status import StackStatus
    from stackconf.store.base import Configuration, Pruned, Revision
    from stackconf.store.lastgood import LastGood
    from stackconf.types import Issue, Origin

T = TypeVar("T")


class Client:
    """A stack that a server hosts; the surface of `Stack`.

    `url` is the server's address, such as `http://127.0.0.1:8420`; without it `STACKCONF_URL`.
    `token` is sent as a bearer token; without it that of `STACKCONF_TOKEN`, or of the file that
    `STACKCONF_TOKEN_FILE` names. Methods raise what `Stack` raises, and besides `Unreachable` and
    `AccessDenied`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        verify: Any = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise InvalidConfig("the client needs httpx: pip install 'stackconf[client]'") from error
        self.url = http.address(url)
        token = http.token_of(token)
        self._http = httpx.Client(
            base_url=self.url, headers=http.headers(token), verify=verify, transport=transport
        )
        self.configurations = RemoteConfigurations(self)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise missing(self, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @property
    def hardware(self) -> Hardware:
        """What is known about the machine that hosts the stack."""
        return self.do(calls.hardware())

    @property
    def name(self) -> str:
        """The stack file's name, without its folder."""
        return (self.do(calls.about())).stack

    @property
    def shares(self) -> Mapping[str, Share]:
        """What of the accelerators each provider that uses them may use, and why, by `api/provider_id`."""
        return self.do(calls.shares())

    @property
    def revision(self) -> int:
        """The head revision."""
        return (self.do(calls.about())).revision

    @property
    def issues(self) -> tuple[Issue, ...]:
        """Everything that is wrong with the stack, or was dropped."""
        return self.do(calls.issues())

    @property
    def problems(self) -> tuple[PluginLoadError, ...]:
        """The plugins that could not be loaded there and that no provider of the stack waits for."""
        return self.do(calls.problems())

    @property
    def pending(self) -> tuple[str, ...]:
        """The providers that could not be reached when the head revision was applied. The server tries
        them again by itself.
        """
        return (self.do(calls.about())).pending

    def plan(self) -> Plan:
        """What an apply would change now."""
        return self.do(calls.plan())

    def write_plan(self, path: str | os.PathLike[str], *, actor: str | None = None) -> Plan:
        """Write what an apply would change now to a file here, for `read_plan`, and return it.

        Raises `InvalidConfig`, and writes nothing, when the configuration has errors or the file cannot
        be written.
        """
        from stackconf.planfile import keep_plan

        plan, stack, store = self.do(calls.planned())
        plan = calls.with_facts(plan, self.hardware)
        keep_plan(path, plan, stack=stack, store=store, actor=actor or current_actor())
        return plan

    def read_plan(self, path: str | os.PathLike[str]) -> Plan:
        """The plan in a file here, for `apply`, which refuses it if anything moved since.

        Raises `InvalidConfig` when it is no such file, was changed, or is another stack's.
        """
        from stackconf.planfile import kept_plan

        about = self.do(calls.about())
        return kept_plan(path, stack=about.stack, store=about.store)

    def status(self) -> StackStatus:
        """For each provider what is wanted, what was tried last, and what it runs with."""
        return self.do(calls.status())

    def drift(self) -> Drift:
        """Where what is applied differs from what the files say, and who or what did it."""
        return self.do(calls.drift())

    def compare(self, machines: Mapping[str, Hardware]) -> Comparison:
        """The effective configuration on several machines side by side, under the assigned
        configurations. Changes nothing. Raises `InvalidConfig` when there is no machine.
        """
        return self.do(calls.compare(machines))

    def providers(self) -> tuple[ListedProvider, ...]:
        """The stack's providers and their state, in the file's order; then those that it disables."""
        return self.do(calls.providers())

    def provider_types(self) -> tuple[ListedType, ...]:
        """The provider types that are installed there, or those of the runtime, by name."""
        return self.do(calls.provider_types())

    def provider_type(self, name: str) -> DescribedType:
        """A provider type with its fields and its JSON schema, by its name or that of a provider."""
        return self.do(calls.provider_type(name))

    def applied(self) -> LastGood:
        """What was last applied to each provider, secrets redacted."""
        return self.do(calls.applied())

    def effective(self) -> dict[str, Any]:
        """Every provider's whole configuration, secrets redacted, in the stack file's shape."""
        return self.do(calls.effective())

    def explain(self, provider: str, field: str | None = None) -> list[Origin]:
        """Where each value of a provider is from, or those at and below one field."""
        return self.do(calls.explain(provider, field))

    def key_of(self, provider: str) -> str:
        """The `api/provider_id` that a person means. Raises `UnknownName`."""
        return self.do(calls.key_of(provider))

    def history(self, *, limit: int | None = None) -> History:
        """The revisions and the attempts to apply them, newest first, at most `limit` of each."""
        return self.do(calls.history(limit))

    def show(self, revision: int | str = "head") -> Revision:
        """A revision with what is registered and assigned at it; any secret is redacted."""
        return self.do(calls.show(revision))

    def diff(self, before: int | str, after: int | str = "head", *, effective: bool = False) -> Difference:
        """What changed from one revision to another, by configuration and field."""
        return self.do(calls.diff(before, after, effective=effective))

    def rollback(
        self, revision: int | str, *, actor: str | None = None, expected_revision: int | None = None
    ) -> RolledBack:
        """Register and assign again what an old revision had, as a new one that says so."""
        return self.do(calls.rollback(revision, expected_revision), actor)

    def prune(self, keep: int) -> Pruned:
        """Forget all but the newest `keep` revisions and attempts, and nothing that is in use."""
        return self.do(calls.prune(keep))

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

        The server carries it out to its end, also where this program goes away meanwhile: Ctrl-C here
        takes nothing back, and stops nothing there.
        """
        body = calls.apply(plan, require_healthy=require_healthy, wait=wait)
        return self._report("/v1/apply", body, actor, observer)

    def retry(self, *, actor: str | None = None, observer: Observer | None = None) -> Report:
        """Apply what is pending, and nothing else. Raises as `apply` does."""
        return self._report("/v1/retry", {}, actor, observer)

    def recover(
        self, *, actor: str | None = None, observer: Observer | None = None, wait: float = 0.0
    ) -> Report:
        """Take the providers of which nobody knows what they run with back to what they had."""
        return self._report("/v1/recover", {"wait": wait}, actor, observer)

    def apply_events(
        self,
        plan: Plan | None = None,
        *,
        require_healthy: bool = False,
        actor: str | None = None,
        wait: float = 0.0,
    ) -> Iterator[Event]:
        """As `apply`, yielding each `Progress` as it happens and the `Report` at the end."""
        return self._stream("/v1/apply", calls.apply(plan, require_healthy=require_healthy, wait=wait), actor)

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

        def run(observer: Observer) -> Report:
            return self.apply(
                plan, require_healthy=require_healthy, actor=actor, observer=observer, wait=wait
            )

        return events_async(run)

    def export(
        self,
        to: str | os.PathLike[str] | None = None,
        *,
        in_place: bool = False,
        applied: bool = False,
        class_defaults: bool = False,
    ) -> Exported:
        """The configuration as a stack file. With `to` it is written here, as a new file.

        Raises `InvalidConfig` when `to` exists, and for `in_place`: the server's own file is changed
        where it is.
        """
        if in_place:
            raise InvalidConfig("the server's stack file is changed where it is, not over HTTP")
        if to is not None and Path(to).exists():
            raise InvalidConfig(f"{to} exists; over HTTP the export is a new file")
        exported = self.do(calls.export(applied=applied, class_defaults=class_defaults))
        if to is not None:
            from stackconf.export.target import write_new

            write_new(to, exported.text)
        return exported

    def _report(
        self, path: str, body: dict[str, Any], actor: str | None, observer: Observer | None
    ) -> Report:
        report: Report | None = None
        for event in self._stream(path, body, actor):
            if isinstance(event, Report):
                report = event
            elif observer is not None:
                observer(event)
        assert report is not None  # noqa: S101 (the stream ends with one, or raises)
        return report

    def do(self, call: Call[T], actor: str | None = None) -> T:
        """Send a request, and read its answer."""
        import httpx

        try:
            answer = self._http.request(
                call.method,
                call.path,
                params=http.query(call.query),
                content=http.body(call.body),
                headers=http.sent(actor, call.body),
                timeout=http.timeouts(call.seconds),
            )
        except httpx.TransportError as error:
            raise http.unreachable(self.url, error) from error
        media_type = answer.headers.get("content-type", "")
        return calls.read(call, answer.status_code, answer.content, media_type, self.url)

    def _stream(self, path: str, body: dict[str, Any], actor: str | None) -> Iterator[Event]:
        import httpx

        sent = {**http.sent(actor, body), b"Accept": b"text/event-stream"}
        events = http.Events(self.url)
        try:
            with self._http.stream(
                "POST", path, content=http.body(body), headers=sent, timeout=http.timeouts(http.silence(body))
            ) as answer:
                if answer.is_error:
                    content = answer.read()
                    media_type = answer.headers.get("content-type", "")
                    calls.read(_NOTHING, answer.status_code, content, media_type, self.url)
                for line in answer.iter_lines():
                    yield from events.feed(line)
        except httpx.TransportError as error:
            raise events.broken(error) from error
        events.finish()


class RemoteConfigurations:
    """The registered configurations of a stack that a server hosts."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def inspect(self) -> dict[str, Any]:
        """The user fields of every provider, in issue 993's shape."""
        return self._client.do(calls.inspect())

    def list(self, *, fit: bool = False) -> list[Listed]:
        """Every configuration, available or assigned, with its source; assigned ones first. With `fit`
        those that say for which machine they are, are compared with the server's.
        """
        return self._client.do(calls.list_(fit=fit))

    def get(self, name: str) -> Configuration:
        """One configuration, registered or shipped. Raises `UnknownName`."""
        return self._client.do(calls.get(name))

    def register(
        self,
        config: Source,
        name: str = "default",
        *,
        assign: bool = True,
        on_dropped: OnDropped = "warn",
        expected_revision: int | None = None,
        on_conflict: OnConflict = "refuse",
        actor: str | None = None,
        seal: bool = True,
    ) -> Registered:
        """Register a configuration and, unless told otherwise, assign it."""
        call = calls.register(
            config,
            name,
            assign=assign,
            on_dropped=on_dropped,
            expected_revision=expected_revision,
            on_conflict=on_conflict,
            seal=seal,
        )
        return self._client.do(call, actor)

    def assign(
        self,
        name: str,
        *,
        actor: str | None = None,
        expected_revision: int | None = None,
        on_conflict: OnConflict = "refuse",
    ) -> int:
        """Make a configuration part of the overlay, above those assigned before. The revision."""
        call = calls.change("assign", name, expected_revision=expected_revision, on_conflict=on_conflict)
        return self._client.do(call, actor)

    def assign_best(
        self,
        providers: Sequence[str] = (),
        *,
        actor: str | None = None,
        expected_revision: int | None = None,
        on_conflict: OnConflict = "refuse",
    ) -> Chosen:
        """Assign the shipped configuration that the server's machine is for, of those that set these
        providers. Raises `InvalidConfig` when none fits, with what the nearest lack.
        """
        keys = [self._client.key_of(each) for each in providers]
        from stackconf.choosing import choose

        chosen = choose(self.list(fit=True), keys)
        revision = self.assign(
            chosen.name, actor=actor, expected_revision=expected_revision, on_conflict=on_conflict
        )
        return evolve(chosen, revision=revision)

    def unassign(
        self,
        name: str,
        *,
        actor: str | None = None,
        expected_revision: int | None = None,
        on_conflict: OnConflict = "refuse",
    ) -> int:
        """Take a configuration out of the overlay; it stays available. The revision."""
        call = calls.change("unassign", name, expected_revision=expected_revision, on_conflict=on_conflict)
        return self._client.do(call, actor)

    def unregister(
        self,
        name: str,
        *,
        actor: str | None = None,
        expected_revision: int | None = None,
        on_conflict: OnConflict = "refuse",
    ) -> int:
        """Forget a registered configuration, unassigning it first. The revision."""
        call = calls.change("unregister", name, expected_revision=expected_revision, on_conflict=on_conflict)
        return self._client.do(call, actor)


_NOTHING: Call[None] = calls.Call("POST", "", lambda _: None)
