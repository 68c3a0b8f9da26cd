"""Classes of diffusers, captured: a mixed pack against the class alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from musiva.compiler import SIZES, Captured, capture
from musiva.compiler.arguments import Argument, call_arguments, values
from musiva.compiler.export import export
from musiva.core.errors import CannotCapture
from musiva.engine.runner import PlainRun
from musiva.models.captured import Signature, signature_of
from musiva.models.captured.check import largest_error
from musiva.perf.captures import NEW, Trial
from musiva.perf.catalog import build
from tests.trials import BY_NAME, trial_of

# Some classes ask for an autocast that a CPU does not have.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*CPU [Aa]utocast:UserWarning")
NAMES = (
    pytest.param("PixArtTransformer2DModel", marks=pytest.mark.matrix),
    "SD3Transformer2DModel",
    "FluxTransformer2DModel",
    "WanTransformer3DModel",
    pytest.param("LatteTransformer3DModel", marks=pytest.mark.matrix),
)


@torch.no_grad()
def worst_error(trial: Trial) -> float:
    """Of the outputs of a mixed pack, over the largest output."""
    return trial.error([trial.signature.sized(one) for one in NEW[:2]])


@torch.no_grad()
def held(module: nn.Module, arguments: Mapping[str, Argument]) -> tuple[Captured, float]:
    """Captured, and held against the module on a pack of two samples of other sizes."""
    captured = capture(module, arguments, SIZES)
    signature = Signature(arguments=arguments)
    return captured, largest_error(captured, signature, NEW[:2], PlainRun())


@pytest.mark.parametrize("name", NAMES)
def test_a_pack_of_other_sizes_is_what_the_class_says(name: str) -> None:
    trial = trial_of(name)
    assert not trial.denoiser.captured.dense
    assert worst_error(trial) < 1e-4


@pytest.mark.matrix
def test_lengths_that_a_class_reads_from_a_mask_are_known_while_it_is_traced() -> None:
    trial = trial_of("OmniGenTransformer2DModel")
    assert trial.denoiser.captured.dense
    assert worst_error(trial) < 1e-4


def test_a_traced_class_keeps_nothing_of_it() -> None:
    module = build(BY_NAME["ZImageTransformer2DModel"])
    signature = signature_of(module)
    export(module, signature.arguments, signature.sized(SIZES[0]))
    assert module.rope_embedder.freqs_cis is None
    generator = torch.Generator().manual_seed(0)
    call = call_arguments(signature.arguments, signature.sized(NEW[0]), generator)
    assert pytree.tree_leaves(module(**call, return_dict=False))


def test_what_cannot_be_traced_says_why() -> None:
    class Reads(nn.Module):
        def forward(self, hidden_states: Tensor, return_dict: bool) -> Tensor:
            return hidden_states * int(hidden_states.sum())

    with pytest.raises(CannotCapture, match=r"torch\.export"):
        capture(Reads(), {"hidden_states": values("rows", 4)}, SIZES)


def test_a_number_that_is_no_expression_of_sizes_is_looked_up_at_each_size() -> None:
    class Folds(nn.Module):
        def forward(self, hidden_states: Tensor, return_dict: bool) -> Tensor:
            x, count = hidden_states, hidden_states.shape[1]
            side = math.isqrt(count) + 1
            square = functional.pad(x, (0, 0, 0, side * side - count)).view(1, side, side, 4)
            return square.transpose(1, 2).flatten(1, 2)[:, :count] * math.log(count)

    captured, error = held(Folds(), {"hidden_states": values("rows", 4)})
    assert captured.program.numbers
    assert captured.dense
    assert error < 1e-6


def test_the_scale_of_an_attention_may_depend_on_the_size() -> None:
    class Attends(nn.Module):
        def forward(self, hidden_states: Tensor, return_dict: bool) -> Tensor:
            x = hidden_states.unsqueeze(1)
            scale = math.log(hidden_states.shape[1])
            return functional.scaled_dot_product_attention(x, x, x, scale=scale).squeeze(1)

    captured, error = held(Attends(), {"hidden_states": values("rows", 4)})
    assert not captured.dense
    assert error < 1e-5


def test_a_token_may_have_several_windows_of_a_convolution() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Conv3d(3, 5, (2, 2, 2), (2, 2, 2))

        def forward(self, hidden_states: Tensor, return_dict: bool) -> Tensor:
            # [1, 5, 2, rows, columns]: two windows of two frames each.
            return self.proj(hidden_states).flatten(3)

    latent = values(3, 4, "2*rows", "2*columns")
    captured, error = held(Patches(), {"hidden_states": latent})
    assert not captured.dense
    assert error < 1e-5


def test_queries_that_were_learnt_are_tokens_of_their_own() -> None:
    """As many as sizes have it, as with a perceiver."""

    class Resamples(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.latents = nn.Parameter(torch.randn(1, 64, 4))
            self.proj = nn.Linear(4, 4)

        def forward(self, hidden_states: Tensor, return_dict: bool) -> Tensor:
            x, count = hidden_states.unsqueeze(1), hidden_states.shape[1]
            asking = self.latents[:, : math.isqrt(4 * count)].unsqueeze(1)
            read = asking + functional.scaled_dot_product_attention(asking, x, x)
            read = functional.silu(self.proj(read))
            return functional.scaled_dot_product_attention(x, read, read).squeeze(1)

    captured, error = held(Resamples(), {"hidden_states": values("rows", 4)})
    assert captured.program.extras
    assert not captured.dense
    assert error < 1e-5


def test_positions_along_an_axis_of_several_sizes_are_worked_out() -> None:
    class Places(nn.Module):
        def forward(self, hidden_states: Tensor, return_dict: bool) -> Tensor:
            return hidden_states + torch.arange(hidden_states.shape[1])[None, :, None]

    captured, error = held(Places(), {"hidden_states": values("words+rows*columns", 4)})
    assert not captured.artifact.baked
    assert error < 1e-6


def test_tables_of_samples_meet_weights() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(6, 4))

        def forward(self, hidden_states: Tensor, given: Tensor, return_dict: bool) -> Tensor:
            return hidden_states + (given @ self.matrix).mean(1, keepdim=True)

    arguments = {"hidden_states": values("rows", 4), "given": values(3, 6)}
    captured, error = held(Reads(), arguments)
    assert not captured.dense
    assert error < 1e-5


def test_what_is_repeated_for_some_tokens_is_not_for_the_others() -> None:
    """Times of tokens of the past, and of those of now."""

    class Shifts(nn.Module):
        def forward(self, hidden_states: Tensor, given: Tensor, return_dict: bool) -> Tensor:
            count = hidden_states.shape[1]
            first = given[:, :1].expand(-1, count - 2, -1)
            return hidden_states + torch.cat([first, given[:, 1:].expand(-1, 2, -1)], 1)

    arguments = {"hidden_states": values("rows", 4), "given": values(2, 4)}
    assert held(Shifts(), arguments)[1] < 1e-6


def test_what_draws_random_numbers_is_refused() -> None:
    class Noisy(nn.Module):
        def forward(self, hidden_states: Tensor, return_dict: bool) -> Tensor:
            return hidden_states + torch.randn_like(hidden_states)

    with pytest.raises(CannotCapture, match="random"):
        capture(Noisy(), {"hidden_states": values("rows", 4)}, SIZES)
