"""What machine is this: facts, the detectors that find them, and sizes derived from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackconf.hardware.simulation import simulate

__all__ = ["simulate"]


def __getattr__(name: str) -> object:
    if name != "simulate":
        message = f"module `stackconf.hardware` has no attribute `{name}`"
        raise AttributeError(message)
    from stackconf.hardware.simulation import simulate as value

    globals()[name] = value
    return value
