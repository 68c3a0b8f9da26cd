"""The denoiser that was written by hand, as `musiva.load_denoiser` gives captured ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from musiva.core.pack import Pack, patchify, unpatchify
from musiva.engine.runner import PlainRun, forward
from musiva.models import Inputs
from musiva.ops.linear import Linears, choose_kernel
from tests.contract.pixart.config import from_config
from tests.contract.pixart.model import PixArt
from tests.contract.pixart.weights import from_diffusers

__all__ = ["Oracle", "pixart_of"]

Conditions = Mapping[str, object]


def pixart_of(module: nn.Module) -> PixArt:
    """Of a live module of diffusers: in its dtype, with copies of its weights."""
    with torch.device("meta"):
        denoiser = from_config(dict(module.config))  # pyright: ignore
    state = from_diffusers(denoiser, module.state_dict())
    denoiser.load_state_dict(state, strict=True, assign=True)
    return denoiser.eval().requires_grad_(False)


class Oracle:
    """A plain run, with this machine's kernels."""

    def __init__(self, module: nn.Module) -> None:
        self.denoiser = pixart_of(module)
        self.dtype = next(module.parameters()).dtype
        self.run = PlainRun(Linears(choose_kernel(self.dtype)))

    @torch.inference_mode()
    def predict(
        self,
        latents: Sequence[Tensor],
        timesteps: Sequence[float],
        conditions: Sequence[Conditions],
    ) -> list[Tensor]:
        """One dense evaluation of samples of any mix of sizes, as one pack; arguments and results
        are those of `musiva.engine.Predictor`.
        """
        model = self.denoiser
        laid = [patchify(latent.to(self.dtype), model.patch) for latent in latents]
        tokens, grids = zip(*laid, strict=True)
        texts = [_words(one).to(self.dtype) for one in conditions]
        pack = Pack.build(grids, [len(text) for text in texts], [object() for _ in texts])
        time_M = torch.zeros(pack.num_mod_rows)
        time_M[: len(latents)] = torch.tensor([float(t) for t in timesteps])
        inputs = Inputs(
            latent_TC=pack.gather(tokens),
            timestep_M=time_M,
            text_TD=pack.gather(texts, "text"),
            extra={name: _table(name, conditions, pack) for name in model.extra},
        )
        prediction_TC = forward(model, inputs, pack, self.run)
        return [
            unpatchify(part, grid, model.patch, latent.ndim)
            for part, grid, latent in zip(pack.split(prediction_TC), grids, latents, strict=True)
        ]


def _words(condition: Conditions) -> Tensor:
    text, mask = condition["encoder_hidden_states"], condition.get("encoder_attention_mask")
    assert isinstance(text, Tensor)
    return text if mask is None else text[mask.bool()]  # type: ignore[attr-defined]


def _table(name: str, conditions: Sequence[Conditions], pack: Pack) -> Tensor:
    rows = [torch.as_tensor(one["added_cond_kwargs"][name]).flatten() for one in conditions]  # type: ignore[index]
    table = torch.stack(rows).float()
    return torch.cat([table, table.new_zeros(pack.num_mod_rows - len(rows), table.shape[1])])
