"""Captured classes put to the test: against the class, in packs, and with most tiles left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from musiva.compiler import Sizes
from musiva.compiler.captured import tensor_of
from musiva.core.errors import CannotCapture
from musiva.core.pack import Grid, Pack, Rows
from musiva.core.run import QKV, Over, Run, Streams
from musiva.engine.paged import PagedRun
from musiva.engine.runner import PlainRun, forward
from musiva.models import Inputs
from musiva.models.captured import CapturedDenoiser, Signature, captured_from, signature_of
from musiva.models.captured.check import (
    call_of,
    expected_of,
    found_of,
    largest_error,
    relative_error,
)
from musiva.store import Store

__all__ = [
    "LARGE",
    "NEW",
    "Outcome",
    "Trial",
    "examine",
    "linear_calls",
    "some_tokens",
    "taken",
    "tiled",
]

# That no capture sees.
NEW: Sequence[Sizes] = (
    {"frames": 4, "rows": 6, "columns": 8, "words": 9, "words_2": 5},
    {"frames": 6, "rows": 4, "columns": 10, "words": 7, "words_2": 6},
    {"frames": 2, "rows": 9, "columns": 5, "words": 12, "words_2": 15},
)
LARGE: Sizes = {"frames": 3, "rows": 16, "columns": 16, "words": 7, "words_2": 6}
STORE_BYTES = 1 << 30
PRODUCTS = (torch.ops.aten.addmm.default, torch.ops.aten.mm.default)
# A side of a tile, in tokens.
TILE = 4
# Of the tokens that are computed, and the largest share of the dense work for them.
ACTIVE, WORK = 0.25, 0.4
TOLERANCE = 1e-4


@dataclass(slots=True)
class Outcome:
    """Of one class: errors are over the largest output (or 1), work is over that of the dense
    blocks; None for what it did not come to, with the reason in `failed`.
    """

    name: str
    seconds: float | None = None
    alone_error: float | None = None
    packed_error: float | None = None
    linear_calls: tuple[int, int] | None = None
    tiled_error: float | None = None
    tiled_work: float | None = None
    dense: int = 0
    failed: str = ""

    @property
    def captured(self) -> bool:
        return self.alone_error is not None and self.alone_error <= TOLERANCE

    @property
    def packed(self) -> bool:
        calls = self.linear_calls
        right = self.packed_error is not None and self.packed_error <= TOLERANCE
        return self.captured and right and calls is not None and calls[0] == calls[1]

    @property
    def tiled(self) -> bool:
        right = self.tiled_error is not None and self.tiled_error <= TOLERANCE
        return self.captured and right and self.tiled_work is not None and self.tiled_work <= WORK

    def row(self) -> Mapping[str, object]:
        return {
            "class": self.name,
            "captured": self.captured,
            "packed": self.packed,
            "tiled": self.tiled,
            "seconds": self.seconds,
            "alone_error": self.alone_error,
            "packed_error": self.packed_error,
            "linear_calls": self.linear_calls,
            "tiled_error": self.tiled_error,
            "tiled_work": self.tiled_work,
            "sample_by_sample": self.dense,
            "failed": self.failed,
        }


@dataclass(slots=True)
class Trial:
    """A captured class, with samples of any sizes and what the class makes of them."""

    denoiser: CapturedDenoiser
    signature: Signature

    def call(self, sizes: Sizes, seed: int) -> dict[str, object]:
        return call_of(self.signature, sizes, seed)

    def expected(self, call: Mapping[str, object]) -> list[Tensor]:
        return expected_of(self.denoiser.module, call)

    def found(
        self, several: Sequence[Sizes], calls: Sequence[Mapping[str, object]]
    ) -> list[list[Tensor]]:
        """Outputs of one pack, by output, then by sample; the class is not called."""
        return found_of(self.denoiser.captured, several, calls, PlainRun(), _never_called)

    def error(self, several: Sequence[Sizes]) -> float:
        """Of a pack of samples of these sizes."""
        captured = self.denoiser.captured
        return largest_error(captured, self.signature, several, PlainRun(), _never_called)

    def inputs(self, pack: Pack, sizes: Sizes, seed: int, like: int = 0) -> Inputs:
        """Of one sample; what is not the latent or a time is that of the seed `like`."""
        now, then = self.call(sizes, seed), self.call(sizes, like)
        moving = (self.denoiser.latent, self.denoiser.time)
        call = {name: now[name] if name in moving else then[name] for name in now}
        captured = self.denoiser.captured
        sample = {n: tensor_of(call, n) for n in captured.program.inputs}
        return self.denoiser.inputs(captured.lay([sample], self.denoiser.frame(pack)))


@torch.no_grad()
def examine(name: str, build: Callable[[], nn.Module]) -> Outcome:
    """Never raises for what the class or its capture does."""
    outcome = Outcome(name)
    try:
        module = build()
        signature = signature_of(module)
        start = time.perf_counter()
        denoiser = captured_from(module, signature, fresh=True)
        outcome.seconds = time.perf_counter() - start
        outcome.dense = len(denoiser.captured.dense)
        trial = Trial(denoiser, signature)
        sizes = [signature.sized(one) for one in NEW]
        outcome.alone_error = max(trial.error([one]) for one in sizes)
        outcome.packed_error = trial.error(sizes[:2])
        outcome.linear_calls = (
            linear_calls(trial, sizes[:2]),
            linear_calls(trial, [*sizes[:2], *sizes]),
        )
        outcome.tiled_error, outcome.tiled_work = tiled(trial, signature.sized(LARGE))
    except Exception as error:  # of any kind, from code that is not ours
        text = " ".join(str(error).split())
        outcome.failed = f"{type(error).__name__}: {text[:300]}"
    return outcome


def linear_calls(trial: Trial, several: Sequence[Sizes]) -> int:
    """Products with weights in one forward of a pack."""
    calls = [trial.call(sizes, i) for i, sizes in enumerate(several)]
    with _Counting() as counting:
        trial.found(several, calls)
    return counting.count


def tiled(trial: Trial, sizes: Sizes) -> tuple[float, float]:
    """A forward of a quarter of the tokens, behind one of all at another latent and time: the error
    against the slow reference, and its work in blocks over that of the dense forward.
    """
    denoiser = trial.denoiser
    complete = denoiser.captured.pack([sizes], owners=["sample"])
    run = PagedRun(Store.Config(budget_bytes=STORE_BYTES, device=torch.device("cpu")).build())
    stale = _StaleRun()
    before, now = (trial.inputs(complete, sizes, seed) for seed in (0, 1))
    with run.begin(complete, {"sample": 0}):
        forward(denoiser, before, complete, run)
    forward(denoiser, before, complete, stale)
    dense_work = _block_work(denoiser, now, complete, PlainRun())
    if not dense_work:
        raise CannotCapture("no block of it carries the picture")
    tokens = some_tokens(complete.image.segments[0].grid)
    pack = complete.take({"image": [tokens]})
    part = taken(denoiser, now, pack)
    with run.begin(pack, {"sample": 1}):
        found_TC = forward(denoiser, part, pack, run)
        work = _block_work(denoiser, part, pack, run)
    stale.absent_T = torch.ones(complete.image.num_rows, dtype=torch.bool)
    start = complete.image.segments[0].start
    stale.absent_T[start + tokens] = False
    expected_TC = forward(denoiser, now, complete, stale)
    mine, theirs = pack.split(found_TC)[0], expected_TC[start + tokens]
    return relative_error(mine, theirs), work / dense_work


def some_tokens(grid: Grid, seed: int = 2) -> Tensor:
    """Those of a quarter of the tiles, which are all frames of a square; of a sequence without a
    grid, of neighbours.
    """
    frames, height, width = grid
    high, wide = (TILE, TILE) if height > 1 else (1, TILE * TILE)
    down, across = -(-height // high), -(-width // wide)
    order = torch.randperm(down * across, generator=torch.Generator().manual_seed(seed))
    active = torch.zeros(down * across, dtype=torch.bool)
    active[order[: max(int(ACTIVE * down * across), 1)]] = True
    active_YX = active.view(down, across).repeat_interleave(high, 0).repeat_interleave(wide, 1)
    return active_YX[:height, :width].expand(frames, -1, -1).flatten().nonzero().flatten()


def taken(denoiser: CapturedDenoiser, inputs: Inputs, pack: Pack) -> Inputs:
    """Of a complete pack to those of the rows that were taken."""
    streams = {name: own for name, (_, own, _) in denoiser.captured.program.inputs.items()}
    source_T = pack.image.source_T
    extra = {
        name: x[source_T] if streams[name] == ("image",) else x for name, x in inputs.extra.items()
    }
    return replace(inputs, latent_TC=inputs.latent_TC[source_T], extra=extra)


def _block_work(denoiser: CapturedDenoiser, inputs: Inputs, pack: Pack, run: Run) -> float:
    """Floating point operations of the segments."""
    # What words give is there from the forward before.
    streams = denoiser.embed(inputs, pack, run)
    for warm in (True, False):
        now = dict(streams)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            for _, segment in denoiser.segments:
                now = segment(now, pack, run)
        if not warm:
            return float(counter.get_total_flops())
    raise AssertionError


class _StaleRun(PlainRun):
    """All rows are computed; where some are absent, what they take part with in what mixes tokens
    is what they had when none was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.absent_T: Tensor | None = None
        self._kept: dict[str, Tensor] = {}

    def attend(
        self, site: str, qkv: Mapping[str, QKV], pack: Pack, over: Over = "sample"
    ) -> Streams:
        q, k, v = qkv.get("image", (None, None, None))
        if k is not None and v is not None:
            new = q, self._mixed(f"{site}.k", k), self._mixed(f"{site}.v", v)
            qkv = {name: new if name == "image" else one for name, one in qkv.items()}
        return super().attend(site, qkv, pack, over)

    def whole(self, site: str, x: Tensor, rows: Rows) -> Sequence[Tensor]:
        there = self.absent_T is None or x.shape[0] == self.absent_T.shape[0]
        return super().whole(site, self._mixed(site, x) if there else x, rows)

    def _mixed(self, site: str, x: Tensor) -> Tensor:
        if self.absent_T is None:
            self._kept[site] = x.clone()
            return x
        absent = self.absent_T.view(-1, *[1] * (x.ndim - 1))
        return torch.where(absent, self._kept[site], x)


class _Counting(TorchDispatchMode):
    """Products with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        self.count += func in PRODUCTS
        return func(*args, **(kwargs or {}))


@contextmanager
def _never_called(module: nn.Module) -> Iterator[None]:
    def forward(*_: object, **__: object) -> object:
        raise AssertionError("the class itself was called")

    module.forward = forward
    try:
        yield
    finally:
        del module.forward
