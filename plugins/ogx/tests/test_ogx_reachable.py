"""A provider that refuses, told from one that cannot be reached."""

from __future__ import annotations

import socket
import urllib.error

import httpx
import pytest

from stackconf_ogx.reachable import unhealthy, unreachable


def raised(
    error: BaseException, cause: BaseException | None = None, *, hidden: bool = False
) -> BaseException:
    try:
        if cause is None:
            raise error
        try:
            raise cause
        except type(cause) as inner:
            if hidden:
                raise error from None
            raise error from inner
    except type(error) as found:
        return found


class APIConnectionError(Exception):
    """As the clients name it that are generated like openai's."""


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(111, "Connection refused"),
        ConnectionResetError(104, "reset"),
        TimeoutError("timed out"),
        socket.gaierror(-2, "Name or service not known"),
        httpx.ConnectError("All connection attempts failed"),
        httpx.ReadTimeout("slow"),
        APIConnectionError("Connection error."),
        raised(RuntimeError("Ollama Server is not running"), httpx.ConnectError("refused")),
        raised(ValueError("outer"), raised(KeyError("inner"), OSError()) and ConnectionError("innermost")),
    ],
)
def test_what_comes_of_the_network_is_out_of_reach(error):
    said = unreachable(error)
    assert said
    assert "\n" not in said
    assert not said.startswith("raised ")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such model"),
        raised(ValueError("bad model"), KeyError("x")),
        PermissionError(13, "Permission denied"),
        FileNotFoundError(2, "No such file"),
        httpx.HTTPStatusError("401", request=httpx.Request("GET", "http://x"), response=httpx.Response(401)),
        ModuleNotFoundError("No module named `faiss`"),
    ],
)
def test_what_a_provider_refuses_is_not(error):
    assert unreachable(error) is None


def test_a_cause_that_was_put_away_is_no_cause():
    """`raise ... from None` says that what was handled does not matter."""
    assert unreachable(raised(ValueError("no such model"), ConnectionError("x"), hidden=True)) is None


def test_exceptions_in_a_circle_end():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert unreachable(one) is None


def test_an_address_that_urllib_cannot_reach():
    error = raised(urllib.error.URLError("refused"), ConnectionRefusedError(111, "refused"))
    assert unreachable(error)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (None, None),
        ({"status": "OK"}, None),
        ({"status": "OK", "message": "all is well"}, None),
        ({"status": "Not Implemented", "message": "x"}, None),
        ({"status": "Error"}, "its health check says: Error"),
        ({"status": "Error", "message": None}, "its health check says: Error"),
        ({"status": "Error", "message": "no answer"}, "its health check says: no answer"),
    ],
)
def test_what_a_health_check_says(told, said):
    assert unhealthy(told) == said
