"""Pipelines of diffusers around a captured denoiser: what they make of prompts, with their own text
encoders and tokenizers, and what they are called with by default.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from musiva.core.errors import BadCheckpoint, InvalidInput, Unavailable
from musiva.core.types import Prompt
from musiva.models.captured.base import ClassDenoiser
from musiva.models.captured.load import module_from
from musiva.models.text import Words
from musiva.models.weights import read_config

__all__ = ["PIPELINES", "ClipKind", "DiffusersPrompts", "PipelineKind"]

Encode = Callable[[Any, Prompt], Words]
Make = Callable[..., ClassDenoiser]
# That a prompt is padded to.
WAN_WORDS, COGVIDEOX_WORDS, LATTE_WORDS = 512, 226, 120


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipKind:
    """Of a pipeline of clips. frames, fps, size: (width, height), what it is called with; no size
    where its transformer tells. together: frames of a latent that its autoencoder decodes at a
    time, in which a clip has to come. frames_first: the class has a latent as [F, C, h, w].
    """

    frames: int
    fps: float
    size: tuple[int, int] | None = None
    together: int = 1
    frames_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineKind:
    """encode: a prompt by the pipeline's own means. tokenizers: names of those that a prompt has to
    fit, where it is not cut; max_words: of it. steps, guidance: what the pipeline does by default.
    spacing: of its noise levels, where it sets them itself. packed: positions of the latent along
    each side of what the class takes as a token. time_scale: of the class's time over the
    schedule's, beside what its config says. backwards: see `CapturedDenoiser`. rule: of guidance,
    `musiva.samplers.guide`. distilled: guidance is an input, where the class takes it at all. clip:
    of one of clips. index: entries of model_index.json, and the values with which it is served.
    """

    encode: Encode
    tokenizers: tuple[str, ...]
    max_words: int
    steps: int = 28
    guidance: float = 4.5
    spacing: str | None = None
    packed: int = 1
    time_scale: float = 1.0
    backwards: bool = False
    rule: Literal["linear", "kept_norm"] = "linear"
    distilled: bool = False
    clip: ClipKind | None = None
    index: Mapping[str, tuple[object, ...]] = field(default_factory=dict)

    def check(self, directory: Path, index: Mapping[str, object]) -> None:
        """Raises BadCheckpoint for a directory with more than is served."""
        for name, allowed in self.index.items():
            value = index.get(name)
            if value is not None and value not in allowed:
                supported = " or ".join(map(repr, allowed)) or "null"
                raise BadCheckpoint(f"{directory}: {name}: got {value!r}; supported: {supported}")

    def denoiser(self, directory: Path, dtype: torch.dtype, make: Make) -> ClassDenoiser:
        """Of a pipeline's directory. make: of the class, with what the pipeline knows of it. Raises
        BadCheckpoint, CannotCapture, Unavailable.
        """
        module: Any = module_from(directory / "transformer", dtype)
        # Sana's pipeline multiplies the time by it.
        scale = self.time_scale * float(module.config.get("timestep_scale", 1.0))
        return make(module, packed=self.packed, time_scale=scale, backwards=self.backwards)

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
    def modules(self) -> Sequence[nn.Module]:
        found = self._pipeline.components.values()
        return [part for part in found if isinstance(part, nn.Module)]

    @property
    def width(self) -> int:
        return self._width

    @property
    def num_bytes(self) -> int:
        return sum(weight.nbytes for module in self.modules for weight in module.parameters())

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
    def words(self, prompts: Sequence[Prompt]) -> list[Words]:
        """One by one, so that nothing depends on who else asks."""
        for prompt in prompts:
            self.tokenize(prompt.text)
        with _quiet():
            return [self._kind.encode(self._pipeline, prompt) for prompt in prompts]


def _text_pipeline(directory: Path, dtype: torch.dtype) -> Any:
    """Without its denoiser and its autoencoder: nothing but configs, vocabularies and safetensors
    is read.
    """
    if importlib.util.find_spec("transformers") is None:
        raise Unavailable(
            "text encoders of diffusers need transformers: pip install musiva[diffusers]"
        )
    import diffusers

    # Its own class knows which parts may be absent.
    name = read_config(directory, "model_index.json").get("_class_name")
    kind: Any = getattr(diffusers, str(name))
    without: Mapping[str, Any] = {"transformer": None, "vae": None}
    try:
        with _quiet():
            found = kind.from_pretrained(
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


def _stable_diffusion_3(pipeline: Any, prompt: Prompt) -> Words:
    rows, _, pooled, _ = pipeline.encode_prompt(
        prompt.text, None, None, device=pipeline.device, do_classifier_free_guidance=False
    )
    return Words(rows[0], {"pooled_projections": pooled[0]})


def _flux(pipeline: Any, prompt: Prompt) -> Words:
    rows, pooled, _ = pipeline.encode_prompt(prompt.text, None, device=pipeline.device)
    return Words(rows[0], {"pooled_projections": pooled[0]})


def _sana(pipeline: Any, prompt: Prompt) -> Words:
    """What tells the text encoder to embellish a prompt is not said of a negative one."""
    told = None if prompt.negative else _default(pipeline, "complex_human_instruction")
    rows, mask, _, _ = pipeline.encode_prompt(
        prompt.text, False, device=pipeline.device, complex_human_instruction=told
    )
    return Words(rows[0][mask[0].bool()])


def _qwen_image(pipeline: Any, prompt: Prompt) -> Words:
    most = _default(pipeline, "max_sequence_length")
    rows, _ = pipeline.encode_prompt(prompt.text, device=pipeline.device, max_sequence_length=most)
    return Words(rows[0])


def _z_image(pipeline: Any, prompt: Prompt) -> Words:
    (rows,), _ = pipeline.encode_prompt(
        prompt.text, device=pipeline.device, do_classifier_free_guidance=False
    )
    return Words(rows)


def _default(pipeline: Any, name: str) -> Any:
    """Of an argument of a pipeline's call."""
    return inspect.signature(type(pipeline).__call__).parameters[name].default


def _wan(pipeline: Any, prompt: Prompt) -> Words:
    """Rows of zeros behind the words are attended to like these."""
    rows, _ = pipeline.encode_prompt(
        prompt.text,
        do_classifier_free_guidance=False,
        max_sequence_length=WAN_WORDS,
        device=pipeline.device,
    )
    return Words(rows[0])


def _cogvideox(pipeline: Any, prompt: Prompt) -> Words:
    """So is what the encoder makes of padding."""
    rows, _ = pipeline.encode_prompt(
        prompt.text,
        do_classifier_free_guidance=False,
        max_sequence_length=COGVIDEOX_WORDS,
        device=pipeline.device,
    )
    return Words(rows[0])


def _latte(pipeline: Any, prompt: Prompt) -> Words:
    """A negative prompt has as many rows as the prompt beside it, padding where it is shorter."""
    rows, _ = pipeline.encode_prompt(
        prompt.text,
        do_classifier_free_guidance=False,
        clean_caption=True,
        mask_feature=False,
        device=pipeline.device,
    )
    text = pipeline._text_preprocessing(prompt.text, clean_caption=True)
    (ids,) = pipeline.tokenizer(text, truncation=True, max_length=LATTE_WORDS).input_ids
    return Words(rows[0][: len(ids)], padding_LD=rows[0][len(ids) :])


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
    # Of the 300 rows that are kept, one is the instruction's last.
    "SanaPipeline": PipelineKind(
        encode=_sana,
        tokenizers=("tokenizer",),
        max_words=299,
        steps=20,
    ),
    # Of 512, the end of the question and the beginning of the answer take 5.
    "QwenImagePipeline": PipelineKind(
        encode=_qwen_image,
        tokenizers=("tokenizer",),
        max_words=507,
        steps=50,
        guidance=4.0,
        spacing="even",
        packed=2,
        time_scale=1e-3,
        rule="kept_norm",
    ),
    # Of 512, the question and the beginning of the answer take 8. Its own guidance counts from 0.
    "ZImagePipeline": PipelineKind(
        encode=_z_image,
        tokenizers=("tokenizer",),
        max_words=504,
        steps=50,
        guidance=6.0,
        spacing="even",
        time_scale=1e-3,
        backwards=True,
    ),
    "WanPipeline": PipelineKind(
        encode=_wan,
        tokenizers=("tokenizer",),
        max_words=WAN_WORDS,
        steps=50,
        guidance=5.0,
        clip=ClipKind(frames=81, fps=16.0, size=(832, 480)),
        # Two denoisers, and a time for each token.
        index={
            "transformer_2": ([None, None],),
            "boundary_ratio": (),
            "expand_timesteps": (False,),
        },
    ),
    "CogVideoXPipeline": PipelineKind(
        encode=_cogvideox,
        tokenizers=("tokenizer",),
        max_words=COGVIDEOX_WORDS,
        steps=50,
        guidance=6.0,
        clip=ClipKind(frames=49, fps=8.0, together=2, frames_first=True),
    ),
    "LattePipeline": PipelineKind(
        encode=_latte,
        tokenizers=("tokenizer",),
        max_words=LATTE_WORDS,
        steps=50,
        guidance=7.5,
        clip=ClipKind(frames=16, fps=8.0, size=(512, 512)),
    ),
}
