"""The registry: who owns what, what is never imported, and what is refused with what words."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from core_kit import (
    MACHINE,
    Owner,
    distribution,
    effective,
    lines,
    one,
    open_stack,
    plugin_source,
    registry_of,
)
from pydantic import BaseModel

from stackconf import PluginLoadError, ProviderType, because, hookimpl, user_field
from stackconf.registry.metadata import DisabledPlugins
from stackconf.registry.registry import Missing, Owned, Registry
from stackconf.resolve.resolve import resolve_provider
from stackconf.types import Provider

TYPE = "inference/remote::acme"


class Config(BaseModel):
    port: int = user_field(1)


def kinds(*keys: str, config_class=Config) -> tuple[ProviderType, ...]:
    return tuple(ProviderType(*key.split("/", 1), config_class) for key in keys)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed distributions that this process sees."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]


def installed_registry(**options) -> Registry:
    return registry_of(entry_points=True, **options)


# Who owns what


def test_a_type_has_its_owner_its_class_and_its_hooks():
    owner = Owner(Config)
    found = registry_of(owner).find("inference", "remote::acme")
    assert isinstance(found, Owned)
    assert (found.kind.key, found.config_class, found.hooks.owner.implementation) == (TYPE, Config, owner)


def test_a_type_of_the_same_name_under_another_api_is_another():
    class Other(BaseModel):
        size: int = 1

    registry = registry_of(
        Owner({"agents/inline::meta-reference": Config}), Owner({"telemetry/inline::meta-reference": Other})
    )
    assert registry.find("agents", "inline::meta-reference").config_class is Config
    assert registry.find("telemetry", "inline::meta-reference").config_class is Other
    missing = registry.find("safety", "inline::meta-reference")
    assert "under `agents`, `telemetry`" in missing.hint


def test_two_owners_are_an_error_that_names_both_distributions(site):
    source = plugin_source(TYPE)
    for name in ("first-ai", "second-ai"):
        module = f"core_{name.replace('-', '_')}"
        distribution(site, name, {"stackconf.providers": {TYPE: module}}, {module: source}, version="2.0")
    missing = installed_registry().find("inference", "remote::acme")
    assert missing.code == "contested-type"
    assert f"2 plugins own `{TYPE}`" in missing.message
    assert "of first-ai 2.0" in missing.message
    assert "of second-ai 2.0" in missing.message
    assert missing.hint == "run `stackconf plugins disable second-ai`"
    assert "core_first_ai" not in sys.modules
    chosen = installed_registry(disabled=disabled("second-ai", site)).find("inference", "remote::acme")
    assert chosen.hooks.owner.label == "first-ai 2.0"


def disabled(name: str, folder: Path) -> DisabledPlugins:
    names = DisabledPlugins(folder / "disabled")
    names.write([name])
    return names


def test_one_of_two_direct_owners_has_to_go():
    missing = registry_of(Owner(Config), Owner(Config)).find("inference", "remote::acme")
    assert missing.code == "contested-type"
    assert missing.hint == "register only one of them"


@pytest.mark.parametrize(
    ("api", "kind", "code", "message", "hint"),
    [
        (
            "inference",
            "remote::acne",
            "unknown-type",
            "unknown provider type `remote::acne`",
            "`remote::acme`",
        ),
        ("inference", "remote:acme", "unknown-type", "unknown provider type `remote:acme`", "`remote::acme`"),
        ("inferense", "remote::acme", "unknown-api", "unknown api `inferense`", "did you mean `inference`?"),
        ("vector_io", "remote::acme", "unknown-type", "no installed plugin provides", "under `inference`"),
        ("inference", "remote::ollama", "unknown-type", "no installed plugin", "install `stackconf-ollama`"),
        ("inference", "remote::zzzz", "unknown-type", "no installed plugin", "give `--plugin FILE.py`"),
        (
            "quantum",
            "inline::q",
            "unknown-type",
            "no installed plugin provides `quantum/inline::q`",
            "install a",
        ),
    ],
)
def test_what_is_missing_is_said_and_what_would_provide_it(api, kind, code, message, hint):
    missing = registry_of(Owner(Config)).find(api, kind)
    assert isinstance(missing, Missing)
    assert missing.code == code
    assert message in missing.message
    assert hint in missing.hint


def test_a_disabled_plugin_is_named_with_the_way_to_enable_it(site):
    distribution(
        site, "acme-ai", {"stackconf.providers": {TYPE: "core_acme_off"}}, {"core_acme_off": "1 / 0"}
    )
    for name in ("acme-ai", TYPE):
        missing = installed_registry(disabled=disabled(name, site)).find("inference", "remote::acme")
        assert missing.code == "disabled-plugin"
        assert "acme-ai 1.0 is disabled" in missing.message
    assert "core_acme_off" not in sys.modules


def test_the_answer_is_kept_until_a_plugin_is_added():
    registry = registry_of()
    assert isinstance(registry.find("inference", "remote::acme"), Missing)
    registry.register(Owner(Config))
    found = registry.find("inference", "remote::acme")
    assert isinstance(found, Owned)
    assert registry.find("inference", "remote::acme") is found


# What is refused


def refused(plugin: object) -> str:
    """Why a plugin object cannot serve, at registration or when its type is asked for."""
    try:
        registry = registry_of(plugin)
        found = registry.find("inference", "remote::acme")
    except PluginLoadError as error:
        found = error
    if isinstance(found, (Owned, Missing)):
        (found,) = registry.problems
    assert isinstance(found, PluginLoadError)
    text = str(found)
    assert "\n" not in text
    assert len(text) < 400
    return text


def made(**members) -> object:
    return type("Acme", (), {"provides": kinds(TYPE), **members})()


def hook(name: str, **options):
    """A marked function of that name, taking nothing but what the test gives."""

    def decorate(function):
        function.__name__ = name
        return hookimpl(**options)(function) if options else hookimpl(function)

    return decorate


def test_an_unknown_hook_is_refused_with_the_one_that_was_meant():
    @hookimpl
    def default_confg(self, provider):
        return {}

    text = refused(made(default_confg=default_confg))
    assert "unknown hook `default_confg`" in text
    assert "did you mean `default_config`?" in text
    assert "Acme" in text


def test_an_optional_unknown_hook_is_not():
    @hookimpl(optionalhook=True)
    def later_hook(self, provider):
        return {}

    assert isinstance(registry_of(made(later_hook=later_hook)).find("inference", "remote::acme"), Owned)


def test_an_unknown_argument_is_refused_by_name():
    @hookimpl
    def default_config(self, provider, hardwear):
        return {}

    text = refused(made(default_config=default_config))
    assert "hardwear" in text
    assert "default_config" in text


def test_keyword_only_arguments_are_refused():
    @hookimpl
    def default_config(self, *, provider):
        return {}

    assert "keyword-only arguments" in refused(made(default_config=default_config))


@pytest.mark.parametrize("name", ["default_config", "validate_user_config", "discover_hardware"])
def test_an_async_hook_is_refused_where_nobody_waits(name):
    async def function(self):
        return {}

    assert f"`{name}` is async; only `apply_config` may be" in refused(made(**{name: hook(name)(function)}))


def test_an_async_apply_is_fine():
    async def apply_config(self, provider):
        return None

    plugin = made(apply_config=hook("apply_config")(apply_config))
    assert isinstance(registry_of(plugin).find("inference", "remote::acme"), Owned)


@pytest.mark.parametrize("option", ["wrapper", "hookwrapper"])
def test_a_wrapper_of_apply_is_refused(option):
    def apply_config(self, provider):
        yield

    text = refused(made(apply_config=hook("apply_config", **{option: True})(apply_config)))
    assert "wraps `apply_config`" in text


def test_an_unhashable_object_is_refused_with_the_cure():
    text = refused(made(__eq__=lambda self, other: True))
    assert "not hashable; use a plain class, or attrs with eq=False" in text


@pytest.mark.parametrize("number", [2, 0, "1", None, [1]])
def test_another_contract_number_is_refused(number):
    assert f"stackconf api {number!r}, and this stackconf serves 1" in refused(made(stackconf_api=number))


@pytest.mark.parametrize("provides", [TYPE, [TYPE], 5, {TYPE: Config}, None])
def test_a_wrong_declaration_is_refused(provides):
    assert "`provides` is not a sequence of ProviderType" in refused(made(provides=provides))


def test_a_declaration_that_raises_is_refused():
    assert "raised RuntimeError: not now" in refused(made(provides=property(_raise)))


def _raise(self):
    raise RuntimeError("not now")


def test_a_class_instead_of_an_instance_is_refused():
    class Acme:
        provides = kinds(TYPE)

        @hookimpl
        def default_config(self, provider):
            return {}

    assert "is a class; give an instance of it" in refused(Acme)


def test_properties_are_never_run():
    touched = []

    class Acme:
        provides = kinds(TYPE)

        @property
        def expensive(self):
            touched.append("expensive")
            raise RuntimeError("never look")

        @property
        def default_config(self):
            touched.append("default_config")
            return hookimpl(lambda provider: {})

    assert isinstance(registry_of(Acme()).find("inference", "remote::acme"), Owned)
    assert touched == []


@pytest.mark.parametrize(
    ("config_class", "said"),
    [
        (dict, "is not a pydantic model"),
        ("core_nowhere:Config", "cannot be imported: ModuleNotFoundError"),
        ("pydantic:NoSuchThing", "cannot be imported: AttributeError"),
        ("json", "is not a pydantic model"),
    ],
)
def test_a_config_class_that_is_none_is_the_plugins_fault(config_class, said):
    text = refused(made(provides=kinds(TYPE, config_class=config_class)))
    assert said in text
    assert "Acme" in text


def test_a_config_class_with_an_open_reference_is_the_plugins_fault():
    class Open(BaseModel):
        other: NoSuchClass  # noqa: F821

    assert "Open" in refused(made(provides=kinds(TYPE, config_class=Open)))


def test_a_module_must_declare_what_its_entry_point_advertises(site):
    source = plugin_source("inference/remote::other")
    distribution(site, "liar", {"stackconf.providers": {TYPE: "core_liar"}}, {"core_liar": source})
    found = installed_registry().find("inference", "remote::acme")
    assert str(found) == (
        f"plugin `core_liar` (liar 1.0): advertises `{TYPE}`, but its `provides` does not declare it"
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import core_not_installed", "ModuleNotFoundError: No module named 'core_not_installed'"),
        ("def broken(:", "SyntaxError: core_bad.py:1: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
        ("raise ValueError('http://me:hunter2@host')", "http://me:********@host"),
    ],
)
def test_a_module_that_cannot_be_imported_is_blamed_by_name_distribution_and_version(site, source, said):
    distribution(
        site, "bad-ai", {"stackconf.providers": {TYPE: "core_bad"}}, {"core_bad": source}, version="0.9"
    )
    text = str(installed_registry().find("inference", "remote::acme"))
    assert "(bad-ai 0.9)" in text
    assert said in text
    assert "\n" not in text


def test_a_module_that_hangs_while_it_is_imported_costs_its_deadline_once(site, monkeypatch, tmp_path):
    monkeypatch.setenv("STACKCONF_HOOK_TIMEOUT", "0.3")
    source = "import time\ntime.sleep(3)\n" + plugin_source(TYPE, "vector_io/remote::acme")
    types = dict.fromkeys((TYPE, "vector_io/remote::acme"), "core_slow")
    distribution(site, "slow-ai", {"stackconf.providers": types}, {"core_slow": source})
    entry = {"provider_id": "acme", "provider_type": "remote::acme"}
    data = {"providers": {"inference": [entry], "vector_io": [entry], "safety": [entry]}}
    registry = installed_registry()
    registry.register(Owner({"safety/remote::acme": Config}))
    with open_stack(tmp_path, data, registry=registry) as stack:
        first, second = (line for line in lines(stack.issues) if "slow" in line)
        assert "slow-ai 1.0" in first
        assert "0.3 s" in first
        assert effective(stack, "safety/acme").port == 1
        assert second


# Single files


def test_one_file_is_a_plugin(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(plugin_source(TYPE))
    registry = registry_of(files=[file])
    assert registry.problems == []
    assert isinstance(registry.find("inference", "remote::acme"), Owned)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file"),
        ("import core_not_installed", "ModuleNotFoundError"),
        ("def x(:", "broken.py:1"),
        ("provides = 5", "`provides` is not a sequence of ProviderType"),
        ("raise SystemExit(1)", "SystemExit"),
    ],
)
def test_a_broken_file_is_a_problem_that_names_it_and_the_others_go_on(tmp_path, text, said):
    file = tmp_path / "broken.py"
    if text is not None:
        file.write_text(text)
    registry = registry_of(Owner(Config), files=[str(file)])
    (problem,) = registry.problems
    assert str(file) in str(problem)
    assert said in str(problem)
    assert isinstance(registry.find("inference", "remote::acme"), Owned)


# Cross-cutting plugins


class Cap:
    """A policy: no port above a limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    @hookimpl(wrapper=True)
    def default_config(self, provider, hardware):
        result = yield
        return {**(result or {}), "port": because(self.limit, f"the site allows {self.limit}")}


class Says:
    """A policy that overrides: it is asked before the owner."""

    @hookimpl(tryfirst=True)
    def default_config(self, provider):
        return {"port": 7} if provider.provider_id == "acme" else None


def resolved(*plugins, provider_id="acme"):
    provider = Provider("inference", provider_id, "remote::acme")
    return resolve_provider(provider, registry_of(*plugins), MACHINE)


def test_a_cross_cutting_plugin_overrides_or_wraps_the_owner():
    owner = Owner(Config, defaults={"port": 99})
    assert resolved(owner).config.port == 99
    assert resolved(owner, Says()).config.port == 7
    assert resolved(owner, Says(), provider_id="other").config.port == 99
    assert resolved(owner, Says(), Cap(5)).config.port == 5


def test_several_cross_cutting_plugins_of_one_class_work_together():
    assert resolved(Owner(Config), Cap(3), Cap(4)).config.port in {3, 4}
    policy = Cap(3)
    assert resolved(Owner(Config), policy, policy).config.port == 3


def test_a_cross_cutting_plugin_sees_every_provider_and_an_owner_only_its_own():
    seen = []

    class Audit:
        @hookimpl
        def validate_user_config(self, provider):
            seen.append(provider.key)

    first, second = Owner({"inference/a": Config}), Owner({"inference/b": Config})
    registry = registry_of(first, second, Audit())
    for kind in "ab":
        resolve_provider(Provider("inference", kind, kind), registry, MACHINE)
    assert seen == ["inference/a", "inference/b"]
    assert first.asked("default_config") == ["inference/a"]
    assert second.asked("default_config") == ["inference/b"]


def test_a_plugin_that_provides_types_is_not_cross_cutting_wherever_it_is_advertised(site):
    """A module may advertise its types and, beside them, its hardware detector."""
    body = """
@hookimpl
def discover_hardware():
    return []
@hookimpl
def default_config(provider):
    return {"port": 5}
"""
    distribution(
        site,
        "both-ai",
        {"stackconf.providers": {TYPE: "core_both"}, "stackconf.plugins": {"both": "core_both"}},
        {"core_both": plugin_source(TYPE, body=body)},
    )
    registry = installed_registry()
    registry.register(Owner({"inference/b": Config}))
    own = resolve_provider(Provider("inference", "x", "remote::acme"), registry, MACHINE)
    assert own.config.port == 5
    assert resolve_provider(Provider("inference", "b", "b"), registry, MACHINE).config.port == 1
    assert registry.problems == []


def test_a_cross_cutting_plugin_that_cannot_be_loaded_is_a_problem_and_costs_nobody(site):
    distribution(
        site,
        "bad-policy",
        {"stackconf.plugins": {"policy": "core_bad_policy", "other": "core_typo_policy"}},
        {
            "core_bad_policy": "1 / 0",
            "core_typo_policy": "from stackconf import hookimpl\n@hookimpl\ndef default_config(x): pass",
        },
    )
    registry = installed_registry()
    registry.register(Owner(Config))
    provider = Provider("inference", "acme", "remote::acme")
    assert resolve_provider(provider, registry, MACHINE).config.port == 1
    assert len(registry.problems) == 2
    assert all("bad-policy 1.0" in str(problem) for problem in registry.problems)


# Only what is used is imported

PROBE = textwrap.dedent(
    """
    import json, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from stackconf import Stack
    from stackconf.registry.metadata import DisabledPlugins
    from stackconf.registry.registry import Registry
    from stackconf.testing import machine
    registry = Registry(disabled=DisabledPlugins(Path(sys.argv[1], "disabled")))
    registry.advertised(), registry.type_keys(), registry.apis()
    early = [name for name in sys.modules if name.startswith("lazy_")]
    with Stack.open(sys.argv[2], registry=registry, hardware=machine()) as stack:
        issues = list(map(str, stack.issues))
    late = sorted(name for name in sys.modules if name.startswith("lazy_"))
    print(json.dumps([early, late, issues]))
    """
)


def test_a_disabled_or_unreferenced_plugin_is_never_imported(tmp_path):
    site = tmp_path / "site"
    types = {name: f"inference/remote::{name}" for name in ("used", "unused", "off")}
    for name, key in types.items():
        module = f"lazy_{name}"
        distribution(site, f"{name}-ai", {"stackconf.providers": {key: module}}, {module: plugin_source(key)})
    policies = {"stackconf.plugins": {"lazy-policy": "lazy_policy"}}
    distribution(site, "off-policy", policies, {"lazy_policy": "1 / 0"})
    DisabledPlugins(site / "disabled").write(["off-ai", "lazy-policy"])
    file = tmp_path / "stack.yaml"
    file.write_text(
        json.dumps(
            {
                "providers": {
                    "inference": [
                        {"provider_id": name, "provider_type": f"remote::{name}"} for name in ("used", "off")
                    ]
                }
            }
        )
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE, site, file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    early, late, issues = json.loads(done.stdout)
    assert early == []
    assert late == ["lazy_used"]
    (issue,) = issues
    assert "off-ai 1.0 is disabled" in issue


def test_the_whole_stack_of_a_file_plugin_works(tmp_path):
    file = tmp_path / "mine.py"
    body = """
@hookimpl
def default_config(provider, hardware):
    return {"port": because(hardware.cpu.usable_physical_cores, "one a core")}
"""
    file.write_text(plugin_source(TYPE, body=body))
    with open_stack(tmp_path, one(), registry=registry_of(files=[file])) as stack:
        (origin,) = stack.explain("acme", "port")
        assert (origin.value, origin.reason) == (8, "one a core")
        assert "mine.py" in origin.source
