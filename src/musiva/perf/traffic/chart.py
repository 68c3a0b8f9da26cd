"""Goodput curves as SVG: pictures a second, on time and good enough, over how fast they are asked
for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

__all__ = ["goodput_chart"]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 300, 56, 12, 40, 44
# Told apart by people who do not see all colours (Okabe and Ito 2008).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")
TICKS = 5
LEGEND_ROW = 16


def goodput_chart(rows: Sequence[Mapping[str, object]]) -> str:
    """A panel for each of "deadlines", a line for each "scheduler", its "goodput" over its "speed";
    all are keys of rows.
    """
    panels = list(dict.fromkeys(_number(row, "deadlines") for row in rows))
    names = list(dict.fromkeys(str(row["scheduler"]) for row in rows))
    height = HEIGHT + LEGEND_ROW * len(names)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * len(panels)}" '
        f'height="{height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for i, deadlines in enumerate(panels):
        own = [row for row in rows if _number(row, "deadlines") == deadlines]
        parts.append(f'<g transform="translate({WIDTH * i},0)">')
        parts += _panel(own, names, f"deadlines times {deadlines:g}")
        parts.append("</g>")
    for i, name in enumerate(names):
        y = HEIGHT + LEGEND_ROW * i
        parts.append(
            f'<line x1="{LEFT}" x2="{LEFT + 24}" y1="{y}" y2="{y}" stroke="{_colour(i)}" '
            f'stroke-width="2"/><text x="{LEFT + 32}" y="{y + 4}">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _panel(rows: Sequence[Mapping[str, object]], names: Sequence[str], title: str) -> list[str]:
    most_x = max(_number(row, "speed") for row in rows) or 1.0
    most_y = max(max(_number(row, "goodput") for row in rows), 1e-9) * 1.05
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + across * x / most_x, HEIGHT - BOTTOM - up * y / most_y

    parts = [f'<text x="{LEFT}" y="20" font-weight="bold">{escape(title)}</text>']
    for k in range(TICKS + 1):
        x, y = place(most_x * k / TICKS, most_y * k / TICKS)
        bottom, left = HEIGHT - BOTTOM, LEFT
        parts.append(
            f'<line x1="{left}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>'
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{most_y * k / TICKS:.3g}'
            f'</text><text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">'
            f"{most_x * k / TICKS:.3g}</text>"
        )
    parts.append(
        f'<text x="{LEFT + across / 2}" y="{HEIGHT - 10}" text-anchor="middle">requests, as a '
        "multiple of the trace</text>"
        f'<text transform="translate(14,{TOP + up / 2}) rotate(-90)" text-anchor="middle">'
        "good pictures a second</text>"
    )
    for i, name in enumerate(names):
        own = sorted(
            (_number(row, "speed"), _number(row, "goodput"))
            for row in rows
            if row["scheduler"] == name
        )
        points = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in own)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{_colour(i)}" stroke-width="2"/>'
        )
        for x, y in own:
            at = place(x, y)
            parts.append(f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="3" fill="{_colour(i)}"/>')
    return parts


def _number(row: Mapping[str, object], key: str) -> float:
    return float(str(row[key]))


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]
