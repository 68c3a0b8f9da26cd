"""Denoisers of live classes of diffusers: captured, or called as they are."""

from __future__ import annotations

from musiva.models.captured.autoencoders import DiffusersAutoencoder, read_autoencoder
from musiva.models.captured.base import ClassDenoiser
from musiva.models.captured.denoiser import CapturedDenoiser
from musiva.models.captured.known import signature_of
from musiva.models.captured.known.base import Signature
from musiva.models.captured.load import altered, captured_from, module_from
from musiva.models.captured.pipelines import PIPELINES, ClipKind, PipelineKind
from musiva.models.captured.samples import Sample, read
from musiva.models.captured.whole import WholeDenoiser, whole_from

__all__ = [
    "PIPELINES",
    "CapturedDenoiser",
    "ClassDenoiser",
    "ClipKind",
    "DiffusersAutoencoder",
    "PipelineKind",
    "Sample",
    "Signature",
    "WholeDenoiser",
    "altered",
    "captured_from",
    "module_from",
    "read",
    "read_autoencoder",
    "signature_of",
    "whole_from",
]
