"""A stage of a recipe: what to train, how, where; and the generator that trains it.

A recipe is a Python module with `STAGES`, the names of its stages in order, and `config(stage)`,
which returns the `Stage` of that name. Building a stage twice and running both gives what running
it once gives.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch

from musiva.train.loop import Task, Trainer
from musiva.train.report import LossLine, LossLog

__all__ = ["Stage", "TaskConfig", "train"]

T = TypeVar("T", bound=Task, covariant=True)


class TaskConfig(Protocol[T]):
    def build(self) -> T:
        """Everything slow happens here: downloads, caches, fresh weights."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Generic[T]):
    """`finish` is called with the trainer when the last step is done, again at every rerun after
    it.
    """

    name: str
    directory: Path
    task: TaskConfig[T]
    trainer: Trainer.Config
    finish: Callable[[Trainer], None] | None = None
    log_every: int = 20

    def build(self) -> Trainer:
        """The trainer of this stage; it has not resumed yet."""
        return self.trainer.build(self.task.build(), self.directory / "checkpoints")


def train(stage: Stage[T]) -> Generator[LossLine, None, None]:
    """Train a stage to its end, from where it was; yields each line as it is added to `loss.jsonl`.

    Beside it lies `loss.svg`. Closing the generator saves a checkpoint first. Until it ends or is
    closed, the calling thread computes on `stage.trainer.threads` threads and flushes subnormal
    numbers to zero; then it has its own settings again.
    """
    stage.directory.mkdir(parents=True, exist_ok=True)
    with _training_arithmetic(stage.trainer.threads):
        trainer = stage.build()
        log = LossLog(stage.directory / "loss.jsonl", every=stage.log_every)
        with closing(trainer.run()) as records:
            for record in records:
                line = log.add(record)
                if line is not None:
                    log.draw(stage.directory / "loss.svg")
                    yield line
        if stage.finish is not None:
            stage.finish(trainer)


@contextmanager
def _training_arithmetic(threads: int) -> Iterator[None]:
    # Subnormal numbers slow a CPU down a hundredfold and carry nothing. Nothing tells whether they
    # are flushed but arithmetic itself.
    threads_before, flushed_before = torch.get_num_threads(), sys.float_info.min / 2 == 0.0
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        torch.set_flush_denormal(flushed_before)
