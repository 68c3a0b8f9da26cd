"""PixArt against diffusers' PixArtTransformer2DModel with the same weights."""

from __future__ import annotations

import random

import pytest
import torch
from diffusers import PixArtTransformer2DModel

from musiva.core.errors import BadCheckpoint, InvalidInput
from musiva.engine import Predictor, load_denoiser
from musiva.models.pixart import from_config, from_diffusers, to_diffusers

NUM_CONFIGS = 10
SEEDS = [
    *range(NUM_CONFIGS),
    *(pytest.param(seed, marks=pytest.mark.matrix) for seed in range(NUM_CONFIGS, 60)),
]


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


@pytest.mark.parametrize("seed", SEEDS)
def test_matches_diffusers_alone_and_packed(seed: int) -> None:
    model = random_transformer(seed)
    ours = load_denoiser(model)
    samples = random_samples(model, seed)
    expected = [reference(model, *sample) for sample in zip(*samples, strict=True)]
    packed = ours.predict(*samples)
    alone = [ours.predict(*([x] for x in sample))[0] for sample in zip(*samples, strict=True)]
    for a, p, e in zip(alone, packed, expected, strict=True):
        assert a.shape == e.shape
        assert (a - e).abs().max() <= 1e-4 * max(1.0, float(e.abs().max()))
        assert torch.equal(a, p)


def test_weights_survive_the_way_there_and_back() -> None:
    model = random_transformer(0)
    ours = load_denoiser(model).denoiser
    back = to_diffusers(ours, ours.state_dict())
    assert back.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(back[name], tensor), name


def test_bfloat16_stays_near_float32() -> None:
    model = random_transformer(4)
    samples = random_samples(model, 4, 2)
    low = load_denoiser(model, dtype=torch.bfloat16).predict(*samples)
    for a, b in zip(low, load_denoiser(model).predict(*samples), strict=True):
        assert (a.float() - b).abs().max() < 0.05 * float(b.abs().max())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_type": "layer_norm"}, "norm_type='layer_norm' is not supported"),
        ({"activation_fn": "geglu"}, "activation_fn='geglu' is not supported"),
        ({"wings": 2}, "wings=2 is not a known setting"),
        ({"num_layers": "12"}, "num_layers='12'; expected int"),
        ({"attention_head_dim": 0}, "attention_head_dim=0; expected at least 1"),
        (
            {"cross_attention_dim": 10, "caption_channels": 8},
            "cross_attention_dim=10; expected 1152",
        ),
    ],
)
def test_refuses_configs_it_does_not_understand(change: dict, message: str) -> None:
    with pytest.raises(BadCheckpoint, match=message), torch.device("meta"):
        from_config({"num_layers": 1, **change})


def test_names_tensors_that_are_missing_or_misshapen() -> None:
    model = random_transformer(1)
    denoiser, tensors = load_denoiser(model).denoiser, dict(model.state_dict())
    del tensors["proj_out.bias"]
    tensors["scale_shift_table"] = tensors["scale_shift_table"][:1]
    tensors["extra"] = torch.zeros(1)
    with pytest.raises(BadCheckpoint) as error:
        from_diffusers(denoiser, tensors)
    for part in (
        "proj_out.bias is missing",
        "extra is not a tensor",
        "scale_shift_table has shape [1,",
    ):
        assert part in str(error.value)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load_denoiser(random_transformer(1))


def test_counts_of_predictions_must_agree(predictor: Predictor) -> None:
    with pytest.raises(InvalidInput, match="three lists of equal length"):
        predictor.predict([torch.zeros(3, 4, 4)], [1, 2], [{}])


def test_shapes_and_names_of_predictions_are_checked(predictor: Predictor) -> None:
    model = predictor.denoiser
    good, text = torch.zeros(model.in_channels, 6, 6), torch.zeros(3, model.text_width)
    for latent, condition, field in (
        (
            torch.zeros(model.in_channels + 1, 6, 6),
            {"encoder_hidden_states": text},
            r"latents\[0\]",
        ),
        (good[:, :0], {"encoder_hidden_states": text}, "at least one patch"),
        (good, {"encoder_hidden_states": text[:, 1:]}, "encoder_hidden_states"),
        (good, {}, "encoder_hidden_states"),
        (good, {"encoder_hidden_states": text, "guidance": 1}, "guidance"),
        (
            good,
            {"encoder_hidden_states": text, "encoder_attention_mask": torch.zeros(3)},
            "not all 0",
        ),
    ):
        with pytest.raises(InvalidInput, match=field):
            predictor.predict([latent], [1], [condition])
