"""Pictures decoded by all ranks of a group, or by the first of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from musiva.comm import Group, Lone, in_threads
from musiva.core.types import DecodeItem
from musiva.engine import load_pipeline
from musiva.engine.decoding import LEAST, Decoding
from musiva.engine.pipeline import Pipeline


@cache
def pipeline() -> Pipeline:
    return load_pipeline("default")


def latent(rows: int, columns: int = 6) -> Tensor:
    shape = (pipeline().denoiser.in_channels, rows, columns)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def decoded(
    group: Group, own: Pipeline, x: Tensor, cuts: Sequence[int] = (), pictures: int = 1
) -> list[Any]:
    """What comes of it on a rank, cut into items at these parts; and what it has sent."""
    decoding = Decoding(own, group)
    for _ in range(pictures):
        group.sent_bytes, kept = 0, None
        for first, last in zip((0, *cuts), (*cuts, None), strict=True):
            kept = decoding.advance(DecodeItem("s", first, last), x, kept)
    return [kept, group.sent_bytes]


@pytest.mark.parametrize("cuts", [(), (1, 4)])
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_decode_a_strip_each(size: int, cuts: tuple[int, ...]) -> None:
    x = latent(LEAST * size + 1)
    whole, _ = decoded(Lone(), pipeline(), x)
    for found, _ in in_threads(decoded, size, pipeline(), x, cuts):
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-5)


def test_a_small_picture_is_the_first_ranks() -> None:
    x = latent(2 * LEAST - 1)
    whole, _ = decoded(Lone(), pipeline(), x)
    (first, sent), (second, _) = in_threads(decoded, 2, pipeline(), x)
    assert torch.equal(first, whole)
    assert second is None
    assert sent == 0


class Odd(nn.Module):
    """An autoencoder that looks at all rows in its own way."""

    def __init__(self, fn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner = pipeline().vae
        self.fn = fn

    @property
    def decode_parts(self) -> Sequence[Callable[[Tensor], Tensor]]:
        return [self.fn, *self.inner.decode_parts]

    def unscale(self, x: Tensor) -> Tensor:
        return self.inner.unscale(x)


def fails(x: Tensor) -> Tensor:
    if x.shape[-2] < x.shape[-1]:
        raise ZeroDivisionError("of strips alone")
    return x


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x - x.mean(-2, keepdim=True),
        lambda x: nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear"),
        fails,
    ],
)
def test_where_strips_are_not_the_picture_the_first_rank_decodes(
    fn: Callable[[Tensor], Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    own = replace(pipeline(), vae=Odd(fn))
    x = latent(2 * LEAST + 1)
    whole, _ = decoded(Lone(), own, x)
    with caplog.at_level(logging.INFO):
        (first, sent), (second, _) = in_threads(decoded, 2, own, x, (), 2)
    assert torch.equal(first, whole)
    assert second is None
    # It is tried once, and then all know.
    assert sent == 0
