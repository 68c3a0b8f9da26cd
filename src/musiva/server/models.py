"""What `/v1/models` tells of the model."""

from __future__ import annotations

import math

from musiva.engine import LATENCIES, Front, Pipeline
from musiva.samplers import SAMPLERS
from musiva.server.answers import Model
from musiva.server.bodies import MAX_GUIDANCE, MAX_PARTIAL_IMAGES, MAX_STEPS

__all__ = ["describe_model", "suggested_sizes"]

RATIOS = ((1, 1), (4, 3), (3, 4), (16, 9), (9, 16))


def describe_model(engine: Front, *, created: int) -> Model:
    """created: seconds since 1970."""
    pipeline = engine.pipeline
    defaults, noise = pipeline.defaults, pipeline.noise
    counts = range(1, 2) if pipeline.clips is None else pipeline.clips.counts
    spacings = {
        name: list(one.spacings[noise.prediction])
        for name, one in SAMPLERS.items()
        if noise.prediction in one.spacings
    }
    return Model(
        id=pipeline.name,
        created=created,
        size=_text(defaults.size),
        sizes=[_text(size) for size in suggested_sizes(pipeline)],
        size_multiple=pipeline.unit,
        min_side=defaults.min_side,
        max_side=defaults.max_side,
        max_images=defaults.max_images,
        frames=defaults.frames,
        min_frames=counts[0],
        max_frames=counts[-1],
        frame_step=counts.step,
        fps=None if pipeline.clips is None else defaults.fps,
        steps=defaults.steps,
        max_steps=MAX_STEPS,
        guidance_scale=defaults.guidance,
        max_guidance_scale=MAX_GUIDANCE,
        max_partial_images=MAX_PARTIAL_IMAGES,
        sampler=noise.default_sampler(),
        samplers=list(spacings),
        spacings=spacings,
        shift=noise.shift if noise.prediction == "flow" else None,
        policies=list(engine.policies),
        calibrated=pipeline.calibration is not None,
        reach=list(engine.reach),
        out_of_reach=engine.out_of_reach or None,
        latencies=list(LATENCIES),
    )


def suggested_sizes(pipeline: Pipeline) -> list[tuple[int, int]]:
    """Sizes to offer, the default first: usual ratios at its area, then the smallest and largest
    square.
    """
    defaults = pipeline.defaults
    low, high = defaults.min_side, defaults.max_side
    side = math.sqrt(defaults.size[0] * defaults.size[1])

    def fit(length: float) -> int:
        return min(max(round(length / pipeline.unit) * pipeline.unit, low), high)

    sizes = [defaults.size]
    sizes += [(fit(side * math.sqrt(w / h)), fit(side * math.sqrt(h / w))) for w, h in RATIOS]
    sizes += [(low, low), (high, high)]
    return list(dict.fromkeys(sizes))


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
