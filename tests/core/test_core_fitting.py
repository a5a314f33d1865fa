"""Which machine a shipped configuration is for, and which of them is taken."""

from __future__ import annotations

import pytest
from core_kit import Owner, distribution, effective, lines, one, open_stack, overlay, registry_of
from pydantic import BaseModel

from stackconf import Accelerator, Hardware, InvalidConfig, UnknownName, simulate, user_field
from stackconf.fitting import fit, read_requirement
from stackconf.testing import machine, no_hardware


class Config(BaseModel):
    port: int = user_field(80, ge=1)


PROFILE = """\
description: {name}
provenance: {{source: "a page", verified: true}}
hardware: {hardware}
providers:
  inference:
  - provider_id: acme
    config: {{port: {port}}}
"""
SHIPPED = {
    "two": ("{cards: {slug: l4, count: 2}}", 2),
    "eight": ("{cards: {slug: l4, count: 8}, memory: 64GiB}", 8),
    "any": ("{cards: {compute_capability: '8.0', memory: 20GiB, count: 2}}", 20),
    "none": ("{cards: {count: 0}, cpu: 4}", 100),
}


SHIPPED_ELSEWHERE = "providers: {agents: [{provider_id: x, provider_type: remote::x, config: {port: 1}}]}"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    site = tmp_path / "site"
    distribution(site, "acme-ai", {"stackconf.configurations": {"acme": "fit_profiles"}}, version="2.5")
    inner = site / "fit_profiles"
    inner.mkdir()
    for name, (hardware, port) in SHIPPED.items():
        (inner / f"{name}.yaml").write_text(PROFILE.format(name=name, hardware=hardware, port=port))
    monkeypatch.syspath_prepend(site)
    return inner


def stack_on(tmp_path, hardware):
    if isinstance(hardware, str):
        hardware = simulate(hardware)
    return open_stack(
        tmp_path, one(), registry=registry_of(Owner(Config), entry_points=True), hardware=hardware
    )


@pytest.mark.parametrize(
    ("expression", "best", "port"),
    [
        ("l4:2", "two", 2),
        ("l4:8,memory=64GiB", "eight", 8),
        ("l4:7,memory=64GiB", "two", 2),
        ("l40s:2", "any", 20),
        ("cpu=4", "none", 100),
    ],
)
def test_of_those_that_fit_the_one_that_asks_for_most_is_assigned(tmp_path, folder, expression, best, port):
    with stack_on(tmp_path, expression) as stack:
        chosen = stack.configurations.assign_best()
        assert chosen.name == f"acme/{best}"
        assert chosen.revision == stack.revision == 1
        assert effective(stack).port == port
        (listed,) = [each for each in stack.configurations.list(fit=True) if each.assigned]
        assert listed.best
        assert listed.provenance.verified


def test_what_fits_as_well_is_named(tmp_path, folder):
    with stack_on(tmp_path, "l4:8,memory=64GiB") as stack:
        chosen = stack.configurations.assign_best(["acme"])
        assert chosen.passed_over == ("acme/two", "acme/any")
        assert str(chosen.fit) == "fits: 8 of 8 cards l4, 64 GiB memory"


def test_where_none_fits_the_nearest_says_what_is_missing(tmp_path, folder):
    with stack_on(tmp_path, "l4,memory=16GiB") as stack:
        with pytest.raises(InvalidConfig, match="no configuration fits this machine") as refused:
            stack.configurations.assign_best()
        assert lines(refused.value.issues)[0] == (
            "error: `acme/any`: near miss: 1 more card l4; it is for 2 card with at least 20 GiB and"
            " compute capability 8.0"
        ).replace("2 card ", "2 cards ")
        assert stack.revision == 0


def test_what_is_not_known_neither_fits_nor_fails(tmp_path, folder):
    with stack_on(tmp_path, no_hardware()) as stack:
        listed = stack.configurations.list(fit=True)
        assert {each.fit.verdict for each in listed} == {"unknown"}
        with pytest.raises(InvalidConfig, match="fits this machine"):
            stack.configurations.assign_best()


def test_only_configurations_for_the_named_providers_count(tmp_path, folder):
    with stack_on(tmp_path, "l4:2") as stack, pytest.raises(UnknownName):
        stack.configurations.assign_best(["other"])


def test_the_machine_is_looked_at_only_where_that_is_asked(tmp_path, folder):
    def fail() -> Hardware:
        raise AssertionError("looked at the machine")

    with stack_on(tmp_path, fail) as stack:
        assert {each.fit for each in stack.configurations.list()} == {None}
        with pytest.raises(AssertionError):
            stack.configurations.list(fit=True)
    for file in folder.glob("*.yaml"):
        file.unlink()
    with stack_on(tmp_path, fail) as stack:
        assert stack.configurations.list(fit=True) == []
        with pytest.raises(InvalidConfig, match="says for which machine"):
            stack.configurations.assign_best()


def test_one_for_a_provider_that_the_stack_lacks_is_not_taken(tmp_path, folder):
    other = "  - provider_id: other\n    provider_type: remote::acme\n"
    for file in folder.glob("*.yaml"):
        file.write_text(file.read_text().replace("  - provider_id: acme\n", other))
    lacks = pytest.raises(InvalidConfig, match="lacks one of its providers: inference/other")
    with stack_on(tmp_path, "l4:2") as stack, lacks:
        stack.configurations.assign_best()


def test_one_that_has_nothing_to_do_with_the_stack_is_not_listed(tmp_path, folder):
    (folder / "two.yaml").write_text(SHIPPED_ELSEWHERE)
    with stack_on(tmp_path, "l4:2") as stack:
        assert "acme/two" not in {each.name for each in stack.configurations.list()}
        assert stack.configurations.get("acme/two").providers


def test_a_users_configuration_has_no_machine_and_hides_a_shipped_one_of_its_name(tmp_path, folder):
    with stack_on(tmp_path, "l4:2") as stack:
        stack.configurations.register(overlay({"port": 5}), name="acme/two")
        found = {each.name: each for each in stack.configurations.list(fit=True)}
        assert found["acme/two"].fit is None
        assert found["acme/any"].best


@pytest.mark.parametrize(
    ("hardware", "problem"),
    [
        ("4", "hardware is a mapping"),
        ("{crads: 1}", "no key `crads`; did you mean `cards`"),
        ("{cards: {slug: h100}}", "the catalogue has no `h100`"),
        ("{cards: {count: -1}}", "hardware.cards.count is a whole number"),
        ("{cards: {memory: 64}}", "hardware.cards.memory is an amount such as 128GiB"),
        ("{memory: 64G}", "two meanings"),
        ("{cards: {compute_capability: 9}}", "such as '8.9'"),
        ("{cpu: many}", "hardware.cpu is a number of CPUs"),
    ],
)
def test_a_wrong_requirement_is_a_problem_of_its_distribution(tmp_path, folder, hardware, problem):
    (folder / "two.yaml").write_text(PROFILE.format(name="x", hardware=hardware, port=1))
    with stack_on(tmp_path, "l4:2") as stack:
        stack.configurations.list()
        (found,) = stack.manager.registry.problems
        assert "acme-ai 2.5" in str(found)
        assert "two.yaml" in str(found)
        assert problem in str(found)


def card(**facts):
    known = {"name": "x", "memory_bytes": 80 * 1024**3, "compute_capability": (8, 0)}
    return Accelerator("nvidia", **{**known, **facts})


@pytest.mark.parametrize(
    ("cards", "verdict", "said"),
    [
        ([card(), card()], "fits", "2 of 2 cards x"),
        ([card(), card(visible=False)], "near", "1 more card x"),
        ([card(visible=False)] * 2, "no", "none of the cards is visible"),
        ([card(), card(mig_enabled=True)], "near", "1 more card x (1 is split into MIG instances)"),
        ([card(), card(name="y")], "near", "1 more card"),
        ([card(memory_bytes=None)] * 2, "unknown", "the memory of x"),
        ([card(compute_capability=(7, 5))] * 2, "no", "compute capability 8.0, where x has 7.5"),
        ([card(compute_capability=None)] * 2, "unknown", "the compute capability of x"),
        ([card(memory_bytes=1024**3)] * 2, "near", "40 GiB on a card, where x has 1 GiB"),
        ([], "no", "where there is none"),
    ],
)
def test_cards_are_told_by_what_they_are(cards, verdict, said):
    wanted = read_requirement({"cards": {"count": 2, "memory": "40GiB", "compute_capability": "8.0"}})
    found = fit(wanted, machine(accelerators=cards))
    assert found.verdict == verdict
    assert said in str(found)


def test_a_machine_without_cards_is_not_one_of_which_nothing_is_known():
    wanted = read_requirement({"cards": {"count": 0}})
    assert fit(wanted, machine()).verdict == "fits"
    assert fit(wanted, no_hardware()).verdict == "unknown"
    assert fit(wanted, machine(accelerators=[card(visible=False)])).verdict == "no"
    assert fit(read_requirement({}), no_hardware()).verdict == "fits"
