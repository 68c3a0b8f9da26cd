"""Prompts that no calibration has seen: half name one thing, half describe a scene.

Of the first, half have a skin tone that training left out with that name; of the second, half put
together two things that training never did. The default model's own; see recipes/emoji_exam.py.
"""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["SCENES", "SINGLES"]

_PROMPTS = json.loads((Path(__file__).parent / "held_out.json").read_text(encoding="utf-8"))
SINGLES: tuple[str, ...] = tuple(_PROMPTS["singles"])
SCENES: tuple[str, ...] = tuple(_PROMPTS["scenes"])
