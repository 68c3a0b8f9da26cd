"""`musiva.load_denoiser`: any family's denoiser as a plain function, for tests and research."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from musiva.core.errors import BadCheckpoint, InvalidInput
from musiva.core.pack import Pack, patchify, unpatchify
from musiva.engine.fallback import runnable
from musiva.engine.predict_captured import CapturedPredictor
from musiva.engine.runner import PlainRun, forward
from musiva.models import FAMILIES, Denoiser, Inputs, family_of, read_config, read_tensors
from musiva.models.captured import ClassDenoiser, altered, module_from
from musiva.ops.linear import Linears, choose_kernel

__all__ = ["Predictor", "load_denoiser", "read_denoiser"]

CONDITIONS = ("encoder_hidden_states", "encoder_attention_mask", "added_cond_kwargs")


def load_denoiser(
    source: str | os.PathLike[str] | nn.Module, *, dtype: torch.dtype = torch.float32
) -> Predictor | CapturedPredictor:
    """Any family: a diffusers directory (a pipeline's or a transformer's) or a live diffusers
    module, whose parameters a captured model shares; of a family of ours they are copied where ours
    join them. A class of which no program can be made is called itself, and the log says why.

    Raises BadCheckpoint for a directory that is no model, CannotCapture for a class of which it is
    not known what it is called with, or that cannot be called on whole samples.
    """
    if isinstance(source, nn.Module):
        if type(source).__name__ not in FAMILIES or altered(source) is not None:
            denoiser = runnable(source)
            return CapturedPredictor(denoiser, denoiser.signature)
        config = {"_class_name": type(source).__name__, **dict(getattr(source, "config", {}))}
        denoiser = build_denoiser(config, source.state_dict(), dtype)
        device = next(source.parameters()).device
        denoiser = denoiser.to(device)
    else:
        path = Path(source)
        path = path / "transformer" if (path / "transformer").is_dir() else path
        denoiser = read_denoiser(path, dtype)
    if isinstance(denoiser, ClassDenoiser):
        return CapturedPredictor(denoiser, denoiser.signature)
    return Predictor(denoiser)


def read_denoiser(directory: Path, dtype: torch.dtype) -> Denoiser:
    """The denoiser of a component directory. Raises BadCheckpoint naming what is missing or
    misfit, CannotCapture.
    """
    if not directory.is_dir():
        raise BadCheckpoint(f"{directory}: no such directory")
    config = read_config(directory)
    if config.get("_class_name") not in FAMILIES:
        return runnable(module_from(directory, dtype))
    try:
        return build_denoiser(config, read_tensors(directory), dtype)
    except BadCheckpoint as error:
        raise (
            error if str(directory) in str(error) else BadCheckpoint(f"{directory}: {error}")
        ) from error


def build_denoiser(
    config: Mapping[str, object], tensors: Mapping[str, Tensor], dtype: torch.dtype
) -> Denoiser:
    family = family_of(config.get("_class_name"))
    with torch.device("meta"):
        denoiser = family.from_config({k: v for k, v in config.items() if not k.startswith("_")})
    state = {name: t.to(dtype) for name, t in family.from_diffusers(denoiser, tensors).items()}
    denoiser.load_state_dict(state, strict=True, assign=True)
    return denoiser.eval().requires_grad_(False)


class Predictor:
    """A denoiser with the plain run and this machine's kernels."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        weight = next(denoiser.parameters())
        self.dtype, self.device = weight.dtype, weight.device
        kernel = choose_kernel(self.dtype) if self.device.type == "cpu" else "plain"
        self.run = PlainRun(Linears(kernel))

    @torch.inference_mode()
    def predict(
        self,
        latents: Sequence[Tensor],
        timesteps: Sequence[float | Tensor],
        conditions: Sequence[Mapping[str, object]],
    ) -> list[Tensor]:
        """One dense evaluation of samples of any mix of sizes, as one pack.

        latents: [C, H, W] each. timesteps: a number each. conditions: diffusers' argument names,
        unbatched: `encoder_hidden_states` [L, D], `encoder_attention_mask` [L] (1 keeps a row),
        `added_cond_kwargs`. Returns the outputs of the diffusers class, [C', H', W'] each. Raises
        InvalidInput.
        """
        if not len(latents) == len(timesteps) == len(conditions):
            counts = (len(latents), len(timesteps), len(conditions))
            raise InvalidInput(
                "latents, timesteps, conditions", counts, "three lists of equal length"
            )
        if not latents:
            return []
        model = self.denoiser
        tokens, grids = zip(
            *(self._tokens(i, latent) for i, latent in enumerate(latents)), strict=True
        )
        texts = [self._text(i, condition) for i, condition in enumerate(conditions)]
        lengths = [text.shape[0] for text in texts] if model.text_width else None
        keys = [object() for _ in texts]
        pack = Pack.build(grids, lengths, keys if lengths is not None else None, self.device)
        time_M = torch.zeros(pack.num_mod_rows, device=self.device)
        time_M[: len(latents)] = torch.tensor([float(t) for t in timesteps])
        inputs = Inputs(
            latent_TC=pack.gather(tokens),
            timestep_M=time_M,
            text_TD=pack.gather(texts, "text") if lengths is not None else None,
            extra={name: self._extra(name, conditions, pack) for name in model.extra},
        )
        prediction_TC = forward(model, inputs, pack, self.run)
        return [
            unpatchify(part, grid, model.patch, latent.ndim)
            for part, grid, latent in zip(pack.split(prediction_TC), grids, latents, strict=True)
        ]

    def _tokens(self, i: int, latent: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        ndim = 3 if self.denoiser.patch[0] == 1 else 4
        allowed = f"a tensor [{self.denoiser.in_channels}, {'' if ndim == 3 else 'F, '}H, W]"
        if latent.ndim not in (3, 4) or latent.shape[0] != self.denoiser.in_channels:
            raise InvalidInput(f"latents[{i}]", tuple(latent.shape), allowed)
        tokens_LC, grid = patchify(latent.to(self.device, self.dtype), self.denoiser.patch)
        if not tokens_LC.shape[0]:
            raise InvalidInput(
                f"latents[{i}]", tuple(latent.shape), f"{allowed} of at least one patch"
            )
        return tokens_LC, grid

    def _text(self, i: int, condition: Mapping[str, object]) -> Tensor:
        unknown = sorted(set(condition) - set(CONDITIONS))
        if unknown:
            raise InvalidInput(f"conditions[{i}]", unknown, ", ".join(CONDITIONS))
        text = condition.get("encoder_hidden_states")
        if (
            not isinstance(text, Tensor)
            or text.ndim != 2
            or text.shape[1] != self.denoiser.text_width
        ):
            shape = tuple(text.shape) if isinstance(text, Tensor) else text
            field = f"conditions[{i}]['encoder_hidden_states']"
            raise InvalidInput(field, shape, f"a tensor [L, {self.denoiser.text_width}]")
        mask = condition.get("encoder_attention_mask")
        if isinstance(mask, Tensor):
            if mask.shape != text.shape[:1] or not bool(mask.any()):
                field = f"conditions[{i}]['encoder_attention_mask']"
                raise InvalidInput(
                    field, mask.tolist(), f"{text.shape[0]} numbers, 1 for rows to keep, not all 0"
                )
            text = text[mask.bool().to(text.device)]
        return text.to(self.device, self.dtype)

    def _extra(self, name: str, conditions: Sequence[Mapping[str, object]], pack: Pack) -> Tensor:
        values = []
        for i, condition in enumerate(conditions):
            given = condition.get("added_cond_kwargs")
            value = given.get(name) if isinstance(given, Mapping) else None
            if value is None:
                raise InvalidInput(
                    f"conditions[{i}]['added_cond_kwargs']", given, f"a mapping with {name!r}"
                )
            values.append(torch.as_tensor(value, dtype=torch.float32, device=self.device).flatten())
        table = torch.stack(values)
        return torch.cat([table, table.new_zeros(pack.num_mod_rows - len(values), table.shape[1])])
