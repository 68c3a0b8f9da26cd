"""`torch.compile` for what a captured program calculates between its calls of the run."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from musiva.core.errors import InvalidInput, Unavailable
from musiva.engine.runner import PlainRun
from musiva.engine.verify import SIZES
from musiva.models.captured import CapturedDenoiser, ClassDenoiser
from musiva.models.captured.check import largest_error, tolerance

__all__ = ["compile_program"]


@torch.inference_mode()
def compile_program(denoiser: ClassDenoiser) -> None:
    """In place, and held against the class. Raises InvalidInput where there is no program, and
    Unavailable where nothing can be compiled, or what was compiled says another thing.
    """
    if not isinstance(denoiser, CapturedDenoiser):
        raise InvalidInput("compile", True, f"nothing for this model: {denoiser.out_of_reach}")
    try:
        torch.compile(_twice)(torch.ones(4, device=next(denoiser.parameters()).device))
    except Exception as error:
        said = " ".join(str(error).split())
        raise Unavailable(f"compile: torch.compile does not work here: {said}") from error
    captured, signature = denoiser.captured, denoiser.signature
    captured.compile()
    error = largest_error(captured, signature, [signature.sized(one) for one in SIZES], PlainRun())
    if not math.isnan(error) and error > tolerance(denoiser.dtype):
        name = type(denoiser.module).__name__
        raise Unavailable(f"compile: {name}, compiled, differs from the class by {error:.1g}")


def _twice(x: Tensor) -> Tensor:
    return x * 2
