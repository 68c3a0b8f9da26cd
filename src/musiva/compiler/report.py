"""What a capture found, for people: its segments, what mixes tokens there, what that costs, and
what runs sample by sample and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from musiva.compiler.captured import Captured
from musiva.compiler.program import Op
from musiva.compiler.segments import Part

__all__ = ["Report", "SegmentReport", "report"]


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """site: empty for what comes before and after the blocks. mixes: sites that mix tokens, with
    how they do. dense: operations that run sample by sample, each with the reason. flops: of linear
    layers, for one row of each stream, and for one sample ("sample").
    """

    site: str
    operations: int
    linears: int
    mixes: Mapping[str, str]
    dense: Mapping[str, str]
    flops: Mapping[str, int]

    def as_json(self) -> dict[str, object]:
        return {
            "site": self.site,
            "operations": self.operations,
            "linears": self.linears,
            "mixes": dict(self.mixes),
            "sample_by_sample": dict(self.dense),
            "linear_flops": dict(self.flops),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """patch: positions of a token along frames, rows and columns. streams: the token axes of each.
    exported_again: what depends on sizes in a way that takes a look at the class for each new one.
    """

    name: str
    patch: tuple[int, int, int]
    streams: Mapping[str, Sequence[str]]
    segments: Sequence[SegmentReport] = field(default_factory=list)
    exported_again: Sequence[str] = ()

    @property
    def packs(self) -> str:
        """Whether samples of any sizes run as one pack: yes, or what of it does not."""
        return self._but("linears and attention of all samples at once", self.segments)

    @property
    def tiles(self) -> str:
        """Whether some of the tokens are enough: yes, or what needs all of them."""
        inner = [one for one in self.segments if one.site]
        if not inner:
            return "no: it has no repeated blocks"
        return self._but("absent tokens come from pages", inner)

    def as_json(self) -> dict[str, object]:
        return {
            "class": self.name,
            "patch": list(self.patch),
            "streams": {name: list(axes) for name, axes in self.streams.items()},
            "packs": self.packs,
            "tiles": self.tiles,
            "exported_again": list(self.exported_again),
            "segments": [one.as_json() for one in self.segments],
        }

    def _but(self, said: str, segments: Sequence[SegmentReport]) -> str:
        count = sum(len(one.dense) for one in segments)
        return f"yes: {said}" + (f", but for {count} operations" if count else "")


def report(captured: Captured, patch: tuple[int, int, int]) -> Report:
    """Of a capture."""
    return Report(
        name=type(captured.module).__name__,
        patch=patch,
        streams=captured.axes,
        segments=[_segment(captured, part) for part in captured.parts],
        exported_again=sorted(captured.artifact.baked),
    )


def _segment(captured: Captured, part: Part) -> SegmentReport:
    mixing = [op for op in part.ops if op.kind in ("attend", "conv", "reduce")]
    flops: dict[str, int] = {}
    linears = [op for op in part.ops if op.kind == "linear"]
    for op in linears:
        for site in captured.program.merged.get(op.site, (op.site,)):
            layer = captured.layers[site]
            for stream in op.streams or ("sample",):
                flops[stream] = flops.get(stream, 0) + 2 * layer.in_features * layer.out_features
    return SegmentReport(
        site=part.site,
        operations=len(part.ops),
        linears=len(linears),
        mixes={op.site: _mixing(op) for op in mixing},
        dense={
            op.out: f"{op.path}: {captured.dense[op.out]}" if op.path else captured.dense[op.out]
            for op in part.ops
            if op.out in captured.dense
        },
        flops=flops,
    )


def _mixing(op: Op) -> str:
    return f"{op.detail}, {' and '.join(op.streams)}"
