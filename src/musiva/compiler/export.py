"""A module's graph at one size, by `torch.export`, with what of it depends on a sample.

Exported twice or more, at sizes without common factors, graphs are the same but for numbers; what
differs in shape from one to another depends on sizes (`align`).
"""

from __future__ import annotations

import operator
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from types import FunctionType, MethodType, UnionType

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses import fake_tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils import _pytree as pytree

from musiva.compiler.arguments import Argument, Sizes, call_arguments, entry_of
from musiva.compiler.repairs import Repairs
from musiva.core.errors import CannotCapture

__all__ = [
    "Aligned",
    "Exported",
    "Path",
    "Step",
    "align",
    "arguments_of",
    "dtype_of",
    "export",
    "is_item",
    "matched",
    "numbers",
    "outline",
    "shapes_of",
]

# Where a number stands among the arguments of an operation: the name of one, places in lists.
Path = tuple[str | int, ...]
# An export changes what is global to a process: one at a time, and no module is called meanwhile.
EXPORTING = threading.Lock()
# What attributes of a module are that keep no values of their own.
NO_HOLDERS = (nn.Module, Tensor, type, FunctionType, MethodType)


@dataclass(slots=True)
class Exported:
    """The graph of a module for one sample of these sizes. inputs: names of placeholders by name of
    argument, where it is a tensor; data: names of the nodes that depend on what a sample brings.
    prefix: of names of the module's parameters in the program. decomposed: see `export`.
    """

    program: ExportedProgram
    sizes: Sizes
    inputs: Mapping[str, str]
    data: frozenset[str]
    nodes: Mapping[str, Node] = field(default_factory=dict)
    prefix: str = ""
    decomposed: bool = False

    @property
    def body(self) -> list[Node]:
        """Operations on what a sample brings, in order."""
        graph = self.program.graph
        return [n for n in graph.nodes if n.op == "call_function" and n.name in self.data]

    @property
    def constants(self) -> dict[str, Tensor]:
        """Tensors that the graph brings along, by name of placeholder."""
        signature = self.program.graph_signature
        named = {**signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
        every = self.program.constants
        return {node: every[name] for node, name in named.items() if name in every}  # pyright: ignore

    @property
    def parameters(self) -> dict[str, str]:
        """Names of parameters and buffers in the module, by name of placeholder."""
        signature = self.program.graph_signature
        named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        return {node: name.removeprefix(self.prefix) for node, name in named.items()}

    @property
    def outputs(self) -> list[Node]:
        (out,) = (node for node in self.program.graph.nodes if node.op == "output")
        return [one for one in pytree.tree_leaves(out.args) if isinstance(one, Node)]


@dataclass(frozen=True, slots=True)
class Step:
    """An operation of the first graph, and what another graph has to have in its place: names of
    nodes that it reads; flags, words and numbers that are not whole among its arguments.
    """

    name: str
    target: str
    operands: tuple[str, ...]
    literals: tuple[tuple[str, bool | float | str], ...] = ()


@dataclass(slots=True)
class Aligned:
    """Several graphs of one module. names: for each graph, the name of a node in the first one by
    its own. varying: by name in the first one, which dimensions of each tensor depend on sizes;
    moving: which numbers among the arguments do, with their values in each graph. steps: of the
    first graph, without numbers that do.
    """

    graphs: Sequence[Exported]
    steps: Sequence[Step]
    names: Sequence[Mapping[str, str]]
    varying: Mapping[str, Sequence[Sequence[bool]]]
    moving: Mapping[str, Mapping[Path, Sequence[int | float]]]

    def varying_in(self, index: int) -> dict[str, Sequence[Sequence[bool]]]:
        """By the names of that graph."""
        return {own: self.varying[name] for own, name in self.names[index].items()}


def export(
    module: nn.Module,
    arguments: Mapping[str, Argument],
    sizes: Sizes,
    *,
    decomposed: bool = False,
) -> Exported:
    """Where the class reads lengths from what depends on sizes alone (a mask of words), that is
    known while it is traced. decomposed: in the operations that torch makes of a graph which writes
    in place, also where it does not. Raises CannotCapture.
    """
    generator = torch.Generator().manual_seed(0)
    called = call_arguments(arguments, sizes, generator, dtype_of(module))
    try:
        program, made = _exported(module, {**called, "return_dict": False}, decomposed)
        prefix = ""
    except Exception:  # whatever a model's own code raises under the tracer
        program, made = _exported_knowing(module, arguments, called, decomposed)
        prefix = "module."
    else:
        if any(
            node.op == "call_function" and not _is_operator(node) for node in program.graph.nodes
        ):
            # Sizes that values decide, of a mask perhaps.
            program, made = _exported_knowing(module, arguments, called, decomposed)
            prefix = "module."
    inputs = _inputs(program, called, arguments)
    data: set[str] = {
        node for name, node in inputs.items() if arguments[name.partition("#")[0]].is_data
    }
    for node in list(program.graph.nodes):
        if str(node.target).startswith("aten._assert"):
            # What export has checked for these sizes.
            program.graph.erase_node(node)
        elif _is_random(node):
            raise CannotCapture(f"{node.name}: {node.target} draws random numbers")
        elif any(source.name in data for source in node.all_input_nodes):
            if node.op == "call_function" and not _is_operator(node):
                raise CannotCapture(f"{node.name}: {node.target} of what a sample brings")
            data.add(node.name)
    nodes = {node.name: node for node in program.graph.nodes}
    return Exported(program, sizes, inputs, frozenset(data), nodes, prefix, made)


def _exported(
    module: nn.Module, called: Mapping[str, object], decomposed: bool
) -> tuple[ExportedProgram, bool]:
    """The program, and whether its operations were made into others."""
    with EXPORTING, ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # Of torch about itself, and of models about their age.
        warnings.simplefilter("ignore")
        # What the caller runs in (a training step, say) would make other operations of it.
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_as_it_was(module))
        stack.enter_context(Repairs())
        program = torch.export.export(module, (), dict(called), strict=False)
        # In-place operations, and what runs under an autocast, become others, at the price of a
        # second trace.
        decomposed |= not all(map(_is_plain, program.graph.nodes))
        return program.run_decompositions({}) if decomposed else program, decomposed


def _exported_knowing(
    module: nn.Module,
    arguments: Mapping[str, Argument],
    called: Mapping[str, object],
    decomposed: bool,
) -> tuple[ExportedProgram, bool]:
    """With what depends on sizes alone as constants, whose values the tracer follows as far as only
    constants meet. Torch does so for numbers; here it is allowed for tensors of any size.
    """
    data = {name.partition(".")[0] for name, one in arguments.items() if one.is_data}
    known = {name: value for name, value in called.items() if name not in data}
    limit = fake_tensor.CONSTANT_NUMEL_LIMIT
    fake_tensor.CONSTANT_NUMEL_LIMIT = 1 << 20
    try:
        own = {name: value for name, value in called.items() if name in data}
        return _exported(_Knowing(module, known), own, decomposed)
    except Exception as error:  # as above
        raise CannotCapture(f"torch.export: {type(error).__name__}: {error}") from error
    finally:
        fake_tensor.CONSTANT_NUMEL_LIMIT = limit


def dtype_of(module: nn.Module) -> torch.dtype:
    """In which it computes."""
    found = (one.dtype for one in module.parameters() if one.is_floating_point())
    return next(found, torch.float32)


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    """What a class keeps of a call (tables of positions, say) is not kept of a traced one."""
    holders: list[object] = list(module.modules())
    # Tables are kept by helpers of modules too.
    holders += [
        value
        for one in module.modules()
        for value in vars(one).values()
        if hasattr(value, "__dict__") and not isinstance(value, NO_HOLDERS)
    ]
    saved = [(one, {k: _copied(v) for k, v in vars(one).items()}) for one in holders]
    try:
        yield
    finally:
        for one, attributes in saved:
            vars(one).clear()
            vars(one).update(attributes)


def _copied(value: object) -> object:
    return copy(value) if type(value) in (dict, list, set) else value


class _Knowing(nn.Module):
    """A module with some of its arguments, made anew where it is called."""

    def __init__(self, module: nn.Module, known: Mapping[str, object]) -> None:
        super().__init__()
        self.module = module
        self.known = pytree.tree_map(_written, dict(known))

    def forward(self, **given: object) -> object:
        known = pytree.tree_map(lambda one: one() if callable(one) else one, self.known)
        return self.module(**given, **known, return_dict=False)


def _written(value: object) -> object:
    """What makes a tensor of the same numbers."""
    if not isinstance(value, Tensor):
        return value
    return partial(torch.tensor, value.tolist(), dtype=value.dtype)


def outline(graph: Exported) -> tuple[Step, ...]:
    """Of the operations on what a sample brings, in order."""
    return tuple(
        Step(
            node.name,
            str(node.target),
            tuple(source.name for source in node.all_input_nodes),
            () if is_item(node) else tuple(_literals(arguments_of(node))),
        )
        for node in graph.body
    )


def matched(
    steps: Sequence[Step],
    inputs: Mapping[str, str],
    graph: Exported,
    *,
    kinds: type | UnionType = bool | float | str,
) -> dict[str, str]:
    """By names of nodes of a graph, those of the first one, of which the steps and inputs are.
    Raises CannotCapture where they are not the same, nor literals of these kinds: what is computed
    depends on the size.
    """
    body, at = graph.body, dict(graph.sizes)
    if len(body) != len(steps):
        raise CannotCapture(f"{len(body)} operations at {at}, {len(steps)} at another size")
    own: dict[str, str] = {node: inputs[name] for name, node in graph.inputs.items()}
    for step, node in zip(steps, body, strict=True):
        if step.target != str(node.target):
            raise CannotCapture(f"{node.target} at {at}, {step.target} at another size")
        own[node.name] = step.name
        for mine, theirs in zip(step.operands, node.all_input_nodes, strict=False):
            if own.setdefault(theirs.name, mine) != mine:
                raise CannotCapture(f"{step.name}: other operands than at another size")
        given = {} if is_item(node) else dict(_literals(arguments_of(node)))
        for name, value in step.literals:
            if isinstance(value, kinds) and given.get(name) != value:
                several = [value, given.get(name)]
                raise CannotCapture(f"{step.name}: {name} depends on the size: {several}")
    return own


def align(graphs: Sequence[Exported]) -> Aligned:
    """Match the operations of graphs one by one. Raises CannotCapture where they are not the
    same.
    """
    first = graphs[0]
    steps = outline(first)
    names = [matched(steps, first.inputs, graph, kinds=bool | str) for graph in graphs]
    inverse = [{name: mine for mine, name in own.items()} for own in names]
    varying: dict[str, list[list[bool]]] = {}
    for name in inverse[0]:
        shapes = [
            shapes_of(graph.nodes[own[name]]) for graph, own in zip(graphs, inverse, strict=True)
        ]
        varying[name] = [
            [len({*sizes, -1} - {-1}) > 1 or -1 in sizes for sizes in zip(*several, strict=True)]
            for several in zip(*shapes, strict=True)
        ]
    bodies = [graph.body for graph in graphs]
    moving = {
        nodes[0].name: _moving(nodes)
        for nodes in zip(*bodies, strict=True)
        if not is_item(nodes[0])
    }
    steps = tuple(_without(step, moving.get(step.name, {})) for step in steps)
    return Aligned(graphs, steps, names, varying, moving)


def _without(step: Step, moving: Collection[Path]) -> Step:
    """Without literals that depend on sizes."""
    names = {".".join(map(str, path)) for path in moving}
    return replace(step, literals=tuple(one for one in step.literals if one[0] not in names))


def _moving(nodes: Sequence[Node]) -> dict[Path, Sequence[int | float]]:
    """Numbers among the arguments that differ."""
    every = [dict(numbers(arguments_of(node))) for node in nodes]
    several = {path: [one.get(path, number) for one in every] for path, number in every[0].items()}
    return {path: values for path, values in several.items() if len(set(values)) > 1}


def shapes_of(node: Node) -> tuple[tuple[int, ...], ...]:
    """Of each tensor that a node returns; -1 for what depends on values."""
    value = node.meta.get("val")
    several = value if isinstance(value, tuple | list) else (value,)
    return tuple(
        tuple(n if isinstance(n, int) else -1 for n in one.shape) if isinstance(one, Tensor) else ()
        for one in several
    )


def is_item(node: Node) -> bool:
    """Whether it takes one of several outputs."""
    return node.target is operator.getitem


def arguments_of(node: Node) -> dict[str, object]:
    """By name, as far as they are given."""
    schema = node.target._schema  # pyright: ignore
    names = (str(one.name) for one in schema.arguments)
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _literals(given: object, name: str = "") -> Iterator[tuple[str, bool | float | str]]:
    """By the names of arguments, and their places in lists: "scale", "sizes.0"."""
    if isinstance(given, bool | float | str):
        yield name, given
    elif isinstance(given, Mapping | list | tuple):
        several = given.items() if isinstance(given, Mapping) else enumerate(given)
        for inner, one in several:
            yield from _literals(one, f"{name}.{inner}".lstrip("."))


def numbers(given: object, path: Path = ()) -> Iterator[tuple[Path, int | float]]:
    if isinstance(given, int | float) and not isinstance(given, bool):
        yield path, given
    elif isinstance(given, Mapping):
        for name, one in given.items():
            yield from numbers(one, (*path, name))
    elif isinstance(given, list | tuple):
        for i, one in enumerate(given):
            yield from numbers(one, (*path, i))


def _is_operator(node: Node) -> bool:
    return is_item(node) or isinstance(node.target, OpOverload)


def _is_plain(node: Node) -> bool:
    """Whether it only makes new values, of operators."""
    if isinstance(node.target, OpOverload):
        return not node.target._schema.is_mutable
    return node.op != "call_function" or is_item(node)


def _is_random(node: Node) -> bool:
    """Whether it draws numbers: dropout and attention can, and do not by default."""
    target = node.target
    if not isinstance(target, OpOverload) or torch.Tag.nondeterministic_seeded not in target.tags:
        return False
    given = arguments_of(node)
    if "dropout_p" in given or "scaled_dot_product_attention" in str(target):
        return bool(given.get("dropout_p", 0.0))
    return bool(given.get("train", True))


def _inputs(
    program: ExportedProgram, called: Mapping[str, object], arguments: Mapping[str, Argument]
) -> dict[str, str]:
    spec = program.call_spec.in_spec
    assert spec is not None
    _, kwargs = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    placeholders = list(program.graph_signature.user_inputs)
    found = {}
    for name in arguments:
        if name.partition(".")[0] not in kwargs:
            continue
        leaves = pytree.tree_leaves(entry_of(kwargs, name))
        given = pytree.tree_leaves(entry_of(called, name))
        tensors = [
            leaf for leaf, value in zip(leaves, given, strict=True) if isinstance(value, Tensor)
        ]
        for i, leaf in enumerate(tensors):
            found[name if len(tensors) == 1 else f"{name}#{i}"] = str(placeholders[leaf])
    return found
