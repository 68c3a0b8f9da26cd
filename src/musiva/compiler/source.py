"""The program as Python text: one function, a comment where a module begins."""

from __future__ import annotations

from collections.abc import Callable

from musiva.compiler.program import Program

__all__ = ["compiled", "source"]


def source(program: Program, title: str) -> str:
    """Text of `forward(inputs, c, at, run)`: inputs on rows by argument, c the constants, at the
    frame. Returns the outputs, on rows.
    """
    lines = [
        f'"""{title}, on rows."""',
        "",
        "import torch",
        "",
        "",
        "def forward(inputs, c, at, run):",
    ]
    for name, (variable, _, _) in program.inputs.items():
        lines.append(f"    {variable} = inputs[{name!r}]")
    last = ""
    for op in program.ops:
        if op.path and op.path != last:
            lines.append(f"    # {op.path}")
            last = op.path
        lines.append(f"    {op.out} = {op.text}")
    results = ", ".join(variable for variable, _, _ in program.outputs)
    lines.append(f"    return ({results},)")
    return "\n".join(lines) + "\n"


def compiled(text: str, name: str) -> Callable[..., tuple[object, ...]]:
    """The function of a text that `source` wrote."""
    scope: dict[str, object] = {}
    exec(compile(text, f"<captured {name}>", "exec"), scope)  # our own text, of a graph
    return scope["forward"]  # pyright: ignore[reportReturnType]
