from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from importlib.metadata import entry_points, version

import pytest
from pydantic import ValidationError

import stackconf_braintrust
from stackconf import Provider, StackconfError
from stackconf.testing import fresh_process, machine, no_hardware, serve, unused_port
from stackconf_braintrust import plugin, running
from stackconf_braintrust.config import BraintrustConfig
from stackconf_braintrust.scoring import SCORERS, ScorerUnavailable, ScoringUnusable

# autoevals opens its templates without naming an encoding; that is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:'encoding' argument not specified:EncodingWarning:autoevals")

PROVIDER = Provider("scoring", "braintrust", "inline::braintrust")
KEY = "sk-test-0123456789"
ROW = {
    "input_query": "Which country has the highest population?",
    "generated_answer": "People's Republic of China",
    "expected_answer": "China",
}


@pytest.fixture(autouse=True)
def _nothing_left(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "BRAINTRUST_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    yield
    running.held.clear()


@contextmanager
def _openai_stand_in(status=200):
    """OpenAI's documented `GET /models` and `POST /chat/completions` with a tool call."""
    seen = {"now": 0, "most": 0, "models": [], "together": threading.Barrier(1)}
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            if self.headers["Authorization"] != f"Bearer {KEY}":
                message = f"Incorrect API key provided: {self.headers['Authorization'][-8:]}"
                self._answer(401, {"error": {"message": message, "code": "invalid_api_key"}})
            else:
                self._answer(status, {"object": "list", "data": []})

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                seen["now"] += 1
                seen["most"] = max(seen["most"], seen["now"])
                seen["models"].append(asked["model"])
            # Answers as many at once as the test says there must be; more would be counted too.
            seen["together"].wait(30)
            time.sleep(0.02)
            with lock:
                seen["now"] -= 1
            call = {"name": "select_choice", "arguments": json.dumps({"reasons": "same", "choice": "C"})}
            message = {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
            }
            choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
            self._answer(
                200,
                {
                    "id": "1",
                    "object": "chat.completion",
                    "created": 1,
                    "model": asked["model"],
                    "choices": [choice],
                },
            )

        def _answer(self, code, body):
            data = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    with serve(Handler) as url:
        yield f"{url}/v1", seen


def _apply(config):
    return plugin.apply_config(provider=PROVIDER, config=config)


# The class


def test_upstreams_field_is_accepted_and_empty_means_none():
    assert BraintrustConfig.model_validate({"openai_api_key": ""}).openai_api_key is None
    config = BraintrustConfig.model_validate({"openai_api_key": f"{KEY}\n"})
    assert config.openai_api_key.get_secret_value() == KEY
    assert KEY not in repr(config)


@pytest.mark.parametrize("key", ["two words", "line\nbreak-secret", "schlüssel-secret"])
def test_a_key_that_no_header_can_carry_is_refused_without_repeating_it(key):
    with pytest.raises(ValidationError) as caught:
        BraintrustConfig(openai_api_key=key)
    assert key not in str(caught.value)
    assert caught.value.errors()[0]["loc"] == ("openai_api_key",)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"openai_key": "x"}, "openai_key"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"openai_base_url": "api.openai.com"}, "openai_base_url"),
        ({"openai_base_url": "https://u:p@host/v1"}, "openai_base_url"),
    ],
)
def test_mistakes_are_refused_at_their_field(config, field):
    with pytest.raises(ValidationError) as caught:
        BraintrustConfig.model_validate(config)
    assert caught.value.errors()[0]["loc"][0] == field


def test_where_the_key_is_sent_is_no_user_field():
    labels = {name: field.json_schema_extra or {} for name, field in BraintrustConfig.model_fields.items()}
    assert {name for name, label in labels.items() if not label.get("user_field")} == {"openai_base_url"}
    assert labels["openai_api_key"] == {"user_field": True, "update": "in_place", "secret": True}


# Defaults from hardware


@pytest.mark.parametrize(
    ("hardware", "rows"),
    [
        (machine(cores=1), 6),
        (machine(cores=8), 20),
        (machine(cores=64), 32),
        (machine(cores=64, cpu_quota=2.5), 6),
        (machine(cores=64, cpu_quota=0.5), 4),
    ],
)
def test_concurrency_follows_usable_cores(hardware, rows):
    given = plugin.default_config(hardware=hardware)["max_concurrency"]
    assert given.value == rows
    assert f"{hardware.cpu.usable_cores:g} usable cores + 4" in given.reason


def test_nothing_known_gives_no_defaults():
    assert plugin.default_config(hardware=no_hardware()) is None


def test_settings_of_a_judge_without_a_key_are_warned_about():
    config = BraintrustConfig(judge_model="gpt-x", openai_base_url="http://localhost:11434/v1")
    assert [(one.level, one.path) for one in plugin.validate_user_config(config=config)] == [
        ("warning", "judge_model"),
        ("warning", "openai_base_url"),
    ]
    keyed = BraintrustConfig(judge_model="gpt-x", openai_api_key=KEY)
    assert not list(plugin.validate_user_config(config=keyed))


# Applying, with the real library


def test_without_a_key_heuristics_score_and_judged_scorers_say_what_they_need():
    applied = _apply(BraintrustConfig(max_concurrency=3))
    assert applied.detail == (
        f"autoevals {version('autoevals')}, 3 rows at once; "
        "heuristic scorers work, those with a judge need openai_api_key"
    )
    assert applied.pending is None
    assert applied.check() is None
    scoring = stackconf_braintrust.current()
    rows = [
        {"generated_answer": "stack", "expected_answer": "stuck"},
        {"generated_answer": "same", "expected_answer": "same"},
    ]
    assert [one.score for one in scoring.score("braintrust::levenshtein", rows)] == [0.8, 1.0]
    assert [one.score for one in scoring.score("braintrust::exact-match", rows)] == [0, 1]
    with pytest.raises(ScorerUnavailable, match="needs openai_api_key"):
        scoring.score("braintrust::factuality", [ROW])
    with pytest.raises(ScorerUnavailable, match="there are braintrust::factuality"):
        scoring.scorer("factuality")


def test_the_check_fails_when_the_library_scores_wrongly(monkeypatch):
    import autoevals

    applied = _apply(BraintrustConfig())
    broken = type("Levenshtein", (autoevals.Levenshtein,), {"_run_eval_sync": lambda *a, **k: _zero()})

    def _zero():
        return autoevals.Score(name="Levenshtein", score=0.0)

    monkeypatch.setattr(autoevals, "Levenshtein", broken)
    assert applied.check().endswith("braintrust::levenshtein gives 0.0 and not 0.8")
    with pytest.raises(ScoringUnusable, match="does not score as it should"):
        _apply(BraintrustConfig())


def test_the_judge_of_the_stand_in_scores_with_the_configured_model_and_key():
    with _openai_stand_in() as (url, seen):
        config = BraintrustConfig(openai_api_key=KEY, openai_base_url=url, judge_model="judge-1")
        applied = _apply(config)
        assert applied.detail.endswith(f"judged by {url}/")
        (result,) = stackconf_braintrust.current().score("braintrust::factuality", [ROW])
        # Choice C of autoevals' factuality template: the same details.
        assert (result.score, result.metadata["choice"]) == (1, "C")
        assert seen["models"] == ["judge-1"]
        assert KEY not in "".join(map(str, os.environ.values()))
        assert KEY not in repr(applied) + repr(stackconf_braintrust.current())


def test_no_message_repeats_a_password_from_the_environments_address(monkeypatch):
    with _openai_stand_in() as (url, _):
        # The client sends these in the key's place, so the stand-in refuses.
        monkeypatch.setenv("OPENAI_BASE_URL", url.replace("//", "//me:hunter2@"))
        with pytest.raises(ScoringUnusable) as caught:
            _apply(BraintrustConfig(openai_api_key=KEY))
    assert str(caught.value) == f"{url}/ refuses openai_api_key (401)"
    applied = _apply(BraintrustConfig(openai_api_key=KEY))
    assert applied.pending == f"cannot reach {url}/: connection refused"


def test_no_more_rows_than_configured_are_with_the_stand_in_at_once():
    with _openai_stand_in() as (url, seen):
        for most in (1, 3):
            seen["most"], seen["together"] = 0, threading.Barrier(most)
            _apply(
                BraintrustConfig(
                    openai_api_key=KEY, openai_base_url=url, judge_model="j", max_concurrency=most
                )
            )
            stackconf_braintrust.current().score("braintrust::factuality", [ROW] * 9)
            assert seen["most"] == most


def test_a_refused_key_is_an_error_that_does_not_repeat_it_and_changes_nothing():
    _apply(BraintrustConfig())
    used = stackconf_braintrust.current()
    with _openai_stand_in() as (url, _), pytest.raises(ScoringUnusable) as caught:
        _apply(BraintrustConfig(openai_api_key="sk-wrong-secret", openai_base_url=url))
    assert str(caught.value) == f"{url}/ refuses openai_api_key (401)"
    assert stackconf_braintrust.current() is used


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_service_that_lists_no_models_is_reached_all_the_same(status):
    with _openai_stand_in(status) as (url, _):
        assert _apply(BraintrustConfig(openai_api_key=KEY, openai_base_url=url)).pending is None


def test_an_unreachable_judge_is_pending_and_changes_nothing():
    _apply(BraintrustConfig())
    used = stackconf_braintrust.current()
    url = f"http://127.0.0.1:{unused_port()}/v1"
    applied = _apply(BraintrustConfig(openai_api_key=KEY, openai_base_url=url))
    assert applied.pending == f"cannot reach {url}/: connection refused"
    assert stackconf_braintrust.current() is used


def test_a_change_is_undone_and_leaving_too():
    first = _apply(BraintrustConfig(max_concurrency=1))
    one = stackconf_braintrust.current()
    second = _apply(BraintrustConfig(max_concurrency=2))
    assert first.check() == "scoring/braintrust of this process has been configured anew since"
    second.undo()
    assert stackconf_braintrust.current() is one
    assert one.score("braintrust::exact-match", [ROW])[0].score == 0
    left = _apply(None)
    assert stackconf_braintrust.current() is None
    left.undo()
    assert stackconf_braintrust.current() is one
    first.undo()
    assert stackconf_braintrust.current() is None
    nothing = _apply(None)
    assert nothing.detail == "this process was not scoring"
    nothing.undo()
    assert nothing.check_undo() is None


def test_an_undo_is_verified(monkeypatch):
    import autoevals

    first = _apply(BraintrustConfig(max_concurrency=1))
    one = stackconf_braintrust.current()
    second = _apply(BraintrustConfig(max_concurrency=2))
    with pytest.raises(StackconfError, match="configured anew since; that is kept"):
        first.undo()
    assert second.check_undo() == "scoring/braintrust of this process does not have again what it had before"
    second.undo()
    assert second.check_undo() is None
    assert stackconf_braintrust.current() is one
    monkeypatch.setattr(autoevals, "Levenshtein", autoevals.ExactMatch)
    assert second.check_undo().endswith("braintrust::levenshtein gives 0 and not 0.8")


def test_applying_the_same_again_keeps_scoring():
    for _ in range(3):
        applied = _apply(BraintrustConfig(max_concurrency=1))
        assert applied.check() is None
        assert stackconf_braintrust.current().score("braintrust::exact-match", [ROW])[0].score == 0


def test_every_scorer_can_be_made_with_both_models():
    with _openai_stand_in() as (url, _):
        _apply(
            BraintrustConfig(
                openai_api_key=KEY, openai_base_url=url, judge_model="j-1", embedding_model="e-1"
            )
        )
        scoring = stackconf_braintrust.current()
        for name, kind in SCORERS.items():
            scorer = scoring.scorer(name)
            assert callable(scorer.eval)
            if kind.judged:
                assert "j-1" in str(vars(scorer)) or "e-1" in str(vars(scorer))


# In processes of their own


def test_after_a_killed_apply_a_fresh_process_goes_either_way():
    code = """
        import os, signal, sys, warnings
        warnings.simplefilter("ignore")
        from stackconf import Provider
        from stackconf_braintrust import current, plugin
        from stackconf_braintrust.config import BraintrustConfig

        action, url, rows, key = sys.argv[1:]
        config = BraintrustConfig(
            openai_api_key=key, openai_base_url=url, judge_model="j", max_concurrency=rows
        )
        provider = Provider("scoring", "braintrust", "inline::braintrust")
        applied = plugin.apply_config(provider=provider, config=config)
        if action == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        print(applied.check(), current().config.max_concurrency)
        applied.undo()
        print(applied.check_undo(), current())
    """

    with _openai_stand_in() as (url, _):
        assert fresh_process(code, "killed", url, "2", KEY).returncode == -signal.SIGKILL
        for rows in ("2", "1"):
            done = fresh_process(code, "again", url, rows, KEY)
            assert done.stdout.splitlines() == [f"None {rows}", "None None"], done.stderr


def test_importing_the_plugin_imports_neither_autoevals_nor_openai():
    code = (
        "import sys, stackconf_braintrust, stackconf_braintrust.plugin\n"
        "heavy = {'autoevals', 'openai', 'httpx', 'httpx2', 'requests', 'asyncio', 'pydantic'}\n"
        "print([m for m in sys.modules if m.split('.')[0] in heavy])"
    )
    done = fresh_process(code)
    assert done.stdout.strip() == "[]"


def test_entry_points_advertise_what_the_plugin_provides():
    advertised = {
        entry.name
        for entry in entry_points(group="stackconf.providers")
        if entry.value.startswith("stackconf_braintrust")
    }
    assert advertised == {kind.key for kind in plugin.provides}
