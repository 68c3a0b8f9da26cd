"""Pictures of the emoji recipes as plans: which emoji lie where, how large, on which ground.

A scene is drawn from a random stream and says everything about a picture, so that pictures,
captions and the examination of what a model drew are made from the same words. Some compositions
are kept out of training, by a rule on names alone: see `held_out_pair` and `held_out_tone`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emoji_data import Emoji
from emoji_grounds import WHITE, Ground, draw_ground
from musiva.core.errors import InvalidInput

__all__ = [
    "DRAWN", "FEW", "LAYOUTS", "Placed", "Scene", "Shares", "Size", "Slot", "box_of", "draw_scene",
    "held_out_pair", "held_out_tone", "thirds",
]  # fmt: skip

Size = tuple[int, int]  # height, width in pixels
HELD_OUT_OF_100 = 5
TRIES = 10_000


@dataclass(frozen=True, slots=True)
class Slot:
    """A part of the picture. place: how captions say it; x, y: its centre, and width, height: its
    extent, as parts of the picture's. An emoji fills the largest square in it.
    """

    place: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Placed:
    """An emoji, by its index, in a slot; `fill` of its square, moved by parts of its side."""

    emoji: int
    slot: Slot
    fill: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows. layout: a name in `LAYOUTS`, which also names the relation of two."""

    layout: str
    placed: tuple[Placed, ...]
    ground: Ground


LEFT, MIDDLE, RIGHT = 1 / 6, 1 / 2, 5 / 6
THIRD = 1 / 3
ROW = (
    Slot("on the left", LEFT, 0.5, THIRD, 1),
    Slot("in the middle", MIDDLE, 0.5, THIRD, 1),
    Slot("on the right", RIGHT, 0.5, THIRD, 1),
)
COLUMN = (
    Slot("at the top", 0.5, LEFT, 1, THIRD),
    Slot("in the middle", 0.5, MIDDLE, 1, THIRD),
    Slot("at the bottom", 0.5, RIGHT, 1, THIRD),
)
CORNERS = (
    Slot("in the top left", 0.25, 0.25, 0.5, 0.5),
    Slot("in the top right", 0.75, 0.25, 0.5, 0.5),
    Slot("in the bottom left", 0.25, 0.75, 0.5, 0.5),
    Slot("in the bottom right", 0.75, 0.75, 0.5, 0.5),
)
LAYOUTS: dict[str, tuple[Slot, ...]] = {
    "single": (Slot("", 0.5, 0.5, 1, 1),),
    "placed": (
        Slot("on the left", 0.27, 0.5, 0.5, 1),
        Slot("on the right", 0.73, 0.5, 0.5, 1),
        Slot("at the top", 0.5, 0.27, 1, 0.5),
        Slot("at the bottom", 0.5, 0.73, 1, 0.5),
        *CORNERS,
    ),
    "beside": (Slot("on the left", 0.26, 0.5, 0.5, 1), Slot("on the right", 0.74, 0.5, 0.5, 1)),
    "above": (Slot("at the top", 0.5, 0.26, 1, 0.5), Slot("at the bottom", 0.5, 0.74, 1, 0.5)),
    "row": ROW,
    "column": COLUMN,
    "corners": CORNERS,
    "grid": tuple(
        Slot(f"in the {row} {column}", x, y, THIRD, 0.5)
        for row, y in (("top", 0.25), ("bottom", 0.75))
        for column, x in (("left", LEFT), ("middle", MIDDLE), ("right", RIGHT))
    ),
    # The first slot is the large one, in the middle.
    "focus": (
        Slot("in the middle", 0.5, 0.5, 0.62, 0.62),
        *(
            Slot(one.place, 0.15 if one.x < 0.5 else 0.85, 0.15 if one.y < 0.5 else 0.85, 0.3, 0.3)
            for one in CORNERS
        ),
    ),
}
# Layouts of whole scenes, and of a few things, the step from names to scenes: how often each, and
# with how many emoji (at least, at most).
Shares = dict[str, tuple[float, int, int]]
FEW: Shares = {
    "placed": (0.20, 1, 1),
    "beside": (0.40, 2, 2),
    "above": (0.25, 2, 2),
    "row": (0.15, 2, 2),
}
DRAWN: Shares = {
    "single": (0.08, 1, 1),
    "placed": (0.10, 1, 1),
    "beside": (0.26, 2, 2),
    "above": (0.14, 2, 2),
    "row": (0.20, 2, 3),
    "column": (0.08, 2, 3),
    "corners": (0.08, 3, 4),
    "focus": (0.09, 2, 4),
    "grid": (0.05, 5, 6),
}


def draw_scene(
    emoji: Sequence[Emoji],
    weights: np.ndarray,
    rng: np.random.Generator,
    *,
    layouts: Shares = DRAWN,
    white: float = 0.1,
    held_out: bool = False,
) -> Scene:
    """A scene of emoji drawn with probabilities `weights` `[N]`, without pairs that are kept out,
    or with `held_out`, two beside or above each other that are. white: the share on white. Raises
    InvalidInput when there is none.
    """
    names = list(layouts)
    shares = np.array([layouts[name][0] for name in names])
    layout = names[rng.choice(len(names), p=shares / shares.sum())]
    if held_out:
        layout = ("beside", "above")[rng.integers(2)]
    _, least, most = layouts[layout]
    count = int(rng.integers(least, most + 1))
    for _ in range(TRIES):
        chosen = rng.choice(len(emoji), count, replace=False, p=weights)
        kept_out = any(
            held_out_pair(emoji[a], emoji[b]) for i, a in enumerate(chosen) for b in chosen[:i]
        )
        if kept_out == held_out:
            break
    else:
        raise InvalidInput("emoji", len(emoji), "more of them: no scene of these may be shown")
    slots = LAYOUTS[layout]
    if layout == "focus":
        at = [0, *(1 + rng.permutation(len(slots) - 1)[: count - 1])]
    else:
        at = sorted(rng.permutation(len(slots))[:count])
    placed = tuple(
        Placed(
            int(index),
            slots[i],
            float(rng.uniform(0.88, 1.0)),
            (float(rng.uniform(-0.03, 0.03)), float(rng.uniform(-0.03, 0.03))),
        )
        for index, i in zip(chosen, at, strict=True)
    )
    return Scene(layout, placed, WHITE if rng.random() < white else draw_ground(rng))


def thirds(chosen: Sequence[int], ground: Ground) -> Scene:
    """Two or three emoji, each exactly in its third, from left to right (two: left and right)."""
    slots = ROW if len(chosen) == 3 else (ROW[0], ROW[2])
    placed = tuple(Placed(index, slot) for index, slot in zip(chosen, slots, strict=True))
    return Scene("row", placed, ground)


def box_of(placed: Placed, size: Size) -> tuple[int, int, int]:
    """(top, left, side) in pixels of a picture of that size, inside it."""
    height, width = size
    room = min(placed.slot.width * width, placed.slot.height * height)
    side = max(8, round(room * placed.fill))
    top = placed.slot.y * height - side / 2 + placed.shift[0] * room
    left = placed.slot.x * width - side / 2 + placed.shift[1] * room
    return (
        min(max(round(top), 0), height - side),
        min(max(round(left), 0), width - side),
        side,
    )


def held_out_pair(first: Emoji, second: Emoji) -> bool:
    """True for the pairs, one in twenty, that no training scene shows together."""
    return _kept_out("+".join(sorted((first.name, second.name))))


def held_out_tone(emoji: Emoji) -> bool:
    """True for the emoji with a skin tone, one in twenty, that are never trained on."""
    return emoji.tone > 0 and _kept_out(emoji.name)


def _kept_out(key: str) -> bool:
    return zlib.crc32(key.encode()) % 100 < HELD_OUT_OF_100
