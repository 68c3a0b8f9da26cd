"""`musiva trace`: make a file of requests with their times."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from musiva.cli.pictures import check_writable
from musiva.core.env import Env
from musiva.core.errors import InvalidInput

__all__ = ["run"]


def run(arguments: Namespace, env: Env) -> int:
    """The same arguments give the same file."""
    out: Path = arguments.out
    check_writable("out", out.parent)
    from musiva.perf.benches.held_out import SCENES, SINGLES
    from musiva.perf.traffic import Mix, make_trace, write_trace

    prompts = [*SINGLES, *SCENES] if arguments.prompts is None else _lines(arguments.prompts)
    sizes = dict.fromkeys(arguments.size or [(128, 128)], 1.0)
    deadlines: dict[tuple[int, int], float] = {}
    if arguments.deadline is not None:
        deadlines = dict.fromkeys(sizes, float(arguments.deadline))
    mix = Mix(
        prompts=prompts,
        sizes=sizes,
        deadlines=deadlines,
        steps=arguments.steps,
        min_quality=arguments.min_quality,
        max_quality=arguments.max_quality,
        tenants=arguments.tenant or ["default"],
    )
    trace = make_trace(
        arguments.shape, mix, rate=arguments.rate, count=arguments.count, seed=arguments.seed
    )
    write_trace(trace, out)
    print(f"{out}: {len(trace)} requests in {trace[-1].at:.1f} s")
    return 0


def _lines(file: Path) -> list[str]:
    """Those that are not empty. Raises InvalidInput."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("prompts", str(file), f"a text file ({error})") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise InvalidInput("prompts", str(file), "a file with at least one prompt")
    return found
