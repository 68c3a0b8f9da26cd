"""Rows out of a pack and back: the same bytes as one at a time, and absent rows are left alone."""

from __future__ import annotations

import pytest
import torch

from musiva.ops.rows import (
    gather_rows,
    gather_rows_reference,
    scatter_rows,
    scatter_rows_reference,
)

DTYPES = [torch.float32, torch.bfloat16]


def case(rows: int, width: int, dtype: torch.dtype):
    """(x, index, values); strided; what must not be read holds NaN: row 0, values at -1."""
    torch.manual_seed(0)
    x_TD = torch.randn(rows + 1, 2 * width).to(dtype)[:, ::2]
    x_TD[0] = torch.nan
    index_R = 1 + torch.randperm(rows)[: max(rows // 2, 1)]
    index_R = torch.cat([index_R, index_R.new_full((2,), -1)])
    values_RD = torch.randn(width, len(index_R)).t()
    values_RD[index_R < 0] = torch.nan
    return x_TD, index_R, values_RD


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "width"), [(1, 8), (17, 1), (64, 40), (130, 1500)])
def test_matches_the_reference(rows, width, dtype) -> None:
    x_TD, index_R, values_RD = case(rows, width, dtype)
    taken_RD = gather_rows(x_TD, index_R)
    assert torch.equal(taken_RD, gather_rows_reference(x_TD, index_R))
    assert not taken_RD.isnan().any()
    assert torch.equal(gather_rows(x_TD, index_R[:-2]), taken_RD[:-2])
    expected_TD = x_TD.clone()
    scatter_rows_reference(expected_TD, index_R, values_RD)
    scatter_rows(x_TD, index_R, values_RD)
    assert torch.equal(x_TD[1:], expected_TD[1:])
    assert x_TD[0].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "width"), [(17, 40), (5, 1500)])
def test_kernels_match_the_reference(kernel, rows, width, dtype) -> None:
    x_TD, index_R, values_RD = case(rows, width, dtype)
    taken_RD, _ = kernel("rows", "gather_rows_triton", x_TD, index_R)
    assert torch.equal(taken_RD, gather_rows_reference(x_TD, index_R))
    _, (after_TD, *_) = kernel("rows", "scatter_rows_triton", x_TD, index_R, values_RD)
    scatter_rows_reference(x_TD, index_R, values_RD)
    assert torch.equal(after_TD[1:], x_TD[1:])
    assert after_TD[0].isnan().all()


def test_gradients_match_the_reference() -> None:
    x_TD, index_R, values_RD = case(17, 8, torch.float32)
    gradients = []
    for gather, scatter in (
        (gather_rows, scatter_rows),
        (gather_rows_reference, scatter_rows_reference),
    ):
        x = x_TD[1:].clone().requires_grad_()
        values = torch.nan_to_num(values_RD).requires_grad_()
        y = x * 2
        scatter(y, torch.where(index_R > 8, -1, index_R), values)
        gather(y, index_R.clamp(max=16)).square().sum().backward()
        gradients.append((x.grad, values.grad))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)
        assert a.abs().sum() > 1
