"""The studio: a page for making pictures, of plain modules, with nothing from elsewhere."""

from __future__ import annotations

from musiva.studio.assets import routes

__all__ = ["routes"]
