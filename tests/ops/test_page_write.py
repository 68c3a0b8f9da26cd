"""Writing keys and values into pages: right values in the right slots, nothing anywhere else."""

from __future__ import annotations

import pytest
import torch

from musiva.ops.page_write import page_write, page_write_reference
from musiva.ops.page_write.registered import page_write_op

# By the dtype of the slab, relative to the largest value.
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 6e-3}
FORMS = {
    "plain": {},
    "normed": {"k_norm": True},
    "rotated": {"rotary": True},
    "normed and rotated": {"k_norm": True, "rotary": True},
    "normed and rotated by halves": {"k_norm": True, "rotary": True, "pairs": "halves"},
}
DTYPES = [
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float32, torch.bfloat16),
]


def case(form: str, channels: int, dtype: torch.dtype, slab_dtype: torch.dtype):
    """(k, v, slab, slots), what the form asks for. Strided tensors; rows that are not to be
    written and the whole slab hold NaN, and the larger slab that it is a part of zeros.
    """
    torch.manual_seed(0)
    k_THK, v_THK = torch.randn(37, 3, 3, channels).to(dtype).unbind(1)[1:]
    slot_T = torch.randperm(8 * 10)[:37]
    slot_T[[0, 5, 36]] = -1
    k_THK[slot_T < 0] = torch.nan
    v_THK[slot_T < 0] = torch.nan
    slab_PN2HK = torch.zeros(8, 2, 10, 2, 3, channels, dtype=slab_dtype)[:, 1].fill_(torch.nan)
    wanted = dict(FORMS[form])
    if "k_norm" in wanted:
        wanted["k_norm"] = (torch.randn(channels).to(dtype), 1e-5)
    if "rotary" in wanted:
        wanted["rotary"] = torch.randn(37, 2, channels).unbind(1)
    return (k_THK, v_THK, slab_PN2HK, slot_T), wanted


def assert_written(slab_PN2HK, tensors, wanted) -> None:
    k_THK, v_THK, _, slot_T = tensors
    expected = torch.full(slab_PN2HK.shape, torch.nan, dtype=torch.float64)
    exact = dict(wanted)
    if "k_norm" in wanted:
        exact["k_norm"] = (wanted["k_norm"][0].double(), wanted["k_norm"][1])
    page_write_reference(k_THK.double(), v_THK.double(), expected, slot_T, **exact)
    torch.testing.assert_close(
        slab_PN2HK.double(),
        expected,
        rtol=TOLERANCES[slab_PN2HK.dtype],
        atol=TOLERANCES[slab_PN2HK.dtype],
        equal_nan=True,
    )
    around = slab_PN2HK.as_strided((8 * 2 * 10 * 2 * 3 * slab_PN2HK.shape[-1],), (1,), 0)
    assert around.isnan().sum() == expected.isnan().sum(), "written outside the slab"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dtype", "slab_dtype"), DTYPES, ids=str)
@pytest.mark.parametrize("channels", [8, 40, 72])
def test_matches_the_reference(channels, dtype, slab_dtype, form) -> None:
    tensors, wanted = case(form, channels, dtype, slab_dtype)
    page_write(*tensors, **wanted)
    assert_written(tensors[2], tensors, wanted)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("dtype", "slab_dtype", "channels"), [(*DTYPES[0], 40), (*DTYPES[1], 72), (*DTYPES[2], 8)]
)
def test_kernel_matches_the_reference(kernel, dtype, slab_dtype, channels, form) -> None:
    tensors, wanted = case(form, channels, dtype, slab_dtype)
    weight_K, eps = wanted.get("k_norm", (None, 0.0))
    cos_TK, sin_TK = wanted.get("rotary", (None, None))
    flat = (*tensors, weight_K, eps, cos_TK, sin_TK, "pairs" not in wanted)
    _, after = kernel("page_write", "page_write_triton", *flat)
    assert_written(after[2], tensors, wanted)


def test_rotation_keeps_products_of_equal_distance() -> None:
    """What a rotary embedding is for; both ways to pair channels."""
    torch.manual_seed(0)
    angle_T1 = torch.arange(16.0)[:, None] * 0.3
    frequency_K = 1.7 ** -torch.arange(4.0)
    k_THK = torch.randn(1, 1, 8).expand(16, 1, 8)
    for pairs in ("interleaved", "halves"):
        angle_TK = angle_T1 * (
            frequency_K.repeat_interleave(2) if pairs == "interleaved" else frequency_K.repeat(2)
        )
        slab = torch.zeros(1, 16, 2, 1, 8)
        rotary = angle_TK.cos(), angle_TK.sin()
        page_write(k_THK, k_THK, slab, torch.arange(16), rotary=rotary, pairs=pairs)
        turned_TK = slab[0, :, 0, 0]
        products_TT = turned_TK @ turned_TK.T
        for distance in (0, 1, 5):
            along = products_TT.diagonal(distance)
            torch.testing.assert_close(along, along[:1].expand_as(along), rtol=0, atol=1e-5)
        assert products_TT.std() > 0.1


def test_is_an_operator_that_traces_see_whole() -> None:
    tensors, wanted = case("normed and rotated", 8, torch.float32, torch.float32)
    clean = tuple(torch.nan_to_num(x) for x in tensors)
    args = (*clean, *wanted["k_norm"], *wanted["rotary"], True)
    torch.library.opcheck(page_write_op, args)
    torch.library.opcheck(page_write_op, (*clean, None, 0.0, None, None, False))
    slabs = []
    for write in (page_write, torch.compile(page_write, backend="aot_eager", fullgraph=True)):
        slab = clean[2].clone()
        write(clean[0], clean[1], slab, clean[3], **wanted)
        slabs.append(slab)
    assert torch.equal(*slabs)


def test_no_gradient_flows_into_pages() -> None:
    slab, k_THK = torch.zeros(2, 4, 2, 1, 8), torch.randn(4, 1, 8, requires_grad=True)
    page_write(k_THK * 2, k_THK, slab, torch.arange(4), rotary=(torch.ones(4, 8),) * 2)
    assert not slab.requires_grad
    assert torch.equal(slab[0, :, 1], k_THK.detach())


def test_bad_arguments_raise() -> None:
    k_THK, slab = torch.zeros(2, 1, 7), torch.zeros(2, 4, 2, 1, 7)
    slot_T, table = torch.tensor([0, 8]), torch.ones(2, 7)
    with pytest.raises(ValueError, match="7 channels"):
        page_write(k_THK, k_THK, slab, slot_T, rotary=(table, table))
    with pytest.raises(ValueError, match="thirds"):
        page_write(k_THK, k_THK, slab, slot_T, pairs="thirds")
    with pytest.raises(IndexError):
        page_write(k_THK, k_THK, slab, slot_T)
