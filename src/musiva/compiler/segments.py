"""A program in parts: what comes before the blocks of a model, each block, and what comes after.

A block is a child of a `ModuleList` of the module; operations know the module they were traced in.
What a part needs of earlier ones goes from one to the next by name (`Part.keys`): the image rows as
they flow through the blocks are "image", so that a policy finds them, other rows of a stream are
"image.NAME" or "text.NAME", the rest goes by the names of variables. Looking up a table or a place
by rows is done anew in every part, since rows may have been taken between.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from musiva.compiler.program import Op, Program, Streams

__all__ = ["LOOKUPS", "Part", "ancestors", "blocks_of", "divide", "rows_of"]

# Operations of a pack's rows on what is none, cheap enough to be done again.
LOOKUPS = ("gather", "place")
# What a block is worth being one for.
MIXES = ("attend", "dense", "conv", "reduce")


@dataclass(slots=True)
class Part:
    """site: path of its block; empty for the first and the last one. name: of its function. reads:
    variables of earlier parts; kept: those that later ones need, its own among them. keys: what
    each of these is called when it is handed on, by variable; main: which of them is the image
    stream, by itself or with others behind it.
    """

    site: str
    name: str
    ops: list[Op] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    main: str | None = None
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def constants(self) -> set[str]:
        """Those that it reads."""
        return {
            name.removeprefix("c.") for op in self.ops for name in op.reads if name.startswith("c.")
        }


def blocks_of(module: nn.Module) -> list[str]:
    """Paths of repeated blocks, outermost ones only."""
    found: list[str] = []
    for name, child in module.named_modules():
        inside = any(name.startswith(f"{block}.") for block in found)
        if isinstance(child, nn.ModuleList) and not inside:
            found += [f"{name}.{i}" for i in range(len(child))]
    return found


def divide(program: Program, blocks: Sequence[str]) -> list[Part]:
    """The first part, one for each block that mixes tokens of the image, and the last."""
    worth = [block for block in blocks if _mixes(program, block)]
    parts = [Part("", "embed")]
    names: dict[str, int] = {}
    for op in program.ops:
        block = next((one for one in worth if _is_in(op.path, one)), None)
        if block is not None and block != parts[-1].site.partition("#")[0]:
            # A block that runs twice is two segments.
            names[block] = again = names.get(block, 0) + 1
            site = block if again == 1 else f"{block}#{again}"
            parts.append(Part(site, re.sub(r"\W", "_", site)))
        parts[-1].ops.append(op)
    _split_tail(parts)
    _rebuild_lookups(parts)
    _link(program, parts)
    _name(program, parts)
    return parts


def rows_of(program: Program) -> dict[str, Streams]:
    """Whose rows a variable has; none of what lies sample by sample."""
    return {op.out: () if op.kind == "dense" else op.streams for op in program.ops}


def _mixes(program: Program, block: str) -> bool:
    inside = [op for op in program.ops if _is_in(op.path, block)]
    return any(op.kind in MIXES for op in inside) and any("image" in op.streams for op in inside)


def _is_in(path: str, block: str) -> bool:
    return path == block or path.startswith(f"{block}.")


def _split_tail(parts: list[Part]) -> None:
    """What follows the last operation inside the last block is a part of its own."""
    last = parts[-1]
    block = last.site.partition("#")[0]
    inside = [i for i, op in enumerate(last.ops) if block and _is_in(op.path, block)]
    end = max(inside, default=-1) + 1
    parts.append(Part("", "head", last.ops[end:]))
    last.ops = last.ops[:end]


def _rebuild_lookups(parts: Sequence[Part]) -> None:
    """A lookup of an earlier part is done again where it is read."""
    lookups = {op.out: op for part in parts for op in part.ops if op.kind in LOOKUPS}
    for part in parts:
        own = {op.out for op in part.ops}
        needed = [
            name for op in part.ops for name in op.reads if name in lookups and name not in own
        ]
        part.ops[:0] = [lookups[name] for name in dict.fromkeys(needed)]


def _link(program: Program, parts: Sequence[Part]) -> None:
    """Which variables go from part to part."""
    wanted = {variable for variable, _, _ in program.outputs}
    for part in reversed(parts):
        part.kept = sorted(wanted)
        own = {op.out for op in part.ops}
        read = {name for op in part.ops for name in op.reads if not name.startswith("c.")}
        wanted = (wanted - own) | (read - own)
        part.reads = sorted(read - own)
    inputs = {variable for variable, _, _ in program.inputs.values()}
    first = parts[0]
    first.reads = sorted(inputs & {*first.reads, *first.kept})


def _name(program: Program, parts: Sequence[Part]) -> None:
    """Which variable is the image stream, followed from the end to the beginning, and what the
    others are called.
    """
    streams = {variable: own for variable, own, _ in program.inputs.values()}
    streams |= rows_of(program)
    main: str | None = program.outputs[0][0]
    for part, before in zip(reversed(parts), reversed(parts[:-1]), strict=False):
        main = _origin(part, main, streams)
        before.main = main if main in before.kept and main in program.features else None
        before.keys = _keys(before, streams, program.features)
        main = before.main


def _keys(part: Part, streams: Mapping[str, Streams], known: Collection[str]) -> dict[str, str]:
    """known: variables of which it is known what is on a row."""
    keys: dict[str, str] = {}
    taken = set(streams.get(part.main, ())) if part.main else set()
    last = {
        streams[name][0]: name
        for name in part.kept
        if len(streams.get(name, ())) == 1 and name in known
    }
    for name in part.kept:
        own = streams.get(name, ())
        if name == part.main:
            keys[name] = "image"
        elif len(own) == 1 and own[0] not in {*taken, "image"} and last.get(own[0]) == name:
            keys[name] = own[0]
        else:
            keys[name] = f"{own[0]}.{name}" if len(own) == 1 else name
    return keys


def _origin(part: Part, variable: str | None, streams: Mapping[str, Streams]) -> str | None:
    """What the image stream was before a part, of which this variable is what it is behind it: sums
    are followed to what is added to, everything else to its first operand with such rows.
    """
    own = {op.out: op for op in part.ops}
    while variable in own:
        op = own[variable]
        rows = [
            name
            for name in op.reads
            if "image" in streams.get(name, ()) and not (name in own and own[name].kind in LOOKUPS)
        ]
        if op.kind == "join":
            rows = [name for name in rows if streams[name] == ("image",)] or rows
        variable = _base(rows, own) if rows else None
    return variable


def _base(rows: Sequence[str], own: Mapping[str, Op]) -> str:
    """Of two that meet, the one that the other is made of."""
    first, *others = dict.fromkeys(rows)
    for other in others:
        if first not in ancestors([other], own):
            return other if other in ancestors([first], own) else first
    return first


def ancestors(names: Iterable[str], own: Mapping[str, Op], stop: Collection[str] = ()) -> set[str]:
    """What these variables are made of, they among it; not what `stop` is made of."""
    found: set[str] = set()
    stack = list(names)
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack += own[name].reads if name in own and name not in stop else ()
    return found
