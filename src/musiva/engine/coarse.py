"""The latent of pure noise at half the resolution, and back.

At the start of a path the latent is noise alone, and what a model says of it without a prompt is
smooth and hardly depends on it. A quarter of the tokens tells it as well: the lowest frequencies of
noise, taken by an orthonormal transform, are noise of the same size on a smaller grid.

L tokens of a sample, C channels of a token.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import pad

from musiva.core.pack import Grid, coarser
from musiva.policy import bands_of

__all__ = ["doubled", "halved"]


def halved(x_LC: Tensor, grid: Grid, patch: Grid) -> Tensor:
    """[L, C] on `grid` -> [L', C] on `coarser(grid, 1)`. Unit noise stays unit noise."""
    (spectrum,) = bands_of(grid, patch, (), x_LC.device).analyse(x_LC)
    small = bands_of(coarser(grid, 1), patch, (), x_LC.device)
    return small.synthesise(spectrum[:, *(slice(n) for n in small.sides)])[0]


def doubled(x_LC: Tensor, grid: Grid, patch: Grid) -> Tensor:
    """[L', C] on `coarser(grid, 1)` -> [L, C] on `grid`: the same picture, without detail."""
    small = bands_of(coarser(grid, 1), patch, (), x_LC.device)
    large = bands_of(grid, patch, (), x_LC.device)
    (spectrum,) = small.analyse(x_LC)
    missing = [n - k for n, k in zip(large.sides, small.sides, strict=True)]
    padded = pad(spectrum, [side for n in reversed(missing) for side in (0, n)])
    larger = math.sqrt(math.prod(large.sides) / math.prod(small.sides))
    return large.synthesise(padded)[0] * larger
