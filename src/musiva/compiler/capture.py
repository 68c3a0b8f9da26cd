"""Capture: a module to a program on rows, good for every size.

The module is exported at several sizes; labels flow through each graph, and have to say the same of
all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from musiva.compiler.arguments import Argument, Sizes
from musiva.compiler.export import Aligned, Exported, align, export
from musiva.compiler.flow import Flow, flow, layout_of
from musiva.compiler.labels import Refine, tokens
from musiva.core.errors import CannotCapture

__all__ = ["Analysis", "analyse"]

# Without common factors, so that no extent is another one's by chance, and with texts on both sides
# of 32, to multiples of which some are padded.
SIZES: Sequence[Sizes] = (
    {"frames": 3, "rows": 5, "columns": 7, "words": 11, "words_2": 13},
    {"frames": 5, "rows": 7, "columns": 11, "words": 37, "words_2": 17},
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
        aligned = align([export(module, arguments, at) for at in sizes])
    places: dict[str, int] = {}
    while True:
        try:
            flows = [
                _flow(aligned, i, arguments, places, open_masks) for i in range(len(aligned.graphs))
            ]
            break
        except Refine as error:
            if error.axis in places:
                raise CannotCapture(f"{error}, after {places[error.axis]}") from error
            places[error.axis] = error.inner
    _check_same(aligned, flows)
    return Analysis(aligned, flows[0], places)


def _flow(
    aligned: Aligned,
    index: int,
    arguments: Mapping[str, Argument],
    places: Mapping[str, int],
    open_masks: frozenset[str] = frozenset(),
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
    open_masks = frozenset(
        mine for mine, name in aligned.names[index].items() if name in open_masks
    )
    moving = {
        mine: aligned.moving[name]
        for mine, name in aligned.names[index].items()
        if name in aligned.moving
    }
    return flow(graph.program.graph, inputs, graph.data, varying, moving, open_masks)


def _check_same(aligned: Aligned, flows: Sequence[Flow]) -> None:
    """The labels of all graphs, but for extents. Raises CannotCapture."""
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
                raise CannotCapture(f"{name}: other labels at another size")
