"""A worker of several ranks: the first has the engine, the others do what its executor does."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from musiva.comm import LinkFigures
from musiva.core.errors import RankLost
from musiva.core.types import StepPlan, StepResult
from musiva.engine.executor import InlineExecutor
from musiva.engine.fleet.wire import Channel
from musiva.engine.slot import Checkpoint
from musiva.store import Figures

__all__ = ["Leader", "follow"]


class Leader:
    """An executor whose plans all ranks of a group run. Raises RankLost where one is gone."""

    def __init__(self, own: InlineExecutor, followers: Sequence[Channel]) -> None:
        self._own, self._followers = own, followers

    @property
    def store_figures(self) -> Figures:
        """Of the first rank."""
        return self._own.store_figures

    @property
    def links(self) -> Sequence[LinkFigures]:
        """Of the first rank."""
        return self._own.links

    def execute(self, plan: StepPlan) -> StepResult:
        self._tell("execute", plan)
        return self._own.execute(plan)

    def put_latent(self, sample: str, latent: Tensor) -> None:
        self._tell("put_latent", sample, latent)
        self._own.put_latent(sample, latent)

    def checkpoint(self, sample: str) -> Checkpoint | None:
        return self._own.checkpoint(sample)

    def restore(self, sample: str, checkpoint: Checkpoint) -> None:
        self._tell("restore", sample, checkpoint)
        self._own.restore(sample, checkpoint)

    def check_integrity(self, live: Sequence[str]) -> None:
        self._tell("check_integrity", live)
        self._own.check_integrity(live)

    def _tell(self, what: str, *arguments: object) -> None:
        for follower in self._followers:
            try:
                follower.send((what, *arguments))
            except OSError as error:
                raise RankLost(f"a rank is gone: {error}") from error


def follow(own: InlineExecutor, leader: Channel) -> None:
    """What every other rank does, until its leader is gone. Raises RankLost where another rank is,
    and what breaks its own executor.
    """
    while True:
        try:
            what, *arguments = leader.receive()  # type: ignore[misc]
        except EOFError:
            return
        getattr(own, what)(*arguments)
