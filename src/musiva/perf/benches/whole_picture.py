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

__all__ = ["cheapest", "kinds"]

FEWER = (*range(5, 17), 18, 20, 22, 25, 28, 32)
INTERVALS = (7, 6, 5, 4, 3, 2)


def kinds(steps: int) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Options of `Engine.request` by kind, those of each from the cheapest on."""
    fewer: list[Mapping[str, Any]] = [{"steps": n} for n in FEWER if n < steps]
    forecasts = {
        f"warmup={warmup},order={order}": [
            {"policy": f"interval:interval={n},warmup={warmup},order={order}"} for n in INTERVALS
        ]
        for warmup, order in ((1, 0), (2, 0), (2, 1), (3, 1))
    }
    return {"steps": fewer, **forecasts}


def cheapest(
    engine: Engine,
    prompts: Sequence[str],
    *,
    steps: int,
    size: tuple[int, int],
    floor: float,
    first_seed: int,
) -> tuple[Mapping[str, Any], list[Mapping[str, object]]]:
    """Options that keep the floor, by the same margin as ours, in the least time a picture; and a
    row of what each gave. Within a kind, what costs more keeps more, so each is searched by halves.
    """

    def run(options: Mapping[str, Any]) -> tuple[list[np.ndarray], float]:
        return _pictures(engine, prompts, first_seed, {"steps": steps, "size": size, **options})

    dense = run({})[0]
    best: tuple[float, Mapping[str, Any]] | None = None
    rows: list[Mapping[str, object]] = []
    for every in kinds(steps).values():
        low, high = 0, len(every)
        while low < high:
            options = every[(low + high) // 2]
            made, seconds = run(options)
            decibels = [psnr(a, b) for a, b in zip(made, dense, strict=True)]
            kept = kept_by_most(decibels)
            rows.append(
                {
                    "what": "whole picture, calibration prompts",
                    "options": dict(options),
                    "psnr": statistics.fmean(decibels),
                    "psnr_low": kept,
                    "seconds": seconds,
                }
            )
            if kept >= floor and (best is None or seconds < best[0]):
                best = seconds, options
            if kept >= floor:
                high = (low + high) // 2
            else:
                low = (low + high) // 2 + 1
    return ({} if best is None else best[1]), rows


def _pictures(
    engine: Engine, prompts: Sequence[str], first_seed: int, options: Mapping[str, Any]
) -> tuple[list[np.ndarray], float]:
    """One of each prompt, in packs as they are served, and seconds of each in the mean."""
    start = time.perf_counter()
    streams = [
        engine.stream(prompt, seed=first_seed + i, **options) for i, prompt in enumerate(prompts)
    ]
    made = [
        event.picture
        for stream in streams
        for event in stream
        if isinstance(event.picture, np.ndarray) and event.kind == "picture"
    ]
    return made, (time.perf_counter() - start) / len(prompts)
