"""What samples take, in seconds of the device."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from musiva.core.pack import ROW_ALIGN
from musiva.core.types import (
    DecodeItem,
    DenoiseItem,
    EncodeItem,
    Kind,
    Prompt,
    Request,
    StepPlan,
)
from musiva.cost import CostModel, Work
from musiva.engine.sample import SampleState, Stage, num_words
from musiva.engine.state import EngineState

__all__ = ["Prices", "Tariff", "work_of"]

LARGEST = 1 << 16
# Until a cost model is there all that is known is what is more and what is less.
GUESS = CostModel(
    {
        Kind.ENCODE: (0.0, 1e-2, 0.0),
        Kind.DECODE: (0.0, 0.0, 3e-6, 0.0),
        Kind.DENOISE: (0.0, 0.0, 1e-4, *(0.0,) * 12),
    }
)


@dataclass(slots=True)
class Tariff:
    """A cost model, and what follows from it once: answers are remembered by the shape asked for.

    known: False for a guess, by which nobody should be refused. spare: packs end where more rows
    make a row cheaper by less than this share.
    """

    cost: CostModel
    known: bool = True
    spare: float = 0.05
    _evaluations: dict[tuple[int, int], float] = field(default_factory=dict)
    _knees: dict[tuple[int, int], int] = field(default_factory=dict)
    _decodings: dict[tuple[tuple[int, int], int], float] = field(default_factory=dict)
    _encodings: dict[tuple[int, int], float] = field(default_factory=dict)

    def decoding(self, size: tuple[int, int], frames: int = 1) -> float:
        """Seconds of a picture, or of a clip."""
        found = self._decodings.get((size, frames))
        if found is None:
            found = self.cost.seconds(_decode(size, frames))
            self._decodings[size, frames] = found
        return found

    def encoding(self, prompts: int, words: int) -> float:
        """Seconds of so many prompts with so many words."""
        found = self._encodings.get((prompts, words))
        if found is None:
            work = Work(kind=Kind.ENCODE, items=prompts, tokens=words)
            found = self._encodings[prompts, words] = self.cost.seconds(work)
        return found

    @classmethod
    def guess(cls) -> Tariff:
        return cls(GUESS, known=False)

    def knee(self, rows: int, branches: int) -> int:
        """The rows of a pack of such samples from which on it is not worth filling; nobody knows
        them by a guess.
        """
        if not self.known:
            return LARGEST
        found = self._knees.get((rows, branches))
        if found is None:
            found = self.cost.knee(_evaluation(rows, branches), self.spare)
            self._knees[rows, branches] = found
        return found

    def alone(self, request: Request, rows: int, evaluations: int) -> float:
        """Seconds of the dense run of a request, if nothing else is there. rows: of one picture."""
        prompts = request.prompts
        encode = self.encoding(len(prompts), num_words(prompts))
        denoise = _evaluation(rows, len(prompts), request.num_images)
        seconds = encode + evaluations * self.cost.seconds(denoise)
        return seconds + request.num_images * self.decoding(request.size, request.frames)

    def evaluation(self, rows: int, branches: int) -> float:
        """Seconds of one evaluation of a sample, in a pack of its like that is worth filling."""
        found = self._evaluations.get((rows, branches))
        if found is None:
            count = max(round(self.knee(rows, branches) / rows), 1) if self.known else 1
            found = self.cost.seconds(_evaluation(rows, branches, count)) / count
            self._evaluations[rows, branches] = found
        return found


@dataclass(frozen=True, slots=True)
class Prices:
    """As of one moment, for which samples stay as they are: drift of the machine by kind of step,
    texts that are encoded already. What a sample takes is worked out once.
    """

    tariff: Tariff
    drift: Mapping[Kind, float]
    texts: Collection[Prompt]
    _terms: dict[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, tariff: Tariff, state: EngineState) -> Prices:
        return cls(tariff, {kind: state.drift.factor(kind) for kind in Kind}, state.texts)

    def left(self, sample: SampleState, level: int) -> float:
        """Seconds of all that a sample still takes at a level."""
        terms = self._terms.get(sample.id)
        if terms is None:
            terms = self._terms[sample.id] = self._terms_of(sample)
        rest, one = terms
        return rest + sample.left[level] * one if one else rest

    def _terms_of(self, sample: SampleState) -> tuple[float, float]:
        """Seconds beside evaluations, and of each; 0 where there are none any more."""
        seconds = self.decoding(sample)
        if sample.stage is Stage.DECODING:
            return seconds, 0.0
        if any(prompt not in self.texts for prompt in sample.prompts):
            seconds += self.encoding(sample)
        return seconds, self.evaluations(sample, 1.0)

    def evaluations(self, sample: SampleState, count: float) -> float:
        """Seconds of so many evaluations of a sample in full."""
        branches = len(sample.prompts)
        one = self.tariff.evaluation(sample.rows, branches)
        return count * one * self.drift[Kind.DENOISE]

    def pack(self, sample: SampleState) -> float:
        """Seconds of an evaluation of a pack of such samples that is worth filling."""
        branches = len(sample.prompts)
        count = max(round(self.tariff.knee(sample.rows, branches) / sample.rows), 1)
        return self.evaluations(sample, count)

    def encoding(self, sample: SampleState) -> float:
        return self.tariff.encoding(len(sample.prompts), sample.words) * self.drift[Kind.ENCODE]

    def whole_decoding(self, sample: SampleState) -> float:
        request = sample.request
        return self.tariff.decoding(request.size, request.frames) * self.drift[Kind.DECODE]

    def decoding(self, sample: SampleState) -> float:
        """Seconds of what is left of it."""
        whole = self.whole_decoding(sample)
        return whole * sum(sample.decode_shares[sample.decoded :]) if sample.decoded else whole


def work_of(plan: StepPlan, state: EngineState) -> Work:
    """What a plan of samples in this record does."""
    if plan.kind is Kind.ENCODE:
        prompts = [item.prompt for item in plan.items if isinstance(item, EncodeItem)]
        return Work(kind=plan.kind, items=len(prompts), tokens=num_words(prompts))
    if plan.kind is Kind.DECODE:
        parts = [_decoded(i, state) for i in plan.items if isinstance(i, DecodeItem)]
        return Work(
            kind=plan.kind,
            items=sum(part.items for part in parts),
            pixels=sum(part.pixels for part in parts),
            pixel_pairs=sum(part.pixel_pairs for part in parts),
        )
    items = [item for item in plan.items if isinstance(item, DenoiseItem)]
    rows = pairs = branches = paged = 0
    for item in items:
        action = item.actions[-1]
        sample, count = state.samples[item.sample], len(item.computed_prompts)
        its = sample.rows_of(action)
        rows, branches = rows + its, branches + count
        whole = sample.rows // len(item.prompts)
        pairs += its * whole if not action.coarse else its * its // max(count, 1)
        if action.compute and action.tiles is not None:
            paged += count * whole - its
    return Work(
        kind=plan.kind,
        items=len(items),
        rows=rows,
        pairs=pairs,
        branches=branches,
        paged=paged,
        skipped=sum(len(item.actions) - item.computes for item in items),
        previews=sum(item.preview for item in items),
    )


def _decoded(item: DecodeItem, state: EngineState) -> Work:
    """As much of a picture as an item decodes."""
    sample = state.samples[item.sample]
    whole, first = _decode(sample.request.size, item.frames), item.first == 0
    if first and item.last is None:
        return whole
    share = sum(sample.decode_shares[item.first : item.last])
    # Attention is in the first part, but where parts are frames.
    of_pairs = share if item.frames > 1 else float(first)
    return replace(
        whole,
        items=int(first),
        pixels=round(whole.pixels * share),
        pixel_pairs=round(whole.pixel_pairs * of_pairs),
    )


def _decode(size: tuple[int, int], frames: int = 1) -> Work:
    """Of one picture, or of one clip, of which each frame attends to itself."""
    width, height = size
    area = width * height
    return Work(kind=Kind.DECODE, items=1, pixels=frames * area, pixel_pairs=frames * area * area)


def _evaluation(rows: int, branches: int, count: int = 1) -> Work:
    """Of `count` samples of so many rows in all branches."""
    return Work(
        kind=Kind.DENOISE,
        items=count,
        rows=count * rows,
        pairs=count * rows * max(rows // branches, ROW_ALIGN),
        branches=count * branches,
    )
