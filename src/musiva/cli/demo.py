"""`musiva demo`: something to look at."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from musiva.cli.machine import as_loaded, set_threads
from musiva.cli.pictures import check_writable, write_atomically
from musiva.core.env import Env
from musiva.core.errors import InvalidInput

__all__ = ["run"]

SUFFIXES = (".webp", ".png", ".gif")
COLUMNS: Mapping[str, str] = {
    "what": "{}",
    "workers": "{}",
    "seconds": "{:.2f}",
    "evaluations_worth": "{:.1f}",
    "fewest": "{}",
    "most": "{}",
    "sent_mib": "{:.1f}",
    "psnr": "{:.1f} dB",
}


def run(arguments: Namespace, env: Env) -> int:
    """What can be refused is refused before anything is computed."""
    out: Path = arguments.out
    if out.suffix.lower() not in SUFFIXES:
        raise InvalidInput("out", str(out), f"a name that ends in {', '.join(SUFFIXES)}")
    check_writable("out", out.parent)
    set_threads(arguments.threads, env)
    from musiva.engine import load_pipeline
    from musiva.perf.patch_demo import draw, follow

    pipeline = load_pipeline(arguments.model, **as_loaded(arguments))
    print("a picture by one worker, and by several ...", file=sys.stderr, flush=True)
    demo = follow(
        pipeline,
        arguments.model,
        arguments.prompt,
        ranks=arguments.workers,
        threads=arguments.threads or env.threads or 1,
        quality=arguments.quality,
        size=arguments.size,
        steps=arguments.steps,
        seed=arguments.seed,
        loaded=as_loaded(arguments),
    )
    kind = out.suffix.lower().removeprefix(".")
    write_atomically(out, draw(demo).content(kind))  # type: ignore[arg-type]
    rows = demo.table()
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        print(_table(rows))
    print(out, file=sys.stderr)
    return 0


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    """A line for each way, under its heads."""
    cells = [list(COLUMNS)]
    for row in rows:
        told = ((form, row[name]) for name, form in COLUMNS.items())
        cells.append(["-" if value is None else form.format(value) for form, value in told])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(lines)
