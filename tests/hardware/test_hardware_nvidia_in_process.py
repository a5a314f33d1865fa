"""Without a C compiler: the real pynvml over a Python object in the place of the loaded library."""

from __future__ import annotations

import pynvml
import pytest

from stackconf.hardware.facts import Accelerator, Problem
from stackconf.hardware.files import Files
from stackconf.hardware.nvidia import read_nvidia


class PythonLibrary:
    """Functions as ctypes calls them: arguments by reference are filled in, the code is returned."""

    def __init__(self, **codes: int) -> None:
        self.codes = codes

    def __getattr__(self, name):
        if name.startswith("_") or not hasattr(type(self), f"do_{name}"):
            raise AttributeError(name)
        code = self.codes.get(name, 0)
        return (lambda *arguments: code) if code else getattr(self, f"do_{name}")

    def do_nvmlInitWithFlags(self, flags):  # noqa: N802 - NVML's name
        return 0

    def do_nvmlDeviceGetCount_v2(self, count):  # noqa: N802 - NVML's name
        count._obj.value = 1
        return 0

    def do_nvmlDeviceGetHandleByIndex_v2(self, index, handle):  # noqa: N802 - NVML's name
        return 0

    def do_nvmlDeviceGetUUID(self, handle, text, size):  # noqa: N802 - NVML's name
        text.value = b"GPU-python"
        return 0

    def do_nvmlDeviceGetMemoryInfo(self, handle, memory):  # noqa: N802 - NVML's name
        memory._obj.total, memory._obj.free = 16 * 2**30, 8 * 2**30
        return 0


@pytest.fixture
def over(monkeypatch):
    def ask(library):
        monkeypatch.setattr(pynvml, "nvmlLib", library)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        return ask.read()

    return ask


def test_a_card_of_which_little_is_known(over, tmp_path):
    over.read = lambda: list(read_nvidia(Files(tmp_path, "nvidia"), {}))
    facts = over(PythonLibrary())
    card = [fact for fact in facts if isinstance(fact, Accelerator)][-1]
    assert (card.uuid, card.memory_bytes, card.name, card.compute_capability) == (
        "GPU-python", 16 * 2**30, None, None
    )  # fmt: skip
    missing = {fact.fact for fact in facts if isinstance(fact, Problem)}
    assert {"accelerators.name", "accelerators.compute_capability", "accelerators.driver_version"} <= missing


def test_an_error_of_init(over, tmp_path):
    over.read = lambda: list(read_nvidia(Files(tmp_path, "nvidia"), {}))
    (problem,) = over(PythonLibrary(nvmlInitWithFlags=18))
    assert isinstance(problem, Problem)
    assert "NVML_ERROR_LIB_RM_VERSION_MISMATCH" in problem.reason


def test_another_module_called_pynvml_is_told_apart(monkeypatch, tmp_path):
    import sys
    from types import ModuleType

    monkeypatch.setitem(sys.modules, "pynvml", ModuleType("pynvml"))
    (problem,) = read_nvidia(Files(tmp_path, "nvidia"), {})
    assert isinstance(problem, Problem)
    assert "nvidia-ml-py" in problem.reason
