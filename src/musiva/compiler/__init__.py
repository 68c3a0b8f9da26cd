"""From a module to a program on packs: capture, dimension flow, and code that runs on rows.

`capture` is the way in; `Captured` is what comes out. See docs/decisions/0006.
"""

from __future__ import annotations

from musiva.compiler.arguments import Argument, Sizes
from musiva.compiler.capture import SIZES
from musiva.compiler.captured import Captured, capture

__all__ = ["SIZES", "Argument", "Captured", "Sizes", "capture"]
