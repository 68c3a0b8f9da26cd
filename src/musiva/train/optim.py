"""AdamW (Loshchilov and Hutter, 2019) with warm-up, an optional decay at the end, and clipping by
norm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from musiva.core.errors import BadCheckpoint, InvalidInput

__all__ = ["Optimizer"]

_STATE = ("exp_avg", "exp_avg_sq", "step")


class Optimizer:
    """Owns the optimiser state of named parameters; the state is keyed by parameter name, so it
    reshards.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Between the two `decay_steps` the rate falls to 0 along a cosine."""

        lr: float
        warmup_steps: int = 100
        decay_steps: tuple[int, int] | None = None
        betas: tuple[float, float] = (0.9, 0.99)
        eps: float = 1e-8
        weight_decay: float = 0.01
        clip_norm: float = 1.0

        def build(self, parameters: Mapping[str, Tensor]) -> Optimizer:
            """Raises InvalidInput for rates, steps or norms out of range."""
            return Optimizer(self, parameters)

    def __init__(self, config: Config, parameters: Mapping[str, Tensor]) -> None:
        if not 0 < config.lr < 1:
            raise InvalidInput("lr", config.lr, "above 0 and below 1")
        if config.warmup_steps < 0:
            raise InvalidInput("warmup_steps", config.warmup_steps, "at least 0")
        if (
            config.decay_steps is not None
            and not 0 <= config.decay_steps[0] < config.decay_steps[1]
        ):
            raise InvalidInput(
                "decay_steps", config.decay_steps, "two rising step numbers, or none"
            )
        if not config.clip_norm > 0:
            raise InvalidInput("clip_norm", config.clip_norm, "above 0 (infinity: no clipping)")
        self.config = config
        self._parameters = dict(parameters)
        matrices = [p for p in self._parameters.values() if p.ndim >= 2]
        vectors = [p for p in self._parameters.values() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self._adamw = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            fused=True,
        )

    def lr_at(self, step: int) -> float:
        """The rate of step `step`, counted from 0."""
        lr = self.config.lr * min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        if self.config.decay_steps is not None:
            first, last = self.config.decay_steps
            done = min(1.0, max(0.0, (step - first) / (last - first)))
            lr *= 0.5 + 0.5 * math.cos(math.pi * done)
        return lr

    def step(self, step: int) -> tuple[float, float]:
        """Clip, update and clear the gradients; returns (gradient norm before clipping, rate)."""
        parameters = list(self._parameters.values())
        norm = torch.nn.utils.clip_grad_norm_(
            parameters, self.config.clip_norm, error_if_nonfinite=False
        )
        lr = self.lr_at(step)
        for group in self._adamw.param_groups:
            group["lr"] = lr
        if torch.isfinite(norm):
            self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        return float(norm), lr

    def state(self) -> dict[str, Tensor]:
        """The state as flat tensors `<parameter>.<part>`; parameters never updated are absent."""
        return {
            f"{name}.{part}": self._adamw.state[parameter][part]
            for name, parameter in self._parameters.items()
            if parameter in self._adamw.state
            for part in _STATE
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state`. Raises BadCheckpoint for names or shapes that do not fit."""
        unknown = {key.rpartition(".")[0] for key in tensors} - set(self._parameters)
        if unknown:
            raise BadCheckpoint(f"optimiser state: unknown parameter {min(unknown)}")
        for name, parameter in self._parameters.items():
            parts = {
                part: tensors[f"{name}.{part}"] for part in _STATE if f"{name}.{part}" in tensors
            }
            if not parts:
                self._adamw.state.pop(parameter, None)
                continue
            if len(parts) != len(_STATE) or parts["exp_avg"].shape != parameter.shape:
                raise BadCheckpoint(f"optimiser state: {name}: incomplete or of another shape")
            self._adamw.state[parameter] = {part: value.clone() for part, value in parts.items()}
