"""The tables of `docs/sizing.md` are those of the golden plans and of the measurements in the tests.

python tests/docs/test_docs_sizing.py       # prints the table of the plans anew
"""

from __future__ import annotations

import re
import runpy
import sys

from docs_kit import ROOT, page, section

PLANS = ROOT / "plugins" / "vllm" / "tests" / "golden_plans.txt"
SOURCES = ROOT / "plugins" / "models" / "tests" / "test_models_sources.py"


def cell(plan: str) -> str:
    """`4 x, 131072`, or what would fit."""
    tp = re.search(r"tensor_parallel_size = (\d+)", plan)
    context = re.search(r"max_model_len = (\d+)", plan)
    if tp and context:
        return f"{tp[1]} x, {context[1]}"
    if "devices: no accelerator" in plan:
        return "not sized"
    if "unknown" in plan:
        return "unknown"
    cards = re.search(r"(\d+) GPUs of this kind", plan)
    weights = re.search(r"(fp8|awq) \(\d bit\) weights", plan)
    would = [f"needs {cards[1]}"] if cards else []
    return " or ".join([*would, *([weights[1]] if weights else [])]) or "no"


def plans() -> dict[str, dict[str, str]]:
    """The golden plans by machine and model, both as the page calls them."""
    found = {}
    for part in PLANS.read_text(encoding="utf-8").split("== ")[1:]:
        head, _, body = part.partition("\n")
        each = [plan.partition("\n") for plan in re.split(r"\n(?! )", body.rstrip("\n"))]
        named = {name.partition("/")[2].removesuffix("-Instruct"): plan for name, _, plan in each}
        found[head.partition(" (")[0]] = named
    return found


def rows() -> list[str]:
    found = [f"| {' | '.join([name, *map(cell, each.values())])} |" for name, each in plans().items()]
    models = list(next(iter(plans().values())))
    return [f"| machine | {' | '.join(models)} |", f"|{'---|' * (len(models) + 1)}", *found]


def test_the_table_of_plans_is_that_of_the_golden_plans():
    told = section(page("sizing.md"), "What comes out")
    assert [line for line in told.splitlines() if line.startswith("|")] == rows()


def test_the_measurements_told_are_those_that_a_test_holds_against_the_estimate(monkeypatch):
    monkeypatch.syspath_prepend(str(SOURCES.parent))
    tested = runpy.run_path(str(SOURCES))
    usual = tested["Serving"](fraction=0.9, batched_tokens=8192, least_context=1)
    exact = []
    for name, (shape, card, tp, measured) in tested["MEASURED"].items():
        answer = tested["fit"](shape, card, tp=tp, serving=usual)
        left = (answer.room - answer.need.total) / 1024**3
        exact.append(f"| {name} | {measured:.1f} | {left:.1f} | {left - measured:+.1f} |")
    told = section(page("sizing.md"), "How far off")
    assert [line for line in told.splitlines() if re.match(r"\| .*\d \|$", line)] == exact


def test_the_short_table_of_the_plugins_readme_has_the_same_figures():
    readme = (ROOT / "plugins" / "vllm" / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| (\d x [^|]+) \| ([^|]+) \| ([^|]+) \|$", readme, re.MULTILINE)
    assert len(shown) == 5
    for machine, small, large in shown:
        for model, told in (("Llama-3.1-8B", small), ("Llama-3.3-70B", large)):
            plan = plans()[machine][model]
            fits = re.match(r"(\d) cards?, (\d+)", told)
            if fits:
                assert cell(plan) == f"{fits[1]} x, {fits[2]}"
                continue
            needs = re.match(r"does not fit; (\d+) would hold (\w+)", told)
            assert needs
            assert f"{needs[1]} GPUs of this kind would hold {needs[2]} tokens" in plan
            assert ("fp8" in told) == ("fp8 (8 bit) weights" in plan)


if __name__ == "__main__":
    sys.stdout.write("\n".join(rows()) + "\n")
