"""What the state of a sample was made from, as names: whoever makes the same has the same name.

A name covers all that the bytes depend on, step by step, and nothing else. So the evaluation of two
requests has one name as long as they do the same, though their policies, guidance or steps differ
later, and another one for good as soon as they do not.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

import musiva
from musiva.core.pack import Grid
from musiva.core.types import Action, DenoiseItem
from musiva.engine.identity import Identity
from musiva.engine.pipeline import Pipeline
from musiva.engine.slot import is_whole
from musiva.ops.linear import fingerprint
from musiva.samplers import Schedule
from musiva.store import key_of

__all__ = ["Lineage", "digest_of", "root_of", "told_of"]

# That a model may be run by, beside PyTorch.
LIBRARIES = ("diffusers", "transformers", "tokenizers", "sentencepiece")


@dataclass(frozen=True, slots=True)
class Lineage:
    """root: of what makes it (`root_of`). latent: of the latent and what the solver remembers.
    beside: of what is kept beside these, forecasts and pages, which only what is not computed in
    full depends on. last: the name of the last evaluation that was computed. unbroken: it was
    found, so that somebody may have made the next one too.
    """

    root: str
    latent: str
    beside: str = ""
    last: str | None = None
    unbroken: bool = True

    @classmethod
    def of_noise(cls, root: str, item: DenoiseItem, grid: Grid, scale: float) -> Lineage:
        """Of a sample that starts from the noise of its seed."""
        start = "noise", item.seed, grid, item.frames, scale
        return cls(root, key_of(root, item.tenant, *start))

    @classmethod
    def of_latent(cls, root: str, item: DenoiseItem, latent_LC: Tensor, grid: Grid) -> Lineage:
        """Of one that starts from a latent that was given."""
        start = "latent", digest_of(latent_LC), grid, item.frames
        return cls(root, key_of(root, item.tenant, *start))

    def skipped(self, item: DenoiseItem, schedule: Schedule) -> Lineage:
        """After the evaluations of an item that the model skips. Several in one leap round
        otherwise than one by one, so that the whole item counts.
        """
        actions = item.actions[:-1] if item.computes else item.actions
        if not actions:
            return self
        said = "skip", item.evaluation, actions, item.keep, _name_of(schedule)
        return replace(self, latent=key_of(self.latent, self.beside, *said))

    def evaluation(
        self, item: DenoiseItem, action: Action, schedule: Schedule, told: object
    ) -> str:
        """The name of what the model says. action: as it is done. told: what else it is given."""
        given = schedule.timesteps[item.last], item.computed_prompts, told
        if is_whole(action):
            return key_of("evaluation", self.latent, *given)
        return key_of("evaluation", self.latent, self.beside, action, item.tile, item.keep, *given)

    def computed(self, name: str, item: DenoiseItem, action: Action, schedule: Schedule) -> Lineage:
        """After that evaluation."""
        latent = key_of(name, item.last, item.guidance, _name_of(schedule))
        if not is_whole(action):
            latent = key_of(latent, self.beside, item.keep)
        # Forecasts start from what is mended by an action's own, and analysed for its probes.
        kept = action, item.probes, item.guidance, item.keep, item.tile
        beside = key_of(self.beside, name, *kept)
        return replace(self, latent=latent, beside=beside, last=name)


def told_of(pipeline: Pipeline, item: DenoiseItem, ranks: int) -> object:
    """What the model is given of an item beside latents, times and words, and whatever else makes
    a difference to it.
    """
    guidance = item.guidance if "guidance" in pipeline.denoiser.extra else None
    # Several ranks sum otherwise where pages are kept.
    keeps = item.tile is not None or item.patches > 1
    return item.size, guidance, ranks > 1 and keeps, ranks > 1 and item.actions[-1].alone


def root_of(pipeline: Pipeline, ranks: str) -> str:
    """Of all that a pipeline makes, on machines like this. ranks: how many there are, and how they
    share a pack.
    """
    device = pipeline.device
    kernels = [fingerprint(next(pipeline.denoiser.parameters()).dtype), pipeline.linears.kernel]
    if device.type == "cuda":
        kernels.append(torch.cuda.get_device_name(device))
    else:
        # How a sum is cut depends on it.
        kernels.append(str(torch.get_num_threads()))
    if pipeline.compiled:
        kernels.append("compiled")
    libraries = [f"{name} {_version(name)}" for name in LIBRARIES]
    calibration, measured = pipeline.calibration, None
    if calibration is not None:
        numbers = calibration.places, calibration.edges, calibration.surprise
        tensors = digest_of(calibration.moments), digest_of(calibration.correction)
        measured = numbers, tensors
    kind = type(pipeline.denoiser).__qualname__, pipeline.rule, pipeline.distilled
    made_by = _sources(), libraries, kernels, ranks
    return key_of(Identity.of(pipeline), pipeline.settings, kind, measured, *made_by)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


@lru_cache(maxsize=1)
def _sources() -> str:
    """Of Musiva's own: between releases they change and the version does not."""
    digest, root = hashlib.blake2b(digest_size=16), Path(musiva.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _name_of(schedule: Schedule) -> str:
    return key_of(schedule)


def digest_of(x: Tensor) -> str:
    """Of the bytes of a tensor."""
    flat = x.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return hashlib.blake2b(flat.numpy().tobytes(), digest_size=16).hexdigest()
