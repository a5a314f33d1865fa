"""The JSON shapes: what is written is read again as the same, and what is wrong is one line."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
import pytest
from attrs import evolve, frozen
from core_kit import Owner, one, open_stack, overlay, registry_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

import stackconf.shapes
from stackconf import ProviderType, StackconfError, StalePlan, errors, simulate, user_field
from stackconf.apply import Progress, Report
from stackconf.choosing import Chosen, Listed
from stackconf.comparison import Comparison, Row
from stackconf.configurations import Configurations, Registered
from stackconf.conflicts import ABSENT, FieldConflict, FieldDiff
from stackconf.described import DescribedType, ListedProvider, ListedType, described, listed_types
from stackconf.drift import Drift
from stackconf.export.export import Exported
from stackconf.hardware.facts import Hardware
from stackconf.hardware.shares import Share
from stackconf.history import Difference, History, RolledBack
from stackconf.packing import packed, unpacked
from stackconf.plan import UNKNOWN, AppliedRecord, Plan, is_unknown, place_of
from stackconf.shapes.applied import applied_data, applied_from
from stackconf.shapes.comparisons import comparison_data, comparison_from
from stackconf.shapes.configurations import (
    configuration_data,
    configuration_from,
    listed_data,
    listed_from,
    registered_data,
    registered_from,
)
from stackconf.shapes.drift import drift_data, drift_from
from stackconf.shapes.errors import PROBLEMS, error_data, error_from, headers_of, status_of
from stackconf.shapes.exports import export_data, export_from
from stackconf.shapes.fits import chosen_data, chosen_from
from stackconf.shapes.hardware import (
    hardware_data,
    hardware_from,
    share_data,
    share_from,
    shares_data,
    shares_from,
)
from stackconf.shapes.history import (
    difference_data,
    difference_from,
    history_data,
    history_from,
    pruned_data,
    pruned_from,
    revision_data,
    revision_from,
    rolled_back_data,
    rolled_back_from,
)
from stackconf.shapes.issues import issue_data, issue_from
from stackconf.shapes.origins import origin_data, origin_from
from stackconf.shapes.plans import plan_data, plan_from
from stackconf.shapes.reading import Misshapen
from stackconf.shapes.reports import event_data, event_from, report_data, report_from
from stackconf.shapes.status import status_data, status_from
from stackconf.shapes.stores import recovered_data, recovered_from
from stackconf.shapes.types import (
    listed_provider_data,
    listed_provider_from,
    listed_type_data,
    listed_type_from,
    type_data,
    type_from,
)
from stackconf.stack import Stack
from stackconf.status import StackStatus
from stackconf.store.base import (
    Configuration,
    JournalStep,
    OpenAttempt,
    Pruned,
    Revision,
    RevisionSummary,
    State,
)
from stackconf.store.lastgood import LastGood
from stackconf.store.salvage import Recovered
from stackconf.types import Issue, Origin, Provider


@frozen
class Shape:
    """The two functions of one class."""

    kind: Any
    data: Callable[[Any], dict[str, Any]]
    read: Callable[[object], Any]

    def __str__(self) -> str:
        return str(self.kind.__name__)


SHAPES = [
    Shape(Issue, issue_data, issue_from),
    Shape(Origin, origin_data, origin_from),
    Shape(Plan, plan_data, plan_from),
    Shape(Report, report_data, report_from),
    Shape(Progress, event_data, event_from),
    Shape(StackStatus, status_data, status_from),
    Shape(History, history_data, history_from),
    Shape(Revision, revision_data, revision_from),
    Shape(Difference, difference_data, difference_from),
    Shape(RolledBack, rolled_back_data, rolled_back_from),
    Shape(Pruned, pruned_data, pruned_from),
    Shape(Configuration, configuration_data, configuration_from),
    Shape(Listed, listed_data, listed_from),
    Shape(Chosen, chosen_data, chosen_from),
    Shape(Registered, lambda each: registered_data(each, assigned=True), registered_from),
    Shape(Drift, drift_data, drift_from),
    Shape(Exported, export_data, export_from),
    Shape(LastGood, applied_data, applied_from),
    Shape(Comparison, comparison_data, comparison_from),
    Shape(Share, share_data, share_from),
    Shape(Hardware, hardware_data, hardware_from),
    Shape(Recovered, recovered_data, recovered_from),
    Shape(ListedProvider, listed_provider_data, listed_provider_from),
    Shape(ListedType, listed_type_data, listed_type_from),
    Shape(DescribedType, type_data, type_from),
]
EACH = pytest.mark.parametrize("shape", SHAPES, ids=str)

# Anything of each class, made from its annotations

TEXT = st.text("aé/ .:\n\"'{}", max_size=6)
NAMES = st.sampled_from(["url", "port", "$float", "$mapping", "ö", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
CONFIGS = st.dictionaries(NAMES, PLAIN, max_size=2)
MACHINES = st.sampled_from([simulate(each) for each in ("l4:2", "h100-80gb-sxm:1,cpu=8", "cpu=4")])


def known_names() -> dict[str, Any]:
    """Every class and alias of the package by its name, for annotations that name what is not imported."""
    found: dict[str, Any] = {}
    for module in (
        "types",
        "described",
        "plan",
        "apply",
        "status",
        "history",
        "conflicts",
        "drift",
        "comparison",
        "choosing",
        "fitting",
        "shipped",
    ):
        found |= vars(importlib.import_module(f"stackconf.{module}"))
    for module in ("store.base", "store.lastgood", "export.export", "hardware.facts", "hardware.shares"):
        found |= vars(importlib.import_module(f"stackconf.{module}"))
    return found


NAMESPACE = known_names()


def anything(kind: Any) -> st.SearchStrategy[Any]:
    """Any object of a type."""
    if kind in SPECIAL:
        return SPECIAL[kind]()
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, UnionType}:
        return st.one_of([anything(each) for each in arguments])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        if arguments[-1] is not ...:
            return st.tuples(*map(anything, arguments))
        return st.lists(anything(arguments[0]), max_size=2).map(tuple)
    assert attrs.has(kind), kind
    return built(kind)


def built(kind: Any, **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any object of an attrs class, with some of its fields given."""
    module = vars(importlib.import_module(kind.__module__))
    hints = get_type_hints(kind, {**NAMESPACE, **module})
    rest = {each.alias: hints[each.name] for each in attrs.fields(kind) if each.alias not in given}
    return st.builds(kind, **given, **{name: anything(hint) for name, hint in rest.items()})


def origins() -> st.SearchStrategy[Origin]:
    def with_beaten(origin: Origin) -> st.SearchStrategy[Origin]:
        alike = {name: st.just(getattr(origin, name)) for name in ("path", "user_field", "update")}
        beaten = built(Origin, beat=st.just(()), **alike)
        return st.lists(beaten, max_size=2).map(lambda beat: evolve(origin, beat=tuple(beat)))

    return built(Origin, beat=st.just(())).flatmap(with_beaten)


def says() -> st.SearchStrategy[Any]:
    entry = st.fixed_dictionaries({"provider_id": TEXT, "provider_type": TEXT, "config": CONFIGS})
    return st.dictionaries(TEXT, st.lists(entry, max_size=2), max_size=2)


def states() -> st.SearchStrategy[State]:
    found = st.lists(anything(Configuration), max_size=2)
    named = found.map(lambda listed: {each.name: each for each in listed})
    return st.builds(State, named, st.lists(TEXT, max_size=2).map(tuple))


def open_attempts() -> st.SearchStrategy[OpenAttempt]:
    touched = st.integers(0, 2)
    attempts = built(OpenAttempt, touched=st.just(()))
    return st.tuples(attempts, touched).map(lambda both: evolve(both[0], touched=both[0].steps[: both[1]]))


def last_good() -> st.SearchStrategy[LastGood]:
    def placed(records: Sequence[AppliedRecord]) -> dict[str, AppliedRecord]:
        found: dict[str, AppliedRecord] = {}
        for record in records:
            if record.provider not in {each.provider for each in found.values()}:
                found.setdefault(place_of(record.provider, found), record)
        return found

    marks = st.sampled_from([{}, {UNKNOWN: "joined"}, {UNKNOWN: "changed"}])
    snapshots = st.tuples(CONFIGS, marks).map(lambda both: {**both[0], **both[1]})
    records = st.lists(built(AppliedRecord, snapshot=snapshots), max_size=3)
    return built(LastGood, providers=records.map(placed))


def differences() -> st.SearchStrategy[Difference]:
    return built(Difference).map(lambda each: each if each.effective else evolve(each, unresolved=()))


MAYBE_ABSENT = VALUES | st.just(ABSENT)
SPECIAL: dict[Any, Callable[[], st.SearchStrategy[Any]]] = {
    str: lambda: TEXT,
    int: lambda: st.integers(0, 2**64),
    float: lambda: st.integers(0, 10**9).map(lambda each: each / 1000),
    bool: st.booleans,
    object: lambda: VALUES,
    NoneType: st.none,
    Hardware: lambda: MACHINES,
    Origin: origins,
    State: states,
    OpenAttempt: open_attempts,
    LastGood: last_good,
    Difference: differences,
    Provider: lambda: built(Provider, api=st.sampled_from(["inference", "tools"])),
    JournalStep: lambda: built(JournalStep, target=CONFIGS),
    Configuration: lambda: built(Configuration, providers=says()),
    FieldDiff: lambda: built(FieldDiff, before=MAYBE_ABSENT, after=MAYBE_ABSENT),
    FieldConflict: lambda: built(FieldConflict, before=MAYBE_ABSENT, theirs=MAYBE_ABSENT, mine=MAYBE_ABSENT),
    Row: lambda: built(Row, origins=st.lists(st.none() | origins(), min_size=1, max_size=2).map(tuple)),
    Plan: lambda: built(Plan, hardware=MACHINES | st.none()),
    Registered: lambda: built(Registered, kept=says(), planning=plans().map(lambda plan: lambda: plan)),
    DescribedType: lambda: built(DescribedType, json_schema=st.none() | CONFIGS),
    Share: lambda: built(
        Share,
        units=st.dictionaries(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 9)), st.floats(0, 1)),
    ),
}


def plans() -> st.SearchStrategy[Plan]:
    return anything(Plan)


def sent(data: object) -> Any:
    """What arrives of it at the other end."""
    return json.loads(json.dumps(data, allow_nan=False))


@EACH
@given(chosen=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_written_is_read_as_the_same(shape, chosen):
    each = chosen.draw(anything(shape.kind))
    data = sent(shape.data(each))
    read = shape.read(data)
    assert read == each
    assert type(read) is type(each)
    assert sent(shape.data(read)) == data
    if isinstance(each, Registered):
        assert read.plan == each.plan


@given(anything(Report))
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_last_event_is_the_report(report):
    data = sent(event_data(report))
    assert data["event"] == "report"
    assert event_from(data) == report


@given(VALUES)
def test_any_value_survives(value):
    assert unpacked(sent(packed(value))) == value


def test_values_that_json_has_no_word_for():
    assert math.isnan(unpacked(sent(packed([math.nan])))[0])
    assert unpacked(sent(packed({1: (math.inf, -math.inf), None: 2}))) == {
        "1": [math.inf, -math.inf],
        "None": 2,
    }
    assert sent(packed({"at": ABSENT})) == {"at": "ABSENT"}


# Nothing is forgotten

_WITHOUT = {"None", "Self", "Any", "Mapping", "Iterator", "AsyncIterator"}
_AT_HOME = {
    "Stack": "what is opened",
    "StackFile": "the file as it was read, with its secrets",
    "Resolution": "the configurations as objects of the plugins' classes",
}


def returned(owner: type) -> Iterator[tuple[str, str]]:
    """What the public methods and properties of a class are annotated to return."""
    for name, member in vars(owner).items():
        if not name.startswith("_"):
            function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if inspect.isfunction(function):
                yield name, str(inspect.get_annotations(function)["return"])


@pytest.mark.parametrize("owner", [Stack, Configurations], ids=lambda each: each.__name__)
def test_everything_that_a_stack_returns_has_a_shape(owner):
    shaped = {str(each) for each in SHAPES} | {"Event", "PluginLoadError"} | _WITHOUT | _AT_HOME.keys()
    found = dict(returned(owner))
    assert len(found) > 5
    unshaped = {name: kind for name, kind in found.items() if set(re.findall(r"\b[A-Z]\w+", kind)) - shaped}
    assert unshaped == {}


def test_every_way_out_has_a_way_back():
    functions: set[str] = set()
    for module in pkgutil.iter_modules(stackconf.shapes.__path__):
        members = vars(importlib.import_module(f"stackconf.shapes.{module.name}"))
        functions |= {name for name, each in members.items() if inspect.isfunction(each)}
    there = {name.removesuffix("_data") for name in functions if re.fullmatch(r"[a-z]\w*_data", name)}
    back = {name.removesuffix("_from") for name in functions if re.fullmatch(r"[a-z]\w*_from", name)}
    assert there - back == {"issues", "checked"}
    assert back - there == set()


# Errors

_REPORTS = anything(Report)
ERRORS: Mapping[type[StackconfError], st.SearchStrategy[StackconfError]] = {
    errors.StackconfError: st.builds(errors.StackconfError, TEXT),
    errors.InvalidConfig: st.builds(errors.InvalidConfig, TEXT, st.lists(anything(Issue), max_size=3)),
    errors.UnknownName: st.builds(errors.UnknownName, TEXT),
    errors.HookError: st.builds(
        errors.HookError, TEXT, TEXT, TEXT, distribution=TEXT, version=TEXT, provider=TEXT
    ),
    errors.PluginLoadError: st.builds(errors.PluginLoadError, TEXT, TEXT, distribution=TEXT, version=TEXT),
    errors.StoreError: st.builds(errors.StoreError, TEXT),
    errors.Conflict: st.builds(
        errors.Conflict,
        st.integers(0),
        st.integers(0),
        st.lists(anything(FieldConflict), max_size=2),
        st.lists(anything(RevisionSummary), max_size=2),
        problem=TEXT,
        mergeable=st.booleans(),
    ),
    errors.ApplyBusy: st.builds(errors.ApplyBusy, TEXT),
    errors.StoreDamaged: st.builds(errors.StoreDamaged, TEXT, TEXT, TEXT),
    errors.RevisionLost: st.builds(errors.RevisionLost, st.integers(0), TEXT),
    errors.StalePlan: st.builds(errors.StalePlan, st.lists(TEXT)),
    errors.SecretError: st.builds(errors.SecretError, TEXT, TEXT),
    errors.Sealed: st.builds(errors.Sealed, TEXT),
    errors.AccessDenied: st.builds(errors.AccessDenied, TEXT),
    errors.Unreachable: st.builds(errors.Unreachable, TEXT),
    errors.ApplyError: st.builds(errors.ApplyError, TEXT, _REPORTS),
    Misshapen: st.builds(Misshapen, TEXT, TEXT),
}


def test_the_whole_tree_is_told():
    tree = {each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, Exception)}
    assert tree | {Misshapen} == PROBLEMS.keys() == ERRORS.keys()
    assert len({each.name for each in PROBLEMS.values()}) == len(PROBLEMS)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda each: each.__name__)
@given(chosen=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_an_error_is_raised_at_the_other_end_as_it_was(kind, chosen):
    error = chosen.draw(ERRORS[kind])
    data = sent(error_data(error))
    assert data["type"].startswith("/problems/")
    assert data["title"]
    assert data["status"] == status_of(error)
    read = error_from(data)
    assert type(read) is kind
    assert str(read) == str(error) == data["detail"]
    assert vars(read) == vars(error)
    assert sent(error_data(read)) == data


def test_statuses():
    conflict = errors.Conflict(1, 2)
    assert [status_of(conflict), status_of(conflict, if_match=True)] == [409, 412]
    assert error_data(conflict, if_match=True)["status"] == 412
    assert status_of(errors.Sealed("no"), if_match=True) == 403
    assert headers_of(errors.ApplyBusy("wait")) == {"Retry-After": "1"}
    assert headers_of(conflict) == {}
    told = {kind.__name__: problem.status for kind, problem in PROBLEMS.items()}
    assert {name for name, status in told.items() if status >= 500} == {
        "ApplyError",
        "HookError",
        "PluginLoadError",
        "StackconfError",
        "StoreDamaged",
        "StoreError",
        "Unreachable",
    }


def test_a_class_that_is_not_in_the_tree_is_told_as_the_nearest_above_it():
    class Own(errors.UnknownName):
        pass

    assert type(error_from(sent(error_data(Own("no `x`"))))) is errors.UnknownName


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"type": "/problems/of-tomorrow", "detail": "too late"}, "too late"),
        ({"type": "about:blank", "title": "Bad Gateway", "status": 502}, "Bad Gateway"),
        ({"type": "about:blank", "title": "Not Found", "detail": ""}, "Not Found"),
        ({"detail": "Not Found"}, "Not Found"),
    ],
)
def test_an_error_that_is_not_known_is_at_least_its_line(data, line):
    error = error_from(data)
    assert (type(error), str(error)) == (StackconfError, line)


def test_an_error_below_another_path_is_known():
    data = {**error_data(errors.Sealed("no")), "type": "https://stack.example/a/problems/sealed"}
    assert type(error_from(sent(data))) is errors.Sealed


def test_an_error_whose_members_are_wrong_still_says_its_line():
    data = {**error_data(errors.StalePlan(["the revision"])), "moved": "everything"}
    with pytest.raises(StackconfError, match=r"the plan is stale.*moved: expected a list, not 'everything'"):
        raise error_from(data)


@pytest.mark.parametrize("data", [None, [], "<html>", 3, {}, {"detail": None}, {"detail": ["a"]}])
def test_what_is_no_error_is_said_in_one_line(data):
    with pytest.raises(Misshapen, match=r"what was sent cannot be read: [^\n]+$"):
        error_from(data)


# Garbage

JUNK = st.sampled_from(
    [None, True, -1, 1.5, 10**400, math.nan, "", "x" * 100, [], [None], [[]], {}, {"a": 1}, {"$float": "1"}]
)


@EACH
@given(chosen=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_garbage_is_one_line_or_nothing_that_matters(shape, chosen):
    data = sent(shape.data(chosen.draw(anything(shape.kind))))
    here: Any = {"top": data}
    key: Any = "top"
    while isinstance(here[key], (dict, list)) and here[key] and chosen.draw(st.booleans()):
        here = here[key]
        keys = sorted(here) if isinstance(here, dict) else range(len(here))
        key = chosen.draw(st.sampled_from(keys))
    if chosen.draw(st.booleans()):
        here[key] = chosen.draw(JUNK)
    else:
        del here[key]
    top = data if here is not None and key != "top" else here.get("top")
    wrong, read = raised(lambda: shape.read(top))
    if wrong is None:
        assert attrs.has(type(read))
        json.dumps(shape.data(read))
    else:
        assert re.fullmatch(r"what was sent cannot be read: [^\n]+", wrong)
        assert len(wrong) < 400


def raised(read: Callable[[], Any]) -> tuple[str | None, Any]:
    """The line of what reading raised, or what it read. Nothing else may be raised."""
    try:
        return None, read()
    except Misshapen as error:
        return str(error), None


@EACH
def test_what_is_no_object_is_refused(shape):
    for junk in (None, [], "plan", 3, True):
        with pytest.raises(Misshapen, match="expected an object, not"):
            shape.read(junk)


@EACH
@given(chosen=st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_a_newer_one_adds_is_ignored(shape, chosen):
    each = chosen.draw(anything(shape.kind))
    data = sent(shape.data(each))
    inside = [row for key, rows in data.items() if isinstance(rows, list) and key != "value" for row in rows]
    for row in (data, *inside):
        if isinstance(row, dict):
            row["of_tomorrow"] = {"new": [1]}
    assert shape.read(data) == each


def test_the_line_says_where():
    data = plan_data(Plan(1, "a", "b", issues=(Issue("wrong"),)))
    data["issues"][0]["level"] = "fatal"
    with pytest.raises(Misshapen) as caught:
        plan_from(data)
    assert str(caught.value) == (
        "what was sent cannot be read: issues[0].level: expected one of error, warning, ignored, not 'fatal'"
    )
    assert (caught.value.where, caught.value.problem[:15]) == ("issues[0].level", "expected one of")


def test_a_value_that_is_nested_too_deeply_is_refused():
    deep: Any = 1
    for _ in range(20_000):
        deep = [deep]
    data = origin_data(Origin("a", "class", 1, "here"))
    with pytest.raises(Misshapen, match="value: is nested too deeply"):
        origin_from({**data, "value": deep})
    with pytest.raises(Misshapen, match="is nested too deeply"):
        hardware_from({**hardware_data(simulate("l4")), "cpu": {"model": deep}})


# A real stack

SECRET = "hunter2-of-the-stack"


class Engine(BaseModel):
    url: str = user_field("http://localhost", update="reload")
    threads: int = user_field(1, update="in_place")
    token: SecretStr = SecretStr("none")


def real_stack(folder):
    return open_stack(folder, one({"token": SECRET, "url": f"http://me:{SECRET}@host"}), Owner(Engine))


def rounded(event: Progress | Report) -> Progress | Report:
    """An event with its times as they are sent."""
    if isinstance(event, Report):
        return evolve(
            event, outcomes=tuple(evolve(each, seconds=round(each.seconds, 3)) for each in event.outcomes)
        )
    return event if event.seconds is None else evolve(event, seconds=round(event.seconds, 3))


def test_a_real_stack_round_trips_and_gives_no_secret_away(tmp_path):
    texts = []

    def there_and_back(data: Any, read: Callable[[object], Any], expected: object) -> Any:
        arrived = sent(data)
        texts.append(json.dumps(arrived))
        found = read(arrived)
        assert found == expected
        return found

    with real_stack(tmp_path) as stack:
        there_and_back(plan_data(stack.plan()), plan_from, stack.plan())
        events = list(stack.apply_events())
        for event in events:
            rounded = (
                evolve(event, seconds=event.seconds and round(event.seconds, 3))
                if isinstance(event, Progress)
                else None
            )
            there_and_back(event_data(event), event_from, rounded or report_from(report_data(event)))
        registered = stack.configurations.register(overlay({"threads": 4, "token": "x"}))
        there_and_back(registered_data(registered, assigned=True), registered_from, registered)
        for shape, found in (
            (status_data, stack.status()),
            (drift_data, stack.drift()),
            (history_data, stack.history()),
            (revision_data, stack.show()),
            (difference_data, stack.diff(0, effective=True)),
            (export_data, stack.export()),
            (comparison_data, stack.compare({"here": stack.hardware, "there": simulate("l4:2")})),
            (rolled_back_data, stack.rollback(0)),
            (pruned_data, stack.prune(1)),
        ):
            read = next(each.read for each in SHAPES if each.data is shape)
            there_and_back(shape(found), read, found)
        for origin in stack.explain("inference/acme"):
            there_and_back(origin_data(origin), origin_from, origin)
        there_and_back(shares_data(stack.shares), shares_from, stack.shares)
        applied = stack.applied()
        arrived = applied_from(sent(applied_data(applied)))
        texts.append(json.dumps(applied_data(applied)))
        assert arrived.configuration() == applied.configuration()
        assert arrived.unknown == applied.unknown
    assert len(texts) > 12
    assert [text for text in texts if SECRET in text or '"$secret"' in text] == []
    assert any("********" in text for text in texts)


def test_a_plan_that_was_sent_applies_or_is_stale(tmp_path):
    with real_stack(tmp_path) as stack:
        plan = plan_from(sent(plan_data(stack.plan())))
        stack.configurations.register(overlay({"threads": 4}))
        with pytest.raises(StalePlan) as caught:
            stack.apply(plan)
        assert error_from(sent(error_data(caught.value))).args == caught.value.args
        plan = plan_from(sent(plan_data(stack.plan())))
        assert stack.apply(plan).state == "applied"


def test_an_attempt_that_was_cut_off_keeps_all_but_its_secrets(tmp_path):
    with real_stack(tmp_path) as stack:
        resolved = stack.resolution.providers["inference/acme"]
        from stackconf.plan import digester, snapshot

        target = snapshot(resolved, digester(stack.store.digest_key()))
        with stack.store.applying("ada"):
            stack.store.begin(0, "ada", [JournalStep(resolved.provider, "join", target)])
        found = stack.status()
        arrived = status_from(sent(status_data(found)))
        assert found.cut_off is not None
        assert arrived.cut_off is not None
        assert arrived.cut_off.touched == arrived.cut_off.steps
        assert arrived.cut_off.steps[0].target == {
            "url": "http://me:********@host",
            "threads": 1,
            "token": "********",
        }
        assert evolve(arrived, cut_off=found.cut_off) == found
        applied = stack.applied()
        again = applied_from(sent(applied_data(applied)))
        assert again.unknown == applied.unknown == ("inference/acme",)
        assert is_unknown(again.providers["inference/acme"])


# Types


class Inner(BaseModel):
    pin: str = user_field("inner-" + SECRET, secret=True)
    api_key: str = "named-" + SECRET


class Kinds(BaseModel):
    url: str = user_field(f"http://me:{SECRET}@host", update="reload", description="Where it is.")
    token: SecretStr = SecretStr(SECRET)
    pin: str = user_field("labelled-" + SECRET, secret=True)
    inner: Inner = Inner()
    inners: list[Inner] = [Inner()]
    by_name: dict[str, Inner] = {"a": Inner()}
    free: dict[str, Any] = {"password": SECRET, "list": [{"secret": SECRET}]}
    limit: float = math.inf
    call: Callable[[], int] | None = None
    port: int = user_field(80, update="in_place", ge=1, le=99)
    wanted: int


def test_a_type_is_described_with_its_schema_and_without_its_secrets():
    registry = registry_of(Owner(Kinds))
    assert listed_types(registry) == (ListedType("inference/remote::acme", "enabled", "Owner"),)
    found = described(registry, "inference/remote::acme")
    data = sent(type_data(found))
    assert SECRET not in json.dumps(data)
    assert type_from(data) == found
    fields = {each.path: each for each in found.fields}
    assert fields["port"].user_field
    assert (fields["port"].update, fields["port"].default, fields["port"].type) == (
        "in_place",
        80,
        "int 1..99",
    )
    assert (fields["wanted"].required, fields["wanted"].default) == (True, None)
    assert fields["pin"].secret
    assert fields["inners"].default == [{"pin": "********", "api_key": "********"}]
    schema = data["json_schema"]
    assert schema["required"] == ["wanted"]
    assert schema["properties"]["port"] == {
        "default": 80,
        "maximum": 99,
        "minimum": 1,
        "title": "Port",
        "type": "integer",
        "update": "in_place",
        "user_field": True,
    }
    assert schema["properties"]["url"]["default"] == "http://me:********@host"
    assert schema["properties"]["pin"]["default"] == "********"
    assert schema["$defs"]["Inner"]["properties"]["pin"]["default"] == "********"


def test_user_fields_of_a_class_that_somebody_else_wrote_are_marked_too():
    class Theirs(BaseModel):
        host: str = user_field("here")
        port: int = 80
        above: Theirs | None = None

    class Runtime:
        provides = (ProviderType("inference", "remote::acme", Theirs, user_fields={"port": "reload"}),)

    found = described(registry_of(Runtime()), "inference/remote::acme")
    assert {each.path: each.user_field for each in found.fields if "." not in each.path} == {
        "host": False,
        "port": True,
        "above": False,
    }
    schema = found.json_schema
    assert schema is not None
    marked = {key: each.get("user_field") for key, each in schema["$defs"]["Theirs"]["properties"].items()}
    assert marked == {"host": None, "port": True, "above": None}
    assert schema["$defs"]["Theirs"]["properties"]["port"]["update"] == "reload"


def test_a_class_without_a_schema_says_why():
    class Odd(BaseModel):
        @classmethod
        def __get_pydantic_json_schema__(cls, *_: Any) -> Any:
            raise RuntimeError("no schema today")

    found = described(registry_of(Owner(Odd)), "inference/remote::acme")
    assert found.json_schema is None
    assert found.schema_problem == "pydantic makes no schema of it: raised RuntimeError: no schema today"
    assert type_from(sent(type_data(found))) == found


@pytest.mark.parametrize("key", ["inference/remote::none", "nothing", ""])
def test_a_type_that_is_not_there(key):
    with pytest.raises(errors.UnknownName, match=r"type|provides"):
        described(registry_of(Owner(Engine)), key)
