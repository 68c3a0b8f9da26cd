"""`musiva bench`: run one bench, print its figures, and keep them."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping

from musiva.cli.pictures import check_writable, write_atomically
from musiva.core.env import Env
from musiva.core.errors import InvalidInput

__all__ = ["run"]

RESULTS = ("docs", "results")


def run(arguments: Namespace, env: Env) -> int:
    """Exit code 1 if the gate fails. The row of a long run inside a checkout goes to docs/results/
    too.
    """
    from musiva.perf import append_result
    from musiva.perf.benches import run_bench
    from musiva.perf.report import checkout

    root = checkout()
    if arguments.json is not None:
        check_writable("json", arguments.json.parent)
        kept = root and root.joinpath(*RESULTS, f"{arguments.name}.jsonl")
        if arguments.json.resolve() == kept:
            allowed = "another file: rows of long runs are appended to this one by themselves"
            raise InvalidInput("json", str(arguments.json), allowed)
    result = run_bench(arguments.name, quick=arguments.quick).as_json()
    if arguments.json is not None:
        write_atomically(arguments.json, json.dumps(result, indent=2) + "\n")
    gate: Mapping[str, object] = result["gate"]  # type: ignore[assignment]
    figures: Mapping[str, float | None] = result["figures"]  # type: ignore[assignment]
    if not gate["ok"]:
        print(f"the gate failed, so no figure is told: {json.dumps(gate)}")
        return 1
    for key, value in figures.items():
        print(f"{key:28} {'-' if value is None else format(value, '.6g')}")
    if root is not None and not arguments.quick:
        print(f"appended to {append_result(result, root.joinpath(*RESULTS))}")
    return 0
