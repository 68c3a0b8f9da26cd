"""Capture: a module to a program on rows, good for every size.

The module is exported at several sizes; labels flow through each graph, and have to say the same of
all of them. What comes of it is an artifact, a function of the class and its config: values of
weights are looked at nowhere.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from musiva.compiler.arguments import Argument, Sizes
from musiva.compiler.artifact import Artifact
from musiva.compiler.captured import (
    GRID,
    OTHER,
    Captured,
    bound,
    given_at,
    lengths_of,
    tensor_names,
)
from musiva.compiler.export import Aligned, Exported, align, export
from musiva.compiler.flow import Flow, flow, layout_of
from musiva.compiler.fuse import fuse
from musiva.compiler.labels import Refine, Unlabelled, tokens
from musiva.compiler.prologue import Learnt, Prologue, Weights, Writer, learn
from musiva.compiler.rows import to_rows
from musiva.compiler.segments import Part, blocks_of, divide
from musiva.compiler.source import source
from musiva.compiler.unjoin import unjoin
from musiva.compiler.views import shorten
from musiva.core.errors import CannotCapture

__all__ = ["SIZES", "Analysis", "analyse", "capture"]

# Without common factors, so that no extent is another one's by chance; with other remainders of
# small divisors, so that no padding is the same by chance; and with texts on both sides of 32, to
# multiples of which some are padded.
SIZES: Sequence[Sizes] = (
    {"frames": 3, "rows": 5, "columns": 8, "words": 11, "words_2": 13},
    {"frames": 5, "rows": 6, "columns": 13, "words": 37, "words_2": 17},
    {"frames": 4, "rows": 11, "columns": 3, "words": 17, "words_2": 41},
)


@dataclass(slots=True)
class Analysis:
    """Graphs of a module at several sizes, and the labels of the first. places: positions in a
    token, along axes where a token has several.
    """

    aligned: Aligned
    flow: Flow
    places: Mapping[str, int]

    @property
    def exported(self) -> Exported:
        return self.aligned.graphs[0]


def analyse(
    module: nn.Module,
    arguments: Mapping[str, Argument],
    sizes: Sequence[Sizes] = SIZES,
    *,
    aligned: Aligned | None = None,
    open_masks: frozenset[str] = frozenset(),
) -> Analysis:
    """aligned: graphs of an earlier analysis. open_masks: attention masks that mask nothing, by
    name in its first graph. Raises CannotCapture.
    """
    if aligned is None:
        graphs = [export(module, arguments, at) for at in sizes]
        if any(graph.decomposed for graph in graphs):
            # A class may write in place at some sizes only.
            graphs = [
                graph
                if graph.decomposed
                else export(module, arguments, graph.sizes, decomposed=True)
                for graph in graphs
            ]
        aligned = align(graphs)
    places: dict[str, int] = {}
    blind: set[str] = set()
    while True:
        try:
            flows = [
                _flow(aligned, i, arguments, places, open_masks, blind)
                for i in range(len(aligned.graphs))
            ]
        except Refine as error:
            if error.axis in places:
                raise CannotCapture(f"{error}, after {places[error.axis]}") from error
            places[error.axis] = error.inner
            continue
        other = _differing(aligned, flows)
        if other is None:
            return Analysis(aligned, flows[0], places)
        if other in blind or other not in flows[0].dense:
            raise CannotCapture(f"{other}: other labels at another size")
        # Its extents are those of something else at one size by chance.
        blind.add(other)


def _flow(
    aligned: Aligned,
    index: int,
    arguments: Mapping[str, Argument],
    places: Mapping[str, int],
    open_masks: frozenset[str],
    blind: Collection[str],
) -> Flow:
    graph = aligned.graphs[index]
    inputs = {}
    several = [one.sizes for one in aligned.graphs]
    fixed = {name for name in graph.sizes if len({sizes[name] for sizes in several}) == 1}
    for name, node in graph.inputs.items():
        argument = arguments[name.partition("#")[0]]
        if argument.is_data:
            layout = layout_of(argument, graph.sizes, places, fixed)
            inputs[node] = ((), *layout) if argument.batch == "axis" else layout
    varying = aligned.varying_in(index)
    names = aligned.names[index].items()
    masks, blind = (
        frozenset(mine for mine, name in names if name in chosen) for chosen in (open_masks, blind)
    )
    moving = {mine: aligned.moving[name] for mine, name in names if name in aligned.moving}
    return flow(graph.program.graph, inputs, graph.data, varying, moving, masks, blind)


def _differing(aligned: Aligned, flows: Sequence[Flow]) -> str | None:
    """The first operation that has not the same labels in all graphs, but for extents."""
    first = flows[0]
    for graph, found, own in zip(aligned.graphs, flows, aligned.names, strict=True):
        for node in graph.body:
            name = own[node.name]
            mine, theirs = first.values[name], found.values[node.name]
            said = [[tokens(label) for label in value.layout] for value in mine]
            again = [
                [tuple(own.get(axis, axis) for axis in tokens(label)) for label in value.layout]
                for value in theirs
            ]
            if said != again or first.outcomes[name].way != found.outcomes[node.name].way:
                return name
    return None


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
    frontier = frozenset(
        source.name
        for node in first.body
        for source in node.all_input_nodes
        if source.name not in first.data
    )
    weights = first.parameters
    names = tensor_names(module)
    parameters = {name: weights[name] for name in sorted(frontier) if weights.get(name) in names}
    values = _values(module, arguments, aligned, frontier - parameters.keys())
    sized = frozenset(
        name for name in values[0] if any(not _equal(one[name], values[0][name]) for one in values)
    )
    masks = frozenset(name for name in values[0] if all(_is_open(one[name]) for one in values))
    if masks:
        analysis = analyse(module, arguments, sizes, aligned=aligned, open_masks=masks)
    streams, axes = streams_of(arguments)
    lengths = [lengths_of(arguments, analysis.places, graph.sizes) for graph in aligned.graphs]
    try:
        program = to_rows(aligned, analysis.flow, streams, sized, lengths)
    except Unlabelled as error:
        raise CannotCapture(f"it has no form on rows: {error}") from error
    fuse(program)
    unjoin(program)
    shorten(program)
    program.constants |= frontier - sized
    title, parts = type(module).__name__, divide(program, blocks_of(module))
    # What no axis of a sample has would only fit by chance.
    named = {name for axis in streams for name in re.findall(r"[a-z_]\w*", axis)}
    own = [{name: graph.sizes[name] for name in sorted(named)} for graph in aligned.graphs]
    learnt = learn(aligned, sorted(sized), own)
    made = frontier - sized - parameters.keys()
    artifact = Artifact(
        title=title,
        sizes=dict(first.sizes),
        patch=dict(analysis.places),
        axes={stream: tuple(own) for stream, own in axes.items()},
        sized=sized,
        baked=sized - learnt.wanted,
        dense=dict(analysis.flow.dense),
        parameters=parameters,
        inputs=dict(first.inputs),
        steps=tuple(aligned.steps),
        decomposed=first.decomposed,
        program=program,
        parts=tuple(parts),
        text=source(program, parts, title),
        prologue=_prologue(Writer(first, names), title, learnt, parts, made),
    )
    return bound(module, arguments, artifact)


def _values(
    module: nn.Module, arguments: Mapping[str, Argument], aligned: Aligned, wanted: Collection[str]
) -> list[dict[str, Tensor]]:
    """Of nodes that need no sample, by their names in the first graph: in each graph, with the same
    random numbers for weights, so that what is found does not hang on what these are just now.
    """
    drawn: dict[str, Tensor] = {}
    found = []
    for graph, first in zip(aligned.graphs, aligned.names, strict=True):
        own = {name: mine for mine, name in first.items() if name in wanted}
        writer = Writer(graph, tensor_names(module))
        writer.add("values", {name: own[name] for name in sorted(own)})
        drawn |= {name: _drawn(module, name) for name in sorted(writer.weights - drawn.keys())}
        prologue = writer.prologue(type(module).__name__)
        _, given = given_at(arguments, graph.sizes)
        values = prologue.functions(type(module).__name__)["values"]
        found.append(values(drawn, given, prologue.tensors, graph.sizes))
    return found


def _drawn(module: nn.Module, name: str) -> Tensor:
    """In place of a weight; tables of whole numbers are what they are."""
    own = Weights(module)[name]
    if not (own.is_floating_point() or own.is_complex()):
        return own
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    # Neither 0 nor 1, of which much is made that does not depend on them.
    return (torch.rand(own.shape, generator=generator) * 0.8 + 0.1).to(own.device, own.dtype)


def _prologue(
    writer: Writer, title: str, learnt: Learnt, parts: Sequence[Part], made: Collection[str]
) -> Prologue:
    """As an artifact has it. made: names of constants that are no parameters."""
    writer.add("places", {name: name for name in sorted(learnt.wanted)}, learnt.numbers)
    left = set(made)
    for part in parts:
        own = part.constants.intersection(made)
        left -= own
        if own:
            writer.add(f"{part.name}_constants", {name: name for name in sorted(own)})
    if left:
        writer.add(f"{OTHER}_constants", {name: name for name in sorted(left)})
    return writer.prologue(title)


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
