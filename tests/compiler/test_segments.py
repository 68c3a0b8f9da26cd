"""Programs in parts."""

from __future__ import annotations

import pytest

from musiva.compiler.segments import blocks_of
from tests.trials import trial_of

NAMES = ("SD3Transformer2DModel", "FluxTransformer2DModel")


def test_a_program_is_cut_at_its_blocks() -> None:
    captured = trial_of("SD3Transformer2DModel").denoiser.captured
    parts = captured.parts
    assert [part.site for part in parts] == ["", *blocks_of(captured.module), ""]
    known = {variable for variable, _, _ in captured.program.inputs.values()}
    for part in parts:
        assert known.issuperset(part.reads), part.site
        own = {op.out for op in part.ops}
        assert set(part.kept) <= known | own
        known = set(part.kept)
        # What a part works with is its own, or was handed to it.
        for op in part.ops:
            assert {name for name in op.reads if "." not in name} <= own | set(part.reads), op
    assert {name for name, _, _ in captured.program.outputs} == known


@pytest.mark.parametrize("name", NAMES)
def test_the_image_stream_is_followed_from_block_to_block(name: str) -> None:
    for part in trial_of(name).denoiser.captured.parts[:-1]:
        assert part.main is not None
        assert part.keys[part.main] == "image"
        # The image as it leaves a block is what its last operation on the image made.
        assert part.main in {op.out for op in part.ops}


def test_sums_inside_a_block_are_branches() -> None:
    captured = trial_of("SD3Transformer2DModel").denoiser.captured
    assert "run.branch('transformer_blocks.1.attn'" in captured.text
    assert "run.branch('transformer_blocks.1.ff.net'" in captured.text
