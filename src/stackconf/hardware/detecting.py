"""The child's side of a probe: load one detector, call it, report each fact as a line of JSON.

The protocol: a line is a fact (see `codec`), `{"failure": text}`, or at the end `{"done": true}`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackconf.hardware.files import ROOT_VARIABLE

if TYPE_CHECKING:
    from types import ModuleType

HOOK = "discover_hardware"
LAST_LINE = b'{"done": true}\n'
"""Says that the detector came to its end. No other line ends so: a fact's own brace would follow."""


def serve(request: Mapping[str, Any]) -> None:
    """Run in the child: report the detector's facts, then leave without cleaning up.

    Only the report's own descriptor reaches the caller's ear; `print` and native code write to
    what is now standard error. Leaving at once keeps a driver's exit handlers from hanging.
    """
    import json

    channel = os.dup(1)
    os.dup2(2, 1)
    _end_yourself(float(request["seconds"]) + 1.0)
    if request["root"] is not None:
        os.environ[ROOT_VARIABLE] = request["root"]

    def say(line: bytes) -> None:
        left = memoryview(line)
        while left:
            left = left[os.write(channel, left) :]

    for entry in _entries(request["name"], request["target"]):
        say(json.dumps(entry).encode() + b"\n")
    say(LAST_LINE)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _end_yourself(seconds: float) -> None:
    import signal

    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _entries(name: str, target: str) -> Iterator[dict[str, Any]]:
    """Lines of the report; a failure is one of them."""
    try:
        plugin = _load(name, target)
        if complaint := _incompatible(plugin):
            yield {"failure": complaint}
            return
        implementations = list(_implementations(plugin))
    except BaseException as error:  # noqa: BLE001 - importing a plugin may raise anything, SystemExit too
        yield {"failure": f"cannot be imported: {_described(error)}"}
        return
    for implementation in implementations:
        yield from _called(implementation)


def _called(implementation: Any) -> Iterator[dict[str, Any]]:
    from collections.abc import Iterable

    from stackconf.hardware.codec import FACT_CLASSES

    wanted = f"a list of {', '.join(FACT_CLASSES)}"
    try:
        facts = implementation()
        if facts is None:
            return
        if isinstance(facts, str | bytes | Mapping) or not isinstance(facts, Iterable):
            yield {"failure": f"returned a {type(facts).__name__}; return {wanted}"}
            return
        refused = set()
        for fact in facts:
            if type(fact) in FACT_CLASSES.values():
                yield _sendable(fact)
            elif type(fact).__name__ not in refused:
                refused.add(type(fact).__name__)
                yield {"failure": f"gave a {type(fact).__name__}; give {wanted}"}
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
        yield {"failure": f"raised {_described(error)}"}


def _sendable(fact: Any) -> dict[str, Any]:
    import json

    from stackconf.hardware.codec import fact_to_dict

    try:
        entry = fact_to_dict(fact)
        json.dumps(entry)
    except (TypeError, ValueError, RecursionError) as error:
        return {"failure": f"gave a fact that cannot be used: {type(fact).__name__}: {error}"}
    return entry


def _load(name: str, target: str) -> Any:
    from importlib import import_module

    if target.endswith(".py"):
        return _load_file(name, target)
    module, _, attributes = target.partition(":")
    found: Any = import_module(module)
    for attribute in filter(None, attributes.split(".")):
        found = getattr(found, attribute)
    return found


def _load_file(name: str, path: str) -> ModuleType:
    import re
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(re.sub(r"\W", "_", name), path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _incompatible(plugin: Any) -> str:
    from stackconf.hookspecs import API_VERSION, SUPPORTED_API_VERSIONS

    spoken = getattr(plugin, "stackconf_api", API_VERSION)
    numbers = {spoken} if isinstance(spoken, int) else set(spoken)
    if numbers & SUPPORTED_API_VERSIONS:
        return ""
    return f"was skipped: it speaks plugin API {spoken}, and this stackconf speaks {API_VERSION}"


def _implementations(plugin: Any) -> Iterator[Any]:
    import pluggy

    from stackconf.hookspecs import PROJECT

    manager = pluggy.PluginManager(PROJECT)
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is None or (options.get("specname") or name) != HOOK:
            continue
        if options.get("wrapper") or options.get("hookwrapper"):
            raise TypeError(f"`{name}` is a hook wrapper, and each detector runs apart: nothing to wrap")
        yield getattr(plugin, name)


def _described(error: BaseException) -> str:
    """The exception in one line, with the place in the plugin where it came from."""
    text = " ".join(str(error).split())
    place = ""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None and trace.tb_frame.f_code.co_filename != __file__:
        place = f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"
    return f"{type(error).__name__}{f': {text}' if text else ''}{place}"
