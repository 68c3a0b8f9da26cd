"""Training on where only an exported model is: a checkpoint made from its averaged weights.

Such a restart is not exact: the optimiser starts afresh, and weights were rounded to bfloat16. It
is told in `restarts.txt` beside the checkpoints.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from emoji_denoiser import DenoiserTask
from musiva.core.errors import BadCheckpoint, InvalidInput
from musiva.models import read_tensors
from musiva.models.text import t5_tensors
from musiva.train import Stage

__all__ = ["adopt"]

PARTS = ("vae", "tokenizer", "transformer", "text_encoder")


@torch.no_grad()
def adopt(stage: Stage[DenoiserTask], source: Path, vae: Path, *, step: int) -> None:
    """Make the stage's first checkpoint, at `step`, from the exported model in `source`, and put
    its autoencoder where the stage looks for one.

    Raises InvalidInput when there are checkpoints already or the step is negative, BadCheckpoint
    when a file is missing or cut short.
    """
    checkpoints = stage.directory / "checkpoints"
    if checkpoints.exists() and any(checkpoints.iterdir()):
        raise InvalidInput("directory", str(checkpoints), "a run without checkpoints")
    for part in PARTS:
        if not (source / part).is_dir():
            raise BadCheckpoint(
                f"{source / part}: missing; an exported model has {', '.join(PARTS)}"
            )
    shutil.copytree(source / "vae", vae, dirs_exist_ok=True)
    shutil.copytree(source / "tokenizer", stage.directory / "tokenizer", dirs_exist_ok=True)
    trainer = stage.build()
    task: DenoiserTask = trainer.task  # type: ignore[assignment]
    task.transformer.module.load_state_dict(read_tensors(source / "transformer"))
    task.text.load_state_dict(t5_tensors(read_tensors(source / "text_encoder")))
    trainer.restart(step)
    trainer.save()
    with (stage.directory / "restarts.txt").open("a") as log:
        log.write(f"step {step}: weights of {source}, a fresh optimiser\n")
