"""Classes of diffusers, captured: a mixed pack against the class alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils import _pytree as pytree

from musiva.compiler.arguments import call_arguments, values
from musiva.compiler.captured import Captured, capture, tensor_of
from musiva.compiler.export import CannotCapture, export
from musiva.engine.runner import PlainRun
from musiva.perf.catalog import ENTRIES, Entry, build, sized

# Some classes ask for an autocast that a CPU does not have.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*CPU [Aa]utocast:UserWarning")
BY_NAME = {entry.name: entry for entry in ENTRIES}
NAMES = (
    "PixArtTransformer2DModel",
    "SD3Transformer2DModel",
    "FluxTransformer2DModel",
    "LatteTransformer3DModel",
    "WanTransformer3DModel",
)
SEEN = (
    {"frames": 3, "rows": 5, "columns": 7, "words": 11},
    {"frames": 5, "rows": 7, "columns": 11, "words": 13},
    {"frames": 4, "rows": 11, "columns": 3, "words": 17},
)
NEW = (
    {"frames": 4, "rows": 6, "columns": 8, "words": 9},
    {"frames": 6, "rows": 4, "columns": 10, "words": 7},
)


def worst_error(captured: Captured, entry: Entry) -> float:
    """Of the outputs of a pack, over the largest output."""
    sizes = [sized(entry, one) for one in NEW]
    calls = [
        call_arguments(entry.arguments, one, torch.Generator().manual_seed(i))
        for i, one in enumerate(sizes)
    ]
    samples = [{name: tensor_of(call, name) for name in captured.program.inputs} for call in calls]
    at = captured.frame(captured.pack(sizes), sizes)
    found = captured.run(captured.lay(samples, at), at, PlainRun())
    worst = 0.0
    for i, call in enumerate(calls):
        expected = pytree.tree_leaves(captured.module(**call, return_dict=False))
        for mine, theirs in zip((one[i] for one in found), expected, strict=True):
            error = (mine.reshape(theirs.shape) - theirs).abs().max()
            worst = max(worst, float(error / theirs.abs().max().clamp(min=1.0)))
    return worst


@pytest.mark.parametrize("name", NAMES)
def test_a_pack_of_other_sizes_is_what_the_class_says(name: str) -> None:
    entry = BY_NAME[name]
    module = build(entry)
    captured = capture(module, entry.arguments, [sized(entry, one) for one in SEEN])
    assert not captured.dense
    with torch.no_grad():
        assert worst_error(captured, entry) < 1e-4


def test_lengths_that_a_class_reads_from_a_mask_are_known_while_it_is_traced() -> None:
    entry = BY_NAME["MochiTransformer3DModel"]
    captured = capture(build(entry), entry.arguments, [sized(entry, one) for one in SEEN])
    assert captured.dense
    with torch.no_grad():
        assert worst_error(captured, entry) < 1e-4


def test_a_traced_class_keeps_nothing_of_it() -> None:
    entry = BY_NAME["ZImageTransformer2DModel"]
    module = build(entry)
    export(module, entry.arguments, sized(entry, SEEN[0]))
    assert module.rope_embedder.freqs_cis is None
    call = call_arguments(entry.arguments, sized(entry, NEW[0]), torch.Generator().manual_seed(0))
    assert pytree.tree_leaves(module(**call, return_dict=False))


def test_what_cannot_be_traced_says_why() -> None:
    class Reads(torch.nn.Module):
        def forward(self, hidden_states: torch.Tensor, return_dict: bool) -> torch.Tensor:
            return hidden_states * int(hidden_states.sum())

    with pytest.raises(CannotCapture, match=r"torch\.export"):
        capture(Reads(), {"hidden_states": values("rows", 4)}, SEEN)


def test_a_number_that_is_no_expression_of_sizes_is_refused() -> None:
    class Scales(torch.nn.Module):
        def forward(self, hidden_states: torch.Tensor, return_dict: bool) -> torch.Tensor:
            return hidden_states * math.log(hidden_states.shape[1])

    with pytest.raises(CannotCapture, match="depends on the size"):
        capture(Scales(), {"hidden_states": values("rows", 4)}, SEEN)
