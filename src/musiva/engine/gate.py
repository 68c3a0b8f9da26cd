"""Gates: forwards in which each sample is computed in full or in part, as is decided half way.

A gate measures by how much something early in the model has changed. Where that is little, the
segments that follow do not run, and what they added when they ran last is added again: first-block
caching (ParaAttention) and TeaCache (arXiv 2411.19108). Both branches of a sample decide together,
by sums over both, as the published code does where it runs them as one batch.

All probes of a pack are read in one transfer. The samples that compute go on in a pack of their
own, so that the others cost `embed`, their probe and `head` alone; only where both kinds of probe
meet in a pack do all of its samples run the first segment. No operation mixes samples, so that the
bytes of one never depend on what the others do.

Only the image stream is held. A head that reads another one that segments change cannot be served
with gates, and fails for want of it.

T rows of a pack, M modulation rows, L rows of a sample branch, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from musiva.comm import Group
from musiva.core.errors import InvalidInput, NonFinite
from musiva.core.pack import Pack
from musiva.core.run import Run, Streams
from musiva.core.types import GATES, Action, DenoiseItem
from musiva.engine.tap import modulated_input, modulated_site
from musiva.models import Denoiser, Inputs
from musiva.store import Need, Store

__all__ = ["BRANCHES", "Gates", "Passage", "has_gate", "pages_of", "passages_of"]

FIRST_BLOCK, MODULATED_INPUT = GATES
REST, ALL = GATES.values()
# The guidance branches that a sample may have.
BRANCHES = range(2)


def has_gate(item: DenoiseItem) -> bool:
    """Whether an item decides at a gate, holds, or keeps what may be held later."""
    return item.computes and any(probe in GATES for probe in item.probes)


def pages_of(sample: str) -> list[Hashable]:
    """All owners of pages that a sample may have for its gates."""
    return [(sample, branch) for branch in BRANCHES]


@dataclass(slots=True)
class Passage:
    """One item on its way through a forward with gates.

    places: those of its branches in the pack. action: the last one of the item, as it is done.
    predictions: [L, ...] of each branch; they mean nothing where there is an error.
    """

    item: DenoiseItem
    places: range
    action: Action
    measured: dict[str, float] = field(default_factory=dict)
    error: Exception | None = None
    predictions: Sequence[Tensor] = ()

    @property
    def probes(self) -> list[str]:
        return [probe for probe in GATES if probe in self.item.probes]

    @property
    def owners(self) -> list[Hashable]:
        """In the store: a sample branch each."""
        owners = pages_of(self.item.sample)
        return [owners[branch] for branch in self.item.computed]

    @property
    def full(self) -> bool:
        """Whether all segments run, on all rows that there are of it."""
        return self.error is None and self.action.held is None


def passages_of(items: Sequence[DenoiseItem]) -> list[Passage]:
    """In order, with the branches that each computes."""
    ends = list(accumulate((len(item.computed) for item in items), initial=0))
    return [
        Passage(item, range(start, stop), item.actions[-1])
        for item, (start, stop) in zip(items, pairwise(ends), strict=True)
    ]


@dataclass(slots=True)
class Stages:
    """How far the model has run on a whole pack. start: its streams as embedded. then: after the
    num_done segments that have run. probed: [L, D] of each branch, by probe. bases: the same, of
    the image stream, by the residual that is added to it.
    """

    pack: Pack
    start: Streams
    then: Streams
    num_done: int
    probed: Mapping[str, Sequence[Tensor]]
    bases: Mapping[str, Sequence[Tensor]]


class Gates:
    """Runs packs with gates. What may be held is in `store`, by `pages_of`; an entry is named by
    the probe whose reference it is, or by the residual.
    """

    def __init__(self, model: Denoiser, run: Run, store: Store, group: Group) -> None:
        """group: the ranks that a pack is divided over, each with a part of every sample."""
        self.store = store
        self._model, self._run, self._group = model, run, group
        self._modulated_site: str | None = None

    def forward(
        self,
        passages: Sequence[Passage],
        inputs: Inputs,
        pack: Pack,
        pack_of: Callable[[Sequence[DenoiseItem]], Pack],
    ) -> int:
        """One evaluation of the model: settles actions and fills in predictions, what was measured,
        and errors. Returns the rows that went through all of the model.

        inputs, pack: of all that pass, of whom each may have branches on this rank or none.
        pack_of: builds the pack of some of their items.
        """
        # What this forward is going to hold must not go when others of it reserve.
        with self.store.pin(owner for one in passages for owner in one.owners):
            stages = self._begin(passages, inputs, pack)
            self._decide(passages, stages.probed)
            return self._end(passages, stages, pack_of)

    def agree(self, passages: Sequence[Passage]) -> None:
        """What a rank does about a forward in which it has nothing: settle actions like all."""
        self._decide(passages, {})

    def free(self, sample: str) -> None:
        """Let go of all that is kept of a sample."""
        for owner in pages_of(sample):
            self.store.free(owner)

    def _begin(self, passages: Sequence[Passage], inputs: Inputs, pack: Pack) -> Stages:
        """Run as much of the model as the probes need."""
        model, run = self._model, self._run
        wanted = {probe for one in passages for probe in one.probes}
        start = then = model.embed(inputs, pack, run)
        num_done, probed = 0, {}
        if MODULATED_INPUT in wanted:
            if self._modulated_site is None:
                self._modulated_site = modulated_site(model, inputs, run)
            input_TD = modulated_input(model, self._modulated_site, start, pack, run)
            probed[MODULATED_INPUT] = pack.split(input_TD)
        if FIRST_BLOCK in wanted:
            then, num_done = model.segments[0][1](start, pack, run), 1
            probed[FIRST_BLOCK] = pack.split(then["image"] - start["image"])
        bases = {REST: pack.split(then["image"]), ALL: pack.split(start["image"])}
        return Stages(pack, start, then, num_done, probed, bases)

    def _decide(self, passages: Sequence[Passage], probed: Mapping[str, Sequence[Tensor]]) -> None:
        """Measure what can be, in one transfer, and settle every item's action."""
        sums: list[Tensor] = []
        for one in passages:
            if not one.probes:
                continue
            # Every owner is asked, so that hits and misses are counted alike.
            missing = sum(map(self.store.missing, one.owners))
            nothing = torch.zeros((), device=self.store.config.device)
            sums.append(nothing + missing)
            for probe in one.probes:
                absent = missing or not one.owners
                sums += [nothing] * 2 if absent else self._change(one, probe, probed[probe])
        values = iter(self._group.sum(torch.stack(sums)).tolist() if sums else [])
        for one in passages:
            # What one rank has not, no rank can use.
            missing = next(values) if one.probes else 1.0
            found = {probe: (next(values), next(values)) for probe in one.probes}
            if missing:
                one.action = replace(one.action, gate=None, held=None)
                continue
            for probe, (change, scale) in found.items():
                self._enter(one, probe, change, scale)
            gate, held = one.action.gate, one.action.held
            if gate and not one.error and gate.rescaled(one.measured[gate.probe]) < gate.threshold:
                held = GATES[gate.probe]
            one.action = replace(one.action, gate=None, held=held)

    def _enter(self, one: Passage, probe: str, change: float, scale: float) -> None:
        """What was measured of an item."""
        if not (math.isfinite(change) and math.isfinite(scale)):
            message = f"evaluation {one.item.last + 1}: the probe {probe} is not finite"
            one.error = NonFinite(message)
        elif scale:
            one.measured[probe] = change / scale
        else:
            one.measured[probe] = math.inf if change else 0.0

    def _change(self, one: Passage, probe: str, now: Sequence[Tensor]) -> list[Tensor]:
        """Sums over all branches, in float32: of |now - reference|, and of |reference|."""
        change = scale = torch.zeros((), device=now[0].device)
        for owner, place in zip(one.owners, one.places, strict=True):
            reference_LD = self.store.read(owner, probe, torch.float32)
            change = change + (now[place].float() - reference_LD).abs().sum()
            scale = scale + reference_LD.abs().sum()
        return [change, scale]

    def _end(
        self,
        passages: Sequence[Passage],
        stages: Stages,
        pack_of: Callable[[Sequence[DenoiseItem]], Pack],
    ) -> int:
        """Run the rest of the model, fill in the predictions, and keep what may be held. Returns
        the rows that went through all segments.
        """
        pack, rows = stages.pack, 0
        present = [one for one in passages if one.places]
        full = [one for one in present if one.full]
        # Of an item that failed, anything will do.
        image_LD = list(stages.bases[REST])
        unchanged = _unchanged(stages.start, stages.then)
        if full:
            part = pack if len(full) == len(present) else pack_of([one.item for one in full])
            places: Sequence[int] = [place for one in full for place in one.places]
            if part is pack or (begun := _rows_of(stages.then, pack, part, places)) is None:
                # All rows then, some in vain, where nobody knows how a stream is laid out.
                part, begun, places = pack, stages.then, range(pack.num_branches)
            ended, rows = begun, part.image.num_rows
            for _, segment in self._model.segments[stages.num_done :]:
                ended = segment(ended, part, self._run)
            unchanged &= _unchanged(begun, ended)
            computed = dict(zip(places, part.split(ended["image"]), strict=True))
            for place in (place for one in full for place in one.places):
                image_LD[place] = computed[place]
        for one in passages:
            if one.error or (held := one.action.held) is None:
                continue
            for owner, place in zip(one.owners, one.places, strict=True):
                image_LD[place] = stages.bases[held][place] + self.store.read(owner, held)
        streams = {name: stages.start[name] for name in unchanged}
        streams["image"] = pack.gather(image_LD)
        predictions = pack.split(self._model.head(streams, pack, self._run))
        for one in passages:
            one.predictions = [predictions[place] for place in one.places]
            if one.error or not one.probes:
                continue
            try:
                self._keep(one, stages, image_LD)
            except InvalidInput as error:
                one.error = error
        return rows

    def _keep(self, one: Passage, stages: Stages, image_LD: Sequence[Tensor]) -> None:
        """Keep what later gates compare with, and what they may hold, of one item. Nothing where
        the store has no room. Raises InvalidInput where it never could have.
        """
        kept: dict[Hashable, dict[str, Tensor]] = {owner: {} for owner in one.owners}
        for probe in one.probes:
            for owner, place in zip(one.owners, one.places, strict=True):
                if one.full:
                    residual = GATES[probe]
                    kept[owner][residual] = image_LD[place] - stages.bases[residual][place]
                # A first block is compared with that of the last full run, an input with the last.
                if one.full or probe == MODULATED_INPUT:
                    kept[owner][probe] = stages.probed[probe][place]
        if one.full and not self._reserve(one, kept):
            return
        for owner, features in kept.items():
            for site, x_LD in features.items():
                self.store.write(owner, site, x_LD, version=one.item.last)

    def _reserve(self, one: Passage, kept: Mapping[Hashable, Mapping[str, Tensor]]) -> bool:
        """Pages for all branches of an item, or for none. Raises InvalidInput."""
        needs = {
            owner: {
                site: Need(x_LD.shape[0], tuple(x_LD.shape[1:]), x_LD.dtype)
                for site, x_LD in features.items()
            }
            for owner, features in kept.items()
        }
        num_bytes = {
            owner: sum(self._page_bytes(x_LD) for x_LD in features.values())
            for owner, features in kept.items()
        }
        budget, needed = self.store.config.budget_bytes, sum(num_bytes.values())
        if needed > budget:
            # No OverBudget, which says that the same request may fit later.
            size = "{}x{}".format(*one.item.size)
            said = f"this one's gate keeps {needed:,} bytes of a picture of {size}"
            allowed = f"another one: {said}, and the store (--store-mib) has {budget:,} bytes"
            raise InvalidInput("policy", ", ".join(one.probes), allowed)
        # The milliseconds that a held evaluation saves grow with its pages. All being worth the
        # same per byte, a picture that has its pages keeps them, whoever comes.
        owners = [(owner, needs[owner]) for owner in needs]
        if all(self.store.reserve(owner, need, float(num_bytes[owner])) for owner, need in owners):
            return True
        self.free(one.item.sample)
        return False

    def _page_bytes(self, x_LD: Tensor) -> int:
        page_tokens = self.store.config.page_tokens
        return -(-x_LD.shape[0] // page_tokens) * page_tokens * x_LD[0].nbytes


def _unchanged(before: Streams, after: Streams) -> set[str]:
    """Streams that segments have passed on as they were."""
    return {name for name, x in before.items() if after.get(name) is x}


def _rows_of(streams: Streams, pack: Pack, part: Pack, places: Sequence[int]) -> Streams | None:
    """What `part`, a pack of some branches of `pack`, has of each stream: its rows, or the rows of
    a modulation table. None if a stream is neither.
    """
    taken = {}
    for name, x in streams.items():
        if name in pack.streams:
            parts = pack.split(x, name)
            taken[name] = part.gather([parts[place] for place in places], name)
        elif x.shape[0] == pack.num_mod_rows:
            taken[name] = x.new_zeros(part.num_mod_rows, *x.shape[1:])
            taken[name][: len(places)] = x[list(places)]
        else:
            return None
    return taken
