"""The surface of the SDK is one: at home, over HTTP, and over HTTP with `await`."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from stackconf import AsyncClient, Client, Stack
from stackconf.client.async_client import AsyncRemoteConfigurations
from stackconf.client.client import RemoteConfigurations
from stackconf.client.surface import AT_HOME_ONLY
from stackconf.configurations import Configurations

STREAMS = {"apply_events": "AsyncIterator", "apply_events_async": "AsyncIterator"}
NOT_COMPARED = {"configurations"}
CLASSES = [
    (Stack, Client),
    (Stack, AsyncClient),
    (Configurations, RemoteConfigurations),
    (Configurations, AsyncRemoteConfigurations),
]


def public(kind: type) -> set[str]:
    names = {name for name in dir(kind) if not name.startswith("_")}
    return names | {"configurations", "manager", "store", "secrets"} if kind is Stack else names


CASES = [(home, remote, name) for home, remote in CLASSES for name in sorted(public(home))]


@pytest.mark.parametrize(("home", "remote", "name"), CASES, ids=[f"{b.__name__}-{n}" for _, b, n in CASES])
def test_every_public_name_is_there_or_says_why_not(home: type, remote: type, name: str) -> None:
    if name in NOT_COMPARED:
        return
    if name in AT_HOME_ONLY:
        assert home is Stack
        assert not hasattr(remote, name)
        return
    ours, theirs = (inspect.getattr_static(each, name) for each in (home, remote))
    assert isinstance(ours, property) == isinstance(theirs, property)
    if isinstance(ours, property):
        ours, theirs = ours.fget, theirs.fget
    at_home, over_http = inspect.signature(ours), inspect.signature(theirs)
    assert [*at_home.parameters.values()] == [*over_http.parameters.values()]
    returned = str(at_home.return_annotation)
    if remote in {AsyncClient, AsyncRemoteConfigurations}:
        returned = returned.replace("Iterator", "AsyncIterator").replace("AsyncAsync", "Async")
        assert inspect.iscoroutinefunction(theirs) == (name not in {*STREAMS, "__enter__"})
    assert str(over_http.return_annotation) == returned


def test_nothing_is_listed_as_missing_that_is_there() -> None:
    assert set(AT_HOME_ONLY) <= public(Stack)


@pytest.mark.parametrize("name", AT_HOME_ONLY)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_makes_no_sense_over_http_says_so_when_asked_for(kind: Any, name: str) -> None:
    with pytest.raises(AttributeError, match=f"{kind.__name__} has no `{name}`: "):
        getattr(kind("http://127.0.0.1:1"), name)


def test_another_name_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"Client has no `nonsense`$"):
        Client("http://127.0.0.1:1").nonsense  # noqa: B018
