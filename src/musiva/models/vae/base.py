"""What every autoencoder offers.

B samples, C channels, H x W pixels, h x w positions of a latent. Those of clips have frames behind
the channels, F of pixels and F' of a latent, of which a picture is one and may be without the axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from torch import Tensor, nn

__all__ = ["Autoencoder"]


class Autoencoder(Protocol):
    """Pixels to latents and back. Holds no state beside its weights."""

    @property
    def downscale(self) -> int:
        """Pixels per latent position along each side."""
        ...

    @property
    def frame_downscale(self) -> int:
        """Frames per latent frame behind the first, which is a frame by itself; 1 where there are
        only pictures.
        """
        ...

    @property
    def held_at_pixels(self) -> float:
        """The most numbers a pixel that `decode` holds at once, about, weights apart."""
        ...

    def encode(self, pixels: Tensor, /) -> tuple[Tensor, Tensor]:
        """Pixels in -1..1 [B, 3, H, W] to (mean, log variance), [B, C, h, w] each, not yet
        scaled.
        """
        ...

    def decode(self, latent: Tensor, /) -> Tensor:
        """Unscaled latents [B, C, h, w] to pixels, about -1..1, [B, 3, H, W]."""
        ...

    @property
    def decode_parts(self) -> Sequence[Callable[[Tensor], Tensor]]:
        """What `decode` does, one after the other."""
        ...

    @property
    def decode_shares(self) -> Sequence[float]:
        """Of the work of `decode`, about, that of each part."""
        ...

    def scale(self, latent: Tensor, /) -> Tensor:
        """Encoder latents to the units a denoiser works in."""
        ...

    def unscale(self, latent: Tensor, /) -> Tensor:
        """The inverse of `scale`."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Its weights."""
        ...
