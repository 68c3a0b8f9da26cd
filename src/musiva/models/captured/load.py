"""A denoiser from a live module or a component directory of diffusers.

The class is built by diffusers from its config, weights come from safetensors files, and nothing
else is read: no pickle, no code of a directory.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from musiva.compiler import SIZES, capture
from musiva.core.errors import BadCheckpoint, Unavailable
from musiva.models.captured.denoiser import CapturedDenoiser
from musiva.models.captured.known import signature_of
from musiva.models.captured.known.base import Signature
from musiva.models.weights import load_weights, read_config

__all__ = ["captured_from", "module_from", "read_captured"]


def captured_from(
    module: nn.Module,
    signature: Signature | None = None,
    *,
    packed: int = 1,
    time_scale: float = 1.0,
) -> CapturedDenoiser:
    """The module is put into the mode for evaluation. packed, time_scale: see `CapturedDenoiser`.
    Raises CannotCapture, with the reason, for a class of which no program can be made.
    """
    signature = signature_of(module) if signature is None else signature
    module.eval()
    sizes = [signature.sized(one) for one in SIZES]
    captured = capture(module, signature.arguments, sizes)
    return CapturedDenoiser(captured, packed=packed, time_scale=time_scale)


def read_captured(directory: Path, dtype: torch.dtype) -> CapturedDenoiser:
    """Raises BadCheckpoint, Unavailable without diffusers, or CannotCapture."""
    return captured_from(module_from(directory, dtype))


def module_from(
    directory: Path, dtype: torch.dtype = torch.float32, *, weights: bool = True
) -> nn.Module:
    """The class of a component directory, with its weights, or without, to look at it. Raises
    BadCheckpoint, Unavailable.
    """
    if importlib.util.find_spec("diffusers") is None:
        raise Unavailable("models of other families need diffusers: pip install musiva[diffusers]")
    import diffusers

    config = read_config(directory)
    name = config.get("_class_name")
    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise BadCheckpoint(f"{directory}: _class_name: {name!r} is no model class of diffusers")
    try:
        with _parameters_on_meta():
            module: nn.Module = found.from_config(config)  # pyright: ignore
    except (TypeError, ValueError, AssertionError) as error:
        raise BadCheckpoint(f"{directory}: config.json: {error}") from error
    if weights:
        load_weights(module, directory)
        floats = {n: p.to(dtype) for n, p in module.named_parameters() if p.is_floating_point()}
        module.load_state_dict(floats, strict=False, assign=True)
    else:
        # No memory is touched before someone writes there.
        zeros = {n: torch.zeros(p.shape, dtype=dtype) for n, p in module.named_parameters()}
        module.load_state_dict(zeros, strict=False, assign=True)
    return module.eval().requires_grad_(False)


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Parameters that are going to be loaded take no memory before; tables that a class works out
    for itself do.
    """
    register = nn.Module.register_parameter

    def on_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        given = None if param is None else nn.Parameter(param.to("meta"), requires_grad=False)
        register(self, name, given)

    nn.Module.register_parameter = on_meta  # pyright: ignore
    try:
        yield
    finally:
        nn.Module.register_parameter = register
