"""Sheets of pictures: what a run draws so far, and the two grids of the README.

python recipes/emoji.py samples FILE          the newest checkpoint, one row per prompt
python recipes/emoji.py pictures DIRECTORY    the shipped model: unseen.png and sizes.png
"""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from emoji_exam import Examiner
from emoji_export import export_model
from musiva.engine import Engine
from musiva.train.report import grid

__all__ = ["PROMPTS", "sample_sheet", "size_sheet", "unseen_sheet"]

PROMPTS = (
    "a fox", "a red heart", "a smiling face", "pizza", "a cat face", "a green apple", "a house",
    "a rocket", "a dog", "a clock showing half past two", "a police officer", "an umbrella",
    "a car on grass", "a banana on a blue background", "a fox left of a pine tree on grass",
    "a whale above a crab on water", "a robot on the left, a pizza in the middle and a cat on the "
    "right on a gradient from yellow to pink",
    "a big sun in the middle and a small bird in the top left on a cloudy sky",
)  # fmt: skip
SIDES = (64, 80, 96, 112, 128)
LINE_PIXELS = 11


def sample_sheet(
    run: Path, vae: Path, path: Path, *, pixels: int = 128, steps: int | None = None,
    prompts: Sequence[str] = PROMPTS, per_prompt: int = 2,
) -> int:  # fmt: skip
    """What the averaged weights of a run in progress draw; returns the training step. Raises
    BadCheckpoint before the first checkpoint.
    """
    with tempfile.TemporaryDirectory() as directory:
        step = export_model(run, vae, Path(directory))
        with Engine.load(directory) as engine:
            options = {"size": (pixels, pixels), "steps": steps, "num_images": per_prompt}
            pictures = engine.generate(prompts, seed=1, **options)  # type: ignore[arg-type]
    grid(pictures, columns=6 * per_prompt).save(path)
    return step


def unseen_sheet(engine: Engine, examiner: Examiner, *, columns: int = 6) -> Image.Image:
    """Compositions that training never showed, two rows of pairs and one of skin tones, first ones
    first, each above its prompt.
    """
    asked = examiner.questions("pairs", 2 * columns) + examiner.questions("tones", columns)
    prompts = [question.prompt for question in asked]
    pictures = engine.generate(prompts, seed=0)
    labelled = [_labelled(one, two) for one, two in zip(pictures, prompts, strict=True)]
    return grid(labelled, columns=columns, gap=8)


def size_sheet(engine: Engine, prompt: str) -> Image.Image:
    """One prompt at one seed in every size: widths grow to the right, heights downwards."""
    gap = 8
    edge = gap + sum(side + gap for side in SIDES)
    sheet = Image.new("RGB", (edge, edge), "white")
    top = gap
    for height in SIDES:
        left = gap
        for width in SIDES:
            (picture,) = engine.generate(prompt, size=(width, height), seed=1)
            sheet.paste(picture, (left, top))
            left += width + gap
        top += height + gap
    return sheet


def _labelled(picture: Image.Image, text: str, lines: int = 5) -> Image.Image:
    font = ImageFont.load_default(size=9)
    labelled = Image.new("RGB", (picture.width, picture.height + lines * LINE_PIXELS), "white")
    labelled.paste(picture)
    wrapped = textwrap.wrap(text, width=picture.width // 5)[:lines]
    draw = ImageDraw.Draw(labelled)
    for i, line in enumerate(wrapped):
        draw.text((1, picture.height + 1 + i * LINE_PIXELS), line, fill="black", font=font)
    return labelled
