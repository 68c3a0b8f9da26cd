"""A class of diffusers as a denoiser: by a program where one can be made, else as a black box."""

from __future__ import annotations

import logging
import textwrap
from typing import Any

from torch import nn

from musiva.core.errors import CannotCapture
from musiva.engine.verify import verified
from musiva.models.captured import (
    CapturedDenoiser,
    WholeDenoiser,
    captured_from,
    signature_of,
    whole_from,
)
from musiva.models.captured.calls import original

__all__ = ["runnable"]

log = logging.getLogger(__name__)
# Letters of a reason: what torch says of an operation may be a page.
MOST = 300


def runnable(module: nn.Module, **known: Any) -> CapturedDenoiser | WholeDenoiser:
    """The class captured and held against itself; where that cannot be done, the class itself, and
    the log says why. known: what a pipeline knows of it, as `captured_from` takes it. Raises
    CannotCapture for a class that cannot be called on whole samples either.
    """
    signature = signature_of(module)
    try:
        return verified(captured_from(module, signature, **known), signature)
    except CannotCapture as error:
        reason = textwrap.shorten(str(error), MOST, placeholder=" ...")
        denoiser = whole_from(module, signature, reason, **known)
    name = type(original(module)).__name__
    log.warning("%s runs as a black box, without packs, tiles and gates: %s", name, reason)
    return denoiser
