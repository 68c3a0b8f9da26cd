"""The scheduler: a discipline's order, cut into steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from musiva.core.errors import InvalidInput
from musiva.core.types import Kind, StepPlan
from musiva.cost import CostModel
from musiva.engine.sample import SampleState
from musiva.engine.scheduler.base import Verdict, View
from musiva.engine.scheduler.catalog import DISCIPLINES
from musiva.engine.scheduler.former import Former, Frontier, next_kind
from musiva.engine.scheduler.prices import Prices, Tariff
from musiva.engine.scheduler.shares import due_without_deadline
from musiva.engine.state import EngineState

__all__ = ["Scheduler"]


class Scheduler:
    """Pure: equal records and times give equal plans, and nothing is changed.

    next_kind: chooses which kind of step is next, given who could run one, in order.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """discipline: by name, out of `DISCIPLINES`. cost: seconds of a step; None for a guess, by
        which nobody is refused. max_rows: most rows of a pack, though a single sample may have
        more. kept_texts: encoded prompts that are kept when no request needs them. max_encode: most
        prompts of a step. patience: seconds after which a sample without a deadline is due. shares:
        weights of tenants; 1 for others. ranks: that run every step together. next_kind: see
        `Scheduler`.

        Raises InvalidInput for "discipline".
        """

        discipline: str = "goodput"
        cost: CostModel | None = None
        max_rows: int = 4096
        kept_texts: int = 64
        max_encode: int = 32
        patience: float = 60.0
        shares: Mapping[str, float] = field(default_factory=dict)
        ranks: int = 1
        next_kind: Callable[[Frontier], Kind] = next_kind

        def __post_init__(self) -> None:
            if self.discipline not in DISCIPLINES:
                raise InvalidInput("scheduler", self.discipline, ", ".join(DISCIPLINES))

        def build(self) -> Scheduler:
            return Scheduler(self)

    def __init__(self, config: Config) -> None:
        self.config = config
        self.tariff = Tariff.guess() if config.cost is None else Tariff(config.cost)
        self.discipline = DISCIPLINES[config.discipline](tuple(config.shares.items()))
        self._former = Former(config.max_rows, config.max_encode, config.ranks)

    def view(self, state: EngineState, now: float) -> View:
        prices = Prices.of(self.tariff, state)
        return View(state, now, prices, self.config.patience)

    def schedule(self, state: EngineState, now: float) -> StepPlan | None:
        """The next step, or None when there is nothing to do."""
        view = self.view(state, now)
        turns = self.discipline.turns(view)
        if not turns and not state.released:
            return None
        frontier = self._former.frontier(view, turns)
        kind = self.config.next_kind(frontier) if frontier else Kind.DENOISE
        items = self._former.items(view, kind, frontier[kind]) if frontier else ()
        needed = {prompt for s in state.samples.values() for prompt in s.prompts}
        spare = [prompt for prompt in state.texts if prompt not in needed]
        drop = spare[: max(len(spare) - self.config.kept_texts, 0)]
        return StepPlan(state.steps + 1, kind, items, tuple(state.released), tuple(drop))

    def due(self, state: EngineState, sample: SampleState, now: float) -> float:
        """When a sample that arrives now is due."""
        if sample.deadline is not None:
            return sample.deadline
        return due_without_deadline(self.view(state, now), sample, self.config.shares)

    def verdict(self, state: EngineState, samples: Sequence[SampleState], now: float) -> Verdict:
        """Whether a request is let in that arrives now."""
        return self.discipline.verdict(self.view(state, now), samples)

    def work(
        self, state: EngineState, samples: Sequence[SampleState], now: float
    ) -> tuple[float, ...]:
        """Seconds that the samples of a request take, at each of its levels."""
        prices = self.view(state, now).prices
        levels = range(len(samples[0].policies))
        return tuple(sum(prices.left(sample, level) for sample in samples) for level in levels)
