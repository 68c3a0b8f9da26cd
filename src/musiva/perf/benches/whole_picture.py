"""The cheapest way to keep a floor in decibels with the same number of evaluations for every
picture: fewer steps, or forecasts at a fixed interval. What rivals choose, on calibration prompts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from musiva.engine import Engine
from musiva.perf.calibration.table import kept_by_most
from musiva.perf.quality import psnr

__all__ = ["candidates", "cheapest"]

FEWER = (*range(6, 17), 18, 20, 22, 25, 28, 32)
INTERVALS = (7, 6, 5, 4, 3, 2)


def candidates(steps: int) -> list[Mapping[str, Any]]:
    """Options of `Engine.request`, those of each kind from the cheapest on."""
    fewer: list[Mapping[str, Any]] = [{"steps": n} for n in FEWER if n < steps]
    return fewer + [
        {"policy": f"interval:interval={n},warmup={warmup},order={order}"}
        for warmup, order in ((1, 0), (2, 0), (2, 1), (3, 1))
        for n in INTERVALS
    ]


def cheapest(
    engine: Engine, prompts: Sequence[str], *, steps: int, floor: float, first_seed: int
) -> tuple[Mapping[str, Any], list[Mapping[str, object]]]:
    """Options that keep the floor, by the same margin as ours, in the least time a picture; and a
    row of what each gave. Of each kind none is tried behind one that keeps it, or takes longer than
    the best so far: it costs more.
    """
    dense = _pictures(engine, prompts, first_seed, {"steps": steps})[0]
    best: tuple[float, Mapping[str, Any]] | None = None
    rows: list[Mapping[str, object]] = []
    done: set[str] = set()
    for options in candidates(steps):
        kind = _kind(options)
        if kind in done:
            continue
        made, seconds = _pictures(engine, prompts, first_seed, {"steps": steps, **options})
        decibels = [psnr(a, b) for a, b in zip(made, dense, strict=True)]
        low = kept_by_most(decibels)
        rows.append(
            {
                "what": "whole picture, calibration prompts",
                "options": dict(options),
                "psnr": statistics.fmean(decibels),
                "psnr_low": low,
                "seconds": seconds,
            }
        )
        longer = best is not None and seconds >= best[0]
        if low >= floor and not longer:
            best = seconds, options
        if low >= floor or longer:
            done.add(kind)
    return ({} if best is None else best[1]), rows


def _kind(options: Mapping[str, Any]) -> str:
    return str(options["policy"]).partition(",")[2] if "policy" in options else "steps"


def _pictures(
    engine: Engine, prompts: Sequence[str], first_seed: int, options: Mapping[str, Any]
) -> tuple[list[np.ndarray], float]:
    """One of each prompt, and seconds of each in the mean."""
    made, start = [], time.perf_counter()
    for i, prompt in enumerate(prompts):
        (picture,) = engine.generate(prompt, seed=first_seed + i, **options)
        made.append(np.asarray(picture))
    return made, (time.perf_counter() - start) / len(prompts)
