"""Draw the curves of quality over cost from the newest row of a bench.

python recipes/curves.py docs/results/region.jsonl docs/pictures/region.png
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

LOW_DB, HIGH_DB = 22, 44
# Ours, and the rival that matters most, are drawn over the others.
BOLD = {"adaptive": "tab:red", "fewer": "black"}


def main(results: Path, picture: Path) -> None:
    newest = json.loads(results.read_text(encoding="utf-8").splitlines()[-1])
    panels: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in newest["rows"]:
        if "psnr_mean" in row and row["method"] not in ("dense", "quality"):
            panels[row["what"]][row["method"]].append((row["share"], row["psnr_mean"]))
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(6.4 * columns, 4.2 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis, (what, curves) in zip(axes, panels.items(), strict=False):
        for method, points in sorted(curves.items(), key=lambda item: item[0] in BOLD):
            xs, ys = zip(*sorted((1 / share, decibels) for share, decibels in points), strict=True)
            bold = method in BOLD
            axis.plot(
                xs, ys, marker="o", markersize=3, label=method, color=BOLD.get(method),
                linewidth=2 if bold else 1, alpha=1 if bold else 0.7,
            )  # fmt: skip
        axis.set(title=what, xlabel="times faster than the dense run", ylabel="mean PSNR, dB")
        axis.set(ylim=(LOW_DB, HIGH_DB), xscale="log")
        axis.set_xticks([1, 2, 3, 4, 5, 7, 10], labels=["1", "2", "3", "4", "5", "7", "10"])
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
