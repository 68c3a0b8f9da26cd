"""A fleet in simulated time: workers with the step loop, scheduler and placement of real ones, on
one clock that goes from event to event.

What a `Fleet` does with threads, locks and processes is done here one event after the other; what
it decides is decided by the same code.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

from musiva.core.errors import Cancelled, Overloaded
from musiva.core.types import Event
from musiva.engine import StepLoop
from musiva.engine.fleet.placement import LOOK, Load, loads_of, misplaced, placed
from musiva.engine.fleet.ticket import Ticket
from musiva.engine.fleet.wire import Submit
from musiva.engine.journal import Entry, Journal
from musiva.perf.scale.cores import Cores
from musiva.perf.scale.price import price
from musiva.perf.scale.setting import Setting
from musiva.perf.scale.worker import Running, SimulatedWorker
from musiva.perf.traffic import Fate, SimulatedExecutor, VirtualClock, Wanted

__all__ = ["Course", "Death", "simulate_fleet"]

# What happens at one time, in order: what has come is there before a step ends, and both before
# the next one begins.
COMES, ENDS, BEGINS, LOOKS = range(4)


@dataclass(frozen=True, slots=True)
class Death:
    """Of a worker, at a time. back: seconds until the next one of its place is ready."""

    at: float
    worker: int
    back: float


@dataclass(frozen=True, slots=True)
class Course:
    """What became of a trace. fates: in its order. ends: of each, how often its owner was told of
    an end, which is once. failed: of those that ended without a picture and were not refused.
    seconds: until the last end. busy: seconds that workers were at steps, all together. steps:
    that they made. messages: that came to the front. moved: requests that were waiting on one
    worker and went to another.
    """

    fates: Sequence[Fate]
    ends: Sequence[int]
    failed: int
    seconds: float
    busy: float
    steps: int
    messages: int
    moved: int


@dataclass(slots=True, eq=False)
class Asking:
    """A request under way, and the worker that it is on."""

    wanted: Wanted
    ticket: Ticket
    fate: Fate
    worker: SimulatedWorker | None = None


def simulate_fleet(
    setting: Setting, trace: Sequence[Wanted], deaths: Sequence[Death] = ()
) -> Course:
    """What becomes of each request; ids differ. Raises what one fails of by itself."""
    return SimulatedFleet(setting, journals=bool(deaths)).run(trace, deaths)


class SimulatedFleet:
    """Runs one trace. journals: whether workers tell what others need to go on for them; without,
    a request that moves just as it begins begins anew.
    """

    def __init__(self, setting: Setting, *, journals: bool) -> None:
        self._setting = setting
        self._journals = journals
        self._clock = VirtualClock()
        self._heap: list[tuple[float, int, int, Callable[[], None]]] = []
        self._serial = count()
        self._tariff = setting.scheduler.build().tariff
        self._cores = Cores(setting.cluster, setting.workers.degree)
        self._workers = [self._started(n, 1) for n in range(setting.workers.count)]
        self._ready = [worker.number for worker in self._workers]
        self._asking: dict[str, Asking] = {}
        self._ends: Counter[str] = Counter()
        # When whoever takes requests has time for the next one.
        self._free = 0.0
        self._over = 0.0
        self._looks = False
        self._messages = self._moved = self._failed = self._steps = 0
        self._busy = 0.0

    def run(self, trace: Sequence[Wanted], deaths: Sequence[Death]) -> Course:
        fates = [Fate(wanted.asked) for wanted in trace]
        for wanted, fate in zip(trace, fates, strict=True):
            self._at(wanted.asked.at, COMES, partial(self._arrive, wanted, fate))
        for death in deaths:
            self._at(death.at, COMES, partial(self._die, death))
        while self._heap:
            at, _, _, happens = heapq.heappop(self._heap)
            self._clock.wait_until(at)
            happens()
        for worker in self._workers:
            self._count(worker)
        return Course(
            fates=fates,
            ends=[self._ends[wanted.request.id] for wanted in trace],
            failed=self._failed,
            seconds=self._over,
            busy=self._busy,
            steps=self._steps,
            messages=self._messages,
            moved=self._moved,
        )

    def _started(self, number: int, life: int) -> SimulatedWorker:
        setting, clock = self._setting, self._clock
        executor = SimulatedExecutor(setting.cost, clock)

        def tell(entry: Entry) -> None:
            self._tell(worker, entry)

        journal = Journal(tell, clock.now) if self._journals else None
        loop = StepLoop(executor, setting.scheduler.build(), clock=clock.now, journal=journal)
        executor.state = loop.state
        worker = SimulatedWorker(number, life, loop, executor)
        return worker

    def _at(self, when: float, order: int, happens: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, order, next(self._serial), happens))

    def _arrive(self, wanted: Wanted, fate: Fate) -> None:
        """A request waits until whoever takes requests has time for it."""
        self._free = max(self._free, self._clock.now()) + self._setting.cluster.placing
        self._at(self._free, COMES, partial(self._submit, wanted, fate))

    def _submit(self, wanted: Wanted, fate: Fate) -> None:
        request = wanted.request
        evaluations = wanted.trip.num_evaluations
        seconds = self._tariff.alone(request, wanted.rows, evaluations)
        ticket = Ticket(request, None, _nobody, wanted.asked.at, seconds)
        assert request.id not in self._asking, "ids differ"
        self._asking[request.id] = asking = Asking(wanted, ticket, fate)
        self._put(asking)

    def _put(self, asking: Asking) -> None:
        """On a worker, or on none where none is ready."""
        ticket = asking.ticket
        ticket.leaves, asking.worker = False, None
        number = placed(self._loads(), ticket.refusals)
        if number is None:
            return
        self._has_changed()
        asking.worker = worker = self._workers[number]
        submit = ticket.submission(self._clock.now())
        self._send(worker, partial(self._receive, worker, asking.wanted, submit))

    def _send(self, worker: SimulatedWorker, arrives: Callable[[], None]) -> None:
        """To a worker, which looks at it when its step has ended."""

        def received() -> None:
            if worker.alive:
                arrives()
                self._wake(worker)

        self._at(self._clock.now() + self._latency, COMES, received)

    def _receive(self, worker: SimulatedWorker, wanted: Wanted, submit: Submit) -> None:
        worker.inbox.append((wanted, submit, self._clock.now() - submit.age))

    @property
    def _latency(self) -> float:
        return self._setting.cluster.front.latency

    def _tell(self, worker: SimulatedWorker, message: Event | Entry) -> None:
        """The front, which hears it later."""
        when = self._clock.now() + self._latency
        self._at(when, COMES, partial(self._hear, worker, message))

    def _wake(self, worker: SimulatedWorker) -> None:
        if worker.running is None:
            self._at(self._clock.now(), BEGINS, partial(self._begin, worker))

    def _begin(self, worker: SimulatedWorker) -> None:
        """The next step, if there is anything to do."""
        if worker.running is not None or not worker.alive:
            return
        for event in worker.take_in():
            self._tell(worker, event)
        loop, now = worker.loop, self._clock.now()
        plan = loop.scheduler.schedule(loop.state, now)
        if plan is None:
            loop.executor.check_integrity(list(loop.state.samples))
            return
        priced = price(plan, loop.state, self._setting)
        extra = self._setting.cluster.step
        worker.running = Running(plan, priced, extra, now, priced.seconds + extra)
        self._expect(self._cores.begin(worker, now))

    def _expect(self, workers: Sequence[SimulatedWorker]) -> None:
        """The ends of their steps, which are at other times now than what was expected before."""
        for worker in workers:
            running = worker.running
            assert running is not None
            running.turn += 1
            end = running.since + running.left / running.speed
            self._at(end, ENDS, partial(self._end, worker, running, running.turn))

    def _end(self, worker: SimulatedWorker, running: Running, turn: int) -> None:
        if worker.running is not running or running.turn != turn:
            return
        running.taken += running.left / running.speed
        worker.running = None
        worker.busy += running.taken
        worker.steps += 1
        self._expect(self._cores.end(worker, self._clock.now()))
        plan = running.plan
        result = worker.executor.result(plan, running.executed, running.priced.rows)
        for event in worker.loop.enter(plan, result):
            self._tell(worker, event)
        self._wake(worker)

    def _hear(self, worker: SimulatedWorker, message: Event | Entry) -> None:
        """What a worker tells the front."""
        self._messages += 1
        asking = self._asking.get(message.request)
        if asking is None or asking.worker is not worker:
            return
        ticket = asking.ticket
        had_begun = ticket.begun
        if isinstance(message, Entry):
            ticket.enter(message)
        elif message.kind == "failed":
            self._hear_failed(asking, worker, message)
        elif ticket.is_news(message):
            self._hear_news(asking, message)
        if ticket.begun != had_begun:
            self._has_changed()

    def _hear_news(self, asking: Asking, event: Event) -> None:
        fate, now = asking.fate, self._clock.now()
        if event.kind == "admitted":
            fate.predicted = event.finish
            self._has_changed()
        elif event.kind == "picture":
            fate.seconds = now - fate.asked.at
            fate.cost, fate.report = event.cost, event.report
        elif event.kind == "done":
            self._finish(asking)

    def _hear_failed(self, asking: Asking, worker: SimulatedWorker, event: Event) -> None:
        ticket, error = asking.ticket, event.error
        assert error is not None
        if isinstance(error, Cancelled) and ticket.leaves:
            self._moved += 1
            self._put(asking)
            return
        if not isinstance(error, Overloaded) or ticket.admitted:
            raise error
        ticket.refusals[worker.number] = error
        if any(number not in ticket.refusals for number in self._ready):
            self._put(asking)
            return
        asking.fate.refused = True
        self._finish(asking)

    def _finish(self, asking: Asking) -> None:
        name = asking.ticket.request.id
        self._ends[name] += 1
        self._over = self._clock.now()
        del self._asking[name]
        self._has_changed()

    def _has_changed(self) -> None:
        """Where requests are: the next look is at the next full tenth of a second, as the front
        looks all the time, and finds nothing where nothing has changed.
        """
        if not self._looks:
            self._looks = True
            when = (math.floor(self._clock.now() / LOOK) + 1) * LOOK
            self._at(when, LOOKS, self._look)

    def _look(self) -> None:
        self._looks = False
        for asking in list(self._asking.values()):
            if asking.worker is None and self._ready:
                self._put(asking)
        pair = misplaced(self._loads())
        if pair is None:
            return
        crowded = self._workers[pair[0]]
        own = [one for one in self._asking.values() if one.worker is crowded]
        if any(one.ticket.leaves for one in own):
            return
        waiting = [one.ticket for one in own if one.ticket.admitted and not one.ticket.begun]
        if waiting:
            waiting[-1].leaves = True
            name = waiting[-1].request.id
            self._send(crowded, partial(crowded.cancelled.setdefault, name))

    def _loads(self) -> dict[int, Load]:
        return loads_of(
            self._ready,
            (
                (one.worker.number, one.ticket.left, one.ticket.begun)
                for one in self._asking.values()
                if one.worker is not None
            ),
        )

    def _die(self, death: Death) -> None:
        worker, now = self._workers[death.worker], self._clock.now()
        if not worker.alive:
            return
        worker.alive = False
        if worker.running is not None:
            worker.running = None
            self._expect(self._cores.end(worker, now))
        self._at(now + self._latency, COMES, partial(self._lose, worker, death.back))

    def _lose(self, worker: SimulatedWorker, back: float) -> None:
        """The front learns that a worker is gone: what it had goes on elsewhere."""
        self._ready.remove(worker.number)
        self._at(self._clock.now() + back, COMES, partial(self._replace, worker))
        for asking in [one for one in self._asking.values() if one.worker is worker]:
            ticket = asking.ticket
            ticket.refusals.clear()
            ticket.losses += 1
            if len(ticket.done) == ticket.request.num_images:
                self._finish(asking)
            elif ticket.losses < self._setting.workers.losses:
                self._put(asking)
            else:
                self._failed += 1
                self._finish(asking)

    def _replace(self, lost: SimulatedWorker) -> None:
        self._count(lost)
        self._workers[lost.number] = self._started(lost.number, lost.life + 1)
        self._ready = sorted([*self._ready, lost.number])
        self._has_changed()

    def _count(self, worker: SimulatedWorker) -> None:
        self._busy += worker.busy
        self._steps += worker.steps


def _nobody(event: Event) -> None:
    """The front's own books tell what became of a request."""
