"""The step loop: schedule, execute, update. One thread, no I/O, a clock that it is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from torch import Tensor

from musiva.core.errors import Overloaded
from musiva.core.types import Event, Request, StepPlan, StepResult
from musiva.engine.sample import SampleState, observe
from musiva.engine.scheduler import Scheduler
from musiva.engine.scheduler.prices import work_of
from musiva.engine.standing import Ended, Estimate, Ledger, Standing
from musiva.engine.state import Arrival, EngineState, admit, cancel, update
from musiva.policy import Policy, Trip

__all__ = ["Executor", "Observer", "StepLoop"]

Observer = Callable[[StepPlan, StepResult], None]


class Executor(Protocol):
    """Runs plans. execute() raises for nothing that a request did: the outcome of its item carries
    the error.
    """

    def execute(self, plan: StepPlan) -> StepResult: ...

    def put_latent(self, sample: str, latent: Tensor) -> None:
        """Give a sample that no plan has named yet its starting latent. What one of its id had
        that ended is let go of.
        """
        ...

    def check_integrity(self, live: Sequence[str]) -> None:
        """Raise AssertionError if anything is kept for a sample that is not live."""
        ...


class StepLoop:
    """Owns the request record. Not thread-safe: `Engine` gives it a thread.

    observe is called with every plan and its result; the plans alone replay a run. clock: seconds,
    of any origin.
    """

    def __init__(
        self,
        executor: Executor,
        scheduler: Scheduler,
        observe: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.executor = executor
        self.scheduler = scheduler
        self.clock = clock
        self.state = EngineState()
        self.ledger = Ledger(clock())
        self._observe = observe

    def submit(
        self,
        request: Request,
        *,
        policies: Sequence[Policy],
        trip: Trip,
        rows: int,
        decode_shares: Sequence[float] = (1.0,),
        latents: Sequence[Tensor] | None = None,
        arrived: float | None = None,
    ) -> Event:
        """Admit all pictures of a request, and tell when they should be done. policies: one for
        each of its levels. rows: packed rows of one picture. decode_shares: of the work of decoding
        it, that of each part that may be a step of its own. latents: one for each, where the
        pictures start instead of from the noise of their seeds. arrived: by the clock, if that was
        before now.

        Raises ExecutionFailed when a policy does not begin, and Overloaded for a request that could
        not be on time, or would make another one late.
        """
        state, scheduler, now = self.state, self.scheduler, self.clock()
        since = now if arrived is None else arrived
        samples = self._begun(request, policies, trip, rows, since, fresh=latents is None)
        for sample in samples:
            sample.decode_shares = decode_shares
        verdict = scheduler.verdict(state, samples, now)
        if verdict.refusal is not None:
            self.ledger.ended.append(Ended(now, good=False, refused=True))
            raise Overloaded(
                verdict.refusal,
                reason=verdict.reason,
                retry=verdict.retry,
                finish=verdict.finish,
            )
        work = scheduler.work(state, samples, now)
        admit(state, samples)
        state.arrivals.append(Arrival(since, request.tenant, work))
        if request.deadline is None:
            state.last_due[request.tenant] = samples[-1].due
        if latents is not None:
            for sample, latent in zip(samples, latents, strict=True):
                self.executor.put_latent(sample.id, latent)
            # What samples of these ids had that ended just now is gone with it.
            new = {sample.id for sample in samples}
            state.released = [name for name in state.released if name not in new]
        return Event(request.id, "admitted", finish=verdict.finish)

    def estimates(
        self, request: Request, *, policies: Sequence[Policy], trip: Trip, rows: int
    ) -> list[Estimate]:
        """What a request would get that came now, with each of its levels as its floor, the most
        exact first. Raises ExecutionFailed when a policy does not begin.
        """
        state, now, found = self.state, self.clock(), []
        for count in range(1, len(policies) + 1):
            asked = replace(request, levels=request.levels[:count])
            samples = self._begun(asked, policies[:count], trip, rows, now, fresh=True)
            verdict = self.scheduler.verdict(state, samples, now)
            found.append(
                Estimate(
                    quality=asked.min_quality,
                    finish=verdict.finish,
                    work=self.scheduler.work(state, samples, now)[-1],
                    refusal=verdict.refusal,
                )
            )
        return found

    def standing(self) -> Standing:
        """How it stands now."""
        state, now = self.state, self.clock()
        prices = self.scheduler.view(state, now).prices
        samples = list(state.samples.values())
        begun = {s.request.id for s in samples if s.actions}
        lately, seconds = self.ledger.lately(now)
        good = sum(ended.good for ended in lately)
        used = [s.request.levels[s.level].quality for s in samples if s.actions]
        return Standing(
            waiting=len(state.requests) - len(begun),
            running=len(begun),
            backlog=sum(prices.left(s, s.level) for s in samples),
            backlog_floor=sum(prices.left(s, -1) for s in samples),
            goodput=good / seconds,
            attainment=good / len(lately) if lately else None,
            refused=sum(ended.refused for ended in lately),
            quality=sum(used) / len(used) if used else None,
        )

    def cancel(self, request: str) -> bool:
        """Drop a request between two steps; its slots are freed by the next one. False if it is not
        there.
        """
        return cancel(self.state, request)

    def step(self) -> list[Event] | None:
        """Plan and run one step; its events, or None when there is nothing to do."""
        plan = self.scheduler.schedule(self.state, self.clock())
        if plan is None:
            self.executor.check_integrity(list(self.state.samples))
            return None
        return self.enter(plan, self.executor.execute(plan))

    def enter(self, plan: StepPlan, result: StepResult) -> list[Event]:
        """Enter what a plan did, which was executed just now."""
        if plan.items and not any(outcome.error for outcome in result.outcomes):
            work, state = work_of(plan, self.state), self.state
            predicted = self.scheduler.tariff.cost.seconds(work)
            state.drift = state.drift.after(plan.kind, predicted, result.seconds)
        if self._observe is not None:
            self._observe(plan, result)
        events = update(self.state, plan, result, self.clock())
        for event in events:
            if event.report is not None:
                good = event.report.deadline_met is not False
                self.ledger.ended.append(Ended(self.clock(), good, quality=event.report.used))
        return events

    def _begun(
        self,
        request: Request,
        policies: Sequence[Policy],
        trip: Trip,
        rows: int,
        since: float,
        *,
        fresh: bool,
    ) -> list[SampleState]:
        """Its samples, which have begun and know when they are due."""
        samples = [
            SampleState(f"{request.id}/{i}", request, i, rows, fresh, tuple(policies), trip, since)
            for i in range(request.num_images)
        ]
        for sample in samples:
            if error := observe(sample):
                raise error
            sample.due = self.scheduler.due(self.state, sample, self.clock())
        return samples
