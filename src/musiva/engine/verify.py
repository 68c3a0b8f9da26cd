"""Whether a captured denoiser says what its class says, before anyone relies on it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from musiva.compiler import Sizes
from musiva.core.errors import CannotCapture
from musiva.engine.runner import PlainRun
from musiva.models.captured import CapturedDenoiser, Signature
from musiva.models.captured.check import call_of, expected_of, largest_error, relative_error

__all__ = ["leaves_words_out", "verified"]

# No extent is another one's by chance, and none is of those that a capture has seen.
SIZES: tuple[Sizes, ...] = (
    {"frames": 4, "rows": 6, "columns": 8, "words": 9, "words_2": 5},
    {"frames": 6, "rows": 4, "columns": 10, "words": 7, "words_2": 6},
)
TOLERANCE = {torch.bfloat16: 0.1, torch.float16: 0.02}
# Words that a mask leaves out.
PADDING = 3


@torch.no_grad()
def verified(denoiser: CapturedDenoiser, signature: Signature) -> CapturedDenoiser:
    """The denoiser, if a mixed pack of two small samples is what the class makes of each; a class
    that is not finite itself says nothing. Raises CannotCapture.
    """
    sizes = [signature.sized(one) for one in SIZES]
    error = largest_error(denoiser.captured, signature, sizes, PlainRun())
    if error > _tolerance(denoiser):
        name = type(denoiser.module).__name__
        raise CannotCapture(f"{name}: its program differs from the class by {error:.1g}")
    return denoiser


@torch.no_grad()
def leaves_words_out(denoiser: CapturedDenoiser, signature: Signature, name: str) -> bool:
    """Whether what a mask leaves out changes nothing of the class's first output, so that it need
    not be there. The class is asked, on a small sample.
    """
    (words,) = signature.arguments[name].dims
    short = signature.sized(SIZES[0])
    long = {**short, str(words): short[str(words)] + PADDING}
    dtype = denoiser.dtype
    padded, plain = (call_of(signature, one, 0, dtype) for one in (long, short))
    for other, one in signature.arguments.items():
        at = 1 + one.dims.index(words) if words in one.dims else None
        whole = padded[other]
        if at is None:
            padded[other] = plain[other] if one.is_data else whole
        elif isinstance(whole, Tensor) and one.kind == "mask":
            whole[:, short[str(words)] :] = False
        elif isinstance(whole, Tensor):
            plain[other] = whole.narrow(at, 0, short[str(words)])
    return _first_error(denoiser, plain, padded) <= _tolerance(denoiser)


def _first_error(
    denoiser: CapturedDenoiser, plain: Mapping[str, object], padded: Mapping[str, object]
) -> float:
    theirs, mine = (expected_of(denoiser.module, call)[0] for call in (plain, padded))
    return relative_error(mine, theirs) if mine.shape == theirs.shape else float("inf")


def _tolerance(denoiser: CapturedDenoiser) -> float:
    return TOLERANCE.get(denoiser.dtype, 1e-3)
