"""The step loop: schedule, execute, update. One thread, no I/O, a clock that it is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from torch import Tensor

from musiva.comm import LinkFigures
from musiva.core.errors import Overloaded
from musiva.core.types import DenoiseItem, EncodeItem, Event, Request, StepPlan, StepResult
from musiva.engine.journal import Journal, Resumption
from musiva.engine.sample import SampleState, observe, resume
from musiva.engine.scheduler import Scheduler
from musiva.engine.scheduler.prices import work_of
from musiva.engine.slot import Checkpoint
from musiva.engine.standing import Ended, Estimate, Ledger, Standing
from musiva.engine.state import Arrival, EngineState, admit, cancel, update
from musiva.policy import Policy, Trip
from musiva.store import Figures

__all__ = ["Executor", "Observer", "StepLoop", "StoringExecutor"]

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

    def checkpoint(self, sample: str) -> Checkpoint | None:
        """The latest of a sample; None where there is none."""
        ...

    def restore(self, sample: str, checkpoint: Checkpoint) -> None:
        """Let a sample go on from there, as `put_latent` lets it begin."""
        ...

    def check_integrity(self, live: Sequence[str]) -> None:
        """Raise AssertionError if anything is kept for a sample that is not live."""
        ...


class StoringExecutor(Executor, Protocol):
    """One with a store. store_figures: of it after the last step; links: to other ranks and hosts.
    Any thread may read both.
    """

    @property
    def store_figures(self) -> Figures: ...

    @property
    def links(self) -> Sequence[LinkFigures]: ...


class StepLoop:
    """Owns the request record. Not thread-safe: `Engine` gives it a thread.

    observe is called with every plan and its result; the plans alone replay a run. clock: seconds,
    of any origin. journal: is told of samples when steps have advanced them.
    """

    def __init__(
        self,
        executor: Executor,
        scheduler: Scheduler,
        observe: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        journal: Journal | None = None,
    ) -> None:
        self.executor = executor
        self.scheduler = scheduler
        self.clock = clock
        self.state = EngineState()
        self.ledger = Ledger(clock())
        self._observe = observe
        self._journal = journal

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
        resumed: Mapping[int, Resumption | None] | None = None,
    ) -> Event:
        """Admit all pictures of a request, and tell when they should be done. policies: one for
        each of its levels. rows: packed rows of one picture. decode_shares: of the work of decoding
        it, that of each part that may be a step of its own. latents: one for each, where the
        pictures start instead of from the noise of their seeds. arrived: by the clock, if that was
        before now. resumed: of a request that was admitted elsewhere, and so is not refused, the
        pictures that are not done, and where each goes on; None at its beginning.

        Raises ExecutionFailed when a policy does not begin, and Overloaded for a request that could
        not be on time, or would make another one late.
        """
        state, scheduler, now = self.state, self.scheduler, self.clock()
        since = now if arrived is None else arrived
        samples = self._begun(request, policies, trip, rows, since, fresh=latents is None)
        if resumed is not None:
            samples = [sample for sample in samples if sample.index in resumed]
        for sample in samples:
            sample.decode_shares = decode_shares
        verdict = scheduler.verdict(state, samples, now)
        if verdict.refusal is not None and resumed is None:
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
        for sample in samples:
            self._place(sample, latents, (resumed or {}).get(sample.index))
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
        done = plan.items and not any(outcome.error for outcome in result.outcomes)
        if done and not result.strayed:
            work, state = work_of(plan, self.state), self.state
            predicted = self.scheduler.tariff.cost.seconds(work)
            state.drift = state.drift.after(plan.kind, predicted, result.seconds)
        if self._observe is not None:
            self._observe(plan, result)
        events = update(self.state, plan, result, self.clock())
        if self._journal is not None:
            self._tell(self._journal, plan)
        for event in events:
            if event.report is not None:
                good = event.report.deadline_met is not False
                self.ledger.ended.append(Ended(self.clock(), good, quality=event.report.used))
        return events

    def _tell(self, journal: Journal, plan: StepPlan) -> None:
        """Of the samples that a step has advanced."""
        for name in plan.release:
            journal.forget(name)
        for item in plan.items:
            if isinstance(item, EncodeItem):
                continue
            sample = self.state.samples.get(item.sample)
            if sample is None:
                journal.forget(item.sample)
            elif isinstance(item, DenoiseItem):
                journal.enter(sample, self.executor)

    def _place(
        self, sample: SampleState, latents: Sequence[Tensor] | None, resumed: Resumption | None
    ) -> None:
        """Give a sample what it starts from, where that is not the noise of its seed."""
        checkpoint = None if resumed is None else resumed.checkpoint
        if checkpoint is not None:
            self.executor.restore(sample.id, checkpoint)
        elif latents is not None:
            self.executor.put_latent(sample.id, latents[sample.index])
        if resumed is not None and (
            error := resume(sample, resumed.record, checkpoint.evaluation if checkpoint else 0)
        ):
            cancel(self.state, sample.request.id)
            raise error
        if checkpoint is not None or latents is not None:
            # What a sample of this id had that ended just now is gone with it.
            self.state.released = [name for name in self.state.released if name != sample.id]

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
