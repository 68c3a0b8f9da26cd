"""A denoiser from a live module or a component directory of diffusers.

The class is built by diffusers from its config, weights come from safetensors files, and nothing
else is read: no pickle, no code of a directory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

import torch
from torch import nn

from musiva.core.errors import BadCheckpoint, CannotCapture
from musiva.models.captured.cache import captured_of
from musiva.models.captured.calls import forget, original
from musiva.models.captured.denoiser import CapturedDenoiser
from musiva.models.captured.known import signature_of
from musiva.models.captured.known.base import Signature
from musiva.models.weights import load_weights, read_config

__all__ = ["altered", "captured_from", "module_from"]

NUMBERS = {bool, int, float}
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def captured_from(
    module: nn.Module,
    signature: Signature | None = None,
    *,
    packed: int = 1,
    time_scale: float = 1.0,
    backwards: bool = False,
    fresh: bool = False,
) -> CapturedDenoiser:
    """The module is put into the mode for evaluation. packed, time_scale, backwards: see
    `ClassDenoiser`. fresh: captured now, also where an earlier capture is kept on disk. Raises
    CannotCapture, with the reason, for a class of which no program can be made, and for a module
    around whose calls something was put.
    """
    signature = signature_of(module) if signature is None else signature
    reason = altered(module)
    if reason is not None:
        raise CannotCapture(reason)
    module.eval()
    try:
        captured = captured_of(module, signature, fresh=fresh)
        return CapturedDenoiser(
            captured, signature, packed=packed, time_scale=time_scale, backwards=backwards
        )
    except CannotCapture:
        raise
    except Exception as error:  # of a class of which nobody has seen the like
        said = " ".join(str(error).split())
        raise CannotCapture(f"{type(error).__name__}: {said}") from error
    finally:
        forget(module)


def altered(module: nn.Module) -> str | None:
    """What was put around the calls of a module, or of one inside it, and would be lost with them;
    None where there is nothing.
    """
    for path, one in module.named_modules():
        name = path or type(original(one)).__name__
        if any(getattr(one, hooks) for hooks in HOOKS):
            return f"{name} has hooks, which run where it is called"
        if hasattr(one, "_orig_mod") or getattr(one, "_compiled_call_impl", None) is not None:
            return f"{name} is compiled"
        if "forward" in vars(one):
            return f"{name} has a forward that is not its class's"
    return None


def module_from(
    directory: Path, dtype: torch.dtype = torch.float32, *, weights: bool = True
) -> nn.Module:
    """The class of a component directory, with its weights, or without, to look at it. Raises
    BadCheckpoint.
    """
    import diffusers

    config = read_config(directory)
    name = config.get("_class_name")
    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise BadCheckpoint(f"{directory}: _class_name: {name!r} is no model class of diffusers")
    _check_types(found, config, directory)
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


def _check_types(found: type[nn.Module], config: Mapping[str, object], directory: Path) -> None:
    """Words are no numbers, and numbers no words, wherever the class says which it takes. Raises
    BadCheckpoint.
    """
    for name, hint in get_type_hints(found.__init__).items():
        several = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        kinds, value = set(several) - {type(None)}, config.get(name)
        allowed = {str} if isinstance(value, str) else NUMBERS
        if value is None or not kinds <= {str, *NUMBERS} or kinds & allowed:
            continue
        expected = " or ".join(sorted(kind.__name__ for kind in kinds))
        raise BadCheckpoint(f"{directory}: config.json: {name}={value!r}; expected {expected}")


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
