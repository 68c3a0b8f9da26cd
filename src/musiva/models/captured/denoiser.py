"""A captured class of diffusers as a denoiser like any other. T image rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from musiva.compiler import Captured, Sizes
from musiva.compiler.frame import Frame
from musiva.compiler.segments import Part
from musiva.core.errors import CannotCapture
from musiva.core.pack import Pack
from musiva.core.run import Run, Streams
from musiva.models.base import Inputs, SegmentFn
from musiva.models.captured.base import ClassDenoiser, latent_of
from musiva.models.captured.calls import forget
from musiva.models.captured.known.base import Signature
from musiva.models.captured.whole import WholeDenoiser, whole_from

__all__ = ["CapturedDenoiser"]

log = logging.getLogger(__name__)


class CapturedDenoiser(ClassDenoiser):
    """packed, time_scale, backwards: see `ClassDenoiser`.

    Where the class does another thing at some size than its program, samples of that size have to
    run apart: there the class itself is called.
    """

    def __init__(
        self,
        captured: Captured,
        signature: Signature,
        *,
        packed: int = 1,
        time_scale: float = 1.0,
        backwards: bool = False,
    ) -> None:
        program = captured.program
        layouts = {name: (own, recipe.dims) for name, (_, own, recipe) in program.inputs.items()}
        prediction = program.outputs[0][2].dims
        if not any(isinstance(axis, str) for dim in prediction for axis in dim):
            # It ran sample by sample to the end: what comes out is laid out as what went in.
            _, prediction = layouts[latent_of(captured.module, signature.arguments)]
        super().__init__(
            captured.module,
            signature,
            axes=captured.axes,
            layouts=layouts,
            prediction=prediction,
            places=captured.artifact.patch,
            packed=packed,
            time_scale=time_scale,
            backwards=backwards,
        )
        self.captured, self.packed = captured, packed
        # In a list, so that its parameters are not counted twice.
        self._apart: list[WholeDenoiser] = []
        self._refusals: dict[Hashable, str | None] = {}
        if not self.segments:
            self.out_of_reach = "it has no repeated blocks"

    @property
    def divided(self) -> tuple[str, ...]:
        ops = self.captured.program.ops
        through = {name for op in ops if op.kind == "attend" for name in op.streams}
        return tuple(name for name in ("image", "text") if name in through)

    @property
    def reach(self) -> tuple[str, ...]:
        return super().reach if self.segments else ("packs", "evaluations")

    @property
    def apart(self) -> WholeDenoiser:
        """The class itself. Raises CannotCapture where it cannot be called on whole samples."""
        if not self._apart:
            whole = whole_from(
                self.module,
                self.signature,
                packed=self.packed,
                time_scale=self.time_scale,
                backwards=self.backwards,
            )
            self._apart.append(whole)
        return self._apart[0]

    def refused(self, pack: Pack) -> frozenset[int]:
        def found() -> frozenset[int]:
            refusals = map(self.refusal, self.sizes_in(pack))
            return frozenset(i for i, reason in enumerate(refusals) if reason is not None)

        return pack.derived((id(self), "refused"), found)

    def refusal(self, sizes: Sizes) -> str | None:
        key = tuple(sorted(sizes.items()))
        if key not in self._refusals:
            self._refusals[key] = self._refusal(sizes)
        return self._refusals[key]

    def embed(self, inputs: Inputs, pack: Pack, run: Run) -> Streams:
        return self._run(self.captured.parts[0], self.laid(inputs, pack), pack, run)

    @property
    def segments(self) -> Sequence[tuple[str, SegmentFn]]:
        return [(part.site, partial(self._run, part)) for part in self.captured.parts[1:-1]]

    def head(self, streams: Streams, pack: Pack, run: Run) -> Tensor:
        last = self.captured.parts[-1]
        variable, _, _ = self.captured.program.outputs[0]
        found = self._run(last, streams, pack, run)[variable]
        if isinstance(found, list):
            # The last operation ran sample by sample.
            found = self.frame(pack).lay(found, ("image",), self.prediction)
        return self._predicted(found)

    def frame(self, pack: Pack) -> Frame:
        captured = self.captured
        return pack.derived(id(captured), lambda: captured.frame(pack, self.sizes_in(pack)))

    def _found_in(self, pack: Pack) -> Sequence[Sizes]:
        return self.captured.sizes_in(pack)

    def _refusal(self, sizes: Sizes) -> str | None:
        """Why the program is not for samples of these sizes. The first time it is told to all."""
        if not self.captured.artifact.sized:
            return None
        try:
            self.captured.places(sizes)
        except CannotCapture as error:
            forget(self.module)
            level = logging.DEBUG if any(self._refusals.values()) else logging.WARNING
            name = type(self.module).__name__
            log.log(level, "%s itself is called at %s: %s", name, dict(sizes), error)
            return str(error)
        return None

    def _run(self, part: Part, streams: Mapping[str, Tensor], pack: Pack, run: Run) -> Streams:
        captured = self.captured
        function: Callable[..., Any] = captured.functions[part.name]
        return function(streams, captured.weights(part), self.frame(pack), run)

    def _apply(self, fn: Any, recurse: bool = True) -> CapturedDenoiser:
        """Layers are bound to the parameters as they are: anew where these were moved or cast."""
        super()._apply(fn, recurse)
        self.captured.bind()
        return self
