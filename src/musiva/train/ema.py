"""The exponential moving average of the weights: what is exported and shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from musiva.core.errors import BadCheckpoint, InvalidInput

__all__ = ["Ema"]


class Ema:
    """Averages of named parameters, float32. Early on the average is short: (1 + n) / (10 + n)
    after n steps.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        decay: float = 0.999

        def build(self, parameters: Mapping[str, Tensor]) -> Ema:
            """Raises InvalidInput unless 0 <= decay < 1."""
            return Ema(self, parameters)

    def __init__(self, config: Config, parameters: Mapping[str, Tensor]) -> None:
        if not 0 <= config.decay < 1:
            raise InvalidInput("decay", config.decay, "at least 0 and below 1")
        self.config = config
        self._parameters = dict(parameters)
        self._averages = {name: p.detach().float().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after step `step`, counted from 0."""
        decay = min(self.config.decay, (1 + step) / (10 + step))
        for name, parameter in self._parameters.items():
            self._averages[name].lerp_(parameter.detach().float(), 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block parameters hold the averages, after it exactly their own values."""
        own = {name: p.detach().clone() for name, p in self._parameters.items()}
        try:
            self._assign(self._averages)
            yield
        finally:
            self._assign(own)

    def state(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return dict(self._averages)

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state`. Raises BadCheckpoint for names or shapes that do not fit."""
        if set(tensors) != set(self._averages):
            raise BadCheckpoint(
                f"ema: other parameters: {sorted(set(tensors) ^ set(self._averages))[:3]}"
            )
        for name, average in self._averages.items():
            if tensors[name].shape != average.shape:
                raise BadCheckpoint(
                    f"ema: {name}: shape {tuple(tensors[name].shape)}, not {tuple(average.shape)}"
                )
            average.copy_(tensors[name])

    @torch.no_grad()
    def _assign(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])
