"""Classes of diffusers, captured: a mixed pack against the class alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils import _pytree as pytree

from musiva.compiler import SIZES, capture
from musiva.compiler.arguments import call_arguments, values
from musiva.compiler.export import export
from musiva.core.errors import CannotCapture
from musiva.models.captured import signature_of
from musiva.perf.captures import NEW, Trial
from musiva.perf.catalog import build
from tests.trials import BY_NAME, trial_of

# Some classes ask for an autocast that a CPU does not have.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*CPU [Aa]utocast:UserWarning")
NAMES = (
    "PixArtTransformer2DModel",
    "SD3Transformer2DModel",
    "FluxTransformer2DModel",
    "LatteTransformer3DModel",
    "WanTransformer3DModel",
)


@torch.no_grad()
def worst_error(trial: Trial) -> float:
    """Of the outputs of a mixed pack, over the largest output."""
    return trial.error([trial.signature.sized(one) for one in NEW[:2]])


@pytest.mark.parametrize("name", NAMES)
def test_a_pack_of_other_sizes_is_what_the_class_says(name: str) -> None:
    trial = trial_of(name)
    assert not trial.denoiser.captured.dense
    assert worst_error(trial) < 1e-4


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
    class Reads(torch.nn.Module):
        def forward(self, hidden_states: torch.Tensor, return_dict: bool) -> torch.Tensor:
            return hidden_states * int(hidden_states.sum())

    with pytest.raises(CannotCapture, match=r"torch\.export"):
        capture(Reads(), {"hidden_states": values("rows", 4)}, SIZES)


def test_a_number_that_is_no_expression_of_sizes_is_refused() -> None:
    class Scales(torch.nn.Module):
        def forward(self, hidden_states: torch.Tensor, return_dict: bool) -> torch.Tensor:
            return hidden_states * math.log(hidden_states.shape[1])

    with pytest.raises(CannotCapture, match="depends on the size"):
        capture(Scales(), {"hidden_states": values("rows", 4)}, SIZES)


def test_what_draws_random_numbers_is_refused() -> None:
    class Noisy(torch.nn.Module):
        def forward(self, hidden_states: torch.Tensor, return_dict: bool) -> torch.Tensor:
            return hidden_states + torch.randn_like(hidden_states)

    with pytest.raises(CannotCapture, match="random"):
        capture(Noisy(), {"hidden_states": values("rows", 4)}, SIZES)
