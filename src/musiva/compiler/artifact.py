"""What a capture comes to, without a module: text, tables and tensors, in files and back.

It is a function of what the class does and of its config. Numbers that come of weights are none of
it: they are worked out by its text, of the weights as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from musiva.compiler.export import Step
from musiva.compiler.folder import Unusable
from musiva.compiler.plain import plain, typed
from musiva.compiler.program import Op, Program
from musiva.compiler.prologue import Prologue
from musiva.compiler.segments import Part

__all__ = ["Artifact", "files_of", "from_files", "prologue_files", "prologue_of"]

T = TypeVar("T")
PROGRAM, PROLOGUE = "program.py", "prologue.py"
TABLES, TENSORS = "capture.json", "tensors.safetensors"
# Complex numbers lie in files as pairs.
PAIRS = " as pairs"


@dataclass(frozen=True, slots=True)
class Artifact:
    """title: name of the class. sizes: those of the first graph. patch: positions in a token, along
    axes where a token has several. axes: token axes of each stream. sized: what depends on sizes
    and not on a sample, by name of node; baked: of these, what takes an export at each size.
    dense: operations that run sample by sample, and why. parameters: constants that are parameters
    or buffers of the module, with their names there. inputs, steps: of the first graph, as
    `matched` takes them; decomposed: how that was exported. parts: of the program, each with the
    function of its name in `text`.

    prologue: its functions are `places`, of what is sized and not baked, `NAME_constants`, of
    constants that the part of that name reads and that are no parameters, and `other_constants`.
    """

    title: str
    sizes: dict[str, int]
    patch: dict[str, int]
    axes: dict[str, tuple[str, ...]]
    sized: frozenset[str]
    baked: frozenset[str]
    dense: dict[str, str]
    parameters: dict[str, str]
    inputs: dict[str, str]
    steps: tuple[Step, ...]
    decomposed: bool
    program: Program
    parts: tuple[Part, ...]
    text: str
    prologue: Prologue


def files_of(artifact: Artifact) -> dict[str, bytes]:
    """By name. Raises TypeError for what cannot be written."""
    program, parts = artifact.program, artifact.parts
    # An operation may be in several parts.
    every = [*program.ops, *(op for part in parts for op in part.ops)]
    ops = list({id(op): op for op in every}.values())
    places = {id(op): i for i, op in enumerate(ops)}

    def without_ops(one: Program | Part) -> dict[str, object]:
        written = plain(one, without=("ops",))
        assert isinstance(written, dict)
        return {**written, "ops": [places[id(op)] for op in one.ops]}

    tables = {
        "artifact": plain(artifact, without=("program", "parts", "text", "prologue")),
        "program": without_ops(program),
        "parts": [without_ops(part) for part in parts],
        "ops": [plain(op) for op in ops],
    }
    return {
        PROGRAM: artifact.text.encode(),
        TABLES: json.dumps(tables).encode(),
        **prologue_files(artifact.prologue),
    }


def from_files(files: Mapping[str, bytes]) -> Artifact:
    """The inverse of `files_of`. Raises Unusable."""
    try:
        tables = json.loads(files[TABLES])
        ops = [typed(Op, one) for one in tables["ops"]]
        return typed(
            Artifact,
            tables["artifact"],
            program=_with_ops(Program, tables["program"], ops),
            parts=tuple(_with_ops(Part, one, ops) for one in tables["parts"]),
            text=files[PROGRAM].decode(),
            prologue=prologue_of(files),
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Unusable(f"{TABLES}: {type(error).__name__}: {error}") from error


def _with_ops(kind: type[T], table: Mapping[str, Any], ops: Sequence[Op]) -> T:
    left = dict(table)
    return typed(kind, left, ops=[ops[i] for i in left.pop("ops")])


def prologue_files(prologue: Prologue) -> dict[str, bytes]:
    """Raises TypeError for tensors that have no form in a file."""
    files = {PROLOGUE: prologue.text.encode()}
    if prologue.tensors:
        written = dict(_written(*item) for item in prologue.tensors.items())
        files[TENSORS] = save(written)
    return files


def prologue_of(files: Mapping[str, bytes]) -> Prologue:
    """The inverse. Raises Unusable."""
    try:
        tensors = load(files[TENSORS]) if TENSORS in files else {}
        text = files[PROLOGUE].decode()
    except (KeyError, ValueError, SafetensorError) as error:
        raise Unusable(f"{PROLOGUE}: {type(error).__name__}: {error}") from error
    pairs = {name: x for name, x in tensors.items() if name.endswith(PAIRS)}
    return Prologue(
        text,
        {name: x for name, x in tensors.items() if name not in pairs}
        | {name.removesuffix(PAIRS): torch.view_as_complex(x) for name, x in pairs.items()},
    )


def _written(name: str, x: Tensor) -> tuple[str, Tensor]:
    if x.device.type != "cpu" or x.layout is not torch.strided:
        raise TypeError(f"{name}: {x.layout} on {x.device}")
    # Of its own: files have no tensors that share memory.
    x = x.detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    return (f"{name}{PAIRS}", torch.view_as_real(x)) if x.is_complex() else (name, x)
