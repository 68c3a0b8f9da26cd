"""Draw throughput and attainment over the number of devices, from the newest row of bench `scale`.

python recipes/scale.py docs/results/scale.jsonl docs/pictures/scale.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from musiva.perf.scale.chart import scale_chart

__all__ = ["draw"]


def draw(results: Path, picture: Path) -> None:
    """What was extrapolated, with nothing changed."""
    last = json.loads(results.read_text(encoding="utf-8").splitlines()[-1])
    rows = [
        row for row in last["rows"] if row["what"] == "extrapolated" and row["changed"] == "nothing"
    ]
    picture.write_text(scale_chart(rows), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
