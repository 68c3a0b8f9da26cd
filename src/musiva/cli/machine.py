"""What commands that compute have in common: threads, then the engine."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from musiva.core.env import Env

if TYPE_CHECKING:
    from musiva.engine import Engine

__all__ = ["as_loaded", "load_engine", "set_threads"]


def set_threads(threads: int | None, env: Env) -> None:
    """Threads of the CPU kernels: the flag, or else MUSIVA_THREADS, or else PyTorch's choice."""
    chosen = env.threads if threads is None else threads
    if chosen is not None:
        import torch

        torch.set_num_threads(chosen)


def as_loaded(arguments: Namespace) -> dict[str, Any]:
    """How a model is loaded, as keywords of `load_pipeline`."""
    own = {"dtype": arguments.dtype, "device": arguments.device}
    return {**own, "compiled": arguments.compile}


def load_engine(arguments: Namespace, env: Env, config: Engine.Config) -> Engine:
    """Raises UnknownModel, BadCheckpoint, InvalidInput."""
    from musiva.engine import Engine

    set_threads(arguments.threads, env)
    return Engine.load(arguments.model, config, **as_loaded(arguments))
