"""The examination of an emoji model: is what it drew the emoji that was asked for?

Each answer is the nearest of all emoji at a stated place, on the same ground, by 32 x 32 pixels.
Three papers: `singles`, 200 base emoji on white; `scenes`, two or three emoji in their thirds on
every kind of ground, where each of two may also fill its half, as training shows both; and
compositions that training never showed: `pairs` beside each other and `tones`, emoji in a skin
tone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from emoji_captions import describe_plainly
from emoji_data import load_emoji, pictures_of, render
from emoji_grounds import WHITE, draw_ground
from emoji_latents import RENDER_PIXELS, paint
from emoji_scenes import LAYOUTS, Placed, Scene, Size, box_of, draw_scene, held_out_tone, thirds

__all__ = ["PAPERS", "Examiner", "Question"]

PIXELS = 32
# Papers and their most questions; a quick examination asks the first ones only.
PAPERS = {"singles": 200, "scenes": 100, "pairs": 60, "tones": 60}
# Parts of a box's side by which an emoji in a scene may be off its place.
SHIFTS = (-0.08, 0.0, 0.08)


@dataclass(frozen=True, slots=True)
class Question:
    prompt: str
    scene: Scene


class Examiner:
    """Sets questions and marks pictures."""

    def __init__(self, data: Path) -> None:
        """Raises Unavailable when the emoji cannot be fetched."""
        self.emoji = load_emoji(data)
        self._pictures = pictures_of(self.emoji, RENDER_PIXELS)
        self._small = render(self.emoji, PIXELS).astype(np.float32) / 255
        self._base = np.array([i for i, e in enumerate(self.emoji) if not (e.tone or e.is_flag)])
        self._all = np.arange(len(self.emoji))

    def questions(self, paper: str, count: int) -> list[Question]:
        """The first `count` questions of a paper in `PAPERS`, always the same ones."""
        rng = np.random.default_rng(0)
        scenes = []
        if paper == "singles":
            chosen = rng.choice(self._base, PAPERS[paper], replace=False)[:count]
            scenes = [_single(int(index)) for index in chosen]
        elif paper == "tones":
            kept_out = [i for i, one in enumerate(self.emoji) if held_out_tone(one)]
            scenes = [_single(int(index)) for index in rng.permutation(kept_out)[:count]]
        elif paper == "pairs":
            weights = np.zeros(len(self.emoji))
            weights[self._base] = 1 / len(self._base)
            scenes = [draw_scene(self.emoji, weights, rng, held_out=True) for _ in range(count)]
        else:
            for i in range(count):
                chosen = rng.choice(self._base, 2 + i % 2, replace=False)
                scenes.append(thirds([int(index) for index in chosen], draw_ground(rng)))
        return [Question(describe_plainly(scene, self.emoji), scene) for scene in scenes]

    def solution(self, question: Question, size: Size) -> Image.Image:
        """The picture that answers a question, as training shows it. size: (width, height)."""
        rng = np.random.default_rng(1)
        painted = paint(question.scene, self._pictures, (size[1], size[0]), rng)
        levels = ((painted + 1) * 127.5).round().astype(np.uint8)
        return Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0)))

    def mark(self, question: Question, picture: Image.Image) -> list[bool]:
        """For each emoji of the question, whether the nearest one at its place is that one."""
        pixels_HW3 = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
        size: Size = (picture.height, picture.width)
        ground_3HW = question.scene.ground.render(*size, np.random.default_rng(0))
        ground_HW3 = np.broadcast_to(ground_3HW, (3, *size)).transpose(1, 2, 0)
        return [
            self._right(one, pixels_HW3, ground_HW3, question.scene)
            for one in question.scene.placed
        ]

    def _right(
        self, placed: Placed, pixels_HW3: np.ndarray, ground_HW3: np.ndarray, scene: Scene
    ) -> bool:
        candidates = self._all if self.emoji[placed.emoji].tone else self._base
        small, alpha = self._small[candidates, ..., :3], self._small[candidates, ..., 3:]
        size = (pixels_HW3.shape[0], pixels_HW3.shape[1])
        nearest_N = np.full(len(candidates), np.inf)
        for one in _answers(placed, scene):
            ground_PP3 = _crop(ground_HW3, *box_of(one, size))
            known_NK = (ground_PP3 + alpha * (small - ground_PP3)).reshape(len(candidates), -1)
            boxes = _boxes(one, size, still=scene.layout == "single")
            drawn_BK = np.stack([_crop(pixels_HW3, *box) for box in boxes])
            drawn_BK = drawn_BK.reshape(-1, known_NK.shape[1])
            own_N = np.square(known_NK).sum(1)
            distances_NB = own_N[:, None] - 2 * known_NK @ drawn_BK.T + np.square(drawn_BK).sum(1)
            nearest_N = np.minimum(nearest_N, distances_NB.min(1))
        return int(candidates[nearest_N.argmin()]) == placed.emoji


def _single(index: int) -> Scene:
    (slot,) = LAYOUTS["single"]
    return Scene("single", (Placed(index, slot),), WHITE)


def _answers(placed: Placed, scene: Scene) -> list[Placed]:
    """Where an emoji may be as its words say. "On the left" of two is the left third, and also the
    left of two that fill the picture, which training shows under the same words; its centre is in
    the left third either way.
    """
    found = [placed]
    if scene.layout == "row" and len(scene.placed) == 2:
        same = [slot for slot in LAYOUTS["beside"] if slot.place == placed.slot.place]
        found += [replace(placed, slot=slot) for slot in same]
    return found


def _boxes(placed: Placed, size: Sequence[int], *, still: bool) -> Iterator[tuple[int, int, int]]:
    top, left, side = box_of(placed, (size[0], size[1]))
    for down in (0.0,) if still else SHIFTS:
        for right in (0.0,) if still else SHIFTS:
            moved = round(top + down * side), round(left + right * side)
            yield (
                min(max(moved[0], 0), size[0] - side),
                min(max(moved[1], 0), size[1] - side),
                side,
            )


def _crop(pixels_HW3: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    levels = (pixels_HW3[top : top + side, left : left + side] * 255).round().astype(np.uint8)
    small = Image.fromarray(levels).resize((PIXELS, PIXELS), Image.Resampling.LANCZOS)
    return np.asarray(small, dtype=np.float32) / 255
