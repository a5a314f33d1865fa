"""Status and retry: wanted, tried and applied are told apart, and pending is tried again."""

from __future__ import annotations

import signal
from itertools import repeat
from threading import Event

import pytest
from core_kit import Owner, one, open_stack, overlay
from test_core_apply import Service, World, services
from test_core_journal import killed

from stackconf import Applied, ApplyError
from stackconf.apply import Report
from stackconf.errors import StoreDamaged
from stackconf.retry import keep_trying
from stackconf.stack import default_store_path
from stackconf.store.base import JournalStep
from stackconf.types import Provider


def standings(stack) -> dict[str, tuple]:
    return {
        each.provider.split("/")[1]: (
            each.standing,
            each.desired,
            each.tried and each.tried.revision,
            each.applied,
        )
        for each in stack.status().providers
    }


def test_a_change_that_was_rolled_back_stays_visible_beside_what_is_there_now(tmp_path):
    world = World(tmp_path)
    with open_stack(tmp_path, services(a="ok", b="ok"), Owner(Service, applying=world.apply)) as stack:
        assert standings(stack) == {"a": ("to apply", 0, None, None), "b": ("to apply", 0, None, None)}
        stack.apply()
        assert standings(stack) == {"a": ("applied", 0, 0, 0), "b": ("applied", 0, 0, 0)}
        stack.configurations.register(
            {
                "inference": [
                    {"provider_id": "a", "config": {"port": 81}},
                    {"provider_id": "b", "config": {"mode": "reject"}},
                ]
            }
        )
        with pytest.raises(ApplyError):
            stack.apply()
        assert standings(stack) == {"a": ("to apply", 1, 1, 0), "b": ("to apply", 1, 1, 0)}
        a, b = stack.status().providers
        assert (a.tried.state, b.tried.state, b.tried.attempt) == ("rolled_back", "failed", 2)
        assert "port 80 is taken" in b.tried.error


def test_what_a_killed_apply_touched_is_unknown_and_said_to_be_cut_off(tmp_path):
    open_stack(tmp_path, services(a="ok", b="ok"), Owner(Service)).close()
    assert killed(tmp_path, "after apply", 1) == -signal.SIGKILL
    with open_stack(tmp_path, services(a="ok", b="ok"), Owner(Service)) as stack:
        status = stack.status()
        assert [each.standing for each in status.providers] == ["unknown", "to apply"]
        assert status.cut_off is not None
        assert [step.provider.provider_id for step in status.cut_off.touched] == ["a"]
        assert stack.apply().took_over == 1
        assert [each.standing for each in stack.status().providers] == ["applied", "applied"]


def test_who_applies_now_is_said_and_what_it_touches_is_not_called_cut_off(tmp_path):
    seen = []

    def applying(provider, config, previous):
        with open_stack(tmp_path, one(), Owner(Service)) as other:
            seen.append(other.status())
        return Applied()

    with open_stack(tmp_path, one(), Owner(Service, applying=applying)) as stack:
        stack.apply(actor="kim")
    assert (seen[0].running.actor, seen[0].cut_off) == ("kim", None)


def test_an_apply_that_begins_or_ends_while_status_looks_was_not_killed(tmp_path):
    with (
        open_stack(tmp_path, one(), Owner(Service)) as stack,
        open_stack(tmp_path, one(), Owner(Service)) as by,
    ):
        view = stack.store.view

        def ending():
            """Another process begins an apply just before the store is read, and ends it after."""
            with by.store.applying("kim"):
                number = by.store.begin(
                    0, "kim", [JournalStep(Provider("inference", "acme", "t"), "join", {})]
                )
                seen = view()
                by.store.finish(number, Report("applied", attempt=number), {}, [])
            stack.store.view = view
            return seen

        stack.store.view = ending
        assert stack.status().cut_off is None


def test_a_store_that_lost_what_was_applied_is_said_and_refuses_to_recover_and_to_retry(tmp_path):
    def away(provider, config, previous):
        return Applied(pending="connection refused")

    store = default_store_path(tmp_path / "stack.yaml")
    with open_stack(tmp_path, one(), Owner(Service, applying=away)) as stack:
        stack.apply()
        assert stack.status().lost == ""
    assert killed(tmp_path, "after apply", 1) == -signal.SIGKILL
    with open_stack(tmp_path, one(), Owner(Service)) as stack:
        assert stack.status().cut_off  # whoever closes it last has its log in the file
    old = store.read_bytes()
    with open_stack(tmp_path, one(), Owner(Service)) as stack:
        stack.apply()
    store.write_bytes(old)
    with open_stack(tmp_path, one(), Owner(Service)) as stack:
        assert "an old copy was put back" in stack.status().lost
        with pytest.raises(StoreDamaged, match="is behind"):
            stack.recover()
        with pytest.raises(StoreDamaged, match="is behind"):
            stack.manager.retry(stack.store)
    store.unlink()
    with open_stack(tmp_path, one(), Owner(Service)) as stack:
        assert stack.status().lost.startswith("is gone, and ")
        with pytest.raises(StoreDamaged, match="if it was removed on purpose, remove"):
            stack.apply()


def test_a_provider_that_left_the_file_and_one_that_no_longer_validates_are_told(tmp_path):
    owner = Owner(Service)
    with open_stack(tmp_path, services(a="ok", b="ok"), owner) as stack:
        stack.apply()
    with open_stack(tmp_path, services(b={"port": "many"}), owner) as stack:
        assert standings(stack) == {"b": ("invalid", 0, 0, 0), "a": ("to leave", None, 0, 0)}


class Flaky:
    """A server that can be reached from the n-th call on."""

    def __init__(self, away: int) -> None:
        self.away, self.tried = away, []

    def apply(self, provider, config, previous):
        self.tried.append(config.port)
        if len(self.tried) <= self.away:
            return Applied(pending="connection refused")
        if config.mode == "reject":
            raise ValueError("no")
        return Applied("reached")


def test_pending_is_tried_until_it_answers(tmp_path):
    flaky, reports = Flaky(3), []
    with open_stack(tmp_path, one(), Owner(Service, applying=flaky.apply)) as stack:
        assert stack.apply().state == "pending"
        assert stack.status().of("to apply")
        assert keep_trying(stack, stop=Event(), between=repeat(0.0), told=reports.append)
        assert [report.state for report in reports] == ["pending", "pending", "applied"]
        assert len(flaky.tried) == 4
        assert stack.status().of("applied")


def test_only_what_is_pending_is_tried_again_and_not_what_was_registered_since(tmp_path):
    flaky = Flaky(99)
    with open_stack(tmp_path, one(), Owner(Service, applying=flaky.apply)) as stack:
        stack.apply()
        stack.configurations.register(overlay({"port": 99}))
        assert keep_trying(stack, stop=Event(), between=repeat(0.0))
        assert flaky.tried == [80]
        stack.apply()
        assert stack.manager.pending(stack.store) == ("inference/acme",)


def test_one_that_answers_and_rejects_is_pending_no_more(tmp_path):
    flaky, reports = Flaky(1), []
    with open_stack(tmp_path, one({"mode": "reject"}), Owner(Service, applying=flaky.apply)) as stack:
        stack.apply()
        assert keep_trying(stack, stop=Event(), between=repeat(0.0), told=reports.append)
        assert [report.state for report in reports] == ["failed"]


def test_it_stops_when_told_and_waits_while_another_applies(tmp_path):
    flaky, stop = Flaky(99), Event()
    with open_stack(tmp_path, one(), Owner(Service, applying=flaky.apply)) as stack:
        stack.apply()

        def waits():
            yield 0.0
            with stack.store.applying("another"):
                yield 0.0  # the try meets the other apply, and nothing is touched
            stop.set()
            yield 60.0

        assert not keep_trying(stack, stop=stop, between=waits())
        assert len(flaky.tried) == 2
