"""The paged run on the contract denoisers and a small PixArt: absent rows come from pages.

T rows, L tokens of a sample, C channels of a token, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from musiva.core.pack import Grid, Pack, Rows
from musiva.core.run import QKV, Over, Streams
from musiva.engine.paged import PagedRun
from musiva.engine.runner import PlainRun, convolve, forward
from musiva.models.base import Denoiser, Inputs
from musiva.ops.attention import attend_reference
from musiva.ops.linear import Kernel, Linears
from musiva.store import Store
from tests.contract.denoisers import NAMES, build
from tests.contract.pixart import PixArt, PixArtConfig

MODELS = (*NAMES, "pixart")
SIZES = ((12, 16), (10, 7), (8, 8), (9, 12))


@cache
def model_of(name: str, dtype: torch.dtype = torch.float32) -> Denoiser:
    if name != "pixart":
        return build(name).to(dtype)
    config = PixArtConfig(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=3,
        out_channels=3,
        num_layers=3,
        cross_attention_dim=24,
        sample_size=16,
        caption_channels=20,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PixArt(config)
    return model.to(dtype).eval().requires_grad_(False)


class Sample:
    """A sample branch with other inputs at every evaluation; owner of its rows is its seed."""

    def __init__(self, model: Denoiser, seed: int) -> None:
        self.model, self.seed = model, seed
        self.grid: Grid = (4 if model.patch[0] > 1 else 1, *SIZES[seed % len(SIZES)])
        self.length, self.dtype = math.prod(self.grid), next(model.parameters()).dtype
        assert model.text_width is not None
        self.text_LD = self._draw(0, (3 + 5 * seed % 23, model.text_width))

    def _draw(self, step: int, shape: tuple[int, ...]) -> Tensor:
        generator = torch.Generator().manual_seed(100 * self.seed + step)
        return torch.randn(shape, generator=generator).to(self.dtype)

    def latent(self, step: int) -> Tensor:
        """[L, C]: drifts from step to step."""
        shape = (self.length, self.model.in_channels * math.prod(self.model.patch))
        return self._draw(1, shape) + 0.3 * sum(self._draw(i + 2, shape) for i in range(step))

    def time(self, step: int) -> float:
        return 900.0 - 37 * self.seed - 90 * step

    def tiles(self, seed: int, share: float = 0.4) -> Tensor:
        """[A]: the tokens of some of the tiles of 2 x 4 x 4 tokens."""
        f, y, x = torch.cartesian_prod(*(torch.arange(n) for n in self.grid)).T
        tile_L = (f // 2 * 100 + y // 4) * 100 + x // 4
        tiles = tile_L.unique()
        generator = torch.Generator().manual_seed(seed)
        chosen = tiles[torch.randperm(len(tiles), generator=generator)[: int(share * len(tiles))]]
        return torch.isin(tile_L, chosen).nonzero()[:, 0]


Part = tuple[Sample, int, Tensor | None]


def predict(model: Denoiser, parts: Sequence[Part], run: PlainRun) -> list[Tensor]:
    """What the model says of the taken rows of each sample at its step; steps are versions."""
    samples = [sample for sample, _, _ in parts]
    full = Pack.build(
        [s.grid for s in samples],
        [len(s.text_LD) for s in samples],
        [s.seed for s in samples],
        owners=[s.seed for s in samples],
    )
    pack = full.take({"image": [tokens for _, _, tokens in parts]})
    latents = [
        s.latent(step) if tokens is None else s.latent(step)[tokens] for s, step, tokens in parts
    ]
    time_M = torch.zeros(pack.num_mod_rows)
    time_M[: len(samples)] = torch.tensor([s.time(step) for s, step, _ in parts])
    inputs = Inputs(pack.gather(latents), time_M, pack.gather([s.text_LD for s in samples], "text"))
    begun = nullcontext()
    if isinstance(run, PagedRun):
        begun = run.begin(pack, {s.seed: step for s, step, _ in parts})
    with torch.inference_mode(), begun:
        out = pack.split(forward(model, inputs, pack, run))
    if isinstance(run, PagedRun):
        run.store.check_integrity()
    return out


def paged(kernel: Kernel = "plain", **fields) -> PagedRun:
    config = {"budget_bytes": 1 << 26, "page_tokens": 16, **fields}
    return PagedRun(Store.Config(**config).build(), Linears(kernel))


def assert_near(ours: Tensor, expected: Tensor, tolerance: float) -> None:
    assert float((ours - expected).abs().max()) <= tolerance * float(expected.abs().max())


class Stale(PlainRun):
    """Computes all rows of one sample; at every site that mixes tokens, the absent ones show what
    they last had. Looks tokens up by place, not by row.
    """

    def __init__(self) -> None:
        super().__init__()
        self.present_FHW = torch.zeros(0)
        self.memory: dict[str, Tensor] = {}

    def mixed(self, site: str, x_TF: Tensor, rows: Rows) -> Tensor:
        (s,) = rows.segments
        present_FHW = self.present_FHW
        if tuple(present_FHW.shape) != s.grid:
            present_FHW = max_pool2d(present_FHW, 2, ceil_mode=True)
        assert tuple(present_FHW.shape) == s.grid
        now_LF = x_TF[s.start : s.start + s.length]
        is_new_L = present_FHW.flatten().bool().view(-1, *[1] * (now_LF.ndim - 1))
        self.memory[site] = torch.where(is_new_L, now_LF, self.memory.get(site, now_LF))
        return torch.cat([x_TF[: s.start], self.memory[site], x_TF[s.start + s.length :]])

    def attend(
        self, site: str, qkv: Mapping[str, QKV], pack: Pack, over: Over = "sample"
    ) -> Streams:
        qkv, (q, k, v) = dict(qkv), qkv["image"]
        if k is not None and v is not None:
            k, v = (self.mixed(f"{site}.{i}", x, pack.image) for i, x in enumerate((k, v)))
            qkv["image"] = q, k, v
        return attend_reference(qkv, pack, over)

    def conv(
        self, site: str, layer: nn.Conv2d, x: Tensor, rows: Rows, to: Rows | None = None
    ) -> Tensor:
        return super().conv(site, layer, self.mixed(site, x, rows), rows, to)

    def reduce(self, site: str, left: Tensor, right: Tensor, rows: Rows) -> Tensor:
        left, right = self.mixed(f"{site}.l", left, rows), self.mixed(f"{site}.r", right, rows)
        return super().reduce(site, left, right, rows)

    def predict(self, model: Denoiser, part: Part) -> Tensor:
        sample, step, tokens = part
        present_L = torch.zeros(sample.length)
        present_L[slice(None) if tokens is None else tokens] = 1
        self.present_FHW = present_L.view(sample.grid)
        (out_LC,) = predict(model, [(sample, step, None)], self)
        return out_LC if tokens is None else out_LC[tokens]


def plan(samples: Sequence[Sample], steps: int = 4) -> list[list[Part]]:
    """All rows of all, then some rows of most, another choice at every step."""
    return [
        [
            (
                s,
                step,
                None if step == 0 or (s.seed + step) % 4 == 3 else s.tiles(10 * step + s.seed),
            )
            for s in samples
        ]
        for step in range(steps)
    ]


@pytest.mark.parametrize("kernel", ["plain", "prepacked"])
@pytest.mark.parametrize("name", MODELS)
def test_all_rows_give_the_dense_bytes(name: str, kernel: Kernel) -> None:
    model, run, plain = model_of(name), paged(kernel), PlainRun(Linears(kernel))
    samples = [Sample(model, seed) for seed in range(4)]
    for step, every in enumerate((False, True, True)):
        parts = [(s, step, torch.arange(s.length) if every else None) for s in samples]
        ours = predict(model, parts, run)
        dense = predict(model, [(s, step, None) for s in samples], plain)
        assert all(torch.equal(a, b) for a, b in zip(ours, dense, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_rows_that_were_taken_agree_with_the_dense_run(name: str) -> None:
    model, run = model_of(name), paged()
    samples = [Sample(model, seed) for seed in range(4)]
    dense = predict(model, [(s, 0, None) for s in samples], run)
    parts = [(s, 0, s.tiles(s.seed)) for s in samples]
    for (_, _, tokens), ours, whole in zip(parts, predict(model, parts, run), dense, strict=True):
        assert 0 < len(tokens) < len(whole)
        assert_near(ours, whole[tokens], 1e-6)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)], ids=["f64", "f32"]
)
def test_stale_pages_equal_the_emulation(name: str, dtype: torch.dtype, tolerance: float) -> None:
    model, run = model_of(name, dtype), paged()
    samples = [Sample(model, seed) for seed in range(4)]
    stale = [Stale() for _ in samples]
    for parts in plan(samples):
        ours = predict(model, parts, run)
        for emulation, part, prediction in zip(stale, parts, ours, strict=True):
            assert_near(prediction, emulation.predict(model, part), tolerance)
    # Old features matter, or there was nothing to test.
    fresh = predict(model, [(s, step, None) for s, step, _ in parts], PlainRun())
    for (_, _, tokens), prediction, whole in zip(parts, ours, fresh, strict=True):
        if tokens is not None:
            assert float((prediction - whole[tokens]).abs().max()) > 1e-3


@pytest.mark.parametrize("kernel", ["plain", "prepacked"])
@pytest.mark.parametrize("name", MODELS)
def test_packed_equals_alone_to_the_byte(name: str, kernel: Kernel) -> None:
    model = model_of(name)
    samples = [Sample(model, seed) for seed in (0, 1, 2, 3, 6)]
    steps = plan(samples)
    runs = {s.seed: paged(kernel) for s in samples}
    alone = [{p[0].seed: predict(model, [p], runs[p[0].seed])[0] for p in parts} for parts in steps]
    for order in ([0, 1, 2, 3, 4], [3, 1, 4, 0, 2], [4, 2]):
        run = paged(kernel, page_tokens=8)
        # Pages of the others stand between theirs.
        predict(model, [(Sample(model, 8), 0, None)], run)
        for parts, expected in zip(steps, alone, strict=True):
            chosen = [parts[i] for i in order]
            for part, ours in zip(chosen, predict(model, chosen, run), strict=True):
                assert torch.equal(ours, expected[part[0].seed]), (order, part[:2])


def test_samples_of_a_pack_may_be_at_other_steps() -> None:
    model = model_of("cross")
    one, two = Sample(model, 0), Sample(model, 1)
    early, late = [(one, 0, None), (one, 1, one.tiles(1))], [(two, 6, None), (two, 7, two.tiles(2))]
    alone = [
        [predict(model, [part], run)[0] for part in parts]
        for parts, run in ((early, paged()), (late, paged()))
    ]
    run = paged()
    predict(model, [late[0]], run)
    first, second = predict(model, [early[0], late[1]], run)
    (third,) = predict(model, [early[1]], run)
    assert torch.equal(first, alone[0][0])
    assert torch.equal(second, alone[1][1])
    assert torch.equal(third, alone[0][1])


@pytest.mark.parametrize("name", MODELS)
def test_versions_say_which_evaluation_wrote_each_token(name: str) -> None:
    model, run = model_of(name), paged()
    sample = Sample(model, 0)
    first, second = sample.tiles(1), sample.tiles(2)
    for step, tokens in enumerate((None, first, second)):
        predict(model, [(sample, step, tokens)], run)
    expected_L = torch.zeros(sample.length, dtype=torch.int64)
    expected_L[first] = 1
    expected_L[second] = 2
    sites = run.store.figures().site_bytes
    assert sites
    for site in sites:
        versions_L = run.store.versions(sample.seed, site)
        if len(versions_L) == sample.length:
            assert torch.equal(versions_L, expected_L)
        else:
            coarse_FHW = max_pool2d(expected_L.view(sample.grid).float(), 2, ceil_mode=True)
            assert torch.equal(versions_L, coarse_FHW.flatten().long())
        assert int(run.store.ages(sample.seed, site, 3)[:, 0].max()) == 3


def test_what_needs_pages() -> None:
    def sites(name: str) -> set[str]:
        model, run = model_of(name), paged()
        predict(model, [(Sample(model, 0), 0, None)], run)
        return set(run.store.figures().site_bytes)

    # Keys of a text do not.
    assert sites("cross") == {"block.0.attn", "block.1.attn"}
    assert sites("joint") == {"block.0", "block.1"}
    assert sites("unet") == {
        "down",
        *(f"block.{i}.{what}" for i in (0, 2, 4) for what in ("conv", "norm.left", "norm.right")),
    }


def test_a_grid_that_is_known_gets_its_pages_first() -> None:
    model, run = model_of("cross"), paged()
    predict(model, [(Sample(model, 0), 0, None)], run)
    for seed, known in ((4, True), (1, False)):
        pack = Pack.build([Sample(model, seed).grid], owners=[seed])
        with run.begin(pack, {seed: 0}):
            assert (seed in run.store) == known


@pytest.mark.parametrize("name", MODELS)
def test_who_was_evicted_is_computed_in_full_again(name: str) -> None:
    model, run = model_of(name), paged()
    one, two = Sample(model, 0), Sample(model, 4)
    assert not run.can_take(0, one.grid)
    predict(model, [(one, 0, None), (two, 0, None)], run)
    used = run.store.figures().used_bytes
    assert run.can_take(0, one.grid)
    assert run.can_take(4, two.grid)
    run.store.free(0)
    assert not run.can_take(0, one.grid)
    with pytest.raises(RuntimeError, match="no pages for the others"):
        predict(model, [(one, 1, one.tiles(0)), (two, 1, two.tiles(0))], run)
    # It was refused before anything was written.
    assert int(run.store.versions(4, next(iter(run.store.figures().site_bytes))).max()) == 0
    ours = predict(model, [(one, 1, None), (two, 1, two.tiles(0))], run)
    assert run.can_take(0, one.grid)
    (dense,) = predict(model, [(one, 1, None)], PlainRun())
    assert torch.equal(ours[0], dense)
    assert run.store.figures().used_bytes == used
    run.store.free(0)
    run.store.free(4)
    assert run.store.figures().used_bytes == 0


def test_without_room_the_forward_is_right_and_not_kept() -> None:
    model = model_of("joint")
    probe, one, two = paged(), Sample(model, 0), Sample(model, 4)
    dense = predict(model, [(one, 0, None), (two, 0, None)], probe)
    half = probe.store.figures().used_bytes // 2
    for budget in (half, half // 2):
        run = paged(budget_bytes=budget)
        for _ in range(2):
            ours = predict(model, [(one, 0, None), (two, 0, None)], run)
            assert all(torch.equal(a, b) for a, b in zip(ours, dense, strict=True))
        assert [run.can_take(0, one.grid), run.can_take(4, two.grid)] == [budget == half, False]


def test_owners_of_the_pack_are_never_evicted_for_each_other() -> None:
    model = model_of("cross")
    one, two, three = (Sample(model, seed) for seed in (0, 4, 8))
    probe = paged()
    predict(model, [(one, 0, None)], probe)
    run = paged(budget_bytes=2 * probe.store.figures().used_bytes)
    predict(model, [(one, 0, None), (two, 0, None)], run)
    run.store.revalue(0, 0.0)
    ours = predict(model, [(three, 0, None), (one, 1, one.tiles(0))], run)
    assert not run.can_take(8, three.grid)
    assert run.can_take(0, one.grid)
    (alone,) = predict(model, [(one, 1, one.tiles(0))], run)
    assert torch.equal(ours[1], alone)


def test_a_forward_that_fails_leaves_no_pages_of_two_evaluations() -> None:
    model, run = model_of("cross"), paged()
    one, two = Sample(model, 0), Sample(model, 4)
    predict(model, [(one, 0, None), (two, 0, None)], run)

    class Failing(PagedRun):
        def branch(self, site: str, fn: Callable, x: Tensor, pack: Pack) -> Tensor:
            if site == "block.1.mlp":
                raise ArithmeticError
            return super().branch(site, fn, x, pack)

    with pytest.raises(ArithmeticError):
        predict(model, [(one, 1, one.tiles(0))], Failing(run.store))
    run.store.check_integrity()
    assert not run.can_take(0, one.grid)
    assert run.can_take(4, two.grid)


def test_taken_rows_need_an_owner_a_version_and_a_begin() -> None:
    model, run = model_of("cross"), paged()
    sample = Sample(model, 0)
    predict(model, [(sample, 0, None)], run)
    tokens = [sample.tiles(0)]
    nobody = Pack.build([sample.grid]).take({"image": tokens})
    owned = Pack.build([sample.grid], owners=[0]).take({"image": tokens})
    for pack, versions in ((nobody, {0: 1}), (owned, {})):
        with (
            pytest.raises(ValueError, match="needs an owner and a version"),
            run.begin(pack, versions),
        ):
            pass
    x_THK = torch.zeros(owned.image.num_rows, 2, 16)
    with pytest.raises(RuntimeError, match="no forward was begun"):
        run.attend("block.0.attn", {"image": (x_THK, x_THK, x_THK)}, owned)


@pytest.mark.parametrize("name", MODELS)
def test_pages_in_bfloat16(name: str) -> None:
    model, run, exact = model_of(name), paged(dtype=torch.bfloat16), paged()
    samples = [Sample(model, seed) for seed in range(4)]
    for parts in plan(samples):
        for part, ours, expected in zip(
            parts, predict(model, parts, run), predict(model, parts, exact), strict=True
        ):
            if part[2] is None:
                assert torch.equal(ours, expected)
            else:
                assert_near(ours, expected, 5e-3)
                assert not torch.equal(ours, expected)
    assert 2 * run.store.figures().used_bytes == exact.store.figures().used_bytes


@pytest.mark.parametrize("share", [3, 1])
@pytest.mark.parametrize(
    ("kernel", "fields"),
    [
        (3, {"padding": 1}),
        (3, {"padding": 1, "stride": 2}),
        ((5, 3), {"padding": (4, 0), "dilation": (2, 3)}),
        (1, {}),
        (3, {"padding": 1, "groups": 6}),
        (3, {"padding": 1, "padding_mode": "reflect"}),
        (3, {"padding": "same"}),
    ],
)
def test_a_convolution_of_some_tokens(kernel: int, fields: Mapping, share: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 12, kernel, **fields).requires_grad_(False)
    grid = (2, 9, 14)
    x_LC = torch.randn(math.prod(grid), 6)
    whole_LC = convolve(layer, x_LC, grid, None)
    tokens = torch.arange(1, len(whole_LC), share)
    torch.testing.assert_close(
        convolve(layer, x_LC, grid, tokens), whole_LC[tokens], rtol=1e-5, atol=1e-6
    )
