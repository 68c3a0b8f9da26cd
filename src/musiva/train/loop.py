"""The training loop: a generator of step records, so that the caller owns logging, stopping and
showing.

    trainer = config.build()
    for record in trainer.run():
        print(record)

Running it again after a kill continues from the newest valid checkpoint, to the byte on the same
machine.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from musiva.core.errors import BadCheckpoint, InvalidInput, NonFinite
from musiva.train.checkpoint import Checkpoint, load_latest, save_checkpoint
from musiva.train.data import Cursor
from musiva.train.ema import Ema
from musiva.train.optim import Optimizer

__all__ = ["Loss", "Part", "StepRecord", "Task", "Trainer"]

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Part(Generic[P]):
    """What runs in one forward and backward: `content` is the task's own, `weight` its share
    (samples).
    """

    content: P
    weight: float


@dataclass(frozen=True, slots=True)
class Loss:
    """`total` is the sum, not the mean, over the samples of a part; `bins` are (time, loss) pairs
    to report.
    """

    total: Tensor
    bins: Tensor | None = None


class Task(Protocol[P]):
    """What is trained and on what. Nothing about it changes but its modules' weights."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The modules to train, by name."""
        ...

    def parts(self, cursor: Cursor, step: int) -> tuple[Sequence[Part[P]], Cursor]:
        """The parts of step `step` (host only, deterministic) and the cursor behind them."""
        ...

    def loss(self, part: Part[P]) -> Loss:
        """Run the modules on one part. Called from several threads at once when there are
        `workers`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What happened in one step; `bins` are (time, loss) pairs, `seconds` its own wall time."""

    step: int
    loss: float
    grad_norm: float
    lr: float
    samples: float
    seconds: float
    epoch: int
    bins: tuple[tuple[float, float], ...]


class Trainer(Generic[P]):
    """Weights, optimiser, average and cursor of one run, and the loop over its steps."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """`workers`: threads that run the parts of a step side by side. Two of them with one kernel
        thread each (`threads`) are a little faster than one with two, and far faster beside other
        programs: nothing waits at the end of every kernel. The gradient is the same to the byte
        for any number of workers.
        """

        steps: int
        optimizer: Optimizer.Config
        ema: Ema.Config
        workers: int = 1
        threads: int = 1
        checkpoint_seconds: float = 150.0
        keep_checkpoints: int = 2

        def build(self, task: Task[P], directory: Path) -> Trainer[P]:
            """Wire a trainer that keeps its checkpoints below `directory`. Raises InvalidInput."""
            return Trainer(self, task, directory)

    def __init__(self, config: Config, task: Task[P], directory: Path) -> None:
        for field in ("steps", "workers", "threads", "keep_checkpoints"):
            if getattr(config, field) < 1:
                raise InvalidInput(field, getattr(config, field), "at least 1")
        self.config = config
        self.task = task
        self.directory = directory
        self.step = 0
        self._halfway = False
        self.cursor = Cursor()
        parameters = {
            f"{name}.{key}": parameter
            for name, module in task.modules.items()
            for key, parameter in module.named_parameters()
        }
        self._parameters = parameters
        self.optimizer = config.optimizer.build(parameters)
        self.ema = config.ema.build(parameters)

    def resume(self) -> bool:
        """Continue from the newest valid checkpoint; False when there is none. Raises
        BadCheckpoint.
        """
        checkpoint = load_latest(self.directory)
        if checkpoint is None:
            return False
        self._load_model(checkpoint.groups["model"])
        self.ema.load_state(checkpoint.groups["ema"])
        self.optimizer.load_state(checkpoint.groups["optim"])
        self.cursor = Cursor(**checkpoint.state["cursor"])  # type: ignore[arg-type]
        self.step = checkpoint.step
        return True

    def restart(self, step: int) -> None:
        """Take the modules' weights, wherever they came from, as this run's at `step`: the average
        starts from them, the optimiser afresh. Raises InvalidInput.
        """
        if step < 0:
            raise InvalidInput("step", step, "at least 0")
        self.step = step
        self.ema = self.config.ema.build(self._parameters)

    def save(self) -> Path:
        """Write a checkpoint of this moment."""
        groups = {
            "model": self._parameters,
            "ema": self.ema.state(),
            "optim": self.optimizer.state(),
        }
        state = {"cursor": asdict(self.cursor), "config": repr(self.config)}
        checkpoint = Checkpoint(step=self.step, groups=groups, state=state)
        return save_checkpoint(self.directory, checkpoint, keep=self.config.keep_checkpoints)

    def run(self) -> Generator[StepRecord, None, None]:
        """Resume, then train to the last step; checkpoints by time, at the end and when closed.

        Raises NonFinite when a loss or gradient is not a number: the last checkpoint is then still
        good.
        """
        self.resume()
        saved_at = time.monotonic()
        saved_step = self.step
        pool = ThreadPoolExecutor(
            self.config.workers, initializer=_prepare_thread, initargs=(self.config.threads,)
        )
        try:
            while self.step < self.config.steps:
                yield self._one_step(pool)
                if time.monotonic() - saved_at > self.config.checkpoint_seconds:
                    self.save()
                    saved_at, saved_step = time.monotonic(), self.step
        finally:
            pool.shutdown()
            if saved_step != self.step and not self._halfway:
                self.save()

    def _one_step(self, pool: ThreadPoolExecutor) -> StepRecord:
        started = time.perf_counter()
        parts, behind = self.task.parts(self.cursor, self.step)
        weight = sum(part.weight for part in parts)
        total = 0.0
        for parameter in self._parameters.values():
            parameter.grad = None
        bins: list[tuple[float, float]] = []
        # In the order of the parts, whoever is done first: sums of floats depend on it.
        for loss, loss_bins, gradients in pool.map(
            lambda part: self._gradients(part, weight), parts
        ):
            total += loss
            bins += loss_bins
            for parameter, gradient in zip(self._parameters.values(), gradients, strict=True):
                parameter.grad = (
                    gradient if parameter.grad is None else parameter.grad.add_(gradient)
                )
        # An interrupt from here to the end of the step leaves a state that must not be saved.
        self._halfway = True
        grad_norm, lr = self.optimizer.step(self.step)
        if not (abs(total) < float("inf") and grad_norm < float("inf")):
            raise NonFinite(f"step {self.step}: loss {total / weight}, gradient norm {grad_norm}")
        self.ema.update(self.step)
        record = StepRecord(
            step=self.step,
            loss=total / weight,
            grad_norm=grad_norm,
            lr=lr,
            samples=weight,
            seconds=time.perf_counter() - started,
            epoch=self.cursor.epoch,
            bins=tuple(bins),
        )
        self.step += 1
        self.cursor = behind
        self._halfway = False
        return record

    def _gradients(
        self, part: Part[P], weight: float
    ) -> tuple[float, list[tuple[float, float]], tuple[Tensor, ...]]:
        """Loss, (time, loss) pairs and gradients of one part, its share of the mean over the whole
        step: divided by the weight of the step, any split into parts gives the same gradient.
        """
        loss = self.task.loss(part)
        parameters = list(self._parameters.values())
        gradients = torch.autograd.grad(loss.total / weight, parameters, materialize_grads=True)
        bins = (
            []
            if loss.bins is None
            else [(time_, value) for time_, value in loss.bins.detach().tolist()]
        )
        return float(loss.total.detach()), bins, gradients

    @torch.no_grad()
    def _load_model(self, tensors: Mapping[str, Tensor]) -> None:
        if set(tensors) != set(self._parameters):
            others = sorted(set(tensors) ^ set(self._parameters))
            raise BadCheckpoint(f"model: other parameters: {others[:3]}")
        for name, parameter in self._parameters.items():
            found, own = tuple(tensors[name].shape), tuple(parameter.shape)
            if found != own:
                raise BadCheckpoint(f"model: {name}: shape {found}, not {own}")
            parameter.copy_(tensors[name])


def _prepare_thread(threads: int) -> None:
    # Both are settings of the calling thread. Numbers below the normal range slow a CPU down a
    # hundredfold and carry nothing.
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
