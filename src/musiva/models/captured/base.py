"""A class of diffusers as a denoiser, whether a program stands for it or it is called itself: where
its arguments lie on rows.

T image rows, M modulation rows, C channels of a latent, p places in a token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from musiva.compiler import Sizes
from musiva.compiler.arguments import Argument
from musiva.compiler.captured import lengths_of
from musiva.compiler.export import dtype_of
from musiva.compiler.frame import Dims, Frame, Lengths, to_graph
from musiva.core.errors import CannotCapture
from musiva.core.pack import Pack, Rows
from musiva.models.base import Denoiser, Inputs
from musiva.models.captured.known.base import Signature

__all__ = ["GRID", "ClassDenoiser", "Layout", "latent_of"]

GRID = ("frames", "rows", "columns")
# Of an argument of one sample: the streams that its rows are in, and of each dimension its axes,
# none of a leading one for a batch.
Layout = tuple[tuple[str, ...], Dims]


class ClassDenoiser(Denoiser):
    """latent, time, text: names of the class's arguments for what `Inputs` has fields for; all
    others that a sample brings are `Inputs.extra`, by name, on rows of their stream. The time may
    be there too, where it is not one for all tokens.

    axes: token axes of each stream. layouts: of what a sample brings, by argument. prediction: dims
    of what the class returns. places: positions in a token along each axis, where these are
    several. packed: where the class takes tokens that a pipeline has made of patches of a latent, a
    side of these. time_scale: what the class reads as time, over what a schedule has. backwards:
    the class counts that from 0, noise, to 1, and predicts the way from noise to the picture.
    """

    def __init__(
        self,
        module: nn.Module,
        signature: Signature,
        *,
        axes: Mapping[str, Sequence[str]],
        layouts: Mapping[str, Layout],
        prediction: Dims,
        places: Mapping[str, int],
        packed: int = 1,
        time_scale: float = 1.0,
        backwards: bool = False,
    ) -> None:
        """Raises CannotCapture for a class of which no argument is a latent."""
        super().__init__()
        arguments = signature.arguments
        self.module, self.signature, self.arguments = module, signature, arguments
        self.axes, self.places = axes, places
        self.layouts, self.prediction = layouts, prediction
        self.time_scale, self.backwards = time_scale, backwards
        self.latent = latent_of(module, arguments)
        self.time = next((name for name in layouts if self._kind(name) == "time"), None)
        self.text = next(
            (name for name, (streams, _) in layouts.items() if streams == ("text",)), None
        )
        frames, height, width = (places.get(axis, 1) for axis in GRID)
        self.patch = frames, height * packed, width * packed
        volume = math.prod(self.patch)
        self.in_channels = math.prod(features(layouts[self.latent][1])) // volume
        self.out_channels = math.prod(features(prediction)) // volume
        self.text_width = math.prod(features(layouts[self.text][1])) if self.text else None
        named = (self.latent, self.time, self.text)
        self.extra = tuple(name for name in layouts if name not in named)

    @property
    def apart(self) -> ClassDenoiser:
        return self

    def refusal(self, sizes: Sizes) -> str | None:
        """Why a sample of these sizes has to run apart; None where it need not."""
        return None

    def lengths(self, sizes: Sizes) -> Lengths:
        """Of token axes."""
        return lengths_of(self.arguments, self.places, sizes)

    def frame(self, pack: Pack) -> Frame:
        """What is asked of a pack, made once for it."""
        raise NotImplementedError

    def pack(self, several: Sequence[Sizes], device: torch.device) -> Pack:
        """Of samples of these sizes, whose words are nobody's prompt, and known to be the same in
        all of one evaluation.
        """
        streams = {}
        lengths = [self.lengths(sizes) for sizes in several]
        for name, axes in self.axes.items():
            grids = [_grid(axes, own) for own in lengths]
            keys = None if name == "image" else [object() for _ in several]
            streams[name] = Rows.build(grids, keys, device)
        pack = Pack(streams)
        pack.derived((id(self), "sizes"), lambda: list(several))
        return pack

    def sizes_in(self, pack: Pack) -> Sequence[Sizes]:
        """Of each sample branch of a pack."""
        return pack.derived((id(self), "sizes"), lambda: self._found_in(pack))

    def lay(self, samples: Sequence[Mapping[str, Tensor]], pack: Pack) -> dict[str, Tensor]:
        """Arguments of each sample, as the class takes them without an axis of a batch, on rows."""
        at = self.frame(pack)
        return {
            name: at.lay([sample[name] for sample in samples], *layout)
            for name, layout in self.layouts.items()
        }

    def inputs(self, laid: Mapping[str, Tensor]) -> Inputs:
        """Of arguments on rows, as `lay` gives them: the inverse of `laid`."""
        named = (self.latent, self.text)
        return Inputs(
            latent_TC=outward(laid[self.latent], self.layouts[self.latent][1]),
            timestep_M=torch.zeros(0),
            text_TD=None if self.text is None else laid[self.text].flatten(1),
            extra={name: x for name, x in laid.items() if name not in named},
        )

    def laid(self, inputs: Inputs, pack: Pack) -> dict[str, Tensor]:
        """Arguments as the class takes them, on rows."""
        found: dict[str, Tensor] = {}
        dtype = self.dtype
        for name, (streams, dims) in self.layouts.items():
            shape = features(dims)
            if name == self.latent:
                found[name] = inward(inputs.latent_TC.to(dtype), dims)
            elif name == self.time and name not in inputs.extra:
                time_M = inputs.timestep_M * self.time_scale
                time = (1.0 - time_M if self.backwards else time_M).reshape(-1, *shape)
                found[name] = self.frame(pack).gather(time, streams) if streams else time
            elif name == self.text:
                assert inputs.text_TD is not None
                x = inputs.text_TD
                found[name] = (x.to(dtype) if x.is_floating_point() else x).reshape(-1, *shape)
            else:
                x = inputs.extra[name].reshape(-1, *shape)
                found[name] = x.to(dtype) if self._kind(name) == "values" else x
        return found

    def unlaid(self, prediction_TC: Tensor, pack: Pack) -> list[Tensor]:
        """The prediction of each branch in the layout of the class, without the axis of a batch."""
        at, axes = self.frame(pack), self.axes["image"]
        parts = pack.split(inward(prediction_TC, self.prediction))
        found = [
            to_graph(x_L, self.prediction, axes, lengths)
            for x_L, lengths in zip(parts, at.lengths, strict=True)
        ]
        batched = self.arguments[self.latent].batch == "axis"
        return [x[0] if batched else x for x in found]

    @property
    def dtype(self) -> torch.dtype:
        return dtype_of(self.module)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _found_in(self, pack: Pack) -> Sequence[Sizes]:
        """Sizes, where the grids of a pack are all that is known."""
        raise NotImplementedError

    def _predicted(self, x: Tensor) -> Tensor:
        """Rows of what the class returns -> the prediction, [T, C * p]."""
        prediction_TC = outward(x, self.prediction)
        return -prediction_TC if self.backwards else prediction_TC

    def _kind(self, name: str) -> str:
        return self.arguments[name.partition("#")[0]].kind


def latent_of(module: nn.Module, arguments: Mapping[str, Argument]) -> str:
    """The name of the latent. Raises CannotCapture where there is none."""
    for name, one in arguments.items():
        dims = " ".join(map(str, one.dims))
        if one.kind == "values" and ("rows" in dims or "columns" in dims):
            return name
    raise CannotCapture(f"{type(module).__name__}: none of its arguments is a latent")


def outward(x: Tensor, dims: Dims) -> Tensor:
    """Rows of a latent in the layout of the class -> [T, C * p]."""
    x = x.reshape(-1, *features(dims))
    return x.permute(0, *(i + 1 for i in _order(dims))).flatten(1)


def inward(x_TC: Tensor, dims: Dims) -> Tensor:
    """The inverse."""
    shape, order = features(dims), _order(dims)
    x = x_TC.reshape(-1, *(shape[i] for i in order))
    return x.permute(0, *(order.index(i) + 1 for i in range(len(order))))


def features(dims: Dims) -> tuple[int, ...]:
    """Of each dimension what is not tokens."""
    return tuple(math.prod(n for n in dim if isinstance(n, int)) for dim in dims)


def _grid(axes: Sequence[str], lengths: Lengths) -> tuple[int, int, int]:
    if not set(axes) <= set(GRID):
        return 1, 1, math.prod(lengths[axis] for axis in axes)
    frames, height, width = (lengths[axis] if axis in axes else 1 for axis in GRID)
    return frames, height, width


def _order(dims: Dims) -> list[int]:
    """Dimensions of a latent in the order (C, frames, rows, columns): channels are those that have
    no tokens.
    """

    def key(i: int) -> tuple[int, int]:
        axes = [GRID.index(axis) for axis in dims[i] if axis in GRID]
        return (1 + axes[0], i) if axes else (0, i)

    return sorted(range(len(dims)), key=key)
