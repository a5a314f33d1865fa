"""What runs in the environments of upstream's clients: each prints what it got as JSON."""

from __future__ import annotations

LLAMA_STACK_CLIENT = """
import asyncio, json, sys
import llama_stack_client as up
known = {"base_url": sys.argv[1]}
client = up.LlamaStackClient(_strict_response_validation=True, max_retries=0, **known)

def refused(ask):
    try:
        ask()
    except up.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.body]

async def beside():
    async with up.AsyncLlamaStackClient(_strict_response_validation=True, **known) as other:
        return [(await other.providers.list())[0].provider_id, (await other.inspect.health()).status]

retrieve = client.providers.retrieve
print(json.dumps({
    "providers": [each.to_dict() for each in client.providers.list()],
    "ollama": retrieve("ollama").to_dict(),
    "shared": retrieve("meta-reference").to_dict(),
    "by name": retrieve("telemetry/meta-reference").to_dict(),
    "by query": retrieve("meta-reference", extra_query={"api": "telemetry"}).to_dict(),
    "unknown": refused(lambda: retrieve("olama")),
    "no route": refused(lambda: client.models.list()),
    "health": client.inspect.health().to_dict(),
    "version": client.inspect.version().to_dict(),
    "routes": [each.to_dict() for each in client.routes.list()],
    "async": asyncio.run(beside()),
}))
"""

OGX_CLIENT = """
import asyncio, json, sys
import ogx_client as up
known = {"base_url": sys.argv[1]}
client = up.OgxClient(**known)

def refused(ask):
    try:
        ask()
    except up.NotFoundError as error:
        return [type(error).__name__, error.status_code, json.loads(error.body)]

async def beside():
    async with up.AsyncOgxClient(**known) as other:
        return [(await other.providers.list())[0].provider_id, (await other.admin.health()).status.value]

def told(providers, one, health, version, routes):
    return {
        "providers": [each.to_dict() for each in providers()],
        "ollama": one("ollama").to_dict(),
        "shared": one("meta-reference").to_dict(),
        "by name": one("telemetry/meta-reference").to_dict(),
        "unknown": refused(lambda: one("olama")),
        "health": health().status.value,
        "version": version().version,
        "routes": [each.to_dict() for each in routes()],
    }

admin = client.admin
print(json.dumps({
    "v1": told(
        client.providers.list, client.providers.retrieve, client.inspect.health, client.inspect.version,
        client.routes.list,
    ),
    "admin": told(
        admin.list_providers, admin.inspect_provider, admin.health, admin.version, admin.list_routes
    ),
    "alpha": [each.route for each in client.routes.list(api_filter="v1alpha")],
    "async": asyncio.run(beside()),
}))
"""

OGX_CLIENT_REFUSED = """
import json, sys
import ogx_client as up
address, *options = sys.argv[1:]
client = up.OgxClient(base_url=address, api_key=options[0] if options else None)
try:
    print(json.dumps([each.provider_id for each in client.providers.list()]))
except up.AuthenticationError as error:
    print(json.dumps([type(error).__name__, error.status_code]))
"""
