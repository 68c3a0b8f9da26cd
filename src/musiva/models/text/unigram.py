"""The T5 tokenizer built from a Unigram vocabulary, and the vocabulary read from `spiece.model`.

T5's conventions (as in transformers' `T5Tokenizer`): the normaliser is the character map of the
SentencePiece model alone; words are split at white space and each gets a leading "▁"; `</s>` ends
every text.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from musiva.core.errors import BadCheckpoint

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

__all__ = ["EOS", "PAD", "SPECIAL", "UNKNOWN", "Vocabulary", "read_spiece", "t5_backend"]

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"
SPECIAL = (PAD, EOS, UNKNOWN)
"""Their ids are their places: 0, 1, 2."""

Piece = tuple[str, float]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Pieces in the order of their ids, each with its log probability, and a character map.

    The map is SentencePiece's compiled table (mostly NFKC), empty when texts are taken as they are.
    """

    pieces: tuple[Piece, ...]
    charsmap: bytes = b""


def t5_backend(vocabulary: Vocabulary, added: Sequence[AddedToken] = ()) -> Backend:
    """The tokenizer of a vocabulary whose first three pieces are pad, eos and unknown.

    `added` are further tokens taken whole out of a text, or other rules for those three.
    """
    from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers import Tokenizer as Backend

    unigram = models.Unigram(
        list(vocabulary.pieces), unk_id=SPECIAL.index(UNKNOWN), byte_fallback=False
    )
    backend = Backend(unigram)
    if vocabulary.charsmap:
        backend.normalizer = normalizers.Precompiled(vocabulary.charsmap)
    metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    backend.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}",
        pair=f"$A {EOS} $B {EOS}",
        special_tokens=[(EOS, SPECIAL.index(EOS))],
    )
    whole = {token: AddedToken(token, normalized=False, special=True) for token in SPECIAL}
    whole.update((token.content, token) for token in added)
    backend.add_tokens(list(whole.values()))
    return backend


def read_spiece(path: Path, extra_ids: int) -> Vocabulary:
    """Read a SentencePiece model file; `extra_ids` sentinels follow its pieces, highest first.

    The file is a protocol buffer, `ModelProto` of sentencepiece_model.proto. Raises `BadCheckpoint`
    when it is cut short, is not a Unigram model, or does not number its pieces as T5 does.
    """
    try:
        vocabulary = _read_model(path.read_bytes())
    except OSError as error:
        raise BadCheckpoint(f"{path}: cannot be read ({error.strerror})") from error
    except (IndexError, ValueError, struct.error) as error:
        raise BadCheckpoint(f"{path}: not a complete SentencePiece model ({error})") from error
    first = tuple(piece for piece, _ in vocabulary.pieces[:3])
    if first != SPECIAL:
        raise BadCheckpoint(
            f"{path}: its first pieces are {first}; supported: {SPECIAL}, as T5 numbers them"
        )
    sentinels = tuple((f"<extra_id_{index}>", 0.0) for index in reversed(range(extra_ids)))
    return Vocabulary(vocabulary.pieces + sentinels, vocabulary.charsmap)


# Field numbers and enumerations of sentencepiece_model.proto.
MODEL_PIECES, MODEL_TRAINER, MODEL_NORMALIZER = 1, 2, 3
PIECE_TEXT, PIECE_SCORE, PIECE_TYPE = 1, 2, 3
TRAINER_MODEL_TYPE, NORMALIZER_CHARSMAP = 3, 2
UNIGRAM, USER_DEFINED = 1, 4


def _read_model(data: bytes) -> Vocabulary:
    pieces: list[Piece] = []
    charsmap = b""
    for number, value in _fields(data):
        if number == MODEL_PIECES:
            pieces.append(_read_piece(_message(value)))
        elif number == MODEL_TRAINER:
            kind = dict(_fields(_message(value))).get(TRAINER_MODEL_TYPE, UNIGRAM)
            if kind != UNIGRAM:
                raise ValueError(f"model type is {kind!r}; supported: {UNIGRAM}, Unigram")
        elif number == MODEL_NORMALIZER:
            charsmap = _message(dict(_fields(_message(value))).get(NORMALIZER_CHARSMAP, b""))
    return Vocabulary(tuple(pieces), charsmap)


def _read_piece(data: bytes) -> Piece:
    values = dict(_fields(data))
    text = _message(values.get(PIECE_TEXT, b"")).decode("utf-8")
    if values.get(PIECE_TYPE) == USER_DEFINED:
        raise ValueError(f"piece {text!r} is user-defined; T5 models have none")
    (score,) = struct.unpack("<f", _message(values.get(PIECE_SCORE, bytes(4))))
    return text, score


def _message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes belong")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The (field number, value) pairs of a protocol buffer message; numbers come as they lie."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire == 2:
            length, position = _varint(data, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if position + length > len(data):
            raise ValueError("cut short")
        yield number, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
