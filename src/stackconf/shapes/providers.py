"""A provider: `provider` is its key, `api/provider_id`, beside its `provider_type`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackconf.shapes.reading import Given, Misshapen

if TYPE_CHECKING:
    from stackconf.types import Provider


def provider_data(provider: Provider) -> dict[str, Any]:
    """The two keys that name a provider, within the object that is about it."""
    return {"provider": provider.key, "provider_type": provider.provider_type}


def provider_from(data: object) -> Provider:
    """The provider that an object is about."""
    from stackconf.types import Provider

    given = Given(data)
    api, slash, provider_id = given.text("provider").partition("/")
    if not slash:
        raise Misshapen("expected `api/provider_id`", "provider")
    return Provider(api, provider_id, given.text("provider_type"))
