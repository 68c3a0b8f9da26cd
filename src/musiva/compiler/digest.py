"""A digest of values, the same in every process."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["digest"]

LEAVES = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.layout)


def digest(value: object) -> str:
    """Of plain values, tensors, and containers of them: 64 hexadecimal digits. Tensors count by
    what is in them; those without data by their shape. Raises TypeError for anything else.
    """
    found = hashlib.sha256()
    _feed(found, value)
    return found.hexdigest()


def _feed(found: Any, value: object) -> None:
    """Every value with its type and its length, so that no two are written alike."""
    if value is None or isinstance(value, LEAVES):
        text = repr(value)
        found.update(f"{type(value).__name__} {len(text)} {text}".encode())
    elif isinstance(value, Tensor):
        found.update(f"tensor {value.dtype} {tuple(value.shape)} {value.device}".encode())
        if not value.is_meta:
            found.update(_bytes(value))
    elif isinstance(value, Mapping):
        found.update(f"mapping {len(value)}".encode())
        for one in value.items():
            _feed(found, one)
    elif isinstance(value, set | frozenset):
        found.update(f"set {len(value)}".encode())
        for one in sorted(map(digest, value)):
            found.update(one.encode())
    elif isinstance(value, list | tuple):
        found.update(f"{'list' if isinstance(value, list) else 'tuple'} {len(value)}".encode())
        for one in value:
            _feed(found, one)
    else:
        raise TypeError(f"{type(value).__name__} has no digest")


def _bytes(x: Tensor) -> memoryview:
    x = x.detach().cpu().resolve_conj().resolve_neg()
    x = torch.view_as_real(x) if x.is_complex() else x
    return x.contiguous().reshape(-1).view(torch.uint8).numpy().data
