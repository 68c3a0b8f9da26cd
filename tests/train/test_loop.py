"""The loop on a real task at tiny size: a PixArt denoiser on packs of mixed sizes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor, nn

from musiva.core.errors import BadCheckpoint, InvalidInput, NonFinite
from musiva.core.pack import Pack
from musiva.engine.runner import PlainRun, forward
from musiva.models.base import Inputs
from musiva.models.captured import captured_from
from musiva.train import (
    Cursor,
    Draw,
    Ema,
    Loss,
    Objective,
    Optimizer,
    Order,
    Part,
    Stage,
    StepRecord,
    Trainer,
    TrainRun,
    fill_pack,
    keyed_rng,
    train,
)
from musiva.train.report import LossLog

GRIDS = ((1, 4, 4), (1, 3, 5), (1, 2, 3), (1, 5, 7))
CONFIG = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "cross_attention_dim": 16,
    "caption_channels": 12,
    "sample_size": 8,
    "patch_size": 1,
    "use_additional_conditions": False,
}


class Task:
    """Random latents and text, both keyed by the draw; `packs` a step of at most `budget` rows."""

    def __init__(
        self, *, budget: int = 80, packs: int = 2, dtype: torch.dtype = torch.float32
    ) -> None:
        torch.manual_seed(0)
        self.denoiser = captured_from(PixArtTransformer2DModel(**CONFIG).to(dtype))
        self.order = Order.Config(weights=[1.0] * 8, seed=1).build()
        self.objective = Objective.Config(base_rows=16).build()
        self.budget, self.packs, self.dtype = budget, packs, dtype
        self.plain = False
        self.poison_at: int | None = None

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        return {"denoiser": self.denoiser}

    def parts(self, cursor: Cursor, step: int) -> tuple[list[Part[list[Draw]]], Cursor]:
        parts = []
        for _ in range(self.packs):
            draws, cursor = fill_pack(self.order, cursor, self.rows_of, self.budget)
            parts.append(Part(draws, float(len(draws))))
        if step == self.poison_at:
            with torch.no_grad():
                self.denoiser.module.scale_shift_table.fill_(float("nan"))
        return parts, cursor

    def rows_of(self, draw: Draw) -> int:
        return int(np.prod(GRIDS[draw.sample % len(GRIDS)]))

    def loss(self, part: Part[list[Draw]]) -> Loss:
        rngs = [keyed_rng(1, draw, "all") for draw in part.content]
        grids = [GRIDS[draw.sample % len(GRIDS)] for draw in part.content]
        lengths = [1 + draw.sample * 3 for draw in part.content]
        rows = [int(np.prod(grid)) for grid in grids]
        times = [self.objective.time(rng, n) for rng, n in zip(rngs, rows, strict=True)]
        text = [self.normal(rng, n, 12) for rng, n in zip(rngs, lengths, strict=True)]
        clean = [self.normal(rng, n, 4) for rng, n in zip(rngs, rows, strict=True)]
        noise = [self.normal(rng, n, 4) for rng, n in zip(rngs, rows, strict=True)]
        pack = Pack.build(grids, lengths)
        rows_T = (pack.image.token_T >= 0).nonzero()[:, 0]
        owner_T = pack.image.segment_T[rows_T]
        time_S = torch.tensor(times, dtype=self.dtype)
        seen_TC, target_TC = self.objective.noised(
            torch.cat(clean), torch.cat(noise), time_S[owner_T, None]
        )
        time_M = time_S.new_zeros(pack.num_mod_rows)
        time_M[: len(times)] = 1000 * time_S
        inputs = Inputs(
            latent_TC=seen_TC.new_zeros(pack.image.num_rows, 4).index_copy(0, rows_T, seen_TC),
            timestep_M=time_M,
            text_TD=pack.gather(text, "text"),
        )
        run = PlainRun() if self.plain else TrainRun()
        prediction_TC = forward(self.denoiser, inputs, pack, run)[rows_T]
        loss_S = self.objective.loss(
            prediction_TC, target_TC, owner_T, torch.tensor(rows, dtype=torch.float32)
        )
        return Loss(loss_S.sum(), torch.stack([time_S, loss_S], dim=1))

    def normal(self, rng: np.random.Generator, rows: int, width: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal((rows, width))).to(self.dtype)


def trainer(task: Task, directory: Path, **changes: object) -> Trainer[list[Draw]]:
    values: dict = {
        "steps": 8,
        "optimizer": Optimizer.Config(lr=3e-3, warmup_steps=2),
        "ema": Ema.Config(decay=0.9),
        "checkpoint_seconds": 1e9,
    }
    return Trainer.Config(**{**values, **changes}).build(task, directory)


def records(of: Trainer[list[Draw]], stop: int | None = None) -> list[StepRecord]:
    taken = []
    with closing(of.run()) as stream:
        for record in stream:
            taken.append(record)
            if record.step + 1 == stop:
                break
    return taken


def final_bytes(directory: Path) -> dict[str, bytes]:
    (newest, *_) = sorted(directory.glob("step-*"), reverse=True)
    return {path.name: path.read_bytes() for path in newest.iterdir()}


def numbers(taken: list[StepRecord]) -> list[tuple[float, ...]]:
    return [(r.step, r.loss, r.grad_norm, r.lr, r.samples, r.epoch) for r in taken]


def gradient(task: Task, groups: list[list[Draw]]) -> list[Tensor]:
    weight = sum(map(len, groups))
    task.denoiser.zero_grad()
    for draws in groups:
        (task.loss(Part(draws, float(len(draws)))).total / weight).backward()
    return [p.grad.clone() for p in task.denoiser.parameters() if p.grad is not None]


@pytest.mark.parametrize("plain", [False, True])
def test_the_gradient_is_the_same_under_every_plan(plain: bool) -> None:
    task = Task()
    task.plain = plain
    draws = [Draw(i % 8, i // 8) for i in range(10)]
    plans = {
        "alone": [[draw] for draw in draws],
        "packed": [draws],
        "accumulated": [draws[:3], draws[3:]],
        "permuted": [draws[::-1]],
    }
    gradients = {name: gradient(task, groups) for name, groups in plans.items()}
    expected = gradients.pop("alone")
    assert len(expected) == len(list(task.denoiser.parameters()))
    for name, found in gradients.items():
        for ours, alone in zip(found, expected, strict=True):
            assert (ours - alone).abs().max() <= 1e-5 * max(1e-2, float(alone.abs().max())), name


def test_the_run_for_training_attends_as_the_plain_run_does() -> None:
    task = Task()
    part = Part([Draw(i, 0) for i in range(8)], 8.0)
    ours = task.loss(part)
    task.plain = True
    plain = task.loss(part)
    assert ours.bins is not None
    assert plain.bins is not None
    assert torch.allclose(ours.bins, plain.bins, atol=1e-5)


def test_resume_equals_a_straight_run_to_the_byte(tmp_path: Path) -> None:
    straight = records(trainer(Task(), tmp_path / "a"))
    first = records(trainer(Task(), tmp_path / "b"), stop=3)
    second = records(trainer(Task(), tmp_path / "b"), stop=5)
    third = records(trainer(Task(), tmp_path / "b"))
    assert numbers(first + second + third) == numbers(straight)
    assert final_bytes(tmp_path / "a") == final_bytes(tmp_path / "b")
    assert records(trainer(Task(), tmp_path / "a")) == []


def test_workers_change_nothing(tmp_path: Path) -> None:
    one = records(trainer(Task(packs=3), tmp_path / "a", steps=3))
    three = records(trainer(Task(packs=3), tmp_path / "b", steps=3, workers=3))
    assert numbers(one) == numbers(three)
    a, b = final_bytes(tmp_path / "a"), final_bytes(tmp_path / "b")
    assert all(
        a[name] == b[name] for name in ("model.safetensors", "ema.safetensors", "optim.safetensors")
    )


def test_a_kill_between_saves_repeats_the_lost_steps(tmp_path: Path) -> None:
    straight = records(trainer(Task(), tmp_path / "a"))
    killed = trainer(Task(), tmp_path / "b", checkpoint_seconds=0.0)
    stream = killed.run()
    taken = [next(stream) for _ in range(4)]
    killed.save = lambda: tmp_path  # type: ignore[method-assign]  # a killed process saves nothing on its way out
    stream.close()
    again = records(trainer(Task(), tmp_path / "b"))
    assert again[0].step == 3  # the fourth step was never saved
    assert numbers(taken[:3] + again) == numbers(straight)
    assert final_bytes(tmp_path / "a") == final_bytes(tmp_path / "b")


def test_it_learns(tmp_path: Path) -> None:
    taken = records(trainer(Task(budget=200, packs=1), tmp_path, steps=100))
    assert sum(r.loss for r in taken[-8:]) < 0.95 * sum(r.loss for r in taken[:8])


def test_a_loss_that_is_not_a_number_stops_the_run_and_is_not_saved(tmp_path: Path) -> None:
    records(trainer(Task(), tmp_path), stop=3)
    task = Task()
    task.poison_at = 5
    with pytest.raises(NonFinite, match="step 5"):
        records(trainer(task, tmp_path))
    resumed = trainer(Task(), tmp_path)
    assert resumed.resume()
    assert resumed.step == 3


def test_ema_follows_the_weights_and_gives_them_back() -> None:
    weight = nn.Parameter(torch.zeros(3))
    ema = Ema.Config(decay=0.5).build({"w": weight})
    with torch.no_grad():
        weight.fill_(1.0)
    ema.update(0)  # the first average is short: decay 1 / 10
    assert torch.allclose(ema.state()["w"], torch.full((3,), 0.9))
    ema.update(100)
    assert torch.allclose(ema.state()["w"], torch.full((3,), 0.95))
    with ema.applied():
        assert torch.allclose(weight, torch.full((3,), 0.95))
    assert torch.equal(weight, torch.ones(3))
    with pytest.raises(BadCheckpoint, match="shape"):
        ema.load_state({"w": torch.zeros(2)})


def test_optimizer_matches_torch_and_clips() -> None:
    ours = {"w": nn.Parameter(torch.ones(2, 2)), "b": nn.Parameter(torch.ones(2))}
    theirs = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))]
    optimizer = Optimizer.Config(lr=0.1, warmup_steps=0, weight_decay=0.5, clip_norm=1.0).build(
        ours
    )
    groups = [
        {"params": theirs[:1], "weight_decay": 0.5},
        {"params": theirs[1:], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.99))
    for step in range(3):
        for mine, other in zip(ours.values(), theirs, strict=True):
            mine.grad = torch.full_like(mine, 3.0 + step)
            other.grad = torch.full_like(other, 3.0 + step) / ((3.0 + step) * 6**0.5)
        norm, _ = optimizer.step(step)
        reference.step()
        assert norm == pytest.approx((3.0 + step) * 6**0.5)
    for mine, other in zip(ours.values(), theirs, strict=True):
        assert torch.allclose(mine, other, atol=1e-5)


def test_rate() -> None:
    weight = {"w": nn.Parameter(torch.ones(2))}
    optimizer = Optimizer.Config(lr=1e-2, warmup_steps=4, decay_steps=(10, 20)).build(weight)
    rates = [optimizer.lr_at(step) for step in (0, 3, 10, 15, 20, 30)]
    assert rates == pytest.approx([0.25e-2, 1e-2, 1e-2, 0.5e-2, 0.0, 0.0])


@pytest.mark.parametrize(
    ("field", "build"),
    [
        ("lr", lambda: Optimizer.Config(lr=0.0).build({})),
        ("warmup_steps", lambda: Optimizer.Config(lr=0.1, warmup_steps=-1).build({})),
        ("decay_steps", lambda: Optimizer.Config(lr=0.1, decay_steps=(5, 5)).build({})),
        ("clip_norm", lambda: Optimizer.Config(lr=0.1, clip_norm=float("nan")).build({})),
        ("decay", lambda: Ema.Config(decay=1.0).build({})),
        ("steps", lambda: trainer(Task(), Path(), steps=0)),
        ("workers", lambda: trainer(Task(), Path(), workers=0)),
        ("kind", lambda: Objective.Config(kind="x").build()),  # type: ignore[arg-type]
        ("time_std", lambda: Objective.Config(time_std=0.0).build()),
    ],
)
def test_bad_settings_are_named(field: str, build) -> None:
    with pytest.raises(InvalidInput) as error:
        build()
    assert error.value.field == field


def test_the_log_does_not_count_repeated_steps_twice(tmp_path: Path) -> None:
    def record(step: int) -> StepRecord:
        return StepRecord(
            step=step,
            loss=float(step),
            grad_norm=1.0,
            lr=0.1,
            samples=2.0,
            seconds=0.5,
            epoch=0,
            bins=((0.1, 3.0),),
        )

    path = tmp_path / "loss.jsonl"
    log = LossLog(path, every=2)
    for step in range(6):
        log.add(record(step))
    again = LossLog(path, every=2)
    for step in range(2, 8):
        again.add(record(step))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 3, 5, 7]
    assert lines[1]["loss"] == 2.5
    assert lines[1]["per_second"] == 4.0
    assert lines[1]["bins"] == [3.0, None, None, None, None]
    again.draw(tmp_path / "loss.svg")
    assert "t 0.0 to 0.2" in (tmp_path / "loss.svg").read_text()


def test_a_stage_logs_draws_resumes_and_finishes(tmp_path: Path) -> None:
    class Config:
        def build(self) -> Task:
            return Task()

    finished: list[int] = []
    stage = Stage(
        name="tiny",
        directory=tmp_path / "run",
        task=Config(),
        trainer=Trainer.Config(
            steps=8, optimizer=Optimizer.Config(lr=1e-3), ema=Ema.Config(), workers=2
        ),
        finish=lambda trainer: finished.append(trainer.step),
        log_every=2,
    )
    subnormal, threads = sys.float_info.min / 2, torch.get_num_threads()
    with closing(train(stage)) as lines:
        assert [next(lines)["step"] for _ in range(2)] == [1, 3]
        assert subnormal * 1.0 == 0.0
    assert subnormal * 1.0 != 0.0
    assert torch.get_num_threads() == threads
    assert finished == []
    assert [line["step"] for line in train(stage)] == [5, 7]
    assert finished == [8]
    assert list(train(stage)) == []
    logged = [json.loads(line) for line in (tmp_path / "run/loss.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged] == [1, 3, 5, 7]
    assert (tmp_path / "run/loss.svg").read_text().startswith("<svg")


def test_an_interrupt_inside_an_update_saves_nothing_halfway(tmp_path: Path) -> None:
    straight = records(trainer(Task(), tmp_path / "a"))
    records(trainer(Task(), tmp_path / "b"), stop=3)
    cut = trainer(Task(), tmp_path / "b")
    update = cut.ema.update

    def interrupted(step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt
        update(step)

    cut.ema.update = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        records(cut)
    assert numbers(records(trainer(Task(), tmp_path / "b"))) == numbers(straight)[3:]
    assert final_bytes(tmp_path / "a") == final_bytes(tmp_path / "b")
