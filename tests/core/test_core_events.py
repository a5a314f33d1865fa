"""An apply as a stream: what is told, and that no reader can leave it half way."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import aclosing
from pathlib import Path

import pytest
from core_kit import Owner, open_stack
from pydantic import BaseModel

from stackconf import Applied, ApplyError, StalePlan, user_field
from stackconf.apply import Progress, Report


class Server(BaseModel):
    seconds: float = user_field(0.0)
    fails: bool = user_field(False)


class World:
    """What runs; a server takes its time and may refuse."""

    def __init__(self) -> None:
        self.running: set[str] = set()

    def apply(self, provider, config, previous):
        time.sleep(config.seconds)
        if config.fails:
            raise ValueError("refused")
        self.running.add(provider.provider_id)
        return Applied("up", undo=lambda: self.running.discard(provider.provider_id), check=lambda: None)


def stack_of(folder, world: World, **servers: dict):
    entries = [
        {"provider_id": name, "provider_type": "remote::acme", "config": config}
        for name, config in servers.items()
    ]
    return open_stack(folder, {"providers": {"inference": entries}}, Owner(Server, applying=world.apply))


def told(event) -> tuple[object, ...]:
    if isinstance(event, Report):
        return ("report", event.state)
    return (event.provider, event.step, event.seconds is not None, event.position, event.total)


STEPS = [
    ("inference/a", "apply", False, 1, 2),
    ("inference/a", "apply", True, 1, 2),
    ("inference/a", "check", False, 1, 2),
    ("inference/a", "check", True, 1, 2),
    ("inference/b", "apply", False, 2, 2),
    ("inference/b", "apply", True, 2, 2),
]


def test_every_step_is_told_as_it_begins_and_ends_and_then_the_report(tmp_path):
    with stack_of(tmp_path, World(), a={}, b={}) as stack:
        seen = [*map(told, stack.apply_events())]
        assert seen == [
            *STEPS,
            ("inference/b", "check", False, 2, 2),
            ("inference/b", "check", True, 2, 2),
            ("report", "applied"),
        ]
        assert [*map(told, stack.apply_events())] == [("report", "nothing")]


def test_events_come_while_the_apply_goes_on(tmp_path):
    world = World()
    with stack_of(tmp_path, world, a={}, b={"seconds": 0.5}) as stack:
        for event in stack.apply_events():
            if isinstance(event, Progress) and (event.provider, event.step) == ("inference/b", "apply"):
                assert world.running == ({"a"} if event.seconds is None else {"a", "b"})
                if event.seconds is not None:
                    assert event.seconds >= 0.5


def test_a_failed_apply_tells_its_report_and_then_raises(tmp_path):
    world = World()
    with stack_of(tmp_path, world, a={}, b={"fails": True}) as stack:
        events = stack.apply_events()
        seen = [told(next(events)) for _ in range(9)]
        with pytest.raises(ApplyError, match="refused") as caught:
            next(events)
        assert seen == [
            *STEPS,
            ("inference/a", "undo", False, 1, 2),
            ("inference/a", "undo", True, 1, 2),
            ("report", "failed"),
        ]
        assert isinstance(caught.value.report, Report)
        assert world.running == set()


def test_what_is_refused_before_it_begins_is_raised(tmp_path):
    with stack_of(tmp_path, World(), a={}) as stack:
        plan = stack.plan()
        stack.apply()
        with pytest.raises(StalePlan):
            [*stack.apply_events(plan)]


def test_nothing_begins_before_the_first_event_is_asked_for(tmp_path):
    world = World()
    with stack_of(tmp_path, world, a={}) as stack:
        stack.apply_events().close()
        assert (world.running, stack.store.attempts()) == (set(), [])


def test_a_reader_that_stops_early_is_held_up_until_the_apply_is_over(tmp_path):
    world = World()
    with stack_of(tmp_path, world, a={"seconds": 0.2}, b={"seconds": 0.2}) as stack:
        for _ in stack.apply_events():
            break
        assert world.running == {"a", "b"}
        assert stack.store.attempts()[0].state == "applied"
    assert not [each for each in threading.enumerate() if each.name == "stackconf-events"]


def test_a_reader_that_fails_does_not_make_the_apply_fail(tmp_path):
    world = World()
    with stack_of(tmp_path, world, a={}, b={"seconds": 0.2}) as stack:
        events = stack.apply_events()
        with pytest.raises(ZeroDivisionError):
            [1 / 0 for _ in events]
        events.close()
        assert world.running == {"a", "b"}
        assert not stack.plan()


PROGRAM = """
    import sys, time
    from pydantic import BaseModel
    from stackconf import Applied, ProviderType, Stack, hookimpl
    from stackconf.registry.registry import Registry
    from stackconf.testing import machine

    class Config(BaseModel):
        pass

    class Plugin:
        provides = [ProviderType("inference", "remote::acme", Config)]
        @hookimpl
        def apply_config(self, provider, config, previous):
            time.sleep(1.0)
            return Applied("up", undo=lambda: None)

    stack = Stack.open(
        "stack.yaml", registry=Registry(plugins=[Plugin()], entry_points=False), hardware=machine()
    )
    events = stack.apply_events()
    print(next(events).step, flush=True)
"""


def run_program(folder: Path, rest: str) -> subprocess.Popen[str]:
    entry = "{{provider_id: {}, provider_type: 'remote::acme'}}"
    entries = ", ".join(map(entry.format, "ab"))
    (folder / "stack.yaml").write_text(f"providers: {{inference: [{entries}]}}", encoding="utf-8")
    (folder / "program.py").write_text(textwrap.dedent(PROGRAM) + textwrap.dedent(rest), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "program.py"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "STACKCONF_ACTOR": "ada"},
    )


def state_of(folder: Path) -> tuple[str, int]:
    from stackconf.stack import default_store_path
    from stackconf.store.sqlite import SqliteStore

    store = SqliteStore(default_store_path(folder / "stack.yaml"))
    state = store.attempts()[0].state, len(store.applied())
    store.close()
    return state


def test_an_interrupt_is_raised_once_the_apply_is_over(tmp_path):
    running = run_program(tmp_path, "for event in events: pass")
    assert running.stdout.readline() == "apply\n"
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert said.splitlines()[-1] == "KeyboardInterrupt"
    assert running.returncode == -signal.SIGINT
    assert state_of(tmp_path) == ("applied", 2)


@pytest.mark.parametrize("rest", ["sys.exit(3)", "raise SystemExit(3)", "del events; sys.exit(3)"])
def test_a_process_that_ends_waits_for_its_apply(tmp_path, rest):
    running = run_program(tmp_path, rest)
    running.communicate(timeout=30)
    assert running.returncode == 3
    assert state_of(tmp_path) == ("applied", 2)


# With an event loop


def test_the_loop_goes_on_while_events_come(tmp_path):
    world = World()

    async def main(stack) -> tuple[list, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        seen = [told(event) async for event in stack.apply_events_async()]
        ticking.cancel()
        return seen, ticks

    with stack_of(tmp_path, world, a={}, b={"seconds": 0.6}) as stack:
        seen, ticks = asyncio.run(main(stack))
    assert seen[:6] == STEPS
    assert seen[-1] == ("report", "applied")
    assert ticks >= 20


def test_a_failed_apply_raises_in_the_loop_too(tmp_path):
    async def main(stack) -> list:
        events = stack.apply_events_async()
        seen = [told(await anext(events)) for _ in range(9)]
        with pytest.raises(ApplyError, match="refused"):
            await anext(events)
        return seen

    with stack_of(tmp_path, World(), a={}, b={"fails": True}) as stack:
        assert asyncio.run(main(stack))[-1] == ("report", "failed")


@pytest.mark.parametrize("cancels", [1, 3])
def test_a_cancelled_task_ends_once_the_apply_is_over(tmp_path, cancels):
    world = World()

    async def read(stack) -> None:
        async for _ in stack.apply_events_async():
            pass

    async def main(stack) -> None:
        task = asyncio.ensure_future(read(stack))
        for _ in range(cancels):
            await asyncio.sleep(0.1)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert world.running == {"a", "b"}

    with stack_of(tmp_path, world, a={"seconds": 0.5}, b={"seconds": 0.2}) as stack:
        asyncio.run(main(stack))
        assert stack.store.attempts()[0].state == "applied"


def test_leaving_early_through_aclosing_waits_for_the_apply(tmp_path):
    world = World()

    async def main(stack) -> None:
        async with aclosing(stack.apply_events_async()) as events:
            async for _ in events:
                break
        assert world.running == {"a", "b"}

    with stack_of(tmp_path, world, a={"seconds": 0.2}, b={"seconds": 0.2}) as stack:
        asyncio.run(main(stack))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # asyncio's, of a closed loop
def test_a_loop_that_ends_before_the_apply_does_not_stop_it(tmp_path):
    world = World()
    with stack_of(tmp_path, world, a={"seconds": 0.3}, b={"seconds": 0.2}) as stack:
        loop = asyncio.new_event_loop()
        events = stack.apply_events_async()
        loop.run_until_complete(anext(events))
        loop.close()
        for thread in threading.enumerate():
            if thread.name == "stackconf-events":
                thread.join(20)
        assert world.running == {"a", "b"}
        assert stack.store.attempts()[0].state == "applied"
