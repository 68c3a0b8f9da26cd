"""Whether a picture fits into the memory of the device: about, and before anything is begun."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from musiva.core.errors import InvalidInput
from musiva.core.pack import ROW_ALIGN
from musiva.engine.pipeline import Pipeline

__all__ = ["Footprint", "device_bytes"]

# Limits of a container, by the second and the first version of control groups.
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
# What a layer reads and writes is there at once, and a copy of it for a norm or an activation.
COPIES = 3


class Footprint:
    """What pictures of a model take, and what there is beside its weights.

    workers: processes beside this one that have the model too, and share the machine's memory.
    """

    def __init__(self, pipeline: Pipeline, workers: int = 0) -> None:
        self.pipeline = pipeline
        total = device_bytes(pipeline.device)
        # Kernels keep their own copy of the denoiser's.
        kept = 2 * _bytes(pipeline.denoiser.parameters()) + _bytes(pipeline.vae.parameters())
        kept += pipeline.text.num_bytes
        self.free = None if total is None else total - kept
        if self.free is not None and workers and pipeline.device.type == "cpu":
            self.free = (self.free - workers * kept) // workers
        layers = [m for m in pipeline.denoiser.modules() if isinstance(m, nn.Linear)]
        widest = max((m.in_features + m.out_features for m in layers), default=0)
        size_of = next(pipeline.denoiser.parameters()).element_size()
        self._row_bytes = COPIES * widest * size_of
        # The autoencoder is always exact.
        self._pixel_bytes = torch.float32.itemsize * pipeline.vae.held_at_pixels
        # Autoencoders of clips take about so many frames at a time.
        self._frames_at_once = 1 if pipeline.clips is None else pipeline.clips.counts.step

    def needs(self, size: tuple[int, int], branches: int, frames: int = 1) -> int:
        """Bytes of the largest step of a picture, or of a clip, beside the weights."""
        rows = -(-self.pipeline.num_tokens(size, frames) // ROW_ALIGN) * ROW_ALIGN * branches
        pixels = size[0] * size[1] * min(frames, self._frames_at_once)
        return max(rows * self._row_bytes, math.ceil(pixels * self._pixel_bytes))

    def check(self, size: tuple[int, int], branches: int, frames: int = 1) -> None:
        """Raises InvalidInput for a size that cannot be made here."""
        needs = self.needs(size, branches, frames)
        if self.free is not None and needs > self.free:
            free = max(self.free, 0) / 2**20
            allowed = (
                f"a picture that takes at most the {free:.0f} MiB that {self.pipeline.device} has "
                f"beside the model; this one takes about {needs / 2**20:.0f}"
            )
            many = f", {frames} frames" if frames > 1 else ""
            raise InvalidInput("size", f"{size[0]}x{size[1]}{many}", allowed)


def _bytes(weights: Iterable[Tensor]) -> int:
    return sum(weight.nbytes for weight in weights)


def device_bytes(device: torch.device) -> int | None:
    """All memory that a process may have there; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):
        return None
    for name in LIMITS:
        try:
            found.append(int(Path(name).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue  # no such control group, or "max"
    return min(found)
