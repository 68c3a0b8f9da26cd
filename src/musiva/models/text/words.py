"""What a prompt is to a denoiser. L rows, D width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from musiva.core.types import Prompt

__all__ = ["Prompts", "Words"]


@dataclass(frozen=True, slots=True)
class Words:
    """rows_LD: of the text stream. tables: what is one for the whole prompt, by the name that
    `musiva.models.Inputs.extra` has for it. padding_LD: what the text encoder makes of padding
    behind the prompt, where a pipeline gives the other branch as many words as the first one has.
    """

    rows_LD: Tensor
    tables: Mapping[str, Tensor] = field(default_factory=dict)
    padding_LD: Tensor | None = None

    def beside(self, first: Words) -> Tensor:
        """[L, D]: the rows of a branch beside that of another prompt."""
        if self.padding_LD is None:
            return self.rows_LD
        return torch.cat((self.rows_LD, self.padding_LD))[: len(first.rows_LD)]


class Prompts(Protocol):
    """The text side of a pipeline."""

    @property
    def width(self) -> int:
        """D of the rows."""
        ...

    @property
    def num_bytes(self) -> int:
        """Of its weights."""
        ...

    @property
    def modules(self) -> Sequence[nn.Module]:
        """What encodes."""
        ...

    def tokenize(self, prompt: str) -> list[int]:
        """The ids of a prompt; host only and cheap, to check it before it is queued. Raises
        InvalidInput for one that is too long or not Unicode text.
        """
        ...

    def words(self, prompts: Sequence[Prompt]) -> list[Words]:
        """What prompts are to the denoiser. Raises InvalidInput as `tokenize` does."""
        ...
