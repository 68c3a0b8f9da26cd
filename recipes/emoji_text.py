"""The tokenizer of the default model: a Unigram vocabulary (Kudo, 2018) of the captions, as T5 lays
it out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from emoji_captions import corpus
from emoji_data import Emoji

__all__ = ["MAX_TOKENS", "load_tokenizer"]

MAX_TOKENS = 48
VOCABULARY = 3072
SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def load_tokenizer(emoji: Sequence[Emoji], directory: Path, seed: int) -> Tokenizer:
    """The tokenizer in `directory`, trained on captions unless it is there."""
    path = directory / "tokenizer.json"
    if not path.exists():
        _save(_train([text.lower() for text in corpus(emoji, seed=seed)]), directory)
    return Tokenizer.from_file(str(path))


def _train(texts: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL.values()),
        unk_token=SPECIAL["unk_token"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer


def _save(tokenizer: Tokenizer, directory: Path) -> None:
    config = {
        "tokenizer_class": "T5TokenizerFast",
        "model_max_length": MAX_TOKENS,
        "extra_ids": 0,
        **SPECIAL,
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in (("tokenizer_config", config), ("special_tokens_map", SPECIAL)):
        (directory / f"{name}.json").write_text(
            json.dumps(content, indent=2, sort_keys=True) + "\n"
        )
    temporary = directory / "tokenizer.tmp"
    tokenizer.save(str(temporary))
    temporary.replace(directory / "tokenizer.json")
