"""The studio: one page for making pictures in a browser, plain modules and nothing from elsewhere."""

from __future__ import annotations

from musiva.studio.assets import routes

__all__ = ["routes"]
