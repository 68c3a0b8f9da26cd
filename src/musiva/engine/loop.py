"""The step loop: schedule, execute, update. One thread, no clock of its own, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from musiva.core.types import Event, Request, StepPlan, StepResult
from musiva.engine.scheduler import Scheduler
from musiva.engine.state import EngineState, SampleState, admit, cancel, update
from musiva.policy import Policy, Trip

__all__ = ["Executor", "Observer", "StepLoop"]

Observer = Callable[[StepPlan, StepResult], None]


class Executor(Protocol):
    """Runs plans. execute() raises for nothing that a request did: the outcome of its item carries
    the error.
    """

    def execute(self, plan: StepPlan) -> StepResult: ...

    def put_latent(self, sample: str, latent_CHW: Tensor) -> None:
        """Give a sample that no plan has named yet its starting latent. What one of its id had
        that ended is let go of.
        """
        ...

    def check_integrity(self, live: Sequence[str]) -> None:
        """Raise AssertionError if anything is kept for a sample that is not live."""
        ...


class StepLoop:
    """Owns the request record. Not thread-safe: `Engine` gives it a thread.

    observe is called with every plan and its result; the plans alone replay a run.
    """

    def __init__(
        self, executor: Executor, scheduler: Scheduler, observe: Observer | None = None
    ) -> None:
        self.executor = executor
        self.scheduler = scheduler
        self.state = EngineState()
        self._observe = observe

    def submit(
        self,
        request: Request,
        *,
        policy: Policy,
        trip: Trip,
        rows: int,
        latents: Sequence[Tensor] | None = None,
    ) -> None:
        """Admit all pictures of a request. rows: packed rows of one of them. latents: one [C, H, W]
        each, where the pictures start instead of from the noise of their seeds. Raises
        ExecutionFailed when the policy does not begin.
        """
        fresh = latents is None
        samples = [
            SampleState(f"{request.id}/{i}", request, i, rows, fresh, policy, trip)
            for i in range(request.num_images)
        ]
        admit(self.state, samples)
        if latents is None:
            return
        for sample, latent_CHW in zip(samples, latents, strict=True):
            self.executor.put_latent(sample.id, latent_CHW)
        # What samples of these ids had that ended just now is gone with it.
        new = {sample.id for sample in samples}
        self.state.released = [name for name in self.state.released if name not in new]

    def cancel(self, request: str) -> bool:
        """Drop a request between two steps; its slots are freed by the next one. False if it is not
        there.
        """
        return cancel(self.state, request)

    def step(self) -> list[Event] | None:
        """Plan and run one step; its events, or None when there is nothing to do."""
        plan = self.scheduler.schedule(self.state)
        if plan is None:
            self.executor.check_integrity(list(self.state.samples))
            return None
        result = self.executor.execute(plan)
        if self._observe is not None:
            self._observe(plan, result)
        return update(self.state, plan, result)
