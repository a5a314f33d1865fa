"""What fits where, on simulated machines: every figure of `fits.txt` was checked against the formulas.

Run as a program, this file writes `fits.txt` anew.
"""

from __future__ import annotations

from pathlib import Path

from stackconf import simulate
from stackconf_models import Serving, choose_dtype, choose_tp, devices, known_model, vllm_defaults

FITS = Path(__file__).with_name("fits.txt")
MACHINES = (
    "t4:2",
    "l4",
    "rtx-4090:2",
    "l40s:2",
    "l40s:4",
    "a100-40gb-sxm:4",
    "a100-80gb-sxm:8",
    "h100-80gb-sxm",
    "h100-80gb-sxm:8",
    "h200-141gb-sxm:8",
    "b200-180gb-sxm:8",
    "gb10",
)
MODELS = (
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.3-70B-Instruct",
    "google/gemma-2-9b-it",
    "deepseek-ai/DeepSeek-V3",
)


def table() -> str:
    lines = []
    for machine in MACHINES:
        cards = devices(simulate(machine))
        lines.append(f"== {machine}, vLLM 0.22")
        for name in MODELS:
            shape, defaults = known_model(name), vllm_defaults("0.22.0", cards[0])
            serving = Serving(
                fraction=defaults.gpu_memory_utilization.value,
                batched_tokens=defaults.max_num_batched_tokens.value or 2048,
                dtype=choose_dtype(shape, cards[0]).value,
            )
            fit = choose_tp(shape, cards, serving=serving)
            verdict = f"tp {fit.tp}, context {fit.context}" if fit.fits else "-"
            lines += [f"{name}: {verdict}", f"    {fit.reason}"]
            lines += [f"    {fit.advice}"] if fit.advice else []
    return "\n".join(lines) + "\n"


def test_what_fits_where_is_as_it_was_checked():
    assert table() == FITS.read_text(encoding="utf-8")


if __name__ == "__main__":
    FITS.write_text(table(), encoding="utf-8")
