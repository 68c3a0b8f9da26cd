"""Constructs of models that `torch.export` gets wrong, traced as others that it knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Repairs"]

READS_DATA: Any = Tensor.data.__get__  # pyright: ignore[reportAttributeAccessIssue]


class Repairs(TorchFunctionMode):
    """While it is on, `x.data` is `x.detach()`: of the former the tracer knows nothing, and takes
    what a model writes there (CogVideoX its table of positions) for a constant without numbers.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func == READS_DATA:
            return args[0].detach()
        return func(*args, **(kwargs or {}))
