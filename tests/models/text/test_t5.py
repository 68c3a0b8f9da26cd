from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from musiva.core.errors import BadCheckpoint
from musiva.models.text import T5Config, T5Encoder, t5_tensors

LENGTHS = (1, 5, 16, 17, 40, 5, 33, 150)
CONFIGS: tuple[dict[str, Any], ...] = (
    {"d_model": 16, "d_kv": 8, "num_heads": 2, "num_layers": 2, "feed_forward_proj": "relu"},
    {"d_model": 16, "d_kv": 8, "num_heads": 2, "num_layers": 2, "feed_forward_proj": "gated-gelu"},
    {"d_model": 24, "d_kv": 4, "num_heads": 3, "num_layers": 1, "d_ff": 50},
    {"d_model": 36, "d_kv": 9, "num_heads": 5, "num_layers": 3, "feed_forward_proj": "gated-gelu"},
    {"d_model": 32, "d_kv": 64, "num_heads": 1, "relative_attention_num_buckets": 8},
    {"d_model": 20, "d_kv": 5, "num_heads": 4, "relative_attention_num_buckets": 6},
    {"d_model": 64, "d_kv": 16, "num_heads": 4, "relative_attention_max_distance": 20},
    {"d_model": 40, "d_kv": 8, "num_heads": 3, "layer_norm_epsilon": 1e-3, "num_layers": 4},
    {"d_model": 48, "d_kv": 12, "num_heads": 4, "feed_forward_proj": "gated-gelu", "d_ff": 7},
    {"d_model": 17, "d_kv": 3, "num_heads": 7, "tie_word_embeddings": False},
)


def config_of(**changes: Any) -> dict[str, Any]:
    base = {"vocab_size": 131, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2}
    return transformers.T5Config(**{**base, "num_heads": 4, **changes}).to_dict()


def random_encoder(seed: int = 0, **changes: Any) -> T5Encoder:
    encoder = T5Encoder.from_config(config_of(**changes)).eval()
    encoder.init_weights(torch.Generator().manual_seed(seed))
    with torch.no_grad():  # the bias table must matter
        encoder.encoder.bias_table.weight.mul_(8)
    return encoder


def prompts(seed: int, lengths: tuple[int, ...] = LENGTHS, vocab: int = 131) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, vocab, (length,), generator=generator) for length in lengths]


def padded_reference(config: dict[str, Any], encoder: T5Encoder, ids: list[Tensor]) -> list[Tensor]:
    """Transformers' outputs at the valid rows, padded and masked as diffusers' pipelines do."""
    theirs = transformers.T5EncoderModel(transformers.T5Config(**config)).eval()
    missing, unexpected = theirs.load_state_dict(encoder.state_dict(), strict=False)
    assert set(missing) <= {"encoder.embed_tokens.weight"}
    assert not unexpected
    theirs.to(encoder.shared.weight.dtype)
    width = max(map(len, ids)) + 3
    padded = torch.stack([F.pad(prompt, (0, width - len(prompt))) for prompt in ids])
    mask = torch.stack([(torch.arange(width) < len(prompt)).long() for prompt in ids])
    with torch.no_grad():
        rows = theirs(padded, attention_mask=mask)[0]
    return [row[: len(prompt)] for row, prompt in zip(rows, ids, strict=True)]


def worst(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Largest error over max(1, largest output)."""
    errors = [(a.float() - b.float()).abs().max() for a, b in zip(ours, theirs, strict=True)]
    scale = max(1.0, max(float(row.abs().max()) for row in theirs))
    return float(max(errors)) / scale


@pytest.mark.parametrize("changes", CONFIGS)
def test_outputs_are_those_of_transformers(changes: dict[str, Any]) -> None:
    config = config_of(**changes)
    encoder = random_encoder(**changes)
    ids = prompts(1)
    with torch.no_grad():
        ours = encoder(ids)
    assert worst(ours, padded_reference(config, encoder, ids)) < 1e-4


def test_bfloat16_is_as_close_to_float32_as_transformers_bfloat16() -> None:
    config = config_of(feed_forward_proj="gated-gelu")
    encoder = random_encoder(feed_forward_proj="gated-gelu")
    ids = prompts(2)
    with torch.no_grad():
        exact = encoder(ids)
        ours = encoder.to(torch.bfloat16)(ids)
    theirs = padded_reference(config, encoder, ids)
    assert all(row.dtype == torch.bfloat16 for row in ours)
    assert worst(ours, exact) < 1.5 * worst(theirs, exact) + 1e-3


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("odd", [False, True])
def test_packed_equals_alone_to_the_byte(threads: int, dtype: torch.dtype, odd: bool) -> None:
    sizes = {"d_model": 37, "d_kv": 9, "num_heads": 5, "d_ff": 51} if odd else {"d_model": 96}
    encoder = random_encoder(**sizes).to(dtype)
    pool = prompts(3, (1, 3, 15, 16, 17, 33, 77, 77, 1))
    draw = random.Random(4)
    with torch.no_grad():
        alone = [encoder([prompt])[0] for prompt in pool]
        for _ in range(4):
            chosen = draw.choices(range(len(pool)), k=draw.randint(2, 10))
            for index, row in zip(chosen, encoder([pool[i] for i in chosen]), strict=True):
                assert torch.equal(row, alone[index])


def test_packed_equals_alone_up_to_rounding_while_training() -> None:
    encoder = random_encoder(dropout_rate=0.0).train()
    ids = prompts(5)
    packed = encoder(ids)
    assert all(row.requires_grad for row in packed)
    with torch.no_grad():
        assert worst(packed, [encoder([prompt])[0] for prompt in ids]) < 1e-6


def test_gradients_are_those_of_transformers() -> None:
    config = config_of(feed_forward_proj="gated-gelu", dropout_rate=0.0)
    encoder = random_encoder(feed_forward_proj="gated-gelu", dropout_rate=0.0)
    theirs = transformers.T5EncoderModel(transformers.T5Config(**config)).eval()
    theirs.load_state_dict(encoder.state_dict(), strict=False)
    ids = prompts(6, (4, 21, 4))
    torch.cat([row.flatten() for row in encoder(ids)]).square().sum().backward()
    for prompt in ids:
        theirs(prompt[None])[0].square().sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        reference = expected[name].grad
        assert reference is not None
        scale = max(1.0, float(reference.abs().max()))
        assert float((parameter.grad - reference).abs().max()) < 1e-4 * scale, name


def test_dropout_acts_in_training_only() -> None:
    encoder = random_encoder(dropout_rate=0.5)
    ids = prompts(7, (20,))
    with torch.no_grad():
        assert torch.equal(encoder(ids)[0], encoder(ids)[0])
        encoder.train()
        assert not torch.equal(encoder(ids)[0], encoder(ids)[0])


def test_a_step_of_training_lowers_the_loss() -> None:
    encoder = random_encoder(dropout_rate=0.0)
    optimiser = torch.optim.Adam(encoder.parameters(), lr=1e-2)
    ids, targets = prompts(8, (3, 9)), [torch.ones(3, 32), -torch.ones(9, 32)]
    losses = []
    for _ in range(20):
        rows = encoder(ids)
        loss = torch.stack([F.mse_loss(a, b) for a, b in zip(rows, targets, strict=True)]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_fresh_weights_have_the_variances_of_t5() -> None:
    config = config_of(
        d_model=256, d_ff=512, feed_forward_proj="gated-gelu", initializer_factor=0.5
    )
    encoder = T5Encoder.from_config(config).eval()
    encoder.init_weights(torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    theirs = transformers.T5EncoderModel(transformers.T5Config(**config))
    expected = theirs.state_dict()
    for name, parameter in encoder.state_dict().items():
        spread = float(expected[name].std(correction=0))
        assert float(parameter.std(correction=0)) == pytest.approx(spread, rel=0.2, abs=1e-7), name
        assert float(parameter.mean()) == pytest.approx(float(expected[name].mean()), abs=0.02)
    with torch.no_grad():
        rows = torch.cat(encoder(prompts(9)))
    assert 0.1 < float(rows.std()) < 2.0


def test_every_linear_goes_through_the_given_callable() -> None:
    encoder = random_encoder(feed_forward_proj="gated-gelu")
    layers = {name: m for name, m in encoder.named_modules() if isinstance(m, nn.Linear)}
    seen: list[str] = []

    def linear(site: str, layer: nn.Linear, x_TD: Tensor) -> Tensor:
        assert layers[site] is layer
        assert x_TD.dim() == 2
        assert len(x_TD) % 16 == 0
        seen.append(site)
        return layer(x_TD) * 2

    ids = prompts(10)
    with torch.no_grad():
        doubled, plain = encoder(ids, linear=linear), encoder(ids)
    assert sorted(seen) == sorted(layers)
    assert not torch.equal(doubled[0], plain[0])


def test_no_prompts_give_no_rows_and_no_tokens_are_refused() -> None:
    encoder = random_encoder()
    assert encoder([]) == []
    for bad in (torch.zeros(0, dtype=torch.long), torch.zeros(1, 3, dtype=torch.long)):
        with pytest.raises(ValueError, match="L >= 1"):
            encoder([torch.ones(4, dtype=torch.long), bad])


def test_the_embedding_is_found_under_either_name() -> None:
    encoder = random_encoder()
    state = encoder.state_dict()
    shared = state.pop("shared.weight")
    tied = "encoder.embed_tokens.weight"
    head = {"lm_head.weight": shared, "decoder.block.0.layer.0.SelfAttention.q.weight": shared}
    for given in (
        {"shared.weight": shared},
        {tied: shared},
        {"shared.weight": shared, tied: shared},
    ):
        found = t5_tensors({**state, **given, **head})
        assert found.keys() == encoder.state_dict().keys()
        assert torch.equal(found["shared.weight"], shared)
    with pytest.raises(BadCheckpoint, match=r"shared\.weight and encoder\.embed_tokens\.weight"):
        t5_tensors({**state, "shared.weight": shared, tied: shared + 1})


def test_a_config_survives_the_round_trip_and_means_the_same_to_transformers() -> None:
    config = T5Config.from_dict(config_of(feed_forward_proj="gated-gelu", d_kv=5))
    assert T5Config.from_dict(config.to_dict()) == config
    theirs = transformers.T5Config(**config.to_dict())
    assert T5Config.from_dict(theirs.to_dict()) == config


@pytest.mark.parametrize(
    ("key", "value", "supported"),
    [
        ("model_type", "umt5", "'t5'"),
        ("feed_forward_proj", "gated-silu", "relu or gated-gelu"),
        ("feed_forward_proj", ["relu"], "relu or gated-gelu"),
        ("dense_act_fn", "silu", "'relu'"),
        ("is_gated_act", True, "False"),
        ("is_decoder", True, "False"),
        ("quantization_config", {"bits": 4}, "None"),
        ("d_model", 0, "from 1 up"),
        ("d_kv", "8", "from 1 up"),
        ("num_layers", True, "from 1 up"),
        ("num_heads", None, "from 1 up"),
        ("relative_attention_num_buckets", 7, "even number from 4 up"),
        ("relative_attention_max_distance", 8, "more than 8"),
        ("dropout_rate", 1.5, "below 1.0"),
        ("layer_norm_epsilon", "small", "a number"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(key: str, value: object, supported: str) -> None:
    with pytest.raises(BadCheckpoint) as caught:
        T5Encoder.from_config({**config_of(), key: value})
    for part in (key, repr(value), supported):
        assert part in str(caught.value)


def test_a_missing_size_is_refused_by_name() -> None:
    config = config_of()
    del config["d_ff"]
    with pytest.raises(BadCheckpoint, match="d_ff is None"):
        T5Encoder.from_config(config)
