"""A hosted stack over HTTP, for a program that waits for each answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from stackconf.apply import Report
from stackconf.client import calls, http
from stackconf.errors import InvalidConfig, Unreachable

if TYPE_CHECKING:
    import httpx

    from stackconf.apply import Observer
    from stackconf.client.calls import Call
    from stackconf.configurations import Listed, OnDropped, Registered
    from stackconf.conflicts import OnConflict
    from stackconf.drift import Drift
    from stackconf.events import Event
    from stackconf.export.export import Exported
    from stackconf.given import Source
    from stackconf.hardware.facts import Hardware
    from stackconf.history import Difference, History, RolledBack
    from stackconf.plan import Plan
    from stackconf.status import StackStatus
    from stackconf.store.base import Configuration, Revision
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
    def revision(self) -> int:
        """The head revision."""
        return self.do(calls.revision())

    @property
    def issues(self) -> tuple[Issue, ...]:
        """Everything that is wrong with the stack, or was dropped."""
        return self.do(calls.issues())

    def plan(self) -> Plan:
        """What an apply would change now."""
        return self.do(calls.plan())

    def status(self) -> StackStatus:
        """For each provider what is wanted, what was tried last, and what it runs with."""
        return self.do(calls.status())

    def drift(self) -> Drift:
        """Where what is applied differs from what the files say, and who or what did it."""
        return self.do(calls.drift())

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

        The server carries it out to its end, also where this program goes away meanwhile.
        """
        events = self.apply_events(plan, require_healthy=require_healthy, actor=actor, wait=wait)
        report: Report | None = None
        for event in events:
            if isinstance(event, Report):
                report = event
            elif observer is not None:
                observer(event)
        assert report is not None  # noqa: S101 (the stream ends with one, or raises)
        return report

    def recover(
        self, *, actor: str | None = None, observer: Observer | None = None, wait: float = 0.0
    ) -> Report:
        """Take the providers of which nobody knows what they run with back to what they had."""
        report: Report | None = None
        for event in self._stream("/v1/recover", {"wait": wait}, actor):
            if isinstance(event, Report):
                report = event
            elif observer is not None:
                observer(event)
        assert report is not None  # noqa: S101 (the stream ends with one, or raises)
        return report

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
            from stackconf.atomic import write_whole

            write_whole(to, exported.text.encode())
        return exported

    def do(self, call: Call[T], actor: str | None = None) -> T:
        """Send a request, and read its answer."""
        import httpx

        try:
            answer = self._http.request(
                call.method,
                call.path,
                params={key: _query(value) for key, value in call.query.items()},
                json=None if call.body is None else dict(call.body),
                headers=http.headers(None, actor) if actor else None,
                timeout=http.timeouts(call.seconds),
            )
        except httpx.TransportError as error:
            raise http.unreachable(self.url, error) from error
        media_type = answer.headers.get("content-type", "")
        return calls.read(call, answer.status_code, answer.content, media_type, self.url)

    def _stream(self, path: str, body: dict[str, Any], actor: str | None) -> Iterator[Event]:
        import httpx

        sent = {**(http.headers(None, actor) if actor else {}), "Accept": "text/event-stream"}
        reader = http.Events()
        over = False
        try:
            with self._http.stream(
                "POST", path, json=body, headers=sent, timeout=http.timeouts(None)
            ) as answer:
                if answer.is_error:
                    content = answer.read()
                    media_type = answer.headers.get("content-type", "")
                    calls.read(_NOTHING, answer.status_code, content, media_type, self.url)
                for line in answer.iter_lines():
                    for told in reader.feed(line):
                        over = over or told.name != "progress"
                        yield _event(told)
        except httpx.TransportError as error:
            raise http.unreachable(self.url, error) from error
        if not over:
            raise Unreachable(f"{self.url} went away during the apply; `status` says how it went")


class RemoteConfigurations:
    """The registered configurations of a stack that a server hosts."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def inspect(self) -> dict[str, Any]:
        """The user fields of every provider, in issue 993's shape."""
        return self._client.do(calls.inspect())

    def list(self) -> list[Listed]:
        """Every configuration, available or assigned, with its source; assigned ones first."""
        return self._client.do(calls.list_())

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


def _query(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _event(told: http.Told) -> Event:
    from stackconf.shapes.errors import error_from
    from stackconf.shapes.reports import event_from

    if told.name == "problem":
        raise error_from(told.data)
    return event_from(told.data)
