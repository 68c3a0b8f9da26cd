"""Musiva serves and trains diffusion models for images and video.

`import musiva` is light: torch is loaded when `Engine` or `load_denoiser` is first touched, and
never for `Client` and `AsyncClient`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from musiva.core import errors

if TYPE_CHECKING:
    from musiva.client import AsyncClient, Client
    from musiva.engine import Engine, load_denoiser

__all__ = ["AsyncClient", "Client", "Engine", "__version__", "errors", "load_denoiser"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name in ("Engine", "load_denoiser"):
        from musiva import engine

        return getattr(engine, name)
    if name in ("AsyncClient", "Client"):
        from musiva import client

        return getattr(client, name)
    raise AttributeError(f"module 'musiva' has no attribute {name!r}")
