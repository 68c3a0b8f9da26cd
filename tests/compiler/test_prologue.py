"""What depends on sizes alone, as text: against the graph of that size, operation by operation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.fx import Node, map_arg

from musiva.compiler.captured import Captured, given_at, tensor_names
from musiva.compiler.export import Exported, export, matched
from musiva.compiler.prologue import Weights
from musiva.perf.captures import NEW
from tests.trials import trial_of

NAMES = (
    pytest.param("PixArtTransformer2DModel", marks=pytest.mark.matrix),
    "SD3Transformer2DModel",
    "FluxTransformer2DModel",
    pytest.param("LatteTransformer3DModel", marks=pytest.mark.matrix),
    "WanTransformer3DModel",
)


def value_of(node: Node, exported: Exported, known: dict[str, object]) -> object:
    """By the operators of the graph themselves. known: what is worked out is added."""
    if node.name not in known:
        assert node.op == "call_function", node.name
        args, kwargs = map_arg((node.args, node.kwargs), lambda one: value_of(one, exported, known))
        known[node.name] = node.target(*args, **kwargs)
    return known[node.name]


def at_size(captured: Captured, sizes: dict[str, int]) -> dict[str, object]:
    """Of an export at these sizes, by names of the first graph."""
    exported = export(captured.module, captured.arguments, sizes)
    names = matched(captured.artifact.steps, captured.artifact.inputs, exported)
    _, given = given_at(captured.arguments, sizes)
    weights, owned = Weights(captured.module), tensor_names(captured.module)
    known: dict[str, object] = {**exported.constants}
    known |= {node: weights[n] for node, n in exported.parameters.items() if n in owned}
    known |= {exported.inputs[name]: x for name, x in given.items() if name in exported.inputs}
    return {
        name: value_of(exported.nodes[own], exported, known)
        for own, name in names.items()
        if name in captured.artifact.sized
    }


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_text_gives_what_the_graph_of_that_size_gives(name: str) -> None:
    trial = trial_of(name)
    captured, sizes = trial.denoiser.captured, trial.signature.sized(NEW[1])
    expected, found = at_size(captured, sizes), captured.places(sizes)
    assert found.keys() == expected.keys() == captured.artifact.sized
    for key, value in expected.items():
        assert isinstance(value, Tensor)
        torch.testing.assert_close(found[key], value, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_text_reads_no_weight_that_the_module_lacks(name: str) -> None:
    captured = trial_of(name).denoiser.captured
    text = captured.artifact.prologue.text
    compile(text, name, "exec")
    owned = {
        *dict(captured.module.named_parameters()),
        *dict(captured.module.named_buffers()),
    }
    assert set(captured.artifact.parameters.values()) <= owned
    read = {line.partition("weights['")[2].partition("'")[0] for line in text.splitlines()}
    assert read - {""} <= owned
