"""From prompts to token ids, as transformers' T5 tokenizer counts them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from musiva.core.errors import BadCheckpoint, InvalidInput
from musiva.models.text.unigram import (
    EOS,
    PAD,
    SPECIAL,
    UNKNOWN,
    Vocabulary,
    read_spiece,
    t5_backend,
)
from musiva.models.text.unigram_train import fit_unigram
from musiva.models.weights import read_config

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

__all__ = ["Tokenizer", "normalise", "train_tokenizer"]

T5_LENGTH = 512
"""The length T5 was trained at; taken when a folder states none."""

NO_LENGTH = 10**9
"""From here up a `model_max_length` says "unlimited": transformers writes 1e30 for it."""


def normalise(text: str) -> str:
    """Lower-case, then strip white space at both ends.

    The rule of diffusers' PixArt pipelines for prompts and negative prompts when `clean_caption` is
    off. (When it is on they delete links, markup and much punctuation; that is not offered.)
    """
    return text.lower().strip()


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Text to ids below `vocab_size`, ending with `eos_id`; at most `max_length` with it."""

    backend: Backend = field(repr=False)
    max_length: int
    vocab_size: int
    eos_id: int

    @classmethod
    def load(cls, directory: Path, *, max_length: int | None = None) -> Tokenizer:
        """Read a diffusers `tokenizer/` folder: `tokenizer.json`, otherwise T5's `spiece.model`.

        `max_length` is the folder's `model_max_length` (512 if it states none), or the argument
        where that is smaller: a pipeline may allow less than its tokenizer does. Padding and
        truncation that a file asks for are switched off. Raises `BadCheckpoint` when a file is
        missing or broken, or does not end texts with its eos token.
        """
        config = _read_optional(directory, "tokenizer_config.json")
        if (directory / "tokenizer.json").is_file():
            backend = _read_backend(directory / "tokenizer.json")
        elif (directory / "spiece.model").is_file():
            backend = _from_spiece(directory / "spiece.model", config)
        else:
            raise BadCheckpoint(f"{directory}: neither tokenizer.json nor spiece.model is there")
        backend.no_padding()
        backend.no_truncation()
        eos = _eos_token(directory, config)
        eos_id = backend.token_to_id(eos)
        if eos_id is None or backend.encode("").ids != [eos_id]:
            raise BadCheckpoint(f"{directory}: the tokenizer does not end texts with {eos!r}")
        stated = _stated_length(directory, config)
        return cls(
            backend=backend,
            max_length=stated if max_length is None else min(stated, max_length),
            vocab_size=1 + max(backend.get_vocab(with_added_tokens=True).values()),
            eos_id=eos_id,
        )

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, eos last. The empty text gives the eos alone. Host only.

        Nothing is cut off: diffusers truncates a long prompt with a warning, which drops words the
        user meant, so here a prompt of more than `max_length` tokens raises `InvalidInput`, as do
        surrogates without a partner, which no encoding of Unicode can carry.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidInput("prompt", text, "Unicode text without lone surrogates") from None
        ids = self.backend.encode(text).ids
        if len(ids) > self.max_length:
            raise InvalidInput("prompt", text, f"at most {self.max_length} tokens, got {len(ids)}")
        return ids


def train_tokenizer(
    captions: Iterable[str], vocab_size: int, directory: Path, max_length: int
) -> Tokenizer:
    """Fit a vocabulary (`unigram_train`) and write it as a diffusers `tokenizer/` folder.

    Captions are normalised first (see `normalise`), as prompts are. Ids 0, 1, 2 are pad, eos and
    unknown. `vocab_size` is an upper bound: a small corpus yields fewer pieces, so size the
    embedding by the `vocab_size` of what is returned. `max_length` counts tokens with the eos.
    The files hold no lower-casing rule of their own, since transformers rebuilds a T5 tokenizer
    from the vocabulary alone and would drop it. The same captions give the same files.

    Raises `InvalidInput` for a size or length out of range and for captions without text.
    """
    if vocab_size < 8:
        raise InvalidInput("vocab_size", vocab_size, "8 or more")
    if max_length < 1:
        raise InvalidInput("max_length", max_length, "1 or more")
    pieces = fit_unigram(map(normalise, captions), vocab_size - len(SPECIAL))
    if not pieces:
        raise InvalidInput("captions", [], "at least one caption with text")
    trained = t5_backend(Vocabulary((*((token, 0.0) for token in SPECIAL), *pieces)))

    special = {"eos_token": EOS, "pad_token": PAD, "unk_token": UNKNOWN}
    config = {
        "tokenizer_class": "T5TokenizerFast",
        "model_max_length": max_length,
        "extra_ids": 0,
        **special,
    }
    directory.mkdir(parents=True, exist_ok=True)
    trained.save(str(directory / "tokenizer.json"))
    for name, content in (("tokenizer_config", config), ("special_tokens_map", special)):
        path = directory / f"{name}.json"
        path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return Tokenizer.load(directory)


def _read_backend(path: Path) -> Backend:
    from tokenizers import Tokenizer as Backend

    try:
        return Backend.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise BadCheckpoint(f"{path}: not a tokenizer file ({error})") from error


def _from_spiece(path: Path, config: Mapping[str, object]) -> Backend:
    """T5 without a `tokenizer.json`; the config's `added_tokens_decoder` may refine its tokens."""
    from tokenizers import AddedToken

    extra_ids = config.get("extra_ids", 100)
    if not isinstance(extra_ids, int) or extra_ids < 0:
        raise BadCheckpoint(f"{path.parent}: extra_ids is {extra_ids!r}; supported: 0 or more")
    added = [
        AddedToken(f"<extra_id_{index}>", normalized=False, special=True)
        for index in range(extra_ids)
    ]
    refined = config.get("added_tokens_decoder", {})
    try:
        if not isinstance(refined, dict):
            raise TypeError(f"got {refined!r}; supported: an object of tokens by id")
        added += [AddedToken(**refined[key]) for key in sorted(refined, key=int)]
    except (TypeError, ValueError) as error:
        raise BadCheckpoint(f"{path.parent}: added_tokens_decoder: {error}") from error
    return t5_backend(read_spiece(path, extra_ids), added)


def _eos_token(directory: Path, config: Mapping[str, object]) -> str:
    token = {**_read_optional(directory, "special_tokens_map.json"), **config}.get("eos_token", EOS)
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str):
        raise BadCheckpoint(f"{directory}: eos_token is {token!r}; supported: a text")
    return content


def _stated_length(directory: Path, config: Mapping[str, object]) -> int:
    length = config.get("model_max_length", NO_LENGTH)
    if not isinstance(length, int | float) or isinstance(length, bool) or length < 1:
        raise BadCheckpoint(
            f"{directory}: model_max_length is {length!r}; supported: a whole number from 1 up"
        )
    return T5_LENGTH if length >= NO_LENGTH else int(length)


def _read_optional(directory: Path, name: str) -> dict[str, object]:
    return read_config(directory, name) if (directory / name).is_file() else {}
