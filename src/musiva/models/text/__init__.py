"""T5-type text encoders and their tokenizers, from a diffusers directory."""

from __future__ import annotations

from musiva.models.text.config import T5Config
from musiva.models.text.encoder import TextEncoder, load_t5
from musiva.models.text.t5 import LinearFn, T5Encoder, plain_linear, t5_tensors
from musiva.models.text.tokenizer import Tokenizer, normalise, train_tokenizer
from musiva.models.text.words import Prompts, Words

__all__ = [
    "LinearFn",
    "Prompts",
    "T5Config",
    "T5Encoder",
    "TextEncoder",
    "Tokenizer",
    "Words",
    "load_t5",
    "normalise",
    "plain_linear",
    "t5_tensors",
    "train_tokenizer",
]
