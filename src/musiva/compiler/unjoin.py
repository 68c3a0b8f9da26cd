"""Streams that were put behind one another for an attention alone go there as they are."""

from __future__ import annotations

import re

from musiva.compiler.program import Op, Program

__all__ = ["keeps_order", "unjoin"]

OPERAND = re.compile(r"(\w+)(\.reshape\(-1, \d+, \d+\))")
JOIN = re.compile(r"torch\.cat\(\[(.*)\]\)")
ORDER = re.compile(r"\w+\.permute\(\(([\d, ]*)\)\)")
PART = re.compile(r"(\w+)\.expand\(\(-1, [\d, ]*\)\)")


def unjoin(program: Program) -> None:
    """Change a program so that attention reads what a join is made of, where nothing else needs the
    join.
    """
    by_name = {op.out: op for op in program.ops}
    readers: dict[str, list[Op]] = {}
    for op in program.ops:
        for name in op.reads:
            readers.setdefault(name, []).append(op)
    outputs = {variable for variable, _, _ in program.outputs}
    gone: set[str] = set()
    for op in program.ops:
        reads = list(op.reads) if op.kind == "attend" else []
        for name in dict.fromkeys(reads):
            chain = _chain(name, program, by_name)
            alone = all(one not in outputs and len(readers[one]) == 1 for one in chain)
            parts = _parts(by_name[chain[-1]], program) if alone and chain else None
            if parts is None or reads.count(name) > 1:
                continue
            op.text = _apart(op.text, name, parts)
            place = reads.index(name)
            reads[place : place + 1] = parts
            gone.update(chain)
        if op.kind == "attend":
            op.reads = tuple(reads)
    program.ops = [op for op in program.ops if op.out not in gone]


def _chain(name: str, program: Program, by_name: dict[str, Op]) -> list[str]:
    """From a variable back to the join whose numbers it has in the same order; empty for what is
    none.
    """
    chain = []
    while (op := by_name.get(name)) is not None:
        chain.append(name)
        if op.kind == "join":
            return chain
        if op.kind not in ("order", "shape", "keep") or not keeps_order(op, program):
            break
        (name,) = op.reads
    return []


def keeps_order(op: Op, program: Program) -> bool:
    """Whether only dimensions of extent 1 move."""
    if op.kind != "order":
        return True
    found = ORDER.fullmatch(op.text)
    if found is None or op.reads[0] not in program.features:
        return False
    extents = (2, *program.features[op.reads[0]])
    moved = [dim for dim in map(int, found[1].split(", ")) if extents[dim] > 1]
    return moved == sorted(moved)


def _parts(join: Op, program: Program) -> list[str] | None:
    found = JOIN.fullmatch(join.text)
    parts = re.split(r", (?=\w+\.expand)", found[1]) if found else []
    names = [one[1] for part in parts if (one := PART.fullmatch(part))]
    plain = len(names) == len(parts) == len(join.streams)
    wide = all(program.features.get(n) == program.features[join.out] for n in names)
    return names if plain and wide else None


def _apart(text: str, name: str, parts: list[str]) -> str:
    """An operand of attention as a tuple of its streams."""

    def new(found: re.Match[str]) -> str:
        if found[1] != name:
            return found[0]
        return f"({', '.join(f'{part}{found[2]}' for part in parts)})"

    return OPERAND.sub(new, text)
