"""Apply: all or nothing, in order, undone in reverse, and told as it was."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from core_kit import MACHINE, Owner, lines, one, open_stack, overlay, registry_of
from pydantic import BaseModel, SecretStr

from stackconf import Applied, ApplyError, InvalidConfig, StalePlan, user_field
from stackconf.plan import is_unknown
from stackconf.testing import machine


class Service(BaseModel):
    port: int = user_field(80, update="reload")
    mode: str = user_field("ok", update="in_place")


class OtherService(BaseModel):
    size: int = 1


class World:
    """Services that really are files: what runs is what stands in them; every act is written down.

    A service's `mode` says how it behaves: `ok`, `reject`, `sick` (its check fails), `stuck` (its
    undo fails), `away` (cannot be reached), `stay` (it refuses to leave), `exit`, `hang`, or several
    of them with a `+`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "world"
        self.folder.mkdir(exist_ok=True)
        self.acts: list[str] = []
        self.given: list[tuple] = []

    def running(self) -> dict[str, str]:
        return {file.name: file.read_text() for file in sorted(self.folder.iterdir())}

    def apply(self, provider, config, previous):  # noqa: C901 (one branch a behaviour)
        name = provider.provider_id
        behaviour = (config or previous).mode.split("+") if (config or previous) else ["ok"]
        self.given.append((name, config, previous))
        self.acts.append(f"apply {name}" if config else f"stop {name}")
        if "away" in behaviour:
            return Applied(pending="connection refused")
        if "reject" in behaviour:
            raise ValueError(f"port {config.port} is taken")
        if "stay" in behaviour and config is None:
            raise RuntimeError("it is needed")
        if "exit" in behaviour:
            raise SystemExit(3)
        file = self.folder / name
        before = file.read_text() if file.exists() else None
        if config is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(f"port {config.port}")
        if "hang" in behaviour:
            time.sleep(30)

        def undo():
            self.acts.append(f"undo {name}")
            if "stuck" in behaviour:
                raise OSError("the file is locked")
            if before is None:
                file.unlink()
            else:
                file.write_text(before)

        def check():
            self.acts.append(f"check {name}")
            return "it answers nonsense" if "sick" in behaviour else None

        return Applied(f"port {config.port if config else '-'}", undo=undo, check=check)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def services(**modes: str | dict) -> dict:
    """A stack file of services, all of api `inference`, each with its mode."""
    return {
        "providers": {
            "inference": [
                {
                    "provider_id": name,
                    "provider_type": "remote::acme",
                    "config": mode if isinstance(mode, dict) else {"mode": mode},
                }
                for name, mode in modes.items()
            ]
        }
    }


def states(report) -> dict[str, str]:
    return {outcome.provider.split("/")[1]: outcome.state for outcome in report.outcomes}


def test_what_is_planned_is_applied_and_applying_again_touches_nothing(tmp_path, world):
    owner = Owner(Service, applying=world.apply)
    with open_stack(tmp_path, services(a="ok", b="ok"), owner) as stack:
        report = stack.apply()
        assert report.state == "applied"
        assert states(report) == {"a": "applied", "b": "applied"}
        assert world.running() == {"a": "port 80", "b": "port 80"}
        assert [outcome.detail for outcome in report.outcomes] == ["port 80", "port 80"]
        before = list(world.acts)
        assert stack.apply().state == "nothing"
        assert world.acts == before
        assert not stack.plan()
    with open_stack(tmp_path, services(a="ok", b="ok"), owner) as again:  # and in another process's shoes
        assert not again.plan()
        assert again.plan().unchanged == ("inference/a", "inference/b")


def test_only_the_changed_provider_is_touched_and_it_is_told_what_it_had(tmp_path, world):
    owner = Owner(Service, applying=world.apply)
    with open_stack(tmp_path, services(a="ok", b="ok"), owner) as stack:
        stack.apply()
        world.acts.clear()
        stack.configurations.register(overlay({"port": 81}, "inference/b"))
        plan = stack.plan()
        assert [(change.provider.key, change.kind, change.update) for change in plan.changes] == [
            ("inference/b", "change", "reload")
        ]
        (field,) = plan.changes[0].fields
        assert (field.path, field.before, field.after, field.layer) == ("port", 80, 81, "overlay")
        stack.apply(plan)
        assert world.acts == ["apply b", "check b"]
        name, config, previous = world.given[-1]
        assert (name, config.port, previous.port) == ("b", 81, 80)


def test_providers_are_applied_after_those_of_the_apis_they_need_also_through_one_that_stays(tmp_path):
    order = []
    owner = Owner(
        {"agents/inline::a": Service, "vector_io/inline::v": Service, "inference/remote::acme": Service},
        depends={"agents": ["vector_io"], "vector_io": ["inference"]},
        applying=lambda provider, config, previous: order.append(provider.api),
    )
    data = {
        "providers": {
            "agents": [{"provider_id": "a", "provider_type": "inline::a"}],
            "vector_io": [{"provider_id": "v", "provider_type": "inline::v"}],
            "inference": [{"provider_id": "i", "provider_type": "remote::acme"}],
        }
    }
    with open_stack(tmp_path, data, owner) as stack:
        stack.apply()
        assert order == ["inference", "vector_io", "agents"]
        order.clear()
        stack.configurations.register(
            {
                "agents": [{"provider_id": "a", "config": {"port": 1}}],
                "inference": [{"provider_id": "i", "config": {"port": 1}}],
            }
        )
        stack.apply()
        assert order == ["inference", "agents"]
    order.clear()
    with open_stack(tmp_path, {"providers": {}}, owner) as empty:
        empty.apply()
    assert order == ["agents", "vector_io", "inference"]


def test_a_circle_of_dependencies_is_a_warning_and_the_files_order_counts(tmp_path):
    owner = Owner(
        {"agents/inline::a": Service, "inference/remote::acme": Service},
        depends={"agents": ["inference"], "inference": ["agents"]},
    )
    data = {
        "providers": {
            "agents": [{"provider_id": "a", "provider_type": "inline::a"}],
            "inference": [{"provider_id": "i", "provider_type": "remote::acme"}],
        }
    }
    with open_stack(tmp_path, data, owner) as stack:
        plan = stack.plan()
        assert [change.provider.api for change in plan.changes] == ["agents", "inference"]
        assert [issue.code for issue in plan.issues] == ["dependency-cycle"]
        assert stack.apply().state == "applied"


NAMES = "abcdef"


@pytest.mark.parametrize("count", [1, 2, 3, 6])
@pytest.mark.parametrize("how", ["reject", "sick", "exit", "sick+stuck", "reject-no-undo"])
def test_when_the_kth_of_n_fails_the_others_are_undone_in_reverse(tmp_path, how, count):
    for k in range(count):
        folder = tmp_path / str(k)
        folder.mkdir()
        world = World(folder)
        modes = dict.fromkeys(NAMES[:count], "ok") | {NAMES[k]: how}
        owner = Owner(Service, applying=world.apply)
        with open_stack(folder, services(**modes), owner) as stack:
            before = dict(stack.store.applied())
            if how == "reject-no-undo":
                modes[NAMES[k]] = "reject"
                stack.close()
                _check_without_undo(folder, modes, k)
                continue
            with pytest.raises(ApplyError) as caught:
                stack.apply()
            report = caught.value.report
            done = list(NAMES[:k])
            failing = NAMES[k]
            started = [act for name in done for act in (f"apply {name}", f"check {name}")]
            own = [f"apply {failing}"] + ([f"check {failing}", f"undo {failing}"] if "sick" in how else [])
            assert world.acts == started + own + [f"undo {name}" for name in reversed(done)]
            expected = dict.fromkeys(done, "rolled_back") | {failing: "failed"}
            expected |= dict.fromkeys(NAMES[k + 1 : count], "not_attempted")
            if "stuck" in how:
                expected[failing] = "unknown"
            assert states(report) == expected
            assert world.running() == ({failing: "port 80"} if "stuck" in how else {})
            assert f"inference/{failing}" in str(caught.value)
            assert "\n" not in str(caught.value)
            (attempt,) = stack.store.attempts()
            assert (attempt.state, attempt.number, bool(attempt.finished_at)) == ("failed", 1, True)
            kept = [each["state"] for each in attempt.report["outcomes"]]
            assert kept == list(states(report).values())
            unknown = {f"inference/{failing}"} if "stuck" in how else set()
            assert set(stack.store.applied()) == set(before) | unknown
            assert {change.provider.provider_id for change in stack.plan().changes} == set(modes)


def _check_without_undo(folder, modes, k):
    """A plugin that gives no undo cannot be taken back: its state is unknown, never `rolled_back`."""

    def applying(provider, config, previous):
        if config.mode == "reject":
            raise ValueError("no")
        return Applied("done")

    with open_stack(folder, services(**modes), Owner(Service, applying=applying)) as stack:
        with pytest.raises(ApplyError) as caught:
            stack.apply()
        expected = dict.fromkeys(list(modes)[:k], "unknown") | {list(modes)[k]: "failed"}
        expected |= dict.fromkeys(list(modes)[k + 1 :], "not_attempted")
        assert states(caught.value.report) == expected


def test_a_failed_change_leaves_every_provider_with_what_it_had(tmp_path, world):
    owner = Owner(Service, applying=world.apply)
    with open_stack(tmp_path, services(a="ok", b="ok", c="ok"), owner) as stack:
        stack.apply()
        before = world.running()
        configuration = {
            "inference": [
                {"provider_id": "a", "config": {"port": 1}},
                {"provider_id": "b", "config": {"port": 2}},
                {"provider_id": "c", "config": {"port": 3, "mode": "sick"}},
            ]
        }
        stack.configurations.register(configuration)
        records = dict(stack.store.applied())
        with pytest.raises(ApplyError):
            stack.apply()
        assert world.running() == before
        assert dict(stack.store.applied()) == records
        stack.configurations.unregister("default")
        assert not stack.plan()


def test_a_provider_whose_undo_failed_is_planned_again_even_for_what_it_had(tmp_path, world):
    owner = Owner(Service, applying=world.apply)
    with open_stack(tmp_path, services(a="ok", b="ok"), owner) as stack:
        stack.apply()
        stack.configurations.register(
            {
                "inference": [
                    {"provider_id": "a", "config": {"port": 1, "mode": "stuck"}},
                    {"provider_id": "b", "config": {"mode": "reject"}},
                ]
            }
        )
        with pytest.raises(ApplyError, match="state unknown: inference/a"):
            stack.apply()
        stack.configurations.unregister("default")  # exactly what it had; but does it have it?
        (change,) = stack.plan().changes
        assert (change.provider.key, change.kind) == ("inference/a", "change")
        stack.apply()
        assert world.running() == {"a": "port 80", "b": "port 80"}
        assert world.given[-1][2] is None  # nobody knows what it ran with
        assert not stack.plan()


def test_an_unknown_provider_without_any_field_is_planned_again_too(tmp_path):
    class Bare(BaseModel):
        pass

    tries = []

    def applying(provider, config, previous):
        tries.append(provider.provider_id)
        return Applied(undo=lambda: 1 / 0, check=lambda: "sick" if len(tries) == 1 else None)

    with open_stack(tmp_path, one(), Owner(Bare, applying=applying)) as stack:
        with pytest.raises(ApplyError, match="ZeroDivisionError"):
            stack.apply()
        assert stack.apply().state == "applied"
        assert not stack.plan()


# Out of reach


def test_pending_is_no_failure_and_the_next_apply_tries_again(tmp_path, world):
    owner = Owner(Service, applying=world.apply)
    with open_stack(tmp_path, services(a="ok", b="away", c="ok"), owner) as stack:
        report = stack.apply()
        assert report.state == "pending"
        assert states(report) == {"a": "applied", "b": "pending", "c": "applied"}
        assert report.of("pending")[0].error == "connection refused"
        assert stack.store.status()["inference/b"].state == "pending"
        assert [change.provider.provider_id for change in stack.plan().changes] == ["b"]
        world.acts.clear()
        assert stack.apply().state == "pending"
        assert world.acts == ["apply b"]
    with open_stack(tmp_path, services(a="ok", b="ok", c="ok"), owner) as stack:
        assert states(stack.apply()) == {"b": "applied"}


def test_require_healthy_makes_pending_a_failure(tmp_path, world):
    owner = Owner(Service, applying=world.apply)
    with open_stack(tmp_path, services(a="ok", b="away"), owner) as stack:
        with pytest.raises(ApplyError, match="not healthy: connection refused") as caught:
            stack.apply(require_healthy=True)
        assert states(caught.value.report) == {"a": "rolled_back", "b": "failed"}
        assert world.running() == {}


# Leaving, and becoming another


def test_a_provider_that_is_removed_or_disabled_leaves(tmp_path, world):
    owner = Owner(Service, applying=world.apply)
    with open_stack(tmp_path, services(a="ok", b="ok", c={"port": 7}), owner) as stack:
        stack.apply()
    data = services(a="ok", b="ok")
    data["providers"]["inference"][1]["provider_id"] = "__disabled__"
    with open_stack(tmp_path, data, owner) as stack:
        plan = stack.plan()
        assert [(change.provider.provider_id, change.kind) for change in plan.changes] == [
            ("b", "leave"),
            ("c", "leave"),
        ]
        stack.apply()
        assert world.running() == {"a": "port 80"}
        assert [(name, config, previous.port) for name, config, previous in world.given[-2:]] == [
            ("b", None, 80),
            ("c", None, 7),
        ]
        assert set(stack.store.applied()) == set(stack.store.status()) == {"inference/a"}
        assert not stack.plan()


def test_leaving_is_undone_when_another_refuses_to_leave(tmp_path, world):
    owner = Owner(Service, applying=world.apply)
    with open_stack(tmp_path, services(a="ok", b="stay"), owner) as stack:
        stack.apply()
    with open_stack(tmp_path, {"providers": {}}, owner) as stack:
        with pytest.raises(ApplyError, match=r"inference/b: .* it is needed; 1 rolled back") as caught:
            stack.apply()
        assert states(caught.value.report) == {"a": "rolled_back", "b": "failed"}
        assert world.running() == {"a": "port 80", "b": "port 80"}
        assert [change.kind for change in stack.plan().changes] == ["leave", "leave"]


def test_a_provider_whose_plugin_is_gone_is_forgotten_and_that_is_said(tmp_path, world):
    with open_stack(tmp_path, services(a="ok"), Owner(Service, applying=world.apply)) as stack:
        stack.apply()
    with open_stack(tmp_path, {"providers": {}}, registry=registry_of()) as stack:
        report = stack.apply()
        assert states(report) == {"a": "applied"}
        assert "no installed plugin" in report.outcomes[0].detail
        assert stack.store.applied() == {}


def two_types(acts, *, join="ok"):
    def applying(provider, config, previous):
        acts.append((provider.provider_type, None if config is None else "in", previous))
        if config is not None and provider.provider_type == "remote::new" and join != "ok":
            raise ValueError("no")

        def undo():
            acts.append((provider.provider_type, "undo", None))

        return Applied(undo=undo)

    return Owner(
        {"inference/remote::acme": Service, "inference/remote::new": OtherService}, applying=applying
    )


def test_a_provider_that_becomes_another_type_leaves_as_the_old_one_first(tmp_path):
    acts = []
    owner = two_types(acts)
    with open_stack(tmp_path, one({"port": 9}), owner) as stack:
        stack.apply()
    acts.clear()
    with open_stack(tmp_path, one(provider_type="remote::new"), owner) as stack:
        assert [(change.kind, change.provider.provider_type) for change in stack.plan().changes] == [
            ("leave", "remote::acme"),
            ("join", "remote::new"),
        ]
        stack.apply()
        assert [(kind, what) for kind, what, _ in acts] == [("remote::acme", None), ("remote::new", "in")]
        assert acts[0][2].port == 9
        assert acts[1][2] is None
        assert stack.store.applied()["inference/acme"].provider.provider_type == "remote::new"
        assert not stack.plan()


def test_a_change_of_type_that_fails_leaves_the_old_one(tmp_path):
    acts = []
    with open_stack(tmp_path, one(), two_types(acts)) as stack:
        stack.apply()
    acts.clear()
    with open_stack(tmp_path, one(provider_type="remote::new"), two_types(acts, join="no")) as stack:
        with pytest.raises(ApplyError):
            stack.apply()
        assert [(kind, what) for kind, what, _ in acts][-1] == ("remote::acme", "undo")
        assert stack.store.applied()["inference/acme"].provider.provider_type == "remote::acme"
    with open_stack(tmp_path, one(), two_types(acts)) as stack:
        assert not stack.plan()


# Async, late, interrupted


def test_async_hooks_their_checks_and_undos_run_on_one_loop(tmp_path):
    loops = []

    class Async:
        provides = Owner(Service).provides

        from stackconf import hookimpl as _hookimpl

        @_hookimpl
        async def apply_config(self, provider, config, previous):
            loops.append(asyncio.get_running_loop())
            lock = asyncio.Lock()
            await lock.acquire()

            async def undo():
                loops.append(asyncio.get_running_loop())
                lock.release()

            async def check():
                loops.append(asyncio.get_running_loop())
                await asyncio.sleep(0)
                return None if provider.provider_id == "a" else "sick"

            return Applied("awaited", undo=undo, check=check)

    with open_stack(tmp_path, services(a="ok", b="ok"), Async()) as stack:
        with pytest.raises(ApplyError, match="check failed: sick") as caught:
            stack.apply()
        assert states(caught.value.report) == {"a": "rolled_back", "b": "failed"}
    assert len(loops) == 6
    assert len(set(map(id, loops))) == 1


def test_apply_works_inside_a_running_event_loop(tmp_path, world):
    async def serve():
        with open_stack(tmp_path, services(a="ok"), Owner(Service, applying=world.apply)) as stack:
            return stack.apply()

    assert asyncio.run(serve()).state == "applied"


@pytest.mark.parametrize("how", ["raises", "exits", "cancels"])
def test_an_async_hook_that_breaks_out_is_a_failure_and_holds_nobody(tmp_path, monkeypatch, how):
    monkeypatch.setenv("STACKCONF_APPLY_TIMEOUT", "5")

    def breaking():
        if how == "raises":
            raise ValueError("no")
        if how == "exits":
            raise SystemExit(2)
        raise asyncio.CancelledError

    def applying(provider, config, previous):
        async def run():
            breaking()

        async def check():
            breaking()

        return run() if config.mode == "hook" else Applied(undo=lambda: None, check=check)

    for mode in ("hook", "check"):
        folder = tmp_path / mode
        folder.mkdir()
        started = time.monotonic()
        with (
            open_stack(folder, services(a=mode), Owner(Service, applying=applying)) as stack,
            pytest.raises(ApplyError, match="inference/a") as caught,
        ):
            stack.apply()
        assert time.monotonic() - started < 3
        assert states(caught.value.report) == {"a": "failed"}


@pytest.mark.parametrize("kind", ["blocking", "awaiting", "blocking-the-loop"])
def test_a_hook_that_hangs_costs_its_deadline_and_its_state_is_unknown(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("STACKCONF_APPLY_TIMEOUT", "0.2")
    monkeypatch.setattr("stackconf.calling._GRACE", 0.2)
    gate = threading.Event()
    undone = []

    def applying(provider, config, previous):
        async def awaiting():
            await asyncio.sleep(30)

        async def undo():
            undone.append(provider.provider_id)

        async def blocking():
            gate.wait(30)

        if provider.provider_id == "a":
            return Applied(undo=undo)
        if kind == "blocking":
            gate.wait(30)
            return None
        return awaiting() if kind == "awaiting" else blocking()

    started = time.monotonic()
    with open_stack(tmp_path, services(a="ok", b="ok"), Owner(Service, applying=applying)) as stack:
        with pytest.raises(ApplyError, match=r"did not answer within 0\.2 s") as caught:
            stack.apply()
        assert time.monotonic() - started < 5
        assert states(caught.value.report) == {"a": "rolled_back", "b": "unknown"}
        assert undone == ["a"]
        gate.set()
        # It may have taken effect meanwhile, so it is planned again.
        assert {change.provider.provider_id for change in stack.plan().changes} == {"a", "b"}


def test_a_check_or_undo_that_hangs_is_a_failure_of_that_provider(tmp_path, monkeypatch):
    monkeypatch.setenv("STACKCONF_APPLY_TIMEOUT", "0.2")
    gate = threading.Event()

    def applying(provider, config, previous):
        wait = lambda: gate.wait(30)  # noqa: E731
        if provider.provider_id == "a":
            return Applied(undo=wait)
        return Applied(undo=lambda: None, check=wait)

    with open_stack(tmp_path, services(a="ok", b="ok"), Owner(Service, applying=applying)) as stack:
        with pytest.raises(ApplyError) as caught:
            stack.apply()
        gate.set()
        assert states(caught.value.report) == {"a": "unknown", "b": "failed"}
        assert "no answer within 0.2 s" in caught.value.report.outcomes[1].error


def test_ctrl_c_undoes_what_was_done_and_is_written_down(tmp_path):
    """A real process, a real SIGINT while a hook runs."""
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from core_kit import Owner, open_stack
        from test_core_apply import Service, World, services
        folder = Path(sys.argv[1])
        world = World(folder)
        stack = open_stack(folder, services(a="ok", b="hang"), Owner(Service, applying=world.apply))
        def observer(progress):
            if progress.provider == "inference/b" and progress.seconds is None:
                print("hanging", flush=True)
        try:
            stack.apply(observer=observer)
        except KeyboardInterrupt:
            print("interrupted", world.acts, flush=True)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path, Path(__file__).parent], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "hanging\n"
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        said = child.communicate(timeout=20)[0]
    assert "interrupted ['apply a', 'check a', 'apply b', 'undo a']" in said
    with open_stack(tmp_path, services(a="ok", b="ok"), Owner(Service)) as stack:
        (attempt,) = stack.store.attempts()
        assert attempt.state == "failed"
        found = {each["provider"]: each["state"] for each in attempt.report["outcomes"]}
        assert found == {"inference/a": "rolled_back", "inference/b": "unknown"}
        assert len(stack.plan().changes) == 2


def test_a_process_that_is_killed_in_an_apply_leaves_a_begun_attempt(tmp_path):
    script = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from core_kit import Owner, open_stack
        from test_core_apply import Service, services
        kill = lambda provider, config, previous: os.kill(os.getpid(), 9)
        open_stack(Path(sys.argv[1]), services(a="ok"), Owner(Service, applying=kill)).apply()
        """
    )
    child = subprocess.run([sys.executable, "-c", script, tmp_path, Path(__file__).parent], check=False)
    assert child.returncode == -signal.SIGKILL
    with open_stack(tmp_path, services(a="ok"), Owner(Service)) as stack:
        (attempt,) = stack.store.attempts()
        assert (attempt.state, attempt.finished_at) == ("begun", None)
        assert is_unknown(stack.store.applied()["inference/a"])
        report = stack.apply()
        assert (report.state, report.took_over) == ("applied", 1)
        assert [each.state for each in stack.store.attempts()] == ["applied", "cut_off"]


def test_an_observer_that_fails_stops_nothing(tmp_path, world):
    def observer(progress):
        raise BrokenPipeError

    with open_stack(tmp_path, services(a="ok"), Owner(Service, applying=world.apply)) as stack:
        assert stack.apply(observer=observer).state == "applied"


def test_an_observer_sees_every_step_begin_and_end(tmp_path, world):
    seen = []
    with (
        open_stack(tmp_path, services(a="ok", b="sick"), Owner(Service, applying=world.apply)) as stack,
        pytest.raises(ApplyError),
    ):
        stack.apply(observer=lambda each: seen.append((each.provider[-1], each.step, each.seconds is None)))
    steps = [("a", "apply"), ("a", "check"), ("b", "apply"), ("b", "check"), ("b", "undo"), ("a", "undo")]
    assert seen == [(*step, begins) for step in steps for begins in (True, False)]


# What a plugin may return


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, ""),
        (Applied(detail=None), ""),
        (Applied(detail="two\nlines"), "two lines"),
        (Applied(detail=7), "7"),
    ],
)
def test_a_sloppy_answer_is_taken(tmp_path, returned, said):
    owner = Owner(Service)
    owner._applying = lambda provider, config, previous: returned
    with open_stack(tmp_path, one(), owner) as stack:
        (outcome,) = stack.apply().outcomes
        assert (outcome.state, outcome.detail) == ("applied", said)


@pytest.mark.parametrize("returned", ["done", True, {"detail": "x"}])
def test_a_wrong_answer_is_a_failure_that_names_the_plugin(tmp_path, returned):
    owner = Owner(Service, applying=lambda provider, config, previous: returned)
    with (
        open_stack(tmp_path, one(), owner) as stack,
        pytest.raises(ApplyError, match=f"apply_config of plugin `Owner` returned {type(returned).__name__}"),
    ):
        stack.apply()


def test_a_provider_type_without_the_hook_is_recorded_and_taken_back_with_the_others(tmp_path, world):
    class Silent:
        provides = Owner({"scoring/inline::s": OtherService}).provides

    owner = Owner({"vector_io/inline::v": Service}, applying=world.apply)
    data = {
        "providers": {
            "scoring": [{"provider_id": "s", "provider_type": "inline::s"}],
            "vector_io": [{"provider_id": "v", "provider_type": "inline::v", "config": {"mode": "sick"}}],
        }
    }
    with open_stack(tmp_path, data, Silent(), owner) as stack:
        with pytest.raises(ApplyError) as caught:
            stack.apply()
        assert states(caught.value.report) == {"s": "rolled_back", "v": "failed"}
        assert stack.store.applied() == {}


def test_a_plugin_that_changes_the_object_it_is_given_does_not_change_what_is_recorded(tmp_path):
    def applying(provider, config, previous):
        config.port = 9999
        return Applied()

    with open_stack(tmp_path, one(), Owner(Service, applying=applying)) as stack:
        stack.apply()
        assert stack.store.applied()["inference/acme"].snapshot["port"] == 80


# Before anything is touched


def test_nothing_is_touched_while_one_provider_is_wrong(tmp_path, world):
    owner = Owner(Service, applying=world.apply)
    with open_stack(tmp_path, services(a="ok", b={"port": "eighty"}), owner) as stack:
        with pytest.raises(InvalidConfig, match="nothing was applied: 1 error") as caught:
            stack.apply()
        assert any("inference/b: config.port" in line for line in lines(caught.value.issues))
        assert world.acts == []
        assert stack.store.attempts() == []


def test_a_stale_plan_is_refused_whatever_moved(tmp_path, world):
    owner = Owner(Service, applying=world.apply)
    with open_stack(tmp_path, services(a="ok"), owner) as stack:
        plan = stack.plan()
        stack.configurations.register(overlay({"port": 1}, "inference/a"))
        with pytest.raises(StalePlan, match="the revision moved from 0 to 1"):
            stack.apply(plan)
        plan = stack.plan()
        stack.apply()
        with pytest.raises(StalePlan, match="what is applied"):
            stack.apply(plan)
        plan = stack.plan()
    with (
        open_stack(tmp_path, services(a="ok", b="ok"), owner) as stack,
        pytest.raises(StalePlan, match="the stack file changed"),
    ):
        stack.apply(plan)
    with (
        open_stack(tmp_path, services(a="ok"), owner, hardware=machine(cores=2)) as stack,
        pytest.raises(StalePlan, match="the hardware changed"),
    ):
        stack.apply(plan)
    assert machine(cores=2) != MACHINE


# What the next process tells a plugin of what it had


class Secretive(BaseModel):
    class Inner(BaseModel):
        host: str = user_field("h1")
        password: SecretStr = SecretStr("")

    host: str = user_field("one")
    api_key: SecretStr = SecretStr("")
    inner: Inner = Inner()
    url: str = user_field("http://localhost")


def test_the_next_process_gives_the_plugin_what_is_applied_with_the_secrets_that_did_not_change(tmp_path):
    given = []
    owner = Owner(Secretive, applying=lambda provider, config, previous: given.append((config, previous)))
    config = {
        "host": "one",
        "api_key": "first-key",
        "inner": {"host": "h1", "password": "p1"},
        "url": "http://me:p2@one",
    }
    with open_stack(tmp_path, one(config), owner) as stack:
        stack.apply()
    changed = {**config, "inner": {"host": "h2", "password": "p1"}}
    with open_stack(tmp_path, one(changed), owner) as stack:
        stack.apply()
    previous = given[-1][1]
    assert (previous.inner.host, previous.inner.password.get_secret_value()) == ("h1", "p1")
    assert previous.api_key.get_secret_value() == "first-key"
    assert previous.url == "http://me:p2@one"
    rotated = {**changed, "api_key": "second-key", "url": "http://me:p3@two"}
    with open_stack(tmp_path, one(rotated), owner) as stack:
        (change,) = stack.plan().changes
        assert {field.path for field in change.fields} == {"api_key", "url"}
        stack.apply()
    previous = given[-1][1]
    assert previous.api_key.get_secret_value() == ""  # the store keeps no secret
    assert previous.url == "http://me:@one"
    assert previous.inner.password.get_secret_value() == "p1"


def test_a_leaving_provider_with_a_required_secret_is_still_told_what_it_had(tmp_path):
    class Keyed(BaseModel):
        api_key: SecretStr
        port: int = 1

    given = []
    owner = Owner(Keyed, applying=lambda provider, config, previous: given.append((config, previous)))
    with open_stack(tmp_path, one({"api_key": "k-123456", "port": 5}), owner) as stack:
        stack.apply()
    with open_stack(tmp_path, {"providers": {}}, owner) as stack:
        stack.apply()
    config, previous = given[-1]
    assert config is None
    assert previous.port == 5


def test_the_environment_of_an_apply_can_be_slow_or_odd_without_harm(tmp_path, monkeypatch, world):
    for odd in ("", "soon", "nan", "-1", "0", "inf", "1e30"):
        monkeypatch.setenv("STACKCONF_APPLY_TIMEOUT", odd)
        monkeypatch.setenv("STACKCONF_HOOK_TIMEOUT", odd)
        folder = tmp_path / f"x{odd}"
        folder.mkdir()
        with open_stack(folder, services(a="ok"), Owner(Service, applying=world.apply)) as stack:
            assert stack.apply().state == "applied"
    assert os.environ["STACKCONF_APPLY_TIMEOUT"] == "1e30"
