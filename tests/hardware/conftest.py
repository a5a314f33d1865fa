"""The stub of NVIDIA's library, compiled once, and the real pynvml over it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stackconf.hardware.discovery import BUILTIN, merge
from stackconf.hardware.facts import Hardware
from stackconf.hardware.probe import run

collect_ignore = ["conftest.py"]  # not to be read again for doctests: others have its name

NVIDIA = next(detector for detector in BUILTIN if detector.name == "nvidia")
Ask = Callable[..., Hardware]


def _compiled(folder: Path, *options: str) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler here; test_hardware_nvidia_in_process.py covers a part without one")
    source = Path(__file__).with_name("nvml_stub.c")
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(
        [compiler, "-shared", "-fPIC", *options, "-Wl,-soname,libnvidia-ml.so.1", "-o", library, source],
        check=True,
    )
    return folder


@pytest.fixture(autouse=True)
def _nothing_of_this_users_settings(monkeypatch) -> None:
    for name in [*os.environ]:
        if name.startswith("STACKCONF_") or name.endswith("_VISIBLE_DEVICES") or name == "CUDA_DEVICE_ORDER":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def stub(tmp_path_factory) -> Path:
    return _compiled(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def old_stub(tmp_path_factory) -> Path:
    return _compiled(tmp_path_factory.mktemp("old-driver"), "-DOLD_DRIVER")


@pytest.fixture
def nvidia_over(tmp_path, monkeypatch) -> Ask:
    """Runs the nvidia detector in its child process over a library that answers from `description`."""

    def ask(
        library: Path, description: str, *, deadline: float = 30, root: Path | None = None, **environment: str
    ) -> Hardware:
        file = tmp_path / "cards.txt"
        file.write_text(description, encoding="utf-8")
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("STACKCONF_NVML_STUB", str(file))
        monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
        machine = tmp_path / "machine"
        machine.mkdir(exist_ok=True)
        return merge([(NVIDIA, run(NVIDIA, root=root or machine, deadline=deadline))])

    return ask
