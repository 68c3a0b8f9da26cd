"""Throughput and attainment over the number of devices, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from musiva.perf.traffic.chart import COLOURS

__all__ = ["scale_chart"]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 260, 56, 12, 40, 44
LEGEND_ROW = 16
LINES = 4
Row = Mapping[str, object]
# The columns of the drawing.
PANELS: Sequence[tuple[str, str]] = (
    ("throughput", "samples a second, all at work"),
    ("attainment_1.5", "share within 1.5 of one device's time"),
    ("attainment_0.5", "share within half of one device's time"),
)


@dataclass(frozen=True, slots=True)
class Axes:
    """least, most: of both, the devices by their logarithm, and so the values of `by_log`."""

    devices: tuple[float, float]
    values: tuple[float, float]
    by_log: bool

    def place(self, devices: float, value: float) -> tuple[float, float]:
        """In pixels."""
        low, high = map(math.log2, self.devices)
        x = (math.log2(devices) - low) / max(high - low, 1e-9)
        low, high = map(self._scaled, self.values)
        y = (self._scaled(value) - low) / max(high - low, 1e-9)
        across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return LEFT + across * x, HEIGHT - BOTTOM - up * y

    def ticks(self) -> list[float]:
        low, high = self.values
        if self.by_log:
            return [low * (high / low) ** (k / LINES) for k in range(LINES + 1)]
        return [low + (high - low) * k / LINES for k in range(LINES + 1)]

    def _scaled(self, value: float) -> float:
        return math.log2(value) if self.by_log else value


def scale_chart(rows: Sequence[Row]) -> str:
    """A line of panels for each "work", in which there is a curve for each "way", over its
    "devices"; all are keys of rows, of which nothing was changed.
    """
    works = list(dict.fromkeys(str(row["work"]) for row in rows))
    names = list(dict.fromkeys(str(row["way"]) for row in rows))
    height = HEIGHT * len(works) + LEGEND_ROW * (len(names) + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * len(PANELS)}" '
        f'height="{height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for i, work in enumerate(works):
        own = [row for row in rows if row["work"] == work]
        for j, (key, told) in enumerate(PANELS):
            parts.append(f'<g transform="translate({WIDTH * j},{HEIGHT * i})">')
            parts += _panel(own, names, key, f"{work}: {told}")
            parts.append("</g>")
    for i, name in enumerate(names):
        y = HEIGHT * len(works) + LEGEND_ROW * i
        parts.append(
            f'<line x1="{LEFT}" x2="{LEFT + 24}" y1="{y}" y2="{y}" stroke="{_colour(i)}" '
            f'stroke-width="2"/><text x="{LEFT + 32}" y="{y + 4}">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _panel(rows: Sequence[Row], names: Sequence[str], key: str, title: str) -> list[str]:
    devices = sorted({_number(row, "devices") for row in rows})
    values = [_number(row, key) for row in rows]
    by_log = key == "throughput"
    span = (min(values) / 1.2, max(values) * 1.2) if by_log else (0.0, 1.02)
    axes = Axes((devices[0], devices[-1]), span, by_log)
    parts = [
        f'<text x="{LEFT}" y="16" font-weight="bold">{escape(title)}</text>',
        f'<text x="{LEFT}" y="32" fill="#666666">extrapolated</text>',
    ]
    for value in axes.ticks():
        _, y = axes.place(devices[0], value)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    for count in devices:
        x, _ = axes.place(count, span[0])
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{count:g}</text>'
        )
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">devices</text>')
    for i, name in enumerate(names):
        own = sorted(
            (_number(row, "devices"), _number(row, key)) for row in rows if row["way"] == name
        )
        points = [axes.place(x, y) for x, y in own]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{_colour(i)}" stroke-width="2"/>'
        )
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_colour(i)}"/>' for x, y in points
        ]
    return parts


def _number(row: Row, key: str) -> float:
    return float(str(row[key]))


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]
