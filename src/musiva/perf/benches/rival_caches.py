"""Reuse as others offer it, attached to copies of one PixArt pipeline of diffusers.

Each copy has modules of its own, which the libraries rewrite as they like, and the weights of the
original. What a setting may name is in `musiva.perf.benches.rivals`.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["RIVALS", "attach", "magnitude_ratios"]

Setting: TypeAlias = Mapping[str, Any]
Pipeline: TypeAlias = Any  # diffusers' classes have no types
# Attention and feed-forward are what TaylorSeer forecasts; diffusers' own pattern finds no layer
# that is named attn1 or attn2.
FORECAST = (r"transformer_blocks\.\d+\.(attn1|attn2|ff)",)
ALL_TIMES = (-1, 1001)


def attach(rival: str, setting: Setting, pipeline: Pipeline, calls: Mapping[str, Any]) -> Pipeline:
    """A copy of the pipeline that reuses as `rival` does. calls: `steps` of a picture, and
    `ratios`, the `magnitude_ratios` of the model. Raises what the library refuses with.
    """
    return RIVALS[rival](setting, pipeline, calls)


def magnitude_ratios(
    pipeline: Pipeline, runs: Sequence[Callable[[Pipeline], object]], steps: int
) -> list[float]:
    """What MagCache has to know of a model: by how much the size of its residual changes from one
    step to the next, a number a step; the mean over some runs of it. It prints what it found.
    """
    hooks = import_module("diffusers.hooks")
    config = hooks.MagCacheConfig(calibrate=True, num_inference_steps=steps)
    measured = _hooked(config, pipeline)
    found = []
    for run in runs:
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            run(measured)
        (ratios,) = re.findall(r"^\[[-0-9., e]+\]$", told.getvalue(), re.MULTILINE)
        found.append(json.loads(ratios))
    return torch.tensor(found, dtype=torch.float64).mean(0).tolist()


def _copied(pipeline: Pipeline, kind: type | None = None) -> Pipeline:
    """kind: the class of the copy."""
    model = pipeline.transformer
    shared = {id(parameter): parameter for parameter in model.parameters()}
    components = {**pipeline.components, "transformer": copy.deepcopy(model, shared)}
    copied = (kind or type(pipeline))(**components)
    copied.set_progress_bar_config(disable=True)
    return copied


def _hooked(config: Any, pipeline: Pipeline) -> Pipeline:
    """With a cache of `diffusers.hooks`, enabled as on those of its models that are ready for
    them. PixArt is not: it lacks the mixin, and its pipeline tells hooks neither that a picture
    begins nor where it is.
    """
    copied = _copied(pipeline)
    model, scheduler = copied.transformer, copied.scheduler
    mixin = import_module("diffusers.models.cache_utils").CacheMixin

    class Ready(type(model), mixin):  # type: ignore[misc]
        def __call__(self, hidden_states: Tensor, **named: object) -> Any:
            step, total = scheduler.step_index or 0, len(scheduler.timesteps)
            place = {"step_index": step, "sigma": float(scheduler.sigmas[step])}
            with self.cache_context("guided", num_inference_steps=total, **place):
                return super().__call__(hidden_states=hidden_states, **named)

    model.__class__ = Ready
    model.enable_cache(config)
    return copied


def _first_block(setting: Setting, pipeline: Pipeline, calls: Setting) -> Pipeline:
    return _hooked(import_module("diffusers.hooks").FirstBlockCacheConfig(**setting), pipeline)


def _taylorseer(setting: Setting, pipeline: Pipeline, calls: Setting) -> Pipeline:
    where = {} if setting.get("use_lite_mode") else {"cache_identifiers": list(FORECAST)}
    kept = {"taylor_factors_dtype": torch.float32}
    config = import_module("diffusers.hooks").TaylorSeerCacheConfig(**setting, **where, **kept)
    return _hooked(config, pipeline)


def _taylorseer_lite(setting: Setting, pipeline: Pipeline, calls: Setting) -> Pipeline:
    return _taylorseer({**setting, "use_lite_mode": True}, pipeline, calls)


def _pyramid(setting: Setting, pipeline: Pipeline, calls: Setting) -> Pipeline:
    kinds = {f"{kind}_attention_timestep_skip_range": ALL_TIMES for kind in ("spatial", "cross")}
    config = import_module("diffusers.hooks").PyramidAttentionBroadcastConfig(
        **{**kinds, **setting}, current_timestep_callback=_clock(pipeline)
    )
    return _hooked(config, pipeline)


def _faster(setting: Setting, pipeline: Pipeline, calls: Setting) -> Pipeline:
    config = import_module("diffusers.hooks").FasterCacheConfig(
        **setting, tensor_format="BCHW", current_timestep_callback=_clock(pipeline)
    )
    return _hooked(config, pipeline)


def _mag(setting: Setting, pipeline: Pipeline, calls: Setting) -> Pipeline:
    known = {"num_inference_steps": calls["steps"], "mag_ratios": list(calls["ratios"])}
    return _hooked(import_module("diffusers.hooks").MagCacheConfig(**setting, **known), pipeline)


def _sea(setting: Setting, pipeline: Pipeline, calls: Setting) -> Pipeline:
    config = import_module("diffusers.hooks").SeaCacheConfig(
        **setting, raw_vision_callback=_latents
    )
    return _hooked(config, pipeline)


def _latents(module: object, args: object, kwargs: Mapping[str, Tensor]) -> list[Tensor]:
    """[C, 1, H, W], a clip of one frame; both branches have the same."""
    return [kwargs["hidden_states"][0, :, None]]


def _clock(pipeline: Pipeline) -> Callable[[], float]:
    scheduler = pipeline.scheduler
    return lambda: float(scheduler.timesteps[scheduler.step_index or 0])


def _dual_block(setting: Setting, pipeline: Pipeline, calls: Setting) -> Pipeline:
    """cache-dit; `taylorseer_order` adds its calibrator. It wraps the call of a pipeline's class,
    so that each copy is of a class of its own.
    """
    cache_dit, own = import_module("cache_dit"), type(pipeline)
    copied = _copied(pipeline, type(own.__name__, (own,), {"__module__": own.__module__}))
    rest = {name: value for name, value in setting.items() if name != "taylorseer_order"}
    order = setting.get("taylorseer_order")
    calibrator = order and cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=order)
    config = cache_dit.DBCacheConfig(**rest, num_inference_steps=calls["steps"])
    return cache_dit.enable_cache(copied, cache_config=config, calibrator_config=calibrator)


RIVALS: Mapping[str, Callable[[Setting, Pipeline, Setting], Pipeline]] = {
    "first_block_cache": _first_block,
    "taylorseer": _taylorseer,
    "taylorseer_lite": _taylorseer_lite,
    "pyramid_attention": _pyramid,
    "faster_cache": _faster,
    "mag_cache": _mag,
    "sea_cache": _sea,
    "db_cache": _dual_block,
    "db_cache_taylorseer": _dual_block,
}
