"""Modulated norm and gated add against gathered tables."""

from __future__ import annotations

import pytest
import torch

from musiva.core.pack import Pack
from musiva.ops.modulated_norm import (
    gated_add,
    gated_add_reference,
    modulated_norm,
    modulated_norm_reference,
)

TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 6e-2}
LAYOUTS = {
    "equal": [(1, 4, 8)] * 2,
    "as many rows as modulation rows": [(1, 4, 4)],
    "uneven": [(1, 5, 7), (1, 2, 2), (1, 9, 9)],
    "a bucket's padding": [(1, 16, 17)],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("width", [12, 64])
def test_matches_the_reference(layout: str, dtype: torch.dtype, width: int) -> None:
    pack = Pack.build(LAYOUTS[layout])
    torch.manual_seed(0)
    x_TD, value_TD = torch.randn(2, pack.image.num_rows, width).to(dtype)
    table = torch.randn(pack.num_mod_rows, 3, width).to(dtype)
    shift, scale, gate = table.unbind(1)
    exact = [t.double() for t in (x_TD, value_TD, shift, scale, gate)]
    expected = (
        modulated_norm_reference(exact[0], exact[2], exact[3], pack.image, 1e-6),
        gated_add_reference(exact[0], exact[1], exact[4], pack.image),
    )
    with torch.no_grad():
        ours = (
            modulated_norm(x_TD, shift, scale, pack.image, 1e-6),
            gated_add(x_TD, value_TD, gate, pack.image),
        )
    for a, b in zip(ours, expected, strict=True):
        assert a.dtype == dtype
        assert (a.double() - b).abs().max() <= TOLERANCES[dtype]


@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 12), (torch.bfloat16, 72)])
def test_kernels_match_the_reference(kernel, dtype, width) -> None:
    """Rows in a strided tensor, with a mean that swamps the deviations in one of them."""
    pack = Pack.build([(1, 5, 7), (1, 2, 2), (1, 1, 1)])
    torch.manual_seed(0)
    x_TD, value_TD = torch.randn(pack.image.num_rows, 2, 2 * width).to(dtype)[..., ::2].unbind(1)
    x_TD[3] += 100
    shift, scale, gate = torch.randn(pack.num_mod_rows, 3, width).to(dtype).unbind(1)
    scale, gate = scale.clone(), gate.t().clone().t()
    exact = [t.double() for t in (x_TD, value_TD, shift, scale, gate)]
    mod_T = pack.image.segment_T
    normed, _ = kernel("modulated_norm", "modulated_norm_triton", x_TD, shift, scale, mod_T, 1e-6)
    added, _ = kernel("modulated_norm", "gated_add_triton", x_TD, value_TD, gate, mod_T)
    expected = modulated_norm_reference(exact[0], exact[2], exact[3], pack.image, 1e-6)
    bound = torch.full_like(expected[:, :1], TOLERANCES[dtype])
    bound[3] = 1e-4 if dtype == torch.float32 else TOLERANCES[dtype]
    assert ((normed.double() - expected).abs() <= bound).all()
    expected = gated_add_reference(exact[0], exact[1], exact[4], pack.image)
    torch.testing.assert_close(
        added.double(), expected, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype]
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_match_the_reference(layout: str) -> None:
    pack = Pack.build(LAYOUTS[layout])
    torch.manual_seed(0)
    tensors = [
        torch.randn(n, 8, dtype=torch.float64)
        for n in [pack.image.num_rows] * 2 + [pack.num_mod_rows] * 3
    ]
    gradients = []
    for norm, add in ((modulated_norm, gated_add), (modulated_norm_reference, gated_add_reference)):
        x, value, shift, scale, gate = (t.clone().requires_grad_() for t in tensors)
        y = add(norm(x, shift, scale, pack.image, 1e-6), value, gate, pack.image)
        y[pack.image.token_T >= 0].square().sum().backward()
        gradients.append([x.grad, value.grad, shift.grad, scale.grad, gate.grad])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
