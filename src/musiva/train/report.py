"""What a run shows: `loss.jsonl`, the loss curve (whole, and per time bin) as SVG, and grids of
samples.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from PIL import Image

from musiva.train.loop import StepRecord

__all__ = ["LossLine", "LossLog", "bin_means", "draw_curves", "grid"]

_COLOURS = (
    "#1b1b1b",
    "#0b6e99",
    "#3a9d5d",
    "#c7a000",
    "#d9730d",
    "#c0392b",
    "#8e44ad",
    "#7f8c8d",
    "#5d4037",
)


class LossLine(TypedDict):
    """One line of `loss.jsonl`: means over some steps, and the last of those steps."""

    step: int
    epoch: int
    loss: float
    bins: list[float | None]
    grad_norm: float
    lr: float
    samples: float
    seconds: float
    per_second: float


class LossLog:
    """Averages records over `every` steps and appends one line each to `path`; reruns cut what they
    redo.
    """

    def __init__(self, path: Path, *, every: int = 20, num_bins: int = 5) -> None:
        self._path = path
        self._every = every
        self._num_bins = num_bins
        self._pending: list[StepRecord] = []

    def add(self, record: StepRecord) -> LossLine | None:
        """Take one record; returns the line that was written, if one was."""
        if not self._pending:
            self._cut(record.step)
        self._pending.append(record)
        if (record.step + 1) % self._every:
            return None
        line = self._line()
        self._pending.clear()
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return line

    def lines(self) -> list[LossLine]:
        """Everything written so far."""
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text().splitlines()]

    def draw(self, path: Path) -> None:
        """Draw the loss and the loss per time bin to an SVG file."""
        lines = self.lines()
        curves = {"loss": [(line["step"], line["loss"]) for line in lines]}
        for index in range(self._num_bins):
            name = f"t {index / self._num_bins:.1f} to {(index + 1) / self._num_bins:.1f}"
            values = [(line["step"], line["bins"][index]) for line in lines if line["bins"]]
            curves[name] = [(x, y) for x, y in values if y is not None]
        path.write_text(draw_curves({name: points for name, points in curves.items() if points}))

    def _line(self) -> LossLine:
        records = self._pending
        count, seconds = sum(r.samples for r in records), sum(r.seconds for r in records)
        return LossLine(
            step=records[-1].step,
            epoch=records[-1].epoch,
            loss=sum(r.loss * r.samples for r in records) / count,
            bins=bin_means([pair for r in records for pair in r.bins], self._num_bins),
            grad_norm=sum(r.grad_norm for r in records) / len(records),
            lr=records[-1].lr,
            samples=count,
            seconds=seconds,
            per_second=count / seconds,
        )

    def _cut(self, step: int) -> None:
        # After a kill the run goes back to its last checkpoint: later lines would come twice.
        lines = self.lines()
        kept = [line for line in lines if line["step"] < step]
        if len(kept) != len(lines):
            self._path.write_text("".join(json.dumps(line) + "\n" for line in kept))


def bin_means(pairs: Sequence[tuple[float, float]], num_bins: int) -> list[float | None]:
    """The mean loss of the (time, loss) pairs in each of `num_bins` equal bins of 0..1; none at all
    gives [].
    """
    if not pairs:
        return []
    bins: list[list[float]] = [[] for _ in range(num_bins)]
    for time, loss in pairs:
        bins[min(num_bins - 1, int(time * num_bins))].append(loss)
    return [sum(values) / len(values) if values else None for values in bins]


def draw_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]], *, width: int = 880, height: int = 440
) -> str:
    """Curves of (x, y) points as an SVG text, y on a logarithmic axis."""
    points = [point for curve in curves.values() for point in curve if point[1] > 0]
    if not points:
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"/>\n'
    left, right, top, bottom = 60.0, width - 150.0, 16.0, height - 34.0
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = (math.log(pick(y for _, y in points)) for pick in (min, max))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / ((x_high - x_low) or 1.0)
        up = (math.log(y) - y_low) / ((y_high - y_low) or 1.0)
        return left + across * (right - left), bottom - up * (bottom - top)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]

    def write(x: float, y: float, text: str, style: str = "") -> None:
        parts.append(f'<text x="{x:.0f}" y="{y:.1f}" {style}>{text}</text>')

    for index in range(5):
        level = math.exp(y_low + (y_high - y_low) * index / 4)
        y = place(x_low, level)[1]
        parts.append(f'<path d="M{left:.0f} {y:.1f}H{right:.0f}" stroke="#ddd"/>')
        write(left - 6, y + 4, f"{level:.3g}", 'text-anchor="end"')
    for x in (x_low, x_high):
        write(place(x, 1)[0], bottom + 20, f"step {x:.0f}", 'text-anchor="middle"')
    for index, (name, curve) in enumerate(curves.items()):
        colour, thick = _COLOURS[index % len(_COLOURS)], 2 if index == 0 else 1
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in curve if y > 0)
        style = f'fill="none" stroke="{colour}" stroke-width="{thick}"'
        parts.append(f'<polyline points="{path}" {style}/>')
        write(right + 10, top + 14 + 18 * index, name, f'fill="{colour}"')
    return "\n".join([*parts, "</svg>"]) + "\n"


def grid(pictures: Sequence[Image.Image], *, columns: int, gap: int = 4) -> Image.Image:
    """Pictures side by side, `columns` a row, each in a cell of the largest size."""
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        sheet.paste(
            picture.convert("RGB"), (gap + column * (width + gap), gap + row * (height + gap))
        )
    return sheet
