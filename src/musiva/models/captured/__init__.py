"""Denoisers captured from live classes of diffusers."""

from __future__ import annotations

from musiva.models.captured.denoiser import CapturedDenoiser
from musiva.models.captured.known import signature_of
from musiva.models.captured.known.base import Signature
from musiva.models.captured.load import captured_from, module_from, read_captured
from musiva.models.captured.pipelines import PIPELINES, PipelineKind
from musiva.models.captured.samples import Sample, read

__all__ = [
    "PIPELINES",
    "CapturedDenoiser",
    "PipelineKind",
    "Sample",
    "Signature",
    "captured_from",
    "module_from",
    "read",
    "read_captured",
    "signature_of",
]
