"""Register, inspect, plan and apply from Python, on the stack of issue 993.

    python examples/sdk.py [STACK.yaml]

Needs no server and no key. Writes `.stackconf/` beside the stack file, and what the providers
keep (`data/` here, or `SQLITE_STORE_DIR`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stackconf import Stack

STACK = Path(__file__).parent / "issue-993" / "stack.yaml"
ELSEWHERE = {
    "inference": [
        {
            "provider_id": "ollama",
            "provider_type": "remote::ollama",
            "config": {"url": "http://localhost:12345"},
        }
    ]
}


def main(path: Path = STACK) -> None:
    """Change where Ollama is, apply, and take the change back."""
    with Stack.open(path) as stack:
        print(f"{stack.hardware.cpu.usable_cores} usable cores; {len(stack.issues)} issues")

        registered = stack.configurations.register(ELSEWHERE, name="elsewhere")
        print(f"revision {registered.revision} keeps {json.dumps(registered.kept)}")

        ollama = stack.configurations.inspect()["providers"]["inference"][0]
        print(f"users see {ollama['config']['url']}")
        for origin in stack.explain("ollama", "num_ctx"):
            print(f"{origin.path} = {origin.value}: {origin.layer}, {origin.reason or origin.source}")

        plan = stack.plan()
        print(f"{len(plan.changes)} providers would change")
        report = stack.apply(plan)
        for outcome in report.outcomes:
            print(f"{outcome.provider}: {outcome.state}: {outcome.detail or outcome.error}")

        stack.configurations.unregister("elsewhere")
        print(f"revision {stack.revision}; {len(stack.configurations.list())} configurations left")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
