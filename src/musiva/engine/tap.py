"""A look at what a layer inside a segment is given, without running the rest of the segment.

T rows, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from musiva.core.errors import ExecutionFailed
from musiva.core.pack import Pack, Rows
from musiva.core.run import QKV, Over, Run, Streams
from musiva.models import Denoiser, Inputs

__all__ = ["modulated_input", "modulated_site"]

X = TypeVar("X", Tensor, Streams)
V = TypeVar("V")
# Of a pack whose streams all have another number of rows, so that a layer's input tells its stream.
GRID, TEXT_ROWS = (1, 8, 8), 32


def modulated_input(model: Denoiser, site: str, streams: Streams, pack: Pack, run: Run) -> Tensor:
    """[T, D]: what the layer at `site` in the first segment is given; nothing behind it runs."""
    found = _first_input(model, streams, pack, run, lambda name, _: name == site)
    assert found is not None, f"no layer at {site}"
    return found[1]


def modulated_site(model: Denoiser, like: Inputs, run: Run) -> str:
    """Where the modulated input of a model is: at its first linear layer or convolution of image
    rows inside a branch, since branches begin with their norm and modulation. Sites are constant,
    so that it is looked for once, in a small pack. like: inputs of any pack.

    Raises ExecutionFailed for a model whose first segment has no such layer.
    """
    text_TD = like.text_TD
    pack = Pack.build(
        [GRID], None if text_TD is None else [TEXT_ROWS], device=like.latent_TC.device
    )
    num_rows, num_mod_rows = pack.image.num_rows, pack.num_mod_rows
    inputs = replace(
        like,
        latent_TC=torch.zeros_like(like.latent_TC[:1]).repeat(num_rows, 1),
        timestep_M=like.timestep_M[:num_mod_rows],
        text_TD=None if text_TD is None else torch.zeros_like(text_TD[:1]).repeat(TEXT_ROWS, 1),
        extra={name: x[:num_mod_rows] for name, x in like.extra.items()},
    )
    streams = model.embed(inputs, pack, run)
    found = _first_input(model, streams, pack, run, lambda _, x: x.shape[0] == num_rows)
    if found is None:
        message = "the first segment of this model has no modulated input; use another gate"
        raise ExecutionFailed(message)
    return found[0]


def _first_input(
    model: Denoiser, streams: Streams, pack: Pack, run: Run, wanted: Callable[[str, Tensor], bool]
) -> tuple[str, Tensor] | None:
    try:
        model.segments[0][1](streams, pack, Tap(run, wanted))
    except Reached as reached:
        return reached.site, reached.x
    return None


class Reached(Exception):
    """Ends a segment where its tap is; nobody else sees it."""

    def __init__(self, site: str, x: Tensor) -> None:
        super().__init__(site)
        self.site, self.x = site, x


class Tap:
    """Another run up to the first linear layer or convolution inside a branch that is wanted, by
    its site and its input: there it raises Reached.
    """

    def __init__(self, run: Run, wanted: Callable[[str, Tensor], bool]) -> None:
        self._run, self._wanted = run, wanted
        self._depth = 0

    def branch(self, site: str, fn: Callable[[X, Pack], X], x: X, pack: Pack) -> X:
        self._depth += 1
        value = self._run.branch(site, fn, x, pack)
        self._depth -= 1
        return value

    def attend(
        self, site: str, qkv: Mapping[str, QKV], pack: Pack, over: Over = "sample"
    ) -> Streams:
        return self._run.attend(site, qkv, pack, over)

    def conv(
        self, site: str, layer: nn.Conv2d, x: Tensor, rows: Rows, to: Rows | None = None
    ) -> Tensor:
        self._look(site, x)
        return self._run.conv(site, layer, x, rows, to)

    def reduce(self, site: str, left: Tensor, right: Tensor, rows: Rows) -> Tensor:
        return self._run.reduce(site, left, right, rows)

    def whole(self, site: str, x: Tensor, rows: Rows) -> Sequence[Tensor]:
        return self._run.whole(site, x, rows)

    def linear(
        self, site: str, layer: nn.Linear, x: Tensor, pack: Pack, activation: str | None = None
    ) -> Tensor:
        self._look(site, x)
        return self._run.linear(site, layer, x, pack, activation)

    def once(self, site: str, fn: Callable[[], V], key: Hashable) -> V:
        return self._run.once(site, fn, key)

    def _look(self, site: str, x: Tensor) -> None:
        if self._depth and self._wanted(site, x):
            raise Reached(site, x)
