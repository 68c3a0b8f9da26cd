"""The tokenizer of the default model: a Unigram vocabulary (Kudo, 2018) of the captions, as T5 lays
it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from emoji_captions import corpus
from emoji_data import Emoji
from musiva.models.text import normalise, train_tokenizer

__all__ = ["MAX_TOKENS", "load_tokenizer"]

MAX_TOKENS = 96
VOCABULARY = 3072


def load_tokenizer(emoji: Sequence[Emoji], directory: Path, seed: int) -> Tokenizer:
    """The tokenizer in `directory`, trained on captions unless it is there."""
    path = directory / "tokenizer.json"
    if not path.exists():
        texts = (normalise(text) for text in corpus(emoji, seed=seed))
        train_tokenizer(texts, VOCABULARY, directory, MAX_TOKENS)
    return Tokenizer.from_file(str(path))
