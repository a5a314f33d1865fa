"""The settings of `scoring/inline::braintrust`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from stackconf import user_field


class BraintrustConfig(BaseModel):
    """How answers are scored. Upstream's class has `openai_api_key` only, in every version.

    >>> BraintrustConfig(openai_api_key="").openai_api_key is None
    True
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    openai_api_key: SecretStr | None = user_field(
        None,
        update="in_place",
        secret=True,
        description="OpenAI key for the scorers in which a language model is the judge.",
    )
    max_concurrency: int = user_field(
        5,
        update="in_place",
        ge=1,
        le=256,
        description="Rows scored at the same time; each waits for one answer of the judge.",
    )
    judge_model: str | None = user_field(
        None, update="in_place", description="Model that judges. Unset: autoevals' own default."
    )
    embedding_model: str | None = user_field(
        None,
        update="in_place",
        description="Model of the embeddings that are compared. Unset: autoevals' own default.",
    )
    openai_base_url: str | None = Field(
        None,
        description="Base URL of another service with OpenAI's API, which is then given the key. Unset: "
        "OPENAI_BASE_URL, else OpenAI itself.",
    )

    @field_validator("openai_api_key", mode="before")
    @classmethod
    def _usable_key(cls, value: Any) -> Any:
        """A key travels in an HTTP header; one that cannot is refused here, without repeating it."""
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not isinstance(text, str):
            return value
        key = text.strip()
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError("must be one word of printable ASCII characters")
        return SecretStr(key) if key else None

    @field_validator("judge_model", "embedding_model", "openai_base_url")
    @classmethod
    def _none_if_empty(cls, value: str | None) -> str | None:
        return value.strip() or None if value else None

    @field_validator("openai_base_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:  # a bracket is open, or the port is no port
            usable = False
        if not usable:
            raise ValueError("must be a URL such as https://api.openai.com/v1")
        if parts.username or parts.password:
            raise ValueError("must not hold a user or password; the key goes into openai_api_key")
        return value
