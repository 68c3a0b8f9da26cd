"""Pictures decoded in strips by several ranks, against one that has all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from musiva.comm import Group, Lone, in_threads
from musiva.models.vae import AutoencoderKL, AutoencoderKLConfig
from musiva.parallel import Strips, Unshared

ROWS, COLUMNS = 11, 6


def ours() -> nn.Module:
    config = AutoencoderKLConfig(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
    )
    return AutoencoderKL(config)


def of_diffusers(name: str, **config: object) -> Callable[[], nn.Module]:
    return lambda: getattr(pytest.importorskip("diffusers"), name)(**config)


PICTURE, CLIP = (1, 4, ROWS, COLUMNS), (1, 4, 2, ROWS, COLUMNS)
CASES: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ours": (ours, PICTURE),
    "AutoencoderKL": (
        of_diffusers(
            "AutoencoderKL",
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
        ),
        PICTURE,
    ),
    "AutoencoderKLWan": (of_diffusers("AutoencoderKLWan", base_dim=8, z_dim=4), CLIP),
    "AutoencoderKLQwenImage": (of_diffusers("AutoencoderKLQwenImage", base_dim=8, z_dim=4), CLIP),
    "AutoencoderKLCogVideoX": (
        of_diffusers(
            "AutoencoderKLCogVideoX",
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            norm_num_groups=4,
        ),
        CLIP,
    ),
}


def decoded(module: Any, latent: Tensor) -> Tensor:
    found = module.decode(latent)
    return found if isinstance(found, Tensor) else found.sample


@torch.inference_mode()
def in_strips(group: Group, module: nn.Module, latent: Tensor) -> Tensor:
    # Some classes keep what they are about on their modules.
    own, strips = deepcopy(module), Strips(group, latent.shape[-2])
    with strips:
        found = decoded(own, strips.own(latent))
    return strips.whole(found)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_strips_of_all_ranks_are_the_picture(name: str, size: int) -> None:
    made, shape = CASES[name]
    torch.manual_seed(0)
    module, latent = made().eval(), torch.randn(shape)
    with torch.inference_mode():
        whole = decoded(module, latent)
    for found in in_threads(in_strips, size, module, latent):
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))


def test_a_rank_sends_edges_and_moments_alone() -> None:
    """Of a convolution two rows and of a norm two numbers a group, and not what it has."""

    def body(group: Group) -> int:
        conv, norm = nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(4, 8)
        with torch.inference_mode(), Strips(group, 64):
            norm(conv(torch.zeros(1, 8, 32, 10)))
        return group.sent_bytes

    assert in_threads(body, 2) == [4 * (8 * 10 + 2 * 4)] * 2


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: functional.conv2d(x, torch.ones(4, 4, 3, 3), stride=2, padding=1),
        lambda x: functional.conv2d(x, torch.ones(4, 4, 3, 3)),
        lambda x: functional.conv2d(x, torch.ones(4, 4, 3, 3), padding="same"),
        lambda x: functional.pad(x, (1, 1, 1, 1), "reflect"),
        lambda x: functional.pad(x, (0, 1, 0, 1)),
        lambda x: functional.interpolate(x, scale_factor=2.0, mode="bilinear"),
        lambda x: functional.interpolate(x, size=(20, 20)),
        lambda x: functional.scaled_dot_product_attention(x, x, x, is_causal=True),
    ],
)
def test_what_is_not_known_of_strips_is_refused(fn: Callable[[Tensor], Tensor]) -> None:
    with Strips(Lone(), 8), pytest.raises(Unshared):
        fn(torch.zeros(1, 4, 8, 8))
