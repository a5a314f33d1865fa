"""What /proc/cpuinfo says of the processors: model, vendor, instruction sets.

Sources: proc(5); the kernel's own names of flags and hwcaps; util-linux lscpu for the names of ARM cores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from stackconf.hardware.files import Files

Block: TypeAlias = Mapping[str, str]
"""One block of the file: most often one CPU."""

X86_ISA = frozenset(
    {
        "sse4_1",
        "sse4_2",
        "ssse3",
        "avx",
        "avx2",
        "f16c",
        "fma",
        "bmi2",
        "gfni",
        "avx_vnni",
        "avx_vnni_int8",
        "avx_vnni_int16",
        "avx_ne_convert",
        "avx_ifma",
        "avx512f",
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512vl",
        "avx512ifma",
        "avx512vbmi",
        "avx512_vbmi2",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "avx512_bitalg",
        "avx512_vpopcntdq",
        "avx10_1",
        "avx10_2",
        "amx_tile",
        "amx_int8",
        "amx_bf16",
        "amx_fp16",
        "amx_complex",
    }
)
"""The kernel's own flag names, those that inference kernels choose by."""

ARM_ISA = {
    "asimd": "neon",
    "neon": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fp16",
    "bf16": "bf16",
    "i8mm": "i8mm",
    "sve": "sve",
    "sve2": "sve2",
    "svebf16": "svebf16",
    "svei8mm": "svei8mm",
    "sme": "sme",
    "sme2": "sme2",
}
"""The kernel's hwcap names -> the names compilers and inference libraries use."""

ARM_VENDORS = {
    0x41: "ARM",
    0x46: "FUJITSU",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    0x51: "Qualcomm",
    0x61: "Apple",
    0xC0: "Ampere",
}
ARM_CORES = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD84): "Neoverse-V3",
    (0x41, 0xD85): "Cortex-X925",
    (0x41, 0xD87): "Cortex-A725",
    (0x41, 0xD8E): "Neoverse-N3",
    (0x46, 0x001): "A64FX",
    (0x48, 0xD01): "TaiShan-v110",
    (0xC0, 0xAC3): "Ampere-1",
    (0xC0, 0xAC4): "Ampere-1a",
}


def blocks(text: str) -> list[dict[str, str]]:
    """The blocks of /proc/cpuinfo; one block may also describe the whole machine."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        pairs = (line.partition(":") for line in block.splitlines())
        fields = {name.strip(): value.strip() for name, colon, value in pairs if colon}
        if fields:
            found.append(fields)
    return found


def model(processors: Sequence[Block]) -> str | None:
    """The name that the file gives, or on ARM the names of the kinds of cores."""
    for name in ("model name", "Processor", "cpu", "uarch"):
        for fields in processors:
            if fields.get(name):
                return fields[name]
    cores = dict.fromkeys(filter(None, map(_arm_core, processors)))
    return " + ".join(cores) or None


def _arm_core(fields: Block) -> str | None:
    implementer, part = _hexadecimal(fields.get("CPU implementer")), _hexadecimal(fields.get("CPU part"))
    if implementer is None or part is None:
        return None
    known = ARM_CORES.get((implementer, part))
    return known or f"{ARM_VENDORS.get(implementer, f'implementer 0x{implementer:02x}')} part 0x{part:03x}"


def vendor(processors: Sequence[Block]) -> str | None:
    """`vendor_id`, or on ARM the implementer."""
    for fields in processors:
        if fields.get("vendor_id"):
            return fields["vendor_id"]
        implementer = _hexadecimal(fields.get("CPU implementer"))
        if implementer is not None:
            return ARM_VENDORS.get(implementer)
    return None


def architecture(processors: Sequence[Block]) -> str | None:
    """As far as what the processors can do tells it."""
    for fields in processors:
        if "lm" in fields.get("flags", "").split():
            return "x86_64"
        if fields.get("CPU architecture") == "8":
            return "aarch64"
    return None


def _hexadecimal(text: str | None) -> int | None:
    return int(text, 16) if text and re.fullmatch(r"0x[0-9a-fA-F]{1,8}", text) else None


def isa(files: Files, processors: Sequence[Block]) -> frozenset[str] | None:
    """What every CPU can do, so that a thread may run on any of them."""
    common: frozenset[str] | None = None
    for fields in processors:
        own = _isa_of(fields)
        if own is not None:
            common = own if common is None else common & own
    if common is None:
        files.problem("cpu.isa", "unsupported", "/proc/cpuinfo lists no instruction sets")
    return common


def _isa_of(fields: Block) -> frozenset[str] | None:
    if "flags" in fields:
        return frozenset(fields["flags"].split()) & X86_ISA
    if "Features" in fields:
        return frozenset(ARM_ISA[name] for name in fields["Features"].split() if name in ARM_ISA)
    if fields.get("isa", "").startswith("rv"):
        # RISC-V: single letters up to the first underscore; `v` is the vector extension.
        return frozenset({"rvv"} if "v" in fields["isa"].partition("_")[0][4:] else ())
    return None
