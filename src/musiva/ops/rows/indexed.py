"""Gathering and scattering of rows by indexed copies.

T rows of a pack, R rows by index, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gather_rows_indexed", "scatter_rows_indexed"]


def gather_rows_indexed(x_TD: Tensor, index_R: Tensor) -> Tensor:
    """See `gather_rows`; differentiable."""
    rows_RD, absent_R = x_TD.index_select(0, index_R.clamp(min=0)), index_R < 0
    # Mostly none is absent, and masking costs several times the copy; but asking stalls a GPU.
    if x_TD.device.type == "cpu" and not torch.compiler.is_compiling() and not absent_R.any():
        return rows_RD
    # Not a product with the mask: whatever row stands in for an absent one may hold NaN.
    return rows_RD.masked_fill(absent_R[:, None], 0)


def scatter_rows_indexed(x_TD: Tensor, index_R: Tensor, values_RD: Tensor) -> None:
    """See `scatter_rows`; differentiable."""
    written_R = index_R >= 0
    if not written_R.all():
        index_R, values_RD = index_R[written_R], values_RD[written_R]
    x_TD.index_copy_(0, index_R, values_RD.to(x_TD.dtype))
