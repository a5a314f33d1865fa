"""A config object as plain JSON data: for people (redacted), for users (their fields), to compare.

Every way out of a config object goes through `Renderer`, so no output can forget a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from pydantic import BaseModel, RootModel, SecretBytes, SecretStr
from pydantic_core import to_jsonable_python

from stackconf.fields import ClassPlan, FieldPlan, plan_of
from stackconf.redact import REDACTED, names_secret, passwords_in, redact_text


def _redact(_value: str) -> object:
    return REDACTED


@frozen
class Renderer:
    """How a config object becomes plain data.

    `secret` gives what stands for a secret that is set (an unset or empty one stays as it is),
    `url` what stands for text with a password in it. With `users_only`, fields that a user may
    not see are left out, and with them the models that have none.
    """

    secret: Callable[[str], object] = _redact
    url: Callable[[str], object] = redact_text
    users_only: bool = False

    def render(self, config: BaseModel, plan: ClassPlan | None = None) -> dict[str, Any]:
        """The config as a mapping by field name, JSON types only; `plan` where the class's own is not
        the one that counts.

        >>> from stackconf.fields import user_field
        >>> class Config(BaseModel):
        ...     url: str = user_field("http://me:pw@localhost")
        ...     api_key: SecretStr = SecretStr("abc")
        >>> Renderer().render(Config())
        {'url': 'http://me:********@localhost', 'api_key': '********'}
        >>> Renderer(users_only=True).render(Config())
        {'url': 'http://me:********@localhost'}
        """
        return self._model(config, plan or plan_of(type(config)), seen=not self.users_only)

    def _model(
        self, config: BaseModel, plan: ClassPlan, *, seen: bool, hidden: bool = False
    ) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for name, field in plan.fields.items():
            value = getattr(config, name, None)
            visible = seen if field.user is None or not self.users_only else field.user
            if visible:
                data[name] = self._value(value, field, hidden=hidden or field.secret)
            elif inner := self._labelled_inside(value, field):
                data[name] = inner
        if seen:
            for name, value in (config.model_extra or {}).items():
                data[name] = self._value(value, None, hidden=hidden or names_secret(name))
        return data

    def _labelled_inside(self, value: Any, field: FieldPlan) -> dict[str, Any]:
        """The visible part of a field that is not itself visible; lists have none."""
        if isinstance(value, BaseModel) and not isinstance(value, RootModel):
            return self._model(value, _plan_in(field, value), seen=False, hidden=field.secret)
        if isinstance(value, Mapping) and field.item is not None:
            inside = {str(key): self._labelled_inside(inner, field.item) for key, inner in value.items()}
            return {key: inner for key, inner in inside.items() if inner}
        return {}

    def _value(self, value: Any, field: FieldPlan | None, *, hidden: bool) -> Any:
        if isinstance(value, RootModel):
            value = value.root
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, BaseModel):
            return self._model(value, _plan_in(field, value), seen=True, hidden=hidden)
        if isinstance(value, Mapping):
            return self._mapping(value, field, hidden=hidden)
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._list(value, field, hidden=hidden)
        return self._scalar(value, hidden=hidden)

    def _mapping(self, value: Mapping[Any, Any], field: FieldPlan | None, *, hidden: bool) -> dict[str, Any]:
        item = field.item if field else None
        by_name = item is None or not item.models
        return {
            str(key): self._value(inner, item, hidden=hidden or (by_name and names_secret(str(key))))
            for key, inner in value.items()
        }

    def _list(self, value: Any, field: FieldPlan | None, *, hidden: bool) -> list[Any]:
        item = field.item if field else None
        rendered = []
        option = ""
        ordered = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        for inner in ordered:
            rendered.append(self._value(inner, item, hidden=hidden or names_secret(option)))
            option = inner.lstrip("-") if isinstance(inner, str) and inner.startswith("-") else ""
        return rendered

    def _scalar(self, value: Any, *, hidden: bool) -> Any:
        if isinstance(value, (SecretStr, SecretBytes)):
            revealed = value.get_secret_value()
            text = revealed if isinstance(revealed, str) else revealed.decode("utf-8", "replace")
            return self.secret(text) if text else text
        plain = to_jsonable_python(value, fallback=str, inf_nan_mode="strings")
        if isinstance(plain, (dict, list)):  # a dataclass, say: nothing but names tells its secrets
            return self._value(plain, None, hidden=hidden)
        if hidden and plain not in {"", None} and not isinstance(plain, bool):
            return self.secret(str(plain))
        return self.url(plain) if isinstance(plain, str) else plain


def _plan_in(field: FieldPlan | None, value: BaseModel) -> ClassPlan:
    """The plan of a nested object: the field's own of that class, which may be labelled apart."""
    models = field.models if field is not None else ()
    exact = next((each for each in models if each.config_class is type(value)), None)
    return exact or plan_of(type(value))


def secrets_in(config: BaseModel | None) -> frozenset[str]:
    """Every secret text of a config object, to be scrubbed from what a plugin says about it.

    >>> class Config(BaseModel):
    ...     url: str = "http://me:pw@localhost"
    ...     api_key: SecretStr = SecretStr("abc")
    >>> sorted(secrets_in(Config()))
    ['abc', 'pw']
    """
    found: set[str] = set()

    def url(text: str) -> object:
        found.update(passwords_in(text))
        return text

    def secret(text: str) -> object:
        found.add(text)
        return url(text)

    if config is not None:
        Renderer(secret=secret, url=url).render(config)
    return frozenset(found)


SHOWN = Renderer()
"""Everything, for people."""

USERS = Renderer(users_only=True)
"""The fields that users may see."""
