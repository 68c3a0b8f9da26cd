"""Random samples of a class: what a denoiser of it makes of them, and what the class itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from musiva.compiler.arguments import Sizes, size_of
from musiva.engine import PlainRun, forward
from musiva.models.captured import ClassDenoiser, Signature
from musiva.models.captured.base import latent_of
from musiva.models.captured.calls import data_of
from musiva.models.captured.check import call_of, expected_of

__all__ = ["Asked", "asked", "predictions", "ran"]


@dataclass(frozen=True, slots=True)
class Asked:
    """Arguments of `predict`."""

    latents: list[Tensor]
    timesteps: list[float | Tensor]
    conditions: list[Mapping[str, object]]


def asked(denoiser: ClassDenoiser, several: Sequence[Sizes]) -> Asked:
    """A sample for each of these sizes, with its seed as place. Positions are given too, where
    shapes may leave the size open.
    """
    found = Asked([], [], [])
    for seed, sizes in enumerate(several):
        generator = torch.Generator().manual_seed(seed)
        own = {n: a.example(sizes, generator) for n, a in denoiser.signature.arguments.items()}
        found.latents.append(own.pop(denoiser.latent))
        found.timesteps.append(own.pop(denoiser.time))
        found.conditions.append({n: x for n, x in own.items() if not isinstance(x, Mapping)})
    return found


def ran(denoiser: ClassDenoiser, several: Sequence[Sizes]) -> list[Tensor]:
    """Predictions of the same samples, of one pack."""
    cpu, arguments = torch.device("cpu"), denoiser.signature.arguments
    samples = [data_of(arguments, one, i, torch.float32, cpu) for i, one in enumerate(several)]
    pack = denoiser.pack(several, cpu)
    inputs = denoiser.inputs(denoiser.lay(samples, pack))
    return denoiser.unlaid(forward(denoiser, inputs, pack, PlainRun()), pack)


def predictions(module: nn.Module, signature: Signature, several: Sequence[Sizes]) -> list[Tensor]:
    """Of the same samples, by calls of the class for one at a time."""
    latent = latent_of(module, signature.arguments)
    batched = signature.arguments[latent].batch == "axis"
    found = []
    for seed, sizes in enumerate(several):
        first = expected_of(module, call_of(signature, sizes, seed))[0]
        first = first[0] if batched else first
        found.append(first[size_of(signature.before, sizes) :])
    return found
