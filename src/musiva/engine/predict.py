"""`musiva.load_denoiser`: a denoiser as a plain function of samples in its class's own layouts, for
tests and research.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path

import torch
from torch import Tensor, nn

from musiva.core.errors import BadCheckpoint, InvalidInput
from musiva.engine.fallback import runnable
from musiva.engine.runner import PlainRun, forward
from musiva.engine.verify import leaves_words_out
from musiva.models.captured import ClassDenoiser, Sample, module_from, read
from musiva.ops.linear import Linears, choose_kernel

__all__ = ["Predictor", "load_denoiser"]


def load_denoiser(
    source: str | os.PathLike[str] | nn.Module, *, dtype: torch.dtype = torch.float32
) -> Predictor:
    """Any class: a diffusers directory (a pipeline's or a transformer's), whose weights are read as
    `dtype`, or a live diffusers module, whose parameters are shared. A class of which no program
    can be made is called itself, and the log says why.

    Raises BadCheckpoint for a directory that is no model, CannotCapture for a class of which it is
    not known what it is called with, or that cannot be called on whole samples.
    """
    if isinstance(source, nn.Module):
        denoiser = runnable(source)
    else:
        path = Path(source)
        path = path / "transformer" if (path / "transformer").is_dir() else path
        if not path.is_dir():
            raise BadCheckpoint(f"{path}: no such directory")
        denoiser = runnable(module_from(path, dtype))
    return Predictor(denoiser)


class Predictor:
    """A denoiser of a class with the plain run and this machine's kernels."""

    def __init__(self, denoiser: ClassDenoiser) -> None:
        self.denoiser, self.signature = denoiser, denoiser.signature
        weight = next(denoiser.parameters())
        self.dtype, self.device = weight.dtype, weight.device
        kernel = choose_kernel(self.dtype) if self.device.type == "cpu" else "plain"
        self.run = PlainRun(Linears(kernel))
        # Of masks that left words out: whether these may be dropped.
        self._plain_masks: dict[str, bool] = {}

    @torch.inference_mode()
    def predict(
        self,
        latents: Sequence[Tensor],
        timesteps: Sequence[float | Tensor],
        conditions: Sequence[Mapping[str, object]],
    ) -> list[Tensor]:
        """One dense evaluation of samples of any mix of sizes, as one pack where it can be.

        latents: in the layout of the class, without the axis of a batch. timesteps: a number each,
        or one per frame or token where the class takes that. conditions: all other arguments by
        their names in diffusers, unbatched; what the pipeline makes of sizes alone (positions,
        shapes) may be left out, or is checked; a mask says which words are there. Returns the
        outputs of the class. Raises InvalidInput.
        """
        if not len(latents) == len(timesteps) == len(conditions):
            counts = (len(latents), len(timesteps), len(conditions))
            raise InvalidInput(
                "latents, timesteps, conditions", counts, "three lists of equal length"
            )
        if not latents:
            return []
        samples = [
            self._sample(i, *one)
            for i, one in enumerate(zip(latents, timesteps, conditions, strict=True))
        ]
        together = [self.denoiser.refusal(one.sizes) is None for one in samples]
        taken = iter(self._predicted(self.denoiser, list(compress(samples, together))))
        others = [one for one, is_in in zip(samples, together, strict=True) if not is_in]
        left = iter(self._predicted(self.denoiser.apart, others) if others else [])
        return [next(taken if is_in else left) for is_in in together]

    def _sample(
        self, i: int, latent: Tensor, time: float | Tensor, condition: Mapping[str, object]
    ) -> Sample:
        denoiser, field = self.denoiser, f"conditions[{i}]"
        given = _flat(condition)
        own = {denoiser.latent: latent}
        if denoiser.time is not None:
            own[denoiser.time] = time if isinstance(time, Tensor) else torch.tensor(float(time))
        doubled = sorted(set(own) & set(given))
        if doubled:
            raise InvalidInput(field, doubled, "arguments that are given by themselves")
        return read(self.signature, {**self._unmasked(given, field), **own}, field)

    def _unmasked(self, given: Mapping[str, object], field: str) -> dict[str, object]:
        """Without the words that a mask leaves out."""
        arguments, found = self.signature.arguments, dict(given)
        for name, argument in arguments.items():
            mask = found.pop(name, None) if argument.kind == "mask" else None
            if not isinstance(mask, Tensor):
                continue
            if mask.ndim != 1 or not bool(mask.any()):
                allowed = "a number for each word, 1 for those to keep, not all 0"
                raise InvalidInput(f"{field}[{name!r}]", mask.tolist(), allowed)
            if not bool(mask.all()):
                self._require_plain(name, f"{field}[{name!r}]")
            (words,) = argument.dims
            for other, one in arguments.items():
                value = found.get(other)
                if words not in one.dims or not isinstance(value, Tensor):
                    continue
                dim = one.dims.index(words)
                if value.ndim <= dim or value.shape[dim] != mask.shape[0]:
                    allowed = f"a number for each word of {other}, {tuple(value.shape)}"
                    raise InvalidInput(f"{field}[{name!r}]", tuple(mask.shape), allowed)
                kept = mask.bool().nonzero().flatten().to(value.device)
                found[other] = value.index_select(dim, kept)
        return found

    def _require_plain(self, name: str, field: str) -> None:
        """Words may be dropped only where the class takes them as if they were not there."""
        if name not in self._plain_masks:
            self._plain_masks[name] = leaves_words_out(self.denoiser, self.signature, name)
        if not self._plain_masks[name]:
            allowed = "all ones: this class makes something of the words that a mask leaves out"
            raise InvalidInput(field, "a mask with zeros", allowed)

    def _predicted(self, denoiser: ClassDenoiser, samples: Sequence[Sample]) -> list[Tensor]:
        """Of one pack."""
        if not samples:
            return []
        pack = denoiser.pack([one.sizes for one in samples], self.device)
        values = [{n: x.to(self.device) for n, x in one.values.items()} for one in samples]
        inputs = denoiser.inputs(denoiser.lay(values, pack))
        return denoiser.unlaid(forward(denoiser, inputs, pack, self.run), pack)


def _flat(condition: Mapping[str, object]) -> dict[str, object]:
    """Entries of a mapping by a name with a dot."""
    found: dict[str, object] = {}
    for name, value in condition.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": one for inner, one in value.items()}
        else:
            found[name] = value
    return found
