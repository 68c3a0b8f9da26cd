"""Grounds of the emoji recipes: colours, gradients and textures, each with words for captions.

A ground that is plain everywhere would make pictures easier, and budgets per tile look better, than
they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["COLOURS", "TEXTURES", "WHITE", "Ground", "draw_ground", "with_article"]

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
    "brown": (139, 94, 60),
    "turquoise": (64, 190, 190),
}


@dataclass(frozen=True, slots=True)
class Ground:
    """What is behind a picture. kind: "plain", "gradient", "checkered", "striped", "dotted", or a
    name in `TEXTURES`; colours: names in `COLOURS`, one for plain, two for the others, none for
    textures.
    """

    kind: str
    colours: tuple[str, ...] = ()

    def phrases(self) -> tuple[str, ...]:
        """Ways to say it after "on", the usual one first."""
        match self.kind:
            case "plain":
                (colour,) = self.colours
                return f"{with_article(colour)} background", colour
            case "gradient":
                first, second = self.colours
                return (
                    f"a gradient from {first} to {second}",
                    f"{with_article(first)} to {second} gradient",
                )
            case "checkered" | "striped" | "dotted":
                first, second = self.colours
                return (f"{with_article(first)} and {second} {self.kind} background",)
            case _:
                return TEXTURES[self.kind][0]

    def render(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """`[3, height, width]` float32 in 0..1."""
        y_HW, x_HW = np.mgrid[0:height, 0:width].astype(np.float32)
        match self.kind:
            case "plain":
                mixed_HW = np.zeros((height, width), np.float32)
            case "gradient":
                mixed_HW = _gradient(y_HW / height, x_HW / width, rng)
            case "checkered":
                side = rng.integers(8, 17)
                mixed_HW = ((y_HW // side + x_HW // side) % 2).astype(np.float32)
            case "striped":
                along_HW = (x_HW, y_HW, x_HW + y_HW)[rng.integers(3)]
                mixed_HW = ((along_HW // rng.integers(6, 15)) % 2).astype(np.float32)
            case "dotted":
                mixed_HW = _dots(y_HW, x_HW, int(rng.integers(12, 21)))
            case _:
                return TEXTURES[self.kind][1](y_HW / height, x_HW, rng).clip(0, 1)
        first_3, second_3 = _rgb(self.colours[0]), _rgb(self.colours[-1])
        return first_3[:, None, None] + (second_3 - first_3)[:, None, None] * mixed_HW


WHITE = Ground("plain", ("white",))


def draw_ground(rng: np.random.Generator) -> Ground:
    """A ground other than plain white: plain 35 %, gradient 20 %, pattern 15 %, texture 30 %."""
    names = list(COLOURS)
    kind = rng.random()
    if kind < 0.35:
        return Ground("plain", (names[rng.integers(1, len(names))],))
    if kind < 0.70:
        first, second = rng.choice(len(names), 2, replace=False)
        pattern = "gradient" if kind < 0.55 else ("checkered", "striped", "dotted")[rng.integers(3)]
        return Ground(pattern, (names[first], names[second]))
    return Ground(list(TEXTURES)[rng.integers(len(TEXTURES))])


def with_article(noun: str) -> str:
    """The noun with its indefinite article, unless it looks like a plural."""
    if noun.endswith("s") and not noun.endswith(("ss", "us", "is")):
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _rgb(colour: str) -> np.ndarray:
    return np.array(COLOURS[colour], np.float32) / 255


def _gradient(y_HW: np.ndarray, x_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """0 to 1 from top to bottom, left to right, corner to corner, or from the middle out."""
    ways = (y_HW, x_HW, (x_HW + y_HW) / 2, np.hypot(x_HW - 0.5, y_HW - 0.5) / 0.7072)
    return ways[rng.choice(4, p=(0.5, 0.2, 0.15, 0.15))]


def _dots(y_HW: np.ndarray, x_HW: np.ndarray, pitch: int) -> np.ndarray:
    distance_HW = np.hypot(y_HW % pitch - pitch / 2, x_HW % pitch - pitch / 2)
    return (0.3 * pitch + 0.5 - distance_HW).clip(0, 1)


def _noise(
    shape: tuple[int, int], cell: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Smooth noise in 0..1 (value noise, Perlin, 1985): random values on a lattice of cells of
    `cell` = (height, width) pixels, joined by smooth steps.
    """
    steps = [np.arange(n, dtype=np.float32) / c for n, c in zip(shape, cell, strict=True)]
    lattice = rng.random([int(s[-1]) + 2 for s in steps], dtype=np.float32)
    (low_y, part_y), (low_x, part_x) = ((s.astype(int), s % 1) for s in steps)
    part_y, part_x = (p * p * (3 - 2 * p) for p in (part_y, part_x))
    rows = lattice[low_y] * (1 - part_y)[:, None] + lattice[low_y + 1] * part_y[:, None]
    return rows[:, low_x] * (1 - part_x) + rows[:, low_x + 1] * part_x


def _shaded(
    dark: tuple[int, int, int], light: tuple[int, int, int], mixed_HW: np.ndarray
) -> np.ndarray:
    dark_3, light_3 = (np.array(c, np.float32)[:, None, None] / 255 for c in (dark, light))
    return dark_3 + (light_3 - dark_3) * mixed_HW


def _grass(y_HW: np.ndarray, x_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shape = y_HW.shape
    blades_HW = 0.6 * _noise(shape, (9, 3), rng) + 0.4 * _noise(shape, (24, 24), rng)
    return _shaded((46, 125, 50), (139, 205, 80), blades_HW)


def _sand(y_HW: np.ndarray, x_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shape = y_HW.shape
    ripples_HW = 0.6 * _noise(shape, (5, 30), rng) + 0.4 * _noise(shape, (4, 4), rng)
    return _shaded((214, 180, 120), (247, 224, 173), ripples_HW)


def _sea(y_HW: np.ndarray, x_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    warp_HW = 10 * _noise(y_HW.shape, (20, 20), rng)
    waves_HW = 0.5 + 0.5 * np.sin((y_HW * y_HW.shape[0] + warp_HW) * 0.55)
    return _shaded((20, 86, 160), (96, 178, 226), 0.75 * waves_HW + 0.25 * y_HW)


def _sky(y_HW: np.ndarray, x_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shape = y_HW.shape
    cloud_HW = 0.65 * _noise(shape, (16, 28), rng) + 0.35 * _noise(shape, (8, 12), rng)
    blue = _shaded((90, 160, 235), (186, 222, 250), y_HW)
    cover_HW = ((cloud_HW - 0.52) * 5).clip(0, 1)
    return blue + (1 - blue) * cover_HW


def _night(y_HW: np.ndarray, x_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = y_HW.shape
    sky = _shaded((8, 10, 36), (44, 40, 96), y_HW)
    for _ in range(max(3, height * width // 700)):
        y, x, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0.7, 1.6)
        distance_HW = np.hypot(y_HW * height - y, x_HW - x)
        sky = sky + (1 - sky) * (radius + 0.5 - distance_HW).clip(0, 1)
    return sky


def _snow(y_HW: np.ndarray, x_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _shaded((205, 222, 240), (252, 253, 255), _noise(y_HW.shape, (18, 26), rng))


def _wood(y_HW: np.ndarray, x_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height = y_HW.shape[0]
    plank = max(12, height // 5)
    grain_HW = _noise(y_HW.shape, (2.5, 40), rng)
    seam_HW = (y_HW * height) % plank < 1.5
    return _shaded((120, 72, 38), (196, 138, 84), np.where(seam_HW, 0.0, 0.25 + 0.75 * grain_HW))


def _bricks(y_HW: np.ndarray, x_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    row_HW = (y_HW * y_HW.shape[0]) // 12
    across_HW = x_HW + 12 * (row_HW % 2)
    mortar_HW = ((y_HW * y_HW.shape[0]) % 12 < 2) | (across_HW % 24 < 2)
    shade = rng.random((64, 64), dtype=np.float32)
    brick_HW = shade[row_HW.astype(int) % 64, (across_HW // 24).astype(int) % 64]
    bricks = _shaded((150, 62, 48), (196, 96, 74), brick_HW)
    return np.where(mortar_HW, np.float32(0.83), bricks)


def _stone(y_HW: np.ndarray, x_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shape = y_HW.shape
    mixed_HW = 0.6 * _noise(shape, (14, 14), rng) + 0.4 * _noise(shape, (5, 5), rng)
    return _shaded((92, 96, 104), (176, 180, 188), mixed_HW)


def _sunset(y_HW: np.ndarray, x_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    upper = _shaded((88, 52, 140), (240, 110, 90), (y_HW * 1.6).clip(0, 1))
    lower = _shaded((240, 110, 90), (252, 206, 110), ((y_HW - 0.6) * 2.5).clip(0, 1))
    return np.where(y_HW < 0.62, upper, lower)


Painter = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]

TEXTURES: dict[str, tuple[tuple[str, ...], Painter]] = {
    "grass": (("grass", "a meadow", "a lawn"), _grass),
    "sand": (("sand", "a sandy beach"), _sand),
    "sea": (("water", "the sea", "blue waves"), _sea),
    "sky": (("a cloudy sky", "a blue sky with clouds"), _sky),
    "night": (("a starry night sky", "a night sky"), _night),
    "snow": (("snow",), _snow),
    "wood": (("wood", "a wooden table"), _wood),
    "bricks": (("a brick wall",), _bricks),
    "stone": (("stone", "gray rock"), _stone),
    "sunset": (("a sunset", "an evening sky"), _sunset),
}
