"""Runtimes: chosen by name, they own every type; user fields that a class does not know of itself."""

from __future__ import annotations

import sys
import textwrap

import pytest
from core_kit import MACHINE, Owner, distribution, registry_of
from pydantic import BaseModel, Field

from stackconf import InvalidConfig, PluginLoadError, ProviderType, Registry, Stack, UnknownName
from stackconf.fields import labels_at, plan_of, plan_with, user_paths

TOY = """
from pydantic import BaseModel
from stackconf import Applied, Issue, PluginLoadError, ProviderType, hookimpl

class Config(BaseModel):
    url: str = "http://class"
    size: int = 1
    api_key: str | None = None

class Types:
    label = "toy 3.1"
    apis = ("inference", "safety", "models")
    provides = (
        ProviderType(
            "inference", "remote::toy", Config, user_fields={"url": "in_place"}, update="reload"
        ),
        ProviderType("inference", "remote::acme", Config),
    )
    absent = {"inference/remote::lost": "its package `lost` is not installed"}

    def __init__(self, stack):
        place = stack.document.position(("image_name",))
        of = str(stack.other.get("image_name", "")).strip("x")
        code = "missing-package" if "container_image" in stack.other else ""
        issue = Issue("too short", path="image_name", where=place, provider=of, code=code)
        self.issues = [issue] if "image_name" in stack.other else []

    @hookimpl
    def validate_user_config(self, config):
        return [Issue("no colon", path="url")] if ":" not in config.url else []

class Toy:
    grammar = "old"

    def provider_types(self, stack):
        if stack.other.get("container_image") == "broken":
            raise ValueError("no good")
        if stack.other.get("container_image") == "unsupported":
            raise PluginLoadError("toy", "needs toy 3, and toy 4 is installed")
        return Types(stack)

toy = Toy()
no_runtime = object()
"""

FILE = """
version: 2
providers:
  inference:
  - provider_id: one
    provider_type: remote::toy
    config: {url: http://file, size: 2}
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("STACKCONF_CONFIG_HOME", str(tmp_path / "home"))
    targets = {"toy": "core_toy:toy", "nothing": "core_toy:no_runtime"}
    distribution(folder, "toy-runtime", {"stackconf.runtimes": targets}, {"core_toy": TOY})
    yield tmp_path
    sys.modules.pop("core_toy", None)


def messages(stack) -> list[str]:
    return [f"{issue.provider}: {issue.path}: {issue.message}" for issue in stack.issues]


def opened(folder, text=FILE, **options) -> Stack:
    file = folder / "stack.yaml"
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    registry = options.pop("registry", None) or registry_of(entry_points=True)
    return Stack.open(file, registry=registry, hardware=MACHINE, environ={}, **options)


# Who hosts the providers


def test_the_types_of_the_runtime_count_only_where_it_is_chosen(site):
    with opened(site) as stack:
        assert messages(stack) == ["inference/one: : no installed plugin provides `inference/remote::toy`"]
    with opened(site, runtime="toy") as stack:
        assert stack.issues == ()
        assert stack.effective()["providers"]["inference"][0]["config"]["size"] == 2


def test_the_file_may_choose_it_and_whoever_opens_the_stack_overrules_the_file(site):
    chosen = FILE + "stackconf: {runtime: toy}\n"
    with opened(site, chosen) as stack:
        assert stack.issues == ()
    with opened(site, chosen, runtime="local") as stack:
        assert [issue.code for issue in stack.issues] == ["unknown-type"]


def test_an_installed_plugin_owns_nothing_beside_it(site):
    class Other(BaseModel):
        other: int = 1

    registry = registry_of(Owner({"inference/remote::acme": Other}), entry_points=True)
    text = FILE.replace("remote::toy", "remote::acme")
    with opened(site, text, registry=registry, runtime="toy") as stack:
        assert stack.issues == ()
    with opened(site, text, registry=registry) as stack:
        assert {issue.code for issue in stack.issues} == {"unknown-field"}


def test_its_user_fields_and_costs_hold_for_overlays_inspect_and_plans(site):
    with opened(site, runtime="toy") as stack:
        registered = stack.configurations.register(
            {"inference": [{"provider_id": "one", "config": {"url": "http://user", "size": 9}}]}
        )
        assert [dropped.path for dropped in registered.dropped] == ["config.size"]
        shown = stack.configurations.inspect()["providers"]["inference"][0]["config"]
        assert shown == {"url": "http://user"}
        origin = {each.path: each for each in stack.explain("inference/one")}
        assert (origin["url"].user_field, origin["url"].update) == (True, "in_place")
        assert (origin["size"].user_field, origin["size"].update) == (False, "reload")


def test_its_plugin_is_asked_about_configurations_and_speaks_for_the_file(site):
    text = FILE.replace("http://file", "nowhere") + "image_name: x\n"
    with opened(site, text, runtime="toy") as stack:
        assert messages(stack) == ["inference/one: config.url: no colon", ": image_name: too short"]
        assert [issue.where.line for issue in stack.issues] == [7, 8]


def test_what_it_says_of_a_provider_makes_that_one_invalid(site):
    with opened(site, FILE + "image_name: inference/one\n", runtime="toy") as stack:
        assert messages(stack) == ["inference/one: image_name: too short"]
        assert not stack.resolution.providers["inference/one"].valid
    with opened(site, FILE + "image_name: x\n", runtime="toy") as stack:
        assert messages(stack) == [": image_name: too short"]
        assert stack.resolution.providers["inference/one"].valid


def test_what_is_not_installed_here_stops_an_apply_and_no_export(site):
    text = FILE + "image_name: inference/one\n"
    with opened(site, text + "container_image: bare\n", runtime="toy") as stack:
        assert not stack.resolution.providers["inference/one"].valid
        with pytest.raises(InvalidConfig):
            stack.apply()
        exported = stack.export()
        assert exported.text.endswith("container_image: bare\n")
        (issue,) = exported.issues
        assert (issue.level, issue.provider, issue.code) == ("warning", "inference/one", "missing-package")
    with opened(site, text, runtime="toy") as stack, pytest.raises(InvalidConfig, match="1 error"):
        stack.export()


def test_references_are_read_as_the_runtime_reads_them(site):
    text = FILE.replace("size: 2", "api_key: '${env.KEY:=x}'")
    with opened(site, text) as stack:
        assert "env-grammar" not in {issue.code for issue in stack.issues}
    with opened(site, text, runtime="toy") as stack:
        (issue,) = stack.issues
        assert (issue.code, issue.where.line) == ("env-grammar", 7)
        assert "write `${env.KEY:...}`" in issue.hint


def test_a_file_that_is_written_in_the_other_grammar_is_told_once_and_judged_as_it_is_meant(site):
    text = FILE.replace("size: 2", "size: '${env.SIZE:=many}', api_key: '${env.KEY:=x}'")
    with opened(site, text, runtime="toy") as stack:
        one, other = stack.issues
    assert one.message.startswith("2 references to the environment in the form of llama-stack from 0.2.13")
    assert one.hint == "write `${env.X:default}` for `${env.X:=default}`"
    assert other.message == "should be a whole number, not 'many' (from ${env.SIZE:=...})"


# What it does not have


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("remote::toy", "remote::toi", "unknown provider type `remote::toi`; did you mean `remote::toy`?"),
        ("remote::toy", "inline::far", "toy 3.1 has no provider type `inference/inline::far`; for"),
        ("remote::toy", "remote::lost", "its package `lost` is not installed"),
        ("  inference:", "  inferense:", "toy 3.1 has no api `inferense`; did you mean `inference`?"),
        ("  inference:", "  agents:", "toy 3.1 has no api `agents`; it has inference, models, safety"),
        ("  inference:", "  safety:", "`safety/remote::toy`; the type exists under `inference`"),
        ("  inference:", "  models:", "`models/remote::toy`; the type exists under `inference`"),
    ],
)
def test_a_type_that_it_lacks_is_told_with_what_there_is(site, before, after, said):
    with opened(site, FILE.replace(before, after), runtime="toy") as stack:
        (issue,) = stack.issues
    assert said in str(issue)
    assert issue.where is not None


def test_an_api_that_it_lacks_is_told_even_without_a_provider(site):
    with opened(site, FILE + "apis: [inference, models, telemetry]\n", runtime="toy") as stack:
        (issue,) = stack.issues
    assert str(issue).endswith("8:27: error: unknown api `telemetry`; toy has inference, models, safety")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("toi", "no installed plugin brings the runtime `toi`; did you mean `toy`?"),
        ("ogx-next", "no installed plugin brings the runtime `ogx-next`"),
    ],
)
def test_a_runtime_that_nobody_brings(site, name, said):
    with pytest.raises(UnknownName) as raised:
        opened(site, runtime=name)
    assert str(raised.value).startswith(said)


def test_a_known_runtime_that_is_not_installed_says_what_to_install():
    with pytest.raises(UnknownName, match="install `stackconf-ogx`"):
        registry_of().runtime("ogx")


def test_a_disabled_runtime_says_so(site, monkeypatch):
    monkeypatch.setenv("STACKCONF_DISABLED_PLUGINS", "toy-runtime")
    with pytest.raises(UnknownName, match="the plugin of the runtime `toy` is disabled"):
        opened(site, runtime="toy")


@pytest.mark.parametrize(
    ("name", "image", "said"),
    [
        ("toy", "broken", "plugin `toy` (toy-runtime 1.0): its provider types: raised ValueError: no good"),
        ("toy", "unsupported", "plugin `toy`: needs toy 3, and toy 4 is installed"),
        ("nothing", "", "plugin `nothing` (toy-runtime 1.0): is no runtime:"),
    ],
)
def test_a_runtime_that_cannot_serve_says_why(site, name, image, said):
    with pytest.raises(PluginLoadError) as raised:
        opened(site, FILE + f"container_image: {image!r}\n", runtime=name)
    assert str(raised.value).startswith(said)


def test_it_is_imported_only_when_it_is_chosen(site):
    with opened(site, runtime="local") as stack:
        assert stack.resolution
    assert "core_toy" not in sys.modules


# User fields of a class that somebody else wrote


class Inner(BaseModel):
    read: float | None = None
    secret_path: str = "x"


class Outer(BaseModel):
    one: Inner = Inner()
    two: Inner | None = None
    many: dict[str, Inner] = {}
    name: str = Field("n", alias="called")


def test_a_path_labels_one_place_of_a_class_that_stands_in_several():
    plan = plan_with(Outer, {"one.read": "in_place", "called": "reload", "many.*.read": "restart"})
    assert user_paths(plan) == ["one.read", "many.*.read", "name"]
    assert user_paths(plan_of(Outer)) == []
    assert labels_at(plan, ("one", "read")).update == "in_place"
    assert not labels_at(plan, ("two", "read")).user


def test_what_is_below_an_open_field_can_be_closed_again():
    plan = plan_with(Outer, {"one": "reload", "one.secret_path": None})
    assert labels_at(plan, ("one", "read")).user
    assert not labels_at(plan, ("one", "secret_path")).user
    assert plan.fields["one"].locks


def test_the_labels_of_the_class_do_not_count_beside_them():
    from stackconf import user_field

    class Labelled(BaseModel):
        mine: int = user_field(1)
        other: int = 2

    assert user_paths(plan_with(Labelled, {"other": "reload"})) == ["other"]
    assert user_paths(plan_with(Labelled, {})) == []
    assert plan_with(Labelled, None) is plan_of(Labelled)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nmae", "Outer has no field `nmae`; did you mean `name`?"),
        ("one.raed", "Outer has no field `one.raed`; did you mean `read`?"),
        ("name.x", "Outer has no field `name.x`"),
    ],
)
def test_a_path_that_the_class_lacks_is_refused(path, said):
    with pytest.raises(UnknownName) as raised:
        plan_with(Outer, {path: "reload"})
    assert str(raised.value) == said


def test_a_type_with_such_a_path_cannot_be_loaded():
    class Wrong:
        provides = (ProviderType("inference", "remote::x", Outer, user_fields={"nmae": "reload"}),)

    found = Registry(plugins=[Wrong()], entry_points=False).find("inference", "remote::x")
    assert isinstance(found, PluginLoadError)
    assert "the user fields of `inference/remote::x`: Outer has no field `nmae`" in str(found)
