"""Bands of spatial frequency of a latent: smooth ground and fine detail come at other times.

L tokens of a sample, C channels of a token; F frames, H rows, W columns of latent positions, Z
channels of a position; B bands, N fields.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from musiva.core.pack import Grid, patchify, unpatchify

__all__ = ["EDGES", "Bands", "bands_of"]

# Where bands end, as shares of the highest frequency along an axis.
EDGES = (0.03, 0.09, 0.19, 0.38)


class Bands:
    """The cosine transform (DCT-II, orthonormal) of the latents of one grid, and the band of each
    of its coefficients. `grid` and `patch` are those of the tokens.
    """

    def __init__(
        self, grid: Grid, patch: Grid, edges: Sequence[float], device: torch.device
    ) -> None:
        self.grid, self.patch, self.num_bands = grid, patch, len(edges) + 1
        self.sides = [n * p for n, p in zip(grid, patch, strict=True)]
        self._transforms = [_cosines(n).to(device) for n in self.sides]
        shares = [torch.arange(n, dtype=torch.float64) / n for n in self.sides]
        square_FHW = sum(x.square() for x in torch.meshgrid(*shares, indexing="ij"))
        assert isinstance(square_FHW, Tensor)
        limits = torch.tensor(edges, dtype=torch.float64)
        self.index_FHW = torch.bucketize(square_FHW.sqrt(), limits).to(device)

    def analyse(self, *fields: Tensor) -> list[Tensor]:
        """Tokens [L, C] -> spectrum [Z, F, H, W], of each. Together they take hardly longer than
        one: so small a product is over before a kernel's threads have met.
        """
        parts = [unpatchify(x_LC, self.grid, self.patch, ndim=4) for x_LC in fields]
        x_NZFHW = torch.stack(parts)
        for axis, cosines in enumerate(self._transforms, 2):
            x_NZFHW = _along(x_NZFHW, cosines, axis)
        return list(x_NZFHW)

    def synthesise(self, *spectra: Tensor) -> list[Tensor]:
        """The inverse of analyse."""
        x_NZFHW = torch.stack(spectra)
        for axis, cosines in enumerate(self._transforms, 2):
            x_NZFHW = _along(x_NZFHW, cosines.T, axis)
        return [patchify(x_ZFHW, self.patch)[0] for x_ZFHW in x_NZFHW]

    def combine(self, spectra: Sequence[Tensor], weights_BR: Tensor) -> Tensor:
        """The sum over r of spectrum r, each band of it times its weight: [Z, F, H, W]."""
        weights_RFHW = weights_BR.T[:, self.index_FHW]
        out_ZFHW = weights_RFHW[0] * spectra[0]
        for weight_FHW, spectrum_ZFHW in zip(weights_RFHW[1:], spectra[1:], strict=True):
            out_ZFHW = out_ZFHW + weight_FHW * spectrum_ZFHW
        return out_ZFHW

    def products(self, spectra: Sequence[Tensor]) -> Tensor:
        """[B, R, R] float64: the sums of products of R spectra over the coefficients of a band."""
        flat_RFHWZ = torch.stack([s.permute(1, 2, 3, 0) for s in spectra]).double()
        parts = [flat_RFHWZ[:, self.index_FHW == b].flatten(1) for b in range(self.num_bands)]
        return torch.stack([part_RN @ part_RN.T for part_RN in parts])


@lru_cache(maxsize=64)
def bands_of(grid: Grid, patch: Grid, edges: tuple[float, ...], device: torch.device) -> Bands:
    return Bands(grid, patch, edges, device)


def _cosines(n: int) -> Tensor:
    """[n, n]: row k is the k-th cosine."""
    k = torch.arange(n, dtype=torch.float64)
    cosines = torch.cos(math.pi / n * (k[None] + 0.5) * k[:, None]) * math.sqrt(2 / n)
    cosines[0] /= math.sqrt(2)
    return cosines.float()


def _along(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """The matrix applied along one axis; one of a single position is left alone."""
    if matrix.shape[0] == 1:
        return x
    return (x.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
