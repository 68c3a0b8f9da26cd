"""A captured module: its program on rows, its layers, and what it needs of sizes.

The module is never called. Its parameters are used where they are, so that what changes them
(training, an adapter, a cast) changes this too, but for constants that were made of several.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.fx.experimental import _config as shapes
from torch.utils import _pytree as pytree

from musiva.compiler.arguments import Argument, Sizes, call_arguments, entry_of, size_of
from musiva.compiler.artifact import Artifact
from musiva.compiler.entry import Entry
from musiva.compiler.export import arguments_of, export, matched, numbers, shapes_of
from musiva.compiler.frame import Frame, Lengths
from musiva.compiler.layers import bind, is_made_of, merged
from musiva.compiler.pieces import divided
from musiva.compiler.program import Number, Program
from musiva.compiler.prologue import Prologue, Weights, Writer
from musiva.compiler.segments import Part, blocks_of, divide
from musiva.compiler.source import Function, compiled, source
from musiva.core.errors import CannotCapture
from musiva.core.pack import Pack, Rows
from musiva.core.run import Run

__all__ = [
    "GRID",
    "OTHER",
    "Captured",
    "assembled",
    "bound",
    "given_at",
    "lengths_of",
    "tensor_names",
    "tensor_of",
]

# Sizes of token axes at which a class may be another program.
SMALL = 2
# The order of tokens that a pack has; a stream without these has one axis.
GRID = ("frames", "rows", "columns")
# Of constants that no part reads by itself, but layers and places do.
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Sized:
    """What depends on sizes alone, at some. places: values, by name of node. numbers: of the
    program, by their names; floats: those that are not whole.
    """

    places: Mapping[str, Tensor]
    numbers: Mapping[str, int]
    floats: Mapping[str, float]


@dataclass(slots=True)
class Captured:
    """A program over the parameters of a module. functions: of the program, by name of part; early:
    of its prologue. entry: where on disk it is kept; is_cached: whether it was read there, and not
    made in this process.
    """

    module: nn.Module
    arguments: Mapping[str, Argument]
    artifact: Artifact
    functions: Mapping[str, Function]
    early: Mapping[str, Function]
    entry: Entry | None = None
    is_cached: bool = False
    constants: SimpleNamespace = field(default_factory=SimpleNamespace)
    layers: Mapping[str, nn.Linear] = field(default_factory=dict)
    convolutions: Mapping[str, nn.Conv2d] = field(default_factory=dict)
    _given: Mapping[str, Tensor] = field(default_factory=dict)
    _sized: dict[tuple[tuple[str, int], ...], Sized] = field(default_factory=dict)
    _usual: dict[tuple[tuple[str, int], ...], bool] = field(default_factory=dict)
    _merged: dict[str, nn.Linear] = field(default_factory=dict)

    @property
    def program(self) -> Program:
        return self.artifact.program

    @property
    def parts(self) -> Sequence[Part]:
        return self.artifact.parts

    @property
    def text(self) -> str:
        """Of the program."""
        return self.artifact.text

    @property
    def axes(self) -> Mapping[str, Sequence[str]]:
        """Token axes of each stream."""
        return self.artifact.axes

    @property
    def dense(self) -> Mapping[str, str]:
        """Operations that run sample by sample, and why."""
        return self.artifact.dense

    def bind(self) -> None:
        """Take the module's parameters as they are now: anew where they were moved or cast."""
        _, self._given = given_at(self.arguments, self.artifact.sizes)
        names = [*(part.name for part in self.parts), OTHER]
        found = self._worked_out(self.artifact.parameters, names)
        with torch.no_grad():
            constants = self._worked_out(self.artifact.parameters, names)
        self.constants = SimpleNamespace(**constants)
        self.layers, self.convolutions = bind(self.program, self.module, found)
        self._sized, self._merged = {}, {}

    def compile(self, backend: str | Callable[..., object] = "inductor") -> None:
        """From now on `torch.compile` makes kernels of what the program calculates between its
        calls of the run, for any sizes, when they are called first. backend: of `torch.compile`.
        """
        # Rows that are as many as a layer is wide, by chance, are not taken for its width.
        shapes.use_duck_shape = False
        text, pieces = divided(self.text)
        kernels = {
            name: torch.compile(function, backend=backend, dynamic=True, fullgraph=True)
            for name, function in compiled(pieces, f"{self.artifact.title} pieces").items()
        }
        self.functions = compiled(text, self.artifact.title, kernels)

    def weights(self, part: Part) -> SimpleNamespace:
        """Constants of a part. With gradients they are worked out anew, so that these reach what
        they are made of.
        """
        if not torch.is_grad_enabled():
            return self.constants
        return SimpleNamespace(**self._worked_out(part.constants, [part.name]))

    def _worked_out(self, names: Iterable[str], parts: Iterable[str]) -> dict[str, Tensor]:
        """These constants, as far as they are parameters, and what these parts have beside."""
        weights, parameters = Weights(self.module), self.artifact.parameters
        found = {name: weights[parameters[name]] for name in names if name in parameters}
        for part in parts:
            if f"{part}_constants" in self.early:
                found |= self._evaluated(f"{part}_constants", self._given, self.artifact.sizes)
        return found

    def _evaluated(self, name: str, given: Mapping[str, Tensor], sizes: Sizes) -> dict[str, Tensor]:
        """What a function of the prologue says."""
        tensors = self.artifact.prologue.tensors
        return self.early[name](Weights(self.module), given, tensors, sizes)  # pyright: ignore

    def lengths(self, sizes: Sizes) -> Lengths:
        """Of token axes."""
        return lengths_of(self.arguments, self.artifact.patch, sizes)

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
            if name in self.artifact.sized:
                return self.places(several[index])[name]
            return getattr(self.constants, name)

        program = self.program
        sized = [self._at(sizes) for sizes in several] if program.numbers else []
        lengths = [self.lengths(sizes) for sizes in several]
        if sized:
            lengths = [{**own, **one.numbers} for own, one in zip(lengths, sized, strict=True)]
        return Frame(
            pack,
            self.axes,
            lengths,
            self.layers,
            self.convolutions,
            place,
            merged=program.merged,
            together=self.together,
            extras=program.extras,
            copies=program.copies,
            floats=[one.floats for one in sized],
        )

    def together(self, name: str) -> nn.Linear:
        """A merged layer, made when it is needed, and again where parameters were replaced."""
        parts = [self.layers[one] for one in self.program.merged[name]]
        if name not in self._merged or not is_made_of(self._merged[name], parts):
            self._merged[name] = merged(parts)
        return self._merged[name]

    def places(self, sizes: Sizes) -> Mapping[str, Tensor]:
        """All values that depend on sizes, at these. Raises CannotCapture where the class does
        another thing there.
        """
        return self._at(sizes).places

    @torch.no_grad()
    def _at(self, sizes: Sizes) -> Sized:
        key = tuple(sorted(sizes.items()))
        if key not in self._sized:
            is_small = not self._is_usual(sizes)
            baked = self.artifact.sized if is_small else self.artifact.baked
            called, given = given_at(self.arguments, sizes)
            found: dict[str, Tensor] = {} if is_small else self._evaluated("places", given, sizes)
            own: Mapping[str, int | float] = {}
            if baked or self.program.numbers:
                prologue = self._looked_up(sizes, called, baked)
                made = prologue.functions(self.artifact.title)
                weights = Weights(self.module)
                found |= made["places"](weights, given, prologue.tensors, sizes)  # pyright: ignore
                own = made["numbers"]()  # pyright: ignore
            whole = {name: n for name, n in own.items() if isinstance(n, int)}
            floats = {name: n for name, n in own.items() if isinstance(n, float)}
            self._sized[key] = Sized(found, whole, floats)
        return self._sized[key]

    def _is_usual(self, sizes: Sizes) -> bool:
        """Whether the class does at these sizes what it does at larger ones. Where some are small
        (a single frame, a key frame and the last, no words) it may not: found out once for these,
        with all others as they were exported.
        """
        own = self.lengths(sizes)
        small = {name: size for name, size in sizes.items() if own.get(name, size) <= SMALL}
        key = tuple(sorted(small.items()))
        if key not in self._usual:
            self._usual[key] = not small or self._agrees({**self.artifact.sizes, **small})
        return self._usual[key]

    def _agrees(self, sizes: Sizes) -> bool:
        """Whether expressions give there what an export does."""
        called, given = given_at(self.arguments, sizes)
        try:
            prologue = self._looked_up(sizes, called, self.artifact.sized)
        except CannotCapture:
            return False
        made = prologue.functions(self.artifact.title)["places"]
        exact = made(Weights(self.module), given, prologue.tensors, sizes)
        own = self._evaluated("places", given, sizes)
        return all(_is_close(one, exact.get(name)) for name, one in own.items())

    def _looked_up(
        self, sizes: Sizes, called: Mapping[str, object], names: Collection[str]
    ) -> Prologue:
        """Of these values, and of the program's numbers, at these sizes: as it is kept, or by
        another export of the class.
        """
        kept = self.entry.prologue(sizes, called) if self.entry is not None else None
        if kept is not None:
            return kept
        artifact = self.artifact
        exported = export(self.module, self.arguments, sizes, decomposed=artifact.decomposed)
        first = matched(self.artifact.steps, self.artifact.inputs, exported)
        own = {name: mine for mine, name in first.items()}
        writer = Writer(exported, tensor_names(self.module))
        writer.add("places", {name: own[name] for name in sorted(names)})
        found = {
            name: _number(one, exported.nodes[own[one.node]])
            for name, one in self.program.numbers.items()
        }
        writer.add_numbers("numbers", found)
        prologue = writer.prologue(self.artifact.title)
        if self.entry is not None:
            self.entry.keep(sizes, called, prologue)
        return prologue

    def lay(self, samples: Sequence[Mapping[str, Tensor]], at: Frame) -> dict[str, Tensor]:
        """Arguments of each sample, as the class takes them, on rows."""
        return {
            name: at.lay([sample[name] for sample in samples], streams, recipe.dims)
            for name, (_, streams, recipe) in self.program.inputs.items()
        }

    def sizes_in(self, pack: Pack) -> list[dict[str, int]]:
        """The sizes of each sample branch of a pack: the inverse of `pack`."""
        ones = self.lengths(dict.fromkeys(self.artifact.sizes, 1))
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


def _is_close(one: Tensor, other: object) -> bool:
    return (
        isinstance(other, Tensor)
        and (one.shape, one.dtype) == (other.shape, other.dtype)
        and torch.allclose(one, other)
    )


def _number(number: Number, node: Node) -> int | float:
    """In the graph of that node."""
    if number.index is None:
        return dict(numbers(arguments_of(node)))[number.path]
    (dim,) = number.path
    return shapes_of(node)[number.index][int(dim)]


def bound(
    module: nn.Module,
    arguments: Mapping[str, Argument],
    artifact: Artifact,
    entry: Entry | None = None,
    *,
    is_cached: bool = False,
) -> Captured:
    """An artifact over the parameters of a module, as they are."""
    functions = compiled(artifact.text, artifact.title)
    early = artifact.prologue.functions(artifact.title)
    found = Captured(module, arguments, artifact, functions, early, entry, is_cached)
    with torch.enable_grad():
        found.bind()
    return found


def assembled(captured: Captured, program: Program) -> Captured:
    """The same capture with another program, which reads the same constants."""
    artifact, module = captured.artifact, captured.module
    parts = tuple(divide(program, blocks_of(module)))
    text = source(program, parts, artifact.title)
    other = replace(artifact, program=program, parts=parts, text=text)
    return bound(module, captured.arguments, other)


def tensor_names(module: nn.Module) -> frozenset[str]:
    """Of parameters and buffers."""
    found = [*module.named_parameters(), *module.named_buffers()]
    return frozenset(name for name, _ in found)


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


def given_at(
    arguments: Mapping[str, Argument], sizes: Sizes
) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Arguments that are functions of sizes, at these, as the class takes them; the tensors among
    them, by the names that a graph has for them.
    """
    others = {name: one for name, one in arguments.items() if not one.is_data}
    called = call_arguments(others, sizes, torch.Generator())
    found: dict[str, Tensor] = {}
    for name in others:
        leaves = pytree.tree_leaves(entry_of(called, name))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        for i, one in enumerate(tensors):
            found[name if len(tensors) == 1 else f"{name}#{i}"] = one
    return called, found


def tensor_of(called: Mapping[str, object], name: str) -> Tensor:
    """One of the tensors among the arguments of a call, by the name that a graph has for it."""
    whole, _, index = name.partition("#")
    leaves = pytree.tree_leaves(entry_of(called, whole))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    return tensors[int(index or 0)]
