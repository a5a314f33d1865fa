"""NVML calls with every failure kept, in words that say what to do. Source: the NVML API reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stackconf.hardware.facts import Problem, ProblemKind
from stackconf.hardware.files import ranges

DETECTOR = "nvidia"

INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, DRIVER_NOT_LOADED, TIMEOUT = 2, 3, 4, 6, 9, 10
LIBRARY_NOT_FOUND, FUNCTION_NOT_FOUND, GPU_IS_LOST, RESET_REQUIRED = 12, 13, 15, 16
VERSION_MISMATCH, DEPRECATED = 25, 26
ADDRESSING_ATS = 2

KINDS: Mapping[int, ProblemKind] = {
    NOT_SUPPORTED: "unsupported",
    NO_PERMISSION: "denied",
    TIMEOUT: "timeout",
    FUNCTION_NOT_FOUND: "unsupported",
    VERSION_MISMATCH: "unsupported",
    DEPRECATED: "unsupported",
}
WHOLE_CARD = frozenset({GPU_IS_LOST, RESET_REQUIRED})
"""After these every call on the card fails the same way."""

ADVICE: Mapping[int, str] = {
    NO_PERMISSION: "give this user, or this container, access to /dev/nvidia*",
    8: "connect the card's power cables",
    DRIVER_NOT_LOADED: "load the driver (`modprobe nvidia`)",
    TIMEOUT: "try again; if it stays, see `dmesg` for the card",
    11: "see `dmesg` for the card's interrupts",
    LIBRARY_NOT_FOUND: "install the NVIDIA driver, or pass the cards into the container (`--gpus all`)",
    FUNCTION_NOT_FOUND: "the driver is too old to tell; a newer one does",
    GPU_IS_LOST: "it fell off the bus: reboot, and see `dmesg`",
    RESET_REQUIRED: "reset it (`nvidia-smi --gpu-reset`) or reboot",
    17: "the operating system blocked it: see `dmesg`, and the container's device rules",
    18: "the driver was updated while the old one stayed loaded: reboot",
    20: "the system is out of memory",
    29: "see `dmesg` for the driver",
    999: "in a container, restart it (a `systemctl daemon-reload` on the host takes the cards away); "
    "otherwise see `dmesg`",
}


class Nvml:
    """NVML with every failure kept: one `Problem` for each field and cause, naming the cards.

    `NVMLError` is not hashable and cannot be compared with `None`; only its number goes further.
    """

    def __init__(self, library: Any) -> None:
        self.library = library
        self._names = {
            getattr(library, name): name
            for name in sorted(dir(library))
            if name.startswith("NVML_ERROR_") and isinstance(getattr(library, name), int)
        }
        self._failures: dict[tuple[str, ProblemKind, str], list[int | None]] = {}

    def result(self, call: str, *arguments: Any, **options: Any) -> tuple[Any, int | str | None]:
        """What the call gives and `None`, or `None` and the error's number (or text, not NVML's own)."""
        function = getattr(self.library, call, None)
        if function is None:
            return None, f"this nvidia-ml-py has no {call}"
        try:
            return function(*arguments, **options), None
        except self.library.NVMLError as error:
            return None, int(error.value)
        except Exception as error:  # noqa: BLE001 - ctypes and decoding have their own
            return None, f"{type(error).__name__}: {error}"

    def ask(self, fact: str, card: int | None, call: str, *arguments: Any) -> Any:
        """What the call gives, or `None` with the failure kept for `fact`."""
        value, code = self.result(call, *arguments)
        if code is not None:
            self.failed(fact, card, call, code)
        return value

    def try_ask(self, call: str, *arguments: Any, **options: Any) -> Any:
        """What the call gives, or `None` where there is another way to know."""
        return self.result(call, *arguments, **options)[0]

    def text(self, fact: str, card: int | None, call: str, *arguments: Any) -> str | None:
        """The text that the call gives; an empty one is a failure."""
        value = self.ask(fact, card, call, *arguments)
        text = None if value is None else decoded(value)
        if value is not None and text is None:
            self.note(fact, card, "unsupported", f"{call} gives an empty text")
        return text

    def failed(self, fact: str, card: int | None, call: str, code: int | str | None) -> None:
        """Keep a call's failure."""
        if not isinstance(code, int):
            self.note(fact, card, "error", f"{call}: {code}")
            return
        where = "" if code in WHOLE_CARD else f" from {call}"
        advice = f"; {ADVICE[code]}" if code in ADVICE else ""
        subject = "accelerators" if code in WHOLE_CARD else fact
        self.note(subject, card, KINDS.get(code, "error"), f"{self.name(code)}{where}{advice}")

    def note(self, fact: str, card: int | None, kind: ProblemKind, reason: str) -> None:
        """Keep what is wrong with a card's field."""
        subject = fact if fact == "accelerators" else f"accelerators.{fact}"
        cards = self._failures.setdefault((subject, kind, reason), [])
        if card not in cards:
            cards.append(card)

    def name(self, code: int) -> str:
        """NVML's own name of an error."""
        return self._names.get(code, f"NVML error {code}")

    def problems(self) -> Iterator[Problem]:
        """Everything kept, the cards of one cause together."""
        for (fact, kind, reason), cards in self._failures.items():
            numbers = [card for card in cards if card is not None]
            which = f"card{'s' if len(numbers) > 1 else ''} {ranges(numbers)}: " if numbers else ""
            yield Problem(DETECTOR, fact, kind, f"{which}{reason}")


def decoded(value: str | bytes) -> str | None:
    """A text of NVML's, which may come as bytes; `None` for an empty one."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return text.strip() or None
