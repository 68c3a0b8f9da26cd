"""Attention over packs against the formula, in every grouping; forward and backward."""

from __future__ import annotations

import pytest
import torch

from musiva.core.pack import Pack
from musiva.ops.attention import attend, attend_reference

TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 3e-2}
# Equal neighbours (one call), odd sizes, a single token, several frames.
GRIDS = [(2, 3, 5), (2, 3, 5), (1, 4, 4), (1, 1, 1), (3, 2, 7)]
TEXTS = [7, 7, 1, 16, 33]


def random_qkv(rows: int, dtype: torch.dtype, seed: int):
    """Strided as a fused projection leaves them, and NaN wherever a row is padding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, 2, 8, generator=generator).to(dtype).unbind(1)


def poison(x: torch.Tensor, pack: Pack, stream: str) -> torch.Tensor:
    return torch.where((pack.streams[stream].token_T >= 0)[:, None, None], x, torch.nan)


def streams_of(kind: str, pack: Pack, dtype: torch.dtype):
    image = random_qkv(pack.image.num_rows, dtype, 1)
    text = random_qkv(pack.streams["text"].num_rows, dtype, 2)
    return {
        "self": {"image": image},
        "cross": {"image": (image[0], None, None), "text": (None, *text[1:])},
        "joint": {"text": text, "image": image},
        "queries of one": {"text": (None, *text[1:]), "image": image},
    }[kind]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(
    ("kind", "over"),
    [
        ("self", "sample"),
        ("self", "frame"),
        ("self", "column"),
        ("self", (2, 3)),
        ("cross", "sample"),
        ("joint", "sample"),
        ("queries of one", "sample"),
    ],
)
def test_matches_the_reference(kind: str, over, dtype: torch.dtype) -> None:
    pack = Pack.build(GRIDS, TEXTS)
    qkv = streams_of(kind, pack, dtype)
    exact = {n: tuple(None if x is None else x.double() for x in y) for n, y in qkv.items()}
    poisoned = {
        n: (y[0], *(None if x is None else poison(x, pack, n) for x in y[1:]))
        for n, y in qkv.items()
    }
    ours, expected = attend(poisoned, pack, over), attend_reference(exact, pack, over)
    assert ours.keys() == expected.keys()
    for name, reference in expected.items():
        for a, b in zip(pack.split(ours[name], name), pack.split(reference, name), strict=True):
            assert (a.double() - b).abs().max() <= TOLERANCES[dtype]


@pytest.mark.parametrize(
    ("kind", "over"),
    [("self", "sample"), ("self", "column"), ("self", (2, 2)), ("joint", "sample")],
)
def test_gradients_match_the_reference(kind: str, over) -> None:
    pack = Pack.build(GRIDS, TEXTS)
    gradients = []
    for fn in (attend, attend_reference):
        qkv = streams_of(kind, pack, torch.float64)
        leaves = {n: tuple(x.clone().requires_grad_() for x in y) for n, y in qkv.items()}
        out = fn(leaves, pack, over)
        sum(part.square().sum() for n, x in out.items() for part in pack.split(x, n)).backward()
        gradients.append([x.grad for y in leaves.values() for x in y])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert sum(float(g.abs().sum()) for g in gradients[0]) > 1


def test_queries_of_a_part_of_the_rows() -> None:
    pack = Pack.build(GRIDS, TEXTS)
    qkv = streams_of("cross", pack, torch.float32)
    part = pack.take({"image": [torch.arange(1, s.length, 3) for s in pack.image.segments]})
    rows, real = part.image.source_T, part.image.token_T >= 0
    taken = attend({"image": (qkv["image"][0][rows], None, None), "text": qkv["text"]}, part)
    whole = attend(qkv, pack)["image"][rows]
    torch.testing.assert_close(taken["image"][real], whole[real], rtol=1e-6, atol=1e-6)
    own = random_qkv(pack.image.num_rows, torch.float32, 1)
    with pytest.raises(RuntimeError, match="taken from this pack"):
        attend({"image": tuple(x[rows] for x in own)}, part)


@pytest.mark.parametrize("keys", [24, 64, 65, 191, 192, 250])
def test_few_and_many_keys_in_bfloat16(keys: int) -> None:
    """The path by heads, beside the fused one, and alone as in company."""
    pack = Pack.build([(1, 5, 7), (1, 1, keys), (1, 1, keys), (1, 2, 3)])
    q, k, v = random_qkv(pack.image.num_rows, torch.bfloat16, 3)
    with torch.inference_mode():
        ours = attend({"image": (q, k, v)}, pack)["image"]
        exact = attend_reference({"image": (q.double(), k.double(), v.double())}, pack)["image"]
        for a, b in zip(pack.split(ours), pack.split(exact), strict=True):
            assert (a.double() - b).abs().max() <= TOLERANCES[torch.bfloat16]
        alone = Pack.build([(1, 1, keys)])
        for segment in pack.image.segments[1:3]:
            rows = slice(segment.start, segment.start + alone.image.num_rows)
            lone = attend({"image": (q[rows], k[rows], v[rows])}, alone)["image"]
            assert torch.equal(lone[:keys], ours[rows][:keys])


def test_only_one_stream_can_be_grouped_by_frames() -> None:
    pack = Pack.build(GRIDS, TEXTS)
    with pytest.raises(ValueError, match="one stream"):
        attend(streams_of("joint", pack, torch.float32), pack, "frame")
