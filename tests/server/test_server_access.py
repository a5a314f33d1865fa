"""Who is served by a real server, by tokens, by the names it is asked under, by origin, and over TLS."""

from __future__ import annotations

import signal
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from server_kit import PATIENCE, Server, serving
from test_server_requests import READ, WRITE, raw, tokens

from stackconf import AccessDenied, Client


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("open"), "--allow-host", "Stack.Example") as server:
        server.until("applied: ")
        yield server


def status(server: Server, head: str, line: str = "GET /v1/plan HTTP/1.1") -> int:
    """The status of an answer to a request with these lines."""
    answer = raw(server, f"{line}\r\n{head}\r\n".encode("latin-1"))
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost", 200),
        ("LOCALHOST:8420", 200),
        ("localhost.", 200),
        ("app.localhost:1", 200),
        ("127.0.0.1", 200),
        ("127.8.9.1:80", 200),
        ("[::1]", 200),
        ("[::1]:8420", 200),
        ("stack.example", 200),
        ("STACK.example.:443", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.1.nip.io", 403),
        ("notlocalhost", 403),
        ("0.0.0.0", 403),
        ("10.0.0.1", 403),
        ("[::]", 403),
        ("[fe80::1%25eth0]", 403),
        ("[::1%25eth0]", 403),
        ("stack.example.evil", 403),
        ("2130706433", 403),
        ("127.1", 403),
        ("localhost@evil.example", 400),
        ("evil.example@localhost", 400),
        ("localhost:80@evil.example", 400),
        ("localhost/evil", 400),
        ("localhost,evil.example", 400),
        ("localhost evil.example", 400),
        ("[::1", 400),
        ("[::1]x", 400),
        ("", 403),
    ],
)
def test_under_which_name(server: Server, host: str, code: int) -> None:
    assert status(server, f"Host: {host}\r\n") == code


def test_other_ways_to_say_a_name(server: Server) -> None:
    assert status(server, "") == 403
    assert status(server, "", "GET /v1/plan HTTP/1.0") == 403
    assert status(server, "Host: localhost\r\n", "GET /v1/plan HTTP/1.0") == 200
    assert status(server, "Host: localhost\r\nHost: evil.example\r\n") == 400
    assert status(server, "Host: evil.example\r\nHost: localhost\r\n") == 400
    assert status(server, "Host: localhost\r\n", "GET http://evil.example/v1/plan HTTP/1.1") == 403
    assert status(server, "Host: evil.example\r\n", "GET http://localhost:80/v1/plan HTTP/1.1") == 200
    assert status(server, "Host: localhost\r\n", "GET http://[::1]:80/v1/plan HTTP/1.1") == 200
    assert status(server, "Host: localhost\r\n", "OPTIONS * HTTP/1.1") == 404
    assert status(server, "Host: localhost\r\n", "CONNECT evil.example:443 HTTP/1.1") >= 400
    assert status(server, "Host: evil.example\r\nX-Forwarded-Host: localhost\r\n") == 403


@pytest.mark.parametrize(
    ("origin", "code"),
    [
        ("http://localhost:8420", 200),
        ("HTTP://LOCALHOST:8420", 200),
        ("http://localhost:3000", 403),
        ("http://localhost", 403),
        ("http://127.0.0.1:8420", 403),
        ("http://evil.example", 403),
        ("http://localhost:8420.evil.example", 403),
        ("http://evil.example/localhost:8420", 403),
        ("http://[", 403),
        ("null", 403),
        ("", 403),
        ("file://", 403),
    ],
)
def test_of_which_origin(server: Server, origin: str, code: int) -> None:
    for method in ("GET", "HEAD", "OPTIONS", "POST", "DELETE"):
        line = f"{method} /v1/plan HTTP/1.1"
        found = status(server, f"Host: localhost:8420\r\nOrigin: {origin}\r\n", line)
        assert found == (code if code == 403 else {"GET": 200, "HEAD": 200}.get(method, 405)), method


def test_what_a_browser_says_of_the_site(server: Server) -> None:
    for site, code in (
        ("cross-site", 403),
        ("same-site", 403),
        ("x", 403),
        ("same-origin", 200),
        ("none", 200),
    ):
        assert status(server, f"Host: localhost\r\nSec-Fetch-Site: {site}\r\n") == code
    answer = raw(server, b"GET /v1/plan HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"access-control" not in answer.lower()


def test_tokens_and_scopes(tmp_path: Path) -> None:
    with serving(tmp_path, *tokens(tmp_path)) as server, server.http() as http:
        server.until("applied: ")

        def ask(path: str, given: str, method: str = "GET") -> int:
            return http.request(method, path, headers={"Authorization": given} if given else {}).status_code

        assert ask("/v1/health", "") == ask("/v1alpha/admin/version", "") == 200
        for path in (
            "/v1/plan",
            "/openapi.json",
            "/metrics",
            "/v1/ready",
            "/v1/inspect/configurations",
            "/no",
        ):
            assert ask(path, "") == 401
            assert ask(path, f"Bearer {READ}") == (404 if path == "/no" else 200)
        for wrong in (
            "Bearer",
            f"Basic {READ}",
            READ,
            f"Bearer {READ}x",
            f"Bearer {READ[:-1]}",
            "Bearer \xff",
        ):
            assert http.get("/v1/plan", headers={"Authorization": wrong.encode("latin-1")}).status_code == 401
        assert ask(f"/v1/plan?token={WRITE}", "") == 401
        assert ask("//v1/health/../plan", "") == 401
        assert ask("/v1/health%2f..%2fplan", "") == 401
        assert ask("/v1/apply", f"Bearer {READ}", "POST") == 403
        assert ask("/v1/apply", f"Bearer {WRITE}", "POST") == 200
        twice = f"Host: localhost\r\nAuthorization: Bearer {READ}\r\nAuthorization: Bearer {WRITE}\r\n"
        assert status(server, twice) == 400
        assert http.get("/v1/plan").headers["www-authenticate"].startswith("Bearer")
        with Client(server.url, token=READ) as client:
            assert client.plan().changes == ()
            with pytest.raises(AccessDenied, match="`watch` may only read"):
                client.apply()


def test_another_address_needs_a_token_and_says_so(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.7"):
        with serving(tmp_path, "--host", host) as server:
            assert server.process.wait(PATIENCE) == 1
            server.until("can be reached from other machines, so it needs a token: give --token-file FILE")
    with serving(tmp_path, "--host", "0.0.0.0", environ={"STACKCONF_SERVE_TOKEN": WRITE}) as server:
        server.until("warning 0.0.0.0 is served without TLS")
        port = server.url.rpartition(":")[2]
        told = httpx.get(f"http://127.0.0.1:{port}/v1/plan", headers={"Authorization": f"Bearer {WRITE}"})
        assert told.status_code == 200
        assert httpx.get(f"http://127.0.0.1:{port}/v1/plan").status_code == 401


@pytest.mark.exhaustive
@pytest.mark.parametrize("text", ["", "# none\n", "short\n", "a b c\n", f"a read {READ}\na write {WRITE}\n"])
def test_a_file_of_tokens_that_is_wrong(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with serving(tmp_path, "--token-file", "tokens") as server:
        assert server.process.wait(PATIENCE) == 1
        server.until("token")
    file.write_text(f"a read {READ}\n")
    file.chmod(0o644)
    with serving(tmp_path, "--token-file", "tokens") as server:
        assert server.process.wait(PATIENCE) == 1
        server.until("everybody may read these tokens; `chmod o-r tokens`")
    assert READ not in server.text


def certificate(folder: Path, name: str, passphrase: bytes | None = None) -> None:
    """A certificate for this machine, and its key: `NAME.pem`, `NAME.key`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    hidden = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    (folder / f"{name}.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, hidden))


def served_name(server: Server) -> str:
    """The name in the certificate that a new connection sees."""
    host, port = server.url.partition("://")[2].split(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host, int(port)), 30) as plain, context.wrap_socket(plain) as connection:
        made = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
    return str(made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def test_over_tls(tmp_path: Path) -> None:
    for name in ("one", "two"):
        certificate(tmp_path, name)
    pem, key = tmp_path / "served.pem", tmp_path / "served.key"
    for source, target in (("one.pem", pem), ("one.key", key)):
        target.write_bytes((tmp_path / source).read_bytes())
    options = ("--tls-cert", "served.pem", "--tls-key", "served.key", *tokens(tmp_path))
    with serving(tmp_path, *options) as server:
        server.until("applied: ")
        assert server.url.startswith("https://127.0.0.1:")
        trusted = ssl.create_default_context(cafile=pem)
        with Client(server.url, token=READ, verify=trusted) as client:
            assert client.plan().changes == ()
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{server.url}/v1/health")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{server.url.replace('https', 'http')}/v1/health")
        assert served_name(server) == "one"
        pem.write_bytes((tmp_path / "two.pem").read_bytes())
        server.send(signal.SIGHUP)
        server.until("the certificate was not taken, the old one goes on: .*the key is not that of")
        assert served_name(server) == "one"
        key.write_bytes((tmp_path / "two.key").read_bytes())
        server.send(signal.SIGHUP)
        end = 0
        while served_name(server) != "two":
            end += 1
            assert end < 500
        assert server.end() == 0
    assert "Traceback" not in server.text


@pytest.mark.parametrize(
    ("certificate_file", "key_file", "said"),
    [
        ("one.pem", "nothing.key", "nothing.key: No such file"),
        ("one.pem", "two.key", "the key is not that of the certificate"),
        ("one.pem", "hidden.key", "the key needs a passphrase; give one without"),
        ("stack.yaml", "one.key", "not a certificate and its key as PEM"),
        ("one.pem", "", "--tls-cert and --tls-key go together"),
    ],
)
def test_a_certificate_that_is_wrong(tmp_path: Path, certificate_file: str, key_file: str, said: str) -> None:
    for name in ("one", "two"):
        certificate(tmp_path, name)
    certificate(tmp_path, "hidden", b"a passphrase")
    options = ["--tls-cert", certificate_file, *(["--tls-key", key_file] if key_file else [])]
    with serving(tmp_path, *options) as server:
        assert server.process.wait(PATIENCE) == (1 if key_file else 2)
        server.until(said)
        assert server.acts() == []
