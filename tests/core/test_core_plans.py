"""Plans that are kept: as objects, as files, and refused when anything moved since."""

from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import get_args

import pytest
from core_kit import Owner, one, open_stack, overlay
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from stackconf import InvalidConfig, StalePlan, user_field
from stackconf.atomic import write_whole
from stackconf.hardware.discovery import static
from stackconf.plan import FieldChange, Kind, Plan, ProviderChange
from stackconf.planfile import KIND, MAX_BYTES, PlanFile, from_json, read_plan, to_json
from stackconf.testing import machine
from stackconf.types import Issue, LayerName, Level, Position, Provider, UpdateClass


class Server(BaseModel):
    url: str = user_field("http://class", update="reload")
    threads: int = user_field(1, update="in_place")
    ratio: float = user_field(1.0)
    token: SecretStr = user_field(SecretStr("none"))
    nested: dict[str, object] = user_field({})


def stack_of(folder, *providers: str, environ: Mapping[str, str] | None = None, config=None, **options):
    """A stack of servers that take their token and url from the environment."""
    values = {"token": "${env.TOKEN:=first}", "url": "${env.URL:=http://one}", **(config or {})}
    listed = [
        {"provider_id": name, "provider_type": "remote::acme", "config": values}
        for name in providers or ("acme",)
    ]
    owner = options.pop("owner", None) or Owner(Server)
    return open_stack(folder, {"providers": {"inference": listed}}, owner, environ=environ, **options)


# The file


def test_a_plan_is_written_read_and_applied_by_another_process_in_its_shoes(tmp_path):
    file = tmp_path / "plan.json"
    with stack_of(tmp_path) as stack:
        written = stack.write_plan(file, actor="ada")
        assert written.changes == stack.plan().changes
        assert stack.store.attempts() == []
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.glob(".plan*")] == []
    about = read_plan(file)
    assert (about.stack, about.actor, about.at[-1]) == ("stack.yaml", "ada", "Z")
    with stack_of(tmp_path) as stack:
        plan = stack.read_plan(file)
        assert plan == written
        assert stack.apply(plan).state == "applied"
        assert not stack.plan()


def test_a_plain_plan_writes_nothing(tmp_path):
    with stack_of(tmp_path) as stack:
        assert stack.plan()
    assert [each.name for each in tmp_path.iterdir()] == ["stack.yaml"]


def test_an_empty_plan_has_nothing_to_do(tmp_path):
    with stack_of(tmp_path) as stack:
        stack.apply()
        assert not stack.write_plan(tmp_path / "plan.json")
        assert stack.apply(stack.read_plan(tmp_path / "plan.json")).state == "nothing"


def test_a_configuration_with_errors_is_not_written_and_a_plan_with_errors_is_refused_before_anything(
    tmp_path,
):
    with stack_of(tmp_path, config={"threads": "many"}) as stack:
        with pytest.raises(InvalidConfig, match="the plan was not written"):
            stack.write_plan(tmp_path / "plan.json")
        assert not (tmp_path / "plan.json").exists()
        wrong = stack.plan()
    with stack_of(tmp_path) as stack:
        with pytest.raises(InvalidConfig, match="nothing was applied: 1 error"):
            stack.apply(wrong)
        assert stack.store.attempts() == []


def test_a_plan_replaces_a_plan_and_nothing_else(tmp_path):
    with stack_of(tmp_path) as stack:
        stack.write_plan(tmp_path / "plan.json")
        stack.write_plan(tmp_path / "plan.json")
        (tmp_path / "link.json").symlink_to(tmp_path / "plan.json")
        stack.write_plan(tmp_path / "link.json")
        assert (tmp_path / "link.json").is_symlink()
        for name in ("stack.yaml", "notes.txt"):
            file = tmp_path / name
            file.touch()
            before = file.read_bytes() or b"mine"
            file.write_bytes(before)
            with pytest.raises(InvalidConfig, match="is there and is not a plan; it was not replaced"):
                stack.write_plan(file)
            assert file.read_bytes() == before
        os.mkfifo(tmp_path / "pipe")
        for name, problem in (
            ("pipe", "is not a regular file"),
            (".", "is a folder"),
            ("no/plan.json", "No such file"),
            ("stack.yaml/plan.json", "Not a directory"),
            ("x" * 300, "File name too long"),
            ("a\0b", "cannot be the name of a file"),
        ):
            with pytest.raises(InvalidConfig, match=problem):
                stack.write_plan(f"{tmp_path}/{name}")


def test_whoever_reads_a_file_while_it_is_written_sees_all_of_it(tmp_path):
    file, bodies = tmp_path / "plan.json", [bytes([65 + number]) * 200_000 for number in range(2)]
    write_whole(file, bodies[0])
    done = threading.Event()

    def write() -> None:
        for number in range(40):
            write_whole(file, bodies[number % 2])
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = set()
    while not done.is_set():
        seen.add(file.read_bytes())
    thread.join()
    assert seen <= set(bodies)


def test_what_a_plugin_says_of_a_secret_does_not_come_into_the_file(tmp_path):
    def findings(provider, user_config, config, hardware):
        return [Issue(f"the key {config.token.get_secret_value()} is old", level="warning")]

    owner = Owner(Server, findings=findings)
    with stack_of(tmp_path, environ={"TOKEN": "canary4711"}, owner=owner) as stack:
        plan = stack.write_plan(tmp_path / "plan.json")
        assert [issue.message for issue in plan.issues] == ["the key ******** is old"]
    assert "canary" not in (tmp_path / "plan.json").read_text(encoding="utf-8")


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path):
    file = tmp_path / "plan.json"
    file.write_bytes(b"before")
    program = (
        "import resource, sys; from stackconf.atomic import write_whole;"
        " resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); write_whole(sys.argv[1], b'x' * 5000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, file], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr.splitlines()[-1].startswith("OSError: [Errno 27] File too large: ")
    assert str(file) in done.stderr.splitlines()[-1]
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("plan.json", b"before")]


# What is not a plan


@pytest.fixture
def written(tmp_path):
    with stack_of(tmp_path) as stack:
        stack.write_plan(tmp_path / "plan.json")
        yield stack, tmp_path / "plan.json"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text.replace("http://one", "http://two"), "was changed after it was written"),
        (lambda text: text.replace('"token"', '"tokens"'), "was changed after it was written"),
        (lambda text: text.replace('"checksum"', '"chequesum"'), "was changed after it was written"),
        (lambda text: text[: len(text) // 2], "is damaged or cut off"),
        (lambda text: text[:-3], "is damaged or cut off"),
        (lambda text: text.replace('"before": null', '"before": NaN'), "is damaged or cut off"),
        (
            lambda text: text.replace('"format": 1', '"format": 2'),
            r"has format 2 \(of stackconf .*reads format 1",
        ),
        (lambda text: text.replace('"format": 1', '"format": true'), "has format True"),
        (lambda text: text.replace(KIND, "another"), "is not a plan"),
        (lambda text: "", "is not a plan"),
        (lambda text: "[" * 100_000, "is not a plan"),
        (lambda text: "[1, 2]", "is not a plan"),
        (lambda text: f'{{"kind": "{KIND}", "format": 1, "a": {"[" * 100_000}', "is damaged or cut off"),
        (lambda text: f'{{"kind": "{KIND}", "format": 1, "a": {"9" * 9000}}}', "is damaged or cut off"),
        (lambda text: "\udcff\x00", "is not a plan"),
    ],
)
def test_what_is_no_plan_is_refused_in_one_line(written, change, problem):
    stack, file = written
    text = change(file.read_text(encoding="utf-8"))
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidConfig, match=problem) as caught:
        stack.read_plan(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_other_things_are_refused_too(written, tmp_path):
    stack, _ = written
    (tmp_path / "run.json").write_text(json.dumps({"version": 2, "providers": {}}))
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(100 * 2**20)
    os.mkfifo(tmp_path / "pipe")
    for name, problem in (
        ("stack.yaml", "is not a plan; a stack file is given with --stack"),
        ("run.json", "is not a plan; `stackconf plan -o FILE` writes one"),
        ("huge", f"is not a plan: it is larger than {MAX_BYTES // 2**20} MiB"),
        ("gone", "No such file or directory"),
        ("pipe", "is not a regular file"),
        ("", "is a folder, not a plan"),
        ("a\0b", "cannot be the name of a file"),
    ):
        with pytest.raises(InvalidConfig, match=problem) as caught:
            stack.read_plan(f"{tmp_path}/{name}")
        assert "\n" not in str(caught.value)


def test_any_other_layout_of_the_same_file_is_the_same_plan(written):
    stack, file = written
    before = stack.read_plan(file)
    file.write_text(json.dumps(json.loads(file.read_text()), sort_keys=True))
    assert stack.read_plan(file) == before


def forged(file, **plan) -> None:
    """Write other things into the plan, with a checksum that fits."""
    from stackconf import planfile

    data = json.loads(file.read_text())
    del data["checksum"]
    data["plan"].update(plan)
    data["checksum"] = planfile._checksum(data)
    file.write_text(json.dumps(data))


@pytest.mark.parametrize(
    "plan",
    [
        {"base_revision": "0"},
        {"base_revision": None},
        {"changes": 1},
        {"changes": [1]},
        {"changes": [{}]},
        {"changes": "text"},
        {"hardware": {"version": 1, "nonsense": 1}},
        {"hardware": []},
        {"issues": [{"level": "catastrophe"}]},
        {"unchanged": [1]},
    ],
)
def test_a_file_of_the_wrong_shape_is_refused_even_with_the_right_checksum(written, plan):
    stack, file = written
    forged(file, **plan)
    with pytest.raises(
        InvalidConfig, match=r"plan\.json is not a plan that this stackconf can read"
    ) as caught:
        stack.read_plan(file)
    assert "\n" not in str(caught.value)


def test_a_forged_file_that_shows_something_harmless_does_nothing(written):
    stack, file = written
    changes = json.loads(file.read_text())["plan"]["changes"]
    changes[0]["fields"][0]["after"] = "harmless"
    forged(file, changes=changes)
    with pytest.raises(StalePlan, match="or it was edited"):
        stack.apply(stack.read_plan(file))
    changes[0]["target"] = "0" * 32
    forged(file, changes=changes)
    with pytest.raises(StalePlan, match="inference/acme would get something else"):
        stack.apply(stack.read_plan(file))


def test_the_plan_of_another_stack_or_store_is_refused(written, tmp_path):
    stack, file = written
    other = tmp_path / "other"
    other.mkdir()
    with (
        stack_of(other) as elsewhere,
        pytest.raises(InvalidConfig, match="which has another store than this one"),
    ):
        elsewhere.read_plan(file)
    (tmp_path / "stack.yaml").rename(tmp_path / "second.yaml")
    from stackconf import Stack

    with (
        Stack.open(tmp_path / "second.yaml", store=stack.store) as second,
        pytest.raises(InvalidConfig, match=r"plan\.json is a plan for stack\.yaml, not for second\.yaml"),
    ):
        second.read_plan(file)


# What moved


def moved(stack, plan) -> tuple[str, ...]:
    with pytest.raises(StalePlan) as caught:
        stack.apply(plan)
    assert stack.store.attempts() == [] or stack.store.attempts()[0].state == "applied"
    assert str(caught.value) == f"the plan is stale: {'; '.join(caught.value.moved)}; plan again"
    return caught.value.moved


def test_a_moved_revision_is_named_with_who_did_what(tmp_path):
    file = tmp_path / "plan.json"
    with stack_of(tmp_path) as stack:
        stack.write_plan(file)
        for number in range(5):
            stack.configurations.register(
                overlay({"threads": number + 2}), name=f"c{number}", actor=f"user{number}"
            )
        (told,) = moved(stack, stack.read_plan(file))
        assert told == (
            "the revision moved from 0 to 5"
            " (2 before, then user2: register `c2`, user3: register `c3`, user4: register `c4`)"
        )


def test_every_input_that_moved_is_named(tmp_path):
    file = tmp_path / "plan.json"
    with stack_of(tmp_path, "a", hardware=machine(cores=8)) as stack:
        stack.write_plan(file)
        stack.apply(actor="ben")
        stack.configurations.register(overlay({"threads": 9}, "inference/a"), actor="ada")
    with stack_of(tmp_path, "a", "b", hardware=machine(cores=4)) as stack:
        revision, stack_file, hardware, applied = moved(stack, stack.read_plan(file))
        assert revision == "the revision moved from 0 to 1 (ada: register `default`)"
        assert stack_file == "the stack file changed"
        assert hardware.startswith("the hardware changed (cpu.")
        assert "8 -> 4" in hardware
        assert applied == "what is applied to inference/a changed (attempt 1 by ben)"


def test_a_secret_that_changed_is_seen_though_it_shows_nowhere(tmp_path):
    file = tmp_path / "plan.json"
    with stack_of(tmp_path, environ={"TOKEN": "first"}) as stack:
        stack.apply()
    with stack_of(tmp_path, environ={"TOKEN": "second"}) as stack:
        plan = stack.write_plan(file)
        assert [(each.path, each.before, each.after) for each in plan.changes[0].fields] == [
            ("token", "********", "********")
        ]
    with stack_of(tmp_path, environ={"TOKEN": "third"}) as stack:
        assert moved(stack, stack.read_plan(file)) == (
            "inference/acme would get something else: a secret changed",
        )
    with stack_of(tmp_path, environ={"TOKEN": "first"}) as stack:
        assert moved(stack, stack.read_plan(file)) == ("inference/acme would not change any more",)
    with stack_of(tmp_path, environ={"TOKEN": "second"}) as stack:
        assert stack.apply(stack.read_plan(file)).state == "applied"


def test_a_joining_provider_is_held_to_its_secrets_too(tmp_path):
    with stack_of(tmp_path, environ={"TOKEN": "first"}) as stack:
        stack.write_plan(tmp_path / "plan.json")
    with stack_of(tmp_path, environ={"TOKEN": "second"}) as stack:
        assert moved(stack, stack.read_plan(tmp_path / "plan.json")) == (
            "inference/acme would get something else: a secret, or a default of its class, changed",
        )


def test_the_environment_that_changed_is_named_by_its_field(tmp_path):
    with stack_of(tmp_path, "a", "b", environ={"URL": "http://first"}) as stack:
        stack.write_plan(tmp_path / "plan.json")
    with stack_of(tmp_path, "a", "b", environ={"URL": "http://second"}) as stack:
        assert moved(stack, stack.read_plan(tmp_path / "plan.json")) == (
            "inference/a would get something else: `url` changed (the environment or a plugin)",
            "inference/b would get something else: `url` changed (the environment or a plugin)",
        )


def test_a_provider_that_would_change_too_is_named(tmp_path):
    with stack_of(tmp_path, environ={}) as stack:
        stack.apply()
        stack.write_plan(tmp_path / "plan.json")
    with stack_of(tmp_path, environ={"URL": "http://second"}) as stack:
        (told,) = moved(stack, stack.read_plan(tmp_path / "plan.json"))
        assert told.startswith("inference/acme would change too")


def test_what_was_applied_meanwhile_is_named_by_provider(tmp_path):
    with stack_of(tmp_path, "a", "b") as stack:
        plan = stack.plan()
        stack.apply(actor="ben")
        assert moved(stack, plan) == (
            "what is applied to inference/a, inference/b changed (attempt 1 by ben)",
        )


def test_a_provider_that_became_another_type_is_planned_and_applied_from_a_file(tmp_path):
    owner = Owner({"inference/remote::acme": Server, "inference/remote::other": Server})
    with open_stack(tmp_path, one(), owner) as stack:
        stack.apply()
    with open_stack(tmp_path, one(provider_type="remote::other"), owner) as stack:
        plan = stack.write_plan(tmp_path / "plan.json")
        assert [(each.kind, bool(each.base), bool(each.target)) for each in plan.changes] == [
            ("leave", True, False),
            ("join", False, True),
        ]
        assert stack.apply(stack.read_plan(tmp_path / "plan.json")).state == "applied"


def test_nan_in_a_plan_does_not_make_it_stale(tmp_path):
    with stack_of(tmp_path, config={"ratio": math.nan}) as stack:
        stack.write_plan(tmp_path / "plan.json")
        assert stack.apply(stack.read_plan(tmp_path / "plan.json")).state == "applied"


def test_a_reason_that_is_worded_anew_does_not_make_it_stale(tmp_path):
    from stackconf import because

    words = iter("abcdefgh")
    owner = Owner(Server, defaults=lambda *_: {"threads": because(4, f"reason {next(words)}")})
    with stack_of(tmp_path, owner=owner) as stack:
        stack.write_plan(tmp_path / "plan.json")
    with stack_of(tmp_path, owner=owner) as stack:
        assert stack.plan().changes != stack.read_plan(tmp_path / "plan.json").changes
        assert stack.apply(stack.read_plan(tmp_path / "plan.json")).state == "applied"


# There and back

TEXT = st.text(max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(("$float", "$mapping", "a", "")) | TEXT, inner, max_size=3)
    ),
    max_leaves=8,
)
PROVIDERS = st.builds(Provider, TEXT, TEXT, TEXT)
FIELDS = st.builds(
    FieldChange,
    path=TEXT,
    before=VALUES,
    after=VALUES,
    update=st.sampled_from(get_args(UpdateClass)),
    layer=st.sampled_from(get_args(LayerName)),
    source=TEXT,
    reason=TEXT,
)
CHANGES = st.builds(
    ProviderChange,
    provider=PROVIDERS,
    kind=st.sampled_from(get_args(Kind)),
    update=st.sampled_from(get_args(UpdateClass)),
    fields=st.lists(FIELDS, max_size=3).map(tuple),
    class_defaults=st.integers(0, 99),
    target=TEXT,
    base=TEXT,
)
ISSUES = st.builds(
    Issue,
    message=TEXT,
    level=st.sampled_from(get_args(Level)),
    path=TEXT,
    hint=TEXT,
    code=TEXT,
    provider=TEXT,
    where=st.none() | st.builds(Position, TEXT, st.integers(0), st.integers(0)),
)
PLANS = st.builds(
    Plan,
    base_revision=st.integers(0),
    stack_digest=TEXT,
    hardware_fingerprint=TEXT,
    changes=st.lists(CHANGES, max_size=3).map(tuple),
    unchanged=st.lists(TEXT, max_size=3).map(tuple),
    issues=st.lists(ISSUES, max_size=2).map(tuple),
    hardware=st.sampled_from((None, machine(), machine(cores=2))),
)


@settings(max_examples=200, deadline=None)
@given(PLANS, TEXT, TEXT)
def test_any_plan_comes_back_as_it_was(plan, name, actor):
    file = PlanFile(plan, name, "store", "2026-01-01T00:00:00Z", actor)
    text = to_json(file)
    json.loads(text, parse_constant=pytest.fail)  # any other program reads it too
    back = from_json(text)
    assert repr(back) == repr(file)  # `nan` is not equal to itself, but it looks the same
    if "nan" not in repr(file):
        assert back == file
    assert back.plan.hardware == (None if plan.hardware is None else static(plan.hardware))
