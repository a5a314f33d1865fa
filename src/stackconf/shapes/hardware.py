"""Machines, and what of their accelerators each provider may use.

A machine is written as in a snapshot (`Hardware.save`), and says its own version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from stackconf.errors import InvalidConfig
from stackconf.shapes.reading import Given, Misshapen, number, tuple_of, whole

if TYPE_CHECKING:
    from stackconf.hardware.facts import Hardware
    from stackconf.hardware.shares import Share, Unit
    from stackconf.resolve.claims import Claim


def hardware_data(hardware: Hardware) -> dict[str, Any]:
    """Everything that is known about a machine."""
    from stackconf.hardware.codec import to_dict

    return to_dict(hardware)


def hardware_from(data: object) -> Hardware:
    """What `hardware_data` wrote."""
    from stackconf.hardware.codec import from_dict

    try:
        return from_dict(Given(data).data, strict=False)
    except InvalidConfig as error:
        raise Misshapen(str(error).removeprefix("hardware: ")) from None
    except RecursionError:
        raise Misshapen("is nested too deeply") from None


def share_data(share: Share) -> dict[str, Any]:
    """What one provider may use: a `fraction` of each `card`, by its place among the machine's
    accelerators, or of a MIG `instance` of it.
    """
    return {
        "reason": share.reason,
        "units": [
            {"card": card, "instance": instance, "fraction": fraction}
            for (card, instance), fraction in share.units.items()
        ],
        "hardware": hardware_data(share.hardware),
    }


def share_from(data: object) -> Share:
    """What `share_data` wrote."""
    from stackconf.hardware.shares import Share

    given = Given(data)
    units = dict(given.each("units", _unit_from))
    return Share(given.one("hardware", hardware_from), given.text("reason"), units)


def shares_data(shares: Mapping[str, Share]) -> dict[str, Any]:
    """The share of each provider, by its key."""
    return {key: share_data(share) for key, share in shares.items()}


def shares_from(data: object) -> dict[str, Share]:
    """What `shares_data` wrote."""
    given = Given(data)
    return {str(key): given.one(str(key), share_from) for key in given.data}


def claims_data(claims: Iterable[Claim]) -> list[dict[str, Any]]:
    """What fields of the providers take of the accelerators."""
    return [
        {
            "provider": each.provider,
            "card": each.unit[0],
            "instance": each.unit[1],
            "share": each.share,
            "path": each.path,
            "source": each.source,
        }
        for each in claims
    ]


def claims_from(data: object) -> tuple[Claim, ...]:
    """What `claims_data` wrote."""
    return tuple_of(_claim_from)(data)


def _claim_from(data: object) -> Claim:
    from stackconf.resolve.claims import Claim

    given = Given(data)
    return Claim(
        given.text("provider"),
        (given.whole("card"), given.maybe("instance", whole)),
        given.one("share", number),
        given.text("path"),
        given.text("source"),
    )


def _unit_from(data: object) -> tuple[Unit, float]:
    given = Given(data)
    return (given.whole("card"), given.maybe("instance", whole)), given.one("fraction", number)
