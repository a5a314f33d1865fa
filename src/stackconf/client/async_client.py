"""A hosted stack over HTTP, for a program with an event loop."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
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


class AsyncClient:
    """A stack that a server hosts; the surface of `Stack`. Every method, and every property, is awaited.

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
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise InvalidConfig("the client needs httpx: pip install 'stackconf[client]'") from error
        self.url = http.address(url)
        token = http.token_of(token)
        self._http = httpx.AsyncClient(
            base_url=self.url, headers=http.headers(token), verify=verify, transport=transport
        )
        self.configurations = AsyncRemoteConfigurations(self)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise missing(self, name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @property
    async def hardware(self) -> Hardware:
        """What is known about the machine that hosts the stack."""
        return await self.do(calls.hardware())

    @property
    async def name(self) -> str:
        """The stack file's name, without its folder."""
        return (await self.do(calls.about())).stack

    @property
    async def shares(self) -> Mapping[str, Share]:
        """What of the accelerators each provider that uses them may use, and why, by `api/provider_id`."""
        return await self.do(calls.shares())

    @property
    async def revision(self) -> int:
        """The head revision."""
        return (await self.do(calls.about())).revision

    @property
    async def issues(self) -> tuple[Issue, ...]:
        """Everything that is wrong with the stack, or was dropped."""
        return await self.do(calls.issues())

    @property
    async def problems(self) -> tuple[PluginLoadError, ...]:
        """The plugins that could not be loaded there and that no provider of the stack waits for."""
        return await self.do(calls.problems())

    @property
    async def pending(self) -> tuple[str, ...]:
        """The providers that could not be reached when the head revision was applied. The server tries
        them again by itself.
        """
        return (await self.do(calls.about())).pending

    async def plan(self) -> Plan:
        """What an apply would change now."""
        return await self.do(calls.plan())

    async def write_plan(self, path: str | os.PathLike[str], *, actor: str | None = None) -> Plan:
        """Write what an apply would change now to a file here, for `read_plan`, and return it.

        Raises `InvalidConfig`, and writes nothing, when the configuration has errors or the file cannot
        be written.
        """
        from stackconf.planfile import keep_plan

        plan, stack, store = await self.do(calls.planned())
        plan = calls.with_facts(plan, await self.hardware)
        keep_plan(path, plan, stack=stack, store=store, actor=actor or current_actor())
        return plan

    async def read_plan(self, path: str | os.PathLike[str]) -> Plan:
        """The plan in a file here, for `apply`, which refuses it if anything moved since.

        Raises `InvalidConfig` when it is no such file, was changed, or is another stack's.
        """
        from stackconf.planfile import kept_plan

        about = await self.do(calls.about())
        return kept_plan(path, stack=about.stack, store=about.store)

    async def status(self) -> StackStatus:
        """For each provider what is wanted, what was tried last, and what it runs with."""
        return await self.do(calls.status())

    async def drift(self) -> Drift:
        """Where what is applied differs from what the files say, and who or what did it."""
        return await self.do(calls.drift())

    async def compare(self, machines: Mapping[str, Hardware]) -> Comparison:
        """The effective configuration on several machines side by side, under the assigned
        configurations. Changes nothing. Raises `InvalidConfig` when there is no machine.
        """
        return await self.do(calls.compare(machines))

    async def providers(self) -> tuple[ListedProvider, ...]:
        """The stack's providers and their state, in the file's order; then those that it disables."""
        return await self.do(calls.providers())

    async def provider_types(self) -> tuple[ListedType, ...]:
        """The provider types that are installed there, or those of the runtime, by name."""
        return await self.do(calls.provider_types())

    async def provider_type(self, name: str) -> DescribedType:
        """A provider type with its fields and its JSON schema, by its name or that of a provider."""
        return await self.do(calls.provider_type(name))

    async def applied(self) -> LastGood:
        """What was last applied to each provider, secrets redacted."""
        return await self.do(calls.applied())

    async def effective(self) -> dict[str, Any]:
        """Every provider's whole configuration, secrets redacted, in the stack file's shape."""
        return await self.do(calls.effective())

    async def explain(self, provider: str, field: str | None = None) -> list[Origin]:
        """Where each value of a provider is from, or those at and below one field."""
        return await self.do(calls.explain(provider, field))

    async def key_of(self, provider: str) -> str:
        """The `api/provider_id` that a person means. Raises `UnknownName`."""
        return await self.do(calls.key_of(provider))

    async def history(self, *, limit: int | None = None) -> History:
        """The revisions and the attempts to apply them, newest first, at most `limit` of each."""
        return await self.do(calls.history(limit))

    async def show(self, revision: int | str = "head") -> Revision:
        """A revision with what is registered and assigned at it; any secret is redacted."""
        return await self.do(calls.show(revision))

    async def diff(
        self, before: int | str, after: int | str = "head", *, effective: bool = False
    ) -> Difference:
        """What changed from one revision to another, by configuration and field."""
        return await self.do(calls.diff(before, after, effective=effective))

    async def rollback(
        self, revision: int | str, *, actor: str | None = None, expected_revision: int | None = None
    ) -> RolledBack:
        """Register and assign again what an old revision had, as a new one that says so."""
        return await self.do(calls.rollback(revision, expected_revision), actor)

    async def prune(self, keep: int) -> Pruned:
        """Forget all but the newest `keep` revisions and attempts, and nothing that is in use."""
        return await self.do(calls.prune(keep))

    async def apply(
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
        return await self._report("/v1/apply", body, actor, observer)

    async def retry(self, *, actor: str | None = None, observer: Observer | None = None) -> Report:
        """Apply what is pending, and nothing else. Raises as `apply` does."""
        return await self._report("/v1/retry", {}, actor, observer)

    async def recover(
        self, *, actor: str | None = None, observer: Observer | None = None, wait: float = 0.0
    ) -> Report:
        """Take the providers of which nobody knows what they run with back to what they had."""
        return await self._report("/v1/recover", {"wait": wait}, actor, observer)

    def apply_events(
        self,
        plan: Plan | None = None,
        *,
        require_healthy: bool = False,
        actor: str | None = None,
        wait: float = 0.0,
    ) -> AsyncIterator[Event]:
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
        """The same as `apply_events`."""
        return self.apply_events(plan, require_healthy=require_healthy, actor=actor, wait=wait)

    async def export(
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
        if to is not None and Path(to).exists():  # noqa: ASYNC240 (a glance at a local file)
            raise InvalidConfig(f"{to} exists; over HTTP the export is a new file")
        exported = await self.do(calls.export(applied=applied, class_defaults=class_defaults))
        if to is not None:
            from stackconf.export.target import write_new

            write_new(to, exported.text)
        return exported

    async def _report(
        self, path: str, body: dict[str, Any], actor: str | None, observer: Observer | None
    ) -> Report:
        report: Report | None = None
        async for event in self._stream(path, body, actor):
            if isinstance(event, Report):
                report = event
            elif observer is not None:
                observer(event)
        assert report is not None  # noqa: S101 (the stream ends with one, or raises)
        return report

    async def do(self, call: Call[T], actor: str | None = None) -> T:
        """Send a request, and read its answer."""
        import httpx

        try:
            answer = await self._http.request(
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

    async def _stream(self, path: str, body: dict[str, Any], actor: str | None) -> AsyncIterator[Event]:
        import httpx

        sent = {**http.sent(actor, body), b"Accept": b"text/event-stream"}
        events = http.Events(self.url)
        try:
            async with self._http.stream(
                "POST", path, content=http.body(body), headers=sent, timeout=http.timeouts(http.silence(body))
            ) as answer:
                if answer.is_error:
                    content = await answer.aread()
                    media_type = answer.headers.get("content-type", "")
                    calls.read(_NOTHING, answer.status_code, content, media_type, self.url)
                async for line in answer.aiter_lines():
                    for event in events.feed(line):
                        yield event
        except httpx.TransportError as error:
            raise events.broken(error) from error
        events.finish()


class AsyncRemoteConfigurations:
    """The registered configurations of a stack that a server hosts."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def inspect(self) -> dict[str, Any]:
        """The user fields of every provider, in issue 993's shape."""
        return await self._client.do(calls.inspect())

    async def list(self, *, fit: bool = False) -> list[Listed]:
        """Every configuration, available or assigned, with its source; assigned ones first. With `fit`
        those that say for which machine they are, are compared with the server's.
        """
        return await self._client.do(calls.list_(fit=fit))

    async def get(self, name: str) -> Configuration:
        """One configuration, registered or shipped. Raises `UnknownName`."""
        return await self._client.do(calls.get(name))

    async def register(
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
        return await self._client.do(call, actor)

    async def assign(
        self,
        name: str,
        *,
        actor: str | None = None,
        expected_revision: int | None = None,
        on_conflict: OnConflict = "refuse",
    ) -> int:
        """Make a configuration part of the overlay, above those assigned before. The revision."""
        call = calls.change("assign", name, expected_revision=expected_revision, on_conflict=on_conflict)
        return await self._client.do(call, actor)

    async def assign_best(
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
        keys = [await self._client.key_of(each) for each in providers]
        from stackconf.choosing import choose

        chosen = choose(await self.list(fit=True), keys)
        revision = await self.assign(
            chosen.name, actor=actor, expected_revision=expected_revision, on_conflict=on_conflict
        )
        return evolve(chosen, revision=revision)

    async def unassign(
        self,
        name: str,
        *,
        actor: str | None = None,
        expected_revision: int | None = None,
        on_conflict: OnConflict = "refuse",
    ) -> int:
        """Take a configuration out of the overlay; it stays available. The revision."""
        call = calls.change("unassign", name, expected_revision=expected_revision, on_conflict=on_conflict)
        return await self._client.do(call, actor)

    async def unregister(
        self,
        name: str,
        *,
        actor: str | None = None,
        expected_revision: int | None = None,
        on_conflict: OnConflict = "refuse",
    ) -> int:
        """Forget a registered configuration, unassigning it first. The revision."""
        call = calls.change("unregister", name, expected_revision=expected_revision, on_conflict=on_conflict)
        return await self._client.do(call, actor)


_NOTHING: Call[None] = calls.Call("POST", "", lambda _: None)
