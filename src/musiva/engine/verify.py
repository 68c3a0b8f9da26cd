"""Whether a captured denoiser says what its class says, before anyone relies on it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from musiva.compiler import Captured, Sizes
from musiva.compiler.arguments import entry_of, put_entry, size_of
from musiva.core.errors import CannotCapture
from musiva.engine.runner import PlainRun
from musiva.models.captured import CapturedDenoiser, ClassDenoiser, Signature, captured_from
from musiva.models.captured.check import (
    call_of,
    expected_of,
    largest_error,
    relative_error,
    tolerance,
)

__all__ = ["leaves_words_out", "verified"]

log = logging.getLogger(__name__)

# No extent is another one's by chance, and none is of those that a capture has seen.
SIZES: tuple[Sizes, ...] = (
    {"frames": 4, "rows": 6, "columns": 8, "words": 9, "words_2": 5},
    {"frames": 6, "rows": 4, "columns": 10, "words": 7, "words_2": 6},
)
# What there is of an empty prompt.
EMPTY = {"words": 1}
# Words that a mask leaves out.
PADDING = 3


@torch.no_grad()
def verified(denoiser: CapturedDenoiser, signature: Signature) -> CapturedDenoiser:
    """The denoiser, if a mixed pack of small samples is what the class makes of each; a class that
    is not finite itself says nothing. Of a program that was held against its class when it was
    kept, one of them is enough; where it is not right, it is made anew. Raises CannotCapture.
    """
    captured, entry = denoiser.captured, denoiser.captured.entry
    was_right = captured.is_cached and entry is not None and entry.is_verified
    sizes = [signature.sized(one) for one in SIZES[: 1 if was_right else None]]
    if not was_right:
        sizes += _empty(captured, signature)
    name, said, error = type(denoiser.module).__name__, "", math.nan
    try:
        error = largest_error(captured, signature, sizes, PlainRun())
    except Exception as failure:  # of a program of which nobody has seen the like
        why = " ".join(str(failure).split())
        said = f"{name}: its program fails: {type(failure).__name__}: {why}"
    if error > tolerance(denoiser.dtype):
        said = f"{name}: its program differs from the class by {error:.1g}"
    if said and not captured.is_cached:
        raise CannotCapture(said)
    if said:
        log.warning("%s, as it is kept: captured anew", said)
        return verified(_anew(denoiser, signature), signature)
    if entry is not None and not was_right and not math.isnan(error):
        entry.note_verified()
    return denoiser


def _empty(captured: Captured, signature: Signature) -> list[Sizes]:
    """A sample without words, so that what it needs is known before a request does, where it can be
    in a pack.
    """
    sizes = signature.sized({**SIZES[-1], **EMPTY})
    try:
        captured.places(sizes)
    except CannotCapture:
        return []
    return [sizes]


def _anew(denoiser: CapturedDenoiser, signature: Signature) -> CapturedDenoiser:
    return captured_from(
        denoiser.module,
        signature,
        packed=denoiser.packed,
        time_scale=denoiser.time_scale,
        backwards=denoiser.backwards,
        fresh=True,
    )


@torch.no_grad()
def leaves_words_out(denoiser: ClassDenoiser, signature: Signature, name: str) -> bool:
    """Whether what a mask leaves out changes nothing of the class's first output, so that it need
    not be there. The class is asked, on a small sample.
    """
    (words,) = signature.arguments[name].dims
    short = signature.sized(SIZES[0])
    long = {**short, str(words): short[str(words)] + PADDING}
    dtype, device = denoiser.dtype, denoiser.device
    padded, plain = (call_of(signature, one, 0, dtype, device) for one in (long, short))
    for other, one in signature.arguments.items():
        whole = entry_of(padded, other)
        if words not in one.dims:
            if one.is_data:
                put_entry(padded, other, entry_of(plain, other))
        elif isinstance(whole, Tensor) and one.kind == "mask":
            whole[:, short[str(words)] :] = False
        elif isinstance(whole, Tensor):
            put_entry(plain, other, whole.narrow(1 + one.dims.index(words), 0, short[str(words)]))
    theirs, mine = (
        _prediction(denoiser, signature, call, sizes)
        for call, sizes in ((plain, short), (padded, long))
    )
    if mine.shape != theirs.shape:
        return False
    return relative_error(mine, theirs) <= tolerance(dtype)


def _prediction(
    denoiser: ClassDenoiser, signature: Signature, call: Mapping[str, object], sizes: Sizes
) -> Tensor:
    """Of the tokens of the latent, in a batch of one."""
    found = expected_of(denoiser.module, call)[0]
    count = size_of(signature.before, sizes)
    return found[:, count:] if count else found
