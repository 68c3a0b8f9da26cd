from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.tiny import tiny_pixart_directory
from torch import Tensor, nn

from musiva.core.errors import BadCheckpoint, InvalidInput
from musiva.models.text import T5Config, T5Encoder, TextEncoder, load_t5, train_tokenizer

PROMPTS = ("", "A red FOX in the rain ", "two green apples under water at sunset", "ж 🦊 \t fox")
SIZES: dict[str, Any] = {"d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pixart_directory(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def theirs() -> transformers.T5EncoderModel:
    torch.manual_seed(0)
    config = transformers.T5Config(vocab_size=50, feed_forward_proj="gated-gelu", **SIZES)
    return transformers.T5EncoderModel(config).eval()


def assert_same_weights(directory: Path, theirs: transformers.T5EncoderModel) -> None:
    ours = load_t5(directory)
    assert not ours.training
    expected = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_what_transformers_saves_is_loaded(
    tmp_path: Path, theirs: transformers.T5EncoderModel
) -> None:
    theirs.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert_same_weights(tmp_path, theirs)


def test_shards_are_loaded(tmp_path: Path, theirs: transformers.T5EncoderModel) -> None:
    theirs.save_pretrained(tmp_path, max_shard_size="10KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert_same_weights(tmp_path, theirs)


def test_a_whole_t5_serves_as_its_encoder(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=50, **SIZES))
    whole.eval().save_pretrained(tmp_path)
    expected = whole.get_encoder()(torch.tensor([[5, 6, 1]]))[0]
    with torch.no_grad():
        ours = load_t5(tmp_path)([torch.tensor([5, 6, 1])])[0]
    assert float((ours - expected.detach()[0]).abs().max()) < 1e-5


def test_what_we_save_is_loaded_by_transformers(tmp_path: Path) -> None:
    config = T5Config(vocab_size=50, feed_forward="gated-gelu", **SIZES)
    encoder = T5Encoder(config).eval()
    encoder.init_weights(torch.Generator().manual_seed(2))
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    save_file(encoder.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs, report = transformers.T5EncoderModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids = torch.tensor([7, 3, 40, 1])
    with torch.no_grad():
        error = (theirs.eval()(ids[None])[0][0] - encoder([ids])[0]).abs().max()
    assert float(error) < 1e-5


def test_weights_take_the_type_asked_for(
    tmp_path: Path, theirs: transformers.T5EncoderModel
) -> None:
    theirs.to(torch.float16).save_pretrained(tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        encoder = load_t5(tmp_path, dtype)
        assert {tensor.dtype for tensor in encoder.state_dict().values()} == {dtype}


@pytest.mark.parametrize("fault", ["missing", "shape", "extra", "cut", "embeddings"])
def test_broken_weights_are_refused(
    tmp_path: Path, theirs: transformers.T5EncoderModel, fault: str
) -> None:
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    name = "encoder.block.1.layer.0.SelfAttention.q.weight"
    tensors = load_file(file)
    match fault:
        case "missing":
            del tensors[name]
        case "shape":
            tensors[name] = tensors[name][:, 1:].contiguous()
        case "extra":
            name = "encoder.block.2.layer_norm.weight"
            tensors[name] = torch.zeros(3)
        case "embeddings":
            name = "encoder.embed_tokens.weight"
            tensors[name] = tensors["shared.weight"] + 1
    save_file(tensors, file)
    if fault == "cut":
        name = file.name
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(BadCheckpoint) as caught:
        load_t5(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("sigma_pipeline", [True, False])
def test_prompts_give_the_features_of_the_pixart_pipelines(
    tmp_path: Path, sigma_pipeline: bool
) -> None:
    import diffusers

    tiny_pixart_directory(tmp_path, sigma_pipeline=sigma_pipeline)
    kind = diffusers.PixArtSigmaPipeline if sigma_pipeline else diffusers.PixArtAlphaPipeline
    pipeline = kind.from_pretrained(tmp_path)
    assert type(pipeline.tokenizer).__name__ == "T5Tokenizer"
    ours = TextEncoder.load(tmp_path)
    with torch.no_grad():
        features, mask, _, _ = pipeline.encode_prompt(
            list(PROMPTS), do_classifier_free_guidance=False, max_sequence_length=64
        )
    for row_LD, row, kept in zip(ours.encode(PROMPTS), features, mask.bool(), strict=True):
        assert row_LD.shape == (int(kept.sum()), ours.width)
        assert float((row_LD - row[kept]).abs().max()) < 1e-5


class TestTextEncoder:
    def test_the_empty_prompt_is_the_eos_row(self, model_directory: Path) -> None:
        encoder = TextEncoder.load(model_directory)
        assert encoder.tokenize("") == encoder.tokenize(" \n ") == [1]
        (row_LD,) = encoder.encode([""])
        assert row_LD.shape == (1, encoder.width)
        assert encoder.encode([]) == []

    def test_prompts_are_normalised_before_tokenising(self, model_directory: Path) -> None:
        encoder = TextEncoder.load(model_directory)
        assert encoder.tokenize(" A Red FOX\n") == encoder.tokenize("a red fox")

    def test_no_gradient_is_recorded_and_neighbours_change_nothing(
        self, model_directory: Path
    ) -> None:
        encoder = TextEncoder.load(model_directory)
        packed = encoder.encode(PROMPTS)
        for prompt, row_LD in zip(PROMPTS, packed, strict=True):
            assert not row_LD.requires_grad
            assert torch.equal(encoder.encode([prompt])[0], row_LD)

    def test_linears_run_through_the_given_callable(self, model_directory: Path) -> None:
        encoder = TextEncoder.load(model_directory)
        sites: list[str] = []

        def linear(site: str, layer: nn.Linear, x_TD: Tensor) -> Tensor:
            sites.append(site)
            return layer(x_TD)

        rows = encoder.encode(PROMPTS, linear=linear)
        assert len(sites) == len({*sites}) > 0
        for given, plain in zip(rows, encoder.encode(PROMPTS), strict=True):
            assert torch.equal(given, plain)

    def test_a_bad_prompt_is_refused_before_anything_runs(self, model_directory: Path) -> None:
        encoder = TextEncoder.load(model_directory, max_length=6)
        assert encoder.tokenizer.max_length == 6

        def linear(site: str, layer: nn.Linear, x_TD: Tensor) -> Tensor:
            raise AssertionError("ran")

        for bad, allowed in (("fox " * 9, "at most 6 tokens, got"), ("\udc00", "surrogates")):
            with pytest.raises(InvalidInput, match=allowed):
                encoder.encode(["a", bad], linear=linear)

    def test_a_tokenizer_of_another_model_is_refused(self, tmp_path: Path) -> None:
        tokenizer = train_tokenizer(["a red fox", "a blue whale"], 20, tmp_path, 16)
        model = T5Encoder(T5Config(vocab_size=tokenizer.vocab_size - 1, **SIZES))
        with pytest.raises(BadCheckpoint, match=f"vocab_size is {tokenizer.vocab_size - 1}"):
            TextEncoder(tokenizer, model)


def test_neither_transformers_nor_sentencepiece_is_imported(model_directory: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from musiva.models.text import TextEncoder;"
        "assert 'tokenizers' not in sys.modules;"
        "TextEncoder.load(Path(sys.argv[1])).encode(['a fox']);"
        "heavy = {'transformers', 'diffusers', 'sentencepiece', 'google.protobuf'};"
        "sys.exit(str(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model_directory)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
