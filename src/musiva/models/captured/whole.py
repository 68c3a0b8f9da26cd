"""A class of diffusers of which no program is made, as a denoiser: a black box, called on whole
samples. T image rows, C channels of a latent, p places in a token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from musiva.compiler import SIZES, Sizes
from musiva.compiler.arguments import Argument, factors, size_of
from musiva.compiler.captured import lengths_of
from musiva.compiler.export import dtype_of
from musiva.compiler.frame import Dims, Frame
from musiva.core.errors import CannotCapture
from musiva.core.pack import Pack
from musiva.core.run import Run, Streams
from musiva.models.base import Inputs, SegmentFn
from musiva.models.captured.base import GRID, ClassDenoiser, Layout, latent_of
from musiva.models.captured.calls import called, data_of, made_of, original
from musiva.models.captured.check import relative_error, tolerance
from musiva.models.captured.known.base import Signature

__all__ = ["WholeDenoiser", "whole_from"]

Axes = Mapping[str, Sequence[str]]
Key = tuple[tuple[str, int], ...]


class WholeDenoiser(ClassDenoiser):
    """The class gets all tokens of a sample, in its own layout, and no other sample's but those of
    a batch. It has no segments, and so no tiles and no gates.

    together: whether the class takes several samples of one size at once. On a CPU each is called
    alone all the same: there a picture has the same bytes in any company, and kernels of matrices
    give other ones for a batch.
    """

    def __init__(
        self,
        module: nn.Module,
        signature: Signature,
        *,
        axes: Axes,
        layouts: Mapping[str, Layout],
        prediction: Dims,
        places: Mapping[str, int],
        together: bool,
        reason: str = "",
        packed: int = 1,
        time_scale: float = 1.0,
        backwards: bool = False,
    ) -> None:
        super().__init__(
            module,
            signature,
            axes=axes,
            layouts=layouts,
            prediction=prediction,
            places=places,
            packed=packed,
            time_scale=time_scale,
            backwards=backwards,
        )
        self.together = together
        self.out_of_reach = f"it runs as a black box: {reason}" if reason else "it is a black box"

    @property
    def divided(self) -> tuple[str, ...]:
        return ()

    @property
    def reach(self) -> tuple[str, ...]:
        return ("batches", "evaluations") if self._batches else ("evaluations",)

    @property
    def segments(self) -> Sequence[tuple[str, SegmentFn]]:
        return ()

    def embed(self, inputs: Inputs, pack: Pack, run: Run) -> Streams:
        laid = self.laid(inputs, pack)
        return {"image": laid.pop(self.latent), **laid}

    def head(self, streams: Streams, pack: Pack, run: Run) -> Tensor:
        at, several = self.frame(pack), self.sizes_in(pack)
        values = {
            name: at.whole(run, name, streams["image" if name == self.latent else name], *layout)
            for name, layout in self.layouts.items()
        }
        predictions: dict[int, Tensor] = {}
        with _as_others_call_it():
            for group in self._groups(several):
                samples = [
                    {name: self._unbatched(name, x[i]) for name, x in values.items()} for i in group
                ]
                found = self._called(samples, several[group[0]], run)
                predictions |= dict(zip(group, found, strict=True))
        found = [predictions[i] for i in range(len(several))]
        return self._predicted(at.lay(found, ("image",), self.prediction))

    def frame(self, pack: Pack) -> Frame:
        def made() -> Frame:
            lengths = [self.lengths(sizes) for sizes in self.sizes_in(pack)]
            return Frame(pack, self.axes, lengths, {}, {}, _no_place)

        return pack.derived((id(self), "frame"), made)

    @property
    def _batches(self) -> bool:
        return self.together and self.device.type != "cpu"

    def _groups(self, several: Sequence[Sizes]) -> Sequence[Sequence[int]]:
        """Which samples go into one call."""
        if not self._batches:
            return [[i] for i in range(len(several))]
        groups: dict[Key, list[int]] = {}
        for i, sizes in enumerate(several):
            groups.setdefault(_key(sizes), []).append(i)
        return list(groups.values())

    def _called(
        self, samples: Sequence[Mapping[str, Tensor]], sizes: Sizes, run: Run
    ) -> list[Tensor]:
        made = run.once(
            "arguments of sizes",
            lambda: made_of(self.arguments, sizes, self.device),
            _key(sizes),
        )
        found = called(self.module, self.arguments, self.latent, samples, made)
        return [_without_before(x, self.signature, sizes) for x in found]

    def _unbatched(self, name: str, x: Tensor) -> Tensor:
        return x[0] if self.arguments[name].batch == "axis" else x

    def _found_in(self, pack: Pack) -> Sequence[Sizes]:
        found: list[dict[str, int]] = [
            dict(zip(GRID, one.grid, strict=True)) for one in pack.image.segments
        ]
        if "text" in pack.streams:
            for own, one in zip(found, pack.streams["text"].segments, strict=True):
                own["words"] = one.length
        return found


def whole_from(
    module: nn.Module,
    signature: Signature,
    reason: str = "",
    *,
    packed: int = 1,
    time_scale: float = 1.0,
    backwards: bool = False,
) -> WholeDenoiser:
    """The module is put into the mode for evaluation, and called on small samples. reason: why no
    program stands for it. packed, time_scale, backwards: see `ClassDenoiser`. Raises CannotCapture
    where a call fails, or returns what is not laid out as the latent is.
    """
    module.eval()
    arguments, name = signature.arguments, type(original(module)).__name__
    latent = latent_of(module, arguments)
    places = _places(arguments[latent])
    several = [signature.sized(one) for one in SIZES[:2]]
    axes, layouts = _laid_out(arguments, latent, places, several[0], name)
    try:
        found = [_tried(module, arguments, latent, sizes) for sizes in several]
    except Exception as error:  # whatever a model's own code raises
        said = " ".join(str(error).split())
        raise CannotCapture(f"{name}: a call of it: {type(error).__name__}: {said}") from error
    outputs = [
        _without_before(x, signature, sizes) for x, sizes in zip(found, several, strict=True)
    ]
    return WholeDenoiser(
        module,
        signature,
        axes=axes,
        layouts=layouts,
        prediction=_prediction(arguments[latent], layouts[latent][1], several, outputs, name),
        places=places,
        together=_takes_several(module, arguments, latent, several[0]),
        reason=reason,
        packed=packed,
        time_scale=time_scale,
        backwards=backwards,
    )


def _tried(
    module: nn.Module,
    arguments: Mapping[str, Argument],
    latent: str,
    sizes: Sizes,
    seeds: Sequence[int] = (0,),
) -> Tensor:
    """Predictions of random samples in one call, one behind the other; of one, as it is."""
    device, dtype = next(module.parameters()).device, dtype_of(module)
    samples = [data_of(arguments, sizes, seed, dtype, device) for seed in seeds]
    with torch.no_grad():
        found = called(module, arguments, latent, samples, made_of(arguments, sizes, device))
    return found[0] if len(found) == 1 else torch.stack(found)


def _takes_several(
    module: nn.Module, arguments: Mapping[str, Argument], latent: str, sizes: Sizes
) -> bool:
    """Whether a batch is what the class makes of each of its samples."""
    if any(one.is_data and one.batch == "none" for one in arguments.values()):
        return False
    try:
        alone = [_tried(module, arguments, latent, sizes, (seed,)) for seed in range(2)]
        both = _tried(module, arguments, latent, sizes, range(2))
    except Exception:  # of a class that takes one at a time
        return False
    most = tolerance(dtype_of(module))
    return all(relative_error(x, y) <= most for x, y in zip(both, alone, strict=True))


def _prediction(
    latent: Argument, dims: Dims, several: Sequence[Sizes], outputs: Sequence[Tensor], name: str
) -> Dims:
    """Dims of what the class returns: those of the latent, with channels of its own."""
    shapes = [tuple(x.shape) for x in outputs]
    lead = dims[: len(dims) - len(latent.dims)]
    found: list[tuple[str | int, ...]] = []
    for i, (dim, own) in enumerate(zip(latent.dims, dims[len(lead) :], strict=True)):
        extents = [shape[i] if i < len(shape) else 0 for shape in shapes]
        has_tokens = any(isinstance(axis, str) for axis in own)
        wanted = [size_of(dim, sizes) for sizes in several] if has_tokens else extents[:1] * 2
        if extents != wanted or any(len(shape) != len(latent.dims) for shape in shapes):
            shown = ", ".join(map(str, latent.dims))
            raise CannotCapture(f"{name}: it returns {shapes[0]} of a latent [{shown}]")
        found.append(own if has_tokens else (extents[0],))
    return (*lead, *found)


def _without_before(x: Tensor, signature: Signature, sizes: Sizes) -> Tensor:
    """A prediction without what the class returns of other tokens, before those of the latent."""
    count = size_of(signature.before, sizes)
    return x[count:] if count else x


def _places(latent: Argument) -> dict[str, int]:
    """Positions in a token along each axis, where these are several."""
    found = [factors(dim) for dim in latent.dims]
    return {names[0]: times for times, names in found if len(names) == 1 and times > 1}


def _laid_out(
    arguments: Mapping[str, Argument],
    latent: str,
    places: Mapping[str, int],
    sizes: Sizes,
    name: str,
) -> tuple[dict[str, list[str]], dict[str, Layout]]:
    """Token axes of each stream, and where arguments lie: on image rows if these tell them apart,
    else in a stream of their own. Raises CannotCapture for a class that has no such streams.
    """
    given = {own: one for own, one in arguments.items() if one.is_data}
    dims = {own: tuple(_axes(one, dim, places) for dim in one.dims) for own, one in given.items()}
    tokens = {
        own: [axis for dim in several for axis in dim if isinstance(axis, str)]
        for own, several in dims.items()
    }
    order = {axis: i for i, axis in enumerate(GRID)}
    image = sorted(dict.fromkeys(tokens[latent]), key=lambda axis: order.get(axis, len(GRID)))
    lengths = lengths_of(arguments, places, sizes)
    axes: dict[str, list[str]] = {"image": image}
    layouts: dict[str, Layout] = {}
    for own, mine in tokens.items():
        other = next((axis for axis in mine if axis not in image), None)
        stream = "image" if other is None else "text" if other == "words" else other
        there = other is None or axes.setdefault(stream, mine) == mine
        extents = tuple(
            math.prod(lengths[axis] if isinstance(axis, str) else axis for axis in dim)
            for dim in dims[own]
        )
        if not there or extents != given[own].shape(sizes):
            raise CannotCapture(f"{name}: {own} has no place on the rows of a stream")
        # Of one sample in a batch, as in a graph.
        lead = ((),) if given[own].batch == "axis" else ()
        layouts[own] = (stream,) if mine else (), (*lead, *dims[own])
    return axes, layouts


def _axes(argument: Argument, dim: str | int, places: Mapping[str, int]) -> tuple[str | int, ...]:
    times, names = argument.factors(dim)
    if not names or (len(names) == 1 and names[0] in places):
        return (*names, times)
    return names


def _key(sizes: Sizes) -> Key:
    return tuple(sorted(sizes.items()))


def _no_place(name: str, branch: int) -> Tensor:
    raise AssertionError(f"{name} of branch {branch}: a class that is called works it out itself")


@contextmanager
def _as_others_call_it() -> Iterator[None]:
    """Outside of inference mode: what a class keeps of a call (tables of positions, say) may have
    to serve a training later.
    """
    wanted = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.set_grad_enabled(wanted):
        yield
