"""Classes as black boxes: called on whole samples, of any mix of sizes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from tests.called import asked, predictions, ran
from tests.trials import BY_NAME, trial_of
from torch import Tensor, nn

import musiva
from musiva.compiler import Captured
from musiva.core.errors import CannotCapture, InvalidInput
from musiva.engine import PlainRun, Predictor, forward
from musiva.models.captured import (
    CapturedDenoiser,
    WholeDenoiser,
    altered,
    captured_from,
    signature_of,
    whole_from,
)
from musiva.models.captured.calls import data_of
from musiva.models.captured.check import relative_error
from musiva.perf.captures import NEW
from musiva.perf.catalog import ENTRIES, Entry, build

# What the classes say of themselves, of autocasts, old names and kernels.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
# Of which no program can be made.
CLOSED = (
    "HiDreamImageTransformer2DModel",
    "QwenImage21Transformer2DModel",
    "NucleusMoEImageTransformer2DModel",
)
# Minutes for a call on a CPU, of attention that wants a compiler; and the next test's.
OTHERS = ("Kandinsky6SRTransformer3DModel", "AnyFlowFARTransformer3DModel")


def whole_of(name: str) -> Predictor:
    module = build(BY_NAME[name])
    denoiser = whole_from(module, signature_of(module))
    return Predictor(denoiser)


def check(denoiser: Predictor, module: nn.Module, sizes: Sequence[dict[str, int]]) -> None:
    """To the byte: each sample is called alone."""
    given = asked(denoiser.denoiser, sizes)
    found = denoiser.predict(given.latents, given.timesteps, given.conditions)
    with torch.no_grad():
        expected = predictions(module, denoiser.signature, sizes)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", CLOSED)
def test_what_cannot_be_captured_predicts_all_the_same(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    module = build(BY_NAME[name])
    with caplog.at_level(logging.WARNING):
        denoiser = musiva.load_denoiser(module)
    assert f"{name} runs as a black box" in caplog.text
    assert isinstance(denoiser.denoiser, WholeDenoiser)
    check(denoiser, module, [denoiser.signature.sized(one) for one in NEW])


@pytest.mark.parametrize(
    "entry", [one for one in ENTRIES if one.name not in OTHERS], ids=lambda entry: entry.name
)
def test_every_class_can_be_a_black_box(entry: Entry) -> None:
    module = build(entry)
    denoiser = whole_from(module, signature_of(module))
    sizes = [denoiser.signature.sized(one) for one in NEW[:2]]
    with torch.no_grad():
        found = ran(denoiser, sizes)
        expected = predictions(module, denoiser.signature, sizes)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)


def test_a_class_that_returns_less_than_its_latent_is_refused() -> None:
    """The first frame is there to go on from."""
    module = build(BY_NAME["AnyFlowFARTransformer3DModel"])
    with pytest.raises(CannotCapture, match=r"it returns \(2, 13, 20, 32\) of a latent \[frames"):
        whole_from(module, signature_of(module))


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("SD3Transformer2DModel", True),
        ("ZImageTransformer2DModel", True),
        # The layers of its text come before the batch.
        ("HiDreamImageTransformer2DModel", False),
    ],
)
def test_samples_of_one_size_are_one_call_on_a_gpu(
    name: str, takes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = whole_of(name)
    model, calls = denoiser.denoiser, []
    assert isinstance(model, WholeDenoiser)
    assert model.together is takes
    assert model.reach == ("evaluations",)
    model.module.register_forward_hook(lambda *_: calls.append(1))
    sizes = [denoiser.signature.sized(NEW[i]) for i in (0, 1, 0)]
    with torch.no_grad():
        expected = predictions(model.module, denoiser.signature, sizes)
    calls.clear()
    monkeypatch.setattr(WholeDenoiser, "_batches", property(lambda self: self.together))
    given = asked(model, sizes)
    found = denoiser.predict(given.latents, given.timesteps, given.conditions)
    assert len(calls) == (2 if takes else 3)
    for mine, theirs in zip(found, expected, strict=True):
        assert relative_error(mine, theirs) < 1e-5


def test_words_that_a_mask_leaves_out_change_nothing() -> None:
    denoiser = whole_of("SanaTransformer2DModel")
    latent, words = torch.randn(11, 6, 4), torch.randn(5, 22)
    padded = torch.cat([words, torch.randn(3, 22)])
    mask = torch.tensor([1, 1, 1, 1, 1, 0, 0, 0])
    (short,) = denoiser.predict([latent], [500.0], [{"encoder_hidden_states": words}])
    given = {"encoder_hidden_states": padded, "encoder_attention_mask": mask}
    (long,) = denoiser.predict([latent], [500.0], [given])
    assert torch.equal(short, long)


def test_what_does_not_fit_is_named() -> None:
    denoiser = whole_of("SD3Transformer2DModel")
    given = {"encoder_hidden_states": torch.randn(5, 22), "pooled_projections": torch.randn(26)}
    with pytest.raises(InvalidInput, match="adapters"):
        denoiser.predict([torch.randn(11, 8, 8)], [1.0], [{**given, "adapters": torch.ones(1)}])
    with pytest.raises(InvalidInput, match="hidden_states"):
        denoiser.predict([torch.randn(10, 8, 8)], [1.0], [given])


def test_time_runs_backwards_where_a_pipeline_says_so() -> None:
    """1 - t goes in, and the negative of what comes out is the prediction."""
    module = build(BY_NAME["SD3Transformer2DModel"])
    plain, turned = (whole_from(module, signature_of(module), backwards=b) for b in (False, True))
    sizes = [plain.signature.sized(NEW[0])]
    pack, run = plain.pack(sizes, torch.device("cpu")), PlainRun()
    arguments = plain.signature.arguments
    sample = data_of(arguments, sizes[0], 0, torch.float32, torch.device("cpu"))
    inputs = plain.inputs(plain.lay([sample], pack))
    extra = {name: x for name, x in inputs.extra.items() if name != plain.time}
    found = []
    for model, time in ((plain, 0.75), (turned, 0.25)):
        now = replace(inputs, timestep_M=torch.full((pack.num_mod_rows,), time), extra=extra)
        with torch.no_grad():
            found.append(forward(model, now, pack, run))
    assert torch.equal(found[0], -found[1])


class Odd(nn.Module):
    """Of no class of diffusers; `what` is what makes it odd."""

    def __init__(self, what: str = "") -> None:
        super().__init__()
        self.config = {"in_channels": 4}
        self.proj = nn.Linear(4, 4)
        self.what = what

    def forward(
        self, hidden_states: Tensor, timestep: Tensor, return_dict: bool = True
    ) -> tuple[Tensor]:
        rows, columns = hidden_states.shape[-2:]
        x = hidden_states.flatten(2).transpose(1, 2)
        place = torch.arange(rows * columns, dtype=x.dtype, device=x.device)[:, None] / 10
        x = self.proj(x + place) * timestep[:, None, None]
        if self.what == "small" and rows <= 2:
            x = x * 2
        if self.what == "values" and x.mean() > 0:
            x = x + 1
        if self.what == "random":
            x = x + 0 * torch.randn_like(x)
        if self.what == "shape":
            x = x[:, 1:]
            return (x,)
        return (x.transpose(1, 2).unflatten(2, (rows, columns)),)


@pytest.mark.parametrize("what", ["values", "random"])
def test_what_no_program_can_follow_runs(what: str) -> None:
    module = Odd(what)
    denoiser = musiva.load_denoiser(module)
    assert isinstance(denoiser.denoiser, WholeDenoiser)
    sizes = [{"rows": 3, "columns": 5}, {"rows": 4, "columns": 2}]
    check(denoiser, module, sizes)


def test_what_is_not_laid_out_as_its_latent_is_refused() -> None:
    module = Odd("shape")
    with pytest.raises(CannotCapture, match=r"it returns \(39, 4\) of a latent \[4, rows, columns"):
        whole_from(module, signature_of(module))


def test_a_class_that_cannot_be_called_is_refused_with_what_it_said() -> None:
    module = build(BY_NAME["SD3Transformer2DModel"])
    module.proj_out = nn.Linear(1, 1)
    with pytest.raises(CannotCapture, match=r"SD3Transformer2DModel: a call of it: RuntimeError"):
        musiva.load_denoiser(module)


def test_a_size_at_which_the_class_does_another_thing_runs_apart(
    caplog: pytest.LogCaptureFixture,
) -> None:
    module = Odd("small")
    denoiser = musiva.load_denoiser(module)
    assert isinstance(denoiser.denoiser, CapturedDenoiser)
    sizes = [{"rows": 2, "columns": 5}, {"rows": 4, "columns": 7}, {"rows": 2, "columns": 6}]
    given = asked(denoiser.denoiser, sizes)
    with caplog.at_level(logging.WARNING):
        found = denoiser.predict(given.latents, given.timesteps, given.conditions)
    assert caplog.text.count("Odd itself is called at") == 1
    with torch.no_grad():
        expected = predictions(module, denoiser.signature, sizes)
    for mine, theirs in zip(found, expected, strict=True):
        assert relative_error(mine, theirs) < 1e-5


def test_a_refused_size_does_not_keep_others_out_of_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trial = trial_of("SD3Transformer2DModel")
    model = CapturedDenoiser(trial.denoiser.captured, trial.signature)
    denoiser = Predictor(model)
    sizes = [trial.signature.sized(one) for one in NEW]
    right, refused = Captured.places, sizes[1]["rows"]

    def places(self: Captured, at: dict[str, int]) -> object:
        if at["rows"] == refused:
            raise CannotCapture("it does another thing")
        return right(self, at)

    monkeypatch.setattr(Captured, "places", places)
    with torch.no_grad():
        expected = predictions(model.module, trial.signature, sizes)
    given = asked(model, sizes)
    denoiser.predict(given.latents, given.timesteps, given.conditions)
    # What is worked out once for a size is there now.
    calls: list[object] = []
    handle = model.module.register_forward_hook(lambda *_: calls.append(1))
    found = denoiser.predict(given.latents, given.timesteps, given.conditions)
    handle.remove()
    assert len(calls) == 1
    for mine, theirs in zip(found, expected, strict=True):
        assert relative_error(mine, theirs) < 1e-5


def hooked(module: nn.Module) -> None:
    module.transformer_blocks[1].register_forward_hook(
        lambda _, __, out: tuple(one * 1.5 for one in out)
    )


def patched(module: nn.Module) -> None:
    right = module.norm_out.forward
    module.norm_out.forward = lambda *given, **named: right(*given, **named) * 1.5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (hooked, "transformer_blocks.1 has hooks"),
        (patched, "norm_out has a forward that is not its class's"),
    ],
)
def test_what_was_put_around_calls_is_not_lost(
    change: Callable[[nn.Module], None], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain, module = (build(BY_NAME["SD3Transformer2DModel"]) for _ in range(2))
    change(module)
    with caplog.at_level(logging.WARNING):
        denoiser = musiva.load_denoiser(module)
    assert said in caplog.text
    sizes = [denoiser.signature.sized(NEW[0])]
    check(denoiser, module, sizes)
    with torch.no_grad():
        (mine,), (theirs,) = (
            predictions(one, denoiser.signature, sizes) for one in (module, plain)
        )
    assert not torch.allclose(mine, theirs)


def test_a_hooked_module_of_a_family_of_ours_keeps_its_hooks() -> None:
    module = build(BY_NAME["PixArtTransformer2DModel"])
    module.proj_out.register_forward_hook(lambda _, __, out: out * 1.5)
    denoiser = musiva.load_denoiser(module)
    assert isinstance(denoiser, Predictor)
    check(denoiser, module, [denoiser.signature.sized(NEW[0])])


def test_a_compiled_module_is_called_as_it_is() -> None:
    module = torch.compile(build(BY_NAME["SD3Transformer2DModel"]), backend="eager")
    assert altered(module) == "SD3Transformer2DModel is compiled"
    with torch.compiler.set_stance("force_eager"):
        denoiser = musiva.load_denoiser(module)
        assert "SD3Transformer2DModel is compiled" in denoiser.denoiser.out_of_reach
        check(denoiser, module, [denoiser.signature.sized(NEW[0])])
    inside = build(BY_NAME["SD3Transformer2DModel"])
    inside.transformer_blocks[0].compile(backend="eager")
    assert altered(inside) == "transformer_blocks.0 is compiled"


def test_a_class_trains_after_it_predicted() -> None:
    """Nothing that it keeps of a call (tables of positions) was made in inference mode."""
    module = build(BY_NAME["ZImageTransformer2DModel"]).requires_grad_(True)
    denoiser = whole_from(module, signature_of(module))
    sizes = [denoiser.signature.sized(NEW[0])]
    module.rope_embedder.freqs_cis = None
    check(Predictor(denoiser), module, sizes)
    (out,) = predictions(module, denoiser.signature, sizes)
    out.square().sum().backward()
    assert module.cap_embedder[1].weight.grad is not None


def test_gradients_are_those_of_the_class() -> None:
    module = build(BY_NAME["SD3Transformer2DModel"]).requires_grad_(True)
    model = whole_from(module, signature_of(module))
    sizes = [model.signature.sized(NEW[0])]
    gradients = []
    for (one,) in (ran(model, sizes), predictions(module, model.signature, sizes)):
        one.square().sum().backward()
        gradients.append(module.proj_out.weight.grad)
        module.zero_grad()
    assert torch.equal(*gradients)


def test_captured_and_whole_lay_samples_out_alike() -> None:
    """So that one can take over from the other in a pack."""
    trial = trial_of("SD3Transformer2DModel")
    model, whole = trial.denoiser, trial.denoiser.apart
    for name in ("patch", "in_channels", "out_channels", "text_width", "extra", "latent", "time"):
        assert getattr(model, name) == getattr(whole, name)
    for name, (streams, dims) in model.layouts.items():
        assert whole.layouts[name][0] == streams
        features = [[n for n in dim if isinstance(n, int)] for dim in dims]
        others = [[n for n in dim if isinstance(n, int)] for dim in whole.layouts[name][1]]
        assert features == others


def test_a_hook_is_the_reason_why_not() -> None:
    module = build(BY_NAME["SD3Transformer2DModel"])
    hooked(module)
    with pytest.raises(CannotCapture, match=r"transformer_blocks\.1 has hooks"):
        captured_from(module)
