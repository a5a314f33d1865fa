"""What a config class says about its fields: labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field
from pydantic_core import PydanticUndefined

if TYPE_CHECKING:
    from stackconf.types import UpdateClass


def user_field(
    default: Any = PydanticUndefined,
    *,
    update: UpdateClass = "restart",
    secret: bool = False,
    **options: Any,
) -> Any:
    """A pydantic field that users may see and set; other options go to `pydantic.Field`.

    `update` says what a change costs the running provider; `secret` redacts the value in every
    output. The label is the plain `json_schema_extra={"user_field": True}`, so a class that does
    not import stackconf can write it by hand.

    >>> from pydantic import BaseModel
    >>> class Config(BaseModel):
    ...     url: str = user_field("http://localhost:11434", update="reload")
    >>> Config.model_fields["url"].json_schema_extra
    {'user_field': True, 'update': 'reload'}
    """
    labels: dict[str, Any] = {"user_field": True, "update": update}
    if secret:
        labels["secret"] = True
    extra = options.pop("json_schema_extra", None) or {}
    return Field(default, json_schema_extra={**extra, **labels}, **options)
