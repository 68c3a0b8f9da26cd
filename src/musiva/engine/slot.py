"""What the device keeps of one sample, and copies of it from which the sample can go on elsewhere.

L tokens of a sample, C channels of a token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from musiva.core.pack import Grid
from musiva.core.types import Action
from musiva.policy import Anchors
from musiva.samplers import Schedule, step

if TYPE_CHECKING:
    from musiva.engine.lineage import Lineage

__all__ = ["Checkpoint", "Slot", "is_whole"]


@dataclass(slots=True)
class Slot:
    """Of one sample, in float32: its latent as tokens, the solver's history, and what forecasts
    start from: its last data predictions, and how far its unconditional branch was away from its
    conditional one; where only some tiles of these were computed, the place at which each token was
    last (`mosaic.join`). decoded: what the parts of decoding that are done have made of the latent.
    lineage: what all of it was made from; None where nobody keeps account.

    Its tensors are never changed in place.
    """

    latent_LC: Tensor
    grid: Grid
    memory: tuple[Tensor, ...] = ()
    anchors: Anchors = field(default_factory=Anchors)
    away: Anchors = field(default_factory=Anchors)
    since_L1: Tensor | None = None
    away_since_L1: Tensor | None = None
    decoded: object = None
    lineage: Lineage | None = None

    def advance(self, schedule: Schedule, evaluation: int, prediction_LC: Tensor) -> None:
        """Take one evaluation of the solver."""
        self.latent_LC, self.memory = step(
            schedule, evaluation, self.latent_LC, prediction_LC, self.memory
        )

    def copy(self) -> Slot:
        """The same, and what is worked out in either is its own."""
        return self.mapped(lambda x: x)

    def mapped(self, fn: Callable[[Tensor], Tensor]) -> Slot:
        """Of fn of each tensor; what was decoded is left out."""

        def of(x: Tensor | None) -> Tensor | None:
            return None if x is None else fn(x)

        return Slot(
            fn(self.latent_LC),
            self.grid,
            tuple(map(fn, self.memory)),
            self.anchors.mapped(fn),
            self.away.mapped(fn),
            of(self.since_L1),
            of(self.away_since_L1),
            lineage=self.lineage,
        )


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A sample as it was before `evaluation`, at which all of it was computed: no page that is
    older was read since, so that it can go on from here without any.
    """

    evaluation: int
    slot: Slot

    @torch.inference_mode(False)
    def to(self, device: torch.device | str) -> Checkpoint:
        """A copy there that shares nothing with the sample."""

        def copied(x: Tensor) -> Tensor:
            return x.detach().to(device, copy=True)

        return replace(self, slot=self.slot.mapped(copied))


def is_whole(action: Action) -> bool:
    """Whether all branches of a sample are computed, all of their tokens, through all of the
    model and together, so that all pages that it has are written anew. action: as it was done.
    """
    together = action.gate is None and action.patches == 1
    return action.full and together and not action.borrow and not action.coarse
