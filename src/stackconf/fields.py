"""What a config class says about its fields, compiled once per class.

`user_field` is how an author labels a field. `plan_of` reads a pydantic class into a `ClassPlan`:
which keys exist (names and aliases), which paths a user may see and set, what a change of each
costs, and which hold secrets. Layers are merged, projected and redacted by that plan, so nothing
walks a class twice.

How labels reach down: the nearest label on the path decides. A model field labelled
`user_field` opens everything below it, except what is labelled `False`; an unlabelled model may
have labelled fields inside. A list is replaced as a whole, so labels inside its items count only
where the list itself is labelled; and because replacing it would lose what a user may not set in
its items, a list that holds such fields can be set only where there is none yet.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from attrs import define, field, frozen
from pydantic import AliasChoices, AliasPath, BaseModel, Field, RootModel
from pydantic.types import SecretBytes, SecretStr
from pydantic_core import PydanticUndefined

from stackconf.errors import UnknownName
from stackconf.redact import names_secret
from stackconf.suggest import did_you_mean

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from stackconf.types import UpdateClass

Kind: TypeAlias = Literal["leaf", "model", "list", "mapping"]

Claims: TypeAlias = Literal["accelerator_memory_fraction", "accelerator_memory_bytes"]
"""What a field takes of each accelerator that its provider uses: a fraction of the *whole* card's
memory, or bytes of it."""

_CLAIMS = get_args(Claims)
_LISTS = frozenset({list, set, frozenset, tuple, Sequence})
_MAPPINGS = frozenset({dict, Mapping})
_UPDATES = ("in_place", "reload", "restart")


def user_field(
    default: Any = PydanticUndefined,
    *,
    update: UpdateClass = "restart",
    secret: bool = False,
    claims: Claims | None = None,
    **options: Any,
) -> Any:
    """A pydantic field that users may see and set; other options go to `pydantic.Field`.

    `update` says what a change costs the running provider; `secret` redacts the value in every
    output. `claims` says that the value is what the provider takes of each accelerator it uses, so
    that the sum over all providers can be checked. The label is the plain
    `json_schema_extra={"user_field": True}`, so a class that does not import stackconf can write it
    by hand.

    >>> class Config(BaseModel):
    ...     url: str = user_field("http://localhost:11434", update="reload")
    >>> Config.model_fields["url"].json_schema_extra
    {'user_field': True, 'update': 'reload'}
    """
    labels: dict[str, Any] = {"user_field": True, "update": update}
    if secret:
        labels["secret"] = True
    if claims:
        labels["claims"] = claims
    extra = options.pop("json_schema_extra", None) or {}
    return Field(default, json_schema_extra={**extra, **labels}, **options)


@define(eq=False)
class FieldPlan:
    """One field, list item or mapping value of a config class."""

    kind: Kind
    user: bool | None = None
    """The label: `True`, `False`, or `None` where the nearest label above decides."""
    update: UpdateClass | None = None
    secret: bool = False
    nullable: bool = False
    free: bool = False
    """No type says what the value must be (`Any`)."""
    text: bool = False
    """A string is an acceptable value."""
    boolean: bool = False
    """A boolean is an acceptable value."""
    models: tuple[ClassPlan, ...] = ()
    """The nested class; several for a union."""
    tags: frozenset[str] = frozenset()
    """The `Literal` fields by which the members of a union are told apart."""
    item: FieldPlan | None = None
    """The plan of a list's items or a mapping's values."""
    default: Mapping[str, Any] | None = None
    """The class's default where it is a mapping or a model: the lowest layer of a merge by key."""
    default_member: ClassPlan | None = None
    """The class of the default, where that is a model."""
    filled: bool = False
    """The class itself gives something here."""
    locks: bool = False
    """Some field below is labelled as not the user's, whatever the labels above say."""
    layered: bool = False
    """Here or below, some default is a mapping that layers merge into."""
    claims: Claims | None = None
    """What its value takes of an accelerator."""
    required: bool = False
    description: str = ""

    def model_for(self, value: object) -> ClassPlan | None:
        """The nested class that a mapping is meant for: by its tag, else the one that knows most of
        its keys. `None` where it is open.
        """
        if len(self.models) == 1:
            return self.models[0]
        if not self.models or type(value) is not dict:
            return None
        tagged = self.tagged(value)
        if tagged is not None or (self.tags & value.keys()):
            return tagged
        known = [len(plan.keys.keys() & value.keys()) for plan in self.models]
        best = max(known)
        return self.models[known.index(best)] if best and known.count(best) == 1 else None

    def tagged(self, value: Mapping[str, Any]) -> ClassPlan | None:
        """The member of a union whose `Literal` fields say that it is meant."""
        found = [plan for plan in self.models if plan.is_tagged(value)]
        return found[0] if len(found) == 1 else None


@define(eq=False)
class ClassPlan:
    """One config class, compiled."""

    config_class: type[BaseModel]
    fields: dict[str, FieldPlan] = field(factory=dict, repr=False)
    keys: dict[str, str] = field(factory=dict, repr=False)
    """Every key that a layer may use, names and aliases, to the field's name."""
    names: frozenset[str] = frozenset()
    """The names of the fields."""
    open_keys: frozenset[str] = frozenset()
    """Keys below which an alias path reaches."""
    lifted: dict[str, tuple[tuple[str | int, ...], ...]] = field(factory=dict, repr=False)
    """Fields that a path below another key may give (`AliasPath`)."""
    extra: Literal["allow", "ignore", "forbid"] = "ignore"
    aliased: bool = False
    """Some key, here or below, differs from its field's name."""
    nested: tuple[tuple[str, ClassPlan | None], ...] = ()
    """The fields below which there are classes; with the class, where it is surely that one."""
    layered: tuple[str, ...] = ()
    """The fields below which some default is a mapping that layers merge into."""
    settable: frozenset[str] = frozenset()
    """The fields whose plain value a user may set, whatever is there: labelled, no secret, no locks."""
    settable_below: frozenset[str] = frozenset()
    """The same where the label above says that it is the user's."""
    has_user: bool = False
    secretive: tuple[str, ...] = ()
    """The fields that hold a secret, themselves or somewhere below."""
    claims: tuple[tuple[tuple[str, ...], Claims], ...] = ()
    """The paths, here and below, whose values are taken of accelerators. Not those inside lists,
    mappings and unions."""
    tag_values: dict[str, frozenset[object]] = field(factory=dict, repr=False)
    """For each `Literal` field, what it may be: how a union tells its members apart."""

    def is_tagged(self, value: Mapping[str, Any]) -> bool:
        """Whether a mapping names this class by its `Literal` fields: at least one, and all that
        are given.
        """
        given = [
            any(value[key] == tag for tag in self.tag_values[name])
            for key, name in self.keys.items()
            if name in self.tag_values and key in value
        ]
        return bool(given) and all(given)

    def name_of(self, key: str) -> str | None:
        """The field that a layer's key means, or `None`."""
        return self.keys.get(key)

    def aliases_of(self, name: str) -> list[str]:
        """Every key that means the field, the name itself first."""
        return [name, *(key for key, target in self.keys.items() if target == name and key != name)]


@frozen
class Labels:
    """What holds at one leaf path of a config class."""

    user: bool
    update: UpdateClass
    secret: bool


@cache
def plan_of(config_class: type[BaseModel]) -> ClassPlan:
    """The plan of a config class. Compiled on first use; the same object ever after.

    >>> class Config(BaseModel):
    ...     url: str = user_field("http://localhost", update="reload")
    ...     api_key: SecretStr | None = None
    >>> plan = plan_of(Config)
    >>> plan.fields["url"].user, plan.fields["url"].update, plan.fields["api_key"].secret
    (True, 'reload', True)
    """
    compiled: dict[type[BaseModel], ClassPlan] = {}
    plan = _compile_class(config_class, compiled)
    _finish(compiled.values())
    return plan


def plan_with(
    config_class: type[BaseModel],
    user_fields: Mapping[str, UpdateClass | None] | None,
    update: UpdateClass = "restart",
) -> ClassPlan:
    """The plan of a class that somebody else wrote: its user fields are told apart from it.

    `user_fields` maps dotted paths (`*` for a mapping's keys or a list's items) to what a change of
    them costs, or to `None` for what is not the user's below a path that is; no mapping at all leaves
    the class's own labels, and then the plan is `plan_of`'s. `update` is what a change of any other
    field costs. The class is not touched, and classes below that stand
    in several places are labelled only where a path leads. Raises `UnknownName` for a path that the
    class does not have.

    >>> class Config(BaseModel):
    ...     url: str = "http://localhost"
    ...     port: int = 1
    >>> user_paths(plan_with(Config, {"url": "reload"})), user_paths(plan_of(Config))
    (['url'], [])
    """
    if user_fields is None and update == "restart":
        return plan_of(config_class)
    compiled: dict[type[BaseModel], ClassPlan] = {}
    plan = _compile_class(config_class, compiled)
    plans = [*compiled.values()]
    if user_fields is not None:
        for each in plans:
            for field in each.fields.values():
                field.user = None
        plan = _own(plan, plans)
        for path, cost in user_fields.items():
            _label(plan, path.split("."), cost, plans, f"{config_class.__name__} has no field `{path}`")
    for field in plan.fields.values():
        field.update = field.update or update
    _finish(plans)
    return plan


def _finish(plans: Iterable[ClassPlan]) -> None:
    """What follows for each class from all of them."""
    plans = list(plans)
    for _ in plans:  # flags flow up one level a round; recursive classes need as many
        for each in plans:
            _raise_flags(each)
    for each in plans:
        each.claims = tuple(_claims_in(each, (), ()))


def _label(
    plan: ClassPlan, path: Sequence[str], cost: UpdateClass | None, plans: list[ClassPlan], problem: str
) -> None:
    """Label one field, in a plan that is nobody else's; what the path leads through becomes its own."""
    name = plan.keys.get(path[0])
    if name is None:
        hint = did_you_mean(path[0], plan.keys)
        raise UnknownName(f"{problem}; {hint}" if hint else problem)
    spot = plan.fields[name] = copy(plan.fields[name])
    below = path[1:]
    while below and spot.item is not None:
        spot.item = copy(spot.item)
        spot, below = spot.item, below[1:] if below[0] == "*" else below
    if not below:
        spot.user, spot.update = cost is not None, cost or spot.update
        return
    owned = {id(each): _own(each, plans) for each in spot.models}
    spot.models = tuple(owned.values())
    if spot.default_member is not None:
        spot.default_member = owned.get(id(spot.default_member), spot.default_member)
    members = [each for each in spot.models if below[0] in each.keys]
    if not members:
        known = [key for each in spot.models for key in each.keys]
        hint = did_you_mean(below[0], known)
        raise UnknownName(f"{problem}; {hint}" if hint else problem)
    for each in members:
        _label(each, below, cost, plans, problem)
    plan.nested = _nested(plan)


def _own(plan: ClassPlan, plans: list[ClassPlan]) -> ClassPlan:
    """A copy of a class's plan, its fields still shared."""
    own = copy(plan)
    own.fields = dict(plan.fields)
    plans.append(own)
    return own


def labels_at(plan: ClassPlan, path: Sequence[str | int], data: object = None) -> Labels:
    """The labels in force at a path; `data` (the value at the root) picks members of unions."""
    user, update, secret = False, "restart", False
    here: ClassPlan | FieldPlan | None = plan
    value = data
    for step in path:
        by_name = not isinstance(here, ClassPlan) and not (here and (here.models or _has_models(here.item)))
        here = _step(here, step, value)
        value = _value_at(value, step)
        if (here is None or by_name) and isinstance(step, str):
            secret = secret or names_secret(step)
        if here is None:
            continue
        assert isinstance(here, FieldPlan)  # noqa: S101 (what _step returns below a class)
        user = user if here.user is None else here.user
        update = here.update or update
        secret = secret or here.secret
    return Labels(user, typing.cast("UpdateClass", update), secret)


def user_paths(plan: ClassPlan) -> list[str]:
    """The dotted paths of a class that users may set; `*` stands for a mapping's keys.

    >>> class Config(BaseModel):
    ...     url: str = user_field("x")
    ...     port: int = 1
    >>> user_paths(plan_of(Config))
    ['url']
    """
    return [".".join(path) for path in _user_paths(plan, (), frozenset(), inherited=False)]


def _user_paths(
    plan: ClassPlan, above: tuple[str, ...], seen: frozenset[int], *, inherited: bool
) -> Iterator[tuple[str, ...]]:
    if id(plan) in seen:
        return
    seen |= {id(plan)}
    for name, each in plan.fields.items():
        path = (*above, name)
        user = inherited if each.user is None else each.user
        inner = each
        while inner.kind == "mapping" and inner.item is not None:
            path, inner = (*path, "*"), inner.item
            user = user if inner.user is None else inner.user
        if user:
            yield (*above, name)
        elif inner.kind == "model":
            for model in inner.models:
                yield from _user_paths(model, path, seen, inherited=user)


def _has_models(item: FieldPlan | None) -> bool:
    return item is not None and bool(item.models)


def _step(here: ClassPlan | FieldPlan | None, step: str | int, value: object) -> FieldPlan | None:
    if isinstance(here, ClassPlan):
        return here.fields.get(here.keys.get(str(step), ""))
    if here is None:
        return None
    if here.kind == "model":
        return _step_into_models(here, str(step), value)
    return here.item


def _step_into_models(here: FieldPlan, key: str, value: object) -> FieldPlan | None:
    chosen = here.model_for(value)
    for plan in (chosen,) if chosen else here.models:
        name = plan.keys.get(key)
        if name is not None:
            return plan.fields[name]
    return None


def _value_at(value: object, step: str | int) -> object:
    if isinstance(value, Mapping):
        return value.get(step)
    if isinstance(value, (list, tuple)) and isinstance(step, int) and step < len(value):
        return value[step]
    return None


def _claims_in(
    plan: ClassPlan, above: tuple[str, ...], seen: tuple[ClassPlan, ...]
) -> Iterator[tuple[tuple[str, ...], Claims]]:
    for name, each in plan.fields.items():
        if each.claims is not None:
            yield (*above, name), each.claims
        inner = _only_class(each) if each.kind == "model" else None
        if inner is not None and inner is not plan and inner not in seen:
            yield from _claims_in(inner, (*above, name), (*seen, plan))


def _raise_flags(plan: ClassPlan) -> None:
    plan.secretive = tuple(name for name, each in plan.fields.items() if _is_secretive(each))
    for each in plan.fields.values():
        plan.has_user = plan.has_user or each.user is True
        inner: FieldPlan | None = each
        while inner is not None:
            for model in inner.models:
                plan.aliased = plan.aliased or model.aliased
                plan.has_user = plan.has_user or model.has_user
            inner = inner.item
        each.locks = _has_locks(each)
        each.layered = _is_layered(each)
    plan.layered = tuple(name for name, each in plan.fields.items() if each.layered)
    plain = {name: each.user for name, each in plan.fields.items() if not (each.secret or each.locks)}
    plan.settable = frozenset(name for name, user in plain.items() if user)
    plan.settable_below = frozenset(name for name, user in plain.items() if user is not False)


def _has_locks(field: FieldPlan) -> bool:
    if field.item is not None:
        field.item.locks = _has_locks(field.item)
        return field.item.locks
    inner = [each for model in field.models for each in model.fields.values()]
    return any(each.user is False or each.locks for each in inner)


def _is_layered(field: FieldPlan) -> bool:
    if field.item is not None:
        field.item.layered = _is_layered(field.item)
    below = field.item is not None and field.item.layered
    return field.default is not None or below or any(model.layered for model in field.models)


def _is_secretive(field: FieldPlan) -> bool:
    by_name = field.free or field.kind == "mapping"  # whose keys may name one
    below = field.item is not None and _is_secretive(field.item)
    return field.secret or by_name or below or any(model.secretive for model in field.models)


def _compile_class(config_class: type[BaseModel], compiled: dict[type[BaseModel], ClassPlan]) -> ClassPlan:
    if config_class in compiled:
        return compiled[config_class]
    plan = compiled[config_class] = ClassPlan(config_class)
    plan.extra = config_class.model_config.get("extra") or "ignore"
    open_keys: set[str] = set()
    for name, info in config_class.model_fields.items():
        plan.fields[name] = _compile_field(name, info, compiled)
        plan.keys[name] = name
        for alias in _aliases(info):
            if isinstance(alias, str):
                plan.keys.setdefault(alias, name)
                plan.aliased = plan.aliased or alias != name
            else:
                open_keys.add(str(alias.path[0]))
                plan.lifted[name] = (*plan.lifted.get(name, ()), tuple(alias.path))
                plan.aliased = True
        values = _literal_values(info.annotation)
        if values:
            plan.tag_values[name] = values
    plan.names = frozenset(plan.fields)
    plan.nested = _nested(plan)
    plan.open_keys = frozenset(open_keys - plan.keys.keys())
    return plan


def _compile_field(name: str, info: FieldInfo, compiled: dict[type[BaseModel], ClassPlan]) -> FieldPlan:
    plan = _compile_type(info.annotation, compiled)
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, Mapping) else {}
    label = extra.get("user_field")
    plan.user = label if isinstance(label, bool) else None
    update = extra.get("update")
    plan.update = typing.cast("UpdateClass", update) if update in _UPDATES else None
    claims = extra.get("claims")
    plan.claims = typing.cast("Claims", claims) if claims in _CLAIMS else None
    labelled = extra.get("secret")
    innermost = plan
    while innermost.item is not None:
        innermost = innermost.item
    by_name = innermost.text and names_secret(name)
    plan.secret = labelled if isinstance(labelled, bool) else plan.secret or by_name
    if plan.secret and plan.item is not None:
        plan.item.secret = True
    plan.required = info.is_required()
    plan.description = info.description or ""
    if plan.kind != "leaf" or plan.free:
        default = class_default(info)
        plan.filled = bool(default)
        plan.default = _mapping_default(default, plan)
        plan.default_member = _default_member(default, plan)
    return plan


def _default_member(default: Any, plan: FieldPlan) -> ClassPlan | None:
    if isinstance(default, Mapping):
        return plan.model_for(dict(default))
    exact = next((each for each in plan.models if each.config_class is type(default)), None)
    return exact or next((each for each in plan.models if isinstance(default, each.config_class)), None)


def class_default(info: FieldInfo) -> Any:
    """What a class itself gives a field, `None` where it gives nothing; a factory may fail."""
    if info.is_required() or info.default_factory_takes_validated_data:
        return None
    try:
        default = info.get_default(call_default_factory=True)
    except Exception:  # noqa: BLE001 (a plugin's factory; pydantic meets it again where it is needed)
        return None
    return default.root if isinstance(default, RootModel) else default


def _mapping_default(default: Any, plan: FieldPlan) -> Mapping[str, Any] | None:
    if isinstance(default, BaseModel):
        given = default.model_dump(mode="python")
        if len(plan.models) > 1:
            return given
        # pydantic itself fills in what the nested class gives, so there is nothing to merge into
        return None if given == type(default).model_construct().model_dump(warnings=False) else given
    return _dumped(default) if isinstance(default, Mapping) else None


def _dumped(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="python")
    return {key: _dumped(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value


def _nested(plan: ClassPlan) -> tuple[tuple[str, ClassPlan | None], ...]:
    return tuple((name, _only_class(each)) for name, each in plan.fields.items() if _has_classes(each))


def _has_classes(field: FieldPlan | None) -> bool:
    return field is not None and (bool(field.models) or _has_classes(field.item))


def _only_class(field: FieldPlan) -> ClassPlan | None:
    return field.models[0] if len(field.models) == 1 else None


def _aliases(info: FieldInfo) -> list[str | AliasPath]:
    found: list[str | AliasPath] = []
    for alias in (info.alias, info.validation_alias):
        if isinstance(alias, AliasChoices):
            found.extend(alias.choices)
        elif alias is not None:
            found.append(alias)
    return found


def _compile_type(annotation: Any, compiled: dict[type[BaseModel], ClassPlan]) -> FieldPlan:
    annotation = _unwrapped(annotation)
    origin = get_origin(annotation) or annotation
    if origin in {Union, types.UnionType}:
        return _compile_union(get_args(annotation), compiled)
    if origin in _LISTS:
        return FieldPlan("list", item=_compile_item(get_args(annotation)[:1], compiled))
    if origin in _MAPPINGS:
        return FieldPlan("mapping", item=_compile_item(get_args(annotation)[1:2], compiled))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return FieldPlan("model", models=(_compile_class(annotation, compiled),))
    return _compile_leaf(annotation)


def _unwrapped(annotation: Any) -> Any:
    """Without `Annotated`, type aliases and root models around the type."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        elif isinstance(annotation, type) and issubclass(annotation, RootModel):
            annotation = annotation.model_fields["root"].annotation
        else:
            return annotation


def _compile_item(arguments: Sequence[Any], compiled: dict[type[BaseModel], ClassPlan]) -> FieldPlan:
    if not arguments:
        return FieldPlan("leaf", free=True, text=True)
    return _compile_type(arguments[0], compiled)


def _compile_leaf(annotation: Any) -> FieldPlan:
    free = annotation is Any or annotation is object
    secret = isinstance(annotation, type) and issubclass(annotation, (SecretStr, SecretBytes))
    text = free or secret or (isinstance(annotation, type) and issubclass(annotation, str))
    nullable = annotation in {None, type(None)}
    return FieldPlan(
        "leaf", secret=secret, free=free, text=text, boolean=annotation is bool, nullable=nullable
    )


def _compile_union(members: Sequence[Any], compiled: dict[type[BaseModel], ClassPlan]) -> FieldPlan:
    plans = [_compile_type(member, compiled) for member in members]
    nullable = any(plan.nullable for plan in plans)
    real = [plan for plan in plans if not (plan.kind == "leaf" and plan.nullable and not plan.free)]
    if len(real) == 1:
        only = real[0]
        only.nullable = only.nullable or nullable
        return only
    models = tuple(model for plan in real for model in plan.models)
    structured = next((plan for plan in real if plan.kind != "leaf"), None)
    kind: Kind = "model" if models else structured.kind if structured else "leaf"
    return FieldPlan(
        kind,
        models=models,
        tags=frozenset(name for model in models for name in model.tag_values),
        item=structured.item if structured and not models else None,
        nullable=nullable,
        secret=any(plan.secret for plan in real),
        free=any(plan.free for plan in real),
        text=any(plan.text for plan in real),
        boolean=any(plan.boolean for plan in real),
    )


def _literal_values(annotation: Any) -> frozenset[object]:
    if get_origin(annotation) is Annotated:
        return _literal_values(get_args(annotation)[0])
    return frozenset(get_args(annotation)) if get_origin(annotation) is Literal else frozenset()
