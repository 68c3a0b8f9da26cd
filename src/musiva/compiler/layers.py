"""The layers that a program calls, over the parameters of the captured module."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from musiva.compiler.program import Program

__all__ = ["bind"]


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
