"""A site for the long tests: a stack whose providers are files, and the processes at work on it.

Run as a program, this is a server that has imported everything and forks a child for each line that
it is given, because a new interpreter would cost more than all that the child then does. What a child
was doing when it was killed stands in a mapped file; what its calls returned, in a file of lines.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from stackconf import Applied, ApplyBusy, ApplyError, Conflict, ProviderType, Stack, hookimpl, user_field
from stackconf.registry.metadata import DisabledPlugins
from stackconf.registry.registry import Registry
from stackconf.store import lock
from stackconf.store.sqlite import SqliteStore
from stackconf.testing import machine

PROVIDERS = [f"p{number}" for number in range(6)]
TYPES = ("remote::acme", "remote::bolt")
PHASES = (
    "elsewhere",
    "open",
    "read",
    "view",
    "register",
    "append",
    "apply",
    "waiting for the lock",
    "begin",
    "touch",
    "apply_config",
    "half written",
    "check",
    "undo",
    "undo of a provider",
    "finish",
)
SLOTS = 16


class Service(BaseModel):
    port: int = user_field(0)
    seal: str = user_field("")


def sealed(name: str, port: int) -> str:
    """A checksum that only a whole registration has right."""
    return hashlib.sha256(f"{name} {port}".encode()).hexdigest()[:16]


def is_whole(name: str, providers: Mapping[str, Sequence[Mapping[str, Any]]]) -> bool:
    """Whether a configuration is one that was registered, and not parts of two."""
    configs = [entry["config"] for entries in providers.values() for entry in entries]
    return all(config == configs[0] for config in configs) and (
        configs[0]["seal"] == sealed(name, configs[0]["port"])
    )


class Plugin:
    """Providers that are files. With `luck`, some of their steps fail, at random."""

    provides = tuple(ProviderType("inference", kind, Service) for kind in TYPES)

    def __init__(self, folder: Path, mark: Callable[[str], Any], luck: random.Random | None = None) -> None:
        self._folder, self._mark, self._luck = folder / "world", mark, luck

    def _unlucky(self, share: float) -> bool:
        return self._luck is not None and self._luck.random() < share

    def _take_time(self) -> None:
        if self._luck is not None:
            time.sleep(self._luck.uniform(0.0, 0.003))

    def _put(self, file: Path, text: str | None) -> None:
        if text is None:
            file.unlink(missing_ok=True)
            return
        with file.open("w", encoding="utf-8") as opened, self._mark("half written"):
            opened.write(text[: len(text) // 2])
            opened.flush()
            self._take_time()
            opened.write(text[len(text) // 2 :])

    @hookimpl
    def apply_config(self, provider, config, previous):
        file = self._folder / f"{provider.provider_id} {provider.provider_type}"
        with self._mark("apply_config"):
            if self._unlucky(0.05):
                return Applied(pending="connection refused")
            if self._unlucky(0.1):
                raise ValueError("rejected")
            before = file.read_text(encoding="utf-8") if file.exists() else None
            self._put(file, None if config is None else text_of(config.port, config.seal))

        def undo():
            with self._mark("undo of a provider"):
                self._take_time()
                if self._unlucky(0.04):
                    raise OSError("stuck")
                self._put(file, before)

        def check():
            with self._mark("check"):
                self._take_time()
                return "sick" if self._unlucky(0.1) else None

        return Applied("done", undo=None if self._unlucky(0.3) else undo, check=check)


def text_of(port: int, seal: str) -> str:
    """What stands in the file of a provider that runs with this."""
    return f"port {port} seal {seal}"


def running(folder: Path) -> dict[str, str]:
    """`provider_id type` -> what stands in its file."""
    return {file.name: file.read_text(encoding="utf-8") for file in (folder / "world").iterdir()}


@contextmanager
def unmarked(_phase: str) -> Iterator[None]:
    """A mark for those that are not killed."""
    yield


def write_stack_file(folder: Path, kinds: Mapping[str, str]) -> None:
    """The stack file: these providers, each of its type."""
    entries = [{"provider_id": name, "provider_type": kind, "config": {}} for name, kind in kinds.items()]
    text = yaml.safe_dump({"providers": {"inference": entries}})
    (folder / "stack.yaml").write_text(text, encoding="utf-8")


def opened(folder: Path, mark: Callable[[str], Any] = unmarked, luck: random.Random | None = None) -> Stack:
    """The site's stack, opened anew."""
    registry = Registry(
        plugins=[Plugin(folder, mark, luck)],
        entry_points=False,
        disabled=DisabledPlugins(Path("/nonexistent/disabled")),
    )
    return Stack.open(folder / "stack.yaml", registry=registry, hardware=machine(), environ={})


class Child:
    """One process at work. It never ends by itself, unless it is told to stop."""

    def __init__(self, folder: Path, slot: int, role: str, seed: int) -> None:
        self.folder, self.slot, self.role = folder, slot, role
        self.luck = random.Random(seed)
        marks = os.open(folder / "marks", os.O_RDWR)
        self.marks = mmap.mmap(marks, SLOTS * 2)
        self.acks = os.open(folder / "acks", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.name = f"{role}-{slot}"

    @contextmanager
    def mark(self, phase: str) -> Iterator[None]:
        before = self.marks[self.slot]
        self.marks[self.slot] = PHASES.index(phase)
        try:
            yield
        finally:
            self.marks[self.slot] = before

    def returned(self, kind: str, **what: object) -> None:
        """A call is back; what it said must hold from now on."""
        line = json.dumps({"kind": kind, "slot": self.slot, **what}) + "\n"
        os.write(self.acks, line.encode())

    def work(self) -> None:
        for method in ("append", "begin", "touch", "undo", "finish", "view", "read"):
            self._marked(SqliteStore, method, method)
        self._marked(lock, "_acquire", "waiting for the lock")
        act = {"registrar": self.register, "applier": self.apply, "reader": self.read}[self.role]
        with self.mark("open"):
            stack = opened(self.folder, self.mark, self.luck)
        while not self.marks[SLOTS + self.slot]:
            act(stack)
        stack.close()

    def _marked(self, place: object, name: str, phase: str) -> None:
        original = getattr(place, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            with self.mark(phase):
                return original(*args, **options)

        setattr(place, name, wrapped)

    def register(self, stack: Stack) -> None:
        keys = stack.manager.provider_keys()
        name, port = f"{self.name}-{self.luck.randrange(3)}", self.luck.randrange(1, 1_000_000)
        config = {"port": port, "seal": sealed(name, port)}
        chosen = self.luck.sample(keys, self.luck.randint(2, len(keys)))
        given = [{"provider_id": key.split("/")[1], "config": config} for key in chosen]
        expected = stack.revision if self.luck.random() < 0.3 else None
        try:
            with self.mark("register"):
                done = stack.configurations.register(
                    {"inference": given}, name=name, expected_revision=expected, actor=self.name
                )
        except Conflict:
            return
        time.sleep(self.luck.uniform(0.0, 0.005))
        self.returned("register", revision=done.revision, name=name, port=port, actor=self.name)
        if self.luck.random() < 0.1:
            act = self.luck.choice(["unassign", "unregister"])
            with self.mark("register"):
                revision = getattr(stack.configurations, act)(name, actor=self.name)
            self.returned(act, revision=revision, name=name, actor=self.name)

    def apply(self, stack: Stack) -> None:
        try:
            with self.mark("apply"):
                report = stack.apply(actor=self.name, wait=0.2)
        except ApplyBusy:
            return
        except ApplyError as error:
            report = error.report
        if report.attempt:
            self.returned("attempt", attempt=report.attempt, state=report.state)

    def read(self, stack: Stack) -> None:
        view = stack.store.view()
        head = stack.store.read(view.revision.number)
        if head != view.revision:
            self.returned("broken", error=f"revision {head.number} reads in two ways")
        for name, configuration in head.state.configurations.items():
            if not is_whole(name, configuration.providers):
                self.returned("broken", error=f"revision {head.number}: {name} is torn")
        stack.plan()
        stack.store.status()
        self.returned("read", revision=head.number)


def serve() -> None:
    """Fork a child for every line, and say how one ended when asked."""
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201
            continue
        pid = os.fork()
        if pid == 0:
            child = Child(Path(asked["folder"]), asked["slot"], asked["role"], asked["seed"])
            try:
                child.work()
            except BaseException:  # noqa: BLE001 (the test reports it)
                child.returned("broken", error=traceback.format_exc())
                os._exit(1)
            os._exit(0)
        print(pid, flush=True)  # noqa: T201 (the answer to a line)


if __name__ == "__main__":
    serve()
