"""Operations that one call does together: a linear layer and its activation, a norm and what
modulates it, a sum and its gate, and linear layers of one input (`musiva.compiler.merge`).

What modulates is one for a sample: it is read from its table as it is, and never laid out on rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from musiva.compiler.merge import merge
from musiva.compiler.program import Op, Program, prune

__all__ = ["fuse"]

# As `Run.linear` names them, by what they are called in a graph.
ACTIVATIONS: Mapping[str, str] = {
    "torch.ops.aten.gelu.default({}, approximate='tanh')": "gelu_tanh",
    "torch.ops.aten.gelu.default({}, approximate='none')": "gelu",
    "torch.ops.aten.gelu.default({})": "gelu",
    "torch.ops.aten.silu.default({})": "silu",
    "torch.ops.aten.relu.default({})": "relu",
}
# An operand, which may be given dimensions of extent 1 to meet others.
OPERAND = r"(\w+)(?:\.reshape\(\([-\d, ]*\)\))?"
PRODUCT = re.compile(rf"{OPERAND} \* {OPERAND}")
SUM = re.compile(rf"{OPERAND} \+ {OPERAND}")
ONE_MORE = re.compile(rf"{OPERAND} \+ 1(?:\.0)?")
GATHER = re.compile(r"at\.gather\((\w+), \(.*\)\)")
# Without weights of its own.
NORM = re.compile(
    r"torch\.ops\.aten\.layer_norm\.default\((\w+), \[(\d+)\](?:, None, None)?, (?:eps=)?([-\de.]+)"
    r"(?:, (?:cudnn_enable=)?\w+)?\)"
)


def fuse(program: Program) -> None:
    """Change a program to fewer operations that give the same."""
    _rename(program)
    _Fusion(program).run()
    merge(program)


def _rename(program: Program) -> None:
    """What only gives another name to a value goes by the value's."""
    names: dict[str, str] = {}
    outputs = {variable for variable, _, _ in program.outputs}
    kept = []
    for op in program.ops:
        op.text = _renamed(op.text, names)
        op.reads = tuple(names.get(name, name) for name in op.reads)
        same = op.kind == "keep" and op.reads == (op.text,) and op.out not in outputs
        if same and program.features.get(op.text) == program.features[op.out]:
            names[op.out] = op.text
        else:
            kept.append(op)
    program.ops = kept


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """Names in quotes are those of modules and places."""

    def new(found: re.Match[str]) -> str:
        return names.get(found[0], found[0])

    return re.sub(r"(?<!['\w.])[a-z_]\w*(?!['\w])", new, text) if names else text


class _Fusion:
    """Over the operations of a program by what they are called, and by what reads them."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.by_name = {op.out: op for op in program.ops}
        self.outputs = {variable for variable, _, _ in program.outputs}
        self.readers: dict[str, list[Op]] = {}
        for op in program.ops:
            for name in op.reads:
                self.readers.setdefault(name, []).append(op)

    def run(self) -> None:
        for op in self.program.ops:
            if op.kind == "add":
                fused = self._modulated_norm(op) or self._gated_add(op)
                if fused is not None:
                    op.kind, op.text, op.reads = fused
            elif op.kind == "linear":
                self._activated(op)
        prune(self.program)

    def _activated(self, op: Op) -> None:
        """The activation takes the layer along, where nothing else reads that."""
        own = self.readers.get(op.out, [])
        if len(own) != 1 or op.out in self.outputs:
            return
        (after,) = own
        for text, name in ACTIVATIONS.items():
            if after.text == text.format(op.out):
                call, cut, shape = op.text.rpartition(").reshape(")
                after.text = f"{call}, {name!r}{cut}{shape}"
                after.kind, after.reads, after.site = op.kind, op.reads, op.site
                after.path = op.path

    def _modulated_norm(self, op: Op) -> tuple[str, str, tuple[str, ...]] | None:
        """norm(x) * (1 + scale) + shift."""
        for inner, last in self._operands(op, SUM):
            product, shift = self._only(inner, "mul"), self._table(last, op)
            for normed, first in self._operands(product, PRODUCT) if product and shift else ():
                # Others may modulate the same norm: it is cheaper than their copies of tables.
                norm, scale = self.by_name.get(normed), self._one_less(first, op)
                found = NORM.fullmatch(norm.text) if norm else None
                if found and scale and shift and self._width(found[1]) == int(found[2]):
                    names = found[1], scale, shift
                    text = f"at.modulated_norm({', '.join(names)}, {op.streams!r}, {found[3]})"
                    return "modulated_norm", text + self._shaped(op), names
        return None

    def _gated_add(self, op: Op) -> tuple[str, str, tuple[str, ...]] | None:
        """x + gate * value."""
        for base, gated in self._operands(op, SUM):
            product = self._only(gated, "mul")
            if not self._is_rows(base, op):
                continue
            for value, gate in self._operands(product, PRODUCT) if product else ():
                table = self._table(gate, op)
                if table and self._is_rows(value, op) and self._width(value) == self._width(base):
                    names = base, value, table
                    text = f"at.gated_add({', '.join(names)}, {op.streams!r})"
                    return "gated_add", text + self._shaped(op), names
        return None

    def _operands(self, op: Op, form: re.Pattern[str]) -> Iterator[tuple[str, str]]:
        """Both, in both orders."""
        found = form.fullmatch(op.text)
        if found and found[1] != found[2]:
            yield found[1], found[2]
            yield found[2], found[1]

    def _only(self, name: str, kind: str) -> Op | None:
        """The operation that makes it, if it is of that kind and only one other reads it."""
        op = self.by_name.get(name)
        once = len(self.readers.get(name, ())) == 1 and name not in self.outputs
        return op if op is not None and op.kind == kind and once else None

    def _table(self, name: str, op: Op) -> str | None:
        """Of which that is the rows, with one number for each of what `op` has on a row."""
        gather = self.by_name.get(name)
        found = GATHER.fullmatch(gather.text) if gather and gather.kind == "gather" else None
        if found is None or self._width(found[1]) != self._width(op.out):
            return None
        return self._unshaped(found[1])

    def _unshaped(self, table: str) -> str:
        """Before its dimensions were arranged otherwise."""
        op = self.by_name.get(table)
        while op is not None and op.kind == "shape" and self._width(op.reads[0]) is not None:
            if self._width(op.reads[0]) != self._width(table):
                break
            table = op.reads[0]
            op = self.by_name.get(table)
        return table

    def _one_less(self, name: str, op: Op) -> str | None:
        """The table of scale, of which 1 + scale is laid out on rows."""
        more = self.by_name.get(self._table(name, op) or "")
        found = ONE_MORE.fullmatch(more.text) if more and more.kind == "add" else None
        same = found is not None and self._width(found[1]) == self._width(op.out)
        return self._unshaped(found[1]) if found and same else None

    def _is_rows(self, name: str, op: Op) -> bool:
        """As many as `op` has."""
        made = self.by_name.get(name)
        return made is not None and made.streams == op.streams and made.kind != "gather"

    def _width(self, name: str) -> int | None:
        """Numbers on a row."""
        found = self.program.features.get(name)
        return None if found is None else math.prod(found)

    def _shaped(self, op: Op) -> str:
        return f".reshape({(-1, *self.program.features[op.out])})"
