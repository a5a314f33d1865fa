from __future__ import annotations

from pathlib import Path

import pytest
import stackconf_acme
from acme_server import running

from stackconf import ApplyError
from stackconf.testing import fresh_process, machine, no_hardware, stack_with, unused_port


@pytest.fixture
def server():
    with running() as server:
        yield server


def acme(url: str):
    """A real stack with this provider in it, on a machine made to order."""
    entry = {"provider_id": "acme", "provider_type": "remote::acme", "config": {"url": url}}
    return stack_with([stackconf_acme], {"inference": [entry]}, hardware=machine(cores=8, memory_gib=32))


def users(**config):
    """A configuration as a user registers it."""
    return {"inference": [{"provider_id": "acme", "config": config}]}


def test_defaults_follow_the_machine():
    small = stackconf_acme.default_config(machine(cores=8, cpu_quota=2.5, memory_gib=4))
    assert small["threads"].value == 2
    assert small["cache_bytes"].value == 256 * 1024**2
    assert "1/16 of 4 GiB" in small["cache_bytes"].reason


def test_nothing_is_derived_from_what_is_unknown():
    assert stackconf_acme.default_config(no_hardware()) == {}


def test_apply_changes_the_server_and_the_next_apply_touches_nothing(server):
    with acme(server.url) as stack:
        assert stack.apply().state == "applied"
        assert server.settings == {"threads": 8, "cache_bytes": 2 * 1024**3, "model_dir": "models"}
        assert stack.apply().state == "nothing"


def test_a_user_may_set_threads_and_the_server_follows(server):
    with acme(server.url) as stack:
        stack.apply()
        stack.configurations.register(users(threads=3))
        stack.apply()
        assert server.settings["threads"] == 3


def test_a_refusal_is_an_error_and_changes_nothing(server):
    with acme(server.url) as stack:
        stack.apply()
        stack.configurations.register(users(threads=65))
        with pytest.raises(ApplyError, match="threads must be at most 64"):
            stack.apply()
        assert server.settings["threads"] == 8


def test_undo_restores_what_the_server_had(server):
    server.settings = {"threads": 5}
    applied = stackconf_acme.apply_config(stackconf_acme.AcmeConfig(url=server.url, threads=2), None)
    assert applied.check() is None
    assert server.settings["threads"] == 2
    assert applied.check_undo() == "the server has other settings by now"
    applied.undo()
    assert server.settings == {"threads": 5}
    assert applied.check_undo() is None
    assert applied.check() == "the server has other settings by now"


def test_after_an_apply_that_was_killed_it_is_applied_again(server):
    config = stackconf_acme.AcmeConfig(url=server.url, threads=2)
    for _ in range(2):
        assert stackconf_acme.apply_config(config, None).check() is None
    assert server.settings["threads"] == 2


def test_a_server_that_is_down_leaves_the_change_pending():
    url = f"http://127.0.0.1:{unused_port()}"
    with acme(url) as stack:
        report = stack.apply()
    assert report.state == "pending"
    assert report.outcomes[0].error == f"cannot reach {url}: Connection refused"


def test_what_the_class_cannot_see_is_an_issue():
    with acme("ftp://example.org") as stack:
        assert [issue.path for issue in stack.issues] == ["config.url"]


def test_the_key_reaches_the_server_and_no_output(monkeypatch):
    monkeypatch.setenv("ACME_KEY", "s3cret-key")
    with running(api_key="s3cret-key") as server, acme(server.url) as stack:
        stack.configurations.register(users(api_key="${env.ACME_KEY}"))
        assert stack.apply().state == "applied"
        assert "s3cret-key" not in f"{stack.effective()}{stack.explain('acme')}{stack.plan()}"


def test_importing_the_plugin_imports_no_http_client():
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import stackconf_acme
        print("http.client" in sys.modules, "asyncio" in sys.modules)
    """
    done = fresh_process(code, Path(stackconf_acme.__file__).parent)
    assert done.stdout.split() == ["False", "False"]
