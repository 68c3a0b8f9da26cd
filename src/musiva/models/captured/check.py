"""A captured program against its class: a pack of samples, and the class on each of them alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from musiva.compiler import Captured, Sizes
from musiva.compiler.arguments import call_arguments
from musiva.compiler.captured import tensor_of
from musiva.compiler.export import dtype_of
from musiva.core.run import Run
from musiva.models.captured.known.base import Signature

__all__ = [
    "call_of",
    "expected_of",
    "found_of",
    "largest_error",
    "relative_error",
    "tolerance",
]

Call = Mapping[str, object]
Guard = Callable[[nn.Module], AbstractContextManager[None]]
# Of relative errors between two ways to compute the same, where it is not float32.
TOLERANCE = {torch.bfloat16: 0.1, torch.float16: 0.02}
# Inputs are nudged so often; those of fewer dimensions, no latents and no texts, never.
NUDGES, LEAST_DIMS = 2, 2


def call_of(
    signature: Signature,
    sizes: Sizes,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> dict[str, object]:
    """Arguments of a random sample."""
    generator = torch.Generator().manual_seed(seed)
    call = call_arguments(signature.arguments, sizes, generator, dtype)
    return {
        name: pytree.tree_map_only(Tensor, lambda x: x.to(device), value)
        for name, value in call.items()
    }


def expected_of(module: nn.Module, call: Call) -> list[Tensor]:
    """What the class returns."""
    found = module(**call, return_dict=False)
    return [leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, Tensor)]


def found_of(
    captured: Captured,
    several: Sequence[Sizes],
    calls: Sequence[Call],
    run: Run,
    guard: Guard = lambda _: nullcontext(),
) -> list[list[Tensor]]:
    """Outputs of one pack: by output, then by sample. guard: around the program, once all that
    depends on sizes is known.
    """
    at = captured.frame(captured.pack(several, _device_of(captured.module)), several)
    samples = [{n: tensor_of(call, n) for n in captured.program.inputs} for call in calls]
    for sizes in several:
        captured.places(sizes)
    with guard(captured.module):
        return captured.run(captured.lay(samples, at), at, run)


def largest_error(
    captured: Captured,
    signature: Signature,
    several: Sequence[Sizes],
    run: Run,
    guard: Guard = lambda _: nullcontext(),
) -> float:
    """Of a pack of random samples of these sizes. In low precision one that the class itself makes
    where its inputs are rounded otherwise counts as no more than `tolerance`.
    """
    dtype, device = dtype_of(captured.module), _device_of(captured.module)
    calls = [call_of(signature, sizes, i, dtype, device) for i, sizes in enumerate(several)]
    expected = [expected_of(captured.module, call) for call in calls]
    found = found_of(captured, several, calls, run, guard)
    errors = []
    for i, call in enumerate(calls):
        error = _largest([mine[i] for mine in found], expected[i])
        most = TOLERANCE.get(dtype, math.inf)
        if error > most and error <= _unsteadiness(captured.module, call, expected[i]):
            error = most
        errors.append(error)
    return math.nan if any(map(math.isnan, errors)) else max(errors)


def _device_of(module: nn.Module) -> torch.device:
    return next((one.device for one in module.parameters()), torch.device("cpu"))


def _largest(mine: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    errors = [relative_error(one, other) for one, other in zip(mine, theirs, strict=True)]
    return math.nan if any(map(math.isnan, errors)) else max(errors)


def _unsteadiness(module: nn.Module, call: Call, expected: Sequence[Tensor]) -> float:
    """The largest error that the class makes where the last bits of its inputs are others."""
    errors = []
    for seed in range(NUDGES):
        generator = torch.Generator().manual_seed(seed)

        def nudged(x: Tensor, generator: torch.Generator = generator) -> Tensor:
            if not x.is_floating_point() or x.ndim < LEAST_DIMS:
                return x
            signs = 2 * torch.randint(2, x.shape, generator=generator).to(x.device) - 1
            return (x * (1 + torch.finfo(x.dtype).eps * signs)).to(x.dtype)

        changed = {name: pytree.tree_map_only(Tensor, nudged, one) for name, one in call.items()}
        errors.append(_largest(expected_of(module, changed), expected))
    return max(errors)


def relative_error(mine: Tensor, theirs: Tensor) -> float:
    """The largest one over the largest number, or over 1; NaN where theirs are not all finite,
    infinite where only mine are not.
    """
    mine, theirs = mine.float(), theirs.float()
    if not bool(theirs.isfinite().all()):
        return math.nan
    if not bool(mine.isfinite().all()):
        return math.inf
    error = (mine.reshape(theirs.shape) - theirs).abs().max()
    return float(error / theirs.abs().max().clamp(min=1.0))


def tolerance(dtype: torch.dtype) -> float:
    """The largest relative error that is not told from none."""
    return TOLERANCE.get(dtype, 1e-3)
