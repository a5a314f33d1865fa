"""What the server would refuse or stumble over, and its classes let pass."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError

from stackconf import Issue
from stackconf.fields import plan_of
from stackconf.stackfile.env import EnvText
from stackconf.suggest import did_you_mean
from stackconf_ogx.internals.base import quietly
from stackconf_ogx.packages import missing_packages

if TYPE_CHECKING:
    from stackconf import Provider, ProviderEntry, StackFile
    from stackconf.types import Level
    from stackconf_ogx.internals.base import Internals, KeyPath, Spec
    from stackconf_ogx.policy import Policy

PLACEHOLDERS = frozenset({"fake"})
"""What upstream's own files write where a key has to stand and none is meant."""
_HEADERS = frozenset({"headers", "client_key"})
_TEXT_WANTED = frozenset({"string_type", "bytes_type", "string_sub_type"})


# The stack file's providers


def of_type(stack: StackFile, entry: ProviderEntry, spec: Spec) -> Iterator[Issue]:
    """What upstream says about the type itself."""
    if spec.refused:
        yield _at_type(stack, entry, f"upstream refuses this type: {_line(spec.refused)}", "refused-type")
    elif spec.deprecated:
        message = f"the type is deprecated: {_line(spec.deprecated)}"
        yield _at_type(stack, entry, message, "deprecated-type", level="warning")


def missing_dependencies(
    stack: StackFile, entry: ProviderEntry, spec: Spec, internals: Internals, listed: Collection[str]
) -> Iterator[Issue]:
    """The apis without which the server cannot make the provider. `listed` is what the file has under
    `apis`: a router is made for each api of it, with providers or not, and for every one where it is empty.
    """
    there = {each.api for each in stack.providers} | internals.own_apis
    routers = set(internals.routed.values())
    needs = {internals.routed.get(api, api) for api in spec.needs}
    unlisted = sorted(api for api in needs & routers if listed and api not in listed)
    missing = sorted(needs - routers - there)
    if unlisted:
        message = f"`{spec.provider_type}` needs {_names(unlisted)}, which `apis` does not list"
        yield _at_type(stack, entry, message, "missing-dependency", "add it there")
    if missing:
        message = f"`{spec.provider_type}` needs a provider of {_names(missing)}, and the stack has none"
        yield _at_type(stack, entry, message, "missing-dependency", f"add one under `providers.{missing[0]}`")


def unserved_apis(stack: StackFile, internals: Internals, listed: Sequence[object]) -> Iterator[Issue]:
    """What the file lists under `apis` and no provider of it serves."""
    routed = internals.routed
    there = {each.api for each in stack.providers} | internals.own_apis | {*routed, *routed.values()}
    known = internals.apis()
    for number, api in enumerate(listed if internals.serves_all_listed else ()):
        if isinstance(api, str) and api in known - there:
            yield Issue(
                f"`{api}` is to be served, and the stack has no provider of it",
                path=f"apis[{number}]",
                hint=f"add one under `providers.{api}`, or take it out of `apis`",
                code="unserved-api",
                where=stack.document.nearest(("apis", number)),
            )


def resources_of_nobody(
    stack: StackFile, internals: Internals, data: Mapping[str, Any], listed: Collection[object]
) -> Iterator[Issue]:
    """Models and the like of a provider that is not there. `data` is the file, its references replaced."""
    for name, api in internals.resources.items():
        entries = data.get(name)
        if not isinstance(entries, list) or (listed and api not in listed):
            continue
        there = [each.provider.provider_id for each in stack.providers if each.api == api]
        for number, entry in enumerate(entries):
            provider_id = entry.get("provider_id") if isinstance(entry, dict) else None
            if isinstance(provider_id, str) and provider_id not in there:
                yield Issue(
                    f"`{api}` has no provider `{provider_id}`",
                    path=f"{name}[{number}].provider_id",
                    hint=did_you_mean(provider_id, there) or f"it has {_names(there) or 'none'}",
                    code="unknown-provider",
                    where=stack.document.nearest((name, number, "provider_id")),
                )


def _names(names: Collection[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def packages(stack: StackFile, entry: ProviderEntry, spec: Spec, internals: Internals) -> Iterator[Issue]:
    """What has to be installed for the provider and is not."""
    missing = missing_packages(spec, internals.package)
    hint = f"run `pip install {' '.join(map(_quoted, missing.requirements))}`"
    if missing.at_start:
        message = f"the server cannot start it: {_names(missing.at_start)} cannot be imported"
        yield _at_type(stack, entry, message, "missing-package", hint)
    elif missing.when_used:
        message = f"it imports {_names(missing.when_used)} when it is used, and that is not installed"
        yield _at_type(stack, entry, message, "missing-package", hint, level="warning")


def guessed_types(
    stack: StackFile, entry: ProviderEntry, config_class: type[BaseModel], internals: Internals
) -> Iterator[Issue]:
    """Texts from the environment that the server itself takes for something else, and then refuses.

    stackconf keeps them text, so this is about starting the server with this file.
    """
    if not entry.from_environment:
        return
    guesses: dict[KeyPath, object] = {}
    guessed = _guessed(entry.config, internals, (), guesses)
    if not guesses:
        return
    try:
        with quietly():
            config_class.model_validate(guessed)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=False):
            path = _known_part(detail["loc"], guessed)
            if detail["type"] in _TEXT_WANTED and path in guesses:
                yield _guess(stack, entry, path, guesses[path], internals)
    except Exception:  # noqa: BLE001 (somebody's validator; the provider's own check meets it again)
        return


def _guess(
    stack: StackFile, entry: ProviderEntry, path: KeyPath, guess: object, internals: Internals
) -> Issue:
    text = _value_at(entry.config, path)
    names = _names(getattr(text, "names", ()))
    kind = "a null" if guess is None else "a boolean" if isinstance(guess, bool) else "a number"
    return Issue(
        f"{internals.label} itself takes what comes from {names} for {kind}, and refuses it here",
        level="warning",
        path=f"config.{_dotted(path)}",
        hint="stackconf keeps it text; for the server alone, give it another form",
        code="guessed-type",
        provider=entry.key,
        where=stack.position_of(entry, path),
    )


def _guessed(
    value: Any,
    internals: Internals,
    path: KeyPath,
    guesses: dict[KeyPath, object],
) -> Any:
    if isinstance(value, EnvText):
        guess = internals.by_looks(str(value))
        if not isinstance(guess, str):
            guesses[path] = guess
        return guess
    if isinstance(value, Mapping):
        return {key: _guessed(inner, internals, (*path, key), guesses) for key, inner in value.items()}
    if isinstance(value, list):
        return [_guessed(inner, internals, (*path, at), guesses) for at, inner in enumerate(value)]
    return value


def _known_part(location: KeyPath, data: Any) -> KeyPath:
    """The path of an error without the names of union members, which the data does not have."""
    path: KeyPath = ()
    for step in location:
        inner = _value_at(data, (step,), _NOTHING)
        if inner is not _NOTHING:
            path, data = (*path, step), inner
    return path


_NOTHING: Any = object()


def _value_at(data: Any, path: KeyPath, default: Any = None) -> Any:
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return default
    return data


# The effective configuration of a provider


def unusable_defaults(config: BaseModel) -> Iterator[Issue]:
    """Fields whose default is not of the class that the field wants: upstream fails when it uses it."""
    plan = plan_of(type(config))
    for name, field in plan.fields.items():
        value = getattr(config, name, None)
        if field.kind == "model" and isinstance(value, str) and name not in config.model_fields_set:
            message = f"required, for the type's own default ({value!r}) does not work"
            yield Issue(message, path=name, hint=f"add `{name}`", code="missing-field")


def bad_addresses(config: BaseModel, policy: Policy) -> Iterator[Issue]:
    """Texts that should be addresses of servers, and are none."""
    for name in policy.urls:
        value = getattr(config, name, None)
        if isinstance(value, str) and value and not _is_address(value):
            yield Issue(
                "not an http:// or https:// address",
                path=name,
                hint="write it like http://localhost:8000",
                code="wrong-value",
            )


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port is not False
    except ValueError:
        return False


def redirected_credentials(
    provider: Provider, user_config: Mapping[str, object], config: BaseModel, policy: Policy
) -> Iterator[Issue]:
    """Addresses that a user set for a provider whose credential would be sent there."""
    plan = plan_of(type(config))
    names = {plan.keys.get(key, key): key for key in user_config}
    chosen = [path for path in policy.guarded if path in names]
    if not chosen:
        return
    held = [name for name in _credentials(config, "") if name.split(".", 1)[0] not in names]
    if not held:
        return
    kept = _names(held)
    for path in sorted(chosen):
        allowing = f"stackconf: {{policy: {{{provider.type_key}: {{allow: [{path}]}}}}}}"
        yield Issue(
            f"a user may not set it while the provider has {kept}, which would be sent there",
            path=path,
            hint=f"the operator may allow it: `{allowing}`",
            code="credential-target",
        )


def _credentials(config: BaseModel, above: str) -> Iterator[str]:
    """The fields of a config, and of those below it, that hold a credential."""
    plan = plan_of(type(config))
    for name, field in plan.fields.items():
        value = getattr(config, name, None)
        if isinstance(value, (SecretStr, SecretBytes)):
            value = value.get_secret_value()
        if isinstance(value, BaseModel):
            yield from _credentials(value, f"{above}{name}.")
        elif (field.secret or name in _HEADERS) and value and value not in PLACEHOLDERS:
            yield f"{above}{name}"


def bad_stores(
    config: BaseModel, internals: Internals, families: Mapping[str, str], *, told: bool
) -> Iterator[Issue]:
    """References to storage backends that are not there, or of the other family. With `told`, those
    that are not there are told by whoever reads the file.
    """
    if not families:
        return
    for path, value in _models(config, ""):
        reference = internals.store_reference(value)
        if reference is None:
            continue
        backend, family = reference
        if backend in families and families[backend] != family:
            right = sorted(name for name, each in families.items() if each == family)
            message = f"the backend `{backend}` is {families[backend]}, and {family} is wanted"
            hint = f"take {', '.join(right)}" if right else "define one under `storage.backends`"
            yield Issue(message, path=f"{path}.backend", hint=hint, code="unknown-backend")
        elif backend not in families and not told:
            hint = did_you_mean(backend, families) or f"it has {', '.join(families)}"
            message = f"`storage.backends` has no `{backend}`"
            yield Issue(message, path=f"{path}.backend", hint=hint, code="unknown-backend")


def _models(config: BaseModel, above: str) -> Iterator[tuple[str, BaseModel]]:
    for name in type(config).model_fields:
        value = getattr(config, name, None)
        if isinstance(value, BaseModel):
            yield f"{above}{name}", value
            yield from _models(value, f"{above}{name}.")


# Words


def _at_type(
    stack: StackFile, entry: ProviderEntry, message: str, code: str, hint: str = "", level: Level = "error"
) -> Issue:
    where = stack.document.nearest((*entry.path, "provider_type"))
    return Issue(message, level=level, hint=hint, code=code, provider=entry.key, where=where)


def _line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _quoted(requirement: str) -> str:
    return f"'{requirement}'" if set("<>[];~! ") & set(requirement) else requirement


def _dotted(path: KeyPath) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text
