"""A plugin that raises, answers wrongly, hangs or exits is blamed by name; the others go on."""

from __future__ import annotations

import threading
import time

import pytest
from core_kit import Owner, distribution, effective, lines, one, open_stack, plugin_source, registry_of
from pydantic import BaseModel, SecretStr, field_validator, model_validator

from stackconf import ApplyError, InvalidConfig, Issue, Registry, Stack, because, hookimpl, user_field
from stackconf.testing import machine

TYPE = "inference/remote::acme"


class Config(BaseModel):
    port: int = user_field(1)


BOTH = {
    "providers": {
        "inference": [
            {"provider_id": "bad", "provider_type": "remote::bad"},
            {"provider_id": "good", "provider_type": "remote::good"},
        ]
    }
}


def beside(tmp_path, bad: Owner, *others, **options):
    """A stack in which one plugin's provider stands before another's."""
    good = Owner({"inference/remote::good": Config}, defaults={"port": 7})
    return open_stack(tmp_path, BOTH, bad, good, *others, **options)


def bad(**hooks) -> Owner:
    return Owner({"inference/remote::bad": Config}, **hooks)


def raising(error: BaseException):
    def hook(*arguments):
        raise error

    return hook


def one_issue(stack, provider="inference/bad") -> Issue:
    """The only issue of a stack; the other provider is as it should be."""
    (issue,) = stack.issues
    lines([issue])
    assert issue.provider == provider
    assert effective(stack, "inference/good").port == 7
    return issue


ERRORS = [
    (ValueError("no"), "raised ValueError: no"),
    (ValueError("two\nlines"), "raised ValueError: two lines"),
    (KeyError("x"), "raised KeyError: 'x'"),
    (SystemExit(4), "raised SystemExit: 4"),
    (RecursionError("too deep"), "raised RecursionError"),
    (AssertionError(), "raised AssertionError"),
    (GeneratorExit(), "raised GeneratorExit"),
    (ExceptionGroup("many", [ValueError("a"), KeyError("b")]), "raised ExceptionGroup: many"),
]


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("not even this")


@pytest.mark.parametrize(("error", "said"), [*ERRORS, (Unspeakable(), "raised Unspeakable")])
@pytest.mark.parametrize("hook", ["default_config", "validate_user_config"])
def test_a_hook_that_raises_is_blamed_and_the_neighbour_goes_on(tmp_path, hook, error, said):
    keyword = {"default_config": "defaults", "validate_user_config": "findings"}[hook]
    with beside(tmp_path, bad(**{keyword: raising(error)})) as stack:
        issue = one_issue(stack)
        assert issue.level == "error"
        assert issue.message.startswith(f"{hook} of plugin `Owner` {said}")
        assert "defect of the plugin" in issue.hint
        with pytest.raises(InvalidConfig):
            stack.apply()


@pytest.mark.parametrize("error", [error for error, _ in ERRORS])
def test_an_apply_that_raises_is_a_failure_and_the_neighbour_is_undone_or_not_attempted(tmp_path, error):
    with beside(tmp_path, bad(applying=raising(error))) as stack:
        with pytest.raises(ApplyError, match="apply_config of plugin `Owner` raised") as caught:
            stack.apply()
        assert [each.state for each in caught.value.report.outcomes] == ["failed", "not_attempted"]


@pytest.mark.parametrize("answer", ["text", 5, ["port"], True, {1, 2}, object()])
def test_defaults_that_are_no_mapping_are_the_plugins_fault(tmp_path, answer):
    with beside(tmp_path, bad(defaults=lambda *_: answer)) as stack:
        assert (
            f"default_config of plugin `Owner` returned {type(answer).__name__}" in one_issue(stack).message
        )


def test_a_coroutine_from_a_sync_hook_is_the_plugins_fault_and_python_does_not_complain(tmp_path):
    async def later():
        return {}

    with beside(tmp_path, bad(defaults=lambda *_: later())) as stack:
        assert "returned coroutine, not a mapping" in one_issue(stack).message


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("text", "returned str, not a list of Issue"),
        (5, "returned int"),
        (Issue("alone"), "returned Issue"),
        (["text"], "gave str, not Issue"),
        ([None], "gave NoneType"),
        ([Issue(message=None)], "gave an Issue whose message is NoneType"),
        ([Issue("x", level="fatal")], "gave an Issue whose level"),
        ([Issue("x", path=("a", "b"))], "gave an Issue whose path is tuple"),
    ],
)
def test_findings_that_are_no_issues_are_the_plugins_fault(tmp_path, answer, said):
    with beside(tmp_path, bad(findings=lambda *_: answer)) as stack:
        assert f"validate_user_config of plugin `Owner` {said}" in one_issue(stack).message


def test_a_generator_of_findings_that_breaks_in_the_middle_is_the_plugins_fault(tmp_path):
    def findings(*_):
        yield Issue("first", level="warning")
        raise OSError("the disk")

    with beside(tmp_path, bad(findings=findings)) as stack:
        assert "raised OSError: the disk" in one_issue(stack).message


def test_a_finding_gets_its_provider_its_path_and_its_place(tmp_path):
    def findings(provider, user_config, config, hardware):
        yield Issue("too\nlarge", path="port", hint="use\n1")

    data = one({"port": 99})
    with open_stack(tmp_path, data, Owner(Config, findings=findings)) as stack:
        (line,) = lines(stack.issues)
        place = tmp_path / "stack.yaml"
        assert line == f"{place}:6:13: error: inference/acme: config.port: too large; use 1"


@pytest.mark.parametrize("defaults", [{"prt": 1}, {"port": "many"}, {"port": because("x", "y")}, {3: 4}])
def test_defaults_that_the_class_refuses_are_the_plugins_fault(tmp_path, defaults):
    with beside(tmp_path, bad(defaults=defaults)) as stack:
        issue = one_issue(stack)
        assert "default_config of plugin `Owner` gave" in issue.message
        assert "defect of the plugin" in issue.hint
        assert issue.where is None


def test_a_lazy_mapping_that_raises_is_the_plugins_fault(tmp_path):
    from collections.abc import Mapping

    class Lazy(Mapping):
        def __getitem__(self, key):
            raise RuntimeError("lazy")

        def __iter__(self):
            return iter(["port"])

        def __len__(self):
            return 1

    with beside(tmp_path, bad(defaults=lambda *_: Lazy())) as stack:
        assert "default_config of plugin `Owner` raised RuntimeError: lazy" in one_issue(stack).message


# Config classes are the plugin's code too


def test_a_class_default_that_is_wrong_is_the_plugins_fault_not_the_files(tmp_path):
    class Wrong(BaseModel, validate_default=True):
        port: int = user_field("eighty")

    with open_stack(tmp_path, BOTH, Owner({"inference/remote::bad": Wrong}), _good()) as stack:
        assert "(the type's own default)" in one_issue(stack).message


def _good() -> Owner:
    return Owner({"inference/remote::good": Config}, defaults={"port": 7})


@pytest.mark.parametrize("error", [RuntimeError("boom"), SystemExit(1), RecursionError()])
def test_a_validator_that_raises_something_else_is_the_plugins_fault(tmp_path, error):
    class Wrong(BaseModel):
        port: int = 1

        @field_validator("port", mode="before")
        @classmethod
        def _port(cls, value):
            raise error

        @model_validator(mode="before")
        @classmethod
        def _all(cls, value):
            return {"port": 1}

    with open_stack(tmp_path, BOTH, Owner({"inference/remote::bad": Wrong}), _good()) as stack:
        issue = one_issue(stack)
        assert type(error).__name__ in issue.message
        assert issue.message.startswith("config class of plugin `Owner` raised")


def test_a_default_factory_that_raises_is_the_plugins_fault(tmp_path):
    from pydantic import Field

    class Wrong(BaseModel):
        options: dict[str, int] = Field(default_factory=lambda: 1 / 0)
        port: int = 1

    with open_stack(tmp_path, BOTH, Owner({"inference/remote::bad": Wrong}), _good()) as stack:
        assert "ZeroDivisionError" in one_issue(stack).message


# Hanging


@pytest.mark.parametrize("hook", ["default_config", "validate_user_config"])
def test_a_hook_that_hangs_costs_its_deadline_and_is_named(tmp_path, monkeypatch, hook):
    monkeypatch.setenv("STACKCONF_HOOK_TIMEOUT", "0.2")
    gate = threading.Event()
    keyword = {"default_config": "defaults", "validate_user_config": "findings"}[hook]
    started = time.monotonic()
    with beside(tmp_path, bad(**{keyword: lambda *_: gate.wait(20)})) as stack:
        message = one_issue(stack).message
        gate.set()
    assert time.monotonic() - started < 3
    assert f"{hook} of plugin `Owner` did not come back within 0.2 s" in message


def test_a_validator_that_hangs_costs_its_deadline(tmp_path, monkeypatch):
    monkeypatch.setenv("STACKCONF_HOOK_TIMEOUT", "0.2")
    gate = threading.Event()

    class Slow(BaseModel):
        port: int = 1

        @model_validator(mode="after")
        def _slow(self):
            gate.wait(20)
            return self

    with open_stack(tmp_path, BOTH, Owner({"inference/remote::bad": Slow}), _good()) as stack:
        assert "did not come back within 0.2 s" in one_issue(stack).message
        gate.set()


# Cross-cutting plugins


class Policy:
    def __init__(self, name, **hooks):
        self.__name__ = name
        self.hooks = hooks

    @hookimpl(tryfirst=True)
    def default_config(self, provider, hardware):
        return self.hooks.get("defaults", lambda provider: None)(provider)

    @hookimpl
    def validate_user_config(self, provider):
        return self.hooks.get("findings", lambda provider: [])(provider)


def only_for_bad(act):
    return lambda provider: act() if provider.provider_id == "bad" else None


@pytest.mark.parametrize(
    ("hooks", "said"),
    [
        ({"defaults": only_for_bad(lambda: 1 / 0)}, "default_config of plugin `policy` raised ZeroDivision"),
        ({"defaults": only_for_bad(lambda: "text")}, "default_config of plugin `policy` returned str"),
        ({"findings": only_for_bad(lambda: 1 / 0)}, "validate_user_config of plugin `policy` raised Zero"),
        ({"findings": only_for_bad(lambda: ["x"])}, "validate_user_config of plugin `policy` gave str"),
    ],
)
def test_a_policy_that_fails_is_blamed_and_not_the_owner(tmp_path, hooks, said):
    with beside(tmp_path, bad(), Policy("policy", **hooks)) as stack:
        assert said in one_issue(stack).message


def test_when_two_fail_both_are_told_and_what_a_third_finds_is_kept(tmp_path):
    owner = bad(findings=raising(ValueError("owner")))
    first = Policy("first", findings=only_for_bad(lambda: 1 / 0))
    second = Policy("second", findings=only_for_bad(lambda: [Issue("careful", level="warning")]))
    with beside(tmp_path, owner, first, second) as stack:
        text = "\n".join(lines(stack.issues))
        assert len(stack.issues) == 3
        assert "plugin `Owner` raised ValueError: owner" in text
        assert "plugin `first` raised ZeroDivisionError" in text
        assert "warning: inference/bad: careful" in text


def test_a_wrapper_that_fails_is_blamed_and_not_what_it_wraps(tmp_path):
    class Wrapper:
        __name__ = "wrapper"

        @hookimpl(wrapper=True)
        def default_config(self, provider):
            result = yield
            if provider.provider_id == "bad":
                raise LookupError("mine")
            return result

    with beside(tmp_path, bad(), Wrapper()) as stack:
        assert "default_config of plugin `wrapper` raised LookupError: mine" in one_issue(stack).message


def test_what_the_owner_raises_through_a_wrapper_is_the_owners(tmp_path):
    class Wrapper:
        __name__ = "wrapper"

        @hookimpl(wrapper=True)
        def default_config(self, provider):
            return (yield)

    with beside(tmp_path, bad(defaults=raising(ValueError("mine"))), Wrapper()) as stack:
        assert "default_config of plugin `Owner` raised ValueError: mine" in one_issue(stack).message


def test_an_installed_plugin_is_blamed_with_distribution_and_version(tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    body = """
@hookimpl
def default_config(provider):
    raise ValueError("no")
@hookimpl
def apply_config(provider):
    return 5
"""
    distribution(
        site,
        "blamed-ai",
        {"stackconf.providers": {TYPE: "core_blamed"}},
        {"core_blamed": plugin_source(TYPE, body=body)},
        version="1.2",
    )
    with open_stack(tmp_path, one(), registry=registry_of(entry_points=True)) as stack:
        (line,) = lines(stack.issues)
        assert (
            "inference/acme: default_config of plugin `core_blamed` (blamed-ai 1.2) raised ValueError" in line
        )


# What plugins say about secrets


def test_what_a_plugin_says_about_a_secret_does_not_show_it(tmp_path):
    canary = "canary-4711"

    class Keyed(BaseModel):
        api_key: SecretStr = SecretStr("")
        url: str = ""

    def tell(config):
        return f"the key {config.api_key.get_secret_value()} and {config.url} are wrong"

    def findings(provider, user_config, config, hardware):
        yield Issue(tell(config), level="warning", hint=tell(config))

    def applying(provider, config, previous):
        raise ValueError(tell(config))

    data = one({"api_key": canary, "url": f"http://me:{canary}@host"})
    with open_stack(tmp_path, data, Owner(Keyed, findings=findings, applying=applying)) as stack:
        text = "\n".join(lines(stack.issues))
        assert "the key ******** and http://me:********@host are wrong" in text
        with pytest.raises(ApplyError) as caught:
            stack.apply()
        assert "the key ********" in str(caught.value)
        assert canary not in text + str(caught.value) + repr(caught.value.report)
    with open_stack(
        tmp_path, data, Owner(Keyed, findings=lambda p, u, config, h: raising(ValueError(tell(config)))())
    ) as stack:
        assert canary not in "\n".join(lines(stack.issues))
        assert "******** " in "\n".join(lines(stack.issues))


def test_a_plugin_file_that_cannot_be_loaded_is_told_to_programs_too(tmp_path):
    plugin = tmp_path / "policy.py"
    plugin.write_text("raise ImportError('no such library')", encoding="utf-8")
    file = tmp_path / "stack.yaml"
    file.write_text("version: 2\nproviders: {}\n", encoding="utf-8")
    registry = Registry(files=[plugin], entry_points=False)
    with Stack.open(file, registry=registry, hardware=machine()) as stack:
        (problem,) = stack.problems
        assert "cannot be imported: ImportError: no such library" in str(problem)
        assert not stack.issues
