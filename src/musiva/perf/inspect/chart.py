"""The findings of one picture as a chart, on a light ground.

Panels stand side by side at the top; below them everything has one column per evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from musiva.perf.inspect.findings import STATES, Findings

__all__ = ["draw"]

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]

GROUND, INK, SOFT, LINE = (255, 255, 255), (20, 32, 29), (82, 96, 92), (220, 227, 224)
ACCENT, SECOND = (11, 107, 93), (178, 72, 24)
# In the order of STATES, told apart also by those who see no red or no green.
COLOURS: Mapping[str, Colour] = dict(
    zip(
        STATES,
        ((11, 107, 93), (112, 184, 170), (66, 122, 204), (232, 172, 62), (228, 233, 231)),
        strict=True,
    )
)
# From good to bad, and from little to much.
GOOD_TO_BAD = ((255, 255, 255), (250, 214, 150), (214, 96, 43), (96, 16, 24))
LITTLE_TO_MUCH = ((244, 248, 247), (140, 200, 188), (11, 107, 93))
# All blocks of this PSNR and above look the same, and all of the other and below.
BEST_DB, WORST_DB = 50.0, 20.0
WIDTH, MARGIN, GAP, AXIS = 1400, 40, 18, 96
PANELS = 5
SIDE = (WIDTH - 2 * MARGIN - (PANELS - 1) * GAP) // PANELS
CURVE_HEIGHT = 96
# A tile is this high in the map where there is room, and the map is never higher than that.
TILE_HEIGHT, ONE_ROW, MAX_MAP = 9, 30, 360
# Equal latents are so near that the others could not be told apart beside them.
SHOWN_DB = 60.0
# The least size at which a number fits into a block.
NUMBER_WIDTH, NUMBER_HEIGHT = 24, 14


@dataclass(frozen=True, slots=True)
class Curve:
    """A row of numbers, one per evaluation. low, high: of its axis. text: an axis value's."""

    title: str
    values: Sequence[float]
    low: float
    high: float
    text: Callable[[float], str]
    bars: bool


def draw(findings: Findings, title: str, facts: Sequence[str]) -> Image.Image:
    """title: the prompt. facts: lines about how the picture was made."""
    curves = _curves(findings)
    head = MARGIN + 34 + 22 * (len(facts) + 1) + 14
    panels = _panels(findings)
    panel_height = max(image.height for _, image in panels) + 30
    count = len(findings.states[0])
    map_height = ONE_ROW if count == 1 else min(max(TILE_HEIGHT * count, 60), MAX_MAP)
    below = 62 + map_height + 30 + (CURVE_HEIGHT + 44) * len(curves)
    canvas = Image.new("RGB", (WIDTH, head + panel_height + below + MARGIN), GROUND)
    pen = ImageDraw.Draw(canvas)
    _head(pen, title, [*facts, _summary(findings)])
    for place, (name, image) in enumerate(panels):
        left = MARGIN + place * (SIDE + GAP)
        _text(pen, (left, head), name, 14, SOFT)
        canvas.paste(image, (left, head + 24))
        pen.rectangle(
            (left - 1, head + 23, left + image.width, head + 24 + image.height), None, LINE
        )
    top = head + panel_height + 26
    _legend(pen, findings, top)
    top += 32
    box = MARGIN + AXIS, top, WIDTH - MARGIN, top + map_height
    _map(canvas, pen, findings, box)
    top += map_height + 50
    for curve in curves:
        _curve(pen, curve, (box[0], top + 18, box[2], top + 18 + CURVE_HEIGHT))
        top += CURVE_HEIGHT + 44
    return canvas


def _summary(findings: Findings) -> str:
    run, total = findings.run, len(findings.states)
    return (
        f"{run.computed} of {total} evaluations computed in full; all that was computed is worth "
        f"{run.cost:.1f} of them, {findings.share:.0%} of the dense run. "
        f"PSNR {findings.psnr:.1f} dB, SSIM {findings.ssim:.3f}."
    )


def _head(pen: ImageDraw.ImageDraw, title: str, lines: Sequence[str]) -> None:
    _text(pen, (MARGIN, MARGIN - 8), _cut(pen, title, 22), 22, INK)
    for place, line in enumerate(lines):
        _text(pen, (MARGIN, MARGIN + 30 + 22 * place), _cut(pen, line, 15), 15, SOFT)


def _panels(findings: Findings) -> list[tuple[str, Image.Image]]:
    """What stands at the top, each with its name."""
    picture, dense = findings.run.picture, findings.dense.picture
    difference = np.abs(picture.astype(np.int16) - dense).mean(axis=2)
    largest = max(float(difference.max()), 1.0)
    where = "tile" if findings.run.tiles else "{1} x {0} pixels".format(*findings.block)
    heat = (BEST_DB - findings.block_psnr) / (BEST_DB - WORST_DB)
    numbers = [[f"{x:.0f}" for x in row] for row in findings.block_psnr]
    panels = [
        ("This picture", _enlarged(picture)),
        ("Its dense run", _enlarged(dense)),
        (f"Error (darkest: {largest:.0f} of 255)", _heat(difference / largest, GOOD_TO_BAD)),
        (f"PSNR per {where}, dB", _blocks(findings, heat, GOOD_TO_BAD, numbers)),
    ]
    if findings.run.tiles:
        counts = np.array(findings.run.tile_counts).reshape(findings.run.tiles)
        share = counts / len(findings.states)
        texts = [[str(count) for count in row] for row in counts]
        over = _blocks(findings, share, LITTLE_TO_MUCH, texts, under=_enlarged(picture))
        panels.append(("Evaluations that computed each tile", over))
    return panels


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Of a panel, in the shape of a picture."""
    height, width = shape[:2]
    scale = SIDE / max(height, width)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _enlarged(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture).resize(_size(picture.shape), Image.Resampling.BICUBIC)


def _heat(share_HW: np.ndarray, scale: Sequence[Colour]) -> Image.Image:
    image = Image.fromarray(_coloured(share_HW, scale))
    return image.resize(_size(share_HW.shape), Image.Resampling.BOX)


def _blocks(
    findings: Findings,
    share: np.ndarray,
    scale: Sequence[Colour],
    numbers: Sequence[Sequence[str]],
    under: Image.Image | None = None,
) -> Image.Image:
    """[rows, columns] of blocks in colours, with a number in each where it fits; under: what shines
    through.
    """
    height, width = findings.run.picture.shape[:2]
    (high, wide), (rows, columns) = findings.block, share.shape
    image = Image.new("RGB", _size((height, width)), GROUND)
    pen, colours = ImageDraw.Draw(image), _coloured(share, scale)
    edges_x = [round(min(x * wide, width) * image.width / width) for x in range(columns + 1)]
    edges_y = [round(min(y * high, height) * image.height / height) for y in range(rows + 1)]
    boxes = {
        (y, x): (edges_x[x], edges_y[y], edges_x[x + 1] - 1, edges_y[y + 1] - 1)
        for y in range(rows)
        for x in range(columns)
    }
    for place, box in boxes.items():
        pen.rectangle(box, tuple(colours[place].tolist()))
    if under is not None:
        image = Image.blend(under, image, 0.6)
        pen = ImageDraw.Draw(image)
    for (y, x), box in boxes.items():
        if box[2] - box[0] >= NUMBER_WIDTH and box[3] - box[1] >= NUMBER_HEIGHT:
            middle = (box[0] + box[2] + 1) // 2, (box[1] + box[3] + 1) // 2
            light = image.crop((box[0], box[1], box[2] + 1, box[3] + 1)).convert("L")
            colour = INK if np.asarray(light).mean() > 120 else GROUND
            _text(pen, middle, numbers[y][x], 11, colour, "mm")
    return image


def _legend(pen: ImageDraw.ImageDraw, findings: Findings, top: int) -> None:
    """Of the states that there are."""
    tiles = findings.run.tiles
    title = "What was done, per tile and evaluation" if tiles else "What was done, per evaluation"
    _text(pen, (MARGIN, top), title, 15, INK)
    x, there = MARGIN + 330, {state for states in findings.states for state in states}
    for state in filter(there.__contains__, STATES):
        pen.rectangle((x, top + 3, x + 13, top + 16), COLOURS[state], SOFT)
        _text(pen, (x + 21, top), state, 15, SOFT)
        x += 110


def _map(canvas: Image.Image, pen: ImageDraw.ImageDraw, findings: Findings, box: Box) -> None:
    """Tiles downwards, row by row of the picture, and evaluations to the right."""
    colours_NE = np.array([[COLOURS[s] for s in states] for states in findings.states], np.uint8)
    colours_NE = colours_NE.swapaxes(0, 1)
    left, top, right, bottom = box
    size = right - left, bottom - top
    # More tiles than pixels are mixed, fewer have sharp edges.
    image = Image.fromarray(colours_NE).resize(size, Image.Resampling.BOX)
    canvas.paste(image, (left, top))
    count, total = colours_NE.shape[:2]
    if size[0] / total >= 8:
        for edge in range(1, total):
            x = left + round(edge * size[0] / total)
            pen.line((x, top, x, bottom - 1), GROUND)
    columns = findings.run.tiles[1] if findings.run.tiles else 1
    rows = count // columns
    for row in range(rows):
        y, next_y = (top + round(edge * size[1] / rows) for edge in (row, row + 1))
        if row:
            pen.line((left, y, right - 1, y), GROUND, 2)
        if count > 1 and next_y - y >= NUMBER_HEIGHT:
            _text(pen, (left - 10, (y + next_y) // 2), f"row {row + 1}", 12, SOFT, "rm")
    pen.rectangle((left - 1, top - 1, right, bottom), None, LINE)
    if count == 1:
        _text(pen, (left - 10, (top + bottom) // 2), "all tokens", 12, SOFT, "rm")
    every = max(1, -(-total * 28 // size[0]))
    for number in range(0, total, every):
        x = left + round((number + 0.5) * size[0] / total)
        _text(pen, (x, bottom + 6), str(number + 1), 12, SOFT, "ma")


def _curves(findings: Findings) -> list[Curve]:
    evaluations = findings.run.evaluations
    costs = [evaluation.cost for evaluation in evaluations]
    used = [evaluation.store_bytes / 1024 for evaluation in evaluations]
    near = [min(value, SHOWN_DB) for value in findings.latent_psnr]
    low, high = min(near) - 1.0, max(max(near), min(near) + 1.0)
    curves = [
        Curve("Cost, in full evaluations", costs, 0.0, 1.0, "{:.2g}".format, bars=True),
        Curve(
            f"PSNR of the latent after each evaluation, dB, up to {SHOWN_DB:.0f}",
            near,
            low,
            high,
            "{:.0f}".format,
            bars=False,
        ),
    ]
    if any(used):
        title = "Pages in use in the store after each evaluation, KiB"
        curves.append(Curve(title, used, 0.0, max(used), "{:,.0f}".format, bars=True))
    return curves


def _curve(pen: ImageDraw.ImageDraw, curve: Curve, box: Box) -> None:
    left, top, right, bottom = box
    _text(pen, (left, top - 22), curve.title, 14, INK)

    def height(value: float) -> int:
        return bottom - round((value - curve.low) / (curve.high - curve.low) * (bottom - top))

    for value in (curve.low, (curve.low + curve.high) / 2, curve.high):
        y = height(value)
        pen.line((left, y, right, y), LINE)
        _text(pen, (left - 10, y), curve.text(value), 12, SOFT, "rm")
    step = (right - left) / len(curve.values)
    gap = 1 if step >= 4 else 0
    points = []
    for number, value in enumerate(curve.values):
        x = left + number * step
        points.append((round(x + step / 2), height(value)))
        if curve.bars and height(value) < bottom:
            pen.rectangle(
                (round(x) + gap, height(value), round(x + step) - 1 - gap, bottom - 1), ACCENT
            )
    if not curve.bars:
        pen.line(points, SECOND, 2)
        for x, y in points if step >= 8 else points[-1:]:
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), SECOND)


def _coloured(share: np.ndarray, scale: Sequence[Colour]) -> np.ndarray:
    """[..., 3] uint8: numbers from 0 to 1 on a scale of colours; others are its ends."""
    stops = np.linspace(0.0, 1.0, len(scale))
    channels = [np.interp(share, stops, [colour[i] for colour in scale]) for i in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _text(
    pen: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    size: int,
    colour: Colour,
    anchor: str = "la",
) -> None:
    pen.text(at, text, colour, ImageFont.load_default(size), anchor)


def _cut(pen: ImageDraw.ImageDraw, text: str, size: int) -> str:
    """As much of one line as there is room for."""
    font, room = ImageFont.load_default(size), WIDTH - 2 * MARGIN
    text = " ".join(text.split())
    if pen.textlength(text, font) <= room:
        return text
    while pen.textlength(f"{text}...", font) > room:
        text = text[:-1]
    return f"{text}..."
