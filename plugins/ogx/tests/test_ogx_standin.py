"""What stands for a provider that upstream keeps: every kind of method, present, exchanged and absent."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator

import pytest

from stackconf_ogx.standin import StandIn


class Agents:
    """What the api can do."""

    limit: int

    async def create(self, name: str, *, model: str = "small") -> str:
        """Create one."""
        raise NotImplementedError

    def turns(self, name: str) -> AsyncIterator[str]:
        """The turns of one."""
        raise NotImplementedError


class Impl:
    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.callback = lambda: mark

    async def create(self, name: str, *, model: str = "small") -> str:
        """Create one."""
        await asyncio.sleep(0)
        return f"{self.mark} {name} {model}"

    async def turns(self, name: str) -> AsyncIterator[str]:
        for number in range(3):
            yield f"{self.mark} {name} {number}"
            await asyncio.sleep(0)

    def sync(self, *names: str) -> tuple[str, ...]:
        return (self.mark, *names)

    async def fails(self) -> None:
        raise ValueError(self.mark)


async def collected(stream: AsyncIterator[str]) -> list[str]:
    return [each async for each in stream]


def test_it_does_what_the_provider_does():
    stands = StandIn(Agents, Impl("a"))
    assert asyncio.run(stands.create("x", model="big")) == "a x big"
    assert asyncio.run(collected(stands.turns("x"))) == ["a x 0", "a x 1", "a x 2"]
    assert stands.sync("x", "y") == ("a", "x", "y")
    assert (stands.mark, stands.callback()) == ("a", "a")
    with pytest.raises(ValueError, match="a"):
        asyncio.run(stands.fails())
    with pytest.raises(AttributeError, match="nothing"):
        _ = stands.nothing
    assert not hasattr(stands, "shutdown")


def test_a_bound_method_that_somebody_keeps_asks_whoever_is_there():
    stands = StandIn(Agents, Impl("a"))
    create, turns = stands.create, stands.turns
    stands.exchange(Impl("b"))
    assert asyncio.run(create("x")) == "b x small"
    assert asyncio.run(collected(turns("x"))) == ["b x 0", "b x 1", "b x 2"]
    assert stands.mark == "b"


def test_a_stream_that_began_is_ended_by_the_provider_that_began_it():
    async def across() -> list[str]:
        stands = StandIn(Agents, Impl("a"))
        began = stands.turns("x")
        seen = [await anext(began)]
        stands.exchange(Impl("b"))
        seen += await collected(began)
        return [*seen, *await collected(stands.turns("y"))]

    assert asyncio.run(across()) == ["a x 0", "a x 1", "a x 2", "b y 0", "b y 1", "b y 2"]


def test_a_call_that_waits_is_answered_by_the_provider_that_was_asked():
    async def across() -> tuple[str, str]:
        stands = StandIn(Agents, Impl("a"))
        asked = asyncio.ensure_future(stands.create("x"))
        await asyncio.sleep(0)
        stands.exchange(None)
        first = await asked
        stands.exchange(Impl("b"))
        return first, await stands.create("x")

    assert asyncio.run(across()) == ("a x small", "b x small")


@pytest.mark.parametrize("impl", [Impl("a"), None])
def test_its_methods_have_the_signature_of_the_real_ones(impl):
    """Upstream makes the parameters of a route from it, also of a provider that is not there."""
    create = StandIn(Agents, impl).create
    assert str(inspect.signature(create)) == str(inspect.signature(Impl("a").create))
    assert (create.__name__, create.__doc__) == ("create", "Create one.")


def test_a_provider_that_is_not_there_says_so_when_it_is_asked():
    stands = StandIn(Agents)
    for ask in (lambda: stands.create("x"), lambda: stands.turns("x")):
        with pytest.raises(NotImplementedError, match=r"is not running.*stackconf status"):
            ask()
    for name in ("limit", "mark", "shutdown", "__wrapped__"):
        with pytest.raises(AttributeError, match=name):
            getattr(stands, name)
    stands.exchange(Impl("a"))
    assert asyncio.run(stands.create("x")) == "a x small"


def test_what_is_set_on_it_is_set_on_the_provider():
    one, two = Impl("a"), Impl("b")
    stands = StandIn(Agents, one)
    stands.limit = 3
    assert (one.limit, stands.limit) == (3, 3)
    stands.exchange(two)
    assert not hasattr(stands, "limit")
