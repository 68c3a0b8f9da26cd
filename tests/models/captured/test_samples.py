"""What a caller gives for a sample: sizes are read from it, and what does not fit is refused."""

from __future__ import annotations

import pytest
import torch

from musiva.core.errors import InvalidInput
from musiva.models.captured import read
from musiva.models.captured.known.sequences import KNOWN

FLUX = KNOWN["FluxTransformer2DModel"](
    {
        "in_channels": 8,
        "joint_attention_dim": 12,
        "pooled_projection_dim": 6,
        "guidance_embeds": True,
    }
)


def given(rows: int = 4, columns: int = 6, words: int = 5) -> dict[str, object]:
    return {
        "hidden_states": torch.randn(rows * columns, 8),
        "encoder_hidden_states": torch.randn(words, 12),
        "pooled_projections": torch.randn(6),
        "timestep": 0.5,
        "guidance": 3.5,
        "img_ids": FLUX.arguments["img_ids"].make({"rows": rows, "columns": columns}),
    }


def test_sizes_that_shapes_leave_open_follow_from_positions() -> None:
    sizes = read(FLUX, given(), "it").sizes
    assert (sizes["rows"], sizes["columns"], sizes["words"]) == (4, 6, 5)


def test_numbers_stand_for_tensors() -> None:
    found = read(FLUX, given(), "it").values
    assert found["timestep"].shape == ()
    assert float(found["guidance"]) == 3.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img_ids": None}, "img_ids, txt_ids too"),
        ({"img_ids": torch.zeros(24, 3)}, r"it"),
        ({"pooled_projections": None}, "pooled_projections"),
        ({"pooled_projections": torch.zeros(7)}, "pooled_projections"),
        ({"hidden_states": torch.zeros(24, 9)}, "hidden_states"),
        ({"encoder_hidden_states": torch.full((5, 12), torch.nan)}, "finite"),
        ({"noise": torch.zeros(1)}, "noise"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, object], message: str) -> None:
    asked = {name: x for name, x in {**given(), **changes}.items() if x is not None}
    with pytest.raises(InvalidInput, match=message):
        read(FLUX, asked, "it")
