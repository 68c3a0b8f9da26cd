"""Training: the same packs, models and plans as serving, with gradients."""

from musiva.train.checkpoint import Checkpoint, load_checkpoint, load_latest, save_checkpoint
from musiva.train.data import Cursor, Draw, Order, fill_pack, keyed_rng
from musiva.train.ema import Ema
from musiva.train.loop import Loss, Part, StepRecord, Task, Trainer
from musiva.train.objectives import Objective
from musiva.train.optim import Optimizer
from musiva.train.recipe import load_recipe, load_script
from musiva.train.run import TrainRun
from musiva.train.stage import Stage, TaskConfig, train

__all__ = [
    "Checkpoint",
    "Cursor",
    "Draw",
    "Ema",
    "Loss",
    "Objective",
    "Optimizer",
    "Order",
    "Part",
    "Stage",
    "StepRecord",
    "Task",
    "TaskConfig",
    "TrainRun",
    "Trainer",
    "fill_pack",
    "keyed_rng",
    "load_checkpoint",
    "load_latest",
    "load_recipe",
    "load_script",
    "save_checkpoint",
    "train",
]
