"""What classes are called with, by name and by convention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from musiva.compiler import SIZES
from musiva.compiler.arguments import call_arguments
from musiva.core.errors import CannotCapture
from musiva.models.captured import signature_of
from musiva.models.captured.known import KNOWN
from musiva.models.captured.known.conventional import conventional
from musiva.perf.catalog import ENTRIES, Entry, build

# What the classes say of themselves, of autocasts, old names and kernels.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
# Their names and layouts are the usual ones.
USUAL = (
    "SD3Transformer2DModel",
    "FluxTransformer2DModel",
    "PixArtTransformer2DModel",
    "WanTransformer3DModel",
    "CogVideoXTransformer3DModel",
    "AuraFlowTransformer2DModel",
    "SanaTransformer2DModel",
)


def test_every_class_that_is_tried_is_known() -> None:
    assert {entry.name for entry in ENTRIES} == set(KNOWN)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_class_takes_what_it_is_said_to_take(entry: Entry) -> None:
    module = build(entry)
    signature = signature_of(module)
    sizes = signature.sized(SIZES[0])
    assert signature.allows(sizes)
    call = call_arguments(signature.arguments, sizes, torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = pytree.tree_leaves(module(**call, return_dict=False))
    assert any(isinstance(one, Tensor) and bool(one.isfinite().all()) for one in found)


@pytest.mark.parametrize("name", USUAL)
def test_what_is_usual_is_found_without_knowing_the_class(name: str) -> None:
    (entry,) = (one for one in ENTRIES if one.name == name)
    module = build(entry)
    found = conventional(module, dict(module.config)).arguments
    known = signature_of(module).arguments
    for argument in found:
        assert found[argument].dims == known[argument].dims
        assert found[argument].kind == known[argument].kind


def test_a_class_with_arguments_of_its_own_is_refused_with_their_names() -> None:
    class Odd(nn.Module):
        def forward(self, hidden_states: Tensor, wavelets: Tensor) -> Tensor:
            return hidden_states + wavelets

    with pytest.raises(CannotCapture, match="wavelets"):
        conventional(Odd(), {"in_channels": 4})


def test_a_class_for_which_no_layout_fits_is_refused_with_what_was_tried() -> None:
    class Fixed(nn.Module):
        def forward(self, hidden_states: Tensor) -> Tensor:
            return hidden_states @ torch.zeros(3, 3, 3, 3)

    with pytest.raises(CannotCapture, match=r"no layout fits.*hidden_states"):
        conventional(Fixed(), {"in_channels": 4})
