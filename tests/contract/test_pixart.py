"""The PixArt that was written by hand against diffusers' class, and captured PixArt against it."""

from __future__ import annotations

import random

import pytest
import torch
from diffusers import PixArtTransformer2DModel

from musiva.engine import Predictor, load_denoiser
from tests.contract.pixart import Oracle, to_diffusers

NUM_CONFIGS = 10
SEEDS = [
    *range(NUM_CONFIGS),
    *(pytest.param(seed, marks=pytest.mark.matrix) for seed in range(NUM_CONFIGS, 60)),
]
# Of these a program is made, which takes seconds.
CAPTURED = [0, *(pytest.param(seed, marks=pytest.mark.matrix) for seed in range(1, 12))]


def random_transformer(seed: int) -> PixArtTransformer2DModel:
    """A small diffusers transformer of a random config, all weights random and of unit gain."""
    draw = random.Random(seed)
    heads, head_dim = draw.choice([(1, 12), (2, 12), (3, 8), (4, 12), (2, 24), (3, 16), (5, 12)])
    torch.manual_seed(seed)
    model = PixArtTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        in_channels=draw.choice([3, 4, 8]),
        out_channels=draw.choice([None, 8]),
        num_layers=draw.choice([1, 2, 3]),
        cross_attention_dim=heads * head_dim,
        attention_bias=draw.random() < 0.7,
        sample_size=128 if seed % 3 == 0 else draw.choice([8, 16, 32]),
        patch_size=draw.choice([1, 2, 3]),
        caption_channels=draw.choice([None, 20, 32]),
        interpolation_scale=draw.choice([None, 1, 2]),
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model.eval()


def random_samples(
    model: PixArtTransformer2DModel, seed: int, count: int = 5
) -> tuple[list, list, list]:
    draw, config = random.Random(seed), model.config
    width = config.caption_channels or config.cross_attention_dim
    latents, times, conditions = [], [], []
    for _ in range(count):
        height, columns, length = draw.randint(3, 19), draw.randint(3, 19), draw.randint(2, 30)
        mask = torch.ones(length)
        mask[draw.randint(1, length) :] = 0
        condition = {
            "encoder_hidden_states": torch.randn(length, width),
            "encoder_attention_mask": mask,
        }
        if model.use_additional_conditions:
            sizes = {"resolution": torch.rand(2) * 1000, "aspect_ratio": torch.rand(1) + 0.5}
            condition["added_cond_kwargs"] = sizes
        latents.append(torch.randn(config.in_channels, height, columns))
        times.append(draw.randint(0, 999))
        conditions.append(condition)
    return latents, times, conditions


@torch.no_grad()
def reference(model: PixArtTransformer2DModel, latent, time, condition) -> torch.Tensor:
    sizes = {k: v[None] for k, v in condition.get("added_cond_kwargs", {}).items()}
    return model(
        latent[None],
        encoder_hidden_states=condition["encoder_hidden_states"][None],
        encoder_attention_mask=condition["encoder_attention_mask"][None],
        timestep=torch.tensor([time]),
        added_cond_kwargs=sizes or {"resolution": None, "aspect_ratio": None},
    ).sample[0]


def check(
    denoiser: Predictor | Oracle,
    samples: tuple[list, list, list],
    expected: list[torch.Tensor],
    bound: float,
) -> None:
    """Each sample alone against what is expected, and packed against alone, to the byte."""
    packed = denoiser.predict(*samples)
    alone = [denoiser.predict(*([x] for x in sample))[0] for sample in zip(*samples, strict=True)]
    for a, p, e in zip(alone, packed, expected, strict=True):
        assert a.shape == e.shape
        assert (a - e).abs().max() <= bound * max(1.0, float(e.abs().max()))
        assert torch.equal(a, p)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_oracle_matches_diffusers_alone_and_packed(seed: int) -> None:
    model = random_transformer(seed)
    ours = Oracle(model)
    samples = random_samples(model, seed)
    expected = [reference(model, *sample) for sample in zip(*samples, strict=True)]
    check(ours, samples, expected, 1e-4)


@pytest.mark.parametrize("seed", CAPTURED)
def test_the_captured_model_matches_the_oracle_alone_and_packed(seed: int) -> None:
    model = random_transformer(seed)
    captured = load_denoiser(model)
    latents, times, conditions = random_samples(model, seed)
    p = model.config.patch_size
    # What a pipeline gives: whole patches, and the size that they make.
    latents = [x[:, : x.shape[1] // p * p, : x.shape[2] // p * p] for x in latents]
    for latent, condition in zip(latents, conditions, strict=True):
        if model.use_additional_conditions:
            height, width = latent.shape[1:]
            sizes = {"resolution": torch.tensor([8.0 * height, 8.0 * width])}
            condition["added_cond_kwargs"] = {
                **sizes,
                "aspect_ratio": torch.tensor([height / width]),
            }
    samples = latents, times, conditions
    check(captured, samples, Oracle(model).predict(*samples), 1e-5)


def test_weights_survive_the_way_there_and_back() -> None:
    model = random_transformer(0)
    ours = Oracle(model).denoiser
    back = to_diffusers(ours, ours.state_dict())
    assert back.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(back[name], tensor), name


def test_bfloat16_stays_near_float32() -> None:
    model = random_transformer(4)
    samples = random_samples(model, 4, 2)
    expected = Oracle(model).predict(*samples)
    low = Oracle(model.bfloat16()).predict(*samples)
    for a, b in zip(low, expected, strict=True):
        assert (a.float() - b).abs().max() < 0.05 * float(b.abs().max())
