"""Layers become one effective configuration: pure, deterministic, one provider at a time.

Class defaults < hardware defaults < stack file < assigned configurations. Layers are merged by
the class's plan, validated once, and kept, so that `origins` can say later where a value is from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field, frozen
from pydantic import ValidationError

from stackconf.errors import HookError, PluginLoadError
from stackconf.redact import described, retold, scrubbed
from stackconf.registry.hooks import is_users_interrupt
from stackconf.registry.registry import Missing, Owned
from stackconf.resolve.blame import PLUGIN_DEFECT, Blame, unknown_field_issues
from stackconf.resolve.layers import (
    EMPTY,
    SCALARS,
    Data,
    canonical,
    dotted,
    merge,
    over_class_defaults,
    plain,
)
from stackconf.resolve.projection import Dropped, project
from stackconf.resolve.references import Unknown, knows_all, settle_layer, settled_references
from stackconf.resolve.render import secrets_in
from stackconf.stackfile.env import holds_env_text
from stackconf.types import Because, Issue

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stackconf.fields import ClassPlan
    from stackconf.hardware.facts import Hardware
    from stackconf.registry.registry import Registry
    from stackconf.resolve.references import Opener
    from stackconf.stackfile.model import ProviderEntry, StackFile
    from stackconf.types import Provider


ALONE: Mapping[Provider, BaseModel] = {}
"""What a provider follows that follows nobody."""


@frozen
class Overlay:
    """What one assigned configuration says about one provider, as it was registered.

    `problem` says why that cannot be told.
    """

    name: str
    revision: int
    values: Data = field(repr=False)
    problem: str = ""


# The two below are made anew for every provider: `define`, because `frozen` takes twice as long.


@define
class TakenOverlay:
    """An overlay after projection: what of it counts, and what was dropped."""

    overlay: Overlay
    values: Data = field(repr=False)
    dropped: tuple[Dropped, ...] = ()


@define(eq=False)
class Resolved:
    """One provider's effective configuration with the layers that made it.

    `config` is `None` where the provider cannot be resolved; `issues` say why.
    """

    provider: Provider
    entry: ProviderEntry | None = field(default=None, repr=False)
    owned: Owned | None = field(default=None, repr=False)
    config: BaseModel | None = field(default=None, repr=False)
    defaults: Mapping[str, object] = field(default=EMPTY, repr=False)
    """What `default_config` gave, reasons included."""
    hardware_values: Data = field(default=EMPTY, repr=False)
    stack_values: Data = field(default=EMPTY, repr=False)
    overlays: tuple[TakenOverlay, ...] = field(default=(), repr=False)
    issues: tuple[Issue, ...] = ()
    followed: Mapping[Provider, BaseModel] = field(default=ALONE, repr=False)
    """The configurations of other providers from which its defaults were derived."""
    snapshot: tuple[object, Data] | None = field(default=None, init=False, repr=False)
    """What `stackconf.plan.snapshot` made of it, and with which digest."""
    equal: tuple[Data, Data] | None = field(default=None, init=False, repr=False)
    """That snapshot, and the one of what is applied that was found to be equal to it."""

    @property
    def plan(self) -> ClassPlan | None:
        """The plan of the config class, where the type is known."""
        return self.owned.plan if self.owned else None

    @property
    def merged(self) -> Data:
        """All layers above the class's own defaults, as one."""
        merged = merge(self.hardware_values, self.stack_values, self.plan)
        for taken in self.overlays:
            merged = merge(merged, taken.values, self.plan)
        return merged

    @property
    def valid(self) -> bool:
        """Whether the provider may be applied."""
        return self.config is not None and not any(issue.level == "error" for issue in self.issues)


def resolve_provider(  # noqa: PLR0913 (each layer, and what it is read with)
    provider: Provider,
    registry: Registry,
    hardware: Hardware,
    *,
    entry: ProviderEntry | None = None,
    stack_values: Data = EMPTY,
    overlays: tuple[Overlay, ...] = (),
    stack: StackFile | None = None,
    opener: Opener | None = None,
    followed: Mapping[Provider, BaseModel] = ALONE,
) -> Resolved:
    """The effective configuration of one provider. Never raises for bad input or a bad plugin."""
    owned = registry.find(provider.api, provider.provider_type)
    if not isinstance(owned, Owned):
        return Resolved(provider, entry, issues=(_no_owner(provider, owned, entry, stack),))
    plan = owned.plan
    issues: list[Issue] = []
    unknown: Unknown = []
    defaults, hardware_values = _hardware_layer(provider, owned, hardware, plan, issues, followed)
    values = canonical(stack_values, plan) if plan.aliased else stack_values
    merged = merge(hardware_values, values, plan)
    from_environment = (
        entry.from_environment
        if entry is not None and stack_values is entry.config
        else holds_env_text(stack_values)
    )
    if from_environment or not knows_all(plan, merged):
        hardware_values = _settled_hardware_layer(hardware_values, provider, owned, plan, issues)
        values = settle_layer(values, plan, unknown)
        merged = merge(hardware_values, values, plan)
    taken: tuple[TakenOverlay, ...] = ()
    for overlay in overlays:
        kept, dropped = project(overlay.values, plan, merged)
        settled = settled_references(kept, plan, overlay.name, provider, issues, opener)
        taken = (*taken, TakenOverlay(overlay, settled, tuple(dropped)))
        merged = merge(merged, settled, plan)
    if plan.layered:
        merged = over_class_defaults(merged, plan)
    config, refusal = _validate(provider, owned, merged, plan)
    found: list[Issue] = []
    errors: list[HookError] = []
    if config is not None:
        user_config = _user_config(taken, plan)
        found, errors = owned.hooks.validate_user_config(provider, user_config, config, hardware)
    if unknown or refusal is not None or found or errors or issues:
        blame = Blame(provider, plan, owned, hardware_values, values, taken, entry, stack, unknown)
        issues = blame.scrubbed(issues, config)
        issues += unknown_field_issues(blame, unknown)
        issues += _refused(blame, refusal, merged)
        if config is not None:
            issues += blame.completed(found, config)
            issues += [_of_hook(each, blame.secrets(config)) for each in errors]
    if entry is not None and entry.issues and any(issue.level == "error" for issue in entry.issues):
        config = None
    layers = (defaults, hardware_values, values, taken)
    return Resolved(provider, entry, owned, config, *layers, tuple(issues), followed)


def agreement_issues(
    resolved: Resolved,
    others: Mapping[Provider, BaseModel],
    hardware: Hardware,
    stack: StackFile | None = None,
) -> tuple[Issue, ...]:
    """What the plugins that judge a provider by the others find wrong. Never raises for a bad plugin."""
    provider, owned, config, plan = resolved.provider, resolved.owned, resolved.config, resolved.plan
    if owned is None or config is None or plan is None:
        return ()
    user_config = _user_config(resolved.overlays, plan)
    found, errors = owned.hooks.validate_user_config(provider, user_config, config, hardware, others)
    if not found and not errors:
        return ()
    layers = (resolved.hardware_values, resolved.stack_values, resolved.overlays)
    blame = Blame(provider, plan, owned, *layers, resolved.entry, stack, [])
    foreign = set[str]().union(*map(secrets_in, others.values()))
    completed = [
        evolve(each, message=scrubbed(each.message, foreign), hint=scrubbed(each.hint, foreign))
        for each in blame.completed(found, config)
    ]
    secrets = blame.secrets(config) | foreign
    return (*completed, *(_of_hook(each, secrets) for each in errors))


def _user_config(taken: tuple[TakenOverlay, ...], plan: ClassPlan) -> Data:
    if len(taken) == 1:
        return taken[0].values
    merged = EMPTY
    for each in taken:
        merged = merge(merged, each.values, plan)
    return merged


def _hardware_layer(
    provider: Provider,
    owned: Owned,
    hardware: Hardware,
    plan: ClassPlan,
    issues: list[Issue],
    followed: Mapping[Provider, BaseModel],
) -> tuple[Mapping[str, object], Data]:
    """What `default_config` gives, and that as a layer."""
    defaults: Mapping[str, object] = EMPTY
    try:
        defaults = owned.hooks.default_config(provider, hardware, followed) or EMPTY
        bare = _without_reasons(defaults)
        return defaults, canonical(bare, plan) if plan.aliased else bare
    except HookError as error:
        issues.append(_of_hook(error))
    except RecursionError:
        issues.append(_endless(owned, provider))
    return defaults, EMPTY


def _settled_hardware_layer(
    values: Data, provider: Provider, owned: Owned, plan: ClassPlan, issues: list[Issue]
) -> Data:
    unknown: Unknown = []
    try:
        values = settle_layer(values, plan, unknown)
    except RecursionError:
        issues.append(_endless(owned, provider))
        return EMPTY
    for path, _ in unknown:
        problem = f"gave the unknown field `{dotted(path)}`"
        issues.append(_of_hook(owned.hooks.owner.failed("default_config", problem, provider.key)))
    return values


def _endless(owned: Owned, provider: Provider) -> Issue:
    return _of_hook(
        owned.hooks.owner.failed("default_config", "gave values nested without end", provider.key)
    )


def _without_reasons(values: Mapping[str, object]) -> Data:
    bare: dict[str, Any] = {}
    for key, given in values.items():
        value = given.value if type(given) is Because else given
        if type(value) in SCALARS:
            bare[key] = value
        elif type(value) is dict or isinstance(value, Mapping):
            bare[key] = _without_reasons(value)
        else:
            bare[key] = plain(value)
    return bare


def _validate(
    provider: Provider, owned: Owned, merged: Data, plan: ClassPlan
) -> tuple[BaseModel | None, ValidationError | HookError | None]:
    """The configuration as an object, or why there is none."""
    owned.hooks.calling = "config class"
    try:
        if plan.aliased:
            return owned.config_class.model_validate(merged, by_alias=True, by_name=True), None
        return owned.config_class.__pydantic_validator__.validate_python(merged), None
    except ValidationError as error:
        return None, error
    except BaseException as error:
        if is_users_interrupt(error):
            raise
        failure = owned.hooks.owner.failed("config class", described(error), provider.key)
        failure.__cause__ = error
        return None, failure


def _refused(blame: Blame, refusal: ValidationError | HookError | None, merged: Data) -> list[Issue]:
    if isinstance(refusal, ValidationError):
        return blame.of(refusal, merged)
    return [] if refusal is None else [_of_hook(refusal, blame.secrets())]


def _no_owner(
    provider: Provider,
    why: Missing | PluginLoadError,
    entry: ProviderEntry | None,
    stack: StackFile | None,
) -> Issue:
    key = "provider_type"
    if isinstance(why, Missing):
        key = "" if why.code == "unknown-api" else key
        message, hint, code = why.message, why.hint, why.code
    else:
        message, hint, code = str(why), PLUGIN_DEFECT, "plugin-load-error"
    where = None
    if stack is not None and entry is not None:
        path = entry.path[:2] if not key else (*entry.path, "provider_type")
        where = stack.document.position(path, key=not key)
    return Issue(message, hint=hint, code=code, provider=provider.key, where=where)


def _of_hook(error: HookError, secrets: Collection[str] = ()) -> Issue:
    text = retold(error, secrets).removeprefix(f"{error.provider}: ")
    return Issue(
        text,
        code="hook-error",
        provider=error.provider,
        hint=PLUGIN_DEFECT,
    )
