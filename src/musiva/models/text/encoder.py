"""A tokenizer and a T5 encoder as one thing: prompts to text rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from musiva.core.errors import BadCheckpoint
from musiva.core.types import Prompt
from musiva.models.text.t5 import LinearFn, T5Encoder, plain_linear, t5_tensors
from musiva.models.text.tokenizer import Tokenizer, normalise
from musiva.models.text.words import Words
from musiva.models.weights import load_weights, read_config, read_tensors

__all__ = ["TextEncoder", "load_t5"]


def load_t5(directory: Path, dtype: torch.dtype = torch.float32) -> T5Encoder:
    """Read a diffusers `text_encoder/` folder into an encoder of `dtype`, in eval mode, on the CPU.

    Raises `BadCheckpoint` naming the file, setting or tensor that is missing or not supported.
    """
    with torch.device("meta"):
        encoder = T5Encoder.from_config(read_config(directory))
    tensors = read_tensors(directory)
    try:
        load_weights(encoder, t5_tensors(tensors))
    except BadCheckpoint as error:
        raise BadCheckpoint(f"{directory}: {error}") from error
    return encoder.to(dtype).eval()


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """What a pipeline does with prompts. Every prompt, also the empty one, gives at least a row.

    `normalise` is applied before tokenising, as the PixArt pipelines do.
    """

    tokenizer: Tokenizer
    model: T5Encoder
    normalise: Callable[[str], str] = normalise

    def __post_init__(self) -> None:
        rows = self.model.config.vocab_size
        if self.tokenizer.vocab_size > rows:
            raise BadCheckpoint(
                f"the tokenizer has {self.tokenizer.vocab_size} ids, "
                f"the text encoder's vocab_size is {rows}; supported: no more ids than that"
            )

    @property
    def modules(self) -> Sequence[nn.Module]:
        return (self.model,)

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        dtype: torch.dtype = torch.float32,
        max_length: int | None = None,
    ) -> TextEncoder:
        """Read `tokenizer/` and `text_encoder/` of a diffusers pipeline directory.

        `max_length` caps the tokens of a prompt (PixArt-alpha's pipeline allows 120, Sigma's 300).
        Raises `BadCheckpoint`.
        """
        tokenizer = Tokenizer.load(directory / "tokenizer", max_length=max_length)
        return cls(tokenizer, load_t5(directory / "text_encoder", dtype))

    @property
    def width(self) -> int:
        """D of the rows that `encode` gives."""
        return self.model.config.d_model

    @property
    def num_bytes(self) -> int:
        """Of its weights."""
        return sum(weight.nbytes for weight in self.model.parameters())

    def tokenize(self, prompt: str) -> list[int]:
        """The ids of a prompt; host only and cheap, to check a prompt before it is queued.

        Raises `InvalidInput` for a prompt that is too long or not Unicode text.
        """
        return self.tokenizer.encode(self.normalise(prompt))

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], *, linear: LinearFn = plain_linear) -> list[Tensor]:
        """One `[L, D]` a prompt, L as `tokenize` counts, without gradient, on the model's device.

        The empty prompt, which is the usual negative one, gives the row of the eos token. Raises
        `InvalidInput` as `tokenize` does, before anything is computed.
        """
        return self.model([torch.tensor(self.tokenize(text)) for text in prompts], linear=linear)

    def words(self, prompts: Sequence[Prompt]) -> list[Words]:
        """The same, as pipelines ask for it (`musiva.models.text.Prompts`)."""
        return [Words(rows_LD) for rows_LD in self.encode([prompt.text for prompt in prompts])]
