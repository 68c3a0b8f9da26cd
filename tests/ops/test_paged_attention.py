"""Attention to paged keys: against the formula, against `attend`, and nobody else's pages."""

from __future__ import annotations

import pytest
import torch

from musiva.core.pack import Pack, Rows
from musiva.ops.attention import attend
from musiva.ops.page_write import page_write
from musiva.ops.paged_attention import paged_attend, paged_attend_reference
from musiva.ops.paged_attention.registered import paged_attend_op

TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 3e-2}
LENGTHS = [1, 15, 17, 64, 65, 130]
ACTIVE = [1, 3, 17, 40, 1, 101]


def taken(active: list[int], lengths: list[int]) -> Rows:
    """`active` tokens, spread out, of samples of so many tokens each."""
    full = Rows.build([(1, 1, n) for n in lengths])
    tokens = [
        (torch.arange(n) * size) // max(n, 1) for n, size in zip(active, lengths, strict=True)
    ]
    return full.take(tokens)


def random_q(rows: Rows, heads: int, channels: int, dtype: torch.dtype) -> torch.Tensor:
    """Strided as a fused projection leaves it, and NaN wherever a row is padding."""
    q_THK = torch.randn(rows.num_rows, 3, heads, channels)[:, 1].to(dtype)
    q_THK[rows.token_T < 0] = torch.nan
    return q_THK


def random_pages(
    lengths: list[int], page_size: int, heads: int, channels: int, dtype: torch.dtype, pages: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """A slab and a page table. All that no sample owns is NaN: page 0, which pads the table, the
    ends of last pages, a page between samples. pages: "in a row", "fragmented", or "strided", a
    part of a larger slab whose rest is NaN too.
    """
    counts = [-(-n // page_size) for n in lengths]
    free = torch.arange(1, sum(counts) + len(counts) + 1)
    if pages == "fragmented":
        free = free[torch.randperm(len(free))]
    shape = [len(free) + 1, page_size, 2, heads, channels]
    slab_PN2HK = torch.full(shape, torch.nan).to(dtype)
    if pages == "strided":
        shape[-1] += 3
        slab_PN2HK = torch.full([2, *shape], torch.nan).to(dtype).transpose(0, 1)[:, 1, ..., :-3]
    table_SM = torch.zeros(len(lengths), max(counts) + 1, dtype=torch.int64)
    for s, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        table_SM[s, :count], free = free[:count], free[count + 1 :]
        token_L = torch.arange(length)
        slab_PN2HK[table_SM[s, token_L // page_size], token_L % page_size] = torch.randn(
            length, 2, heads, channels
        ).to(dtype)
    return slab_PN2HK, table_SM


def assert_close(ours_THK: torch.Tensor, q, pages, table, lengths, rows: Rows) -> None:
    expected = paged_attend_reference(q.double(), pages.double(), table, lengths, rows)
    real_T = rows.token_T >= 0
    assert ours_THK.dtype == q.dtype
    worst = (ours_THK.double() - expected)[real_T].abs().max()
    assert worst <= TOLERANCES[q.dtype]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("pages", ["in a row", "fragmented", "strided"])
@pytest.mark.parametrize(("page_size", "channels"), [(16, 32), (16, 40), (10, 8), (64, 72)])
def test_matches_the_reference(page_size, channels, pages, dtype) -> None:
    torch.manual_seed(0)
    rows, lengths_S = taken(ACTIVE, LENGTHS), torch.tensor(LENGTHS)
    q_THK = random_q(rows, 3, channels, dtype)
    slab, table_SM = random_pages(LENGTHS, page_size, 3, channels, dtype, pages)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            ours = paged_attend(q_THK, slab, table_SM, lengths_S, rows)
        assert_close(ours, q_THK, slab, table_SM, lengths_S, rows)


@pytest.mark.parametrize(
    ("dtype", "slab_dtype", "pages", "page_size", "channels"),
    [
        (torch.float32, torch.float32, "fragmented", 16, 32),
        (torch.float32, torch.bfloat16, "strided", 10, 40),
        (torch.bfloat16, torch.bfloat16, "fragmented", 64, 72),
        (torch.bfloat16, torch.bfloat16, "in a row", 16, 8),
    ],
)
def test_kernel_matches_the_reference(
    kernel, dtype, slab_dtype, pages, page_size, channels
) -> None:
    torch.manual_seed(0)
    rows, lengths_S = taken(ACTIVE, LENGTHS), torch.tensor(LENGTHS)
    q_THK = random_q(rows, 2, channels, dtype)
    slab, table_SM = random_pages(LENGTHS, page_size, 2, channels, slab_dtype, pages)
    args = (q_THK, slab, table_SM, lengths_S, rows.segment_T, rows.token_T)
    ours, _ = kernel("paged_attention", "paged_attend_triton", *args)
    assert_close(ours, q_THK, slab, table_SM, lengths_S, rows)
    assert not ours[rows.token_T < 0].any()


def test_kernel_agrees_with_the_cpu_on_samples_without_rows_or_tokens(kernel) -> None:
    torch.manual_seed(0)
    lengths, rows = [20, 30, 0, 40], taken([0, 7, 3, 33], [20, 30, 5, 40])
    q_THK = random_q(rows, 1, 16, torch.float32)
    slab, table_SM = random_pages(lengths, 16, 1, 16, torch.float32, "fragmented")
    here = paged_attend(q_THK, slab, table_SM, torch.tensor(lengths), rows)
    args = (q_THK, slab, table_SM, torch.tensor(lengths), rows.segment_T, rows.token_T)
    there, _ = kernel("paged_attention", "paged_attend_triton", *args)
    real_T = rows.token_T >= 0
    torch.testing.assert_close(here[real_T], there[real_T], rtol=0, atol=2e-6)
    assert not here[real_T & (rows.segment_T == 2)].any()


def test_a_sample_keeps_its_nan_to_itself(kernel) -> None:
    """Three samples in one block of queries; the middle one is broken."""
    torch.manual_seed(0)
    lengths, rows = [20, 30, 40], taken([5, 7, 9], [20, 30, 40])
    lengths_S, q_THK = torch.tensor(lengths), random_q(rows, 1, 16, torch.float32)
    slab, table_SM = random_pages(lengths, 16, 1, 16, torch.float32, "fragmented")
    broken = slab.clone()
    broken[table_SM[1, 0], 3] = torch.nan
    results = []
    for pages in (slab, broken):
        args = (q_THK, pages, table_SM, lengths_S, rows.segment_T, rows.token_T)
        results.append(kernel("paged_attention", "paged_attend_triton", *args)[0])
        results.append(paged_attend(q_THK, pages, table_SM, lengths_S, rows))
    real_T = rows.token_T >= 0
    others_T = real_T & (rows.segment_T != 1)
    for whole, part in zip(results[:2], results[2:], strict=True):
        assert torch.equal(whole[others_T], part[others_T])
        assert part[real_T & ~others_T].isnan().all()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("pages", ["in a row", "fragmented", "strided"])
@pytest.mark.parametrize(("page_size", "channels"), [(16, 32), (64, 40)])
def test_a_full_step_has_the_bytes_of_attend(page_size, channels, pages, dtype) -> None:
    """All rows are queries and all keys come from pages: nothing tells the two apart."""
    torch.manual_seed(0)
    lengths = [1, 64, 65, 191, 192, 192, 300]
    pack = Pack.build([(1, 1, n) for n in lengths])
    rows, real_T = pack.image, pack.image.token_T >= 0
    q_THK, k_THK, v_THK = torch.randn(rows.num_rows, 3, 4, channels).to(dtype).unbind(1)
    slab, table_SM = random_pages(lengths, page_size, 4, channels, dtype, pages)
    with torch.inference_mode():
        page_TM, token_T = table_SM[rows.segment_T], rows.token_T.clamp(min=0)
        page_T = page_TM.gather(1, token_T[:, None] // page_size)[:, 0]
        slot_T = torch.where(real_T, page_T * page_size + token_T % page_size, -1)
        page_write(k_THK, v_THK, slab, slot_T)
        ours = paged_attend(q_THK, slab, table_SM, torch.tensor(lengths), rows)
        dense = attend({"image": (q_THK, k_THK, v_THK)}, pack)["image"]
    assert torch.equal(ours[real_T], dense[real_T])


def test_a_sample_has_the_same_bytes_alone() -> None:
    torch.manual_seed(0)
    rows, lengths_S = taken(ACTIVE, LENGTHS), torch.tensor(LENGTHS)
    q_THK = random_q(rows, 3, 40, torch.float32)
    slab, table_SM = random_pages(LENGTHS, 16, 3, 40, torch.float32, "fragmented")
    ours = paged_attend(q_THK, slab, table_SM, lengths_S, rows)
    for i, s in enumerate(rows.segments):
        alone, at = taken([ACTIVE[i]], [LENGTHS[i]]), slice(s.start, s.start + s.pitch)
        q_alone = q_THK.new_zeros(alone.num_rows, 3, 40)
        q_alone[: s.pitch] = q_THK[at]
        lone = paged_attend(q_alone, slab, table_SM[i : i + 1], lengths_S[i : i + 1], alone)
        assert torch.equal(lone[: s.length], ours[at][: s.length])


def test_is_an_operator_that_traces_see_whole() -> None:
    torch.manual_seed(0)
    lengths, rows = [20, 33], taken([20, 7], [20, 33])
    q_THK = torch.randn(rows.num_rows, 2, 8)
    slab, table_SM = random_pages(lengths, 16, 2, 8, torch.float32, "fragmented")
    lengths_S = torch.tensor(lengths)
    args = (q_THK, slab, table_SM, lengths_S, rows.segment_T, rows.token_T)
    torch.library.opcheck(paged_attend_op, args)
    direct = paged_attend(q_THK, slab, table_SM, lengths_S, rows)
    compiled = torch.compile(paged_attend, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(q_THK, slab, table_SM, lengths_S, rows), direct)


@pytest.mark.parametrize("table", [[3], [3, 4], [1, 3], [0, 9]])
def test_a_table_that_leads_nowhere_raises(table: list[int]) -> None:
    rows, slab = taken([4], [20]), torch.zeros(4, 16, 2, 1, 8)
    table_SM, length = torch.tensor([table]), 20 if table != [1, 3] else 33
    with pytest.raises((ValueError, IndexError), match=r"does not lead|out of range"):
        paged_attend(torch.zeros(rows.num_rows, 1, 8), slab, table_SM, torch.tensor([length]), rows)
