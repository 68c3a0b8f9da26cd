"""Captured classes as denoisers: in mixed packs, with rows taken, and through `load_denoiser`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.trials import BY_NAME, trial_of

import musiva
import musiva.compiler.captured as captured_module
from musiva.core.errors import BadCheckpoint, InvalidInput
from musiva.engine import Predictor
from musiva.models.captured import captured_from, signature_of
from musiva.models.captured.check import relative_error
from musiva.perf.captures import NEW, Trial, examine
from musiva.perf.catalog import build
from musiva.perf.thirty import MODELS, sizes_of

FAMILIES = (
    "SD3Transformer2DModel",
    "FluxTransformer2DModel",
    "WanTransformer3DModel",
    "SanaTransformer2DModel",
)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_live_class_predicts_in_mixed_packs(name: str) -> None:
    trial = trial_of(name)
    module, signature = trial.denoiser.module, trial.signature
    denoiser = Predictor(trial.denoiser)
    latent, time = trial.denoiser.latent, trial.denoiser.time
    latents, times, conditions, expected = [], [], [], []
    for i, one in enumerate(NEW[:2]):
        sizes = signature.sized(one)
        generator = torch.Generator().manual_seed(i)
        own = {n: a.example(sizes, generator) for n, a in signature.arguments.items()}
        call = {n: a.batched(own[n]) for n, a in signature.arguments.items()}
        with torch.no_grad():
            expected.append(module(**call, return_dict=False)[0][0])
        latents.append(own.pop(latent))
        times.append(own.pop(time))
        conditions.append(own)
    found = denoiser.predict(latents, times, conditions)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == theirs.shape
        assert (mine - theirs).abs().max() < 1e-4 * max(1.0, float(theirs.abs().max()))


def test_words_that_a_mask_leaves_out_change_nothing() -> None:
    trial = trial_of("SanaTransformer2DModel")
    denoiser = Predictor(trial.denoiser)
    latent, words = torch.randn(11, 6, 4), torch.randn(5, 22)
    padded = torch.cat([words, torch.randn(3, 22)])
    mask = torch.tensor([1, 1, 1, 1, 1, 0, 0, 0])
    (short,) = denoiser.predict([latent], [500.0], [{"encoder_hidden_states": words}])
    (long,) = denoiser.predict(
        [latent], [500.0], [{"encoder_hidden_states": padded, "encoder_attention_mask": mask}]
    )
    assert torch.equal(short, long)
    with torch.no_grad():
        (theirs,) = trial.denoiser.module(
            hidden_states=latent[None],
            encoder_hidden_states=padded[None],
            timestep=torch.tensor([500.0]),
            encoder_attention_mask=mask[None],
            return_dict=False,
        )
    assert (long - theirs[0]).abs().max() < 1e-4


def test_a_directory_of_weights_is_the_class(tmp_path: Path) -> None:
    module = build(BY_NAME["SD3Transformer2DModel"])
    module.save_pretrained(tmp_path / "transformer")
    denoiser = musiva.load_denoiser(tmp_path)
    trial = trial_of("SD3Transformer2DModel")
    again = Predictor(trial.denoiser)
    given = {"encoder_hidden_states": torch.randn(5, 22), "pooled_projections": torch.randn(26)}
    latent = torch.randn(11, 8, 12)
    (found,), (same,) = (one.predict([latent], [300.0], [given]) for one in (denoiser, again))
    assert torch.equal(found, same)


def test_a_directory_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "Nonsense"}')
    with pytest.raises(BadCheckpoint, match="Nonsense"):
        musiva.load_denoiser(tmp_path)
    module = build(BY_NAME["SD3Transformer2DModel"])
    module.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadCheckpoint, match="safetensors"):
        musiva.load_denoiser(tmp_path)
    tensors = module.state_dict()
    tensors.pop("proj_out.weight")
    save_file(tensors, file)
    with pytest.raises(BadCheckpoint, match=r"proj_out\.weight is missing"):
        musiva.load_denoiser(tmp_path)


def test_what_a_class_does_not_take_is_named() -> None:
    trial = trial_of("SD3Transformer2DModel")
    denoiser = Predictor(trial.denoiser)
    given = {"encoder_hidden_states": torch.randn(5, 22), "pooled_projections": torch.randn(26)}
    with pytest.raises(InvalidInput, match="adapters"):
        denoiser.predict([torch.randn(11, 8, 8)], [1.0], [{**given, "adapters": torch.ones(1)}])
    with pytest.raises(InvalidInput, match="hidden_states"):
        denoiser.predict([torch.randn(10, 8, 8)], [1.0], [given])
    with pytest.raises(InvalidInput, match="lists of equal length"):
        denoiser.predict([torch.randn(11, 8, 8)], [1.0], [])
    assert denoiser.predict([], [], []) == []


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["LatteTransformer3DModel"])
def test_a_class_runs_in_packs_and_tiles(name: str) -> None:
    outcome = examine(name, lambda: build(BY_NAME[name]))
    assert not outcome.failed
    assert outcome.captured
    assert outcome.packed
    assert outcome.tiled


@pytest.mark.parametrize("words", [1, pytest.param(2, marks=pytest.mark.matrix)])
def test_few_words_are_known_once_for_all_sizes(
    words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = build(BY_NAME["PixArtTransformer2DModel"])
    captured = captured_from(module, fresh=True).captured
    captured.entry = None
    exports = count_exports(monkeypatch)
    for rows in (4, 6, 9):
        captured.places({"rows": rows, "columns": 7, "words": words})
    assert len(exports) == 1
    captured.places({"rows": 6, "columns": 9, "words": 30})
    assert len(exports) == 1


@pytest.mark.parametrize("mode", [torch.inference_mode, lambda: torch.autocast("cpu")])
def test_an_export_does_not_see_what_it_is_called_in(mode) -> None:
    module = build(BY_NAME["PixArtTransformer2DModel"])
    captured = captured_from(module, fresh=True).captured
    captured.entry = None
    with mode():
        assert captured.places({"rows": 2, "columns": 7, "words": 5})


def count_exports(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A list that gets what every export from now on is called with."""
    export, found = captured_module.export, []

    def counted(*given: object, **named: object) -> object:
        found.append(given)
        return export(*given, **named)

    monkeypatch.setattr(captured_module, "export", counted)
    return found


def test_gradients_are_those_of_the_class() -> None:
    module = build(BY_NAME["PixArtTransformer2DModel"])
    module.requires_grad_(True)
    trial = Trial(captured_from(module), signature_of(module))
    sizes = trial.signature.sized(NEW[0])
    call = trial.call(sizes, 0)
    (expected,) = trial.expected(call)
    expected.square().sum().backward()
    theirs = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    (found,) = trial.found([sizes], [call])
    found[0].square().sum().backward()
    for name, gradient in theirs.items():
        mine = module.get_parameter(name).grad
        assert mine is not None, name
        error = (mine - gradient).abs().max()
        assert error < 1e-3 * max(1.0, float(gradient.abs().max())), name


def test_a_mask_that_a_class_reads_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that adds up all words, those of the mask's zeros too."""
    trial = trial_of("SanaTransformer2DModel")
    denoiser = Predictor(trial.denoiser)
    right = trial.denoiser.module.forward

    def reads_all(encoder_hidden_states: torch.Tensor, **given: object) -> tuple[torch.Tensor]:
        (out,) = right(encoder_hidden_states=encoder_hidden_states, **given)
        return (out + encoder_hidden_states.sum(),)

    monkeypatch.setattr(trial.denoiser.module, "forward", reads_all)
    given = {"encoder_hidden_states": torch.randn(5, 22)}
    mask = {"encoder_attention_mask": torch.tensor([1, 1, 1, 1, 0])}
    with pytest.raises(InvalidInput, match="leaves out"):
        denoiser.predict([torch.randn(11, 6, 4)], [500.0], [{**given, **mask}])


def test_a_program_that_is_not_finite_where_the_class_is_differs() -> None:
    right, wrong = torch.ones(2), torch.tensor([1.0, torch.nan])
    assert relative_error(wrong, right) == float("inf")
    assert relative_error(right, wrong) != relative_error(right, wrong)


def test_a_class_runs_captured_at_the_size_that_it_was_trained_at() -> None:
    """There PixArt reads its positions from a table, and writes nothing in place on the way."""
    model = MODELS["pixart"]
    module = model.build(64, num_layers=1)
    signature = signature_of(module)
    denoiser = captured_from(module, signature)
    sizes = signature.sized(sizes_of(model, 64))
    assert denoiser.refusal(sizes) is None
    with torch.no_grad():
        assert Trial(denoiser, signature).error([sizes]) < 1e-4
