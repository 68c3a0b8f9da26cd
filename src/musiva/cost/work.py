"""What a step does, in the counts that its seconds depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from musiva.core.types import Kind

__all__ = ["FEATURES", "Work"]

# Kernels get better with rows up to about here, and worse again where a pack leaves a cache.
KNEES = (128, 512, 2048)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Of one step. items: of its plan. rows: of the pack, which go through the model. pairs:
    products of a query and a key, over all branches. branches: of samples, in the pack. paged:
    rows that are not there and whose features are attended to. skipped: evaluations that are
    forecast. pixels: that are decoded, and pixel_pairs: products of two of a picture, which an
    autoencoder's attention takes. tokens: of texts, that are encoded. previews: that are made.
    """

    kind: Kind
    items: int = 0
    rows: int = 0
    pairs: int = 0
    branches: int = 0
    paged: int = 0
    skipped: int = 0
    pixels: int = 0
    pixel_pairs: int = 0
    tokens: int = 0
    previews: int = 0

    def features(self) -> tuple[float, ...]:
        """As many numbers as `FEATURES` has names for this kind."""
        if self.kind is Kind.ENCODE:
            return 1.0, self.items, self.tokens
        if self.kind is Kind.DECODE:
            return 1.0, self.items, self.pixels, self.pixel_pairs
        rows = self.rows
        return (
            1.0,
            float(rows > 0),
            rows,
            *(min(rows, knee) for knee in KNEES),
            *(max(rows - knee, 0) for knee in KNEES),
            self.pairs,
            self.branches,
            self.paged,
            self.items,
            self.skipped,
            self.previews,
        )


FEATURES: Mapping[Kind, tuple[str, ...]] = {
    Kind.ENCODE: ("step", "items", "tokens"),
    Kind.DECODE: ("step", "items", "pixels", "pixel_pairs"),
    Kind.DENOISE: (
        "step",
        "forward",
        "rows",
        *(f"rows_to_{knee}" for knee in KNEES),
        *(f"rows_from_{knee}" for knee in KNEES),
        "pairs",
        "branches",
        "paged",
        "items",
        "skipped",
        "previews",
    ),
}
