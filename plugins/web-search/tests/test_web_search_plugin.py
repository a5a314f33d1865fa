"""Against stand-ins that follow the documented protocols: the real services need keys and a network."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tomllib
import traceback
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from search_stand_in import BRAVE_KEY, TAVILY_KEY, SearchStandIn, serving

from stackconf import Provider
from stackconf.testing import fresh_process, unused_port
from stackconf_web_search import plugin
from stackconf_web_search.applying import change
from stackconf_web_search.config import BraveSearchConfig, TavilySearchConfig
from stackconf_web_search.key_check import (
    BRAVE,
    TAVILY,
    KeyRejected,
    Service,
    UnexpectedAnswer,
    check_key,
)

CANARY = "CANARY-d41d8cd98f00"
PROVIDERS = {
    "brave": Provider("tool_runtime", "brave-search", "remote::brave-search"),
    "tavily": Provider("tool_runtime", "tavily-search", "remote::tavily-search"),
}
KEYS = {"brave": BRAVE_KEY, "tavily": TAVILY_KEY}
CLASSES = {"brave": BraveSearchConfig, "tavily": TavilySearchConfig}
SERVICES = {"brave": BRAVE, "tavily": TAVILY}
BOTH = pytest.mark.parametrize("name", ["brave", "tavily"])


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def stand_in():
    with serving(SearchStandIn()) as running:
        yield running


def service_at(name, url) -> Service:
    """The service as it is, at another address: only code can do this, no configuration."""
    service = SERVICES[name]
    return evolve(service, url=url + service.url.removeprefix(f"https://{service.host}"))


def unknown_name(*_args, **_options):
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@BOTH
@pytest.mark.parametrize(
    "block",
    [
        {},
        {"api_key": None, "max_results": 3},
        {"api_key": "", "max_results": 3},
        {"api_key": "k", "max_results": "20"},
        {"api_key": "k", "max_results": 3, "timeout": 30.0, "connect_timeout": "10"},
    ],
)
def test_every_versions_form_is_accepted(name, block):
    config = CLASSES[name](**block)
    assert (config.api_key is None) == (not block.get("api_key"))


@BOTH
@pytest.mark.parametrize(
    "block",
    [{"max_result": 3}, {"max_results": 0}, {"max_results": 21}, {"timeout": 0}, {"url": "http://evil"}],
)
def test_what_is_wrong_is_refused(name, block):
    with pytest.raises(ValidationError):
        CLASSES[name](**block)


@BOTH
def test_users_may_set_the_key_and_the_number_of_results(name):
    fields = CLASSES[name].model_fields
    assert all(field.description for field in fields.values())
    labels = {field: info.json_schema_extra for field, info in fields.items() if info.json_schema_extra}
    assert labels == {
        "api_key": {"user_field": True, "update": "in_place", "secret": True},
        "max_results": {"user_field": True, "update": "in_place"},
    }


def test_the_machine_says_nothing_about_a_web_service():
    assert not hasattr(plugin, "default_config")


@BOTH
def test_without_a_key_nothing_is_asked(name):
    applied = plugin.apply_config(provider=PROVIDERS[name], config=CLASSES[name](), previous=None)
    assert applied.pending is None
    assert applied.detail.startswith("no API key: searches fail until one is set")


@BOTH
def test_leaving_takes_nothing_down(name):
    before = CLASSES[name](api_key=CANARY)
    applied = plugin.apply_config(provider=PROVIDERS[name], config=None, previous=before)
    assert "nothing was taken down" in applied.detail
    # Without an undo the hook would be called the other way round, and ask about the key.
    assert applied.undo() is None


@BOTH
def test_a_good_key_is_taken_with_stand_in(name, stand_in):
    config = CLASSES[name](api_key=f" {KEYS[name]}\n")
    applied = change(service_at(name, stand_in.url), config, None)
    assert f"{SERVICES[name].name} takes the key" in applied.detail
    assert applied.pending is None
    assert len(stand_in.requests) == 1


@BOTH
def test_a_wrong_key_is_rejected_in_one_line_with_stand_in(name, stand_in):
    with pytest.raises(KeyRejected, match=r"rejects the API key \(4\d\d\); check api_key$"):
        change(service_at(name, stand_in.url), CLASSES[name](api_key="wrong"), None)


@BOTH
@pytest.mark.parametrize("code", [401, 403])
def test_forbidden_is_rejected_with_stand_in(name, code, stand_in):
    stand_in.forced = (code, "application/json", "{}")
    with pytest.raises(KeyRejected, match=str(code)):
        change(service_at(name, stand_in.url), CLASSES[name](api_key="k"), None)


@BOTH
def test_only_a_new_key_costs_a_request_with_stand_in(name, stand_in):
    service = service_at(name, stand_in.url)
    first = CLASSES[name](api_key=KEYS[name])
    change(service, first, None)
    applied = change(service, CLASSES[name](api_key=KEYS[name], max_results=7), first)
    assert len(stand_in.requests) == 1
    assert "at most 7 results" in applied.detail
    applied.undo()
    assert len(stand_in.requests) == 1
    with pytest.raises(KeyRejected):
        change(service, CLASSES[name](api_key="another"), first)
    assert len(stand_in.requests) == 2


@BOTH
def test_after_a_killed_apply_the_key_is_checked_again_and_gives_the_same_with_stand_in(name, stand_in):
    service = service_at(name, stand_in.url)
    config = CLASSES[name](api_key=KEYS[name])
    first, second = (change(service, config, None) for _ in range(2))
    assert first.detail == second.detail
    assert len(stand_in.requests) == 2
    # The way back, in a process that knows nothing of the former one.
    back = change(service, config, CLASSES[name](api_key="tried"))
    assert (back.detail, back.pending) == (first.detail, None)
    joined_and_gone = plugin.apply_config(provider=PROVIDERS[name], config=None, previous=config)
    assert joined_and_gone.pending is None
    assert len(stand_in.requests) == 3


def test_a_used_up_quota_is_no_rejection_with_stand_in(stand_in):
    for name, code in (("brave", 429), ("tavily", 429), ("tavily", 432), ("tavily", 433)):
        stand_in.forced = (code, "application/json", "{}")
        applied = change(service_at(name, stand_in.url), CLASSES[name](api_key="k"), None)
        assert applied.pending is None
        assert f"knows the key, but answers {code}" in applied.detail


@BOTH
@pytest.mark.parametrize("code", [500, 502, 503])
def test_a_service_in_trouble_is_pending_with_stand_in(name, code, stand_in):
    stand_in.forced = (code, "text/html", "<html>")
    applied = change(service_at(name, stand_in.url), CLASSES[name](api_key="k"), None)
    assert f"answers {code}" in applied.pending


@BOTH
@pytest.mark.parametrize(
    "forced",
    [
        (200, "text/html", "<html>sign in</html>"),
        (400, "application/json", "{}"),
        (404, "text/html", "<html>"),
        (422, "application/json", '{"error": {"code": "VALIDATION"}}'),
        (422, "application/json", "[" * 100_000),
        (422, "text/html", "<html>"),
    ],
)
def test_an_answer_nobody_documented_is_refused_with_stand_in(name, forced, stand_in):
    stand_in.forced = forced
    with pytest.raises(UnexpectedAnswer) as caught:
        change(service_at(name, stand_in.url), CLASSES[name](api_key="k"), None)
    assert "\n" not in str(caught.value)


@BOTH
@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_does_not_carry_the_key_away_with_stand_in(name, code, stand_in):
    with serving(SearchStandIn()) as elsewhere:
        stand_in.forced = (code, "text/html", "")
        stand_in.location = f"{elsewhere.url}/usage"
        with pytest.raises(UnexpectedAnswer):
            change(service_at(name, stand_in.url), CLASSES[name](api_key=CANARY), None)
        assert elsewhere.requests == []


@BOTH
def test_a_service_that_hangs_or_hangs_up_is_pending_with_stand_in(name, stand_in):
    service = service_at(name, stand_in.url)
    stand_in.close = True
    assert "the connection was closed" in change(service, CLASSES[name](api_key="k"), None).pending
    stand_in.hang = True
    config = CLASSES[name](api_key="k", timeout=0.3)
    assert "no answer in time" in change(service, config, None).pending


@BOTH
def test_nobody_listens(name):
    service = service_at(name, f"http://127.0.0.1:{unused_port()}")
    applied = change(service, CLASSES[name](api_key="k"), None)
    assert applied.pending.endswith("connection refused")


def test_a_name_that_does_not_resolve(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", unknown_name)
    service = evolve(TAVILY, url="https://api.tavily.invalid/usage")
    assert change(service, TavilySearchConfig(api_key="k"), None).pending == (
        "cannot reach api.tavily.invalid: name or service not known"
    )


def test_what_is_asked_is_what_the_services_document_with_stand_in(stand_in):
    check_key(service_at("brave", stand_in.url), BRAVE_KEY)
    check_key(service_at("tavily", stand_in.url), TAVILY_KEY)
    (brave, brave_headers), (tavily, tavily_headers) = stand_in.requests
    assert brave == "/res/v1/web/search?q=brave&count=1"
    assert brave_headers["x-subscription-token"] == BRAVE_KEY
    assert tavily == "/usage"
    assert tavily_headers["authorization"] == f"Bearer {TAVILY_KEY}"


def test_keys_go_to_the_two_services_and_over_tls_only():
    assert BRAVE.url.startswith("https://api.search.brave.com/")
    assert TAVILY.url.startswith("https://api.tavily.com/")


@BOTH
def test_the_hook_asks_the_providers_own_service(name, monkeypatch):
    # The real services cannot be asked here: a proxy that nobody runs keeps the request inside.
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{unused_port()}")
    config = CLASSES[name](api_key=CANARY)
    applied = plugin.apply_config(provider=PROVIDERS[name], config=config, previous=None)
    assert applied.pending == f"cannot reach {SERVICES[name].host}: connection refused"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
    )  # fmt: skip
    both = folder / "both.pem"
    both.write_text(key.read_text(encoding="utf-8") + cert.read_text(encoding="utf-8"), encoding="utf-8")
    return both


def test_over_tls_with_stand_in(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(SearchStandIn(), certificate) as running:
        assert check_key(service_at("tavily", running.url), TAVILY_KEY) == "Tavily takes the key"


def test_a_certificate_nobody_trusts_gets_no_key_with_stand_in(certificate):
    with serving(SearchStandIn(), certificate) as running:
        with pytest.raises(UnexpectedAnswer, match=r"not trusted .*; the key was not sent"):
            check_key(service_at("tavily", running.url), TAVILY_KEY)
        assert running.requests == []


@BOTH
@pytest.mark.parametrize("code", [200, 302, 400, 401, 403, 422, 429, 432, 500])
def test_the_key_appears_in_no_outcome_with_stand_in(name, code, stand_in, capfd):
    # The worst service: it repeats the key in every place it can.
    stand_in.forced = (code, f"text/{CANARY}", f'{{"error": {{"code": "{CANARY}"}}, "detail": "{CANARY}"}}')
    stand_in.location = f"{stand_in.url}/{CANARY}"
    config = CLASSES[name](api_key=CANARY)
    seen = [repr(config), str(config), str(config.model_dump()), config.model_dump_json()]
    try:
        seen.append(repr(change(service_at(name, stand_in.url), config, None)))
    except (KeyRejected, UnexpectedAnswer) as error:
        seen += [str(error), repr(error), repr(error.args), *traceback.format_exception(error)]
    seen += capfd.readouterr()
    assert CANARY not in "".join(seen)
    assert stand_in.requests, "the key was never sent, so nothing was shown"


@BOTH
@pytest.mark.parametrize("bad", [f"{CANARY}\nX: y", f"{CANARY} x", f"{CANARY}é", f"{CANARY}\x00"])
def test_a_key_that_no_header_may_carry_is_refused_unsaid(name, bad, stand_in):
    config = CLASSES[name](api_key=bad)
    issues = list(plugin.validate_user_config(provider=PROVIDERS[name], config=config))
    assert [(issue.path, issue.level) for issue in issues] == [("api_key", "error")]
    with pytest.raises(KeyRejected) as caught:
        change(service_at(name, stand_in.url), config, None)
    assert CANARY not in str(issues) + "".join(traceback.format_exception(caught.value))
    assert stand_in.requests == []


def test_the_other_services_key_is_warned_of():
    def paths(name, **settings):
        config = CLASSES[name](**settings)
        return [i.path for i in plugin.validate_user_config(provider=PROVIDERS[name], config=config)]

    assert paths("brave", api_key="tvly-x") == ["api_key"]
    assert paths("tavily", api_key="BSAx") == ["api_key"]
    assert paths("brave", api_key="BSAx") == []
    assert paths("tavily", api_key="tvly-x") == []
    assert paths("tavily") == []
    assert paths("tavily", api_key="tvly-x", timeout=5) == ["connect_timeout"]


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_a_key_or_none_and_no_error_tells_it(text):
    config = BraveSearchConfig(api_key=text)
    assert config.api_key is None or config.api_key.get_secret_value() == text.strip()


def test_a_key_of_the_wrong_type_is_refused_without_showing_it():
    with pytest.raises(ValidationError) as caught:
        BraveSearchConfig(api_key={"nested": CANARY})
    assert CANARY not in str(caught.value)


def test_importing_the_plugin_imports_nothing_heavy():
    code = (
        "import sys; before = set(sys.modules); import stackconf_web_search.plugin; "
        "print(*sorted({m.partition('.')[0] for m in set(sys.modules) - before}))"
    )
    found = fresh_process(code)
    assert found.returncode == 0, found.stderr
    assert not {"http", "ssl", "asyncio", "pydantic", "urllib", "email"} & set(found.stdout.split())


def test_the_entry_points_are_what_the_plugin_provides():
    metadata = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    written = metadata["project"]["entry-points"]["stackconf.providers"]
    assert written == {kind.key: plugin.__name__ for kind in plugin.provides}
    installed = {point.name: point for point in entry_points(group="stackconf.providers")}
    for kind in plugin.provides:
        assert installed[kind.key].load() is plugin
