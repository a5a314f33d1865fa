"""Providers that really are files, and that fail where a test says: for fault injection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from core_kit import Owner
from pydantic import BaseModel

from stackconf import Applied, user_field
from stackconf.plan import AppliedRecord, is_unknown

APIS = ("inference", "vector_io")
TYPES = ("remote::acme", "remote::bolt")


class Service(BaseModel):
    port: int = user_field(80, update="reload")


@frozen
class Fault:
    """What goes wrong: one step of one provider, `inference/acme` or any of its type."""

    step: str
    """`apply`, `check`, `undo`, `check_undo`, or `away`: it cannot be reached."""
    provider: str
    kind: str = ""


class Files:
    """A plugin whose providers are files in a folder: what stands in them is what runs.

    `way` is how it is taken back: by an `undo`, by an `undo` with `check_undo`, or, with `around`,
    by its own hook called the other way round. `hanging` makes a fault not come back instead.
    """

    def __init__(self, folder: Path, *, way: str = "undo", awaited: bool = False) -> None:
        self.folder = folder / "world"
        self.folder.mkdir(exist_ok=True)
        self.way, self.awaited = way, awaited
        self.faults: frozenset[Fault] = frozenset()
        self.hanging: threading.Event | None = None
        self.injected = 0
        self.instant: Callable[[], None] = lambda: None
        """Called before and after everything that a hook does; may raise, and the process is dead."""
        self.acts: list[str] = []
        self._turned: set[tuple[str, str]] = set()
        kinds = {f"{api}/{kind}": Service for api in APIS for kind in TYPES}
        self.owner = Owner(kinds, applying=self.apply)

    def begin(self, *faults: Fault) -> None:
        """Before an apply: what shall go wrong in it."""
        self.faults = frozenset(faults)
        self.acts.clear()
        self._turned.clear()

    def running(self) -> dict[str, str]:
        """`api/provider_id type` -> what it runs with."""
        return {file.name.replace("+", "/"): file.read_text() for file in self.folder.iterdir()}

    def apply(self, provider, config, previous):
        name = f"{provider.key} {provider.provider_type}"
        file = self.folder / name.replace("/", "+")
        before = file.read_text() if file.exists() else None
        around = (provider.key, provider.provider_type) in self._turned
        self._turned.add((provider.key, provider.provider_type))
        steps = ("undo", "check_undo") if around else ("apply", "check")
        at = self._at(provider)

        def put(text: str | None) -> None:
            if text is None:
                file.unlink(missing_ok=True)
            else:
                file.write_text(text)

        def act():
            self.acts.append(f"{steps[0]} {provider.key}")
            if at("away"):
                return Applied(pending="connection refused")
            self._fail(at(steps[0]), f"{steps[0]} went wrong")
            self.instant()
            put(None if config is None else f"port {config.port}")
            self.instant()
            said = f"port {config.port}" if config else "gone"
            taken_back = {} if self.way == "around" else {"undo": self._wrapped(undo)}
            if self.way == "check_undo":
                taken_back["check_undo"] = self._wrapped(lambda: check("check_undo"))
            return Applied(said, check=self._wrapped(lambda: check(steps[1])), **taken_back)

        def check(step):
            self.acts.append(f"{step} {provider.key}")
            self.instant()
            sick = at(step)
            self._fail(sick and self.hanging is not None, "late")
            return f"{step} is sick" if sick else None

        def undo():
            self.acts.append(f"undo {provider.key}")
            self._fail(at("undo"), "undo went wrong")
            self.instant()
            put(before)
            self.instant()

        return self._wrapped(act)()

    def _at(self, provider) -> Callable[[str], bool]:
        def at(step: str) -> bool:
            places = [Fault(step, provider.key), Fault(step, provider.key, provider.provider_type)]
            found = any(place in self.faults for place in places)
            self.injected += found
            return found

        return at

    def _fail(self, wrong: object, text: str) -> None:
        if not wrong:
            return
        if self.hanging is not None:
            self.hanging.wait(30)
        raise RuntimeError(text)

    def _wrapped(self, function: Callable[[], Any]) -> Callable[[], Any]:
        if not self.awaited:
            return function

        async def run():
            return function()

        return run


def stack_of(ports: Mapping[str, int], kinds: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A stack file with these providers, each with its port."""
    providers: dict[str, list[dict[str, Any]]] = {}
    for key, port in ports.items():
        api, provider_id = key.split("/")
        kind = (kinds or {}).get(key, TYPES[0])
        entry = {"provider_id": provider_id, "provider_type": kind, "config": {"port": port}}
        providers.setdefault(api, []).append(entry)
    return {"providers": providers}


def named(record: AppliedRecord) -> str:
    """A record's provider as `Files.running` names it."""
    return f"{record.provider.key} {record.provider.provider_type}"


def known_world(records: Iterable[AppliedRecord]) -> dict[str, str]:
    """What must run, of the providers of which the store says what runs."""
    return {named(record): f"port {record.snapshot['port']}" for record in records if not is_unknown(record)}


def tell(text: str) -> None:
    """Print a count for whoever runs the tests with `-s`."""
    print(f"\n{text}")  # noqa: T201
