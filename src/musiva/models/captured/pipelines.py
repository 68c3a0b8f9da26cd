"""Pipelines of diffusers around a captured denoiser: what they make of prompts, with their own text
encoders and tokenizers, and what they are called with by default.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from musiva.core.errors import BadCheckpoint, InvalidInput, Unavailable
from musiva.models.captured.base import ClassDenoiser
from musiva.models.captured.load import module_from
from musiva.models.text import Words

__all__ = ["PIPELINES", "DiffusersPrompts", "PipelineKind"]

Encode = Callable[[Any, str], Words]
Make = Callable[..., ClassDenoiser]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineKind:
    """encode: a prompt by the pipeline's own means. tokenizers: names of those that a prompt has to
    fit, where it is not cut; max_words: of it. steps, guidance: what the pipeline does by default.
    spacing: of its noise levels, where it sets them itself. packed: positions of the latent along
    each side of what the class takes as a token. time_scale: of the class's time over the
    schedule's. distilled: guidance is an input, where the class takes it at all.
    """

    encode: Encode
    tokenizers: tuple[str, ...]
    max_words: int
    steps: int = 28
    guidance: float = 4.5
    spacing: str | None = None
    packed: int = 1
    time_scale: float = 1.0
    distilled: bool = False

    def denoiser(self, directory: Path, dtype: torch.dtype, make: Make) -> ClassDenoiser:
        """Of a pipeline's directory. make: of the class, with what the pipeline knows of it. Raises
        BadCheckpoint, CannotCapture, Unavailable.
        """
        module = module_from(directory / "transformer", dtype)
        return make(module, packed=self.packed, time_scale=self.time_scale)

    def prompts(self, directory: Path, dtype: torch.dtype, width: int | None) -> DiffusersPrompts:
        """width: of the denoiser's text. Raises BadCheckpoint, Unavailable."""
        return DiffusersPrompts(self, _text_pipeline(directory, dtype), width or 0)


class DiffusersPrompts:
    """The text side of a pipeline of diffusers, as it is (`musiva.models.text.Prompts`)."""

    def __init__(self, kind: PipelineKind, pipeline: Any, width: int) -> None:
        self._kind, self._pipeline, self._width = kind, pipeline, width
        found = (getattr(pipeline, name, None) for name in kind.tokenizers)
        self._tokenizer: Any = next((one for one in found if one is not None), None)

    @property
    def width(self) -> int:
        return self._width

    @property
    def num_bytes(self) -> int:
        parts = self._pipeline.components.values()
        modules = [one for one in parts if isinstance(one, nn.Module)]
        return sum(weight.nbytes for module in modules for weight in module.parameters())

    def to(self, device: torch.device) -> DiffusersPrompts:
        self._pipeline.to(device)
        return self

    def tokenize(self, prompt: str) -> list[int]:
        if self._tokenizer is None:
            return []
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput("prompt", prompt, "Unicode text") from error
        with _quiet():
            ids = list(self._tokenizer(prompt, truncation=False).input_ids)
        if len(ids) > self._kind.max_words:
            allowed = f"at most {self._kind.max_words} tokens of the model's tokenizer"
            raise InvalidInput("prompt", f"{len(ids)} tokens", allowed)
        return ids

    @torch.no_grad()
    def words(self, prompts: Sequence[str]) -> list[Words]:
        """One by one, so that nothing depends on who else asks."""
        for prompt in prompts:
            self.tokenize(prompt)
        with _quiet():
            return [self._kind.encode(self._pipeline, prompt) for prompt in prompts]


def _text_pipeline(directory: Path, dtype: torch.dtype) -> Any:
    """Without its denoiser and its autoencoder: nothing but configs, vocabularies and safetensors
    is read.
    """
    if importlib.util.find_spec("transformers") is None:
        raise Unavailable("text encoders of other families need transformers: musiva[diffusers]")
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    without: Mapping[str, Any] = {"transformer": None, "vae": None}
    try:
        with _quiet():
            found = DiffusionPipeline.from_pretrained(
                str(directory),
                **without,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
            )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise BadCheckpoint(f"{directory}: {' '.join(str(error).split())[:400]}") from error
    found.to(dtype)
    found.set_progress_bar_config(disable=True)
    for part in found.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    return found


@contextmanager
def _quiet() -> Any:
    """What these libraries say of prompts and files is told by errors of ours, or expected."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _stable_diffusion_3(pipeline: Any, prompt: str) -> Words:
    rows, _, pooled, _ = pipeline.encode_prompt(
        prompt, None, None, device=pipeline.device, do_classifier_free_guidance=False
    )
    return Words(rows[0], {"pooled_projections": pooled[0]})


def _flux(pipeline: Any, prompt: str) -> Words:
    rows, pooled, _ = pipeline.encode_prompt(prompt, None, device=pipeline.device)
    return Words(rows[0], {"pooled_projections": pooled[0]})


PIPELINES: Mapping[str, PipelineKind] = {
    "StableDiffusion3Pipeline": PipelineKind(
        encode=_stable_diffusion_3,
        tokenizers=("tokenizer_3", "tokenizer"),
        max_words=256,
        guidance=7.0,
    ),
    "FluxPipeline": PipelineKind(
        encode=_flux,
        tokenizers=("tokenizer_2",),
        max_words=512,
        guidance=3.5,
        spacing="even",
        packed=2,
        time_scale=1e-3,
        distilled=True,
    ),
}
