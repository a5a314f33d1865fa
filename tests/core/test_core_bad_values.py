"""Bad values: one line each, and the layer that brought it is the one that is blamed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from core_kit import MACHINE, Owner, effective, lines, one, open_stack, overlay, registry_of
from core_models import classes, values_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, model_validator

from stackconf import InvalidConfig, Provider, user_field
from stackconf.resolve.resolve import Overlay, resolve_provider
from stackconf.stackfile.env import expand

PROVIDER = Provider("inference", "acme", "remote::acme")


class Inner(BaseModel):
    host: str = user_field("localhost")
    port: int = user_field(80, ge=1)


class Sqlite(BaseModel):
    kind: Literal["sqlite"] = "sqlite"
    path: str = "/var/db"


class Postgres(BaseModel):
    kind: Literal["postgres"] = "postgres"
    host: str
    port: int = 5432


class Basic(BaseModel, extra="forbid"):
    user: str


class Bearer(BaseModel, extra="forbid"):
    token_file: str


class Config(BaseModel):
    port: int = user_field(80, ge=1, le=65535)
    ratio: float = user_field(0.5)
    on: bool = user_field(True)
    name: str = user_field("x", max_length=5)
    mode: Literal["fast", "slow"] = user_field("fast")
    timeout: int | float | None = user_field(None)
    inner: Inner = user_field(Inner())
    inners: list[Inner] = user_field([])
    named: dict[str, Inner] = user_field({})
    store: Annotated[Sqlite | Postgres, Field(discriminator="kind")] = user_field(Sqlite())
    auth: Basic | Bearer | None = user_field(None)


def stack_issues(tmp_path, config: dict[str, Any], config_class=Config, **options) -> list[str]:
    with open_stack(tmp_path, one(config), Owner(config_class), **options) as stack:
        return [line.removeprefix(f"{tmp_path / 'stack.yaml'}:") for line in lines(stack.issues)]


BAD = [
    ({"port": "many"}, "config.port: should be a whole number, not 'many'"),
    ({"port": 0}, "config.port: should be greater than or equal to 1, not 0"),
    ({"port": None}, "config.port: should be a whole number, not null"),
    ({"port": [1]}, "config.port: should be a whole number, not a list"),
    ({"port": {"a": 1}}, "config.port: should be a whole number, not a mapping"),
    ({"ratio": "half"}, "config.ratio: should be a number, not 'half'"),
    ({"on": "perhaps"}, "config.on: should be true or false, not 'perhaps'"),
    ({"name": 5}, "config.name: should be text, not 5"),
    ({"name": "much too long"}, "config.name: should have at most 5 characters, not 'much too long'"),
    ({"mode": "fats"}, "config.mode: should be 'fast' or 'slow', not 'fats'; did you mean `fast`?"),
    ({"timeout": "soon"}, "config.timeout: should be"),
    ({"inner": 5}, "config.inner: should be a mapping"),
    ({"inner": {"port": "x"}}, "config.inner.port: should be a whole number, not 'x'"),
    ({"inner": {"hots": "x"}}, "config.inner.hots: unknown field; did you mean `host`?"),
    ({"inners": {"host": "x"}}, "config.inners: should be a list"),
    ({"inners": [{"port": 1}, {"port": "x"}]}, "config.inners[1].port: should be a whole number, not 'x'"),
    ({"named": {"a": {"port": "x"}}}, "config.named.a.port: should be a whole number, not 'x'"),
    ({"named": {"a": {"prt": 1}}}, "config.named.a.prt: unknown field; did you mean `port`?"),
    ({"store": {"kind": "postgras", "host": "x"}}, "config.store.kind: should be 'sqlite' or 'postgres'"),
    ({"store": {"kind": "postgres"}}, "config.store.host: required field is missing"),
    ({"store": {"kind": "postgres", "host": "h", "port": "x"}}, "config.store.port: should be a whole"),
    ({"auth": {"user": 5}}, "config.auth.user: should be text, not 5"),
    ({"auth": {"usr": "me"}}, "config.auth"),
    ({"auth": 5}, "config.auth: should be a mapping"),
    ({"prot": 1}, "config.prot: unknown field; did you mean `port`?"),
    ({"zzz": 1}, "config.zzz: unknown field; the fields are `auth`, `inner`"),
]


@pytest.mark.parametrize(("config", "said"), BAD)
def test_a_bad_value_of_the_stack_file_is_one_line_with_its_place(tmp_path, config, said):
    (line,) = stack_issues(tmp_path, config)
    place, text = line.split(": ", 1)
    assert f"error: inference/acme: {said}" in text
    assert int(place.split(":")[0]) >= 6


@pytest.mark.parametrize(("config", "said"), [each for each in BAD if "unknown" not in each[1]])
def test_the_same_in_a_configuration_is_blamed_on_the_configuration(tmp_path, config, said):
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        with pytest.raises(InvalidConfig) as caught:
            stack.configurations.register(overlay(config), name="theirs")
        errors = [issue for issue in caught.value.issues if issue.level == "error"]
        (line,) = lines(errors)
        assert said.split(";", maxsplit=1)[0].split(", not")[0] in line
        assert "given by configuration `theirs`" in line
        assert "stack.yaml" not in line


@pytest.mark.parametrize(("config", "said"), [each for each in BAD if "unknown" not in each[1]])
def test_the_same_from_a_plugin_is_blamed_on_the_plugin(tmp_path, config, said):
    with open_stack(tmp_path, one(), Owner(Config, defaults=config)) as stack:
        (line,) = lines(stack.issues)
        assert "default_config of plugin `Owner` gave a bad value" in line
        assert "stack.yaml" not in line
        assert said.split(":", maxsplit=1)[0] in line


def test_all_of_a_files_mistakes_are_told_at_once_in_its_order(tmp_path):
    found = stack_issues(tmp_path, {"port": "x", "prot": 1, "inner": {"port": 0}, "name": 5})
    assert [line.split(": ")[3] for line in found] == [
        "config.port",
        "config.prot",
        "config.inner.port",
        "config.name",
    ]


def test_the_highest_layer_that_gives_a_value_is_blamed(tmp_path):
    with open_stack(tmp_path, one({"port": 5}), Owner(Config, defaults={"port": 1})) as stack:
        stack.configurations.register(overlay({"port": 6}), name="fine")
        with pytest.raises(InvalidConfig) as caught:
            stack.configurations.register(overlay({"port": 0}), name="wrong")
        (line,) = lines(caught.value.issues)
        assert "given by configuration `wrong`" in line
    with open_stack(tmp_path, one({"port": 0}), Owner(Config)) as stack:
        assert effective(stack).port == 6  # a wrong value that is beaten does not matter


def test_a_model_that_two_layers_make_wrong_together_is_blamed_on_the_upper_one(tmp_path):
    class Span(BaseModel):
        low: int = 0
        high: int = 9

        @model_validator(mode="after")
        def _ordered(self):
            if self.low > self.high:
                raise ValueError("low is above high")
            return self

    class Holder(BaseModel):
        span: Span = user_field(Span())

    with open_stack(tmp_path, one({"span": {"low": 5}}), Owner(Holder)) as stack:
        with pytest.raises(InvalidConfig) as caught:
            stack.configurations.register(overlay({"span": {"high": 1}}))
        (line,) = lines(caught.value.issues)
        assert "config.span: low is above high; given by configuration `default`" in line
    with open_stack(tmp_path, one({"span": {"low": 50}}), Owner(Holder)) as stack:
        (line,) = lines(stack.issues)
        assert line.startswith(f"{tmp_path / 'stack.yaml'}:7:9: error: inference/acme: config.span: low is")


def test_what_the_file_did_wrong_is_not_blamed_on_a_configuration_for_something_else(tmp_path):
    class Pair(BaseModel):
        low: int = 0
        high: int = 9
        name: str = user_field("x")

        @model_validator(mode="after")
        def _ordered(self):
            if self.low > self.high:
                raise ValueError("low is above high")
            return self

    with open_stack(tmp_path, one(), Owner(Pair)) as stack:
        stack.configurations.register(overlay({"name": "y"}))
    with open_stack(tmp_path, one({"low": 50}), Owner(Pair)) as stack:
        (line,) = lines(stack.issues)
        assert "given by" not in line
        assert f"{tmp_path / 'stack.yaml'}:" in line


# The environment's text, converted by the field


class Typed(BaseModel):
    text: str = ""
    number: int = 0
    ratio: float = 0.0
    flag: bool = False
    maybe: str | None = "x"
    items: list[int] = []
    named: dict[str, str] = {}
    free: Any = None
    union: int | str = 0


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("text", "0123", "0123"),
        ("text", "true", "true"),
        ("text", "1e5", "1e5"),
        ("number", "0123", 123),
        ("ratio", "1e3", 1000.0),
        ("flag", "yes", True),
        ("flag", "0", False),
        ("maybe", "007", "007"),
        ("free", "007", 7),
        ("free", "true", True),
        ("union", "0123", "0123"),
    ],
)
def test_environment_text_is_converted_by_its_field_and_not_by_its_looks(tmp_path, field, value, expected):
    data = one({field: "${env.VALUE}"})
    with open_stack(tmp_path, data, Owner(Typed), environ={"VALUE": value}) as stack:
        found = getattr(effective(stack), field)
        assert found == expected
        assert type(found) is type(expected) or isinstance(found, str)


def test_environment_text_in_lists_and_mappings_is_converted_too(tmp_path):
    data = one({"items": ["${env.A}", 2], "named": {"key": "${env.A}"}})
    with open_stack(tmp_path, data, Owner(Typed), environ={"A": "01"}) as stack:
        now = effective(stack)
        assert (now.items, now.named) == ([1, 2], {"key": "01"})


def test_environment_text_in_a_field_that_only_an_open_class_has_is_converted_by_its_looks(tmp_path):
    class Open(BaseModel, extra="allow"):
        port: int = 1

    with open_stack(tmp_path, one({"other": "${env.A}"}), Owner(Open), environ={"A": "5"}) as stack:
        assert effective(stack).other == 5


def test_an_empty_default_is_null_where_the_field_can_be(tmp_path):
    with open_stack(tmp_path, one({"maybe": "${env.NOTHING:=}"}), Owner(Typed)) as stack:
        assert effective(stack).maybe is None


def test_a_bad_value_from_the_environment_names_the_variable(tmp_path):
    (line,) = stack_issues(tmp_path, {"number": "${env.COUNT:=many}"}, Typed)
    assert "config.number: should be a whole number, not 'many'" in line
    assert "(from ${env.COUNT:=...})" in line


def test_a_missing_variable_is_one_line(tmp_path):
    (line,) = stack_issues(tmp_path, {"number": "${env.COUNT}"}, Typed)
    assert "`COUNT` is not set" in line


# Whatever stands there


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(("alpha", "beta", "kind", "one", "x")), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def spoiled(draw, values: Any) -> Any:
    """The values with some of them replaced by junk."""
    if draw(st.integers(0, 4)) == 0:
        return draw(junk)
    if isinstance(values, dict):
        return {key: draw(spoiled(inner)) for key, inner in values.items()}
    return [draw(spoiled(inner)) for inner in values] if isinstance(values, list) else values


@st.composite
def cases(draw):
    config_class = draw(classes(depth=1))
    three = []
    for _ in range(3):
        values = draw(spoiled(draw(values_for(config_class))))
        three.append(values if isinstance(values, dict) else {"alpha": values})
    return config_class, *three


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_whatever_the_layers_hold_there_is_a_configuration_or_an_error_and_never_an_exception(case):
    config_class, defaults, stack_values, registered = case
    registry = registry_of(Owner(config_class, defaults=defaults))
    overlays = (Overlay("theirs", 1, registered),)
    found = resolve_provider(PROVIDER, registry, MACHINE, stack_values=stack_values, overlays=overlays)
    lines(found.issues)
    errors = [issue for issue in found.issues if issue.level == "error"]
    assert found.config is not None or errors
    assert len({(issue.path, issue.message) for issue in errors}) == len(errors)


def test_text_that_only_looks_like_a_reference_reaches_the_class_as_it_is():
    assert expand("$5", {}, "new").value == "$5"
