"""Rivals: the reuse that others offer, at settings that trace their curves of quality for speed.

`diffusers.hooks` has first-block caching, TaylorSeer (per layer, and its lite mode on the output
alone), Pyramid Attention Broadcast, FasterCache, MagCache and SeaCache; cache-dit has DBCache, with
and without TaylorSeer. Each runs in diffusers' own pipeline and is compared with its own dense run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, TypeAlias

from musiva.engine.load import model_directory
from musiva.perf.child import Message, run_child

__all__ = ["SWEEPS", "Setting", "measure_rivals"]

# Fields of the library's own config.
Setting: TypeAlias = Mapping[str, Any]
CALIBRATION_PROMPTS = "calibration/prompts.txt"
# The model has 6 blocks: one decides, and none is computed on top of what is held.
ONE_BLOCK: Mapping[str, Sequence[object]] = {"Fn_compute_blocks": (1,), "Bn_compute_blocks": (0,)}


def _grid(**values: Sequence[object]) -> list[Setting]:
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


FORECASTS = [
    *_grid(cache_interval=(3, 4, 5, 6, 8), max_order=(1,)),
    *_grid(cache_interval=(3, 5), max_order=(2,)),
]
# Each covers 28 to 37 dB of the default model at 28 and at 50 steps, as far as it can.
SWEEPS: Mapping[str, Sequence[Setting]] = {
    "first_block_cache": _grid(threshold=(0.06, 0.1, 0.2, 0.3, 0.45)),
    "taylorseer": FORECASTS,
    "taylorseer_lite": FORECASTS,
    "pyramid_attention": [
        *_grid(spatial_attention_block_skip_range=(2, 4), cross_attention_block_skip_range=(2,)),
        *_grid(spatial_attention_block_skip_range=(3, 8), cross_attention_block_skip_range=(8,)),
    ],
    "faster_cache": [
        *_grid(
            unconditional_batch_skip_range=(3, 9),
            unconditional_batch_timestep_skip_range=((-1, 641), (-1, 901)),
        ),
        {
            "unconditional_batch_skip_range": 14,
            "unconditional_batch_timestep_skip_range": (-1, 901),
        },
    ],
    "mag_cache": [
        *_grid(threshold=(0.03, 0.06), max_skip_steps=(3,)),
        *_grid(threshold=(0.06,), max_skip_steps=(3,), retention_ratio=(0.1,)),
        *_grid(threshold=(0.25,), max_skip_steps=(5,), retention_ratio=(0.1, 0.2)),
        *_grid(threshold=(0.5,), max_skip_steps=(9,), retention_ratio=(0.1,)),
    ],
    "sea_cache": [
        *_grid(threshold=(0.2,), residual_order=(0, 1)),
        *_grid(threshold=(0.4,), residual_order=(0, 1), max_consecutive_cached=(4,)),
        *_grid(threshold=(0.8,), residual_order=(0, 1), max_consecutive_cached=(6,)),
    ],
    "db_cache": [
        *_grid(residual_diff_threshold=(0.1,), max_warmup_steps=(4,), **ONE_BLOCK),
        *_grid(residual_diff_threshold=(0.15, 0.2, 0.3), max_warmup_steps=(2,), **ONE_BLOCK),
    ],
    "db_cache_taylorseer": [
        *_grid(
            residual_diff_threshold=(0.15,),
            max_warmup_steps=(4,),
            taylorseer_order=(1,),
            **ONE_BLOCK,
        ),
        *_grid(
            residual_diff_threshold=(0.4,),
            max_continuous_cached_steps=(2, 3, 5),
            max_warmup_steps=(2,),
            taylorseer_order=(1,),
            **ONE_BLOCK,
        ),
    ],
}
# More than all of it takes at 50 steps and 12 prompts.
TIMEOUT_SECONDS = 4 * 3600.0


def measure_rivals(
    prompts: Sequence[str],
    *,
    steps: int,
    size: tuple[int, int],
    threads: int,
    rivals: Mapping[str, Sequence[Setting]] | None = None,
    guidance: float = 4.0,
    first_seed: int = 0,
    model: str = "default",
) -> Message:
    """Run rivals at all of their settings in one child process; prompt i has seed `first_seed` + i.
    rivals: settings by name; None is `SWEEPS`.

    Returns `gate`, whether diffusers' dense pictures are those of our engine, `versions`, and
    `rows`, one for each setting: `rival`, `setting`, and either `refused`, why the library does not
    run it, or one number per picture each of `psnr` and `foreground` in dB against its own dense
    run, and `speedup` over that, and the mean `computed_share` of the multiply-adds of linear
    layers. Raises Unavailable without diffusers, ExecutionFailed.
    """
    learn_on = model_directory(model) / CALIBRATION_PROMPTS
    known = learn_on.read_text(encoding="utf-8").splitlines() if learn_on.is_file() else []
    question = {
        "model": model,
        "prompts": list(prompts),
        "seeds": [first_seed + i for i in range(len(prompts))],
        "size": list(size),
        "steps": steps,
        "guidance": guidance,
        "sweeps": SWEEPS if rivals is None else rivals,
        "learn_on": known,
    }
    module = "musiva.perf.benches.rival_runs"
    return run_child(module, question, threads=threads, timeout=TIMEOUT_SECONDS)
