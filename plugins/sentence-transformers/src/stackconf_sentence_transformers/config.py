"""What can be configured about sentence-transformers.

Upstream's class is empty up to llama-stack 0.6 and has `trust_remote_code` in OGX 1.5; the rest is
stackconf's own. The values depend on the model and on each other, whoever set them. So the hardware gives
`devices` and `threads`, and the class itself computes what is left unset, each value with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any

from attrs import evolve
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from stackconf import user_field
from stackconf_models.cache import is_model_name
from stackconf_sentence_transformers.devices import Place
from stackconf_sentence_transformers.sizing import Asked, Sizing, size

SIZES = ("device", "dtype", "batch_size", "max_seq_length", "processes")
_DEVICE = r"^(cpu|mps|(cuda|xpu|npu|hpu)(:\d{1,4})?)$"


def _empty_as_none(value: Any) -> Any:
    """An environment variable that is not set gives an empty text."""
    return None if isinstance(value, str) and not value.strip() else value


def _absolute(path: str | None) -> str | None:
    if path is not None and (not PurePosixPath(path).is_absolute() or not path.isprintable()):
        raise ValueError("not an absolute path; write it like /srv/models/bge-base")
    return path


def _model_name(text: str | None) -> str | None:
    if text is not None and not is_model_name(text):
        raise ValueError(
            "not a model's name; write it like BAAI/bge-base-en-v1.5, and a folder into model_path"
        )
    return text


Text = Annotated[str | None, BeforeValidator(_empty_as_none)]
Number = Annotated[int | None, BeforeValidator(_empty_as_none)]


class Unit(BaseModel):
    """A processor, a card, or the part of one that may be used."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    device: str = Field(pattern=_DEVICE, description="As PyTorch names it: cpu, cuda:0, mps, xpu:0")
    name: str | None = Field(None, description="As its driver calls it")
    memory_bytes: int | None = Field(None, ge=1, description="What of its memory may be used")
    compute_capability: str | None = Field(None, pattern=r"^\d{1,3}\.\d{1,3}$", description="Such as 8.9")
    vendor: str = Field("", description="As stackconf calls it")
    unified: bool = Field(False, description="It has no memory of its own")
    bfloat16: bool = Field(False, description="A processor that computes in bfloat16")

    @property
    def place(self) -> Place:
        """The same for the formulas."""
        given = self.compute_capability
        major, _, minor = (given or "").partition(".")
        capability = (int(major), int(minor)) if given else None
        return Place(
            self.device,
            self.name,
            self.memory_bytes,
            capability,
            self.vendor,
            unified=self.unified,
            bfloat16=self.bfloat16,
        )


class SentenceTransformersConfig(BaseModel):
    """Embeddings computed in the stack's own process.

    >>> SentenceTransformersConfig().batch_size
    32
    >>> SentenceTransformersConfig(model="all-MiniLM-L6-v2", devices=[{"device": "cpu"}]).max_seq_length
    256
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    trust_remote_code: bool = Field(
        False, description="Whether a model's own code may be run; upstream's setting, from OGX on"
    )
    model: Annotated[Text, AfterValidator(_model_name)] = user_field(
        None,
        update="reload",
        max_length=256,
        description="The model, by its name on Hugging Face; loaded by apply, and the sizes are for it",
    )
    model_path: Annotated[Text, AfterValidator(_absolute)] = Field(
        None,
        json_schema_extra={"update": "reload"},
        description="The folder with its files, instead of its name",
    )
    download: bool = Field(
        False,
        json_schema_extra={"update": "reload"},
        description="Whether apply may download a model that is not on this machine",
    )
    device: Text = user_field(
        None, update="reload", pattern=_DEVICE, description="Where it is computed; unset: by the machine"
    )
    dtype: Text = user_field(
        None,
        update="reload",
        pattern="^(auto|float32|float16|bfloat16)$",
        description="What it is computed in; unset: by the device; auto: as it is stored",
    )
    max_seq_length: Number = user_field(
        None, update="in_place", ge=1, le=2**20, description="Tokens that a text is cut to; unset: by memory"
    )
    batch_size: Number = user_field(
        None, update="in_place", ge=1, le=2**16, description="Texts computed at once; unset: by memory"
    )
    threads: Number = user_field(
        None, update="in_place", ge=1, le=1024, description="PyTorch's threads in this process"
    )
    processes: Number = user_field(
        None, update="reload", ge=1, le=64, description="Processes that share the texts of a large request"
    )
    normalize_embeddings: bool | None = user_field(
        None, update="in_place", description="To length 1; unset: as the model's own last module does"
    )
    truncate_dim: Number = user_field(
        None, update="in_place", ge=1, le=2**16, description="Keep so many of an embedding's first values"
    )
    prompts: dict[str, str] | None = user_field(
        None, update="in_place", description="What is put before a text, by name; unset: by the model"
    )
    default_prompt_name: Text = user_field(
        None, update="in_place", max_length=64, description="The prompt of texts that come without one"
    )
    devices: list[Unit] | None = Field(
        None, description="What may be computed on; from the hardware, or set where it is to be less"
    )
    device_memory_bytes: int | None = Field(
        None,
        ge=1,
        json_schema_extra={"claims": "accelerator_memory_bytes"},
        description="What it takes of a card; computed",
    )
    _told: Sizing = PrivateAttr(default_factory=Sizing)

    @property
    def told(self) -> Sizing:
        """What was derived, and what does not fit."""
        return self._told

    @property
    def stackconf_reasons(self) -> Mapping[str, str]:
        """Why each derived value is what it is, or why there is none; `plan` and `explain` show it."""
        return self._told.reasons

    @property
    def stackconf_accelerators(self) -> int:
        """How many cards it computes on: each process on one, while there are enough."""
        cards = [unit for unit in self.devices or () if unit.device != "cpu"]
        return 0 if self.device == "cpu" else min(self.processes or 1, len(cards))

    @property
    def source(self) -> str | None:
        """What is loaded: a folder, or a name."""
        return self.model_path or self.model

    @property
    def places(self) -> list[Place] | None:
        """`devices` for the formulas."""
        return None if self.devices is None else [unit.place for unit in self.devices]

    @model_validator(mode="after")
    def _sized(self) -> SentenceTransformersConfig:
        given = {name: getattr(self, name) for name in SIZES}
        told = size(Asked(model=self.source, own_code=self.trust_remote_code, **given), self.places)
        if self.prompts is None and told.model is not None and told.model.prompts:
            why = f"as the card of {told.model.name} says"
            each = {f"prompts.{name}": why for name in told.model.prompts}
            told = told.with_("prompts", dict(told.model.prompts), why)
            told = evolve(told, reasons={**told.reasons, **each})
        self._told = told
        set_already = {"device_memory_bytes"} if self.device_memory_bytes is not None else set()
        self.__dict__.update({name: told.values[name] for name in told.values.keys() - set_already})
        return self
