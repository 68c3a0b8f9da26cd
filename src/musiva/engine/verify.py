"""Whether a captured denoiser says what its class says, before anyone relies on it."""

from __future__ import annotations

import math

import torch

from musiva.compiler import Sizes
from musiva.core.errors import CannotCapture
from musiva.engine.runner import PlainRun
from musiva.models.captured import CapturedDenoiser, Signature
from musiva.models.captured.check import largest_error

__all__ = ["verified"]

# No extent is another one's by chance, and none is of those that a capture has seen.
SIZES: tuple[Sizes, ...] = (
    {"frames": 4, "rows": 6, "columns": 8, "words": 9, "words_2": 5},
    {"frames": 6, "rows": 4, "columns": 10, "words": 7, "words_2": 6},
)
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


@torch.no_grad()
def verified(denoiser: CapturedDenoiser, signature: Signature) -> CapturedDenoiser:
    """The denoiser, if a mixed pack of two small samples is what the class makes of each; what is
    not finite in both says nothing. Raises CannotCapture.
    """
    sizes = [signature.sized(one) for one in SIZES]
    error = largest_error(denoiser.captured, signature, sizes, PlainRun())
    if not math.isnan(error) and error > TOLERANCE[denoiser.dtype]:
        name = type(denoiser.module).__name__
        raise CannotCapture(f"{name}: its program differs from the class by {error:.1g}")
    return denoiser
