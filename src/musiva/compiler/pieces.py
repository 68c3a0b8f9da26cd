"""Stretches of a program that only calculate, each as a function of its own, for `torch.compile`.

What goes through the run or asks the frame stays where it is, so that packs, tiles, pages and
parallel forms know nothing of it. Stretches that are equal but for names are one function: of a
model's blocks one is compiled.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import partial

__all__ = ["divided"]

# What a stretch must not ask: these know of packs.
OUTER = {"at", "run", "s", "given", "pack"}
# Operations that only look at what is there in another way.
VIEWS = {"chunk", "expand", "flatten", "permute", "reshape", "select", "slice", "split", "squeeze"}
VIEWS |= {"to", "transpose", "unbind", "unsqueeze", "view"}
# Operations that make complex numbers of others, and others of complex ones: of these no kernel is
# made.
COMPLEX, REAL = {"complex", "polar", "view_as_complex"}, {"abs", "angle", "real", "view_as_real"}
# Fewer calculations are not worth a call.
LEAST = 2
HEAD = '''"""What it calculates between attentions and linear layers."""

import torch
'''


def divided(text: str) -> tuple[str, str]:
    """Of the text of a program: the same with calls of pieces, and the text of these, by names that
    begin with `piece_`.
    """
    tree, pieces = ast.parse(text), _Pieces()
    for function in tree.body:
        if isinstance(function, ast.FunctionDef):
            pieces.divide(function, _complex(function))
    return ast.unparse(ast.fix_missing_locations(tree)), pieces.text()


@dataclass(slots=True)
class _Pieces:
    """names: of pieces, by their text with `piece` for a name."""

    names: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        made = [text.replace("def piece(", f"def {name}(") for text, name in self.names.items()]
        return "\n\n\n".join([HEAD, *made]) + "\n"

    def divide(self, function: ast.FunctionDef, strange: Set[str]) -> None:
        """In place, functions inside it too. strange: names that do not come near a piece."""
        body: list[ast.stmt] = []
        calculates = partial(_calculates, strange=strange)
        groups = [list(own) for _, own in itertools.groupby(function.body, calculates)]
        for i, group in enumerate(groups):
            if not calculates(group[0]):
                for statement in group:
                    if isinstance(statement, ast.FunctionDef):
                        self.divide(statement, strange)
                body += group
                continue
            elsewhere = itertools.chain(*groups[:i], *groups[i + 1 :])
            body += self._called(group, set().union(*map(_reads, elsewhere)))
        function.body = body

    def _called(self, group: Sequence[ast.stmt], wanted: set[str]) -> Sequence[ast.stmt]:
        """The statements of a stretch with one call for most of them. wanted: names of it that are
        read elsewhere.
        """
        inside, behind = _sunk([one for one in group if isinstance(one, ast.Assign)], wanted)
        made = [_name_of(one) for one in inside]
        read = wanted.union(*map(_reads, behind))
        results = [name for name in made if name in read]
        if not results or sum(not _is_view(one) for one in inside) < LEAST:
            return group
        call = self._call(inside, results)
        there = {_name_of(one) for one in behind}
        gone = [
            target.id
            for one in group
            if isinstance(one, ast.Delete)
            for target in one.targets
            if isinstance(target, ast.Name) and (target.id in there or target.id not in made)
        ]
        gone += [name for name in results if name not in wanted]
        deleted = ast.parse(f"del {', '.join(dict.fromkeys(gone))}").body if gone else []
        return [call, *behind, *deleted]

    def _call(self, inside: Sequence[ast.Assign], results: Sequence[str]) -> ast.stmt:
        """Of a piece, which is made if there is none that is equal but for names."""
        renamed = _Renamed()
        body = [ast.unparse(renamed.visit(ast.parse(ast.unparse(one)))) for one in inside]
        body.append(f"return {', '.join(renamed.names[name] for name in results)}")
        lines = [f"def piece({', '.join(renamed.given.values())}):", *(f"    {x}" for x in body)]
        name = self.names.setdefault("\n".join(lines), f"piece_{len(self.names)}")
        return ast.parse(f"{', '.join(results)} = {name}({', '.join(renamed.given)})").body[0]


class _Renamed(ast.NodeTransformer):
    """Names in the order in which they come. given: of what a stretch reads, by what it was; names:
    of all that it makes.
    """

    def __init__(self) -> None:
        self.given: dict[str, str] = {}
        self.names: dict[str, str] = {}

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        node.value = self.visit(node.value)
        name = _name_of(node)
        self.names[name] = f"x{len(self.names)}"
        node.targets = [ast.Name(self.names[name], ast.Store())]
        return node

    def visit_Name(self, node: ast.Name) -> ast.Name:
        if node.id == "torch":
            return node
        return ast.Name(self.names.get(node.id) or self._given(node.id), ast.Load())

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if isinstance(node.value, ast.Name) and node.value.id == "c":
            return ast.Name(self._given(ast.unparse(node)), ast.Load())
        return ast.Attribute(self.visit(node.value), node.attr, node.ctx)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if _counts(node):
            return ast.Name(self._given(ast.unparse(node)), ast.Load())
        found = self.generic_visit(node)
        assert isinstance(found, ast.Call)
        return found

    def _given(self, what: str) -> str:
        return self.given.setdefault(what, f"a{len(self.given)}")


def _sunk(
    group: Sequence[ast.Assign], wanted: set[str]
) -> tuple[Sequence[ast.Assign], Sequence[ast.Assign]]:
    """What calculates, and views that are wanted elsewhere: no kernel is needed for these."""
    inside: list[ast.Assign] = []
    behind: list[ast.Assign] = []
    read, read_behind = set[str](), set(wanted)
    for statement in reversed(group):
        name, view = _name_of(statement), _is_view(statement)
        if view and name in read_behind:
            behind.append(statement)
            read_behind |= _reads(statement)
        if name in read or not view:
            inside.append(statement)
            read |= _reads(statement)
    return inside[::-1], behind[::-1]


def _complex(function: ast.FunctionDef) -> set[str]:
    """Names of complex numbers in it, and in functions inside it."""
    found: set[str] = set()
    made = [one for one in ast.walk(function) if isinstance(one, ast.Assign)]
    for statement in sorted(made, key=lambda one: one.lineno):
        operation = _operation(statement.value)
        if operation in COMPLEX or (operation not in REAL and _reads(statement) & found):
            found.add(_name_of(statement))
    return found


def _calculates(statement: ast.stmt, strange: Set[str]) -> bool:
    """Whether it may stand in a piece: one name is made of others and of constants."""
    if isinstance(statement, ast.Delete):
        return True
    if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
        return False
    if any(isinstance(node, ast.comprehension) for node in ast.walk(statement)):
        return False
    asked = {*_asked(statement.value), _name_of(statement)}
    return not asked & OUTER and not asked & strange


def _asked(node: ast.AST) -> Iterator[str]:
    """Names in it, but for those of whom it only asks how many rows there are."""
    if isinstance(node, ast.Name):
        yield node.id
    if not _counts(node):
        for child in ast.iter_child_nodes(node):
            yield from _asked(child)


def _counts(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "at.count"


def _is_view(statement: ast.Assign) -> bool:
    value = statement.value
    called = [one for one in ast.walk(value) if isinstance(one, ast.Call) and not _counts(one)]
    plain = isinstance(value, ast.Name | ast.Subscript | ast.Call)
    return plain and all(_operation(one) in VIEWS for one in called)


def _operation(value: ast.expr) -> str | None:
    """The name of what is called: of torch.ops.aten.NAME.OVERLOAD, or of a method."""
    if not isinstance(value, ast.Call):
        return None
    words = ast.unparse(value.func).split(".")
    return words[3] if words[:3] == ["torch", "ops", "aten"] else words[-1]


def _reads(statement: ast.stmt) -> set[str]:
    """Names that it takes from outside."""
    names = {node.id for node in _loads(statement)}
    if isinstance(statement, ast.FunctionDef):
        made = {_name_of(one) for one in ast.walk(statement) if isinstance(one, ast.Assign)}
        return names - made
    return names


def _loads(statement: ast.stmt) -> Iterator[ast.Name]:
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node


def _name_of(statement: ast.Assign) -> str:
    (target,) = statement.targets
    return target.id if isinstance(target, ast.Name) else ""
