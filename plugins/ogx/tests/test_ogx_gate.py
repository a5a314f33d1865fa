"""Who is inside a server, who is waited for, and who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackconf_ogx.gate import Gate

LONG, SHORT = 30.0, 0.01


class Inside:
    """Requests that stay inside until a test lets them go."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.gate.lead_to(self)
        self.go: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.go[scope["name"]] = asyncio.Event()
        await self.go[scope["name"]].wait()
        if scope["name"].startswith("bad"):
            raise ValueError(scope["name"])

    async def enter(self, name: str) -> None:
        async def nothing(*_: Any) -> Any:
            return None

        self.tasks[name] = asyncio.create_task(self.gate({"type": "http", "name": name}, nothing, nothing))
        await settled()

    async def leave(self, name: str) -> None:
        self.go.pop(name).set()
        await asyncio.wait([self.tasks.pop(name)])
        await settled()

    async def cancel(self, name: str) -> None:
        self.tasks[name].cancel()
        await asyncio.wait([self.tasks[name]])
        await settled()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(test: Callable[[Inside], Awaitable[None]]) -> None:
    async def with_a_gate() -> None:
        inside = Inside()
        try:
            await asyncio.wait_for(test(inside), LONG)
        finally:
            for each in inside.tasks.values():
                each.cancel()
            await asyncio.gather(*inside.tasks.values(), return_exceptions=True)

    asyncio.run(with_a_gate())


def test_nobody_inside_is_drained_at_once():
    async def test(inside: Inside) -> None:
        assert await inside.gate.drained(0.0)
        assert inside.gate.busy == 0

    run(test)


def test_who_was_inside_is_waited_for_and_who_came_later_is_not():
    async def test(inside: Inside) -> None:
        await inside.enter("old")
        drained = asyncio.create_task(inside.gate.drained(LONG))
        await settled()
        await inside.enter("new")
        assert inside.gate.busy == 2
        assert not drained.done()
        await inside.leave("old")
        assert drained.done()
        assert drained.result() is True
        assert inside.gate.busy == 1

    run(test)


def test_a_request_that_does_not_end_is_told():
    async def test(inside: Inside) -> None:
        await inside.enter("stuck")
        assert not await inside.gate.drained(SHORT)
        await inside.leave("stuck")
        assert await inside.gate.drained(SHORT)

    run(test)


def test_each_drain_waits_for_the_ones_before_it_and_for_no_other():
    async def test(inside: Inside) -> None:
        drains = []
        for name in ("a", "b", "c"):
            await inside.enter(name)
            drains.append(asyncio.create_task(inside.gate.drained(LONG)))
            await settled()
        await inside.leave("b")
        assert [each.done() for each in drains] == [False, False, False]
        await inside.leave("a")
        assert [each.done() for each in drains] == [True, True, False]
        await inside.leave("c")
        assert all(each.done() for each in drains)

    run(test)


@pytest.mark.parametrize("how", ["exception", "cancelled"])
def test_a_request_that_breaks_off_has_left(how):
    async def test(inside: Inside) -> None:
        await inside.enter("bad")
        drained = asyncio.create_task(inside.gate.drained(LONG))
        await settled()
        await (inside.leave("bad") if how == "exception" else inside.cancel("bad"))
        assert drained.done()
        assert inside.gate.busy == 0

    run(test)


def test_what_a_request_raises_comes_out():
    async def test(inside: Inside) -> None:
        await inside.enter("bad")
        task = inside.tasks["bad"]
        await inside.leave("bad")
        with pytest.raises(ValueError, match="bad"):
            await task

    run(test)


def test_a_closed_gate_lets_nobody_in_and_all_who_waited_afterwards_by_the_new_way():
    async def test(inside: Inside) -> None:
        other: list[str] = []

        async def fresh(scope: Any, receive: Any, send: Any) -> None:
            other.append(scope["name"])

        await inside.enter("before")
        async with inside.gate.closed():
            for name in ("a", "b"):
                await inside.enter(name)
            assert inside.gate.busy == 1
            inside.gate.lead_to(fresh)
            await inside.leave("before")
            assert other == []
        await settled()
        assert other == ["a", "b"]
        assert inside.gate.busy == 0

    run(test)


def test_a_closed_gate_opens_again_after_a_failure():
    async def test(inside: Inside) -> None:
        async def broken() -> None:
            async with inside.gate.closed():
                await inside.enter("waits")
                raise OSError("no")

        with pytest.raises(OSError, match="no"):
            await broken()
        await settled()
        assert inside.gate.busy == 1

    run(test)


def test_who_gives_up_while_the_gate_is_closed_was_never_inside():
    async def test(inside: Inside) -> None:
        async with inside.gate.closed():
            await inside.enter("impatient")
            await inside.cancel("impatient")
        assert inside.gate.busy == 0
        assert "impatient" not in inside.go

    run(test)


def test_who_closes_it_while_it_is_closed_waits_for_its_turn():
    async def test(inside: Inside) -> None:
        order: list[str] = []

        async def close(name: str, until: asyncio.Event) -> None:
            async with inside.gate.closed():
                order.append(f"{name} closes")
                await until.wait()
                order.append(f"{name} opens")

        first, second = asyncio.Event(), asyncio.Event()
        tasks = [asyncio.create_task(close(*each)) for each in (("first", first), ("second", second))]
        await settled()
        await inside.enter("request")
        second.set()
        first.set()
        await asyncio.gather(*tasks)
        assert order == ["first closes", "first opens", "second closes", "second opens"]
        await settled()
        assert inside.gate.busy == 1

    run(test)


@given(st.lists(st.sampled_from(["enter", "leave oldest", "leave newest", "break", "drain"]), max_size=40))
def test_a_drain_ends_exactly_when_the_last_of_those_inside_has_left(acts):
    """Against a model: the names that were inside when each drain began."""

    async def test(inside: Inside) -> None:
        there: list[str] = []
        drains: list[tuple[asyncio.Task[bool], set[str]]] = []
        for number, act in enumerate(acts):
            if act == "enter":
                there.append(str(number))
                await inside.enter(str(number))
            elif act == "drain":
                drains.append((asyncio.create_task(inside.gate.drained(LONG)), set(there)))
            elif there:
                name = there.pop(-1 if act == "leave newest" else 0)
                await (inside.cancel(name) if act == "break" else inside.leave(name))
            await settled()
            assert inside.gate.busy == len(there)
            for task, awaited in drains:
                assert task.done() is not bool(awaited & set(there))
        for task, _ in drains:
            task.cancel()

    run(test)


def test_a_hundred_swaps_under_steady_load_close_nothing_that_is_used():
    class Provider:
        down = False

    async def with_load() -> tuple[int, int]:
        gate, current = Gate(), [Provider()]
        answered = 0
        wrong = 0
        over = False

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal answered, wrong
            mine = current[0]
            for _ in range(3):  # as a stream: it uses what it found at its beginning
                await asyncio.sleep(0.001)
                wrong += mine.down
            answered += 1

        async def client() -> None:
            while not over:
                await gate({"type": "http"}, None, None)

        async def retire(old: Provider) -> None:
            assert await gate.drained(LONG)
            old.down = True

        gate.lead_to(app)
        clients = [asyncio.create_task(client()) for _ in range(20)]
        retiring = []
        for _ in range(100):
            await asyncio.sleep(0.001)
            old, current[0] = current[0], Provider()
            retiring.append(asyncio.create_task(retire(old)))
        await asyncio.gather(*retiring)
        over = True
        await asyncio.gather(*clients)
        assert gate.busy == 0
        return answered, wrong

    answered, wrong = asyncio.run(with_load())
    assert answered > 100
    assert wrong == 0


class Socket:
    """A client with a websocket, and the application that answers its messages one by one."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        gate.lead_to(self)
        self.said: asyncio.Queue[Any] = asyncio.Queue()
        self.sent: list[Any] = []
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] != "websocket.disconnect":
            await self.go.wait()
            await send(message)

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def connect(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.gate({"type": "websocket"}, self.said.get, self.send))


def test_who_is_only_connected_keeps_nobody_waiting():
    async def connected() -> None:
        socket = Socket(Gate())
        visit = socket.connect()
        await settled()
        assert await socket.gate.drained(SHORT)
        socket.go.clear()
        socket.said.put_nowait({"type": "websocket.receive"})
        await settled()
        assert socket.gate.busy == 1
        assert not await socket.gate.drained(SHORT)
        socket.go.set()
        assert await socket.gate.drained(LONG)
        assert socket.sent == [{"type": "websocket.receive"}]
        socket.said.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait_for(visit, LONG)
        assert (socket.gate.busy, len(socket.sent)) == (0, 1)

    asyncio.run(connected())


def test_a_websocket_of_an_application_that_was_exchanged_is_told_to_connect_again():
    async def exchanged() -> None:
        socket = Socket(Gate())
        visits = [socket.connect() for _ in range(2)]
        await settled()
        socket.go.clear()
        socket.said.put_nowait({"type": "websocket.receive"})
        await settled()
        async with socket.gate.closed():
            socket.gate.lead_to(Inside())
            await settled()
            assert not any(each.done() for each in visits)
        await settled()
        assert [each.done() for each in visits].count(True) == 1
        assert socket.sent == [{"type": "websocket.close", "code": 1012}]
        socket.go.set()
        await asyncio.wait_for(asyncio.gather(*visits), LONG)
        assert socket.sent[1:] == [{"type": "websocket.receive"}, {"type": "websocket.close", "code": 1012}]
        assert socket.gate.busy == 0

    asyncio.run(exchanged())
