"""Operations that one call of the run does together."""

from __future__ import annotations

from musiva.compiler.program import Op, Program

__all__ = ["fuse"]

# As `Run.linear` names it.
ACTIVATION, GELU = "gelu_tanh", "torch.ops.aten.gelu.default({}, approximate='tanh')"


def fuse(program: Program) -> None:
    """A linear layer and the activation that alone reads it are one call."""
    readers: dict[str, list[Op]] = {}
    for op in program.ops:
        for name in op.reads:
            readers.setdefault(name, []).append(op)
    outputs = {variable for variable, _, _ in program.outputs}
    gone: set[int] = set()
    for op in program.ops:
        own = readers.get(op.out, [])
        if op.kind != "linear" or len(own) != 1 or op.out in outputs:
            continue
        (after,) = own
        if after.text == GELU.format(op.out):
            call, cut, shape = op.text.rpartition(").reshape(")
            op.text = f"{call}, {ACTIVATION!r}{cut}{shape}"
            op.out = after.out
            gone.add(id(after))
    program.ops = [op for op in program.ops if id(op) not in gone]
