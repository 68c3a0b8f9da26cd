"""Pipelines of which the denoiser cannot be captured: the same pictures, from the class itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from musiva.compiler import Captured
from musiva.core.errors import BadCheckpoint, CannotCapture, InvalidInput
from musiva.engine import Engine, fallback, load_pipeline
from musiva.models.captured import CapturedDenoiser, WholeDenoiser
from musiva.perf.small_pipelines import largest_error, write
from musiva.server.models import describe_model

# diffusers hands a numpy array to tensors in a way that numpy deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
WHY = "it draws random numbers"
FOX = {"prompts": "a red fox", "size": (32, 32), "steps": 6, "seed": 1}
MOUNTAIN = {"prompts": "a snowy mountain", "size": (48, 64), "steps": 5, "seed": 2}


def refuse(*_: object, **__: object) -> object:
    raise CannotCapture(WHY)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("black_box") / "sd3"
    write("sd3", path)
    return path


@pytest.fixture(scope="module")
def engine(directory: Path) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fallback, "captured_from", refuse)
        pipeline = load_pipeline(directory, device="cpu")
    assert isinstance(pipeline.denoiser, WholeDenoiser)
    with Engine(pipeline) as engine:
        yield engine


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_same_pictures_as_diffusers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fallback, "captured_from", refuse)
    with caplog.at_level(logging.WARNING):
        assert largest_error(name, tmp_path / name) <= 1e-3 + 1 / 255
    assert f"runs as a black box, without packs, tiles and gates: {WHY}" in caplog.text


def test_mixed_requests_run_together_and_keep_their_pictures(engine: Engine) -> None:
    alone = [np.asarray(engine.generate(**one)[0]) for one in (FOX, MOUNTAIN, FOX)]
    with ThreadPoolExecutor() as threads:
        together = list(threads.map(lambda one: engine.generate(**one)[0], (FOX, MOUNTAIN, FOX)))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one, np.asarray(other))


@pytest.mark.parametrize("policy", ["interval:interval=2", "interval:warmup=1,guidance=2"])
def test_whole_evaluations_are_held(engine: Engine, policy: str) -> None:
    events = list(engine.stream("a red fox", size=(32, 32), steps=8, seed=1, policy=policy))
    (picture,) = (event for event in events if event.kind == "picture")
    assert picture.cost < 8
    (dense,) = engine.generate("a red fox", size=(32, 32), steps=8, seed=1)
    assert not np.array_equal(np.asarray(dense), picture.picture)


def test_previews_come_and_change_nothing(engine: Engine) -> None:
    given = {"size": (32, 32), "steps": 6, "seed": 1}
    events = list(engine.stream("a red fox", **given, previews=2))
    assert [event.kind for event in events].count("preview") == 2
    (picture,) = (event.picture for event in events if event.kind == "picture")
    assert np.array_equal(picture, np.asarray(engine.generate(**FOX)[0]))


def test_a_request_that_is_left_frees_what_it_had(engine: Engine) -> None:
    stream = engine.stream("a red fox", size=(32, 32), steps=1000, seed=1)
    next(iter(stream))
    stream.close()
    engine.generate("a snowy mountain", size=(32, 32), steps=2)
    assert engine.num_waiting == 0
    assert engine._executor.num_slots == 0


@pytest.mark.parametrize(
    ("policy", "lacks"),
    [
        ("ras", "tiles"),
        ("refine:interval=2", "tiles"),
        ("first_block", "gates"),
        ("tea_cache", "gates"),
    ],
)
def test_what_a_black_box_cannot_do_is_refused(engine: Engine, policy: str, lacks: str) -> None:
    with pytest.raises(InvalidInput, match=f"the model has no {lacks}, since .*{WHY}") as error:
        engine.request("a red fox", policy=policy)
    assert error.value.field == "policy"
    assert "never, interval, adaptive, marked" in error.value.allowed


def test_a_quality_below_100_wants_a_calibration_as_ever(engine: Engine) -> None:
    with pytest.raises(InvalidInput, match="no calibration"):
        engine.request("a red fox", quality=80)


def test_the_server_tells_what_it_can_do(engine: Engine) -> None:
    model = describe_model(engine, created=1)
    assert model.policies == ["never", "interval", "adaptive", "marked"]
    assert model.reach == ["evaluations"]
    assert model.out_of_reach == f"it runs as a black box: {WHY}"


def test_a_class_of_which_nothing_is_known_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "signature_of", refuse)
    with pytest.raises(BadCheckpoint, match=WHY):
        load_pipeline(directory, device="cpu")


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.matrix)])
def test_a_program_that_is_wrong_gives_way_to_its_class(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, dtype: str
) -> None:
    run = Captured.run

    def wrong(self: Captured, *given: object) -> object:
        return [[x + 1 for x in several] for several in run(self, *given)]

    monkeypatch.setattr(Captured, "run", wrong)
    with caplog.at_level(logging.WARNING):
        pipeline = load_pipeline(directory, device="cpu", dtype=dtype)
    assert isinstance(pipeline.denoiser, WholeDenoiser)
    assert "differs from the class" in caplog.text

    def fails(self: Captured, *given: object) -> object:
        raise KeyError("words")

    monkeypatch.setattr(Captured, "run", fails)
    pipeline = load_pipeline(directory, device="cpu")
    assert "its program fails: KeyError" in pipeline.denoiser.out_of_reach


@pytest.mark.matrix
def test_a_program_that_rounds_otherwise_than_its_class_is_not_wrong() -> None:
    """What the model that is shipped says in low precision depends on last bits by more than what
    is told from none elsewhere.
    """
    pipeline = load_pipeline("default", device="cpu", dtype="bfloat16")
    assert isinstance(pipeline.denoiser, CapturedDenoiser)
    assert "tiles" in pipeline.denoiser.reach


def test_sizes_that_a_program_is_not_for_run_apart(
    directory: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In steps with requests of other sizes, and with policies of tiles."""
    with Engine(load_pipeline(directory, device="cpu")) as captured:
        right = [np.asarray(captured.generate(**one)[0]) for one in (FOX, MOUNTAIN)]
    places = Captured.places

    def refused(self: Captured, sizes: dict[str, int]) -> object:
        if sizes["rows"] == sizes["columns"]:
            raise CannotCapture("squares are another thing")
        return places(self, sizes)

    monkeypatch.setattr(Captured, "places", refused)
    whole = np.asarray(engine.generate(**FOX)[0])
    assert np.abs(whole.astype(int) - right[0]).max() <= 1
    with Engine(load_pipeline(directory, device="cpu")) as captured:
        assert "tiles" in captured.pipeline.denoiser.reach
        with ThreadPoolExecutor() as threads:
            fox, mountain = threads.map(
                lambda one: np.asarray(captured.generate(**one)[0]), (FOX, MOUNTAIN)
            )
        assert np.array_equal(mountain, right[1])
        assert np.array_equal(fox, whole)
        for policy in ("ras:warmup=1", "first_block:threshold=100"):
            events = list(
                captured.stream("a red fox", size=(32, 32), steps=6, seed=1, policy=policy)
            )
            (picture,) = (event for event in events if event.kind == "picture")
            assert np.array_equal(picture.picture, whole)
            assert picture.computed == 6
        captured._executor.check_integrity([])
