"""Linear layers of one input as one: queries, keys and values, the halves of a gated MLP.

A merged layer is called by the path that its layers share and their names,
"blocks.0.attn.to_q+to_k+to_v".
"""

from __future__ import annotations

import re

from musiva.compiler.program import Op, Program

__all__ = ["merge"]

CALL = re.compile(
    r"at\.linear\(run, '([^'#]+)', (\w+)\.reshape\(-1, (\d+)\)\)(\.reshape\(\([-\d, ]*\)\))"
)


def merge(program: Program) -> None:
    """Change a program so that layers of one module that read the same are one call."""
    groups: dict[tuple[object, ...], list[Op]] = {}
    for op in program.ops:
        found = CALL.fullmatch(op.text) if op.kind == "linear" else None
        parent = found[1].rpartition(".")[0] if found else ""
        if found and parent:
            has_bias = program.layers[found[1]][1] is not None
            groups.setdefault((parent, found[2], op.streams, has_bias), []).append(op)
    first = {id(ops[0]): ops for ops in groups.values() if len(ops) > 1}
    merged: list[Op] = []
    for op in program.ops:
        if id(op) in first:
            merged.append(_together(program, first[id(op)]))
        merged.append(op)
    program.ops = merged


def _together(program: Program, ops: list[Op]) -> Op:
    """One call for all of these, which then take their parts of it."""
    calls = [found for op in ops if (found := CALL.fullmatch(op.text))]
    sites = [found[1] for found in calls]
    parent = sites[0].rpartition(".")[0]
    site = f"{parent}." + "+".join(one.rpartition(".")[2] for one in sites)
    program.merged[site] = tuple(sites)
    out = f"{ops[0].out}_all"
    text = f"at.linears(run, {site!r}, {calls[0][2]}.reshape(-1, {calls[0][3]}))"
    op = Op(out, text, "linear", ops[0].reads, ops[0].streams, parent, site)
    for i, (one, found) in enumerate(zip(ops, calls, strict=True)):
        one.text, one.kind, one.reads = f"{out}[{i}]{found[4]}", "item", (out,)
        one.site = ""
    return op
