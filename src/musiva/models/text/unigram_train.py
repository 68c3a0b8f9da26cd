"""Fitting a Unigram vocabulary to the words of a caption corpus.

The model is that of Kudo, "Subword Regularization" (2018): every word is a sequence of pieces drawn
independently; the probabilities come from expectation maximisation over all segmentations, and the
vocabulary shrinks by dropping the pieces whose loss costs the likelihood least.

Written here because the trainer of the `tokenizers` library gives another vocabulary at every run,
and takes as candidates only strings that lie in two *different* words: a frequent word that is no
part of another one can then never become a piece.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

__all__ = ["fit_unigram"]

LONGEST_PIECE = 16
LONGEST_WORD = 24
"""Longer words (links, mostly) only lend their characters; products of chances stay above zero."""

KEPT_PER_ROUND = 0.75
ROUNDS_OF_EM = 2
FEWEST = 0.1
"""An expected count below this is raised to it, so that a character keeps a probability."""


def fit_unigram(texts: Iterable[str], size: int) -> list[tuple[str, float]]:
    """At most `size` pieces with their natural log probabilities, the likeliest first.

    Words are what white space separates, each led by "▁". All characters of the corpus are pieces
    if there is room, else the most frequent ones. The same texts give the same result.
    """
    words = Counter(f"▁{word}" for text in texts for word in text.split())
    alphabet = Counter[str]()
    for word, count in words.items():
        for character in word:
            alphabet[character] += count
    characters = {character for character, _ in _ranked(alphabet)[:size]}
    fitted = {
        word: count
        for word, count in words.items()
        if len(word) <= LONGEST_WORD and characters.issuperset(word)
    }
    substrings = Counter[str]()
    for word, count in fitted.items():
        for start in range(len(word)):
            for stop in range(start + 2, min(start + LONGEST_PIECE, len(word)) + 1):
                substrings[word[start:stop]] += count

    weights = {text: float(count) for text, count in alphabet.items() if text in characters}
    gains = {text: len(text) * count for text, count in substrings.items() if count > 1}
    weights.update((text, float(gain)) for text, gain in _ranked(gains)[: 10 * size])
    expected, chances = _maximise(fitted, weights)
    while len(chances) > size:
        kept = max(size, int(KEPT_PER_ROUND * len(chances)))
        losses = {
            piece: expected[piece] * (math.log(chance) - _best_score(piece, chances))
            for piece, chance in chances.items()
            if piece not in characters
        }
        survivors = [piece for piece, _ in _ranked(losses)[: kept - len(characters)]]
        pieces = [*sorted(characters), *survivors]
        expected, chances = _maximise(fitted, {piece: expected[piece] for piece in pieces})
    return [(piece, math.log(chance)) for piece, chance in _ranked(chances)]


def _ranked(values: Mapping[str, float]) -> list[tuple[str, float]]:
    """Largest value first; ties in the order of the texts, whatever order they came in."""
    return sorted(values.items(), key=lambda item: (-item[1], item[0]))


def _maximise(
    words: Mapping[str, int], weights: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """Expected counts and probabilities of the pieces that `weights` name, after a few rounds."""
    expected = dict(weights)
    chances = _normalised(expected)
    for _ in range(ROUNDS_OF_EM):
        expected = dict.fromkeys(weights, 0.0)
        for word, count in words.items():
            _add_expected(word, count, chances, expected)
        chances = _normalised(expected)
    return expected, chances


def _normalised(counts: Mapping[str, float]) -> dict[str, float]:
    raised = {piece: max(count, FEWEST) for piece, count in counts.items()}
    total = sum(raised.values())
    return {piece: count / total for piece, count in raised.items()}


def _edges(word: str, chances: Mapping[str, float]) -> list[tuple[int, int, str, float]]:
    """The pieces inside a word as (start, stop, piece, probability), by start."""
    found: list[tuple[int, int, str, float]] = []
    for start in range(len(word)):
        for stop in range(start + 1, min(start + LONGEST_PIECE, len(word)) + 1):
            chance = chances.get(word[start:stop])
            if chance is not None:
                found.append((start, stop, word[start:stop], chance))
    return found


def _add_expected(
    word: str, count: int, chances: Mapping[str, float], expected: dict[str, float]
) -> None:
    """Forward-backward: add how often each piece occurs in `count` random readings of a word."""
    edges = _edges(word, chances)
    before = [1.0] + [0.0] * len(word)
    for start, stop, _, chance in edges:
        before[stop] += before[start] * chance
    after = [0.0] * len(word) + [1.0]
    for start, stop, _, chance in reversed(edges):
        after[start] += after[stop] * chance
    for start, stop, piece, chance in edges:
        expected[piece] += count * before[start] * chance * after[stop] / before[-1]


def _best_score(piece: str, chances: Mapping[str, float]) -> float:
    """Log probability of the best reading of `piece` in two or more pieces (Viterbi)."""
    best = [0.0] + [-math.inf] * len(piece)
    for start, stop, part, chance in _edges(piece, chances):
        if part != piece:
            best[stop] = max(best[stop], best[start] + math.log(chance))
    return best[-1]
