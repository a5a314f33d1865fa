"""What the tests of the command share: the program, a plugin and a stack."""

from __future__ import annotations

PROGRAM = "import sys; sys.argv[0] = 'stackconf'; from stackconf.cli.main import run; run()"

PLUGIN = """
import time
from pydantic import BaseModel, SecretStr
from stackconf import Applied, ProviderType, because, hookimpl, user_field


class Config(BaseModel):
    url: str = user_field("http://class", update="reload", description="Where the server is")
    threads: int = user_field(1, update="in_place", ge=1, le=64)
    token: SecretStr | None = user_field(None)
    mode: str = "plain"


class Other(BaseModel):
    size: int = user_field(1)


provides = (
    ProviderType("inference", "remote::acme", Config, description="A server of the Acme kind"),
    ProviderType("vector_io", "inline::acme", Other, api_dependencies=("inference",)),
)


@hookimpl
def default_config(provider, hardware):
    return {"threads": because(4, "four of four cores")} if provider.api == "inference" else None


@hookimpl
def apply_config(provider, config, previous):
    if config is None:
        return Applied("gone", undo=lambda: None)
    url = getattr(config, "url", "")
    if "down" in url:
        return Applied(pending="cannot reach it")
    if "slow" in url:
        open("applying", "w", encoding="utf-8").close()
        time.sleep(60)
    if "fail" in url or getattr(config, "size", 0) == 13:
        raise ValueError("refused by http://me:hunter2@server/")
    return Applied("listening", undo=(lambda: 1 / 0) if "stuck" in url else lambda: None)
"""

STACK = """\
version: 2
apis: [inference, safety, vector_io]
providers:
  inference:
  - provider_id: one
    provider_type: remote::acme
    config:
      url: http://one
      token: ${env.ACME_TOKEN:=s3cret}
  - provider_id: __disabled__
    provider_type: remote::acme
  vector_io:
  - provider_id: vectors
    provider_type: inline::acme
    config: {}
"""
