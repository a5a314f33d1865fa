"""What the SDK does at home it does over HTTP: each test runs against `Stack`, `Client` and `AsyncClient`."""

from __future__ import annotations

import asyncio
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest
from surface_kit import MACHINE, PATIENCE, STACK, Site, door, one, plain, raised, size

from stackconf import (
    ApplyBusy,
    ApplyError,
    Conflict,
    InvalidConfig,
    Report,
    Sealed,
    SecretError,
    StalePlan,
    UnknownName,
    simulate,
)
from stackconf.apply import Progress
from stackconf.retry import keep_trying
from stackconf.sealing import new_key
from stackconf.testing import machine

DOORS = ["home", "client", "async"]


@pytest.fixture(params=DOORS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("STACKCONF_ACTOR", "jörg")
    for name in ("STACKCONF_SECRET_KEY", "STACKCONF_SECRET_KEY_FILE", "STACKCONF_TOKEN", "STACKCONF_URL"):
        monkeypatch.delenv(name, raising=False)
    return request.param


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def stack(kind: str, site: Site) -> Any:
    with door(kind, site) as stack:
        yield stack


def values(stack: Any) -> dict[str, Any]:
    return stack.configurations.inspect()["providers"]["inference"][0]["config"]


def test_registering_keeps_drops_assigns_and_plans(stack):
    made = stack.configurations.register(one(threads=2, mode="fancy", thraeds=3), name="mine")
    assert (made.name, made.revision) == ("mine", 1)
    assert made.kept["inference"][0]["config"] == {"threads": 2}
    assert [(issue.path, issue.level) for issue in made.dropped] == [
        ("config.mode", "ignored"),
        ("config.thraeds", "ignored"),
    ]
    assert "did you mean `threads`?" in str(made.dropped[1])
    assert [change.provider.key for change in made.plan.changes] == ["inference/one", "vector_io/vectors"]
    assert made.plan == stack.plan()
    assert values(stack)["threads"] == 2
    assert [(each.name, each.assigned, each.providers) for each in stack.configurations.list()] == [
        ("mine", 1, ("inference/one",))
    ]
    assert stack.configurations.get("mine").providers["inference"][0]["config"] == {"threads": 2}
    assert (stack.revision, stack.issues) == (1, ())


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("config", "options", "error"),
    [
        (one(thraeds=2), {}, InvalidConfig),
        (one(threads=2, mode="x"), {"on_dropped": "error"}, InvalidConfig),
        (one(threads=1000), {}, InvalidConfig),
        (one(threads="many"), {}, InvalidConfig),
        ({"inference": [{"provider_id": "onne", "config": {"threads": 1}}]}, {}, InvalidConfig),
        ({"inference": "one"}, {}, InvalidConfig),
        ({"inference": {1: 2}}, {}, InvalidConfig),
        (one(limits={"a": {1, 2}}), {}, InvalidConfig),
        (one(limits={"a": b"x"}), {}, InvalidConfig),
        ([], {}, InvalidConfig),
        (5, {}, InvalidConfig),
        ("{", {}, InvalidConfig),
        ("inference:\n- a: [\n", {}, InvalidConfig),
        ("{\ud800: 1}", {}, InvalidConfig),
        (b"\xff{}", {}, InvalidConfig),
        ("nowhere.yaml", {}, InvalidConfig),
        (Path("/"), {}, InvalidConfig),
        (one(threads=2), {"name": ""}, InvalidConfig),
        (one(threads=2), {"name": "a\nb"}, InvalidConfig),
        (one(threads=2), {"on_dropped": "eror"}, InvalidConfig),
        (one(threads=2), {"on_conflict": "rety"}, InvalidConfig),
        (one(token="in the clear"), {}, SecretError),
        (one(threads=2), {"expected_revision": 7}, Conflict),
    ],
)
def test_what_is_refused_is_refused_alike(tmp_path_factory, config, options, error):
    told = []
    for kind in DOORS:
        site = Site(tmp_path_factory.mktemp("site"))
        with door(kind, site) as stack:
            told.append(raised(lambda stack=stack: stack.configurations.register(config, **options)))
            assert stack.revision == 0
    assert told[0][0] in {error.__name__, "InvalidConfig"}
    assert told[1] == told[2] == told[0]


def test_a_file_is_read_here_and_its_positions_are_told(tmp_path_factory):
    told = []
    for kind in DOORS:
        site = Site(tmp_path_factory.mktemp("site"))
        overlay = tmp_path_factory.getbasetemp() / "overlay.yaml"
        overlay.write_text("inference:\n- provider_id: one\n  config:\n    threads: 2\n    thraeds: 3\n")
        with door(kind, site) as stack:
            made = stack.configurations.register(overlay)
            told.append((made, [str(each) for each in made.dropped]))
            overlay.write_text("inference:\n- provider_id: one\n  config: {threads: 2000}\n", "utf-16")
            told.append(raised(lambda s=stack, f=str(overlay): s.configurations.register(f)))
    assert "overlay.yaml:5:5: ignored: inference/one: config.thraeds" in told[0][1][0]
    assert "overlay.yaml:3" in str(told[1])
    assert told[0] == told[2] == told[4]
    assert told[1] == told[3] == told[5]


def test_text_is_registered_as_text(stack):
    stack.configurations.register('{"inference": [{"provider_id": "one", "config": {"threads": 5}}]}', "json")
    assert values(stack)["threads"] == 5
    stack.configurations.register("inference:\n- provider_id: one\n  config: {threads: 6}\n", "yaml")
    assert values(stack)["threads"] == 6
    stack.configurations.register(b"\xef\xbb\xbfinference: [{provider_id: one, config: {threads: 7}}]", "bom")
    assert values(stack)["threads"] == 7


NAMES = ["mine", "a/b", "..", ".", "ü ß", "a?b=c#d", "%2F", "-", "register", "x" * 200]


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_any_name_goes_through(stack, name):
    configurations = stack.configurations
    assert configurations.register(one(threads=2), name, assign=False).revision == 1
    assert configurations.get(name).name == name
    assert configurations.assign(name) == 2
    assert configurations.assign(name) == 2
    assert [(each.name, each.assigned) for each in configurations.list()] == [(name, 1)]
    assert configurations.unassign(name) == 3
    assert configurations.unregister(name) == 4
    assert configurations.list() == []


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "call",
    [
        lambda stack: stack.configurations.get("mnie"),
        lambda stack: stack.configurations.get("a/b"),
        lambda stack: stack.configurations.assign("mnie"),
        lambda stack: stack.configurations.unassign("other"),
        lambda stack: stack.configurations.unregister("nope"),
        lambda stack: stack.configurations.assign("mine", expected_revision=1),
        lambda stack: stack.configurations.unregister("mine", expected_revision=1, on_conflict="retry"),
        lambda stack: stack.configurations.register(one(threads=9), "mine", expected_revision=1),
        lambda stack: stack.configurations.register(
            one(threads=9), "mine", expected_revision=1, on_conflict="retry"
        ),
        lambda stack: stack.rollback(1, expected_revision=0),
        lambda stack: stack.rollback(77),
        lambda stack: stack.rollback("nonsense"),
        lambda stack: stack.show(77),
        lambda stack: stack.show("head-9"),
        lambda stack: stack.show("../x"),
        lambda stack: stack.diff(1, "nope"),
        lambda stack: stack.explain("onne"),
        lambda stack: stack.explain(""),
        lambda stack: stack.explain("../one"),
        lambda stack: stack.explain("one", "ulr"),
        lambda stack: stack.key_of("onne"),
        lambda stack: stack.provider_type("remote::acne"),
        lambda stack: stack.provider_type("x/y::z"),
        lambda stack: stack.prune(0),
        lambda stack: stack.compare({}),
    ],
)
def test_what_cannot_be_is_told_alike(tmp_path_factory, call, monkeypatch):
    monkeypatch.setenv("STACKCONF_ACTOR", "ada")
    told = []
    for kind in DOORS:
        folder = tmp_path_factory.mktemp("site")
        with door(kind, Site(folder)) as stack:
            stack.configurations.register(one(threads=2), "mine")
            stack.configurations.register(one(threads=3), "mine")
            stack.configurations.register(one(threads=3), "other", assign=False)
            told.append(plain(raised(lambda stack=stack: call(stack)), folder))
    assert told[1] == told[2] == told[0]


def test_a_conflict_says_who_changed_what(stack):
    stack.configurations.register(one(threads=2))
    stack.configurations.register(one(threads=3), actor="grace")
    with pytest.raises(Conflict) as caught:
        stack.configurations.register(one(threads=4), expected_revision=1, on_conflict="retry")
    error = caught.value
    assert (error.expected, error.head, error.mergeable) == (1, 2, True)
    assert [(each.number, each.actor, each.action) for each in error.since] == [(2, "grace", "register")]
    (conflict,) = error.conflicts
    assert (conflict.path, conflict.before, conflict.theirs, conflict.mine) == ("threads", 2, 3, 4)
    more = one(threads=2, url="http://x")
    merged = stack.configurations.register(more, expected_revision=1, on_conflict="retry")
    assert merged.kept["inference"][0]["config"] == {"threads": 3, "url": "http://x"}
    forced = stack.configurations.register(one(threads=9), expected_revision=1, on_conflict="force")
    assert forced.kept["inference"][0]["config"] == {"threads": 9}
    assert stack.show(1).actor == "jörg"


def test_a_secret_is_sealed_where_there_is_a_key_and_never_comes_back(kind, site, monkeypatch):
    monkeypatch.setenv("STACKCONF_SECRET_KEY", new_key())
    with door(kind, site) as stack:
        made = stack.configurations.register(one(token="hunter2"), name="mine")
        assert "hunter2" not in repr((made, made.plan, made.kept))
        with pytest.raises(InvalidConfig, match="the configuration was not registered"):
            stack.configurations.register(one(token="hunter3"), seal=False)
        report = stack.apply()
        seen = [
            stack.effective(),
            stack.show(),
            stack.applied(),
            stack.status(),
            stack.explain("one"),
            report,
        ]
        seen += [stack.diff(0, 1), stack.export().text, stack.drift(), stack.history()]
        assert "hunter2" not in repr(seen)
        assert stack.effective()["providers"]["inference"][0]["config"]["token"] == "********"


def test_a_sealed_stack_refuses(kind, tmp_path):
    sealed = Site(tmp_path, stack=f"{STACK}stackconf: {{sealed: true}}\n")
    with door(kind, sealed) as stack:
        for call in (
            lambda: stack.configurations.register(one(threads=2)),
            lambda: stack.configurations.assign("mine"),
            lambda: stack.rollback(0),
        ):
            with pytest.raises(Sealed, match=r"the stack is sealed: .*stack.yaml is its only truth"):
                call()
        assert stack.apply().state == "applied"


def test_plan_apply_status_and_what_is_applied(stack, site):
    plan = stack.plan()
    assert [(change.provider.key, change.kind) for change in plan.changes] == [
        ("inference/one", "join"),
        ("vector_io/vectors", "join"),
    ]
    seen: list[Progress] = []
    report = stack.apply(plan, observer=seen.append)
    assert (report.state, report.revision, report.attempt) == ("applied", 0, 1)
    assert [(each.provider, each.state, each.detail) for each in report.outcomes] == [
        ("inference/one", "applied", "listening"),
        ("vector_io/vectors", "applied", "listening"),
    ]
    assert [(each.provider, each.step, each.seconds is None) for each in seen] == [
        ("inference/one", "apply", True),
        ("inference/one", "apply", False),
        ("vector_io/vectors", "apply", True),
        ("vector_io/vectors", "apply", False),
    ]
    assert site.acme.calls == ["inference/one join", "vector_io/vectors join"]
    assert stack.status().settled
    assert [*stack.applied().providers] == ["inference/one", "vector_io/vectors"]
    assert stack.apply().state == "nothing"
    assert not stack.plan()
    assert stack.history().attempts[0].actor == "jörg"


def test_a_failed_apply_raises_with_its_report(stack, site):
    stack.apply()
    stack.configurations.register(one(url="http://new"))
    stack.configurations.register(size(13), "big")
    with pytest.raises(ApplyError) as caught:
        stack.apply()
    report = caught.value.report
    assert isinstance(report, Report)
    assert [(each.provider, each.state) for each in report.outcomes] == [
        ("inference/one", "rolled_back"),
        ("vector_io/vectors", "failed"),
    ]
    assert "refused by" in str(caught.value)
    assert "hunter2" not in f"{caught.value} {report}"
    told = []
    with pytest.raises(ApplyError) as streamed:
        told.extend(iter_into(stack.apply_events(), told))
    assert str(streamed.value) == str(caught.value)
    assert isinstance(told[-1], Report)
    assert told[-1].outcomes[1].error == report.outcomes[1].error


def iter_into(events, told):
    for event in events:
        told.append(event)
    return []


def test_a_plugin_that_hangs_on_to_what_it_has_is_told_as_unknown_and_recovered(stack):
    stack.apply()
    stack.configurations.register(one(url="http://stuck"))
    stack.configurations.register(size(13), "big")
    with pytest.raises(ApplyError) as caught:
        stack.apply()
    assert [each.state for each in caught.value.report.outcomes] == ["unknown", "failed"]
    assert [each.provider for each in stack.status().of("unknown")] == ["inference/one"]
    report = stack.recover()
    assert [(each.provider, each.kind, each.state) for each in report.outcomes] == [
        ("inference/one", "restore", "applied")
    ]
    assert stack.recover().state == "nothing"


def test_what_cannot_be_reached_is_pending_and_tried_again(stack, site):
    stack.configurations.register(one(url="http://down"))
    with pytest.raises(ApplyError):
        stack.apply(require_healthy=True)
    report = stack.apply()
    assert (report.state, [each.provider for each in report.of("pending")]) == ("pending", ["inference/one"])
    assert stack.pending == ("inference/one",)
    assert stack.retry().state == "pending"
    site.acme.up = True
    reports: list[Report] = []
    assert keep_trying(stack, stop=threading.Event(), between=[0.0], told=reports.append)
    assert [each.state for each in reports] == ["applied"]
    assert stack.pending == ()


def test_a_plan_is_refused_when_anything_moved(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("STACKCONF_ACTOR", "ada")
    told = []
    for kind in DOORS:
        site = Site(tmp_path_factory.mktemp("site"))
        with door(kind, site) as stack:
            plan = stack.plan()
            stack.configurations.register(one(threads=2))
            told.append(raised(lambda stack=stack, plan=plan: stack.apply(plan)))
            assert site.acme.calls == []
    assert told[1] == told[2] == told[0]
    assert told[0][2]["moved"] == ["the revision moved from 0 to 1 (ada: register `default`)"]


def test_a_plan_in_a_file_is_applied_or_refused(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("STACKCONF_ACTOR", "ada")
    told = []
    for kind in DOORS:
        folder = tmp_path_factory.mktemp("site")
        site, other = Site(folder), Site(tmp_path_factory.mktemp("other"))
        with door(kind, site) as stack:
            file = folder / "plan.json"
            written = stack.write_plan(file)
            assert stack.read_plan(file) == written == stack.plan()
            assert stack.read_plan(file).hardware is not None
            with door("home", other) as elsewhere:
                elsewhere.store.ensure()
                elsewhere.write_plan(folder / "other.json")
            (folder / "bad.json").write_text("{")
            for name in ("other.json", "bad.json", "none.json"):
                _, line, members = raised(lambda s=stack, f=folder / name: s.read_plan(f))
                told.append((name, line.replace(str(folder), ""), members))
            assert stack.apply(stack.read_plan(file)).state == "applied"
            assert raised(lambda s=stack, f=file: s.apply(s.read_plan(f)))[0] == StalePlan.__name__
            stack.configurations.register(one(url="x"), "bad", assign=False)
            stack.configurations.register({"vector_io": [{"provider_id": "vectors", "config": {"size": 2}}]})
    third = len(told) // 3
    assert told[:third] == told[third : 2 * third] == told[2 * third :]


def test_a_plan_for_another_machine_says_which_facts_moved(kind, tmp_path, monkeypatch):
    folder = tmp_path
    with door("home", Site(folder)) as stack:
        stack.store.ensure()
        stack.write_plan(folder / "plan.json")
    with door(kind, Site(folder, hardware=machine(cores=8))) as stack, pytest.raises(StalePlan) as caught:
        stack.apply(stack.read_plan(folder / "plan.json"))
    assert "the hardware changed (" in caught.value.moved[0]
    assert "4 -> 8" in caught.value.moved[0]


def test_nothing_is_applied_to_an_invalid_stack(tmp_path_factory):
    told = []
    for kind in DOORS:
        folder = tmp_path_factory.mktemp("site")
        site = Site(folder, stack=STACK.replace("token: s3cret", "threads: 99"))
        with door(kind, site) as stack:
            calls = [stack.apply, lambda s=stack: s.write_plan("nowhere/plan.json"), stack.export]
            calls.append(lambda s=stack: s.explain("one"))
            found = [raised(call) for call in calls]
            assert [name for name, _, _ in found] == ["InvalidConfig"] * 4
            told.append(plain([*found, stack.issues, stack.effective(), stack.key_of("one")], folder))
            assert site.acme.calls == []
    assert told[1] == told[2] == told[0]


def test_events_come_as_they_happen(stack, site):
    stack.configurations.register(one(url="http://slow"))
    events = stack.apply_events()
    first = next(events)
    assert (first.provider, first.step, first.seconds) == ("inference/one", "apply", None)
    assert site.acme.began.wait(PATIENCE)
    site.acme.go_on.set()
    rest = [*events]
    assert isinstance(rest[-1], Report)
    assert [type(each) for each in rest[:-1]] == [Progress] * 3


def test_events_come_in_a_loop_too(kind, site):
    with ExitStack() as held:
        stack = held.enter_context(door(kind, site))

        async def applied() -> list[object]:
            if kind == "async":
                from stackconf import AsyncClient

                async with AsyncClient(stack._client.url) as client:
                    return [event async for event in client.apply_events_async()]
            async with aclosing(stack.apply_events_async()) as events:
                return [event async for event in events]

        told = asyncio.run(applied())
    assert [type(each) for each in told] == [Progress] * 4 + [Report]
    assert not inspect.isawaitable(told[-1])


def test_one_apply_at_a_time(kind, site):
    with ExitStack() as held:
        stack, pool = held.enter_context(door(kind, site)), held.enter_context(ThreadPoolExecutor())
        stack.configurations.register(one(url="http://slow"))
        running = pool.submit(stack.apply)
        assert site.acme.began.wait(PATIENCE)
        other = held.enter_context(site.open()) if kind == "home" else stack
        with pytest.raises(ApplyBusy, match="another apply of this stack is running"):
            other.apply()
        if kind != "home":
            assert stack.revision == 1  # everything else is answered meanwhile
            waiting = pool.submit(stack.apply, wait=PATIENCE)
            assert stack.plan().base_revision == 1
            site.acme.go_on.set()
            assert waiting.result(PATIENCE).state == "nothing"
        site.acme.go_on.set()
        assert running.result(PATIENCE).state == "applied"


def test_origins_and_the_rest_of_what_there_is_to_see(tmp_path_factory):
    told = []
    for kind in DOORS:
        folder = tmp_path_factory.mktemp("site")
        with door(kind, Site(folder)) as stack:
            stack.configurations.register(one(threads=2, limits={"a.b": 1.5, "c": 2.0}), "mine")
            stack.apply(actor="grace")
            found = [
                stack.name,
                stack.revision,
                stack.issues,
                stack.problems,
                stack.hardware,
                stack.shares,
                stack.explain("one"),
                stack.explain("inference/one", "limits"),
                stack.key_of("one"),
                stack.effective(),
                stack.configurations.inspect(),
                stack.providers(),
                stack.provider_types(),
                stack.provider_type("one"),
                stack.provider_type("inline::acme"),
                stack.drift(),
                stack.export(),
                stack.export(class_defaults=True),
                stack.compare({"here": MACHINE, "there": simulate("l4:2,cpu=8")}),
                [(each.provider, each.standing, each.desired) for each in stack.status().providers],
                [(each.number, each.actor, each.state) for each in stack.history(limit=3).attempts],
                stack.diff(0, "head", effective=True),
                stack.applied().configuration(),
            ]
            told.append([plain(each, folder) for each in found])
    assert told[1] == told[0]
    assert told[2] == told[0]


def test_history_shows_goes_back_and_forgets(stack):
    for threads in (2, 3, 4):
        stack.configurations.register(one(threads=threads), actor="grace")
    assert [(each.number, each.action, each.actor) for each in stack.history(limit=2).revisions] == [
        (3, "register", "grace"),
        (2, "register", "grace"),
    ]
    assert stack.show("head-1").number == stack.show(-1).number == 2
    assert [each.name for each in stack.show(1).state.configurations.values()] == ["default"]
    (changed,) = stack.diff(1).configurations
    assert [(field.path, field.before, field.after) for field in changed.fields] == [("threads", 2, 4)]
    done = stack.rollback(1)
    assert (done.revision, done.restores, done.changed) == (4, 1, True)
    assert values(stack)["threads"] == 2
    assert not stack.rollback("head").changed
    gone = stack.prune(1)
    assert (gone.revisions, gone.oldest) == (3, 4)
    with pytest.raises(UnknownName):
        stack.show(1)


def test_an_export_is_written_here_as_a_new_file(stack, tmp_path):
    stack.configurations.register(one(threads=2))
    to = tmp_path / "out.yaml"
    exported = stack.export(to)
    assert to.read_text() == exported.text == stack.export().text
    assert "threads: 2" in exported.text
    assert [each.name for each in exported.variables] == [each.name for each in stack.export().variables]
