"""What was measured of a model once, so that its data predictions can be forecast and a quality
promised. `musiva calibrate` measures it; it lies beside the weights, in `calibration/`.

P places on the path, B bands of frequency, R = 3 values that a forecast is made of.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from musiva.core.errors import BadCheckpoint

__all__ = ["FOLDER", "Calibration", "Conditions", "Measured"]

FOLDER = "calibration"
TENSORS, RECORD = "forecast.safetensors", "calibration.json"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the measuring ran with: dense runs of `prompts` prompts, `size` (width, height) in
    pixels.
    """

    steps: int
    sampler: str
    guidance: float
    size: tuple[int, int]
    prompts: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What a tolerance gave against the dense run: PSNR in dB and SSIM over the decoded pictures,
    and its share of the dense run's evaluations. psnr_low: what 95 % of pictures keep, with a
    margin for how many were measured.
    """

    steps: int
    tolerance: float
    psnr: float
    psnr_low: float
    ssim: float
    cost: float


@dataclass(frozen=True)
class Calibration:
    """places: falling from noise to picture. edges: of the bands. moments: [B, 2P, 2P], mean
    products of the latents (the first P) and the data predictions (the last) at two places, over
    dense runs. correction: [B, R, 3], see `musiva.policy.kriging`. surprise: coefficients of what
    a forecast is usually wrong by, see there too. coarse: the first evaluation may have its
    unconditional branch on a coarser grid. table: what tolerances gave, most exact first.
    """

    places: tuple[float, ...]
    edges: tuple[float, ...]
    moments: Tensor
    correction: Tensor
    surprise: tuple[float, ...]
    conditions: Conditions
    coarse: bool = False
    table: tuple[Measured, ...] = ()

    @classmethod
    def read(cls, model: Path) -> Self | None:
        """That of the model in a directory, or None if it has none. Raises BadCheckpoint."""
        folder = model / FOLDER
        if not folder.is_dir():
            return None
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            tensors = load_file(folder / TENSORS)
            conditions = record["conditions"]
            found = cls(
                places=tuple(map(float, record["places"])),
                edges=tuple(map(float, record["edges"])),
                moments=tensors["moments"],
                correction=tensors["correction"],
                surprise=tuple(map(float, record["surprise"])),
                conditions=Conditions(**{**conditions, "size": tuple(conditions["size"])}),
                coarse=bool(record["coarse"]),
                table=tuple(Measured(**row) for row in record["table"]),
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise BadCheckpoint(f"{folder}: {error!r}; `musiva calibrate` makes it anew") from error
        found._check(folder)
        return found

    def write(self, model: Path) -> Path:
        """Into the model's directory; the folder that it wrote."""
        folder = model / FOLDER
        folder.mkdir(exist_ok=True)
        record = {
            "places": self.places,
            "edges": self.edges,
            "surprise": self.surprise,
            "conditions": asdict(self.conditions),
            "coarse": self.coarse,
            "table": [asdict(row) for row in self.table],
        }
        text = json.dumps(record, indent=1) + "\n"
        (folder / RECORD).write_text(text, encoding="utf-8")
        tensors = {"moments": self.moments.float(), "correction": self.correction.float()}
        # `save_file` would make a file that its owner alone can read.
        (folder / TENSORS).write_bytes(save({k: t.contiguous() for k, t in tensors.items()}))
        return folder

    def tolerance(self, floor: float, steps: int) -> float | None:
        """The largest tolerance that keeps 95 % of pictures at or above a PSNR in dB, by what was
        measured at the number of steps nearest to `steps`; None if none does.
        """
        kept = (row.tolerance for row in self.rows(steps) if row.psnr_low >= floor)
        return max(kept, default=None)

    def rows(self, steps: int) -> list[Measured]:
        """Of the table, those at the number of steps nearest to `steps`, most exact first."""
        measured = {row.steps for row in self.table}
        nearest = min(measured, key=lambda n: abs(math.log(n / steps)), default=steps)
        found = [row for row in self.table if row.steps == nearest]
        return sorted(found, key=lambda row: row.tolerance)

    def time(self, place: float) -> float:
        """How far along the path a place is, from 0 to 1, in evaluations of the measured runs."""
        total = len(self.places)
        rising = (0.0, *reversed(self.places))
        return float(np.interp(place, rising, [i / total for i in range(total, -1, -1)]))

    def _check(self, folder: Path) -> None:
        bands, places = len(self.edges) + 1, len(self.places)
        shapes = {
            "moments": (tuple(self.moments.shape), (bands, 2 * places, 2 * places)),
            "correction": (tuple(self.correction.shape), (bands, 3, 3)),
        }
        for name, (found, wanted) in shapes.items():
            if found != wanted:
                raise BadCheckpoint(f"{folder}: {name} has shape {found}, not {wanted}")
        falling = all(a > b for a, b in zip(self.places, self.places[1:], strict=False))
        if places < 2 or not falling or not bool(torch.isfinite(self.moments).all()):
            raise BadCheckpoint(f"{folder}: places have to fall, and moments to be finite")
