"""Fewer operations that give the same: beside the program as it is written first."""

from __future__ import annotations

import re
from importlib import import_module

import pytest
import torch
from torch import Tensor, nn

from musiva.compiler import Captured
from musiva.compiler.arguments import values
from musiva.engine.runner import PlainRun
from musiva.models.captured.check import call_of, found_of
from musiva.perf.captures import NEW
from musiva.perf.catalog import build
from tests.trials import BY_NAME, graphs_of, trial_of

# The name of its function in the package is its own.
capture = import_module("musiva.compiler.capture")
NAMES = (
    pytest.param("PixArtTransformer2DModel", marks=pytest.mark.matrix),
    "SD3Transformer2DModel",
    "SanaTransformer2DModel",
    pytest.param("LatteTransformer3DModel", marks=pytest.mark.matrix),
    *(
        pytest.param(name, marks=pytest.mark.matrix)
        for name in (
            "FluxTransformer2DModel",
            "QwenImageTransformer2DModel",
            "WanTransformer3DModel",
        )
    ),
)


def outputs(name: str, program: Captured, sizes: slice = slice(2)) -> list[Tensor]:
    """Of a mixed pack."""
    signature = trial_of(name).signature
    several = [signature.sized(one) for one in NEW[sizes]]
    calls = [call_of(signature, one, i) for i, one in enumerate(several)]
    return [x for output in found_of(program, several, calls, PlainRun()) for x in output]


def as_written(name: str, monkeypatch: pytest.MonkeyPatch) -> Captured:
    """The program without any fusion."""
    own = trial_of(name).denoiser.captured
    with monkeypatch.context() as patched:
        for step in ("fuse", "unjoin", "shorten"):
            patched.setattr(capture, step, lambda program: None)
        return capture.capture(own.module, own.arguments, aligned=graphs_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_fused_programs_give_what_they_gave(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, plain = trial_of(name).denoiser.captured, as_written(name, monkeypatch)
    assert len(own.program.ops) < len(plain.program.ops)
    with torch.no_grad():
        pairs = list(zip(outputs(name, own), outputs(name, plain), strict=True))
    for mine, theirs in pairs:
        assert (mine - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_no_view_is_of_a_view(name: str) -> None:
    program = trial_of(name).denoiser.captured.program
    views = {op.out: op.text for op in program.ops if op.kind == "shape"}
    assert views
    for out, text in views.items():
        assert text.partition(".reshape(")[0] not in views, out


def test_what_changes_no_number_is_not_done() -> None:
    class Scales(nn.Module):
        def forward(self, hidden_states: Tensor, return_dict: bool) -> Tensor:
            return torch.exp(hidden_states / 1.0) * 1

    program = capture.capture(Scales(), {"hidden_states": values("rows", 4)}).program
    assert [op.kind for op in program.ops if op.kind != "keep"] == ["exp"]


@pytest.mark.parametrize("name", ["SD3Transformer2DModel", "SanaTransformer2DModel"])
def test_fused_programs_have_the_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, plain = trial_of(name).denoiser.captured, as_written(name, monkeypatch)
    weights = dict(own.module.named_parameters())
    found = []
    for program in (own, plain):
        for weight in weights.values():
            weight.requires_grad_(True)
        with torch.enable_grad():
            total = sum(x.square().sum() for x in outputs(name, program))
            found.append(torch.autograd.grad(total, list(weights.values()), allow_unused=True))
        for weight in weights.values():
            weight.requires_grad_(False)
    for key, mine, theirs in zip(weights, *found, strict=True):
        assert (mine is None) == (theirs is None), key
        if theirs is not None:
            worst = (mine - theirs).abs().max()
            assert worst <= 1e-4 * max(1.0, float(theirs.abs().max())), key


@pytest.mark.parametrize("name", [*NAMES[:2], *NAMES[4:6]])
def test_what_modulates_is_never_laid_out_on_rows(name: str) -> None:
    own = trial_of(name).denoiser.captured
    inside = [part for part in own.parts if part.site]
    kinds = [op.kind for part in inside for op in part.ops]
    assert kinds.count("modulated_norm") >= 2 * len(inside)
    assert kinds.count("gated_add") >= len(inside)
    assert "gather" not in kinds


@pytest.mark.parametrize("name", NAMES)
def test_queries_keys_and_values_are_one_call(name: str) -> None:
    program = trial_of(name).denoiser.captured.program
    joined = [site for site in program.merged if re.search(r"to_q\+to_k\+to_v$", site)]
    assert joined
    called = [op.site for op in program.ops if op.kind == "linear"]
    apart = {one for site in joined for one in program.merged[site]}
    assert not apart & set(called)


class TestMerged:
    """Layers that are called as one, and the module they are of."""

    NAME = "SD3Transformer2DModel"

    def fresh(self) -> tuple[nn.Module, Captured]:
        module, signature = build(BY_NAME[self.NAME]), trial_of(self.NAME).signature
        return module, capture.capture(module, signature.arguments, aligned=graphs_of(self.NAME))

    def worst(self, module: nn.Module, program: Captured) -> float:
        """Against the class, of one sample."""
        signature = trial_of(self.NAME).signature
        call = call_of(signature, signature.sized(NEW[0]), 0)
        with torch.no_grad():
            theirs = module(**call, return_dict=False)[0]
            (mine,) = outputs(self.NAME, program, slice(1))
        return float((mine - theirs).abs().max())

    def test_shares_memory_with_the_module(self) -> None:
        module, program = self.fresh()
        assert self.worst(module, program) < 1e-4
        attention = module.get_submodule("transformer_blocks.1.attn")
        layers = [attention.get_submodule(name) for name in ("to_q", "to_k", "to_v")]
        assert len({layer.weight.untyped_storage().data_ptr() for layer in layers}) == 1
        assert all(isinstance(layer.weight, nn.Parameter) for layer in layers)

    @torch.no_grad()
    def test_follows_what_changes_weights_in_place(self) -> None:
        module, program = self.fresh()
        assert self.worst(module, program) < 1e-4
        module.get_parameter("transformer_blocks.1.attn.to_k.weight").mul_(1.5)
        assert self.worst(module, program) < 1e-4

    def test_follows_weights_that_are_replaced(self) -> None:
        module, program = self.fresh()
        assert self.worst(module, program) < 1e-4
        layer = module.get_submodule("transformer_blocks.1.attn.to_v")
        layer.weight = nn.Parameter(layer.weight.detach() * 2)
        assert self.worst(module, program) < 1e-4

    def test_weights_train_behind_inference(self) -> None:
        module, program = self.fresh()
        with torch.inference_mode():
            outputs(self.NAME, program, slice(1))
        weight = module.get_parameter("transformer_blocks.1.attn.to_q.weight").requires_grad_(True)
        with torch.enable_grad():
            outputs(self.NAME, program, slice(1))[0].square().sum().backward()
        assert weight.grad is not None
        assert weight.grad.abs().max() > 0
