"""The settings of the three providers, under the names of InstructLab's own configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from stackconf import user_field

Device: TypeAlias = Literal["cuda", "hpu", "mps", "cpu"]

ConfigFile: TypeAlias = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]
_FILE = "The file that holds these settings, written by `stackconf apply`; `~` is the home."

MOST_TOKENS = 10_000_000


class _Common(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    device: Device = user_field("cpu", description="Where it computes. `cuda` is also AMD's under ROCm.")
    max_seq_len: int = user_field(4096, ge=1, le=MOST_TOKENS, description="Tokens of one sample, at most.")


class GenerationConfig(_Common):
    """Synthetic data generation with a teacher model."""

    config_file: ConfigFile = Field("~/.config/instructlab/stackconf/generate.yaml", description=_FILE)
    backend: Literal["vllm", "llama-cpp"] = user_field("llama-cpp", description="What serves the teacher.")
    gpus: int = user_field(0, ge=0, le=1024, description="Cards that the teacher takes.")
    tensor_parallel_size: int | None = user_field(
        None, ge=1, le=1024, description="Cards that share one layer; unset: all of the teacher's."
    )
    gpu_memory_utilization: float | None = user_field(
        None,
        gt=0,
        le=1,
        claims="accelerator_memory_fraction",
        description="Part of each card that vLLM takes; unset: as much as it takes by itself.",
    )
    pipeline: Literal["full", "simple"] = user_field("full", description="How data are made.")
    num_cpus: int = user_field(10, ge=1, le=65_536, description="Processes that handle samples.")
    batch_size: int = user_field(8, ge=0, le=65_536, description="Samples that are asked for at once.")
    sdg_scale_factor: int = user_field(30, ge=1, le=100_000, description="Samples for one example.")
    teacher_parameters: float = Field(
        46.7e9, gt=0, description="Weights of the full pipeline's teacher, for the check that they fit."
    )
    _computed: bool = PrivateAttr(default=False)

    @model_validator(mode="after")
    def _shared_by_all(self) -> Self:
        if self.tensor_parallel_size is None:
            size = max(1, self.gpus) if self.backend == "vllm" else 1
            self.tensor_parallel_size, self._computed = size, True
        return self

    @property
    def stackconf_accelerators(self) -> int:
        """On how many of its cards it computes."""
        return self.gpus

    @property
    def stackconf_reasons(self) -> Mapping[str, str]:
        """Why a value is what it is, where nobody set it."""
        if not self._computed:
            return {}
        served = f"all {self.gpus} cards of the teacher" if self.backend == "vllm" else "llama-cpp: one"
        return {"tensor_parallel_size": served}


class TrainingConfig(_Common):
    """Training of the student on what was generated."""

    config_file: ConfigFile = Field("~/.config/instructlab/stackconf/train.yaml", description=_FILE)
    pipeline: Literal["accelerated", "full", "simple"] = user_field(
        "full", description="`accelerated` needs cards."
    )
    nproc_per_node: int = user_field(1, ge=1, le=1024, description="Processes, one for each card.")
    effective_batch_size: int = user_field(64, ge=1, le=1_000_000, description="Samples of one step.")
    max_batch_len: int = user_field(
        5000, ge=1, le=MOST_TOKENS, description="Tokens that one card takes at once."
    )
    num_epochs: int = user_field(8, ge=1, le=100_000, description="Times that all samples are seen.")
    learning_rate: float = user_field(2e-5, gt=0, lt=1, description="The step's size.")
    lora_rank: int = user_field(0, ge=0, le=65_536, description="0 trains all weights.")
    cpu_offload_optimizer: bool = user_field(
        False,
        description="Keep the optimizer's state in main memory.",
    )
    parameters: float = Field(
        8e9,
        gt=0,
        description="Weights of the student, for the check that they fit; defaults are for 8e9.",
    )


class EvaluationConfig(_Common):
    """Evaluation of what was trained, with a judge model."""

    config_file: ConfigFile = Field("~/.config/instructlab/stackconf/evaluate.yaml", description=_FILE)
    gpus: int = user_field(0, ge=0, le=1024, description="Cards that each served model takes.")
    gpu_memory_utilization: float | None = user_field(
        None,
        gt=0,
        le=1,
        claims="accelerator_memory_fraction",
        description="Part of each card that vLLM takes; unset: as much as it takes by itself.",
    )
    batch_size: int | Literal["auto"] = user_field("auto", description="Questions at once.")
    few_shots: int = user_field(5, ge=0, le=1000, description="Examples before each question.")
    max_workers: int | Literal["auto"] = user_field("auto", description="Requests to the judge at once.")
    judge_parameters: float = Field(
        46.7e9, gt=0, description="Weights of the judge, for the check that they fit."
    )

    @property
    def stackconf_accelerators(self) -> int:
        """On how many of its cards it computes."""
        return self.gpus
