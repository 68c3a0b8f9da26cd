"""What a running engine and server can be asked about themselves."""

from __future__ import annotations

from musiva.telemetry.metrics import Metrics

__all__ = ["Metrics"]
