"""One picture on its way: what is known of it on the host, and what its policies want."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from itertools import accumulate, compress
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from musiva.core.errors import ExecutionFailed
from musiva.core.pack import ROW_ALIGN
from musiva.core.types import Action, Kind, Prompt, Report, Request, TileValues
from musiva.engine.actions import checked, cut
from musiva.policy import Asks, Policy, TilePolicy, Trip

__all__ = ["Record", "SampleState", "Stage", "choose", "num_words", "observe", "resume"]

log = logging.getLogger(__name__)


class Stage(Enum):
    DENOISING = auto()
    DECODING = auto()


@runtime_checkable
class Foresees(Protocol):
    """A policy that knows how many full evaluations are still to come."""

    def left(self, trip: Trip, memory: object) -> float: ...


@dataclass(frozen=True, slots=True)
class Record:
    """What a sample takes along where it goes on elsewhere. actions: what was done. The others are
    those of `SampleState`, behind them.
    """

    actions: tuple[Action, ...]
    memory: object
    level: int
    coarsest: int
    spent: Mapping[Kind, float]


@dataclass(slots=True)
class SampleState:
    """rows: packed rows of all its branches, padding included. policies: one for each level of its
    request. arrived: when, by the loop's clock. due: what it is ordered by, on the same clock; its
    deadline, if it has one. asks: what its policies want to be measured and kept. memory: what they
    remember. level: the last that was used, coarsest: the last of those that ever were. outlooks:
    see `_outlook`, of each level. left: full evaluations still to come, at each level. next: what
    it wants done at `level`, up to the next evaluation that computes. actions: its journal, one per
    evaluation, as it was done. spent: seconds of the steps that it took part in. decode_shares: of
    the work of decoding, that of each part that it may be cut into; decoded: parts that are done.
    prompts: one for each branch, the conditional one first; words: of all. given: what was done
    elsewhere, which is done again as it was. reused: evaluations that were found, not computed.
    """

    id: str
    request: Request
    index: int
    rows: int
    fresh: bool
    policies: tuple[Policy, ...]
    trip: Trip
    arrived: float = 0.0
    due: float = 0.0
    asks: Asks = field(default_factory=Asks)
    memory: object = None
    level: int = 0
    coarsest: int = 0
    outlooks: tuple[tuple[float, ...], ...] = ()
    left: tuple[float, ...] = ()
    next: tuple[Action, ...] = ()
    actions: list[Action] = field(default_factory=list)
    stage: Stage = Stage.DENOISING
    decode_shares: Sequence[float] = (1.0,)
    decoded: int = 0
    spent: dict[Kind, float] = field(default_factory=dict)
    given: tuple[Action, ...] = ()
    reused: int = 0
    prompts: tuple[Prompt, ...] = field(init=False)
    words: int = field(init=False)

    def __post_init__(self) -> None:
        self.prompts = self.request.prompts
        self.words = num_words(self.prompts)

    @property
    def policy(self) -> Policy:
        """That of its level."""
        return self.policies[self.level]

    @property
    def deadline(self) -> float | None:
        """By the loop's clock."""
        asked = self.request.deadline
        return None if asked is None else self.arrived + asked

    @property
    def num_evaluations(self) -> int:
        return self.trip.num_evaluations

    @property
    def evaluation(self) -> int:
        """The one that comes next."""
        return len(self.actions)

    @property
    def is_bound(self) -> bool:
        """Whether what comes next is done again, and nobody decides."""
        return self.evaluation < len(self.given)

    @property
    def num_computed(self) -> int:
        """Evaluations that were computed in full."""
        return sum(action.full for action in self.actions)

    @property
    def cost(self) -> float:
        """The full evaluations that all that was computed is worth, by its tokens."""
        return sum(map(self.share, self.actions))

    @property
    def tile_counts(self) -> tuple[int, ...]:
        """Evaluations that computed each tile, in full or as one of some."""
        if self.trip.tiles is None:
            return ()
        every = (True,) * len(self.trip.tile_tokens)
        ran = [action.tiles or every for action in self.actions if self.share(action)]
        return tuple(sum(tiles[i] for tiles in ran) for i in range(len(every)))

    @property
    def patches(self) -> int:
        """The most parts that its tokens are cut into at an evaluation."""
        if self.asks.gates:
            return 1
        return max(self.trip.patches, *(action.patches for action in self.given), 1)

    @property
    def surprise(self) -> float:
        """How much it has surprised its policy so far, as that counts it; 0 is as usual."""
        found = getattr(self.memory, "surprise", 0.0)
        return found if isinstance(found, float) else 0.0

    def rows_of(self, action: Action) -> int:
        """Packed rows of an evaluation."""
        if not action.compute:
            return 0
        branches, rows = len(self.prompts), self.rows
        if action.tiles is not None:
            rows = branches * (-(-self._tokens(action.tiles) // ROW_ALIGN) * ROW_ALIGN)
        if action.coarse:
            # The other branch has a quarter of its tokens.
            quarter = -(-rows // branches // 4 // ROW_ALIGN) * ROW_ALIGN
            return rows // branches + (branches - 1) * quarter
        return rows // branches if action.borrow else rows

    def record(self) -> Record:
        """As of now."""
        return Record(tuple(self.actions), self.memory, self.level, self.coarsest, dict(self.spent))

    def report(self, now: float) -> Report:
        """Of its picture, which is there now."""
        spent, deadline = self.spent, self.deadline
        return Report(
            promised=self.request.min_quality,
            used=self.request.levels[self.coarsest].quality,
            seconds=now - self.arrived,
            encode=spent.get(Kind.ENCODE, 0.0),
            denoise=spent.get(Kind.DENOISE, 0.0),
            decode=spent.get(Kind.DECODE, 0.0),
            deadline_met=None if deadline is None else now <= deadline,
            reused=self.reused,
        )

    def share(self, action: Action) -> float:
        """Of the tokens of all branches, those that go through all of the model."""
        if not action.compute or action.held is not None:
            return 0.0
        # A grid that is halved once has a quarter of the tokens.
        share = 0.625 if action.coarse else 1.0 / len(self.prompts) if action.borrow else 1.0
        if action.tiles is None:
            return share
        return share * self._tokens(action.tiles) / sum(self.trip.tile_tokens)

    def _tokens(self, tiles: tuple[bool, ...]) -> int:
        return sum(compress(self.trip.tile_tokens, tiles))


def num_words(prompts: Sequence[Prompt]) -> int:
    """About as many as a tokenizer would make; a text encoder costs little beside the rest."""
    return sum(len(prompt.text.split()) + 1 for prompt in prompts)


def choose(sample: SampleState, level: int) -> tuple[Action, ...]:
    """What a sample wants done next at a level: the evaluations up to one that computes. Raises
    whatever its policy does, which is anybody's code, and InvalidInput for what cannot be done.
    """
    if sample.is_bound:
        return _given(sample)
    policy, trip, actions = sample.policies[level], sample.trip, []
    asks, quality = sample.asks, sample.request.levels[level].quality
    for evaluation in range(sample.evaluation, trip.num_evaluations):
        wanted = policy.act(trip, sample.memory, evaluation)
        action = checked(wanted, evaluation, asks, trip)
        action = cut(action, (*sample.actions, *actions), asks, trip, quality)
        actions.append(action)
        if action.compute:
            break
    return tuple(actions)


def observe(
    sample: SampleState,
    measured: Mapping[str, float | TileValues] = MappingProxyType({}),
) -> ExecutionFailed | None:
    """Let the policy of a sample observe the last of what was done, of which `measured` tells, and
    say what it wants next. What a policy raises, or wants and cannot have, ends the request.
    """
    try:
        if not sample.actions:
            sample.asks = _asks(sample)
            sample.memory = sample.policy.begin(sample.trip)
            sample.outlooks = tuple(_outlook(sample, policy) for policy in sample.policies)
        elif sample.evaluation > len(sample.given) and (done := sample.actions[-1]).compute:
            sample.memory = _observed(sample, done, measured)
    except (Exception, SystemExit) as error:
        return _failed(sample, error)
    return _decided(sample)


def resume(sample: SampleState, record: Record, evaluation: int) -> ExecutionFailed | None:
    """Let a sample that has begun go on from `evaluation`, before which all of the record is there,
    and the rest is done again. What its policy raises ends the request, as in `observe`.
    """
    sample.given, sample.actions = record.actions, list(record.actions[:evaluation])
    sample.memory, sample.level, sample.coarsest = record.memory, record.level, record.coarsest
    sample.spent = dict(record.spent)
    sample.fresh = sample.fresh and not evaluation
    return _decided(sample)


def _decided(sample: SampleState) -> ExecutionFailed | None:
    """Ask its policy what comes next."""
    try:
        sample.next = choose(sample, sample.level)
        sample.left = tuple(map(_left(sample), sample.policies, sample.outlooks))
    except (Exception, SystemExit) as error:
        return _failed(sample, error)
    return None


def _failed(sample: SampleState, error: BaseException) -> ExecutionFailed:
    log.error("sample %s: its policy failed at %d", sample.id, sample.evaluation, exc_info=error)
    name = type(sample.policy).__name__
    return ExecutionFailed(f"policy {name} failed at evaluation {sample.evaluation}: {error}")


def _given(sample: SampleState) -> tuple[Action, ...]:
    """What was done next elsewhere, in the same steps."""
    later = sample.given[sample.evaluation :]
    count = next((i for i, action in enumerate(later, 1) if action.compute), len(later))
    return later[:count]


def _asks(sample: SampleState) -> Asks:
    """Of all levels, which have to ask for the same: a sample may change between them."""
    asks, *others = (Asks.of(policy) for policy in sample.policies)
    if any(other != asks for other in others):
        raise ValueError("its levels ask for different things to be measured and kept")
    return asks


def _observed(
    sample: SampleState, done: Action, measured: Mapping[str, float | TileValues]
) -> object:
    """The memory of a sample's policy after the model ran."""
    policy, trip, last = sample.policy, sample.trip, sample.evaluation - 1
    if isinstance(policy, TilePolicy):
        return policy.observe(trip, sample.memory, last, done, measured)
    numbers = {name: x for name, x in measured.items() if not isinstance(x, tuple)}
    return policy.observe(trip, sample.memory, last, done, numbers)


def _outlook(sample: SampleState, policy: Policy) -> tuple[float, ...]:
    """The full evaluations that are still to come at each evaluation, if nothing that is measured
    changes what a policy does: it is pure, so it can be asked. () for one that says so itself.
    """
    if isinstance(policy, Foresees):
        return ()
    trip, asks, memory, shares = sample.trip, sample.asks, sample.memory, []
    try:
        for evaluation in range(trip.num_evaluations):
            action = checked(policy.act(trip, memory, evaluation), evaluation, asks, trip)
            if action.compute:
                memory = policy.observe(trip, memory, evaluation, replace(action, gate=None), {})
            shares.append(sample.share(action))
    except (Exception, SystemExit) as error:
        # Told when it comes to it, if it does.
        log.debug("sample %s: its policy foresees nothing: %r", sample.id, error)
        shares = [1.0] * trip.num_evaluations
    return tuple(accumulate(reversed(shares)))[::-1]


def _left(sample: SampleState) -> Callable[[Policy, tuple[float, ...]], float]:
    """The full evaluations that are still to come, by policy and its outlook."""
    done, trip, memory = sample.evaluation, sample.trip, sample.memory

    def left(policy: Policy, outlook: tuple[float, ...]) -> float:
        if isinstance(policy, Foresees):
            return min(policy.left(trip, memory), float(trip.num_evaluations - done))
        return outlook[done] if done < len(outlook) else 0.0

    return left
