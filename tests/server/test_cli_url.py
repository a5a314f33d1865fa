"""`--url`: which server is meant, what cannot be asked over HTTP, and what goes wrong on the way."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from server_kit import PLUGIN, STACK, serving
from test_cli_over_http import run

SECRET = "0123456789abcdef-write"
READER = "0123456789abcdef-read"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "stack.yaml").write_text(STACK, encoding="utf-8")
    (folder / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    return folder


@contextmanager
def answering(status: int, media_type: str, body: bytes = b"", *, tls: Path | None = None) -> Iterator[str]:
    """Something that is no stackconf server and always says the same; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def one_line(text: str) -> str:
    """What went wrong, which is one line, and perhaps a hint."""
    lines = [line for line in text.splitlines() if not line.startswith("hint: ")]
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.parametrize(
    ("status", "media_type", "body", "said"),
    [
        (200, "text/html", b"<html>", "is no stackconf server: it answered 200, text/html"),
        (502, "text/html", b"<html>", "answered 502, text/html: a proxy that does not reach its server?"),
        (
            401,
            "text/html",
            b"<html>",
            "refused the request (401); set STACKCONF_TOKEN or STACKCONF_TOKEN_FILE",
        ),
        (301, "text/html", b"", "is no stackconf server: it answered 301, text/html, which leads elsewhere"),
        (404, "application/json", b'{"detail": "Not Found"}', "is no stackconf server: it answered 404"),
        (200, "application/json", b"{}", "answered what this stackconf cannot read: "),
        (200, "application/json", b"{", "is no stackconf server: it answered 200, application/json"),
        (404, "application/problem+json", b'{"type": "about:blank"}', "does not know /v1/"),
    ],
)
def test_what_is_no_stackconf_server_is_told_in_a_line(here, status, media_type, body, said):
    with answering(status, media_type, body) as url:
        code, out, err = run(here, "--url", url, "status")
    assert (code, out) == (1, "")
    assert said in one_line(err)
    assert url in err


def test_nobody_there(here):
    code, _, err = run(here, "status", "--url", "http://127.0.0.1:1")
    assert (code, one_line(err)) == (
        1,
        "error: cannot reach http://127.0.0.1:1: Connection refused; is `stackconf serve` running there?",
    )
    code, _, err = run(here, "status", "--url", "http://no-such-host.invalid")
    assert code == 1
    assert "cannot reach http://no-such-host.invalid: " in one_line(err)


@pytest.mark.parametrize("url", ["box:8420", "ftp://box", "http://", "http://box:99999", "nonsense"])
def test_what_is_no_address(here, url):
    code, _, err = run(here, "status", "--url", url)
    assert (code, one_line(err)) == (
        1,
        f"error: {url} is not the address of a server; write http://127.0.0.1:8420",
    )


def test_a_token_does_not_go_into_the_address(here):
    code, _, err = run(here, "status", "--url", f"http://me:{SECRET}@127.0.0.1:1")
    assert code == 1
    assert "a token does not go into the address" in one_line(err)
    assert SECRET not in err


def test_a_certificate_that_nobody_knows(here, tmp_path):
    pem, crt = tmp_path / "box.pem", tmp_path / "box.crt"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=box"
    )
    subprocess.run(
        [
            *command.split(),
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            pem,
            "-out",
            crt,
        ],
        check=True,
        capture_output=True,
    )
    pem.write_text(pem.read_text() + crt.read_text())
    with answering(200, "text/html", tls=pem) as url:
        code, _, err = run(here, "--url", url, "status")
        assert code == 1
        assert (
            f"{url}: its certificate is not trusted: self-signed certificate; set SSL_CERT_FILE"
            in one_line(err)
        )
        _, _, err = run(here, "--url", url, "status", SSL_CERT_FILE=str(crt))
        assert "is no stackconf server: it answered 200" in one_line(err)
    with answering(200, "text/html") as url:
        _, _, err = run(here, "--url", url.replace("http", "https"), "status")
        assert "does not speak TLS" in one_line(err)


def test_tokens_come_from_the_environment(here):
    tokens = here / "tokens"
    tokens.write_text(f"ada write {SECRET}\nbob read {READER}\n")
    tokens.chmod(0o600)
    (here / "mine").write_text(f"{SECRET}\n")
    with serving(here, "--no-apply", "--token-file", "tokens") as server:
        url = server.url
        code, _, err = run(here, "--url", url, "plan")
        assert code == 1
        assert one_line(err).endswith("; set STACKCONF_TOKEN or STACKCONF_TOKEN_FILE")
        assert run(here, "--url", url, "plan", STACKCONF_TOKEN=READER)[0] == 0
        code, _, err = run(here, "--url", url, "apply", STACKCONF_TOKEN=READER)
        assert (code, one_line(err.splitlines()[-1])) == (1, "error: the token `bob` may only read")
        code, out, _ = run(here, "--url", url, "apply", STACKCONF_TOKEN_FILE="mine")
        assert (code, "applied" in out) == (0, True)
        machines = run(here, "--url", url, "history", "--attempts", STACKCONF_TOKEN=READER)[1]
        assert "tester (ada)" in machines
        code, _, err = run(here, "--url", url, "plan", STACKCONF_TOKEN_FILE="nowhere")
        assert one_line(err) == "error: STACKCONF_TOKEN_FILE: nowhere: No such file or directory"
    assert SECRET not in server.text


USAGE = [
    ("--url URL -s stack.yaml status", "give --url or --stack, not both"),
    ("--url URL --store x status", "give --url or --store, not both"),
    ("--url URL --plugin plugin.py status", "--plugin is for a stack here; the server of --url has its own"),
    ("--url URL --hardware l4:1 plan", "--hardware is for a stack here; the server of --url has its own"),
    ("--url URL --runtime ogx status", "--runtime is for a stack here; the server of --url has its own"),
    (
        "--url URL --skip-unknown inspect",
        "--skip-unknown is for a stack here; the server of --url has",
    ),
    (
        "--url URL secrets list",
        "`stackconf secrets list` works where the stack is, and not over HTTP",
    ),
    ("--url URL secrets new-key", "works where the stack is, and not over HTTP (--url)"),
    ("--url URL store check", "`stackconf store check` works where the stack is, and not over HTTP (--url)"),
    ("--url URL serve", "`stackconf serve` works where the stack is, and not over HTTP (--url)"),
    (
        "--url URL plugins list",
        "works where the stack is, and not over HTTP (--url)",
    ),
    ("--url URL completion bash", "works where the stack is, and not over HTTP (--url)"),
    ("--url URL check stack.yaml", "a FILE is checked here, and not over HTTP; leave --url out"),
    ("--url URL export --in-place", "--in-place changes the stack file where it is, and not over HTTP"),
    ("--url URL hardware --catalogue", "--catalogue is about no machine; leave --url out"),
]


@pytest.mark.parametrize(("command", "said"), USAGE)
def test_what_cannot_be_asked_over_http_is_wrong_usage(here, command, said):
    code, out, err = run(here, *command.replace("URL", "http://127.0.0.1:1").split())
    assert (code, out) == (2, "")
    assert said in one_line(err)


@pytest.mark.parametrize("command", ["secrets list", "store check", "plan --plugin plugin.py"])
def test_the_variable_refuses_as_the_option_does_and_says_how_to_mean_a_file(here, command):
    code, out, err = run(here, *command.split(), STACKCONF_URL="http://127.0.0.1:1")
    assert (code, out) == (2, "")
    assert "STACKCONF_URL" in one_line(err)
    assert "add -s FILE" in err


def test_the_variable_yields_to_a_file_and_is_no_matter_to_what_is_about_this_machine(here):
    away = {"STACKCONF_URL": "http://127.0.0.1:1"}
    assert "cannot reach http://127.0.0.1:1" in run(here, "status", **away)[2]
    assert "cannot reach" in run(here, "status", **away, STACKCONF_STACK="stack.yaml")[2]
    assert run(here, "-s", "stack.yaml", "--plugin", "plugin.py", "status", **away)[0] == 0
    assert run(here, "plugins", "list", **away)[0] == 0
    assert run(here, "--plugin", "plugin.py", "check", "stack.yaml", **away)[0] == 0


def test_names_are_completed_from_the_server(here):
    away = here / "away"
    away.mkdir()
    with serving(here, "--no-apply") as server:
        text = '{"inference": [{"provider_id": "one", "config": {"threads": 2}}]}'
        assert run(here, "--url", server.url, "configurations", "register", text, "--name", "mine")[0] == 0
        for words, names in (
            ("stackconf explain ", ["inference/one", "vector_io/memory"]),
            ("stackconf configurations get ", ["mine"]),
        ):
            asked = {
                "_STACKCONF_COMPLETE": "bash_complete",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split())),
                "STACKCONF_URL": server.url,
            }
            code, out, err = run(away, **asked)
            assert (code, err) == (0, "")
            assert [line.partition(",")[2] for line in out.splitlines()] == names
    _, out, err = run(away, **{**asked, "STACKCONF_URL": "http://127.0.0.1:1"})
    assert (out.strip(), err) == ("", "")


def test_the_help_shows_it_where_it_works(here):
    assert "--url URL" in run(here, "--help")[1]
    assert "--url URL" in run(here, "status", "--help")[1]
    assert "--url URL" not in run(here, "serve", "--help")[1]
    assert "--url URL" not in run(here, "store", "check", "--help")[1]
    assert "-s FILE" in run(here, "secrets", "list", STACKCONF_URL="http://x")[2]
