"""Which step comes next: host only, pure and deterministic.

Pictures that only wait to be decoded go first, since that frees memory and answers a user; then
prompts, so that new requests join the very next pack; then every sample advances by one evaluation
of the model, and by those that its policy skips before it, the oldest first, as far as rows fit. So
a request never waits for another one to end, and the oldest one always advances.
"""

from __future__ import annotations

from dataclasses import dataclass

from musiva.core.types import DecodeItem, DenoiseItem, EncodeItem, Kind, StepPlan
from musiva.engine.state import EngineState, SampleState, Stage

__all__ = ["Scheduler"]


class Scheduler:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """max_rows: most rows of a pack, though a single sample may have more. kept_texts: encoded
        prompts that are kept when no request needs them. max_encode: most prompts of a step.
        """

        max_rows: int = 4096
        kept_texts: int = 64
        max_encode: int = 32

        def build(self) -> Scheduler:
            return Scheduler(self)

    def __init__(self, config: Config) -> None:
        self.config = config

    def schedule(self, state: EngineState) -> StepPlan | None:
        """The next step, or None when there is nothing to do. Changes nothing."""
        samples = list(state.samples.values())
        kind, items = self._items(state, samples)
        if not items and not state.released:
            return None
        needed = {prompt for s in samples for prompt in s.prompts}
        spare = [prompt for prompt in state.texts if prompt not in needed]
        drop = spare[: max(len(spare) - self.config.kept_texts, 0)]
        return StepPlan(state.steps + 1, kind, items, tuple(state.released), tuple(drop))

    def _items(
        self, state: EngineState, samples: list[SampleState]
    ) -> tuple[Kind, tuple[EncodeItem, ...] | tuple[DenoiseItem, ...] | tuple[DecodeItem, ...]]:
        if finished := [s for s in samples if s.stage is Stage.DECODING]:
            return Kind.DECODE, (DecodeItem(finished[0].id),)
        prompts = dict.fromkeys(p for s in samples for p in s.prompts if p not in state.texts)
        if prompts:
            return Kind.ENCODE, tuple(
                EncodeItem(p) for p in list(prompts)[: self.config.max_encode]
            )
        items, rows = [], 0
        for sample in samples:
            if items and rows + sample.next_rows > self.config.max_rows:
                continue
            rows += sample.next_rows
            items.append(_denoise(sample))
        return Kind.DENOISE, tuple(items)


def _denoise(sample: SampleState) -> DenoiseItem:
    request = sample.request
    return DenoiseItem(
        sample=sample.id,
        evaluation=sample.evaluation,
        actions=sample.next,
        path=request.path,
        seed=request.seed + sample.index,
        size=request.size,
        prompts=sample.prompts,
        guidance=request.guidance,
        fresh=sample.fresh,
        preview=_has_preview(sample),
        probes=sample.asks.probes if sample.next[-1].compute else (),
        keep=sample.asks.keep,
        tile=sample.trip.tile,
    )


def _has_preview(sample: SampleState) -> bool:
    """Preview k of p comes after evaluation floor(k * e / (p + 1)) of e, or with the item that has
    it among its evaluations.
    """
    parts, total = sample.request.previews + 1, sample.num_evaluations
    done, then = sample.evaluation, sample.evaluation + len(sample.next)
    # The number of k with k * e / (p + 1) < d + 1 grows exactly where d is such an evaluation.
    before, after = (-(-(d + 1) * parts // total) for d in (done, then))
    return after > before and then < total
