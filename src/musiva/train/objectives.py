"""What the denoiser learns to predict, and at which times.

x_t = alpha(t) x0 + sigma(t) noise, with t from 0 (picture) to 1 (noise).

Flow matching (Lipman et al., 2023; Esser et al., 2024): alpha = 1 - t, sigma = t, target = noise -
x0. V-prediction (Salimans and Ho, 2022): alpha = cos(pi t / 2), sigma = sin(pi t / 2), target =
alpha noise - sigma x0.

Shape suffixes: T rows of a pack, C channels of a token, S samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from musiva.core.errors import InvalidInput

__all__ = ["Objective"]


class Objective:
    """Draws times, mixes noise in and names the target. Holds no state."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Times are logit-normal, then shifted towards noise by sqrt(rows / base_rows) for larger
        pictures, whose neighbouring tokens tell more about each other (Esser et al., 2024, section
        5.3.2).
        """

        kind: Literal["flow", "v"] = "flow"
        time_mean: float = 0.0
        time_std: float = 1.0
        base_rows: int = 64

        def build(self) -> Objective:
            """Raises InvalidInput for an unknown kind or numbers out of range."""
            return Objective(self)

    def __init__(self, config: Config) -> None:
        if config.kind not in ("flow", "v"):
            raise InvalidInput("kind", config.kind, "flow or v")
        if not config.time_std > 0:
            raise InvalidInput("time_std", config.time_std, "above 0")
        if config.base_rows < 1:
            raise InvalidInput("base_rows", config.base_rows, "at least 1")
        self.config = config

    def time(self, rng: np.random.Generator, rows: int) -> float:
        """A time for a sample of `rows` tokens, strictly between 0 and 1."""
        logit = rng.normal(self.config.time_mean, self.config.time_std)
        # Shifting odds by a factor is the same as moving the logit.
        logit += 0.5 * math.log(rows / self.config.base_rows)
        return 1.0 / (1.0 + math.exp(-min(30.0, max(-15.0, logit))))

    def noised(self, clean_TC: Tensor, noise_TC: Tensor, time_T1: Tensor) -> tuple[Tensor, Tensor]:
        """(what the model sees, what it should answer), both `[T, C]`."""
        if self.config.kind == "flow":
            return torch.lerp(clean_TC, noise_TC, time_T1), noise_TC - clean_TC
        angle_T1 = time_T1 * (math.pi / 2)
        alpha_T1, sigma_T1 = angle_T1.cos(), angle_T1.sin()
        return alpha_T1 * clean_TC + sigma_T1 * noise_TC, alpha_T1 * noise_TC - sigma_T1 * clean_TC

    def loss(
        self, prediction_TC: Tensor, target_TC: Tensor, owner_T: Tensor, lengths_S: Tensor
    ) -> Tensor:
        """Mean squared error of each sample, `[S]`: every sample counts the same, whatever its
        size.

        owner_T: `[T]` int64, the sample of each row; lengths_S: its number of rows. Padding is not
        passed.
        """
        error_T = (prediction_TC.float() - target_TC.float()).square().mean(-1)
        return (
            torch.zeros_like(lengths_S, dtype=error_T.dtype).index_add(0, owner_T, error_T)
            / lengths_S
        )
