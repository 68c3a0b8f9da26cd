"""A captured module: its program on rows, its layers, and what it needs of sizes.

The module is never called. Its parameters are used where they are, so that what changes them
(training, an adapter, a cast) changes this too, but for constants that were made of several.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from musiva.compiler.arguments import Argument, Sizes, call_arguments, size_of
from musiva.compiler.capture import SIZES, Analysis, analyse
from musiva.compiler.export import Aligned, Exported, align, entry_of, export
from musiva.compiler.frame import Frame, Lengths
from musiva.compiler.fuse import fuse
from musiva.compiler.labels import Unlabelled
from musiva.compiler.layers import bind, is_made_of, merged
from musiva.compiler.program import Program
from musiva.compiler.prologue import Prologue, evaluate, learn
from musiva.compiler.rows import to_rows
from musiva.compiler.segments import Part, blocks_of, divide
from musiva.compiler.source import Function, compiled, source
from musiva.compiler.unjoin import unjoin
from musiva.core.errors import CannotCapture
from musiva.core.pack import Pack, Rows
from musiva.core.run import Run

__all__ = ["Captured", "assembled", "capture"]

# Sizes of token axes at which a class may be another program.
SMALL = 2
# The order of tokens that a pack has; a stream without these has one axis.
GRID = ("frames", "rows", "columns")


@dataclass(slots=True)
class Captured:
    """axes: token axes of each stream. sized: what depends on sizes and not on a sample, by the
    name of its node; prologue: how to work out most of it. parts: of the program, each with the
    function of its name.
    """

    module: nn.Module
    arguments: Mapping[str, Argument]
    analysis: Analysis
    axes: Mapping[str, Sequence[str]]
    sized: frozenset[str]
    prologue: Prologue
    program: Program
    parts: Sequence[Part] = ()
    text: str = ""
    functions: Mapping[str, Function] = field(default_factory=dict)
    constants: SimpleNamespace = field(default_factory=SimpleNamespace)
    layers: Mapping[str, nn.Linear] = field(default_factory=dict)
    convolutions: Mapping[str, nn.Conv2d] = field(default_factory=dict)
    _places: dict[tuple[tuple[str, int], ...], Mapping[str, Tensor]] = field(default_factory=dict)
    _merged: dict[str, nn.Linear] = field(default_factory=dict)

    def bind(self) -> None:
        """Take the module's parameters as they are now: anew where they were moved or cast."""
        wanted = self.program.constants - self.sized
        found = self._worked_out(wanted)
        with torch.no_grad():
            self.constants = SimpleNamespace(**self._worked_out(wanted))
        self.layers, self.convolutions = bind(self.program, self.module, found)
        self._places, self._merged = {}, {}

    def weights(self, part: Part) -> SimpleNamespace:
        """Constants of a part. With gradients they are worked out anew, so that these reach what
        they are made of.
        """
        if not torch.is_grad_enabled():
            return self.constants
        return SimpleNamespace(**self._worked_out(part.constants))

    def _worked_out(self, names: Collection[str]) -> dict[str, Tensor]:
        first = self.analysis.exported
        own = {node: node for node in first.nodes}
        return _evaluated(self.module, self.arguments, first, own, frozenset(names))

    @property
    def dense(self) -> Mapping[str, str]:
        """Operations that run sample by sample, and why."""
        return self.analysis.flow.dense

    def lengths(self, sizes: Sizes) -> Lengths:
        """Of token axes."""
        return lengths_of(self.arguments, self.analysis.places, sizes)

    def pack(
        self,
        several: Sequence[Sizes],
        device: torch.device | str = "cpu",
        owners: Sequence[Hashable] | None = None,
    ) -> Pack:
        """Of samples of these sizes. owners: of their image rows."""
        streams = {}
        for name, axes in self.axes.items():
            grids = []
            for sizes in several:
                own = self.lengths(sizes)
                count = math.prod(own[axis] for axis in axes)
                grid = tuple(own.get(axis, 1) for axis in GRID)
                grids.append(grid if set(axes) <= set(GRID) else (1, 1, count))
            whose = owners if name == "image" else None
            streams[name] = Rows.build(grids, device=device, owners=whose)
        return Pack(streams)

    def frame(self, pack: Pack, several: Sequence[Sizes]) -> Frame:
        """What the program asks of a pack of samples of these sizes."""

        def place(name: str, index: int) -> Tensor:
            if name in self.sized:
                return self.places(several[index])[name]
            return getattr(self.constants, name)

        lengths = [self.lengths(sizes) for sizes in several]
        own = self.axes, lengths, self.layers, self.convolutions, place
        program = self.program
        return Frame(pack, *own, program.merged, self.together, program.extras, program.copies)

    def together(self, name: str) -> nn.Linear:
        """A merged layer, made when it is needed, and again where parameters were replaced."""
        parts = [self.layers[one] for one in self.program.merged[name]]
        if name not in self._merged or not is_made_of(self._merged[name], parts):
            self._merged[name] = merged(parts)
        return self._merged[name]

    @torch.no_grad()
    def places(self, sizes: Sizes) -> Mapping[str, Tensor]:
        """All that depends on sizes, at these."""
        key = tuple(sorted(sizes.items()))
        if key not in self._places:
            first = self.analysis.exported
            known = _known(self.module, self.arguments, first, sizes)
            found = self.prologue.values(known, sizes)
            baked = self.sized - self.prologue.wanted
            if any(size <= SMALL for size in self.lengths(sizes).values()):
                # Where classes do things another way: a single frame, a key frame and the last.
                baked = self.sized
            if baked:
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

    def sizes_in(self, pack: Pack) -> list[dict[str, int]]:
        """The sizes of each sample branch of a pack: the inverse of `pack`."""
        ones = self.lengths(dict.fromkeys(self.analysis.exported.sizes, 1))
        found: list[dict[str, int]] = [{} for _ in range(pack.num_branches)]
        for stream, axes in self.axes.items():
            for own, segment in zip(found, pack.streams[stream].segments, strict=True):
                extents: dict[str, int] = dict(zip(GRID, segment.grid, strict=True))
                for axis in axes:
                    length = extents[axis] if set(axes) <= set(GRID) else math.prod(segment.grid)
                    if axis in ones:
                        own[axis] = length // ones[axis]
        return found

    def run(self, inputs: Mapping[str, Tensor], at: Frame, run: Run) -> list[list[Tensor]]:
        """Outputs of each sample, as the class returns them, by output."""
        found: Mapping[str, object] = inputs
        for part in self.parts:
            found = self.functions[part.name](found, self.weights(part), at, run)
        return [
            list(value)
            if isinstance(value := found[variable], list)
            else at.whole(run, variable, value, streams, recipe.dims)  # pyright: ignore
            for variable, streams, recipe in self.program.outputs
        ]


@torch.no_grad()
def capture(
    module: nn.Module,
    arguments: Mapping[str, Argument],
    sizes: Sequence[Sizes] = SIZES,
    *,
    aligned: Aligned | None = None,
) -> Captured:
    """aligned: graphs of an earlier capture. Raises CannotCapture."""
    analysis = analyse(module, arguments, sizes, aligned=aligned)
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
    try:
        program = to_rows(aligned, analysis.flow, streams, sized, lengths)
    except Unlabelled as error:
        raise CannotCapture(f"it has no form on rows: {error}") from error
    fuse(program)
    unjoin(program)
    program.constants |= frontier - sized
    captured = Captured(module, arguments, analysis, axes, sized, prologue, program)
    return assembled(captured, program)


def assembled(captured: Captured, program: Program) -> Captured:
    """The same capture with a program, as text and functions, over the parameters as they are."""
    title = type(captured.module).__name__
    parts = divide(program, blocks_of(captured.module))
    text = source(program, parts, title)
    functions = compiled(text, title)
    found = replace(captured, program=program, parts=parts, text=text, functions=functions)
    with torch.enable_grad():
        found.bind()
    return found


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
        if any(part in name for name in names for part in ("rows", "columns")):
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
    if a is b:
        return True
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return a == b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(((a == b) | ((a != a) & (b != b))).all())  # NaN is NaN here


def _is_open(value: object) -> bool:
    """Whether an attention mask masks nothing: to scores that all rise alike softmax is blind."""
    if not isinstance(value, Tensor) or value.ndim < 2:
        return False
    if value.dtype == torch.bool:
        return bool(value.all())
    return bool(value.isfinite().all()) and bool((value == value.flatten()[0]).all())
