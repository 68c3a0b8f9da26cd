"""Sequence parallel forms: several ranks give what one gives, and send what the formulas say."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from threading import Lock

import pytest
import torch
from torch import Tensor

from musiva.comm import Group, in_threads, launch
from musiva.core.errors import InvalidInput
from musiva.core.pack import Pack
from musiva.engine.paged import PagedRun
from musiva.engine.runner import PlainRun, forward
from musiva.models import Denoiser, Inputs
from musiva.models.captured import CapturedDenoiser
from musiva.parallel import Form, SequenceRun
from musiva.perf.benches.parallel_exact import error_of
from musiva.perf.captures import LARGE, NEW, some_tokens
from musiva.store import Store
from tests.contract.denoisers import CHANNELS, HEADS, TEXT, WIDTH, build
from tests.trials import trial_of

GRIDS = {
    "cross": [(1, 5, 7), (1, 8, 4)],
    "joint": [(1, 5, 7), (1, 8, 4)],
    "video": [(5, 4, 3), (3, 2, 7)],
    "unet": [(1, 8, 5), (1, 12, 4)],
}
WORDS = [7, 5]
# What is divided, by model: words too where they go through the blocks.
STREAMS = {"joint": ("image", "text")}


# Weights are drawn with the generator of the whole process.
BUILDING = Lock()


def built(name: str) -> Denoiser:
    with BUILDING:
        return build(name)


def inputs_of(model: Denoiser, pack: Pack) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    volume = model.patch[0] * CHANNELS
    return Inputs(
        latent_TC=torch.randn(pack.image.num_rows, volume, generator=generator),
        timestep_M=torch.linspace(100, 900, pack.num_mod_rows),
        text_TD=torch.randn(pack.streams["text"].num_rows, TEXT, generator=generator),
    )


def taken(inputs: Inputs, part: Pack, on_rows: frozenset[str] = frozenset()) -> Inputs:
    """Of the rows of a part."""
    image_T = part.image.source_T
    assert inputs.text_TD is not None
    extra = {n: x[image_T] if n in on_rows else x for n, x in inputs.extra.items()}
    text_TD = inputs.text_TD[part.streams["text"].source_T]
    return replace(inputs, latent_TC=inputs.latent_TC[image_T], text_TD=text_TD, extra=extra)


def real(x_TC: Tensor, pack: Pack) -> Tensor:
    return torch.cat(pack.split(x_TC))


@torch.no_grad()
def contract(group: Group, name: str, form: Form, forwards: int = 2) -> tuple[Tensor, int]:
    """The prediction of a rank, and the bytes that it sent in the last forward."""
    model = built(name)
    pack = Pack.build(GRIDS[name], WORDS)
    align = 2 if name == "unet" else 1
    streams = STREAMS.get(name, ("image",))
    run = SequenceRun(PlainRun(), group, form=form, streams=streams, align=align)
    part = run.part(pack)
    inputs = taken(inputs_of(model, pack), part)
    found = torch.zeros(0)
    for _ in range(forwards):
        group.sent_bytes = 0
        found = forward(model, inputs, part, run)
    sent_bytes = group.sent_bytes
    return real(run.joined(found, part), pack), sent_bytes


@torch.no_grad()
def alone(name: str) -> Tensor:
    model, pack = built(name), Pack.build(GRIDS[name], WORDS)
    return real(forward(model, inputs_of(model, pack), pack, PlainRun()), pack)


FORMS: list[tuple[str, Form]] = [
    ("cross", "ulysses"),
    ("joint", "ulysses"),
    ("video", "ulysses"),
    ("video", "dynamic"),
    ("unet", "ulysses"),
    ("cross", "patch"),
    ("joint", "patch"),
    ("video", "patch"),
]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize(("name", "form"), FORMS)
def test_ranks_give_what_one_gives(name: str, form: Form, size: int) -> None:
    expected = alone(name)
    for found, _ in in_threads(contract, size, name, form):
        assert (found - expected).abs().max() < 1e-5


def test_processes_give_what_threads_give() -> None:
    threads, processes = (start(contract, 2, "video", "dynamic") for start in (in_threads, launch))
    for (mine, sent), (theirs, also_sent) in zip(threads, processes, strict=True):
        assert torch.equal(mine, theirs)
        assert sent == also_sent > 0


def test_more_ranks_than_heads() -> None:
    assert HEADS < 4
    for found, _ in in_threads(contract, 4, "cross", "ulysses"):
        assert (found - alone("cross")).abs().max() < 1e-5


def bytes_of(grids: list[tuple[int, int, int]]) -> int:
    """M: of the activations of all rows."""
    return sum(f * h * w for f, h, w in grids) * WIDTH * 4


def test_ulysses_sends_what_its_formula_says(monkeypatch: pytest.MonkeyPatch) -> None:
    size, grids = 2, [(1, 4, 8), (1, 2, 2)]
    monkeypatch.setitem(GRIDS, "cross", grids)
    # Two blocks, in each of which the image attends to itself; words are whole on every rank.
    expected = 2 * 4 * bytes_of(grids) * (size - 1) // size**2
    assert [sent for _, sent in in_threads(contract, size, "cross", "ulysses")] == [expected] * size


def test_patch_sends_keys_and_values_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    size, grids = 3, [(1, 4, 9), (1, 2, 3)]
    monkeypatch.setitem(GRIDS, "cross", grids)
    # Two blocks.
    expected = 2 * 2 * bytes_of(grids) * (size - 1) // size
    assert [sent for _, sent in in_threads(contract, size, "cross", "patch")] == [expected] * size


def test_dynamic_sends_half_of_it_for_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    size, grids = 2, [(4, 2, 3), (2, 2, 2)]
    monkeypatch.setitem(GRIDS, "video", grids)
    # One block of the three attends in columns.
    expected = 2 * bytes_of(grids) * (size - 1) // size**2
    found = in_threads(contract, size, "video", "dynamic")
    assert [sent for _, sent in found] == [expected] * size
    first = in_threads(contract, size, "video", "dynamic", 1)
    assert [sent for _, sent in first] == [2 * expected] * size


class Holding(PlainRun):
    """Keeps what one branch gave first."""

    def __init__(self, site: str) -> None:
        super().__init__()
        self.site, self.kept = site, None

    def branch(self, site, fn, x, pack):
        if site != self.site:
            return super().branch(site, fn, x, pack)
        if self.kept is None:
            self.kept = super().branch(site, fn, x, pack)
        return self.kept


@torch.no_grad()
def held(group: Group) -> int:
    """Bytes of a forward in which the branch that attends in columns is held."""
    model, pack = built("video"), Pack.build([(4, 2, 3)], [5])
    run = SequenceRun(Holding("block.1.attn"), group, form="dynamic")
    part = run.part(pack)
    inputs = taken(inputs_of(model, pack), part)
    for _ in range(2):
        group.sent_bytes = 0
        forward(model, inputs, part, run)
    return group.sent_bytes


def test_a_branch_that_is_held_sends_nothing() -> None:
    assert in_threads(held, 2) == [0, 0]


def test_too_many_ranks_are_told() -> None:
    with pytest.raises(InvalidInput, match="6 ranks"):
        in_threads(contract, 6, "video", "dynamic", 1)


CAPTURED: list[tuple[str, Form, tuple[str, ...]]] = [
    ("PixArtTransformer2DModel", "ulysses", ("image",)),
    ("SD3Transformer2DModel", "ulysses", ("image", "text")),
    ("FluxTransformer2DModel", "ulysses", ("image", "text")),
    ("SanaTransformer2DModel", "ulysses", ("image",)),
    ("WanTransformer3DModel", "ulysses", ("image",)),
    ("LatteTransformer3DModel", "ulysses", ("image",)),
    ("LatteTransformer3DModel", "dynamic", ("image",)),
    ("PixArtTransformer2DModel", "patch", ("image",)),
    ("SD3Transformer2DModel", "patch", ("image", "text")),
    ("SanaTransformer2DModel", "patch", ("image",)),
    ("LatteTransformer3DModel", "patch", ("image",)),
]


@torch.no_grad()
def captured(group: Group, name: str, form: Form, streams: tuple[str, ...]) -> Tensor:
    trial = trial_of(name)
    denoiser, sizes = trial.denoiser, trial.signature.sized(NEW[0])
    pack = denoiser.captured.pack([sizes])
    run = SequenceRun(PlainRun(), group, form=form, streams=streams)
    part = run.part(pack)
    inputs = taken(trial.inputs(pack, sizes, 0), part, on_rows(denoiser))
    found = torch.zeros(0)
    for _ in range(2):
        found = forward(denoiser, inputs, part, run)
    return real(run.joined(found, part), pack)


def on_rows(denoiser: CapturedDenoiser) -> frozenset[str]:
    inputs = denoiser.captured.program.inputs
    return frozenset(name for name, (_, streams, _) in inputs.items() if streams == ("image",))


@pytest.mark.parametrize(("name", "form", "streams"), CAPTURED)
def test_captured_models_give_what_one_rank_gives(
    name: str, form: Form, streams: tuple[str, ...]
) -> None:
    trial = trial_of(name)
    sizes = trial.signature.sized(NEW[0])
    pack = trial.denoiser.captured.pack([sizes])
    with torch.no_grad():
        inputs = trial.inputs(pack, sizes, 0)
        expected = real(forward(trial.denoiser, inputs, pack, PlainRun()), pack)
    run = partial(captured, name=name, form=form, streams=streams)
    for found in in_threads(run, 2):
        assert (found - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))


@torch.no_grad()
def tiles_of(group: Group, name: str, streams: tuple[str, ...], form: Form = "ulysses") -> Tensor:
    """A forward of a quarter of the tiles, behind one of all that keeps pages."""
    trial = trial_of(name)
    sizes = trial.signature.sized(LARGE)
    complete = trial.denoiser.captured.pack([sizes], owners=["sample"])
    some = some_tokens(complete.image.segments[0].grid)
    inner = PagedRun(Store.Config(budget_bytes=1 << 28).build())
    run = SequenceRun(inner, group, form=form, streams=streams)
    found = torch.zeros(0)
    for version, pack in enumerate((complete, complete.take({"image": [some]}))):
        part = run.part(pack) if group.size > 1 else pack
        given = taken(trial.inputs(complete, sizes, version), part, on_rows(trial.denoiser))
        with inner.begin(pack, {"sample": version}):
            found = forward(trial.denoiser, given, part, run if group.size > 1 else inner)
        found = real(run.joined(found, part) if group.size > 1 else found, pack)
    inner.store.check_integrity()
    return found


@pytest.mark.parametrize("form", ["ulysses", "patch"])
@pytest.mark.parametrize(
    ("name", "streams"),
    [
        ("SanaTransformer2DModel", ("image",)),
        ("PixArtTransformer2DModel", ("image",)),
        ("SD3Transformer2DModel", ("image", "text")),
    ],
)
def test_ranks_give_what_one_gives_of_some_tiles(
    name: str, streams: tuple[str, ...], form: Form
) -> None:
    """Linear attention and convolutions too, of which every rank keeps what absent rows have."""
    (expected,) = in_threads(partial(tiles_of, name=name, streams=streams), 1)
    for found in in_threads(partial(tiles_of, name=name, streams=streams, form=form), 2):
        assert (found - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))


def test_halves_give_what_one_rank_gives_of_a_captured_model() -> None:
    """Of a guided sample, a branch on each half; as the bench has it."""
    assert error_of(trial_of("SD3Transformer2DModel"), "branches+ulysses", 4) < 1e-5
