"""Plans for machines and models, through the front door: a stack file, a machine, what is planned and why.

Each plan is of one vLLM alone on its machine. `golden_plans.txt` holds what follows from the hardware,
with the reasons, and what is wrong; it was read row by row. Its sizes are compared with the table of
`stackconf-models`, every row of which is reckoned a second time there.

    python plugins/vllm/tests/test_vllm_golden_plans.py     # writes golden_plans.txt anew
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve

from stackconf import Hardware, MigInstance, Stack, simulate

GOLDEN = Path(__file__).with_name("golden_plans.txt")
FITS = Path(__file__).parents[2] / "models" / "tests" / "fits.txt"
MODELS = (
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.3-70B-Instruct",
    "google/gemma-2-9b-it",
    "Qwen/Qwen3-30B-A3B",
    "deepseek-ai/DeepSeek-V3",
)
MACHINES = {
    # what it is: (what is simulated, its name in the table of stackconf-models)
    "a laptop without a GPU": ("cpu=8/16,memory=32GiB", ""),
    "a container with 4 of 64 CPUs": ("cpu=32/64,memory=256GiB,quota=4,limit=32GiB", ""),
    "1 x T4": ("t4", "t4"),
    "1 x L4": ("l4", "l4"),
    "1 x RTX 4090": ("rtx-4090", "rtx-4090"),
    "2 x L40S": ("l40s:2", "l40s:2"),
    "4 x A100 40 GB": ("a100-40gb-sxm:4", "a100-40gb-sxm:4"),
    "8 x A100 80 GB": ("a100-80gb-sxm:8", "a100-80gb-sxm:8"),
    "8 x H100": ("h100-80gb-sxm:8", "h100-80gb-sxm:8"),
    "8 x H200": ("h200-141gb-sxm:8", "h200-141gb-sxm:8"),
    "8 x B200": ("b200-180gb-sxm:8", "b200-180gb-sxm:8"),
    "1 x H100 cut into 7 x 1g.10gb": ("h100-80gb-sxm", "7 x MIG 1g.10gb"),
    "1 x GH200": ("gh200-96gb", "gh200-96gb"),
    "GB10, unified memory": ("gb10", "gb10"),
    "8 x MI300X": ("mi300x:8", "mi300x:8"),
}
STACK = """\
version: 2
providers:
  inference:
  - provider_id: vllm
    provider_type: remote::vllm
    config:
      model: {model}
      engine_version: 0.22.1
      config_file: /etc/vllm/server.yaml
      restart_command: [systemctl, restart, vllm]
"""
SHOWN = (
    "tensor_parallel_size",
    "dtype",
    "gpu_memory_utilization",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
)


def box(machine: str) -> Hardware:
    found = simulate(MACHINES[machine][0])
    if "cut into" not in machine:
        return found
    part = MigInstance(profile="1g.10gb", memory_bytes=9984 * 1024**2)
    return evolve(found, accelerators=(evolve(found.accelerators[0], mig_enabled=True, mig=(part,) * 7),))


def planned(folder: Path, machine: str, model: str) -> Iterator[str]:
    file = folder / "stack.yaml"
    file.write_text(STACK.format(model=model), encoding="utf-8")
    with Stack.open(file, store=folder / "state.db", hardware=box(machine)) as stack:
        plan = stack.plan()
    (change,) = plan.changes
    fields = {each.path: each for each in change.fields}
    yield f"devices: {fields['devices'].reason}" if "devices" in fields else "devices: unknown"
    for name in SHOWN:
        if name in fields:
            yield f"{name} = {fields[name].after}: {fields[name].reason}"
    for issue in plan.issues:
        yield f"{issue.level}: {issue.message}" + (f" -> {issue.hint}" if issue.hint else "")


def table(folder: Path) -> str:
    lines = []
    for machine, (expression, _) in MACHINES.items():
        lines.append(f"== {machine} ({expression})")
        for model in MODELS:
            lines.append(model)
            lines += [f"    {line}" for line in planned(folder, machine, model)]
    return "\n".join(lines) + "\n"


def rows(file: Path) -> dict[tuple[str, str], str]:
    """The parts of a golden file by machine and model; both files have the same form."""
    found = {}
    for section in file.read_text(encoding="utf-8").split("== ")[1:]:
        head, _, body = section.partition("\n")
        for row in re.split(r"\n(?! )", body.rstrip("\n")):
            name = re.split(r"[:\n]", row)[0]
            found[head, name] = row.removeprefix(name)
    return found


@pytest.fixture(autouse=True)
def no_models_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))


def test_the_plans_are_as_they_were_reviewed(tmp_path):
    assert table(tmp_path) == GOLDEN.read_text(encoding="utf-8")


def test_there_are_at_least_twelve_machines_and_four_models():
    plans = rows(GOLDEN)
    assert len({machine for machine, _ in plans}) == len(MACHINES) >= 12
    assert len({model for _, model in plans}) == len(MODELS) >= 4
    assert len(plans) == len(MACHINES) * len(MODELS)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("machine", [name for name, (_, known) in MACHINES.items() if known])
def test_a_plan_has_the_sizes_that_were_reckoned_twice(machine, model):
    expression, known = MACHINES[machine]
    plan = rows(GOLDEN)[f"{machine} ({expression})", model]
    reckoned = rows(FITS)[f"{known}, vLLM 0.22", model]
    fits = re.match(r": tp (\d+), context (\d+)\n    (.*)", reckoned)
    if fits is None:
        assert "max_model_len" not in plan
        assert "tensor_parallel_size" not in plan
        assert re.search("error: does not fit|warning: its sizes are not derived", plan)
        return
    assert f"tensor_parallel_size = {fits[1]}: " in plan
    assert f"max_model_len = {fits[2]}: {fits[3]}\n" in plan
    assert "error" not in plan


@pytest.mark.parametrize("machine", [name for name, (_, known) in MACHINES.items() if not known])
def test_without_a_gpu_nothing_is_derived_and_it_is_said(machine):
    for model in MODELS:
        plan = rows(GOLDEN)[f"{machine} ({MACHINES[machine][0]})", model]
        assert not any(f"{name} = " in plan for name in SHOWN)
        assert "no accelerator" in plan


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["HF_HOME"] = temporary
        GOLDEN.write_text(table(Path(temporary)), encoding="utf-8")
