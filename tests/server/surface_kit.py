"""One stack behind three doors: `Stack`, and over a real socket `Client` and `AsyncClient`."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import uvicorn
from pydantic import BaseModel, SecretStr

from stackconf import (
    Applied,
    AsyncClient,
    Client,
    Hardware,
    ProviderType,
    Stack,
    because,
    hookimpl,
    user_field,
)
from stackconf.registry.metadata import DisabledPlugins
from stackconf.registry.registry import Registry
from stackconf.server.app import create_app
from stackconf.server.hosted import Hosted
from stackconf.testing import machine

MACHINE = machine(cores=4)
PATIENCE = 30.0

STACK = """\
version: 2
apis: [inference, safety, vector_io]
providers:
  inference:
  - provider_id: one
    provider_type: remote::acme
    config:
      url: http://one
      token: s3cret
  - provider_id: __disabled__
    provider_type: remote::acme
  vector_io:
  - provider_id: vectors
    provider_type: inline::acme
    config: {}
"""


class Config(BaseModel):
    url: str = user_field("http://class", update="reload", description="Where the server is")
    threads: int = user_field(1, update="in_place", ge=1, le=64)
    limits: dict[str, float] = user_field({})
    token: SecretStr | None = user_field(None)
    mode: str = "plain"


class Memory(BaseModel):
    size: int = user_field(1)


class Acme:
    """A plugin that does as the configuration's words say."""

    provides = (
        ProviderType("inference", "remote::acme", Config, description="A server of the Acme kind"),
        ProviderType("vector_io", "inline::acme", Memory, api_dependencies=("inference",)),
    )

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.up = False
        self.began, self.go_on = Event(), Event()

    @hookimpl
    def default_config(self, provider, hardware):
        if provider.api != "inference":
            return None
        return {"threads": because(hardware.cpu.usable_physical_cores, "one for each core")}

    @hookimpl
    def apply_config(self, provider, config, previous):
        act = "join" if previous is None else "leave" if config is None else "change"
        self.calls.append(f"{provider.key} {act}")
        if config is None:
            return Applied("gone", undo=lambda: None)
        url = getattr(config, "url", "")
        if "down" in url and not self.up:
            return Applied(pending="cannot reach it")
        if "slow" in url:
            self.began.set()
            assert self.go_on.wait(PATIENCE)
        if "fail" in url or getattr(config, "size", 0) == 13:
            raise ValueError("refused by http://me:hunter2@server/")
        if "stuck" in url:
            return Applied("listening", undo=lambda: 1 / 0)
        return Applied("listening", undo=lambda: None)


class Site:
    """A stack in a folder, to be opened at home or served."""

    def __init__(
        self,
        folder: Path,
        *,
        stack: str = STACK,
        hardware: Hardware | Callable[[], Hardware] = MACHINE,
        plugins: tuple[object, ...] = (),
    ) -> None:
        self.folder, self.file = folder, folder / "stack.yaml"
        if not self.file.exists():
            self.file.write_text(stack, encoding="utf-8")
        self.acme = Acme()
        self._plugins, self._hardware = plugins, hardware

    def open(self, store: Any = None) -> Stack:
        disabled = DisabledPlugins(Path("/nonexistent/disabled"))
        registry = Registry(plugins=[self.acme, *self._plugins], entry_points=False, disabled=disabled)
        return Stack.open(self.file, registry=registry, hardware=self._hardware, environ={}, store=store)

    @contextmanager
    def served(self) -> Iterator[tuple[str, Hosted]]:
        """Its address, with a server in a thread of its own behind it."""
        hosted = Hosted(self.open)
        server = uvicorn.Server(
            uvicorn.Config(create_app(hosted), port=0, log_level="warning", lifespan="off", ws="none")
        )
        socket = server.config.bind_socket()
        url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        thread = Thread(target=server.run, kwargs={"sockets": [socket]})
        try:
            with hosted.hosting(url):
                thread.start()
                yield url, hosted
                server.should_exit = True
                thread.join(PATIENCE)
                assert not thread.is_alive()
        finally:
            socket.close()
            hosted.close()


class Waiting:
    """An asynchronous client as one that waits: whatever is awaited is awaited in a loop of its own."""

    def __init__(self, client: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._client, self._loop = client, loop

    @property
    def configurations(self) -> Waiting:
        return Waiting(self._client.configurations, self._loop)

    def __getattr__(self, name: str) -> Any:
        found = self._result(getattr(self._client, name))
        if not callable(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            return self._result(found(*arguments, **options))

        return call

    def _result(self, value: Any) -> Any:
        if inspect.isawaitable(value):
            return asyncio.run_coroutine_threadsafe(_awaited(value), self._loop).result(PATIENCE)
        return self._each(value) if isinstance(value, AsyncIterator) else value

    def _each(self, events: AsyncIterator[Any]) -> Iterator[Any]:
        try:
            while True:
                yield self._result(anext(events))
        except StopAsyncIteration:
            return


async def _awaited(value: Any) -> Any:
    return await value


@contextmanager
def waiting_client(url: str) -> Iterator[Waiting]:
    """`AsyncClient`, waited for."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    client = AsyncClient(url)
    try:
        yield Waiting(client, loop)
        asyncio.run_coroutine_threadsafe(client.close(), loop).result(PATIENCE)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


@contextmanager
def door(kind: str, site: Site) -> Iterator[Any]:
    """The stack of a site: at home, or through a client."""
    if kind == "home":
        with site.open() as stack:
            yield stack
        return
    with site.served() as (url, _):
        if kind == "client":
            with Client(url) as client:
                yield client
        else:
            with waiting_client(url) as client:
                yield client


def one(**config: Any) -> dict[str, Any]:
    """A configuration of the provider `inference/one`."""
    return {"inference": [{"provider_id": "one", "config": config}]}


def size(value: int) -> dict[str, Any]:
    """A configuration of the provider `vector_io/vectors`."""
    return {"vector_io": [{"provider_id": "vectors", "config": {"size": value}}]}


def raised(call: Callable[[], Any]) -> tuple[str, str, Mapping[str, Any]]:
    """What a call raises: its type, its line, and what it carries, in plain words."""
    from stackconf import StackconfError
    from stackconf.shapes.errors import members_of

    try:
        call()
    except StackconfError as error:
        return type(error).__name__, str(error), members_of(error)
    raise AssertionError("it raised nothing")


def plain(value: object, folder: Path) -> str:
    """What is told, without the times, the keyed digests and the folder, which differ."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+Z|\b[0-9a-f]{32,}\b", "-", repr(value))
    return re.sub(r"('seconds': |seconds=)[0-9.e-]+", "", text.replace(str(folder), ""))
