"""The catalogue of cards: its data, how a card is found in it, and what must never stand in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import attrs
import pytest

from stackconf.hardware import catalog
from stackconf.hardware.catalog import MIB, catalogue, figures_of, with_figures
from stackconf.hardware.codec import from_dict, to_dict
from stackconf.hardware.discovery import discover, fingerprint
from stackconf.hardware.facts import Accelerator, Hardware, Problem
from stackconf.hardware.probe import Detector
from stackconf.testing import machine

DATA = json.loads(Path(catalog.__file__).with_name("catalog.json").read_bytes())
CARDS = {card["slug"]: card for card in DATA["cards"]}
GIGA, TERA = 10**9, 10**12

REFERENCE = {
    # slug: (MiB, GB/s, BF16 TFLOP/s, FP8 TFLOP/s, capability, link GB/s one way), of the reference table
    "h100-80gb-sxm": (81559, 3350, 989, 1978, (9, 0), 450),
    "h100-80gb-pcie": (81559, 2000, 756.5, 1513, (9, 0), 64),
    "h100-94gb-nvl": (95830, 3900, 835, None, (9, 0), None),
    "h200-141gb-sxm": (143771, 4800, 989, 1978, (9, 0), 450),
    "b200-180gb-sxm": (183359, 7700, 2250, 4500, (10, 0), 900),
    "gb200-186gb": (189471, 8000, 2500, 5000, (10, 0), 900),
    "b300-270gb-sxm": (275040, 7750, 2250, 4500, (10, 3), 900),
    "a100-80gb-sxm": (81920, 2039, 312, None, (8, 0), 300),
    "a100-80gb-pcie": (81920, 1935, 312, None, (8, 0), 32),
    "a100-40gb-sxm": (40960, 1555, 312, None, (8, 0), 300),
    "l4": (23034, 300, 121, 242, (8, 9), None),
    "l40": (46068, 864, 181, 362, (8, 9), None),
    "l40s": (46068, 864, 362.05, 733, (8, 9), 32),
    "a10": (23028, 600, 125, None, (8, 6), None),
    "a10g": (23028, 600, 70, None, (8, 6), None),
    "t4": (15360, 320, None, None, (7, 5), None),
    "v100-32gb-sxm": (32768, 900, None, None, (7, 0), 150),
    "rtx-4090": (24564, 1008, 165.2, 330.3, (8, 9), None),
    "rtx-5090": (32607, 1792, None, None, (12, 0), 64),
    "rtx-pro-6000-server": (97887, 1792, 467.8, 935.6, (12, 0), 64),
    "gb10": (None, 273, None, 214, (12, 1), 450),
    "gh200-96gb": (97871, None, None, None, (9, 0), None),
    "mi300x": (196592, 5300, 1307, None, None, None),
}


def value(figure, unit):
    return None if figure is None or figure.value is None else pytest.approx(figure.value / unit)


@pytest.mark.parametrize("slug", REFERENCE)
def test_a_card_of_the_reference_table_has_its_figures(slug):
    model = catalogue().models[slug]
    nominal = model.nominal
    memory, bandwidth, bf16, fp8, capability, link = REFERENCE[slug]
    rates = {each.dtype: each.flops for each in nominal.compute}
    assert nominal.memory_bytes.value == (None if memory is None else memory * MIB)
    assert value(nominal.bandwidth, GIGA) == bandwidth
    assert value(rates.get("bf16"), TERA) == bf16
    assert value(rates.get("fp8"), TERA) == fp8
    assert model.compute_capability == capability
    assert value(nominal.link, GIGA) == link


def test_fp16_of_cards_before_bf16():
    rates = {
        slug: catalogue().models[slug].nominal.throughput("fp16") for slug in ("t4", "v100-32gb-sxm", "gb10")
    }
    assert {slug: rate.flops.value / TERA for slug, rate in rates.items()} == {
        "t4": 65.1,
        "v100-32gb-sxm": 125,
        "gb10": 213,
    }
    assert [slug for slug, rate in rates.items() if rate.measured] == ["gb10"]


# ---------------------------------------------------------------------------------------- the file

FIGURE_KEYS = {"value", "source", "verified", "note"}


def figures(card):
    """Every figure with its name and the keys that it may have besides."""
    yield "memory_mib", card["memory_mib"], set()
    yield "bandwidth_gb_s", card["bandwidth_gb_s"], set()
    yield "link_gb_s", card["link_gb_s"], {"kind"}
    if card["capability"] is not None:
        yield "capability", card["capability"], set()
    for dtype, figure in card["compute_tflop_s"].items():
        yield dtype, figure, {"accumulate", "measured"}


@pytest.mark.parametrize("slug", CARDS)
def test_the_data_of_a_card_is_whole(slug):
    card = CARDS[slug]
    assert set(card) - {"note"} == {
        "slug", "vendor", "names", "pci", "identity", "memory_kind", "capability", "memory_mib",
        "bandwidth_gb_s", "compute_tflop_s", "lacks", "link_gb_s",
    }  # fmt: skip
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug)
    assert card["vendor"] in {"nvidia", "amd", "intel"}
    assert card["names"]
    assert all(re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{4}", each) for each in card["pci"])
    assert card["pci"] or card["note"], "why it is known by its name only"
    assert card["identity"] in DATA["sources"]
    assert card["memory_kind"] in {"dedicated", "unified"}
    assert set(card["compute_tflop_s"]) | set(card["lacks"]) <= {"bf16", "fp16", "fp8", "fp4", "int8"}
    assert not set(card["compute_tflop_s"]) & set(card["lacks"])


@pytest.mark.parametrize("slug", CARDS)
def test_every_figure_has_a_source_and_a_meaning(slug):
    for name, figure, more in figures(CARDS[slug]):
        assert set(figure) <= FIGURE_KEYS | more, name
        assert figure["source"] in DATA["sources"], name
        number = figure["value"]
        if number is None:
            assert figure["note"], f"{name}: why it is unknown"
        elif name == "capability":
            assert [type(part) for part in number] == [int, int]
        else:
            assert isinstance(number, int | float), name
            assert not isinstance(number, bool), name
            assert number > 0, f"{name}: unknown is not zero"
        if name == "memory_mib" and number is not None:
            assert isinstance(number, int)
        if "accumulate" in more:
            assert figure["accumulate"] in {"fp32", "fp16", "int32", "unstated"}, name
        if figure["source"] == "hearsay":
            assert figure["verified"] is False, f"{name}: what is from memory is unverified"


def test_nothing_stands_twice():
    models = catalogue().models.values()
    assert len(models) == len(DATA["cards"])
    for kind in ("names", "pci_ids"):
        listed = [each for model in models for each in getattr(model, kind)]
        assert len(listed) == len(set(listed))


def test_the_sources_are_those_that_are_named_and_have_a_date_of_reading():
    used = {figure["source"] for card in CARDS.values() for _, figure, _ in figures(card)}
    used |= {card["identity"] for card in CARDS.values()}
    assert used == set(DATA["sources"])
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", DATA["gathered"])


def test_types_follow_the_compute_capability():
    # BF16 needs 8.0 and FP8 8.9 (vLLM's cuda.py); FP4 came with Blackwell
    needed = {"bf16": (8, 0), "fp8": (8, 9), "fp4": (10, 0)}
    for model in catalogue().models.values():
        if model.compute_capability is None:
            continue
        for dtype, least in needed.items():
            assert (dtype in model.nominal.lacks) == (model.compute_capability < least) or (
                dtype == "fp4" and model.compute_capability[0] == 9
            ), (model.slug, dtype)


# ------------------------------------------------------------------------- what is wrong elsewhere


def rate(slug, dtype):
    found = catalogue().models[slug].nominal.throughput(dtype)
    return None if found is None or found.flops.value is None else found.flops.value / TERA


def mib(slug):
    return catalogue().models[slug].nominal.memory_bytes.value // MIB


WRONG = {
    "HF hardware-nvidia.ts: A100 without tensor cores": lambda: rate("a100-80gb-sxm", "bf16") != 77.97,
    "HF hardware-nvidia.ts: T4's FP16 taken for BF16": lambda: rate("t4", "bf16") is None,
    "llm-analysis: an A10 with 28 GB": lambda: mib("a10") < 24 * 1024,
    "llm-analysis: 32 GB for the V100 of 16 GB": lambda: "v100-16gb-sxm" not in CARDS,
    "gpu.blog: H100 with 133 dense": lambda: rate("h100-80gb-sxm", "bf16") > 900,
    "gpu.blog: H100 NVL at 4.8 TB/s": lambda: CARDS["h100-94gb-nvl"]["bandwidth_gb_s"]["value"] < 4000,
    "codesota: MI300X doubled": lambda: rate("mi300x", "bf16") < 1400,
    "sparse for dense: H100's 1979": lambda: rate("h100-80gb-sxm", "bf16") < 1000,
    "sparse for dense: H100's FP8 3958": lambda: rate("h100-80gb-sxm", "fp8") < 2000,
    "both ways for one: NVLink 900 of an H100": lambda: CARDS["h100-80gb-sxm"]["link_gb_s"]["value"] == 450,
    "both ways for one: NVLink 600 of an A100": lambda: CARDS["a100-80gb-sxm"]["link_gb_s"]["value"] == 300,
    "both ways for one: NVLink 1800 of a B200": lambda: CARDS["b200-180gb-sxm"]["link_gb_s"]["value"] == 900,
    "mock: a T4 named `NVIDIA T4`": lambda: CARDS["t4"]["names"] == ["Tesla T4"],
    "mock: a T4 with 16 GiB": lambda: mib("t4") == 15360,
    "mock: an H100 with 80 GiB": lambda: mib("h100-80gb-sxm") == 81559,
    "mock: a B200 with 192 GiB": lambda: mib("b200-180gb-sxm") == 183359,
    "mock: an H200 with its memory in its name": lambda: CARDS["h200-141gb-sxm"]["names"] == ["NVIDIA H200"],
    "A800 with 312: no card whose figure nobody read": lambda: not any("a800" in slug for slug in CARDS),
    "5090: one of two figures": lambda: rate("rtx-5090", "bf16") is rate("rtx-5090", "fp8") is None,
}  # fmt: skip


@pytest.mark.parametrize("claim", WRONG)
def test_a_wrong_public_figure_is_not_repeated(claim):
    assert WRONG[claim]()


def test_where_sources_disagree_the_figure_is_unknown_and_says_why():
    for dtype in ("bf16", "fp8"):
        figure = catalogue().models["rtx-5090"].nominal.throughput(dtype).flops
        assert figure.value is None
        assert not figure.verified
        assert "accumulate mode" in figure.note
        assert "419" in figure.note


def test_weak_figures_are_marked():
    models = catalogue().models
    assert not models["h100-94gb-nvl"].nominal.bandwidth.verified
    assert not models["l40"].nominal.throughput("bf16").flops.verified
    assert not models["l40"].nominal.throughput("fp8").flops.verified
    assert models["h100-80gb-sxm"].nominal.bandwidth.verified


# --------------------------------------------------------------------------------- finding a card


def test_the_pci_id_comes_before_the_name():
    # the driver calls one H100 NVL so (a stored report of 10de:233f; here with the common id)
    card = Accelerator("nvidia", name="NVIDIA Graphics Device", pci_device_id="10DE:2321")
    found = figures_of(card)
    assert (found.slug, found.matched_by) == ("h100-94gb-nvl", "pci")
    renamed = Accelerator("nvidia", name="NVIDIA L4", pci_device_id="10de:26b9")
    assert figures_of(renamed).slug == "l40s"


def test_the_exact_name_is_the_second_key():
    found = figures_of(Accelerator("nvidia", name="Tesla V100-SXM2-32GB", pci_device_id="10de:ffff"))
    assert (found.slug, found.matched_by) == ("v100-32gb-sxm", "name")


@pytest.mark.parametrize(
    "name", ["NVIDIA L4 ", "nvidia l4", "L4", "NVIDIA L40S-48Q", "NVIDIA A100", "", None]
)
def test_a_name_is_never_parsed(name):
    assert isinstance(figures_of(Accelerator("nvidia", name=name)), str)


def test_every_model_is_found_by_each_of_its_keys():
    for model in catalogue().models.values():
        for name in model.names:
            assert figures_of(Accelerator(model.vendor, name=name)).slug == model.slug
        for identity in model.pci_ids:
            assert figures_of(Accelerator(model.vendor, pci_device_id=identity.upper())).slug == model.slug


def test_a_part_of_a_card_has_not_the_figures_of_the_whole():
    part = Accelerator("nvidia", name="NVIDIA A100-40C", pci_device_id="10de:20b2", memory_bytes=40960 * MIB)
    assert "40960 MiB" in figures_of(part)
    assert "81920 MiB" in figures_of(part)
    without_ecc = Accelerator("nvidia", pci_device_id="10de:26b9", memory_bytes=49140 * MIB)
    assert figures_of(without_ecc).slug == "l40s"


def test_a_discovered_card_gains_the_figures_of_its_model(tmp_path):
    detector = tmp_path / "cards.py"
    detector.write_text(
        "from stackconf import Accelerator, hookimpl\n"
        "@hookimpl\n"
        "def discover_hardware():\n"
        "    yield Accelerator('nvidia', index=0, uuid='GPU-1', pci_device_id='10DE:2330',\n"
        f"                      memory_bytes={81559 * MIB})\n"
        "    yield Accelerator('acme', index=0, uuid='ACME-1', name='Acme X', memory_bytes=1)\n",
        encoding="utf-8",
    )
    found = discover([Detector("cards", str(detector))])
    acme, nvidia = found.accelerators
    assert nvidia.nominal.slug == "h100-80gb-sxm"
    assert nvidia.nominal.bandwidth.value == 3350 * GIGA
    assert nvidia.nominal.bandwidth.source.startswith("NVIDIA AIConfigurator")
    assert acme.nominal is None
    (problem,) = found.problems
    assert str(problem) == (
        "catalogue: accelerators.ACME-1.nominal: absent: no figures for a card with no PCI id and the name"
        " `Acme X`; the catalogue does not have it"
    )
    assert with_figures(found) == found
    assert from_dict(to_dict(found)).accelerators[1].nominal == nvidia.nominal


def test_the_figures_do_not_count_for_the_fingerprint():
    known = machine(accelerators=[Accelerator("nvidia", uuid="GPU-1", pci_device_id="10de:2330")])
    unknown = machine(accelerators=[Accelerator("nvidia", uuid="GPU-2", pci_device_id="10de:ffff")])
    assert with_figures(known).accelerators[0].nominal is not None
    assert with_figures(unknown).problems
    for box in (known, unknown):
        assert fingerprint(with_figures(box)) == fingerprint(box)


def test_figures_that_a_card_has_are_kept():
    mine = attrs.evolve(catalogue().models["l4"].nominal, slug="mine")
    card = Accelerator("nvidia", pci_device_id="10de:2330", nominal=mine)
    assert with_figures(Hardware(accelerators=(card,))).accelerators[0].nominal == mine


def test_a_problem_of_before_is_not_told_twice():
    once = with_figures(Hardware(accelerators=(Accelerator("acme"), Accelerator("acme", index=1))))
    assert len(once.problems) == 2
    assert with_figures(once) == once
    assert all(isinstance(each, Problem) and each.detector == "catalogue" for each in once.problems)
