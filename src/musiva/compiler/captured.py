"""A captured module: its program on rows, its layers, and what it needs of sizes.

The module is never called. Its parameters are used where they are, so that what changes them
(training, an adapter, a cast) changes this too, but for constants that were made of several.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from musiva.compiler.arguments import Argument, Sizes, call_arguments, size_of
from musiva.compiler.capture import SIZES, Analysis, analyse
from musiva.compiler.export import Exported, align, entry_of, export
from musiva.compiler.frame import Frame, Lengths
from musiva.compiler.program import Program
from musiva.compiler.prologue import Prologue, evaluate, learn
from musiva.compiler.rows import to_rows
from musiva.compiler.source import compiled, source
from musiva.core.pack import Pack, Rows
from musiva.core.run import Run

__all__ = ["Captured", "capture"]

# The order of tokens that a pack has; a stream without these has one axis.
GRID = ("frames", "rows", "columns")


@dataclass(slots=True)
class Captured:
    """axes: token axes of each stream. streams: the stream of each of them. sized: what depends on
    sizes and not on a sample, by the name of its node; prologue: how to work out most of it.
    """

    module: nn.Module
    arguments: Mapping[str, Argument]
    analysis: Analysis
    axes: Mapping[str, Sequence[str]]
    sized: frozenset[str]
    prologue: Prologue
    program: Program
    text: str
    function: Callable[..., tuple[object, ...]]
    constants: SimpleNamespace
    layers: Mapping[str, nn.Linear]
    convolutions: Mapping[str, nn.Conv2d]
    _places: dict[tuple[tuple[str, int], ...], Mapping[str, Tensor]] = field(default_factory=dict)

    @property
    def dense(self) -> Mapping[str, str]:
        """Operations that run sample by sample, and why."""
        return self.analysis.flow.dense

    def lengths(self, sizes: Sizes) -> Lengths:
        """Of token axes."""
        return lengths_of(self.arguments, self.analysis.places, sizes)

    def pack(self, several: Sequence[Sizes], device: torch.device | str = "cpu") -> Pack:
        """Of samples of these sizes."""
        streams = {}
        for name, axes in self.axes.items():
            grids = []
            for sizes in several:
                own = self.lengths(sizes)
                count = math.prod(own[axis] for axis in axes)
                grid = tuple(own.get(axis, 1) for axis in GRID)
                grids.append(grid if set(axes) <= set(GRID) else (1, 1, count))
            streams[name] = Rows.build(grids, device=device)
        return Pack(streams)

    def frame(self, pack: Pack, several: Sequence[Sizes]) -> Frame:
        """What the program asks of a pack of samples of these sizes."""

        def place(name: str, index: int) -> Tensor:
            if name not in self.sized:
                return getattr(self.constants, name)
            return self.places(several[index])[name]

        lengths = [self.lengths(sizes) for sizes in several]
        more = self.program.extras, self.program.copies
        return Frame(pack, self.axes, lengths, self.layers, self.convolutions, place, *more)

    def places(self, sizes: Sizes) -> Mapping[str, Tensor]:
        """All that depends on sizes, at these."""
        key = tuple(sorted(sizes.items()))
        if key not in self._places:
            first = self.analysis.exported
            known = _known(self.module, self.arguments, first, sizes)
            found = self.prologue.values(known, sizes)
            if baked := self.sized - self.prologue.wanted:
                exported = export(self.module, self.arguments, sizes)
                names = align([first, exported]).names[1]
                found |= _evaluated(self.module, self.arguments, exported, names, baked)
            self._places[key] = found
        return self._places[key]

    def lay(self, samples: Sequence[Mapping[str, Tensor]], at: Frame) -> dict[str, Tensor]:
        """Arguments of each sample, as the class takes them, on rows."""
        return {
            name: at.lay([sample[name] for sample in samples], streams, recipe.dims)
            for name, (_, streams, recipe) in self.program.inputs.items()
        }

    def run(self, inputs: Mapping[str, Tensor], at: Frame, run: Run) -> list[list[Tensor]]:
        """Outputs of each sample, as the class returns them, by output."""
        found = self.function(inputs, self.constants, at, run)
        return [
            list(value) if isinstance(value, list) else at.whole(value, streams, recipe.dims)  # pyright: ignore
            for value, (_, streams, recipe) in zip(found, self.program.outputs, strict=True)
        ]


def capture(
    module: nn.Module, arguments: Mapping[str, Argument], sizes: Sequence[Sizes] = SIZES
) -> Captured:
    """Raises CannotCapture, or Unlabelled for what has no form on rows."""
    analysis = analyse(module, arguments, sizes)
    aligned, first = analysis.aligned, analysis.exported
    streams, axes = streams_of(arguments)
    frontier = frozenset(
        source.name
        for node in first.body
        for source in node.all_input_nodes
        if source.name not in first.data
    )
    values = [
        _evaluated(module, arguments, graph, names, frontier)
        for graph, names in zip(aligned.graphs, aligned.names, strict=True)
    ]
    sized = frozenset(
        name for name in frontier if any(not _equal(one[name], values[0][name]) for one in values)
    )
    masks = frozenset(name for name in frontier if all(_is_open(one[name]) for one in values))
    if masks:
        analysis = analyse(module, arguments, sizes, aligned=aligned, open_masks=masks)
    prologue = learn(aligned, sorted(sized), [graph.sizes for graph in aligned.graphs])
    lengths = [lengths_of(arguments, analysis.places, graph.sizes) for graph in aligned.graphs]
    program = to_rows(aligned, analysis.flow, streams, sized, lengths)
    text = source(program, type(module).__name__)
    constants = SimpleNamespace(**{n: values[0][n] for n in frontier - sized})
    layers, convolutions = _layers(program, constants)
    return Captured(
        module,
        arguments,
        analysis,
        axes,
        sized,
        prologue,
        program,
        text,
        compiled(text, type(module).__name__),
        constants,
        layers,
        convolutions,
    )


def streams_of(
    arguments: Mapping[str, Argument],
) -> tuple[dict[str, str], dict[str, Sequence[str]]]:
    """The stream of each token axis, and the axes of each stream."""
    streams: dict[str, str] = {}
    axes: dict[str, list[str]] = {}
    for argument in arguments.values():
        names = [name for dim in argument.dims for name in argument.factors(dim)[1]]
        if not argument.is_data or not names:
            continue
        if set(names) & {"rows", "columns"}:
            stream = "image"
        else:
            stream = "text" if names[0] == "words" else names[0]
        for name in names:
            streams.setdefault(name, stream)
            own = axes.setdefault(stream, [])
            if name not in own:
                own.append(name)
    order = {name: i for i, name in enumerate(GRID)}
    return streams, {
        stream: sorted(own, key=lambda name: order.get(name, len(GRID)))
        for stream, own in axes.items()
    }


def lengths_of(
    arguments: Mapping[str, Argument], places: Mapping[str, int], sizes: Sizes
) -> dict[str, int]:
    """Of token axes: positions, over those in a token."""
    found: dict[str, int] = {}
    for argument in arguments.values():
        for dim in argument.dims if argument.is_data else ():
            times, names = argument.factors(dim)
            for i, name in enumerate(names):
                whole = size_of(name, sizes) * (times if i == 0 else 1)
                patched = i == 0 and times > 1
                found[name] = whole // places.get(name, 1) if patched else whole
    return found


def _evaluated(
    module: nn.Module,
    arguments: Mapping[str, Argument],
    exported: Exported,
    names: Mapping[str, str],
    wanted: frozenset[str],
) -> dict[str, Tensor]:
    """Values of nodes that need no sample, by their names in the first graph."""
    mine = {name: own for own, name in names.items() if name in wanted}
    known = _known(module, arguments, exported, exported.sizes)
    found = evaluate(exported, list(mine.values()), known)
    return {name: found[own] for name, own in mine.items()}


def _known(
    module: nn.Module, arguments: Mapping[str, Argument], exported: Exported, sizes: Sizes
) -> dict[str, Tensor]:
    """Weights, and arguments that are functions of sizes, by name of placeholder."""
    others = {name: one for name, one in arguments.items() if not one.is_data}
    called = call_arguments(others, sizes, torch.Generator().manual_seed(0))
    given = {
        node: tensor_of(called, name)
        for name, node in exported.inputs.items()
        if name.partition("#")[0] in others
    }
    return exported.weights(module) | given


def tensor_of(called: Mapping[str, object], name: str) -> Tensor:
    """One of the tensors among the arguments of a call, by the name that a graph has for it."""
    whole, _, index = name.partition("#")
    leaves = pytree.tree_leaves(entry_of(called, whole))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    return tensors[int(index or 0)]


def _equal(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
    return a == b


def _is_open(value: object) -> bool:
    """Whether an attention mask masks nothing."""
    if not isinstance(value, Tensor) or value.ndim < 2:
        return False
    return bool(value.all()) if value.dtype == torch.bool else bool((value == 0).all())


def _layers(
    program: Program, constants: SimpleNamespace
) -> tuple[dict[str, nn.Linear], dict[str, nn.Conv2d]]:
    """Modules for the layers that a program names: they share the tensors of the module."""
    layers: dict[str, nn.Linear] = {}
    convolutions: dict[str, nn.Conv2d] = {}
    for op in program.ops:
        for kind, name in re.findall(r"at\.(linear|conv)\(run, '([^']+)'", op.text):
            weight, _, bias = name.partition("|")
            tensors = getattr(constants, weight), getattr(constants, bias) if bias else None
            if kind == "linear":
                layers[name] = _linear(*tensors)
            else:
                convolutions[name] = _convolution(*tensors, program.convolutions[name])
    return layers, convolutions


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    flat = weight.flatten(1)
    layer = nn.Linear(flat.shape[1], flat.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(flat, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def _convolution(weight: Tensor, bias: Tensor | None, options: Mapping[str, object]) -> nn.Conv2d:
    groups = options.get("groups", 1)
    assert isinstance(groups, int)
    layer = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        bias=bias is not None,
        device="meta",
        **{name: given for name, given in options.items() if name != "input"},  # type: ignore[arg-type]
    )
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer
