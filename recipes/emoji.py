"""The default model: text to image on 3D emoji, in two stages, `vae` and then `denoiser`.

    musiva train recipes/emoji.py

Everything lies below `runs/emoji/`; running it again continues where it was. At the end, and with
`python recipes/emoji.py export DIRECTORY` at any moment, the averaged weights are written as a
diffusers directory. Where no checkpoint is, `python recipes/emoji.py adopt DIRECTORY STEP` makes
one from such a directory, to train on from its weights.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from emoji_denoiser import DenoiserTask, Phase, Source
from emoji_exam import Examiner
from emoji_export import export_model
from emoji_restart import adopt
from emoji_samples import sample_sheet, size_sheet, unseen_sheet
from emoji_vae import VaeTask, export_vae
from musiva.core.errors import InvalidInput
from musiva.engine import Engine
from musiva.train import Ema, Objective, Optimizer, Stage, Trainer, train

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
    """The autoencoder: about 35 minutes on two cores."""

    def finish(trainer: Trainer) -> None:
        assert isinstance(trainer.task, VaeTask)
        with trainer.ema.applied():
            export_vae(trainer.task, VAE)

    return Stage(
        name="vae",
        directory=RUNS / "vae",
        task=VaeTask.Config(seed=1, data=DATA),
        trainer=Trainer.Config(
            steps=8400,
            optimizer=Optimizer.Config(
                lr=1.5e-3, warmup_steps=100, decay_steps=(6400, 8400), weight_decay=0.0
            ),
            ema=Ema.Config(decay=0.998),
            workers=2,
        ),
        finish=finish,
    )


def denoiser() -> Stage[DenoiserTask]:
    """The denoiser and its text encoder: first the names, at 32 pixels (16 tokens), where a picture
    costs a sixteenth; then words, grounds and places at 64; then sizes; then a few things at 64,
    the step to whole scenes, above all composed ones, of which no two are alike; then everything.
    """
    names: dict[Source, float] = {("single", (32, 32)): 1.0}
    places: dict[Source, float] = {
        ("single", (32, 32)): 0.45, ("single", (64, 64)): 0.3, ("scene", (64, 64)): 0.25,
    }  # fmt: skip
    sizes: dict[Source, float] = {
        ("single", (32, 32)): 0.26, ("single", (64, 64)): 0.2, ("single", (96, 96)): 0.08,
        ("single", (128, 128)): 0.16, ("scene", (64, 64)): 0.1, ("scene", (96, 96)): 0.06,
        ("scene", (128, 128)): 0.1, ("scene", (96, 128)): 0.02, ("scene", (128, 96)): 0.02,
    }  # fmt: skip
    few: dict[Source, float] = {
        ("single", (32, 32)): 0.25, ("single", (64, 64)): 0.15, ("few", (64, 64)): 0.45,
        ("scene", (64, 64)): 0.15,
    }  # fmt: skip
    bound: dict[Source, float] = {
        ("single", (32, 32)): 0.2, ("composed", (64, 64)): 0.6, ("few", (64, 64)): 0.15,
        ("scene", (64, 64)): 0.05,
    }  # fmt: skip
    scenes: dict[Source, float] = {
        ("single", (32, 32)): 0.1, ("single", (64, 64)): 0.1, ("single", (96, 96)): 0.05,
        ("single", (128, 128)): 0.12, ("composed", (64, 64)): 0.1, ("composed", (96, 96)): 0.1,
        ("composed", (128, 128)): 0.12, ("few", (64, 64)): 0.08, ("scene", (64, 64)): 0.04,
        ("scene", (96, 96)): 0.05, ("scene", (128, 128)): 0.12, ("scene", (96, 128)): 0.01,
        ("scene", (128, 96)): 0.01,
    }  # fmt: skip
    # Composed latents have faint edges, which the end of the run takes away.
    settled: dict[Source, float] = {
        ("single", (32, 32)): 0.08, ("single", (64, 64)): 0.08, ("single", (96, 96)): 0.05,
        ("single", (128, 128)): 0.16, ("composed", (64, 64)): 0.06, ("composed", (96, 96)): 0.06,
        ("few", (64, 64)): 0.06, ("scene", (64, 64)): 0.03, ("scene", (96, 96)): 0.06,
        ("scene", (128, 128)): 0.3, ("scene", (96, 128)): 0.03, ("scene", (128, 96)): 0.03,
    }  # fmt: skip
    # Which emoji it is decides itself at high noise.
    early, late = Objective.Config(time_mean=1.0), Objective.Config(time_mean=0.4)
    phases = (
        Phase(start=0, shares=names, plain=0.9, white=1.0, rows=512, objective=early),
        Phase(start=3000, shares=places, plain=0.4, white=0.4, rows=2048, objective=early),
        Phase(start=5300, shares=sizes, plain=0.3, white=0.5, rows=2048, objective=late),
        Phase(start=8800, shares=few, plain=0.6, white=0.5, rows=2048, objective=early),
        Phase(start=14300, shares=bound, plain=0.9, white=0.7, rows=2048, objective=early),
        Phase(start=17500, shares=scenes, plain=0.7, white=0.5, rows=2048, objective=late),
        Phase(start=21000, shares=settled, plain=0.6, white=0.5, rows=2048, objective=late),
    )
    directory = RUNS / "denoiser"

    def finish(trainer: Trainer) -> None:
        export_model(directory, VAE, RUNS / "export")
        sample_sheet(directory, VAE, directory / "samples.png")

    return Stage(
        name="denoiser",
        directory=directory,
        task=DenoiserTask.Config(
            seed=1,
            data=DATA,
            vae=VAE,
            work=directory,
            phases=phases,
        ),
        trainer=Trainer.Config(
            steps=22400,
            optimizer=Optimizer.Config(lr=1e-3, warmup_steps=200, decay_steps=(18000, 22400)),
            ema=Ema.Config(decay=0.999),
            workers=2,
        ),
        finish=finish,
    )


def main(command: str, *arguments: str) -> None:
    """`vae` or `denoiser` trains that stage; `export DIRECTORY`, `adopt DIRECTORY STEP`, `samples
    FILE` and `pictures DIRECTORY` use what is there.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if command == "export":
        print("step", export_model(RUNS / "denoiser", VAE, Path(*arguments)))
    elif command == "samples":
        print("step", sample_sheet(RUNS / "denoiser", VAE, Path(*arguments)))
    elif command == "adopt":
        source, step = arguments
        adopt(denoiser(), Path(source), VAE, step=int(step))
    elif command == "pictures":
        (directory,) = arguments
        with Engine.load("default") as engine:
            unseen_sheet(engine, Examiner(DATA)).save(Path(directory) / "unseen.png")
            sheet = size_sheet(engine, "a fox left of a pine tree on snow")
            sheet.save(Path(directory) / "sizes.png")
    else:
        for line in train(config(command)):
            shown = ("step", "loss", "grad_norm", "per_second", "epoch")
            print(*(f"{name} {line[name]:.5g}" for name in shown), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
