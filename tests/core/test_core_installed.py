"""What is installed, found without `importlib.metadata`: the same, whatever lies on the path."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackconf.registry import metadata
from stackconf.registry.metadata import installed

ENTRIES = "[stackconf.providers]\ninference/remote::{name} = {name}.plugin\n[stackconf.plugins]\n{name}=x:y\n"


def as_importlib_finds(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(metadata, "_in_folders", lambda: None)
        return installed()


def test_in_this_environment(monkeypatch):
    assert installed() == as_importlib_finds(monkeypatch) != []


def test_nothing_heavy_is_loaded_for_it():
    program = (
        "import sys; from stackconf.registry.metadata import installed; assert installed(); "
        "print({'importlib.metadata', 'email', 'zipfile', 'csv'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


names = st.sampled_from(["acme", "Acme", "acme-two", "acme_two", "other", ""])
folders = st.sampled_from(
    ["{}-1.dist-info", "{}-2.dist-info", "{}.egg-info", "{}-1.DIST-INFO", "{}-1.data", "{}"]
)
texts = st.one_of(
    st.sampled_from([ENTRIES, "[stackconf.providers]\n", "[console_scripts]\na = b\n", "[stackconf.", "\0"]),
    st.text(alphabet="[]stackconf.pv=:\n ", max_size=30),
)
headers = st.sampled_from(
    [
        "Metadata-Version: 2.1\nName: {}\nVersion: 1.0\n\nName: wrong\n",
        "name: {}\nVERSION:   2.0\n",
        "Metadata-Version: 2.1\nVersion: 1\nName: {}\n\nA description: with colons\n",
    ]
)
places = st.lists(
    st.tuples(
        st.sampled_from(["one", "two"]),
        names,
        folders,
        texts,
        headers,
        st.sampled_from(["METADATA", "PKG-INFO"]),
    ),
    max_size=6,
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(places)
def test_whatever_lies_on_the_path(tmp_path_factory, monkeypatch, places):
    root = tmp_path_factory.mktemp("site")
    for folder in ("one", "two"):
        (root / folder).mkdir()
    for place, name, folder, text, header, file in places:
        info = root / place / folder.format(name.replace("-", "_") or "none")
        info.mkdir(parents=True, exist_ok=True)
        (info / "entry_points.txt").write_text(text.replace("{name}", name or "none"), encoding="utf-8")
        (info / file).write_text(header.format(name or "none"), encoding="utf-8")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "path", [str(root / "two"), str(root / "gone"), str(root / "one")])
        found = installed()
        assert found == as_importlib_finds(monkeypatch)


def test_what_is_in_an_archive_or_found_by_another_finder_is_found_too(tmp_path, monkeypatch):
    archive = tmp_path / "plugins.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("acme-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
        opened.writestr("acme-1.dist-info/entry_points.txt", ENTRIES.format(name="acme"))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "path", [str(archive)])
        assert [entry.distribution for entry in installed()] == ["acme", "acme"]

    class Finder:
        @staticmethod
        def find_distributions(context):
            from importlib.metadata import PathDistribution

            return [PathDistribution(zipfile.Path(archive, "acme-1.dist-info/"))]

    with monkeypatch.context() as patched:
        patched.setattr(sys, "path", [])
        patched.setattr(sys, "meta_path", [Finder])
        assert [entry.distribution for entry in installed()] == ["acme", "acme"]


@pytest.mark.parametrize("damage", ["unreadable", "file"])
def test_a_broken_distribution_hides_no_other(tmp_path, monkeypatch, damage):
    for name in ("acme", "broken"):
        info = tmp_path / f"{name}-1.dist-info"
        if name == "broken" and damage == "file":
            info.write_text("", encoding="utf-8")
            continue
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(ENTRIES.format(name=name), encoding="utf-8")
        if name == "broken":
            (info / "entry_points.txt").write_bytes(b"\xff[stackconf.plugins]\n")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "path", [str(tmp_path)])
        assert {entry.distribution for entry in installed()} == {"acme"}
        assert installed() == as_importlib_finds(monkeypatch)
