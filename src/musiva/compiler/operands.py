"""What all ways to write an operation need of its operands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from musiva.compiler.labels import is_unknown
from musiva.compiler.program import Args, Operand, Recipe, Streams

if TYPE_CHECKING:
    from musiva.compiler.rows import Writer

__all__ = ["Written", "count", "first", "full", "several", "variable"]

# The text of an operation, its kind, and the variables that it reads.
Written = tuple[str, str, list[str]]


def several(writer: Writer, operand: Operand) -> str:
    """Of branch i, in the layout of the graph."""
    value = operand.value
    if value.place:
        if value.name not in writer.sized:
            writer.program.constants.add(value.name)
            return f"c.{value.name}"
        return f"at.place({value.name!r}, i)"
    if value.dense:
        return f"{operand.name}[i]"
    streams = writer.streams[value.name, value.index]
    dims = Recipe.of(operand.layout).dims
    text = f"at.whole(run, {operand.name!r}, {operand.name}, {streams!r}, {dims!r})"
    found = writer.once(("whole", operand.name), text, operand.name, ()) + "[i]"
    if any(map(is_unknown, operand.layout)):
        found += f".expand(({', '.join(writer.extents(value))},))"
    return found


def first(args: Args) -> Operand:
    return next(one for one in args.values() if isinstance(one, Operand))


def full(given: object) -> list[Operand]:
    """Those that are not empty."""
    assert isinstance(given, list)
    return [one for one in given if 0 not in one.value.shape]


def variable(text: str) -> str:
    """That an operand's text reads; empty where it looks something up."""
    name = text.partition(".reshape")[0].partition("[")[0]
    return "" if name.startswith("at.") else name


def count(streams: Streams) -> str:
    return f"at.count({streams!r})"
