"""The engine end to end on a tiny real model: what holds whoever else is in the pack, and what
fails alone.
"""

from __future__ import annotations

import threading
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from musiva.client import options_from
from musiva.core.errors import (
    Cancelled,
    InvalidInput,
    NonFinite,
    Overloaded,
    Unavailable,
    UnknownModel,
)
from musiva.core.types import Event, Kind, Request, StepPlan, StepResult
from musiva.engine import Engine, InlineExecutor, Intake, Scheduler, StepLoop, load_pipeline
from musiva.engine.pipeline import Pipeline


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


class Recorder:
    """Collects plans and, after each denoising step, every sample's latent."""

    def __init__(self) -> None:
        self.plans: list[StepPlan] = []
        self.results: list[StepResult] = []

    def __call__(self, plan: StepPlan, result: StepResult) -> None:
        self.plans.append(plan)
        self.results.append(result)


REQUESTS = (
    {"prompt": "a red fox", "size": (64, 48), "steps": 7, "seed": 3, "guidance": 4.0},
    {"prompt": "a blue whale", "size": (32, 32), "steps": 3, "seed": 4, "guidance": 1.0},
    {
        "prompt": "two green apples",
        "size": (96, 64),
        "steps": 5,
        "seed": 5,
        "guidance": 2.0,
        "sampler": "euler",
        "policy": "interval:interval=2,warmup=1,order=0,guidance=2",
    },
    {
        "prompt": "an old bicycle",
        "size": (32, 64),
        "steps": 4,
        "seed": 6,
        "negative_prompt": "a table",
    },
    {
        "prompt": "a red fox",
        "size": (64, 48),
        "steps": 6,
        "seed": 9,
        "num_images": 2,
        "sampler": "heun",
        "policy": "interval:interval=2,warmup=4,order=2",
    },
)


def build_loop(pipeline: Pipeline, *, max_rows: int = 4096) -> tuple[StepLoop, Intake]:
    """A loop to step by hand, and what checks requests for it."""
    scheduler = Scheduler.Config(max_rows=max_rows).build()
    loop = StepLoop(InlineExecutor(pipeline), scheduler, Recorder())
    return loop, Intake(pipeline, tariff=scheduler.tariff)


def submit(loop: StepLoop, front: Intake, i: int) -> str:
    request = front.request(**REQUESTS[i], request_id=f"r{i}")
    admit(loop, front, request)
    return request.id


def admit(loop: StepLoop, front: Intake, request: Request) -> None:
    policies, trip = front.policies_of(request), front.trip_of(request)
    loop.submit(request, policies=policies, trip=trip, rows=front.rows_of(request))


def run(loop: StepLoop, pictures: dict[str, np.ndarray], steps: int | None = None) -> None:
    while steps is None or steps > 0:
        events = loop.step()
        if events is None:
            return
        pictures |= {f"{e.request}/{e.index}": e.picture for e in events if e.kind == "picture"}
        steps = None if steps is None else steps - 1


@pytest.fixture(scope="module")
def alone(pipeline: Pipeline) -> dict[str, np.ndarray]:
    pictures: dict[str, np.ndarray] = {}
    for i in range(len(REQUESTS)):
        loop, front = build_loop(pipeline)
        submit(loop, front, i)
        run(loop, pictures)
    return pictures


# Order of arrival, steps between arrivals, rows that fit into a pack.
ARRIVALS = [
    ((0, 1, 2, 3, 4), 0, 4096),
    ((4, 2, 0, 3, 1), 2, 512),
    ((3, 1, 4, 0, 2), 1, 1),
    *(
        pytest.param(order, gap, max_rows, marks=pytest.mark.matrix)
        for gap, max_rows in ((0, 700), (1, 4096), (3, 300))
        for order in list(permutations(range(5)))[::11]
    ),
]


@pytest.mark.parametrize(("order", "gap", "max_rows"), ARRIVALS)
def test_pictures_do_not_depend_on_neighbours(
    pipeline: Pipeline, alone, order, gap: int, max_rows: int
) -> None:
    """Requests that join at different steps, in any order, in packs of any size: the same bytes as
    alone.
    """
    loop, front = build_loop(pipeline, max_rows=max_rows)
    pictures: dict[str, np.ndarray] = {}
    for i in order:
        submit(loop, front, i)
        run(loop, pictures, gap)
    run(loop, pictures)
    assert pictures.keys() == alone.keys()
    for name, picture in pictures.items():
        assert np.array_equal(picture, alone[name]), name
    mixed = [len(p.items) for p in loop._observe.plans if p.kind is Kind.DENOISE]
    assert max_rows == 1 or max(mixed) > 2


def test_pictures_of_a_request_differ_and_have_their_size(alone) -> None:
    assert alone["r0/0"].shape == (48, 64, 3)
    assert alone["r0/0"].std() > 1
    assert not np.array_equal(alone["r4/0"], alone["r4/1"])


def test_picture_i_uses_seed_plus_i(pipeline: Pipeline, alone) -> None:
    loop, front = build_loop(pipeline)
    request = front.request(**{**REQUESTS[4], "num_images": 1, "seed": 10}, request_id="next")
    admit(loop, front, request)
    pictures: dict[str, np.ndarray] = {}
    run(loop, pictures)
    assert np.array_equal(pictures["next/0"], alone["r4/1"])


def test_recorded_plans_replay_to_the_same_bytes(pipeline: Pipeline, alone) -> None:
    loop, front = build_loop(pipeline)
    for i in (2, 0, 4):
        submit(loop, front, i)
        loop.step()
    run(loop, {})
    executor = InlineExecutor(pipeline)
    replayed = {}
    for plan in loop._observe.plans:
        result = executor.execute(plan)
        for item, outcome in zip(plan.items, result.outcomes, strict=True):
            if outcome.picture is not None:
                replayed[item.sample] = outcome.picture
    assert len(replayed) == 4
    for name, picture in replayed.items():
        assert np.array_equal(picture, alone[name]), name


def test_cancel_at_any_step_frees_all_slots_and_disturbs_no_one(pipeline: Pipeline, alone) -> None:
    for steps in range(1, 12, 2):
        loop, front = build_loop(pipeline)
        victim, other = submit(loop, front, 0), submit(loop, front, 2)
        pictures: dict[str, np.ndarray] = {}
        run(loop, pictures, steps)
        loop.cancel(victim)
        run(loop, pictures)
        assert loop.executor.num_slots == 0
        assert np.array_equal(pictures[f"{other}/0"], alone[f"{other}/0"])


def test_a_sample_that_is_not_a_number_fails_alone(pipeline: Pipeline, alone) -> None:
    loop, front = build_loop(pipeline)
    victim, other = submit(loop, front, 0), submit(loop, front, 2)
    pictures: dict[str, np.ndarray] = {}
    run(loop, pictures, 3)
    slot = loop.executor._slots[f"{victim}/0"]
    slot.latent_LC = torch.full_like(slot.latent_LC, torch.nan)
    failed: list[Event] = []
    while (events := loop.step()) is not None:
        failed += [e for e in events if e.kind == "failed"]
        pictures |= {f"{e.request}/{e.index}": e.picture for e in events if e.kind == "picture"}
    assert [e.request for e in failed] == [victim]
    assert isinstance(failed[0].error, NonFinite)
    assert np.array_equal(pictures[f"{other}/0"], alone[f"{other}/0"])
    assert loop.executor.num_slots == 0


def test_threads_share_packs_and_get_the_same_pictures(pipeline: Pipeline, alone) -> None:
    recorder, results = Recorder(), {}
    with Engine(pipeline, observe=recorder) as engine:

        def work(i: int) -> None:
            options = {k: v for k, v in REQUESTS[i].items() if k != "prompt"}
            results[i] = engine.generate(REQUESTS[i]["prompt"], **options)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(REQUESTS))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i, pictures in results.items():
        for j, picture in enumerate(pictures):
            assert np.array_equal(np.asarray(picture), alone[f"r{i}/{j}"])


def test_given_latents_replace_the_noise(tiny_engine: Engine) -> None:
    shape = tiny_engine.pipeline.latent_shape((32, 48))
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    by_seed, given = (
        tiny_engine.generate("a red fox", size=(32, 48), steps=3, **kind)
        for kind in ({"seed": 7}, {"seed": 8, "latents": [noise]})
    )
    assert np.array_equal(np.asarray(by_seed[0]), np.asarray(given[0]))
    with pytest.raises(InvalidInput, match=r"latents\[0\]"):
        tiny_engine.generate("a red fox", size=(32, 32), latents=[noise])
    with pytest.raises(InvalidInput, match="one per picture"):
        tiny_engine.generate("a red fox", size=(32, 48), latents=[noise, noise])


def test_the_parameters_of_a_picture_give_it_again(tiny_engine: Engine) -> None:
    said = {"size": (32, 48), "steps": 3, "seed": 7, "num_images": 2, "negative_prompt": "snow"}
    body = tiny_engine.parameters(tiny_engine.request("a red fox", **said), 1)
    prompt, options = options_from(body)
    assert (options.pop("model"), options["seed"], body["size"]) == ("tiny", 8, "32x48")
    again, second = tiny_engine.generate(prompt, **options), tiny_engine.generate(prompt, **said)[1]
    assert np.array_equal(np.asarray(again[0]), np.asarray(second))


def test_streams_progress_then_the_picture(tiny_engine: Engine) -> None:
    events = list(tiny_engine.stream("a red fox", steps=5, seed=1))
    assert [e.kind for e in events] == ["progress"] * 5 + ["picture", "done"]
    assert [e.evaluation for e in events[:5]] == [1, 2, 3, 4, 5]


def test_leaving_a_stream_early_cancels_it(tiny_engine: Engine) -> None:
    stream = tiny_engine.stream("a red fox", steps=1000, seed=1)
    next(iter(stream))
    stream.close()
    tiny_engine.generate("a blue whale", steps=2)
    assert tiny_engine.num_waiting == 0


def test_closing_cancels_what_runs(tiny_model: Path) -> None:
    engine = Engine.load(tiny_model)
    stream = engine.stream("a red fox", steps=1000)
    next(iter(stream))
    engine.close()
    with pytest.raises(Cancelled):
        list(stream)
    with pytest.raises(Unavailable):
        engine.generate("a red fox")


def test_a_full_queue_says_so(pipeline: Pipeline) -> None:
    with Engine(pipeline, Engine.Config(max_waiting=1)) as engine:
        stream = engine.stream("a red fox", steps=1000)
        with pytest.raises(Overloaded, match="at most 1 may"):
            engine.generate("a blue whale")
        stream.close()


def test_a_listener_that_raises_harms_only_itself(
    tiny_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def listener(event: Event) -> None:
        raise RuntimeError("no")

    tiny_engine.submit(tiny_engine.request("a red fox", steps=2), listener)
    assert len(tiny_engine.generate("a blue whale", steps=4)) == 1
    assert "its listener failed" in caplog.text


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "  \n"}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": "fox " * 5000}, "prompt"),
        ({"negative_prompt": "fox " * 5000}, "negative_prompt"),
        ({"size": (33, 32)}, "size"),
        ({"size": (0, 32)}, "size"),
        ({"size": (4096, 32)}, "size"),
        ({"steps": 0}, "steps"),
        ({"steps": 10**9}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"guidance": float("nan")}, "guidance"),
        ({"guidance": "high"}, "guidance"),
        ({"num_images": 0}, "num_images"),
        ({"num_images": 9}, "num_images"),
        ({"quality": 80}, "quality"),
        ({"sampler": "magic"}, "sampler"),
        ({"spacing": "magic"}, "spacing"),
        ({"shift": 0.0}, "shift"),
    ],
)
def test_bad_input_names_field_value_and_range(
    tiny_engine: Engine, options: dict, field: str
) -> None:
    with pytest.raises(InvalidInput, match=f"^{field}: got .*; allowed: ") as error:
        tiny_engine.request(**{"prompt": "a red fox", **options})
    assert error.value.field == field


def test_unknown_models_are_named() -> None:
    with pytest.raises(UnknownModel, match="no-such-model"):
        Engine.load("no-such-model")
