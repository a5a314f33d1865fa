"""A machine in a file: what is written reads back, and whatever is wrong with a file is one line."""

from __future__ import annotations

import json
import os

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackconf.errors import InvalidConfig
from stackconf.hardware.discovery import fingerprint
from stackconf.hardware.facts import Accelerator, Hardware, Provenance
from stackconf.hardware.simulation import simulate
from stackconf.hardware.snapshot import from_json, load, recorded, save
from stackconf.testing import machine

BOX = machine(cpu_quota=2.5, accelerators=[Accelerator("nvidia", uuid="GPU-1", pci_device_id="10de:27b8")])


def test_a_machine_survives_its_file(tmp_path):
    file = tmp_path / "box.json"
    BOX.save(file)
    again = Hardware.load(file)
    assert again == BOX
    assert fingerprint(again) == fingerprint(BOX)
    assert again.provenance.kind == "recorded"
    assert again.provenance.host
    assert again.provenance.at.endswith("Z")
    assert again.accelerators[0].nominal.slug == "l4"


def test_a_snapshot_says_what_it_was_first(tmp_path):
    box = simulate("l40s:2,cpu=8")
    save(box, tmp_path / "box.json")
    assert load(tmp_path / "box.json").provenance == box.provenance
    first = recorded(BOX)
    assert recorded(first).provenance == first.provenance


def test_the_host_is_the_one_whose_files_are_read(tmp_path, monkeypatch):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "hostname").write_text("gpu-7\n", encoding="utf-8")
    monkeypatch.setenv("STACKCONF_HARDWARE_ROOT", str(tmp_path))
    assert recorded(BOX).provenance.host == "gpu-7"
    (tmp_path / "etc" / "hostname").unlink()
    assert recorded(BOX).provenance.host is None


def test_where_a_machine_is_from_does_not_count(tmp_path):
    elsewhere = attrs.evolve(BOX, provenance=Provenance("recorded", host="gpu-7"))
    assert elsewhere == BOX
    assert fingerprint(elsewhere) == fingerprint(BOX)


def test_a_snapshot_of_before_has_no_provenance(tmp_path):
    (tmp_path / "box.json").write_text('{"version": 1, "cpu": {"physical_cores": 4}}', encoding="utf-8")
    box = load(tmp_path / "box.json")
    assert box.cpu.physical_cores == 4
    assert str(box.provenance) == "a file that does not say where it is from"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "box.json is empty; `stackconf hardware --json > FILE` writes one"),
        ("hello", "box.json is no snapshot of a machine"),
        ("[]", "box.json is no snapshot of a machine"),
        ('{"version": 1}', "box.json is no snapshot of a machine"),
        ('{"kind": "stackconf plan", "format": 1}', "box.json is no snapshot of a machine"),
        ('{"version": 0, "cpu": {}}', "has format 0, and this stackconf reads format 1; record it again"),
        ('{"version": true, "cpu": {}}', "box.json has format True"),
        ('{"version": 1, "cpu": {"cores": 4}}', "box.json cannot be read: cpu: unknown key `cores`; known"),
        ('{"version": 1, "cpu": {"physical_cores": "4"}}', "cpu.physical_cores: expected a whole number"),
        ('{"version": 1, "cpu": {"usable_cores": NaN}}', "cpu.usable_cores: expected a finite number"),
        ('{"version": 1, "cpu": {"physical_cores": 4', "box.json is damaged or cut off; record it again"),
        ('{"version": 1, "cpu": ' + "[" * 100_000, "box.json is damaged or cut off"),
        ('{"version": 1, "cpu": {}, "provenance": {"kind": "true"}}', "provenance.kind: expected one of"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "box.json").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidConfig) as caught:
        load("box.json")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path):
    with pytest.raises(InvalidConfig, match=r"No such file or directory; `stackconf hardware --json"):
        load(tmp_path / "none.json")
    with pytest.raises(InvalidConfig, match="is a folder"):
        load(tmp_path)
    with pytest.raises(InvalidConfig, match="cannot be the name of a file"):
        load("a\0b.json")
    with pytest.raises(InvalidConfig, match="the snapshot was not written"):
        save(BOX, tmp_path / "none" / "box.json")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(InvalidConfig, match="no regular file"):
        load(tmp_path / "pipe.json")


def test_a_file_of_any_size_is_not_read(tmp_path):
    file = tmp_path / "box.json"
    file.write_bytes(b" " * (16 * 2**20 + 1))
    with pytest.raises(InvalidConfig, match="larger than 16 MiB"):
        load(file)


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_snapshot_is_read_or_refused(data):
    text = json.dumps(json.loads(_text()))
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 30)))
    with_this = data.draw(st.sampled_from(["", "null", "1e999", '"', "{}", "[]", "-1", "\x00", "true"]))
    said = "box.json "
    try:
        fingerprint(from_json(text[:start] + with_this + text[stop:], "box.json"))
    except InvalidConfig as error:
        said = str(error)
    assert said.startswith("box.json ")
    assert "\n" not in said


def _text() -> str:
    from stackconf.hardware.codec import to_dict

    return json.dumps(to_dict(simulate("l4:2,cpu=4/8,memory=16GiB,numa=2,quota=2.5")))
