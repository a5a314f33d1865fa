"""`configurations list` and `assign --best`: which shipped configuration a machine is for."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("stackconf_instructlab") is None, reason="stackconf-instructlab is not installed"
)
BIG = "l40s:6,cpu=32,memory=512GiB"
APIS = ("synthetic_data_generation", "post_training", "eval")


@pytest.fixture
def trio(cli):
    entry = "[{provider_id: instructlab, provider_type: inline::instructlab}]"
    Path("stack.yaml").write_text("providers:\n" + "".join(f"  {api}: {entry}\n" for api in APIS))
    return cli


def test_the_best_stands_first_and_a_near_miss_says_what_is_missing(trio) -> None:
    ran = trio("configurations", "list", "--hardware", BIG)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[1].startswith("instructlab/l40s-x4")
    assert "best; fits: 4 of 6 cards l40s, 512 GiB memory" in lines[1]
    assert "near miss: 2 more cards l40s" in lines[2]
    assert "a card l4, where there are 6 l40s" not in ran.out
    verbose = trio("configurations", "list", "--hardware", BIG, "-v")
    assert "no: a card l4, where there are 6 l40s" in verbose.out


def test_json_has_the_fit_the_machine_and_the_provenance(trio) -> None:
    ran = trio("configurations", "list", "--hardware", BIG, "--json")
    listed = {each["name"]: each for each in json.loads(ran.out)["configurations"]}
    best = listed["instructlab/l40s-x4"]
    assert best["best"]
    assert best["fit"] == {
        "text": "fits: 4 of 6 cards l40s, 512 GiB memory",
        "verdict": "fits",
        "why": "4 of 6 cards l40s, 512 GiB memory",
        "missing": [],
        "share": "",
    }
    assert best["hardware"]["text"] == "4 l40s, 192 GiB memory"
    assert best["provenance"]["verified"] is False
    assert [each["name"] for each in listed.values() if each["best"]] == ["instructlab/l40s-x4"]


def test_assign_best_is_about_this_machine_and_goes_without_a_name(trio) -> None:
    assert trio("configurations", "assign", "--best", "--hardware", BIG).code == 2
    assert trio("configurations", "assign").code == 2
    assert trio("configurations", "assign", "x", "--best").code == 2
    assert trio("configurations", "assign", "x", "--for", "eval").code == 2
    ran = trio("configurations", "assign", "--best", "--for", "nobody/x")
    assert ran.code == 1
    assert "no provider `nobody/x`" in ran.err


def test_assign_best_says_why_or_what_is_missing(trio) -> None:
    ran = trio("configurations", "assign", "--best", "--for", "eval/instructlab")
    said = ran.out + ran.err
    if ran.code == 0:  # this machine decides, whatever it is
        assert "assigned `instructlab/" in said
        assert "; this machine fits: " in said
        data = json.loads(trio("configurations", "assign", "--best", "--json").out)
        assert data["fit"]["verdict"] == "fits"
    else:
        assert ran.code == 1
        assert "fits this machine; the nearest are" in said
        assert "it is for " in said


def test_the_example_is_planned_for_three_machines_side_by_side(cli) -> None:
    example = Path(__file__).parents[2] / "examples/instructlab/stack.yaml"
    machines = ("h100-80gb-sxm:8,cpu=96,memory=1TiB", "l40s:4,cpu=64,memory=512GiB", "cpu=16,memory=128GiB")
    asked = [part for each in machines for part in ("--hardware", each)]
    ran = cli("plan", "-s", str(example), *asked)
    assert ran.code == 0, ran.err
    rows = [line.split() for line in ran.out.splitlines()]
    assert ["nproc_per_node", "8", "4", "1"] in rows
    assert ["max_batch_len", "60000", "41000", "5000"] in rows
    assert ["gpus", "4", "4", "0"] in rows
    assert ran.out.count("no issues of its own") == 3
