"""A worker in simulated time: the step loop and the scheduler of a real one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from musiva.core.errors import Cancelled, ExecutionFailed, Overloaded
from musiva.core.types import Event, StepPlan
from musiva.engine import StepLoop
from musiva.engine.fleet.wire import Submit
from musiva.engine.journal import Entry
from musiva.perf.scale.price import Priced
from musiva.perf.traffic import SimulatedExecutor, Wanted

__all__ = ["Running", "SimulatedWorker"]


@dataclass(slots=True)
class Running:
    """A step under way. extra: seconds of it that are not of the execution. left: seconds that are
    still to come at full speed, counted from `since`; taken: those that had passed by then. speed:
    since then, as a share of the full one. turn: of the latest forecast of its end, by which
    earlier ones are known to be void.
    """

    plan: StepPlan
    priced: Priced
    extra: float
    since: float
    left: float
    taken: float = 0.0
    speed: float = 1.0
    turn: int = 0

    @property
    def executed(self) -> float:
        """Seconds of the execution, when it has ended."""
        whole = self.priced.seconds + self.extra
        return self.taken * (self.priced.seconds / whole) if self.extra else self.taken


@dataclass(slots=True, eq=False)
class SimulatedWorker:
    """number: its place in the fleet; life: which of the workers that had this place. inbox: what
    has come, and when the request did by the loop's clock. cancelled: ids, in order. busy: seconds
    that it was at steps.
    """

    number: int
    life: int
    loop: StepLoop
    executor: SimulatedExecutor
    inbox: list[tuple[Wanted, Submit, float]] = field(default_factory=list)
    cancelled: dict[str, None] = field(default_factory=dict)
    running: Running | None = None
    alive: bool = True
    busy: float = 0.0
    steps: int = 0

    def take_in(self) -> Iterator[Event]:
        """What an engine does between two steps: let in what has come, and drop what was cancelled;
        the news of that.
        """
        arrived, self.inbox = self.inbox, []
        cancelled, self.cancelled = self.cancelled, {}
        for wanted, submit, since in arrived:
            if submit.request.id in cancelled:
                continue
            resumed = None
            if submit.resumed is not None:
                told = submit.resumed.items()
                resumed = {i: packed and Entry.resumption(*packed) for i, packed in told}
            try:
                yield wanted.submit(self.loop, since, resumed)
            except (ExecutionFailed, Overloaded) as error:
                yield Event(submit.request.id, "failed", error=error)
        for name in cancelled:
            self.loop.cancel(name)
            yield Event(name, "failed", error=Cancelled(f"request {name} was cancelled"))
