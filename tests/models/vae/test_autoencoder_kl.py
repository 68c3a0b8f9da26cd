"""AutoencoderKL against diffusers' class: the same weights give the same numbers."""

from __future__ import annotations

import random

import pytest
import torch

from musiva.core.errors import BadCheckpoint
from musiva.models.vae import AutoencoderKL

TOLERANCE = 1e-4


def random_config(seed: int) -> dict[str, object]:
    rng = random.Random(seed)
    groups = rng.choice([1, 2, 4])
    levels = 1 + seed % 4
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [groups * rng.choice([2, 3, 5]) for _ in range(levels)],
        "layers_per_block": rng.choice([1, 2, 3]),
        "act_fn": "silu",
        "latent_channels": rng.choice([1, 4, 5]),
        "norm_num_groups": groups,
        "mid_block_add_attention": bool(seed % 2),
        "use_quant_conv": rng.random() < 0.5,
        "use_post_quant_conv": rng.random() < 0.5,
    }


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= TOLERANCE * max(1.0, float(theirs.abs().max())))


@pytest.mark.parametrize("seed", range(10))
@torch.inference_mode()
def test_matches_diffusers(seed: int) -> None:
    from diffusers import AutoencoderKL as Theirs

    torch.manual_seed(seed)
    config = random_config(seed)
    theirs = Theirs.from_config(config).eval()
    for parameter in theirs.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    ours = AutoencoderKL.from_config(config)
    ours.load_state_dict(theirs.state_dict(), strict=True)

    factor = ours.downscale
    height, width = random.Random(seed).choice([(3, 5), (4, 4), (7, 2), (1, 6)])
    odd = (seed // 4) % factor  # sizes that the factor does not divide
    pixels_BCHW = torch.randn(2, 3, height * factor + odd, width * factor)
    mean_BCHW, logvar_BCHW = ours.encode(pixels_BCHW)
    expected = theirs.encode(pixels_BCHW).latent_dist
    assert close(mean_BCHW, expected.mean)
    assert close(logvar_BCHW, expected.logvar)
    latent_BCHW = torch.randn(1, ours.config.latent_channels, height, width)
    assert close(ours.decode(latent_BCHW), theirs.decode(latent_BCHW).sample)


def test_channels_last_gives_the_same_picture() -> None:
    torch.manual_seed(0)
    ours = AutoencoderKL.from_config(random_config(3))
    latent_BCHW = torch.randn(1, ours.config.latent_channels, 4, 6)
    with torch.inference_mode():
        plain = ours.decode(latent_BCHW)
        last = ours.to(memory_format=torch.channels_last).decode(latent_BCHW)
    assert close(last, plain)


def test_scale_and_back() -> None:
    config = {**random_config(1), "scaling_factor": 0.5, "shift_factor": 2.0}
    ours = AutoencoderKL.from_config(config)
    latent_BCHW = torch.tensor([[[[4.0]]]])
    assert ours.scale(latent_BCHW).item() == 1.0
    assert torch.equal(ours.unscale(ours.scale(latent_BCHW)), latent_BCHW)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("act_fn", "gelu"),
        ("surprise", 1),
        ("block_out_channels", [5, 7]),
        ("block_out_channels", []),
        ("down_block_types", ["AttnDownEncoderBlock2D"]),
        ("norm_num_groups", 0),
        ("latent_channels", "4"),
        ("use_quant_conv", 1),
        ("latents_mean", [0.0]),
        ("scaling_factor", 0.0),
        ("scaling_factor", None),
        ("shift_factor", "x"),
    ],
)
def test_unsupported_values_are_named(key: str, value: object) -> None:
    with pytest.raises(BadCheckpoint) as error:
        AutoencoderKL.from_config({"norm_num_groups": 4, key: value})
    assert key in str(error.value)
    assert repr(value if not isinstance(value, list) else tuple(value)) in str(error.value)
    assert "supported" in str(error.value)


def test_gradients_reach_every_weight() -> None:
    torch.manual_seed(0)
    ours = AutoencoderKL.from_config(
        {**random_config(2), "use_quant_conv": True, "use_post_quant_conv": True}
    )
    mean_BCHW, logvar_BCHW = ours.encode(torch.randn(1, 3, 16, 16))
    (ours.decode(mean_BCHW).square().mean() + logvar_BCHW.square().mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ours.parameters())


@pytest.mark.parametrize("seed", range(4))
@torch.inference_mode()
def test_parts_are_all_of_decoding(seed: int) -> None:
    torch.manual_seed(seed)
    vae = AutoencoderKL.from_config(random_config(seed)).eval()
    latent_BCHW = torch.randn(1, vae.config.latent_channels, 3, 5)
    x_BCHW = latent_BCHW
    for part in vae.decode_parts:
        x_BCHW = part(x_BCHW)
    assert torch.equal(x_BCHW, vae.decode(latent_BCHW))
    shares = vae.decode_shares
    assert len(shares) == len(vae.decode_parts)
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) > 0.0


def test_a_share_is_that_of_the_multiplications() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = {**random_config(2), "mid_block_add_attention": False, "use_post_quant_conv": False}
    vae = AutoencoderKL.from_config(config).eval()
    x_BCHW, found = torch.randn(1, vae.config.latent_channels, 8, 8), []
    for part in vae.decode_parts:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            x_BCHW = part(x_BCHW)
        found.append(counter.get_total_flops())
    # Weights of norms and biases count for the share, and multiply almost nothing.
    for share, flops in zip(vae.decode_shares, found, strict=True):
        assert share == pytest.approx(flops / sum(found), rel=0.2, abs=0.01)
