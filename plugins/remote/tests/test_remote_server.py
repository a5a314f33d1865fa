"""Servers of a product that there is not, over real sockets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from threading import Event
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stackconf.testing import fresh_process, serve, unused_port
from stackconf_remote.network import NetworkConfig, TlsConfig, is_this_machine, server_address
from stackconf_remote.server import (
    CONNECT_SECONDS,
    READ_SECONDS,
    JsonServer,
    Rejected,
    Unreachable,
    headers_of,
    one_line,
    timeouts_of,
    tls_context,
)

SECRET = "s3cret-token"


class Acme(JsonServer):
    product: ClassVar[str] = "Acme"
    kind: ClassVar[str] = "an Acme server"
    most_bytes: ClassVar[int] = 1000
    unauthorised: ClassVar[str] = "acme_key"


@contextmanager
def acme(answer: Callable[[BaseHTTPRequestHandler], None], **more: Any) -> Iterator[Acme]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with serve(Handler) as url:
        yield Acme(url, **more)


def send(handler: BaseHTTPRequestHandler, status: int, text: str, **headers: str) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(text.encode())))
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(text.encode())


def test_what_is_sent_and_what_comes_back():
    seen: list[tuple[str, str, Any, str | None]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        seen.append((handler.command, handler.path, body, handler.headers.get("X-Team")))
        send(handler, 200, '{"version": "1"}')

    with acme(answer, headers={"X-Team": "a"}) as server:
        assert server.ask("GET", "/v") == {"version": "1"}
        assert Acme(f"{server.address}/behind/").ask("POST", "/v", {"a": 1}) == {"version": "1"}
    assert seen == [("GET", "/v", b"", "a"), ("POST", "/behind/v", b'{"a": 1}', None)]


def test_a_list_is_taken_where_it_is_asked_for():
    with acme(lambda handler: send(handler, 200, '[{"id": 0}]')) as server:
        assert server.ask_list("GET", "/") == [{"id": 0}]
        with pytest.raises(Rejected, match="not like an Acme server"):
            server.ask("GET", "/")
    answering = acme(lambda handler: send(handler, 200, "{}"))
    with answering as server, pytest.raises(Rejected, match="not like an Acme server"):
        server.ask_list("POST", "/", [{"id": 0}])


@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (404, '{"error": "no\\nmodel"}', r"^Acme at http://\S+ answers 404: no model$"),
        (400, "not JSON", r"^Acme at \S+ answers 400: Bad Request$"),
        (400, '{"error": {"message": "deep"}}', "answers 400: Bad Request$"),
        (401, "{}", r"answers 401: Unauthorized; check acme_key$"),
        (299, "{}", "answers 299: no known status$"),
        (301, "{}", "answers 301: Moved Permanently$"),
        (200, "[]", r"answers, but not like an Acme server \(application/json\); check url$"),
        (200, '{"a": "' + 1000 * "x" + '"}', "does not speak HTTP as Acme does; check url$"),
        (200, 400 * "[", "not like an Acme server"),
    ],
)
def test_what_a_server_rejects_is_one_line(status, text, message):
    answering = acme(lambda handler: send(handler, status, text))
    with answering as server, pytest.raises(Rejected, match=message) as caught:
        server.ask("GET", "/")
    assert caught.value.status == (0 if status == 200 else status)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_that_reaches_nothing_rejects_nothing(status):
    answering = acme(lambda handler: send(handler, status, '{"error": "queue full"}'))
    with answering as server, pytest.raises(Unreachable, match=rf"is not ready \({status}\): queue full$"):
        server.ask("GET", "/")


def test_a_secret_that_the_server_repeats_is_covered():
    def answer(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 403, json.dumps({"error": f"{handler.headers['Authorization']} ({SECRET}) is wrong"}))

    with acme(answer, headers=headers_of(SECRET, None)) as server:
        with pytest.raises(Rejected, match=r"\*{8} \(\*{8}\) is wrong$") as caught:
            server.ask("GET", "/")
        assert SECRET not in repr(server) + str(caught.value)


def test_a_redirect_is_not_followed():
    asked: list[str] = []
    with acme(lambda handler: (asked.append(handler.path), send(handler, 200, "{}"))[1]) as other:

        def away(handler: BaseHTTPRequestHandler) -> None:
            send(handler, 302, "{}", Location=f"{other.address}/stolen")

        answering = acme(away, headers=headers_of(SECRET, None))
        with answering as server, pytest.raises(Rejected, match="answers 302: Found"):
            server.ask("GET", "/")
    assert asked == []


def test_the_proxy_variables_are_not_followed(monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    with acme(lambda handler: send(handler, 200, "{}")) as server:
        assert server.ask("GET", "/") == {}


@pytest.mark.parametrize("headers_first", [False, True])
def test_a_timeout_is_for_the_whole_answer_however_slowly_it_drips(headers_first):
    done = Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        if headers_first:
            handler.send_response(200)
            handler.send_header("Content-Length", "100000")
            handler.end_headers()
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not done.wait(0.02):
            try:
                handler.wfile.write(b" ")
            except OSError:
                return

    with acme(drip) as server:
        began = time.monotonic()
        with pytest.raises(Unreachable, match=r"no answer to GET /slow within 0\.3 s$"):
            server.ask("GET", "/slow", timeout=0.3)
        took = time.monotonic() - began
        done.set()
    assert 0.3 <= took < 5


def test_an_answer_that_ends_early_is_no_answer():
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"{}")

    with acme(answer) as server, pytest.raises(Unreachable, match="closed the connection without a full"):
        server.ask("GET", "/")


def test_nobody_there():
    with pytest.raises(Unreachable, match=r"^cannot reach http://127.0.0.1:\d+: connection refused$"):
        Acme(f"http://127.0.0.1:{unused_port()}").ask("GET", "/")


def test_what_is_no_host_name():
    with pytest.raises(Rejected, match="no valid host name"):
        Acme("http://a..b:1").ask("GET", "/")


def test_a_server_without_tls_is_not_trusted():
    with acme(lambda handler: send(handler, 200, "{}")) as server:
        secure = Acme(server.address.replace("http:", "https:"))
        with pytest.raises(Rejected, match="no trusted TLS connection"):
            secure.ask("GET", "/")


@pytest.mark.parametrize(
    ("tls", "message"),
    [
        ({"verify": "/nowhere/ca.pem"}, "names a file that cannot be read: no such file"),
        ({"ciphers": ["NONE-SUCH"]}, "network.tls is not usable: No cipher can be selected"),
        ({"client_cert": "/nowhere", "client_key": "/nowhere"}, "names a file that cannot be read"),
    ],
)
def test_tls_that_is_not_usable(tls, message):
    with pytest.raises(Rejected, match=message):
        tls_context(TlsConfig(**tls))


def test_tls_as_configured():
    context = tls_context(TlsConfig(verify=False, min_version="TLSv1.3"))
    assert not context.check_hostname
    assert context.minimum_version.name == "TLSv1_3"
    assert tls_context(None).check_hostname


def test_headers_go_with_the_token_and_bad_ones_are_refused_without_their_value():
    network = NetworkConfig(headers={"X-Team": " a "})
    assert headers_of("t", network) == {"Authorization": "Bearer t", "X-Team": "a"}
    assert headers_of(None, None) == {}
    with pytest.raises(Rejected, match="'a b' is no HTTP header name"):
        headers_of(None, NetworkConfig(headers={"a b": "c"}))
    for token in (f"{SECRET}\r\nX: y", f"{SECRET}\u20ac"):
        with pytest.raises(Rejected, match="the value of the header Authorization") as caught:
            headers_of(token, None)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        (None, (CONNECT_SECONDS, READ_SECONDS)),
        (7, (7, 7)),
        ({"connect": 1}, (1, READ_SECONDS)),
        ({"read": 9}, (CONNECT_SECONDS, 9)),
    ],
)
def test_timeouts(timeout, seconds):
    assert timeouts_of(NetworkConfig(timeout=timeout)) == seconds


def test_a_configuration_knows_its_keys_and_keeps_its_values_to_itself():
    for bad in (
        {"tls": {"verfy": SECRET}},
        {"proxy": {"url": SECRET, "http": SECRET}},
        {"timeout": SECRET},
        {"tls": {"client_cert": SECRET}},
        {"limits": {"max_connections": SECRET}},
    ):
        with pytest.raises(ValidationError) as caught:
            NetworkConfig(**bad)
        assert SECRET not in str(caught.value)
    assert SECRET not in repr(NetworkConfig(headers={"a": SECRET}))
    assert NetworkConfig(tls={"verify": "False"}).tls == TlsConfig(verify=False)


@given(st.text() | st.from_regex(r"https?://[ -~]*", fullmatch=True))
def test_an_address_is_one_line_of_a_scheme_and_a_host_or_says_what_to_write(text):
    try:
        address = server_address(text, example="http://localhost:1", credential="acme_key")
    except ValueError as error:
        said = str(error)
    else:
        assert server_address(address, example="", credential="") == address
        assert address.lower().startswith(("http://", "https://"))
        assert not any(character.isspace() for character in address)
        return
    assert "http://localhost:1" in said or "acme_key" in said


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("http://localhost", True),
        ("http://a.localhost.:1", True),
        ("http://127.1.2.3:1", True),
        ("http://[::1]:1", True),
        ("http://0.0.0.0", True),
        ("http://localhost.example.com", False),
        ("http://10.0.0.1", False),
        ("http://gpu-box", False),
    ],
)
def test_whether_an_address_means_this_machine(address, here):
    assert is_this_machine(address) is here


@given(st.text(), st.integers(1, 40))
def test_foreign_text_becomes_one_short_line(text, most):
    line = one_line(text, most)
    assert len(line) <= most
    assert "\n" not in line
    assert "\x1b" not in line


def test_a_configuration_needs_no_http():
    code = "import sys, stackconf_remote.network; print({'ssl', 'http.client'} & set(sys.modules))"
    found = fresh_process(code)
    assert found.stdout.strip() == "set()", found.stderr
