"""Captions for the emoji recipes: labels, tags and grounds, said in many ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emoji_data import Emoji

__all__ = ["COLOURS", "Ground", "caption", "corpus"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (18, 18, 20),
    "gray": (150, 152, 156),
    "red": (214, 48, 49),
    "orange": (243, 146, 55),
    "yellow": (250, 211, 70),
    "green": (70, 171, 92),
    "blue": (52, 120, 220),
    "purple": (132, 84, 196),
    "pink": (246, 158, 190),
}


@dataclass(frozen=True, slots=True)
class Ground:
    """The plain colour behind a picture, by its name in `COLOURS`."""

    name: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        return COLOURS[self.name]


def caption(emoji: Emoji, ground: Ground, rng: np.random.Generator) -> str:
    """One way to ask for this picture; a ground that is not white is always named, white now and
    then.
    """
    text = _subject(emoji, rng)
    if ground.name != "white" or rng.random() < 0.08:
        phrases = (
            "{} on a {} background",
            "{}, {} background",
            "{} on {}",
            "{} with a {} background",
        )
        text = phrases[rng.choice(4, p=(0.6, 0.15, 0.1, 0.15))].format(text, ground.name)
    return text


def corpus(emoji: Sequence[Emoji], *, seed: int, repeats: int = 12) -> list[str]:
    """Captions to train the tokenizer on."""
    rng = np.random.default_rng(seed)
    names = list(COLOURS)
    return [
        caption(one, Ground(names[rng.integers(len(names))]), rng)
        for one in emoji
        for _ in range(1 if one.tone else repeats)
    ]


def _subject(emoji: Emoji, rng: np.random.Generator) -> str:
    label = emoji.label.lower()
    kind, _, rest = label.partition(": ")
    if rest and rng.random() < 0.5:
        label = f"{kind} of {rest}" if kind == "flag" else f"{kind}, {rest}"
    tags = [tag.lower() for tag in emoji.tags if tag.lower() not in label]
    tags = [tags[i] for i in rng.permutation(len(tags))[: rng.integers(1, 5)]]
    named = _with_article(label) if rng.random() < 0.5 else label
    match rng.choice(8, p=(0.22, 0.24, 0.12, 0.05, 0.05, 0.2, 0.06, 0.06)):
        case 0:
            return label
        case 1:
            return _with_article(label)
        case 2:
            return f"{named} emoji"
        case 3:
            return f"an emoji of {named}"
        case 4:
            return f"3d {label}"
        case 5:
            return ", ".join([named, *tags])
        case 6:
            return " ".join([*tags[:2], label])
        case _:
            # Tags alone are vague, so they stay rare, and a sample without tags keeps its label.
            return ", ".join(tags) if len(tags) >= 2 else label


def _with_article(label: str) -> str:
    return f"{'an' if label[0] in 'aeiou' else 'a'} {label}"
