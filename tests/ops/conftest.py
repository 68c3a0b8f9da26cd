"""Triton kernels for the tests of this folder: interpreted, and on a GPU where there is one."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

import pytest
import torch
from tests.ops.interpreter import Call, interpreter


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Call]:
    pytest.importorskip("triton")
    with interpreter() as call:
        yield call


@pytest.fixture(params=["interpreted", pytest.param("compiled", marks=pytest.mark.gpu)])
def kernel(request: pytest.FixtureRequest) -> Callable:
    """kernel(op, name, *args): the result of a Triton kernel's launcher, and its arguments
    afterwards, on the CPU.
    """
    if request.param == "interpreted":
        return request.getfixturevalue("interpreted")

    def compiled(op: str, name: str, *args):
        there = [_moved(x, "cuda") for x in args]
        result = getattr(importlib.import_module(f"musiva.ops.{op}.triton"), name)(*there)
        return _moved(result, "cpu"), tuple(_moved(x, "cpu") for x in there)

    return compiled


def _moved(x, device: str):
    """With its whole storage, so that strides and what lies between stay as they are."""
    if not isinstance(x, torch.Tensor):
        return x
    whole = x.as_strided((x.untyped_storage().nbytes() // x.element_size(),), (1,), 0)
    return whole.to(device).as_strided(x.shape, x.stride(), x.storage_offset())
