"""What every denoiser is.

A denoiser is single-device and knows no policy: `embed`, `segments` and `head` over a pack, with a
`Run` (`musiva.core.run`) for whatever mixes tokens. The same code serves and trains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from musiva.core.pack import Pack
from musiva.core.run import Run, Streams

__all__ = ["Denoiser", "Inputs", "SegmentFn", "Site"]

Site = str
SegmentFn = Callable[[Streams, Pack, Run], Streams]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a pack is denoised from.

    latent_TC: patchified latents, one token per row, channels ordered (C, patch frames, height,
    width). timestep_M: what the model was trained to read as time, one per modulation row. text_TD:
    rows of the text encoder, or None. extra: further conditions, one row [M, ...] each.
    """

    latent_TC: Tensor
    timestep_M: Tensor
    text_TD: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)


class Denoiser(nn.Module):
    """Base of all denoisers.

    patch: tokens are blocks of (frames, height, width) latent positions. in_channels, out_channels:
    of the latent. text_width: width of the text rows, or None. extra: names of the further
    conditions it needs. out_of_reach: why `reach` is less than usual; empty where it
    is not. align: image rows of tokens that ranks must not divide, as a grid that is halved needs.
    """

    patch: tuple[int, int, int]
    in_channels: int
    out_channels: int
    text_width: int | None = None
    extra: tuple[str, ...] = ()
    out_of_reach: str = ""
    align: int = 1

    @property
    def divided(self) -> tuple[str, ...]:
        """Streams whose rows ranks share out; others every rank computes. None where every rank
        needs all of a sample.
        """
        return ("image",)

    @property
    def reach(self) -> tuple[str, ...]:
        """What can be done with it. "packs": samples of any sizes share a forward. "batches": those
        of one size do. "tiles": some of the tokens are enough. "gates": what a part adds can be
        held. "evaluations": whole ones can be held or forecast.
        """
        return "packs", "tiles", "gates", "evaluations"

    def refused(self, pack: Pack) -> frozenset[int]:
        """Places of the branches of a pack that have to run apart, in the hands of `apart`."""
        return frozenset()

    @property
    def apart(self) -> Denoiser:
        """The denoiser for whole branches that this one refuses."""
        return self

    def embed(self, inputs: Inputs, pack: Pack, run: Run) -> Streams:
        """Inputs to streams, [T, D] each."""
        raise NotImplementedError

    @property
    def segments(self) -> Sequence[tuple[Site, SegmentFn]]:
        """The blocks in order, each from streams to streams; the runner owns the loop over them."""
        raise NotImplementedError

    def head(self, streams: Streams, pack: Pack, run: Run) -> Tensor:
        """Streams to the prediction, [T, out_channels * patch volume], channels ordered as in the
        inputs.
        """
        raise NotImplementedError
