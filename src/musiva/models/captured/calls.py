"""Calls of a class itself, with several samples of one size at once where it takes them so."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from musiva.compiler import Sizes
from musiva.compiler.arguments import Argument
from musiva.core.errors import CannotCapture

__all__ = ["called", "data_of", "forget", "made_of", "original"]

Arguments = Mapping[str, Argument]
# What `functools.lru_cache` makes of a function.
Cached = type(lru_cache(len))


def original(module: nn.Module) -> nn.Module:
    """The module that a compiled one stands for; else itself."""
    return getattr(module, "_orig_mod", module)


def forget(module: nn.Module) -> None:
    """Empty the caches of functions in its classes and their files: what these kept of a traced
    call is no tensor that a call could use.
    """
    kinds = {kind for one in module.modules() for kind in type(one).__mro__}
    files = {sys.modules[kind.__module__] for kind in kinds}
    for holder in (*kinds, *files):
        for value in list(vars(holder).values()):
            if isinstance(value, Cached):
                value.cache_clear()


def data_of(
    arguments: Arguments, sizes: Sizes, seed: int, dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """What a random sample brings, as the class takes it but without an axis of a batch."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}
    for name, one in arguments.items():
        example = one.example(sizes, generator) if one.is_data else None
        if isinstance(example, Tensor):
            found[name] = example.to(device, dtype if one.kind == "values" else example.dtype)
    return found


def made_of(arguments: Arguments, sizes: Sizes, device: torch.device) -> dict[str, object]:
    """What follows from sizes alone, for one sample without an axis of a batch."""
    generator = torch.Generator()
    examples = {
        name: one.example(sizes, generator) for name, one in arguments.items() if not one.is_data
    }
    return {
        name: pytree.tree_map_only(Tensor, lambda x: x.to(device), example)
        for name, example in examples.items()
    }


def called(
    module: nn.Module,
    arguments: Arguments,
    latent: str,
    samples: Sequence[Mapping[str, Tensor]],
    made: Mapping[str, object],
) -> list[Tensor]:
    """The prediction of each sample, without an axis of a batch; all have the same sizes, and go
    into one call. latent: the name of what the prediction is like. samples, made: as `data_of` and
    `made_of` have them. Raises whatever the class does, and CannotCapture where it does not return
    a prediction of each.
    """
    given: dict[str, object] = {"return_dict": False} if _takes_return_dict(module) else {}
    for name, one in arguments.items():
        if one.is_data:
            value = _batch([sample[name] for sample in samples], one)
        else:
            value = _repeated(made[name], one, len(samples))
        outer, _, inner = name.partition(".")
        if inner:
            entries = given.setdefault(outer, {})
            assert isinstance(entries, dict)
            entries[inner] = value
        else:
            given[outer] = value
    found = [x for x in pytree.tree_leaves(module(**given)) if isinstance(x, Tensor)]
    if arguments[latent].batch == "axis":
        found = list(found[0]) if found and found[0].ndim else []
    else:
        found = found[: len(samples)]
    if len(found) != len(samples):
        name = type(original(module)).__name__
        raise CannotCapture(f"{name}: {len(found)} predictions of {len(samples)} samples")
    return found


def _batch(values: Sequence[Tensor], argument: Argument) -> object:
    """New tensors: what a class does to its arguments is done to nothing else."""
    if argument.batch == "axis":
        return torch.stack(list(values))
    copies = [value.clone(memory_format=torch.contiguous_format) for value in values]
    return copies if argument.batch == "list" else copies[0]


def _repeated(value: object, argument: Argument, count: int) -> object:
    if argument.batch == "axis" and isinstance(value, Tensor):
        return torch.stack([value] * count)
    return [value] * count if argument.batch == "list" else value


def _takes_return_dict(module: nn.Module) -> bool:
    found = inspect.signature(original(module).forward).parameters
    return "return_dict" in found or any(one.kind is one.VAR_KEYWORD for one in found.values())
