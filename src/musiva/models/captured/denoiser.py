"""A captured class of diffusers as a denoiser like any other.

T image rows, M modulation rows, C channels of a latent, p places in a token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from musiva.compiler import Captured
from musiva.compiler.arguments import Argument
from musiva.compiler.export import dtype_of
from musiva.compiler.frame import Frame, to_graph
from musiva.compiler.program import Recipe
from musiva.compiler.segments import Part
from musiva.core.pack import Pack
from musiva.core.run import Run, Streams
from musiva.models.base import Denoiser, Inputs, SegmentFn

__all__ = ["CapturedDenoiser"]

GRID = ("frames", "rows", "columns")


class CapturedDenoiser(Denoiser):
    """latent, time, text: names of the class's arguments for what `Inputs` has fields for; all
    others that a sample brings are `Inputs.extra`, by name, on rows of their stream. The time may
    be there too, where it is not one for all tokens.

    packed: where the class takes tokens that a pipeline has made of patches of a latent, a side of
    these. time_scale: what the class reads as time, over what a schedule has.
    """

    def __init__(self, captured: Captured, *, packed: int = 1, time_scale: float = 1.0) -> None:
        super().__init__()
        self.captured = captured
        self.time_scale = time_scale
        self.module = captured.module
        inputs, arguments = captured.program.inputs, captured.arguments
        self.latent = next(name for name, one in arguments.items() if _is_latent(one))
        self.time = next((name for name in inputs if _kind(arguments, name) == "time"), None)
        self.text = next(
            (name for name, (_, streams, _) in inputs.items() if streams == ("text",)), None
        )
        places = captured.analysis.places
        frames, height, width = (places.get(axis, 1) for axis in GRID)
        self.patch = frames, height * packed, width * packed
        volume = math.prod(self.patch)
        self.in_channels = math.prod(_features(inputs[self.latent][2])) // volume
        self.out_channels = math.prod(_features(captured.program.outputs[0][2])) // volume
        self.text_width = math.prod(_features(inputs[self.text][2])) if self.text else None
        named = (self.latent, self.time, self.text)
        self.extra = tuple(name for name in inputs if name not in named)

    def embed(self, inputs: Inputs, pack: Pack, run: Run) -> Streams:
        return self._run(self.captured.parts[0], self.laid(inputs, pack), pack, run)

    @property
    def segments(self) -> Sequence[tuple[str, SegmentFn]]:
        return [(part.site, partial(self._run, part)) for part in self.captured.parts[1:-1]]

    def head(self, streams: Streams, pack: Pack, run: Run) -> Tensor:
        last = self.captured.parts[-1]
        variable, _, recipe = self.captured.program.outputs[0]
        found = self._run(last, streams, pack, run)[variable]
        if isinstance(found, list):
            # The last operation ran sample by sample.
            found = self.frame(pack).lay(found, ("image",), recipe.dims)
        return _outward(found, recipe)

    def inputs(self, laid: Mapping[str, Tensor]) -> Inputs:
        """Of arguments on rows, as `Captured.lay` gives them: the inverse of `laid`."""
        recipes = {name: recipe for name, (_, _, recipe) in self.captured.program.inputs.items()}
        named = (self.latent, self.text)
        return Inputs(
            latent_TC=_outward(laid[self.latent], recipes[self.latent]),
            timestep_M=torch.zeros(0),
            text_TD=None if self.text is None else laid[self.text].flatten(1),
            extra={name: x for name, x in laid.items() if name not in named},
        )

    def unlaid(self, prediction_TC: Tensor, pack: Pack) -> list[Tensor]:
        """The prediction of each branch in the layout of the class, without the axis of a batch."""
        captured = self.captured
        _, _, recipe = captured.program.outputs[0]
        at, axes = self.frame(pack), captured.axes["image"]
        parts = pack.split(_inward(prediction_TC, recipe))
        found = [
            to_graph(x_L, recipe.dims, axes, lengths)
            for x_L, lengths in zip(parts, at.lengths, strict=True)
        ]
        batched = captured.arguments[self.latent].batch == "axis"
        return [x[0] if batched else x for x in found]

    def laid(self, inputs: Inputs, pack: Pack) -> dict[str, Tensor]:
        """Arguments as the program takes them, on rows."""
        found: dict[str, Tensor] = {}
        dtype = self.dtype
        for name, (_, streams, recipe) in self.captured.program.inputs.items():
            shape = _features(recipe)
            if name == self.latent:
                found[name] = _inward(inputs.latent_TC.to(dtype), recipe)
            elif name == self.time and name not in inputs.extra:
                time = (inputs.timestep_M * self.time_scale).reshape(-1, *shape)
                found[name] = self.frame(pack).gather(time, streams) if streams else time
            elif name == self.text:
                assert inputs.text_TD is not None
                x = inputs.text_TD
                found[name] = (x.to(dtype) if x.is_floating_point() else x).reshape(-1, *shape)
            else:
                x = inputs.extra[name].reshape(-1, *shape)
                found[name] = x.to(dtype) if self._is_values(name) else x
        return found

    @property
    def dtype(self) -> torch.dtype:
        return dtype_of(self.module)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def frame(self, pack: Pack) -> Frame:
        """What the program asks of a pack, made once for it."""
        captured = self.captured
        return pack.derived(id(captured), lambda: captured.frame(pack, captured.sizes_in(pack)))

    def _run(self, part: Part, streams: Mapping[str, Tensor], pack: Pack, run: Run) -> Streams:
        captured = self.captured
        function: Callable[..., Any] = captured.functions[part.name]
        return function(streams, captured.weights(part), self.frame(pack), run)

    def _is_values(self, name: str) -> bool:
        return _kind(self.captured.arguments, name) == "values"

    def _apply(self, fn: Any, recurse: bool = True) -> CapturedDenoiser:
        """Layers are bound to the parameters as they are: anew where these were moved or cast."""
        super()._apply(fn, recurse)
        self.captured.bind()
        return self


def _outward(x: Tensor, recipe: Recipe) -> Tensor:
    """Rows of a latent in the layout of the graph -> [T, C * p]."""
    x = x.reshape(-1, *_features(recipe))
    return x.permute(0, *(i + 1 for i in _order(recipe))).flatten(1)


def _inward(x_TC: Tensor, recipe: Recipe) -> Tensor:
    """The inverse."""
    shape, order = _features(recipe), _order(recipe)
    x = x_TC.reshape(-1, *(shape[i] for i in order))
    return x.permute(0, *(order.index(i) + 1 for i in range(len(order))))


def _is_latent(argument: Argument) -> bool:
    dims = " ".join(map(str, argument.dims))
    return argument.kind == "values" and ("rows" in dims or "columns" in dims)


def _features(recipe: Recipe) -> tuple[int, ...]:
    """Of each dimension what is not tokens."""
    return tuple(math.prod(n for n in dim if isinstance(n, int)) for dim in recipe.dims)


def _order(recipe: Recipe) -> list[int]:
    """Dimensions of a latent in the order (C, frames, rows, columns): channels are those that have
    no tokens.
    """

    def key(i: int) -> tuple[int, int]:
        axes = [GRID.index(axis) for axis in recipe.dims[i] if axis in GRID]
        return (1 + axes[0], i) if axes else (0, i)

    return sorted(range(len(recipe.dims)), key=key)


def _kind(arguments: Mapping[str, Argument], name: str) -> str:
    return arguments[name.partition("#")[0]].kind
