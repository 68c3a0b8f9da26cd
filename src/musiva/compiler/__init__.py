"""From a module to a program on packs: capture, dimension flow, and code that runs on rows.

`capture` is the way in; `Captured` is what comes out, an `Artifact` over the parameters of a
module. See docs/decisions/0006.
"""

from __future__ import annotations

from musiva.compiler.arguments import Argument, Sizes
from musiva.compiler.artifact import Artifact
from musiva.compiler.capture import SIZES, capture
from musiva.compiler.captured import Captured, bound
from musiva.compiler.digest import digest
from musiva.compiler.entry import Entry
from musiva.compiler.folder import Unusable

__all__ = [
    "SIZES",
    "Argument",
    "Artifact",
    "Captured",
    "Entry",
    "Sizes",
    "Unusable",
    "bound",
    "capture",
    "digest",
]
