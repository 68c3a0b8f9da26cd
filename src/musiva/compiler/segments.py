"""A program in parts: what comes before the blocks of a model, each block, and what comes after.

A block is a child of a `ModuleList` of the module; operations know the module they were traced in.
What a part needs of earlier ones goes from one to the next by name. Looking up a table or a place
by rows is done anew in every part, since rows may have been taken between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from musiva.compiler.program import Op, Program

__all__ = ["Part", "blocks_of", "divide"]

# Operations of a pack's rows on what is none, cheap enough to be done again.
LOOKUPS = ("gather", "place")


@dataclass(slots=True)
class Part:
    """site: path of its block; empty for the first and the last one. reads: variables of earlier
    parts; kept: those that later ones need, its own among them. main: variable of the image stream
    as it leaves the part.
    """

    site: str
    ops: list[Op] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    main: str | None = None


def blocks_of(module: nn.Module) -> list[str]:
    """Paths of repeated blocks, outermost ones only."""
    found: list[str] = []
    for name, child in module.named_modules():
        inside = any(name.startswith(f"{block}.") for block in found)
        if isinstance(child, nn.ModuleList) and not inside:
            found += [f"{name}.{i}" for i in range(len(child))]
    return found


def divide(program: Program, blocks: Sequence[str]) -> list[Part]:
    """The first part, one for each block in which something attends, and the last."""
    worth = [block for block in blocks if _attends(program, block)]
    parts = [Part("")]
    for op in program.ops:
        block = next((one for one in worth if _is_in(op.path, one)), None)
        if block is not None and block != parts[-1].site:
            parts.append(Part(block))
        parts[-1].ops.append(op)
    _split_tail(parts)
    _rebuild_lookups(parts)
    _link(program, parts)
    return parts


def _attends(program: Program, block: str) -> bool:
    return any(
        op.kind in ("attend", "dense", "conv") and _is_in(op.path, block) for op in program.ops
    )


def _is_in(path: str, block: str) -> bool:
    return path == block or path.startswith(f"{block}.")


def _split_tail(parts: list[Part]) -> None:
    """What follows the last operation inside the last block is a part of its own."""
    last = parts[-1]
    inside = [i for i, op in enumerate(last.ops) if last.site and _is_in(op.path, last.site)]
    end = max(inside, default=-1) + 1 if last.site else 0
    parts.append(Part("", last.ops[end:]))
    last.ops = last.ops[:end] if last.site else []


def _rebuild_lookups(parts: Sequence[Part]) -> None:
    """A lookup of an earlier part is done again where it is read."""
    lookups = {op.out: op for part in parts for op in part.ops if op.kind in LOOKUPS}
    for part in parts:
        own = {op.out for op in part.ops}
        needed = [
            name for op in part.ops for name in op.reads if name in lookups and name not in own
        ]
        again = [lookups[name] for name in dict.fromkeys(needed)]
        part.ops[:0] = again


def _link(program: Program, parts: Sequence[Part]) -> None:
    """Which variables go from part to part, and which of them is the image stream."""
    wanted = {variable for variable, _, _ in program.outputs}
    for part in reversed(parts):
        part.kept = sorted(wanted)
        own = {op.out for op in part.ops}
        read = {name for op in part.ops for name in op.reads if not name.startswith("c.")}
        wanted = (wanted - own) | (read - own)
        part.reads = sorted(read - own)
    inputs = {variable for variable, _, _ in program.inputs.values()}
    parts[0].reads = [name for name in parts[0].reads if name in inputs]
    for part in parts[:-1]:
        part.main = _main(part)


def _main(part: Part) -> str | None:
    """The last sum that leaves the part with rows of the image."""
    for op in reversed(part.ops):
        if "image" in op.streams and op.out in part.kept and op.kind not in LOOKUPS:
            return op.out
    return None
