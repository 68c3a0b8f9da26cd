"""Constructs that `torch.export` gets wrong are traced as others."""

from __future__ import annotations

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor, nn

from musiva.compiler.repairs import Repairs
from musiva.core.errors import CannotCapture
from musiva.engine import Predictor
from musiva.engine.verify import verified
from musiva.models.captured import captured_from, signature_of
from musiva.models.captured.check import call_of, expected_of


class Tabled(nn.Module):
    """Writes a table into what it has just made, as CogVideoX does."""

    def forward(self, x: Tensor) -> Tensor:
        table = x.new_zeros(x.shape[0] + 1, 2)
        table.data[1:].copy_(torch.arange(2.0 * x.shape[0]).reshape(-1, 2))
        return x + table[1:]


def test_what_is_written_into_data_is_traced() -> None:
    x = torch.randn(3, 2)
    with Repairs():
        program = torch.export.export(Tabled(), (x,), strict=False)
    assert torch.equal(program.module()(x), Tabled()(x))
    assert torch.equal(program.module()(2 * x), Tabled()(2 * x))


def test_without_the_repair_it_is_a_constant_without_numbers() -> None:
    """When this fails, torch has learnt it, and the repair can go."""
    with pytest.raises(RuntimeError, match="constant"):
        torch.export.export(Tabled(), (torch.randn(3, 2),), strict=False)


def test_elsewhere_data_is_what_it_is() -> None:
    x = nn.Parameter(torch.zeros(2))
    with Repairs():
        x.data.add_(1)
        x.data = x.data + 1
    assert x.tolist() == [2, 2]


def cogvideox() -> CogVideoXTransformer3DModel:
    """Without rotary positions, as the checkpoint of two billion parameters is."""
    torch.manual_seed(0)
    module = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=20,
        text_embed_dim=22,
        num_layers=1,
        sample_width=12,
        sample_height=8,
        sample_frames=9,
        max_text_seq_length=7,
        use_rotary_positional_embeddings=False,
    )
    return module.eval().requires_grad_(False)


@pytest.mark.matrix
def test_cogvideox_with_a_table_of_positions_is_captured() -> None:
    module = cogvideox()
    signature = signature_of(module)
    try:
        denoiser = verified(captured_from(module, signature), signature)
    except CannotCapture as error:
        pytest.fail(str(error))
    assert "tiles" in denoiser.reach
    several = [
        signature.sized({"frames": f, "rows": r, "columns": c})
        for f, r, c in ((3, 4, 6), (2, 5, 3))
    ]
    calls = [call_of(signature, sizes, i) for i, sizes in enumerate(several)]
    with torch.no_grad():
        expected = [expected_of(module, call)[0][0] for call in calls]
    found = Predictor(denoiser).predict(
        [call["hidden_states"][0] for call in calls],
        [float(call["timestep"]) for call in calls],
        [{"encoder_hidden_states": call["encoder_hidden_states"][0]} for call in calls],
    )
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine - theirs).abs().max() <= 1e-4 * max(1.0, float(theirs.abs().max()))
