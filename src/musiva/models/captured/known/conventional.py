"""What a class is called with of which only the names of its arguments are known.

Diffusers' transformers share these names. A latent or a text may lie in a few ways; which one a
class takes is found by calling it on tensors without data.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils import _pytree as pytree

from musiva.compiler import SIZES, Sizes
from musiva.compiler.arguments import (
    Argument,
    call_arguments,
    classes,
    given,
    mask,
    places,
    time,
    values,
)
from musiva.compiler.export import dtype_of
from musiva.core.errors import CannotCapture
from musiva.models.captured.known.base import Config, Signature, clip, frames_first, picture

__all__ = ["conventional"]

LATENTS = ("hidden_states", "x", "sample", "latents")
TEXTS = ("encoder_hidden_states", "context", "text_states", "txt", "cap_feats")
TIMES = ("timestep", "timesteps", "t")
MASKS = ("encoder_attention_mask", "encoder_hidden_states_mask", "text_mask")
POOLED = ("pooled_projections", "pooled_embeds")
TEXT_WIDTHS = (
    "joint_attention_dim",
    "caption_channels",
    "cross_attention_dim",
    "text_embed_dim",
    "text_dim",
    "context_in_dim",
    "cap_feat_dim",
    "text_in_dim",
)
# Given also where the class has a default, which is none.
USUAL = (*TEXTS, *TIMES, *POOLED, "img_ids", "txt_ids", "img_shapes", "guidance")
CHANNELS = ("in_channels", "latent_channels")


def conventional(module: nn.Module, config: Config) -> Signature:
    """Raises CannotCapture where an argument has a name that says nothing, or no layout fits."""
    options: dict[str, Sequence[Argument]] = {}
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        found = list(_options(parameter.name, config))
        needed = parameter.default is parameter.empty
        if needed and not found:
            raise CannotCapture(
                f"{type(module).__name__}.forward: it is not known what {parameter.name!r} is"
            )
        if found and (needed or parameter.name in USUAL):
            options[parameter.name] = found
    failed = "nothing to call it with"
    for chosen in itertools.product(*options.values()):
        signature = Signature(arguments=dict(zip(options, chosen, strict=True)))
        failed = _fails(module, signature)
        if not failed:
            return signature
    shown = {name: [_shown(one) for one in several] for name, several in options.items()}
    raise CannotCapture(f"{type(module).__name__}: no layout fits, of {shown}: {failed}")


def _options(name: str, config: Config) -> Iterator[Argument]:
    if name in LATENTS:
        for key in CHANNELS:
            if isinstance(channels := config.get(key), int):
                yield from _latents(channels, config)
    elif name in TEXTS:
        widths = {config[key] for key in TEXT_WIDTHS if isinstance(config.get(key), int)}
        yield from (values("words", width) for width in sorted(widths))
    elif name in TIMES:
        yield time(high=1000.0)
    elif name in MASKS:
        yield mask("words")
    elif name in POOLED and isinstance(width := config.get("pooled_projection_dim"), int):
        yield values(width)
    elif name == "class_labels":
        count = config.get("num_embeds_ada_norm") or config.get("num_classes")
        if isinstance(count, int):
            yield classes(count)
    elif name == "guidance" and config.get("guidance_embeds"):
        yield time(high=10.0)
    elif name == "img_ids":
        yield places(_image_ids)
    elif name == "txt_ids":
        yield places(lambda sizes: torch.zeros(sizes["words"], 3))
    elif name == "img_shapes":
        yield given(lambda sizes: [[(1, sizes["rows"], sizes["columns"])]])


def _latents(channels: int, config: Config) -> Iterator[Argument]:
    patch, frames = _patch(config)
    yield picture(channels, patch)
    yield clip(channels, patch, frames)
    yield frames_first(channels, patch, frames)
    yield values("rows*columns", channels)


def _patch(config: Config) -> tuple[int, int]:
    """In height and width, and in frames."""
    patch, frames = config.get("patch_size"), config.get("patch_size_t")
    if isinstance(patch, Sequence) and len(patch) == 3:
        return int(patch[1]), int(patch[0])
    if isinstance(patch, Sequence) and patch:
        return int(patch[-1]), 1
    return (patch if isinstance(patch, int) else 1), (frames if isinstance(frames, int) else 1)


def _image_ids(sizes: Sizes) -> Tensor:
    rows, columns = torch.arange(sizes["rows"]), torch.arange(sizes["columns"])
    down, across = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([torch.zeros_like(down), down, across], dim=-1).flatten(0, 1).float()


def _fails(module: nn.Module, signature: Signature) -> str:
    """Why a call fails; empty where it does not. Nothing is computed, unless values decide what."""
    dtype, device = dtype_of(module), next((one.device for one in module.parameters()), "cpu")
    generator = torch.Generator().manual_seed(0)
    called = pytree.tree_map_only(
        Tensor,
        lambda x: x.to(device),
        call_arguments(signature.arguments, SIZES[0], generator, dtype),
    )
    accepts = inspect.signature(module.forward).parameters
    extra = {"return_dict": False} if "return_dict" in accepts else {}
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        try:
            with mode, torch.no_grad():
                fakes = pytree.tree_map_only(Tensor, mode.from_tensor, called)
                found = pytree.tree_leaves(module(**fakes, **extra))
        except (DataDependentOutputException, DynamicOutputShapeException):
            with torch.no_grad():
                found = pytree.tree_leaves(module(**called, **extra))
    except Exception as error:  # whatever the model's own code raises for other shapes
        return f"{type(error).__name__}: {error}"
    return "" if any(isinstance(one, Tensor) for one in found) else "it returns no tensor"


def _shown(argument: Argument) -> str:
    return f"[{', '.join(map(str, argument.dims))}]"
