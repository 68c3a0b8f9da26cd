"""The layers that a program calls, over the parameters of the captured module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from musiva.compiler.program import Program

__all__ = ["bind", "is_made_of", "merged"]


def bind(
    program: Program, module: nn.Module, constants: Mapping[str, Tensor]
) -> tuple[dict[str, nn.Linear], dict[str, nn.Conv2d]]:
    """Linear layers and convolutions by site: those of the module itself where they are what the
    program calls, else layers that share its tensors.
    """
    layers: dict[str, nn.Linear] = {}
    convolutions: dict[str, nn.Conv2d] = {}
    for site, (weight, bias) in program.layers.items():
        tensors = constants[weight], constants[bias] if bias else None
        if site in program.convolutions:
            convolutions[site] = _convolution(*tensors, program.convolutions[site])
        else:
            own = _submodule(module, site)
            is_same = type(own) is nn.Linear and own.weight is tensors[0] and own.bias is tensors[1]
            layers[site] = own if is_same else _linear(*tensors)  # pyright: ignore
    return layers, convolutions


def merged(parts: Sequence[nn.Linear]) -> nn.Linear:
    """One layer that gives the results of several, behind one another. Parameters of these become
    views of its own, so that nothing is there twice and what changes one in place changes both.
    """
    sizes = [part.out_features for part in parts]
    with torch.inference_mode(False), torch.no_grad():
        weights: list[Tensor] = [part.weight for part in parts]
        biases: list[Tensor] = [part.bias for part in parts if part.bias is not None]
        weight, bias = torch.cat(weights), torch.cat(biases) if biases else None
        for whole, several in ((weight, weights), (bias, biases)):
            views = whole.split(sizes) if whole is not None else ()
            for view, own in zip(views, several, strict=True):
                if isinstance(own, nn.Parameter):
                    own.data = view
    layer = nn.Linear(parts[0].in_features, sum(sizes), bias=False, device="meta")
    return _with(layer, weight, bias)  # pyright: ignore[reportReturnType]


def is_made_of(layer: nn.Linear, parts: Sequence[nn.Linear]) -> bool:
    """Whether the parameters of these are still its views; they may have been moved since."""
    first = 0
    for part in parts:
        for whole, own in ((layer.weight, part.weight), (layer.bias, part.bias)):
            if isinstance(own, nn.Parameter):
                place = first * whole.stride(0) * whole.element_size()
                if own.data_ptr() != whole.data_ptr() + place or own.dtype != whole.dtype:
                    return False
        first += part.out_features
    return True


def _submodule(module: nn.Module, site: str) -> nn.Module | None:
    try:
        return module.get_submodule(site.partition("#")[0])
    except AttributeError:
        return None


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A convolution on a token alone is one over its channels and places."""
    flat = weight.flatten(1)
    layer = nn.Linear(flat.shape[1], flat.shape[0], bias=False, device="meta")
    return _with(layer, flat, bias)  # pyright: ignore[reportReturnType]


def _convolution(weight: Tensor, bias: Tensor | None, options: Mapping[str, object]) -> nn.Conv2d:
    groups = options.get("groups", 1)
    assert isinstance(groups, int)
    layer = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        bias=False,
        device="meta",
        **{name: given for name, given in options.items() if name != "input"},  # type: ignore[arg-type]
    )
    return _with(layer, weight, bias)  # pyright: ignore[reportReturnType]


def _with(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """With tensors that are the module's, or views of them: gradients reach what they are of."""
    del layer.weight
    layer.weight = weight  # pyright: ignore[reportArgumentType]
    if bias is not None:
        del layer.bias
        layer.bias = bias  # pyright: ignore[reportArgumentType]
    return layer
