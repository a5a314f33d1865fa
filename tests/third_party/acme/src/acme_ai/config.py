"""What an operator and a user may say about Acme's service."""

from __future__ import annotations

from pydantic import BaseModel, Field, SecretStr

from stackconf import user_field


class Batching(BaseModel):
    """How requests are put together."""

    size: int = user_field(8, ge=1, le=512, update="in_place", description="Requests in one batch")
    window_ms: int = Field(5, description="How long a batch waits for more requests")


class AcmeConfig(BaseModel):
    """Acme's service, which reads its settings from a file."""

    settings_file: str = Field(description="The file that the service reads")
    url: str = user_field("http://localhost:7000", update="reload", description="Where it listens")
    workers: int = user_field(1, ge=1, description="Worker processes")
    api_key: SecretStr | None = Field(None, description="The key that clients must send")
    batching: Batching = Batching()
