"""`musiva profile`: measure what steps of a model take on this machine, and keep it."""

from __future__ import annotations

import json
import sys
from argparse import Namespace

from musiva.cli.machine import as_loaded, set_threads
from musiva.cli.pictures import check_writable
from musiva.cli.progress import Progress
from musiva.core.env import Env

__all__ = ["run"]

PERCENT = 100


def run(arguments: Namespace, env: Env) -> int:
    """The profile goes to `--out`, or to where servers of this machine find it."""
    set_threads(arguments.threads, env)
    if arguments.out is not None:
        check_writable("out", arguments.out.parent)
    from musiva.cost import profile_path
    from musiva.engine import load_pipeline
    from musiva.perf.profile import machine_of, measure_profile

    pipeline = load_pipeline(arguments.model, **as_loaded(arguments))
    path = arguments.out or profile_path(env.cache_dir, machine_of(pipeline))
    with Progress(sys.stderr, f"measuring {pipeline.name}") as progress:

        def tell(share: float) -> None:
            while progress.done < share * PERCENT:
                progress.advance(PERCENT)

        found = measure_profile(pipeline, seconds=arguments.seconds, tell=tell)
    found.write(path)
    if arguments.json:
        print(json.dumps({"path": str(path), **found.record()}, indent=1))
        return 0
    machine, errors = found.machine, found.errors
    print(f"{machine.model} on {machine.device}, {machine.dtype}, {machine.threads} threads")
    print(f"{found.steps} steps in {found.seconds:.0f} s; kept at {path}")
    if errors:
        print("of steps that were not fitted      median     95 %")
        print(f"  predicted against measured    {errors['median']:8.1%} {errors['p95']:8.1%}")
        repeated = errors["repeatability"], errors["repeatability_p95"]
        print("  one run against its median    {:8.1%} {:8.1%}".format(*repeated))
    return 0
