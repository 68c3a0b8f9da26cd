"""A run beside the dense run of the same request: what was done where, and how far it strayed.

Pictures are [H, W, 3] uint8 arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from musiva.core.types import Action
from musiva.perf.inspect.record import Run
from musiva.perf.quality import CEILING_DB, psnr, ssim

__all__ = ["STATES", "Findings", "compare", "states_of"]

# What can be done about a tile at an evaluation.
STATES = ("computed", "coarse", "borrowed", "held", "forecast")
# Sides in pixels of what errors are told of where the policy has no tiles.
BLOCK = (16, 16)


@dataclass(frozen=True, slots=True)
class Findings:
    """run, dense: as they were followed. psnr, ssim: of the picture against the dense one. block:
    (height, width) in pixels of the tiles, or of blocks where there are none; block_psnr:
    [rows, columns] of them. latent_psnr: after each evaluation, against the dense run's latent
    there, whose range is the peak. states: [evaluations, tiles] out of `STATES`; one column where
    there are no tiles.
    """

    run: Run
    dense: Run
    psnr: float
    ssim: float
    block: tuple[int, int]
    block_psnr: np.ndarray
    latent_psnr: tuple[float, ...]
    states: tuple[tuple[str, ...], ...]

    @property
    def share(self) -> float:
        """Of what the dense run computes."""
        return self.run.cost / self.dense.cost

    def as_json(self) -> dict[str, object]:
        """Its numbers, as docs/cli.md describes them."""
        run, rows = self.run, zip(self.run.evaluations, self.latent_psnr, self.states, strict=True)
        return {
            "num_evaluations": len(run.evaluations),
            "computed": run.computed,
            "cost": round(run.cost, 4),
            "share": round(self.share, 4),
            "tiles": list(run.tiles) if run.tiles else None,
            "tile_counts": list(run.tile_counts) if run.tiles else None,
            "psnr": round(self.psnr, 2),
            "ssim": round(self.ssim, 4),
            "block": list(self.block),
            "block_psnr": self.block_psnr.round(2).tolist(),
            "evaluations": [
                {
                    "evaluation": number,
                    "states": list(states),
                    "cost": round(evaluation.cost, 4),
                    "store_bytes": evaluation.store_bytes,
                    "latent_psnr": round(latent_psnr, 2),
                }
                for number, (evaluation, latent_psnr, states) in enumerate(rows, 1)
            ],
        }


def compare(run: Run, dense: Run, tile: tuple[int, int] | None) -> Findings:
    """tile: (height, width) in pixels of the policy's tiles, None where it has none."""
    block, count = tile or BLOCK, math.prod(run.tiles or (1,))
    return Findings(
        run,
        dense,
        psnr(run.picture, dense.picture),
        ssim(run.picture, dense.picture),
        block,
        _block_psnr(run.picture, dense.picture, block),
        tuple(
            _latent_psnr(ours.latent, theirs.latent)
            for ours, theirs in zip(run.evaluations, dense.evaluations, strict=True)
        ),
        tuple(states_of(evaluation.action, count) for evaluation in run.evaluations),
    )


def states_of(action: Action, count: int) -> tuple[str, ...]:
    """What an action does about each of `count` tiles."""
    if not action.compute:
        return ("forecast",) * count
    if action.held is not None:
        return ("held",) * count
    done = "coarse" if action.coarse else "borrowed" if action.borrow else "computed"
    chosen = action.tiles or (True,) * count
    return tuple(done if there else "forecast" for there in chosen)


def _block_psnr(picture: np.ndarray, dense: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """[rows, columns] float64; blocks at the far edges may be smaller."""
    (height, width), (high, wide) = picture.shape[:2], block
    return np.array(
        [
            [
                psnr(picture[y : y + high, x : x + wide], dense[y : y + high, x : x + wide])
                for x in range(0, width, wide)
            ]
            for y in range(0, height, high)
        ]
    )


def _latent_psnr(latent: Tensor, dense: Tensor) -> float:
    """In dB, at most 100."""
    error = float((latent - dense).double().square().mean())
    peak = float(dense.max() - dense.min())
    if error == 0.0:
        return CEILING_DB
    return min(10 * math.log10(peak**2 / error), CEILING_DB)
