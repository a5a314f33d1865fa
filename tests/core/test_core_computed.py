"""Values that a config class computes where nobody set them."""

from __future__ import annotations

from pydantic import BaseModel, model_validator

from stackconf import ProviderType, because, hookimpl, user_field
from stackconf.testing import machine, stack_with

ENTRY = {"provider_id": "acme", "provider_type": "remote::acme"}


class Config(BaseModel):
    cores: int | None = None
    threads: int | None = user_field(None)
    name: str = "plain"

    @model_validator(mode="after")
    def _sized(self):
        if self.threads is None and self.cores is not None:
            self.threads = self.cores - 1
        return self

    @property
    def stackconf_reasons(self):
        return {"threads": f"all but one of {self.cores} cores", "name": "never told"}


class Plugin:
    provides = (ProviderType("inference", "remote::acme", Config),)

    @hookimpl
    def default_config(self, hardware):
        return {"cores": because(hardware.cpu.usable_physical_cores, "seen")}


def fields(plugin=None, **config):
    entry = {**ENTRY, "config": config}
    with stack_with([plugin or Plugin()], {"inference": [entry]}, hardware=machine(cores=4)) as stack:
        (change,) = stack.plan().changes
        return {each.path: (each.after, each.layer, each.reason) for each in change.fields}, change


def test_a_plan_shows_what_the_class_computed_with_its_reason():
    told, change = fields()
    assert told == {"cores": (4, "hardware", "seen"), "threads": (3, "class", "all but one of 4 cores")}
    assert change.class_defaults == 1


def test_what_somebody_set_keeps_its_own_origin():
    told, _ = fields(threads=7)
    assert told["threads"][:2] == (7, "stack")
    assert told["threads"][2] == ""


def test_a_class_that_does_not_say_why_has_computed_it():
    class Silent(Config):
        @property
        def stackconf_reasons(self):
            raise RuntimeError("a defect")

    class Other:
        provides = (ProviderType("inference", "remote::acme", Silent),)
        default_config = Plugin.default_config

    told, _ = fields(Other())
    assert told["threads"] == (3, "class", "computed by the class")


def test_the_reason_of_a_mapping_counts_for_what_stands_in_it():
    class Prompting(Config):
        prompts: dict[str, str] | None = None

        @model_validator(mode="after")
        def _prompted(self):
            self.prompts = self.prompts or {"query": "Ask: "}
            return self

        @property
        def stackconf_reasons(self):
            return {"prompts": "as the model's card says"}

    class Other:
        provides = (ProviderType("inference", "remote::acme", Prompting),)

    told, _ = fields(Other())
    assert told["prompts.query"] == ("Ask: ", "class", "as the model's card says")
