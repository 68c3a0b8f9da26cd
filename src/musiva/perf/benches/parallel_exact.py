"""Several ranks against one, on captured classes, and what leaves a rank against the formulas.

Ranks are threads: what they send each other is what processes do. M: bytes of the activations of a
sample, N: ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, cast

import torch
from torch import Tensor

from musiva.comm import Group, in_threads
from musiva.compiler import Sizes
from musiva.core.pack import Pack
from musiva.core.run import QKV, Over, Streams
from musiva.core.types import COMPUTE, DenoiseItem, Path, Prompt
from musiva.engine.gate import passages_of
from musiva.engine.ranks import Ranks
from musiva.engine.runner import PlainRun, forward
from musiva.models import Inputs
from musiva.models.captured import captured_from, signature_of
from musiva.parallel import Form, SequenceRun
from musiva.perf.captures import NEW, Trial, taken
from musiva.perf.catalog import ENTRIES, build

__all__ = ["CASES", "Case", "bytes_over_formula", "error_of", "trial_of"]


X = TypeVar("X", Tensor, Streams)


@dataclass(frozen=True, slots=True)
class Case:
    """A class, a form that it has, and numbers of ranks."""

    name: str
    form: Form = "ulysses"
    ranks: Sequence[int] = (2, 4)


CASES: Sequence[Case] = (
    Case("PixArtTransformer2DModel"),
    Case("SD3Transformer2DModel"),
    Case("FluxTransformer2DModel"),
    Case("SanaTransformer2DModel"),
    Case("WanTransformer3DModel"),
    Case("LatteTransformer3DModel"),
    Case("LatteTransformer3DModel", "dynamic"),
    Case("PixArtTransformer2DModel", "patch"),
    Case("SD3Transformer2DModel", "patch"),
    Case("SanaTransformer2DModel", "patch"),
    Case("PixArtTransformer2DModel", "branches+ulysses", ranks=(4,)),
    Case("SD3Transformer2DModel", "branches+ulysses", ranks=(4,)),
    Case("SanaTransformer2DModel", "branches+ulysses", ranks=(4,)),
    Case("WanTransformer3DModel", "branches+ulysses", ranks=(4,)),
)
# Of which ranks have branches.
GUIDED = DenoiseItem(
    sample="guided",
    evaluation=0,
    actions=(COMPUTE,),
    path=Path(steps=1),
    seed=0,
    size=(0, 0),
    prompts=(Prompt("a fox"), Prompt("")),
    guidance=4.0,
    fresh=True,
)
# Even in frames, tokens and heads, so that the formulas are exact.
EVEN: Sizes = {"frames": 8, "rows": 4, "columns": 8, "words": 8, "words_2": 8}
# Of Pyramid Attention Broadcast for Latte: in this window of times every third temporal attention
# is computed (Zhao et al., 2024, arXiv 2408.12588, as VideoSys has it), over so many steps.
WINDOW, RANGE, STEPS = (100.0, 800.0), 3, 50


def trial_of(name: str, **changed: int) -> Trial:
    """changed: of its small config."""
    entry = next(entry for entry in ENTRIES if entry.name == name)
    module = build(replace(entry, config={**entry.config, **changed}))
    signature = signature_of(module)
    return Trial(captured_from(module, signature), signature)


@torch.no_grad()
def error_of(trial: Trial, form: Form, size: int) -> float:
    """The largest difference of any rank's prediction to that of one, over samples of uneven
    lengths; over the largest output, if that is above 1. Where ranks have branches, of both of a
    guided sample.
    """
    worst = 0.0
    for new in NEW:
        build = _guided if form == "branches+ulysses" else _plain
        expected, body = build(trial, form, trial.signature.sized(new))
        scale = max(1.0, float(expected.abs().max()))
        for found in in_threads(body, size):
            worst = max(worst, float((found - expected).abs().max()) / scale)
    return worst


def _plain(trial: Trial, form: Form, sizes: Sizes) -> tuple[Tensor, Callable[[Group], Tensor]]:
    """What one rank says of a sample, and what each of several is to do."""
    pack, inputs = _given(trial, sizes)
    expected = torch.cat(pack.split(forward(trial.denoiser, inputs, pack, PlainRun())))

    def body(group: Group) -> Tensor:
        run = _run(trial, group, form)
        part = run.part(pack)
        # Forms learn in the first forward.
        given = _of_part(trial, inputs, part)
        forward(trial.denoiser, given, part, run)
        found = forward(trial.denoiser, given, part, run)
        return torch.cat(pack.split(run.joined(found, part)))

    return expected, body


def _guided(trial: Trial, form: Form, sizes: Sizes) -> tuple[Tensor, Callable[[Group], Tensor]]:
    """`_plain`, of both branches."""
    denoiser, several = trial.denoiser, range(len(GUIDED.prompts))
    pack = denoiser.captured.pack([sizes])
    inputs = [trial.inputs(pack, sizes, branch, like=branch) for branch in several]
    plain = [forward(denoiser, one, pack, PlainRun()) for one in inputs]
    expected = torch.cat([x for one in plain for x in pack.split(one)])
    both = denoiser.captured.pack([sizes for _ in several])

    def body(group: Group) -> Tensor:
        ranks = Ranks(denoiser, PlainRun(), group, form)
        (own,), part = ranks.own([GUIDED]), ranks.part(pack)
        ((branch,), (passage,)) = own.computed, passages_of([own])
        given = _of_part(trial, inputs[branch], part)
        passage.predictions = part.split(forward(denoiser, given, part, ranks.run))
        ranks.join([GUIDED], [passage], both, gates=False)
        return torch.cat(list(passage.predictions))

    return expected, body


@torch.no_grad()
def bytes_over_formula(trial: Trial, form: Form, size: int, *, reuse: bool = False) -> float:
    """What leaves a rank, on average over ranks, over the published formula: of each attention of
    image tokens to each other 4 M (N - 1) / N^2, or of each pair of blocks 2 M (N - 1) / N^2; with
    reuse, of those of the pairs that are computed.
    """
    sizes = trial.signature.sized(EVEN)
    pack, inputs = _given(trial, sizes)
    # What depends on sizes is looked up by an export, of which one at a time may run.
    forward(trial.denoiser, inputs, pack, PlainRun())
    times = [1000.0 * (1 - i / STEPS) for i in range(STEPS)] if reuse else [1000.0] * 2

    def body(group: Group) -> Sent:
        inner = Counted()
        run = _run(trial, group, form, inner)
        part = run.part(pack)
        given = _of_part(trial, inputs, part)
        # What is learnt and shared in the first forward is not of every one.
        forward(trial.denoiser, given, part, run)
        inner.begin(run.columns)
        group.sent_bytes = 0
        for time in times:
            inner.time = time
            forward(trial.denoiser, given, part, run)
        count = inner.columns if form == "dynamic" else inner.attentions
        return Sent(group.sent_bytes, count, inner.width)

    found: list[Sent] = in_threads(body, size)
    streams = trial.denoiser.divided
    tokens = sum(s.length for name in streams for s in pack.streams[name].segments)
    # With whole frames a rank has all heads; else each has some, or none and sees no attention.
    width = (max if form == "dynamic" else sum)(one.width for one in found)
    activations = tokens * width * torch.float32.itemsize
    each = (2 if form == "dynamic" else 4) * activations * (size - 1) / size**2
    return sum(one.sent_bytes for one in found) / size / (max(one.count for one in found) * each)


@dataclass(frozen=True, slots=True)
class Sent:
    """By a rank. count: of what it was sent for. width: of its heads."""

    sent_bytes: int
    count: int
    width: int


class Counted(PlainRun):
    """Counts attentions of image rows to image rows, and branches that attend in columns, which it
    holds where the published rule says so. width: of the heads of this rank.
    """

    def __init__(self) -> None:
        super().__init__()
        self.time = 1000.0
        self.begin(frozenset())

    def begin(self, sites: frozenset[str]) -> None:
        """Count from now on; sites: of the branches."""
        self.attentions = self.columns = self.width = 0
        self._sites = sites
        self._calls: dict[str, int] = {}
        self._kept: dict[str, object] = {}

    def branch(self, site: str, fn: Callable[[X, Pack], X], x: X, pack: Pack) -> X:
        if site not in self._sites:
            return super().branch(site, fn, x, pack)
        call = self._calls.get(site, 0)
        self._calls[site] = call + 1
        if call % RANGE == 0 or not WINDOW[0] < self.time < WINDOW[1]:
            self.columns += 1
            self._kept[site] = super().branch(site, fn, x, pack)
        return cast("X", self._kept[site])

    def attend(
        self, site: str, qkv: Mapping[str, QKV], pack: Pack, over: Over = "sample"
    ) -> Streams:
        q, k, _ = qkv["image"]
        if q is not None and k is not None:
            self.attentions += 1
            self.width = k.shape[1] * k.shape[2]
        return super().attend(site, qkv, pack, over)


def _run(trial: Trial, group: Group, form: Form, inner: PlainRun | None = None) -> SequenceRun:
    streams = trial.denoiser.divided
    return SequenceRun(inner or PlainRun(), group, form=form, streams=streams)


def _given(trial: Trial, sizes: Sizes) -> tuple[Pack, Inputs]:
    pack = trial.denoiser.captured.pack([sizes])
    return pack, trial.inputs(pack, sizes, 0)


def _of_part(trial: Trial, inputs: Inputs, part: Pack) -> Inputs:
    text_TD = inputs.text_TD
    if text_TD is not None:
        text_TD = text_TD[part.streams["text"].source_T]
    return replace(taken(trial.denoiser, inputs, part), text_TD=text_TD)
