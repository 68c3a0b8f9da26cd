"""Patch parallel on the default model: what parts that do not see each other cost of a picture, and
how evenly what is computed is shared out.

One rank computes the parts one after the other, which makes what several make; real ranks are held
against it.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, pairwise

import numpy as np

from musiva.core.pack import Grid
from musiva.core.tiling import tile_shape, tile_sizes, tile_tokens
from musiva.core.types import Event, Level
from musiva.engine import Engine, Fleet, Front, Pipeline, Workers, load_pipeline
from musiva.engine.actions import MOST_CUT
from musiva.engine.patches import parts_of
from musiva.engine.stream import Stream
from musiva.parallel import bounds
from musiva.perf.benches.base import Findings
from musiva.perf.benches.held_out import SCENES, SINGLES
from musiva.perf.measure import percentile
from musiva.perf.quality import psnr
from musiva.policy import floor_db

__all__ = ["KEYS", "measure_patches"]

KEYS = ("stale_patch_psnr_db", "idle_share_balanced", "idle_share_equal_rows")
PATCHES, STEPS, SIZE = 4, 28, (128, 128)
# At which the model's own policy skips evaluations.
QUALITIES = (50, 60)
PROMPTS, QUICK_PROMPTS, FIRST_SEED = 32, 2, 1000
# On real ranks.
CHECKED, LEVELS = 2, 2
TILES, TILE = "adaptive_tiles", (2, 2)
MASKS = 200
Choice = tuple[bool, ...]
# Levels of a request, or a quality, for which the model chooses them.
Asked = tuple[Level, ...] | int


def measure_patches(findings: Findings, *, quick: bool) -> None:
    pipeline = load_pipeline("default")
    every = list(chain.from_iterable(zip(SINGLES, SCENES, strict=True)))
    prompts = every[: QUICK_PROMPTS if quick else PROMPTS]
    if _check_ranks(findings, pipeline, prompts[: 1 if quick else CHECKED], quick=quick):
        _measure_loss(findings, pipeline, prompts, quick=quick)
        _measure_idle(findings, pipeline, prompts)


def _check_ranks(
    findings: Findings, pipeline: Pipeline, prompts: Sequence[str], *, quick: bool
) -> bool:
    """Whether processes make what one rank makes."""
    degree, worst = 2 if quick else PATCHES, 0
    workers = Workers(count=1, degree=degree, form="patch", threads=1)
    with (
        Fleet(pipeline, workers, model="default") as ranks,
        Engine(pipeline, Engine.Config(patches=degree)) as one,
    ):
        for number, prompt in enumerate(prompts):
            ours, theirs = (
                _drawn(front, number, prompt, _dense(MOST_CUT)) for front in (ranks, one)
            )
            if ours.actions != theirs.actions or _patches(ours) != {1, degree}:
                worst = 255
            away = _pixels(ours).astype(np.int16) - _pixels(theirs)
            worst = max(worst, int(np.abs(away).max()))
    return findings.gate.check("patches_of_ranks_levels", worst, holds=worst <= LEVELS)


def _measure_loss(
    findings: Findings, pipeline: Pipeline, prompts: Sequence[str], *, quick: bool
) -> None:
    """Pictures in parts and together, over the dense run."""
    found: dict[str, list[float]] = {}
    with Engine(pipeline) as whole, Engine(pipeline, Engine.Config(patches=PATCHES)) as cut:
        settings: dict[str, tuple[Front, Asked]] = {"all in parts": (cut, _dense(MOST_CUT))}
        for quality in () if quick else QUALITIES:
            settings[f"quality {quality} in parts"] = cut, quality
            settings[f"quality {quality} together"] = whole, quality
        for number, prompt in enumerate(prompts):
            dense = _pixels(_drawn(whole, number, prompt, _dense(100)))
            for name, (front, asked) in settings.items():
                picture = _pixels(_drawn(front, number, prompt, asked))
                found.setdefault(name, []).append(psnr(picture, dense))
    for name, decibels in found.items():
        low, mean = percentile(decibels, 5), statistics.fmean(decibels)
        row = {"what": f"patches: {name}", "pictures": len(decibels), "psnr": mean, "psnr_low": low}
        asked = settings[name][1]
        if isinstance(asked, int):
            kept = [x >= floor_db(asked) for x in decibels]
            row |= {"promised": floor_db(asked), "kept": statistics.fmean(kept)}
        findings.rows.append(row)
        print(f"{name}: {mean:.1f} dB, 5th percentile {low:.1f}", file=sys.stderr)
    findings.figures["stale_patch_psnr_db"] = statistics.fmean(found["all in parts"])


def _measure_idle(findings: Findings, pipeline: Pipeline, prompts: Sequence[str]) -> None:
    grid = pipeline.grid(SIZE)
    with Engine(pipeline) as engine:
        recorded = [
            action.tiles
            for number, prompt in enumerate(prompts)
            for action in _drawn(engine, number, prompt, (Level(TILES),)).actions
            if action.tiles is not None
        ]
    sources = {"recorded": recorded, "random": list(_uneven(grid))}
    ways = {"tokens": _by_tokens, "whole_tiles": _by_whole_tiles, "equal_rows": _by_rows}
    shares: dict[str, list[float]] = {name: [] for name in ways}
    for source, choices in sources.items():
        if not choices:
            continue
        found = {name: _idle([way(grid, tiles) for tiles in choices]) for name, way in ways.items()}
        for name, share in found.items():
            shares[name].append(share)
        findings.rows.append({"what": f"idle: {source}", "choices": len(choices), **found})
        print(f"idle, {source}: {found}", file=sys.stderr)
    findings.figures["idle_share_balanced"] = max(shares["tokens"])
    findings.figures["idle_share_equal_rows"] = max(shares["equal_rows"])


def _idle(several: Sequence[Sequence[int]]) -> float:
    """Of the time of ranks, what they wait for the one with the most tokens; the mean."""
    return statistics.fmean(1 - statistics.fmean(counts) / max(counts) for counts in several)


def _by_tokens(grid: Grid, tiles: Choice) -> list[int]:
    """As the engine does."""
    return [len(tokens) for tokens in parts_of(grid, TILE, tiles, PATCHES)]


def _by_rows(grid: Grid, tiles: Choice) -> list[int]:
    """Equal rows of the picture, whatever of them is computed."""
    row_A = tile_tokens(grid, TILE, tiles) // grid[2]
    return [int(((row_A >= a) & (row_A < b)).sum()) for a, b in pairwise(bounds(grid[1], PATCHES))]


def _by_whole_tiles(grid: Grid, tiles: Choice) -> list[int]:
    """The largest tile that is left always goes to the rank that has least."""
    counts = [0] * PATCHES
    sizes = [size for size, there in zip(tile_sizes(grid, TILE), tiles, strict=True) if there]
    for size in sorted(sizes, reverse=True):
        counts[counts.index(min(counts))] += size
    return counts


def _uneven(grid: Grid) -> Iterator[Choice]:
    """Random tiles, of some rows of the picture more than of others."""
    rows, columns = tile_shape(grid, TILE)
    draw = np.random.default_rng(0)
    for _ in range(MASKS):
        mask = draw.random((rows, columns)) < draw.random((rows, 1))
        mask[draw.integers(rows), draw.integers(columns)] = True
        yield tuple(map(bool, mask.flatten()))


def _dense(quality: int) -> tuple[Level, ...]:
    return (Level("never", quality),)


def _drawn(front: Front, number: int, prompt: str, asked: Asked) -> Event:
    """The picture of a prompt."""
    quality = asked if isinstance(asked, int) else None
    seed = FIRST_SEED + number
    request = front.request(prompt, size=SIZE, steps=STEPS, seed=seed, quality=quality)
    if not isinstance(asked, int):
        request = replace(request, levels=asked)
    for event in Stream(front, request, None):
        if event.kind == "picture":
            return event
    raise AssertionError("a stream ends with its picture")


def _patches(event: Event) -> set[int]:
    return {action.patches for action in event.actions}


def _pixels(event: Event) -> np.ndarray:
    return np.asarray(event.picture)
