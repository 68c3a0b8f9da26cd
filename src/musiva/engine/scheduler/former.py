"""From an order to one step: items of one kind that run together."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from musiva.core.types import Action, DecodeItem, DenoiseItem, EncodeItem, Kind, Prompt
from musiva.engine.sample import SampleState, Stage, choose
from musiva.engine.scheduler.base import Turn, View
from musiva.parallel import spread

__all__ = ["Former", "Frontier", "Items", "next_kind"]

# More would save little: each part that is a step of its own has the cost of one.
DECODE_PACKS = 2.0
# What it takes to share samples among ranks, over what it takes to compute as much apart, by
# measure (bench `parallel`: two workers on one picture, and on two).
SHARING = 1.15
Items = tuple[EncodeItem, ...] | tuple[DenoiseItem, ...] | tuple[DecodeItem, ...]
# What may run next, by kind, in order; the order of kinds is that of their first turns.
Frontier = Mapping[Kind, Sequence[Turn]]


def next_kind(frontier: Frontier) -> Kind:
    """That of the first in order; rows of the others wait for a step."""
    return next(iter(frontier))


@dataclass(frozen=True, slots=True)
class Former:
    """max_rows: most rows of a pack, though a single sample may have more. max_encode: most prompts
    of a step. ranks: that run it together.
    """

    max_rows: int
    max_encode: int
    ranks: int = 1

    def frontier(self, view: View, turns: Sequence[Turn]) -> Frontier:
        found: dict[Kind, list[Turn]] = {}
        texts = view.state.texts
        for turn in turns:
            sample = turn.sample
            if sample.stage is Stage.DECODING:
                kind = Kind.DECODE
            elif all(prompt in texts for prompt in sample.prompts):
                kind = Kind.DENOISE
            else:
                kind = Kind.ENCODE
            found.setdefault(kind, []).append(turn)
        return found

    def items(self, view: View, kind: Kind, turns: Sequence[Turn]) -> Items:
        """The first, and those behind it as far as they hold up nobody before them too long, and as
        it pays.
        """
        if kind is Kind.DECODE:
            return (self._part(view, turns[0].sample),)
        if kind is Kind.ENCODE:
            return self._prompts(view, turns)
        return self._pack(view, turns)

    def _part(self, view: View, sample: SampleState) -> DecodeItem:
        """As much of decoding as takes no longer than `DECODE_PACKS` of such samples, at least one
        part: what comes meanwhile waits about as long as for any other step.
        """
        shares, taken = sample.decode_shares, 0.0
        whole, limit = view.prices.whole_decoding(sample), DECODE_PACKS * view.prices.pack(sample)
        last = sample.decoded
        while last < len(shares) and (not taken or taken + shares[last] * whole <= limit):
            taken += shares[last] * whole
            last += 1
        end = last if last < len(shares) else None
        return DecodeItem(sample.id, sample.decoded, end, sample.request.frames)

    def _prompts(self, view: View, turns: Sequence[Turn]) -> tuple[EncodeItem, ...]:
        prompts: dict[Prompt, None] = {}
        spare = math.inf
        for turn in turns:
            new = [p for p in turn.sample.prompts if p not in view.state.texts]
            seconds = view.prices.encoding(turn.sample)
            full = len(prompts) + len(new) > self.max_encode
            if prompts and (full or seconds > spare):
                break
            spare = min(spare - seconds, turn.slack)
            prompts.update(dict.fromkeys(new))
        return tuple(EncodeItem(prompt) for prompt in prompts)

    def _pack(self, view: View, turns: Sequence[Turn]) -> tuple[DenoiseItem, ...]:
        first = turns[0].sample
        knee = self.ranks * view.prices.tariff.knee(first.rows, len(first.prompts))
        items: list[DenoiseItem] = []
        free: dict[int, int] = {}
        rows, spare = 0, math.inf
        for turn in turns:
            if rows >= knee:
                break
            sample = turn.sample
            level = sample.level if sample.is_bound else turn.level
            actions = sample.next if level == sample.level else choose(sample, level)
            more = sample.rows_of(actions[-1])
            seconds = view.prices.evaluations(sample, more / sample.rows)
            if items and more and (rows + more > self.ranks * self.max_rows or seconds > spare):
                continue
            spare = min(spare - seconds, turn.slack)
            rows += more
            if more and _may_be_alone(sample):
                free[len(items)] = more
            items.append(item_of(sample, actions, level))
        for i in free if self._are_enough(free.values()) else ():
            *skipped, last = items[i].actions
            items[i] = replace(items[i], actions=(*skipped, replace(last, alone=True)))
        return tuple(items)

    def _are_enough(self, rows: Collection[int]) -> bool:
        """Whether ranks are done sooner with whole samples than with parts of all of them."""
        if self.ranks == 1 or not rows:
            return False
        loads = [0] * self.ranks
        for own, rank in zip(rows, spread(list(rows), self.ranks), strict=True):
            loads[rank] += own
        return max(loads) <= SHARING * sum(loads) / self.ranks


def _may_be_alone(sample: SampleState) -> bool:
    """Whether it is for the schedule to say by how many ranks it is computed: load may show in its
    picture, nothing is done again, and no rank keeps anything for it.
    """
    keeps = sample.trip.tile is not None or sample.patches > 1 or bool(sample.asks.gates)
    return len(sample.request.levels) > 1 and not sample.is_bound and not keeps


def item_of(sample: SampleState, actions: tuple[Action, ...], level: int) -> DenoiseItem:
    """What is done next about a sample."""
    request = sample.request
    return DenoiseItem(
        sample=sample.id,
        evaluation=sample.evaluation,
        actions=actions,
        path=request.path,
        seed=request.seed + sample.index,
        size=request.size,
        prompts=sample.prompts,
        guidance=request.guidance,
        fresh=sample.fresh,
        preview=_has_preview(sample, len(actions)),
        probes=sample.asks.probes if actions[-1].compute else (),
        keep=sample.asks.keep,
        tile=sample.trip.tile,
        level=level,
        frames=request.frames,
        tenant=request.tenant,
        patches=sample.patches,
    )


def _has_preview(sample: SampleState, count: int) -> bool:
    """Preview k of p comes after evaluation floor(k * e / (p + 1)) of e, or with the item that has
    it among its `count` evaluations.
    """
    parts, total = sample.request.previews + 1, sample.num_evaluations
    done, then = sample.evaluation, sample.evaluation + count
    # The number of k with k * e / (p + 1) < d + 1 grows exactly where d is such an evaluation.
    before, after = (-(-(d + 1) * parts // total) for d in (done, then))
    return after > before and then < total
