"""Draw goodput over the load, a panel for each deadline, from the newest row of bench `serve`.

python recipes/goodput.py docs/results/serve.jsonl docs/pictures/goodput.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from musiva.perf.traffic.chart import goodput_chart

__all__ = ["draw"]


def draw(results: Path, picture: Path) -> None:
    """The measured points; loads are multiples of the rate at which the dense engine saturates."""
    last = json.loads(results.read_text(encoding="utf-8").splitlines()[-1])
    points = [row for row in last["rows"] if row["what"] == "measured"]
    rows = [
        {
            "scheduler": row["contender"],
            "speed": row["load"],
            "deadlines": row["deadline"],
            "goodput": row["goodput"],
        }
        for row in points
    ]
    picture.write_text(goodput_chart(rows), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
