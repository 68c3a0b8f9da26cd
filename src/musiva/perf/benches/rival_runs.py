"""Child process: pictures by diffusers' own pipeline, dense and with the reuse of others.

Each picture with reuse is compared with the same pipeline's dense one: same prompt, seed, first
noise and scheduler. H, W of pictures in pixels.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from musiva.engine import Engine
from musiva.engine.load import model_directory
from musiva.perf.benches.rival_caches import attach, magnitude_ratios
from musiva.perf.child import Message, serve_child
from musiva.perf.quality import foreground, psnr
from musiva.perf.report import Gate

__all__ = ["answer"]

# Both dense runs are the same model on the same path, up to rounding.
SAME_DB = 45.0
# Settings that are timed between two dense runs of the same picture.
BETWEEN = 4
CALIBRATION_RUNS = 4
PACKAGES = ("diffusers", "cache-dit")
FIRST_SEED = 1 << 40


@dataclass(slots=True)
class Work:
    """Multiply-adds of the linear layers of a model, counted as they run."""

    done: int = 0

    def watch(self, model: nn.Module) -> None:
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_hook(self._count)

    def _count(self, layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        self.done += out.numel() * layer.in_features


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture: [H, W, 3] uint8, seconds of its denoising, multiply-adds."""

    picture: np.ndarray
    seconds: float
    work: int


@dataclass(slots=True)
class Course:
    """One rival at one setting: its pipeline, and of each picture what was found. refused: why it
    does not run.
    """

    rival: str
    setting: Mapping[str, Any]
    pipeline: Any = None
    work: Work = field(default_factory=Work)
    refused: str | None = None
    db: list[float] = field(default_factory=list)
    foreground_db: list[float] = field(default_factory=list)
    speedups: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def enter(self, shot: Shot, dense: Shot, before: Shot) -> None:
        """before: the dense run nearest in time."""
        self.db.append(psnr(shot.picture, dense.picture))
        self.foreground_db.append(psnr(shot.picture, dense.picture, foreground(dense.picture)))
        self.speedups.append(before.seconds / shot.seconds)
        self.shares.append(shot.work / dense.work)

    def row(self) -> Message:
        row: dict[str, Any] = {"rival": self.rival, "setting": dict(self.setting)}
        if self.refused is not None:
            return {**row, "refused": self.refused}
        return {
            **row,
            "psnr": self.db,
            "foreground": self.foreground_db,
            "speedup": self.speedups,
            "computed_share": statistics.fmean(self.shares),
        }


class Studio:
    """Draws pictures with pipelines that share all but their denoiser."""

    def __init__(self, question: Message) -> None:
        diffusers = import_module("diffusers")
        diffusers.logging.set_verbosity_error()
        diffusers.logging.disable_progress_bar()
        self.size: tuple[int, int] = tuple(question["size"])
        self.steps, self.guidance = int(question["steps"]), float(question["guidance"])
        directory = model_directory(str(question["model"]))
        self.pipeline = diffusers.DiffusionPipeline.from_pretrained(directory).to(torch.float32)
        self.pipeline.set_progress_bar_config(disable=True)
        self.work = Work()
        self._texts: dict[str, Mapping[str, Tensor]] = {}

    @torch.inference_mode()
    def draw(self, pipeline: Any, work: Work, prompt: str, seed: int) -> Shot:
        """The first noise is drawn as the engine draws it."""
        width, height = self.size
        vae, scale = self.pipeline.vae, self.pipeline.vae_scale_factor
        shape = (1, self.pipeline.transformer.config.in_channels, height // scale, width // scale)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        text, before = self._text(prompt), work.done
        start = time.perf_counter()
        latents = pipeline(
            **text,
            prompt=None,
            negative_prompt=None,
            latents=noise,
            width=width,
            height=height,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            use_resolution_binning=False,
            output_type="latent",
        ).images
        seconds = time.perf_counter() - start
        pixels = vae.decode(latents / vae.config.scaling_factor).sample[0]
        levels = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        return Shot(levels.permute(1, 2, 0).contiguous().numpy(), seconds, work.done - before)

    def _text(self, prompt: str) -> Mapping[str, Tensor]:
        """Of both branches, without the padding that both have."""
        if prompt not in self._texts:
            rows, mask, other, other_mask = self.pipeline.encode_prompt(
                prompt, do_classifier_free_guidance=self.guidance > 1, clean_caption=False
            )
            found = {"prompt_embeds": rows, "prompt_attention_mask": mask}
            if other is not None:
                found |= {
                    "negative_prompt_embeds": other,
                    "negative_prompt_attention_mask": other_mask,
                }
            masks = [x for name, x in found.items() if name.endswith("mask")]
            length = max(int(x.sum()) for x in masks)
            self._texts[prompt] = {name: x[:, :length] for name, x in found.items()}
        return self._texts[prompt]


def answer(question: Message) -> Message:
    """question: model, prompts, seeds, size, steps, guidance; sweeps: settings by rival; learn_on:
    prompts that a rival may measure the model on.
    """
    studio = Studio(question)
    prompts, seeds = list(question["prompts"]), list(question["seeds"])
    gate = _compare_with_ours(studio, question)
    if not gate.ok:
        return {"gate": gate.as_json(), "rows": [], "versions": _versions()}
    courses = _courses(studio, question)
    # Only now: copies of a model that is watched would take the watch along.
    studio.work.watch(studio.pipeline.transformer)
    for number, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        _measure(studio, courses, prompt, seed, number)
    rows = [course.row() for course in courses]
    return {"gate": gate.as_json(), "rows": rows, "versions": _versions()}


def _compare_with_ours(studio: Studio, question: Message) -> Gate:
    gate, decibels = Gate(), []
    with Engine.load(str(question["model"])) as engine:
        for prompt, seed in zip(question["prompts"], question["seeds"], strict=True):
            (ours,) = engine.generate(
                prompt, seed=seed, size=studio.size, steps=studio.steps, guidance=studio.guidance
            )
            theirs = studio.draw(studio.pipeline, studio.work, prompt, seed)
            decibels.append(psnr(theirs.picture, np.asarray(ours)))
    gate.check("dense_against_ours_db", min(decibels), holds=min(decibels) >= SAME_DB)
    return gate


def _courses(studio: Studio, question: Message) -> list[Course]:
    calls = {"steps": studio.steps, "ratios": _ratios(studio, question)}
    courses = [
        Course(rival, setting)
        for rival, settings in question["sweeps"].items()
        for setting in settings
    ]
    for course in courses:
        try:
            course.pipeline = attach(course.rival, course.setting, studio.pipeline, calls)
        except Exception as error:
            # Another library's code: that it refuses is a finding.
            course.refused = f"{type(error).__name__}: {error}"
        else:
            course.work.watch(course.pipeline.transformer)
    return courses


def _ratios(studio: Studio, question: Message) -> list[float]:
    prompts: Sequence[str] = question["learn_on"][:CALIBRATION_RUNS]
    if "mag_cache" not in question["sweeps"] or not prompts:
        return []

    def run(prompt: str, seed: int) -> Any:
        return lambda pipeline: studio.draw(pipeline, Work(), prompt, seed)

    runs = [run(prompt, FIRST_SEED + i) for i, prompt in enumerate(prompts)]
    return magnitude_ratios(studio.pipeline, runs, studio.steps)


def _measure(
    studio: Studio, courses: Sequence[Course], prompt: str, seed: int, number: int
) -> None:
    """One picture at all settings, which begin at another one for each picture, so that none
    always comes first.
    """
    running = [course for course in courses if course.refused is None]
    first = number * BETWEEN % max(len(running), 1)
    running = running[first:] + running[:first]
    dense = before = studio.draw(studio.pipeline, studio.work, prompt, seed)
    for i, course in enumerate(running):
        if i and i % BETWEEN == 0:
            before = studio.draw(studio.pipeline, studio.work, prompt, seed)
        try:
            shot = studio.draw(course.pipeline, course.work, prompt, seed)
        except Exception as error:
            # As above; some refuse when they first skip something.
            course.refused = f"{type(error).__name__}: {error}"
        else:
            course.enter(shot, dense, before)


def _versions() -> Mapping[str, str | None]:
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


if __name__ == "__main__":
    serve_child(answer)
