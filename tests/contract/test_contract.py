"""What every denoiser and every run must keep, on the four contract denoisers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

from musiva.core.pack import Pack, Rows, patchify
from musiva.core.run import QKV, Over, Streams
from musiva.engine.runner import PlainRun, forward
from musiva.models.base import Denoiser, Inputs
from musiva.ops.attention import attend_reference
from musiva.ops.linear import Linears
from tests.contract.denoisers import CHANNELS, NAMES, TEXT, build

SIZES = ((6, 8), (5, 7), (8, 8), (4, 4), (8, 8))


class Sample:
    """One sample branch: a latent, a time and a text, all random from a seed."""

    def __init__(self, model: Denoiser, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        height, width = SIZES[seed % len(SIZES)]
        shape = (CHANNELS, 6, height, width) if model.patch[0] > 1 else (CHANNELS, height, width)
        self.tokens_LC, self.grid = patchify(torch.randn(shape, generator=generator), model.patch)
        self.time = float(torch.randint(1000, (), generator=generator))
        self.text_LD = torch.randn(3 + 5 * seed % 23, TEXT, generator=generator)
        self.key = seed


def inputs_of(samples: Sequence[Sample]) -> tuple[Inputs, Pack]:
    pack = Pack.build(
        [s.grid for s in samples], [len(s.text_LD) for s in samples], [s.key for s in samples]
    )
    time_M = torch.zeros(pack.num_mod_rows)
    time_M[: len(samples)] = torch.tensor([s.time for s in samples])
    latent_TC = pack.gather([s.tokens_LC for s in samples])
    return Inputs(latent_TC, time_M, pack.gather([s.text_LD for s in samples], "text")), pack


def predict(
    model: Denoiser, samples: Sequence[Sample], run: PlainRun | None = None
) -> list[Tensor]:
    inputs, pack = inputs_of(samples)
    return pack.split(forward(model, inputs, pack, run or PlainRun()))


class ReferenceRun(PlainRun):
    """Attention as the formula reads, convolutions by direct indexing, everything in float64."""

    def attend(
        self, site: str, qkv: Mapping[str, QKV], pack: Pack, over: Over = "sample"
    ) -> Streams:
        return attend_reference(qkv, pack, over)

    def conv(
        self, site: str, layer: nn.Conv2d, x: Tensor, rows: Rows, to: Rows | None = None
    ) -> Tensor:
        coarse, stride = to or rows, layer.stride[0]
        out = x.new_zeros(coarse.num_rows, layer.out_channels)
        for fine, target in zip(rows.segments, coarse.segments, strict=True):
            (frames, height, width), (_, tall, wide) = fine.grid, target.grid
            for f, y, z in itertools.product(range(frames), range(tall), range(wide)):
                value = layer.bias.clone()
                for dy, dz in itertools.product(range(3), range(3)):
                    b, c = stride * y + dy - 1, stride * z + dz - 1
                    if 0 <= b < height and 0 <= c < width:
                        row = x[fine.start + (f * height + b) * width + c]
                        value += layer.weight[:, :, dy, dz] @ row
                out[target.start + (f * tall + y) * wide + z] = value
        return out

    def reduce(self, site: str, left: Tensor, right: Tensor, rows: Rows) -> Tensor:
        shape = (len(rows.segments), left.shape[1], left.shape[2], right.shape[2])
        sums = left.new_zeros(shape)
        for row, (owner, token) in enumerate(zip(rows.segment_T, rows.token_T, strict=True)):
            if token >= 0:
                sums[owner] += left[row][:, :, None] * right[row][:, None]
        return sums


class PartsRun(PlainRun):
    """Calls every branch that mixes no tokens on two halves of the rows, as a policy would."""

    def __init__(self) -> None:
        super().__init__()
        self.split_sites: set[str] = set()

    def branch(self, site: str, fn: Callable, x: Tensor | Streams, pack: Pack) -> Tensor | Streams:
        if not isinstance(x, Tensor):
            return fn(x, pack)
        out = torch.zeros_like(x)
        try:
            for first in (0, 1):
                tokens = [torch.arange(first, s.length, 2) for s in pack.image.segments]
                part = pack.take({"image": tokens})
                real_T = part.image.token_T >= 0
                value_TD = fn(x[part.image.source_T], part)
                out[part.image.source_T[real_T]] = value_TD[real_T]
        except RuntimeError as error:
            if "taken from this pack" not in str(error):
                raise
            return fn(x, pack)
        self.split_sites.add(site)
        return out


@pytest.mark.parametrize("name", NAMES)
def test_matches_the_reference_run(name: str) -> None:
    model = build(name).double()
    samples = [Sample(model, seed) for seed in range(5)]
    inputs, pack = inputs_of(samples)
    inputs = Inputs(inputs.latent_TC.double(), inputs.timestep_M.double(), inputs.text_TD.double())
    fast, slow = (forward(model, inputs, pack, run) for run in (PlainRun(), ReferenceRun()))
    for ours, reference in zip(pack.split(fast), pack.split(slow), strict=True):
        assert reference.std() > 0.1
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", ["plain", "prepacked"])
@pytest.mark.parametrize("name", NAMES)
def test_packed_equals_alone_to_the_byte(name: str, kernel: str) -> None:
    model = build(name)
    samples = [Sample(model, seed) for seed in range(5)]
    with torch.inference_mode():
        alone = [predict(model, [s], PlainRun(Linears(kernel)))[0] for s in samples]
        run = PlainRun(Linears(kernel))
        for order in ([0, 1, 2, 3, 4], [3, 1, 4, 0, 2], [2, 4], [4, 2, 0]):
            packed = predict(model, [samples[i] for i in order], run)
            for i, prediction in zip(order, packed, strict=True):
                assert torch.equal(prediction, alone[i]), (order, i)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_that_is_not_a_number_spoils_no_other(name: str) -> None:
    model = build(name)
    samples = [Sample(model, seed) for seed in range(4)]
    clean = predict(model, samples)
    samples[1].tokens_LC = samples[1].tokens_LC.clone()
    samples[1].tokens_LC[3] = torch.nan
    spoiled = predict(model, samples)
    assert spoiled[1].isnan().any()
    for i in (0, 2, 3):
        assert torch.equal(spoiled[i], clean[i])


@pytest.mark.parametrize("name", NAMES)
def test_branches_may_run_on_parts_of_the_rows(name: str) -> None:
    model = build(name)
    samples = [Sample(model, seed) for seed in range(4)]
    run = PartsRun()
    for part, whole in zip(predict(model, samples, run), predict(model, samples), strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-5)
    expected = {"cross": "block.0.cross", "video": "block.1.mlp"}
    assert name not in expected or {s for s in run.split_sites if s.endswith(("mlp", "cross"))}


@pytest.mark.parametrize("name", NAMES)
def test_sites_are_unique_and_name_one_kind_of_call(name: str) -> None:
    calls: list[tuple[str, str]] = []

    class Recorder(PlainRun):
        def branch(self, site, fn, x, pack):
            calls.append(("branch", site))
            return super().branch(site, fn, x, pack)

        def linear(self, site, layer, x, pack, activation=None):
            calls.append(("linear", site))
            return super().linear(site, layer, x, pack, activation)

        def attend(self, site, qkv, pack, over="sample"):
            calls.append(("attend", site))
            return super().attend(site, qkv, pack, over)

    model = build(name)
    predict(model, [Sample(model, 0)], Recorder())
    assert len(calls) == len(set(calls))


@pytest.mark.parametrize("name", NAMES)
def test_same_gradient_packed_alone_and_accumulated(name: str) -> None:
    model = build(name).double()
    samples = [Sample(model, seed) for seed in range(4)]
    weights = list(model.parameters())

    def gradient(groups: Sequence[Sequence[Sample]]) -> list[Tensor]:
        for p in weights:
            p.requires_grad_(True).grad = None
        for group in groups:
            inputs, pack = inputs_of(group)
            inputs = Inputs(
                inputs.latent_TC.double(), inputs.timestep_M.double(), inputs.text_TD.double()
            )
            parts = pack.split(forward(model, inputs, pack, PlainRun()))
            sum(part.square().mean() for part in parts).backward()
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in weights]

    packed = gradient([samples])
    assert sum(float(g.abs().sum()) for g in packed) > 1
    for plan in (
        [[s] for s in samples],
        [samples[:1], samples[1:]],
        [[samples[2], samples[0]], samples[1::2]],
    ):
        for ours, reference in zip(gradient(plan), packed, strict=True):
            torch.testing.assert_close(ours, reference, rtol=1e-8, atol=1e-10)
