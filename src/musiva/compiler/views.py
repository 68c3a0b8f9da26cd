"""Views of views read what they are views of."""

from __future__ import annotations

import re

from musiva.compiler.program import Op, Program, prune
from musiva.compiler.unjoin import keeps_order

__all__ = ["shorten"]

VIEW = re.compile(r"(\w+(?:\[\d+\])?)\.reshape\(\([-\d, ]*\)\)")


def shorten(program: Program) -> None:
    """Change a program so that no view is read by another one, and drop what nothing reads then. A
    permutation that only moves dimensions of extent 1 is a view.
    """
    roots: dict[str, str] = {}
    for op in program.ops:
        if op.kind == "order" and keeps_order(op, program):
            op.kind, op.text = "shape", f"{op.reads[0]}.reshape({(-1, *program.features[op.out])})"
        _read_roots(op, roots)
        found = VIEW.fullmatch(op.text) if op.kind in ("shape", "item") else None
        if found:
            roots[op.out] = found[1]
    prune(program)


def _read_roots(op: Op, roots: dict[str, str]) -> None:
    """Of what an operation views anew, the numbers as they lay before."""
    reads: list[str] = []
    for name in op.reads:
        root = roots.get(name)
        found = 0
        if root is not None:
            again = rf"(?<![\w'.]){name}(?=\.reshape\(|\.flatten\(1\))"
            op.text, found = re.subn(again, root, op.text)
        if not found or re.search(rf"(?<![\w'.]){name}(?![\w'])", op.text):
            reads.append(name)
        if root is not None and found:
            reads.append(root.partition("[")[0])
    op.reads = tuple(reads)
