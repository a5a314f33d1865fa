"""Whatever is done, in whatever order: at home and over HTTP the same comes of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from surface_kit import Site, door, one, plain, size

from stackconf import StackconfError

NAMES = st.sampled_from(["a", "b", "a/b", "ü"])
CONFIGS = st.one_of(
    st.builds(lambda threads: one(threads=threads), st.sampled_from([1, 2, 64, 65, "x", None, 2.0])),
    st.builds(lambda url: one(url=url), st.sampled_from(["http://x", "http://fail", "http://down", "stuck"])),
    st.builds(size, st.sampled_from([1, 2, 13])),
    st.sampled_from([one(mode="x"), one(token="hunter2"), one(limits={"a.b": 1.5}), {}, {"safety": []}, "{"]),
)
REVISIONS = st.one_of(st.integers(-3, 8), st.sampled_from(["head", "head-1", "-2", "x", "1.0"]))
EXPECTED = st.one_of(st.none(), st.integers(0, 6))
ON_CONFLICT = st.sampled_from(["refuse", "retry", "force", "other"])
PROVIDERS = st.sampled_from(["one", "inference/one", "vectors", "x", "inference/x", ""])

Step = tuple[str, tuple[Any, ...], dict[str, Any]]
Steps = st.SearchStrategy[Step]


def step(
    name: str, *arguments: st.SearchStrategy[Any], **options: st.SearchStrategy[Any]
) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(name), st.tuples(*arguments), st.fixed_dictionaries(options))


CONFLICT = {"expected_revision": EXPECTED, "on_conflict": ON_CONFLICT}
STEPS = st.one_of(
    step("register", CONFIGS, NAMES, assign=st.booleans(), **CONFLICT),
    step("register", CONFIGS, NAMES, on_dropped=st.sampled_from(["warn", "error", "ignore"])),
    step("assign", NAMES, **CONFLICT),
    step("unassign", NAMES, **CONFLICT),
    step("unregister", NAMES, **CONFLICT),
    step("apply", require_healthy=st.booleans()),
    step("apply_it", st.booleans()),
    step("retry"),
    step("recover"),
    step("rollback", REVISIONS, expected_revision=EXPECTED),
    step("prune", st.integers(0, 4)),
    step("show", REVISIONS),
    step("diff", REVISIONS, REVISIONS, effective=st.booleans()),
    step("explain", PROVIDERS, st.sampled_from([None, "url", "limits", "nope"])),
    step("get", NAMES),
)


def done(stack: Any, made: Step) -> object:
    """What came of a step: its result, or what it raised."""
    name, arguments, options = made
    try:
        if name == "apply_it":
            plan = stack.plan()
            if arguments[0]:
                stack.configurations.register(one(threads=7), "late")
            return stack.apply(plan)
        where = stack.configurations if hasattr(type(stack.configurations), name) else stack
        found = getattr(where, name)(*arguments, **options)
    except StackconfError as error:
        return type(error), str(error), sorted(vars(error).items())
    return (found, found.plan) if name == "register" else found


LOOKS: dict[str, Callable[[Any], object]] = {
    "list": lambda stack: stack.configurations.list(),
    "inspect": lambda stack: stack.configurations.inspect(),
    "effective": lambda stack: stack.effective(),
    "plan": lambda stack: stack.plan(),
    "status": lambda stack: stack.status(),
    "drift": lambda stack: stack.drift(),
    "applied": lambda stack: stack.applied().configuration(),
    "history": lambda stack: stack.history(),
    "issues": lambda stack: stack.issues,
    "pending": lambda stack: stack.pending,
    "providers": lambda stack: stack.providers(),
    "revision": lambda stack: stack.revision,
}


@pytest.fixture(autouse=True)
def ada(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACKCONF_ACTOR", "ada")
    monkeypatch.delenv("STACKCONF_SECRET_KEY", raising=False)
    monkeypatch.delenv("STACKCONF_SECRET_KEY_FILE", raising=False)


@pytest.mark.exhaustive
@settings(
    max_examples=25,
    derandomize=True,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(steps=st.lists(STEPS, min_size=3, max_size=8))
def test_any_sequence_comes_to_the_same(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sites = [Site(Path(folder, each)) for each in ("home", "http") if not Path(folder, each).mkdir()]
        with door("home", sites[0]) as home, door("client", sites[1]) as client:
            for made in steps:
                ours, theirs = done(home, made), done(client, made)
                assert same(ours, sites[0]) == same(theirs, sites[1]), made
            for name, look in LOOKS.items():
                assert same(look(home), sites[0]) == same(look(client), sites[1]), name
            assert sites[0].acme.calls == sites[1].acme.calls


def same(value: object, site: Site) -> str:
    return plain(value, site.folder)
