"""Stretches that only calculate, as functions of their own: the program says the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import musiva
from musiva.compiler.pieces import divided
from musiva.compiler.source import Function, compiled
from musiva.core.errors import CannotCapture, InvalidInput, Unavailable
from musiva.engine import load_pipeline
from musiva.engine.kernels import compile_program
from musiva.engine.runner import PlainRun
from musiva.models.captured import CapturedDenoiser, whole_from
from musiva.models.captured.check import call_of, found_of
from musiva.perf.captures import NEW
from tests.trials import BY_NAME, trial_of

NAMES = (
    "SD3Transformer2DModel",
    # Complex numbers.
    "QwenImageTransformer2DModel",
    *(pytest.param(name, marks=pytest.mark.matrix) for name in sorted(BY_NAME)),
)
TEXT = """
def block(s, c, at, run):
    x = s['image'].reshape((-1, 4))
    double = x * 2
    moved = double + c.bias
    split = torch.ops.aten.split.Tensor(moved, 2, 1)
    left = split[0]
    right = split[1]
    del double, moved, split
    both = left * right
    spread = both.expand((at.count(('image',)), 2))
    del left
    def branch(given, pack, at=at):
        at = at.of(pack)
        y = given.reshape((-1, 2))
        z = y + right
        w = z * spread
        return w

    out = run.branch('b', branch, both.flatten(1), at.pack)
    turned = torch.ops.aten.view_as_complex.default(out)
    a = turned * turned
    b = a * 2
    flat = torch.ops.aten.view_as_real.default(b)
    return {'image': flat, 'right': right}
"""
"""As `source` writes it: a view that is read inside a piece and behind it, one whose rows are
counted, complex numbers, and a function inside.
"""


class Rows:
    """A frame of which only rows are counted, and a run that calls straight through."""

    def __init__(self, count: int) -> None:
        self.rows, self.pack = count, None

    def count(self, streams: tuple[str, ...]) -> int:
        return self.rows

    def of(self, pack: object) -> Rows:
        return self

    def branch(self, site: str, fn: Callable[..., Tensor], x: Tensor, pack: object) -> Tensor:
        return fn(x, pack)

    bias = torch.arange(4.0)


def test_a_text_with_pieces_calculates_the_same() -> None:
    header = "import torch\n"
    text, pieces = divided(header + TEXT)
    at, x = Rows(3), {"image": torch.randn(3, 4)}
    plain = compiled(header + TEXT, "plain")["block"](x, at, at, at)
    found = compiled(text, "divided", compiled(pieces, "pieces"))["block"](x, at, at, at)
    for name, expected in plain.items():
        assert torch.equal(found[name], expected)
    made = compiled(pieces, "pieces")
    assert list(made) == ["piece_0", "piece_1"]
    assert "complex" not in pieces
    # What is made and read inside a piece does not come out of it.
    assert "double" not in text


def test_equal_blocks_share_their_pieces() -> None:
    trial = trial_of("SD3Transformer2DModel")
    text, pieces = divided(trial.denoiser.captured.text)
    calls = text.count("piece_")
    assert calls > 2 * pieces.count("def piece_")


def both_ways(name: str, other: dict[str, Function]) -> list[tuple[Tensor, Tensor]]:
    """Outputs of a mixed pack: of the program, and with other functions."""
    trial = trial_of(name)
    captured, signature = trial.denoiser.captured, trial.signature
    sizes = [signature.sized(one) for one in NEW[:2]]
    calls = [call_of(signature, one, i) for i, one in enumerate(sizes)]
    with torch.inference_mode():
        found = [
            found_of(one, sizes, calls, PlainRun())
            for one in (captured, replace(captured, functions=other))
        ]
    return [pair for one in zip(*found, strict=True) for pair in zip(*one, strict=True)]


# Of classes about their age.
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_class_in_pieces_has_the_same_bytes(name: str) -> None:
    try:
        captured = trial_of(name).denoiser.captured
    except CannotCapture:
        pytest.skip("of it there is no program")
    text, pieces = divided(captured.text)
    assert "piece_" in text
    for mine, theirs in both_ways(name, compiled(text, name, compiled(pieces, name))):
        assert torch.equal(mine, theirs)


def test_pieces_are_compiled_for_all_sizes() -> None:
    """One graph of each is enough for packs of any samples."""
    trial = trial_of("FluxTransformer2DModel")
    captured = replace(trial.denoiser.captured)
    graphs: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(str(graph.code))
        return graph

    captured.compile(backend)
    for mine, theirs in both_ways("FluxTransformer2DModel", dict(captured.functions)):
        assert torch.equal(mine, theirs)
    first = len(graphs)
    assert first > 0
    sizes = [trial.signature.sized(one) for one in NEW]
    calls = [call_of(trial.signature, one, i) for i, one in enumerate(sizes)]
    with torch.inference_mode():
        found_of(captured, sizes, calls, PlainRun())
    assert len(graphs) == first


def test_a_black_box_has_nothing_to_compile() -> None:
    trial = trial_of("SD3Transformer2DModel")
    whole = whole_from(trial.denoiser.module, trial.signature, "of a test")
    with pytest.raises(InvalidInput, match=r"compile: got True; allowed: nothing.*of a test"):
        compile_program(whole)


def test_without_a_compiler_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **options: object) -> object:
        raise RuntimeError("no compiler\nwas found")

    monkeypatch.setattr(torch, "compile", fails)
    trial = trial_of("SD3Transformer2DModel")
    captured = replace(trial.denoiser.captured)
    denoiser = CapturedDenoiser(captured, trial.signature)
    before = captured.functions
    with pytest.raises(
        Unavailable, match=r"torch\.compile does not work here: no compiler was found"
    ):
        compile_program(denoiser)
    assert captured.functions is before


# Of torch about itself.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.matrix
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a compiler")
def test_kernels_of_a_compiler_make_the_same_picture() -> None:
    asked = {"size": (64, 64), "steps": 4, "seed": 1}
    plain = load_pipeline("default")
    assert not plain.compiled
    with musiva.Engine(plain) as engine:
        (expected,) = engine.generate(["a fox"], **asked)
    with musiva.Engine.load("default", compiled=True) as engine:
        assert engine.pipeline.compiled
        (found,) = engine.generate(["a fox"], **asked)
    most = max(abs(a - b) for a, b in zip(found.tobytes(), expected.tobytes(), strict=True))
    assert most <= 1
