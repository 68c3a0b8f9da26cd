"""The default model: text to image on 3D emoji, in two stages, `vae` and then `denoiser`.

    musiva train recipes/emoji.py

Everything lies below `runs/emoji/`; running it again continues where it was. At the end, and with
`python recipes/emoji.py export DIRECTORY` at any moment, the averaged weights are written as a
diffusers directory.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from emoji_denoiser import DenoiserTask, Phase
from emoji_export import export_model
from emoji_samples import sample_sheet
from emoji_vae import VaeTask, export_vae
from musiva.core.errors import InvalidInput
from musiva.train import Ema, Optimizer, Stage, Trainer, train

__all__ = ["STAGES", "config"]

STAGES = ("vae", "denoiser")
DATA = Path("data/npm")
RUNS = Path("runs/emoji")
VAE = RUNS / "vae" / "export"


def config(stage: str) -> Stage:
    """The stage of that name. Raises InvalidInput for another name."""
    stages = {"vae": vae, "denoiser": denoiser}
    if stage not in stages:
        raise InvalidInput("stage", stage, " or ".join(STAGES))
    return stages[stage]()


def vae() -> Stage[VaeTask]:
    """The autoencoder: about 20 minutes on two cores."""

    def finish(trainer: Trainer) -> None:
        assert isinstance(trainer.task, VaeTask)
        with trainer.ema.applied():
            export_vae(trainer.task, VAE)

    return Stage(
        name="vae",
        directory=RUNS / "vae",
        task=VaeTask.Config(seed=1, data=DATA),
        trainer=Trainer.Config(
            steps=5200,
            optimizer=Optimizer.Config(
                lr=1.5e-3, warmup_steps=100, decay_steps=(2400, 5200), weight_decay=0.0
            ),
            ema=Ema.Config(decay=0.998),
            workers=2,
        ),
        finish=finish,
    )


def denoiser() -> Stage[DenoiserTask]:
    """The denoiser and its text encoder: 64 pixels first, where a picture costs a quarter."""
    small = {(64, 64): 1.0}
    mixed = {(64, 64): 0.35, (96, 96): 0.2, (128, 128): 0.3, (96, 128): 0.075, (128, 96): 0.075}
    directory = RUNS / "denoiser"

    def finish(trainer: Trainer) -> None:
        export_model(directory, VAE, RUNS / "export")
        sample_sheet(directory, VAE, directory / "samples.png", pixels=128)

    return Stage(
        name="denoiser",
        directory=directory,
        task=DenoiserTask.Config(
            seed=1,
            data=DATA,
            vae=VAE,
            work=directory,
            phases=(Phase(0, small), Phase(1800, mixed)),
        ),
        trainer=Trainer.Config(
            steps=4600,
            optimizer=Optimizer.Config(lr=1e-3, warmup_steps=200, decay_steps=(2600, 4600)),
            ema=Ema.Config(decay=0.999),
            workers=2,
        ),
        finish=finish,
    )


def main(command: str, *arguments: str) -> None:
    """`vae` or `denoiser` trains that stage; `export DIRECTORY` and `samples FILE` use what is
    there.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if command == "export":
        print("step", export_model(RUNS / "denoiser", VAE, Path(*arguments)))
    elif command == "samples":
        print("step", sample_sheet(RUNS / "denoiser", VAE, Path(*arguments)))
    else:
        for line in train(config(command)):
            shown = ("step", "loss", "grad_norm", "per_second", "epoch")
            print(*(f"{name} {line[name]:.4g}" for name in shown), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
