"""Sites: what a block adds to a stream, as a function of that stream.

A block is a chain of sums: x1 = x + f(x), x2 = x1 + g(x1). What is added may be held from an
earlier step, so that f does not run; then it must be a function of x, beside what is one for a
sample and what words say, and nothing else may need what it works out on the way. Where streams
share an attention, all of its sums are one site. A last product with a table of the sample (a gate)
stays outside: it is as fresh as the step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from musiva.compiler.program import Op, Streams
from musiva.compiler.segments import LOOKUPS, Part, ancestors

__all__ = ["Site", "sites_of"]

# What makes a branch worth being one.
WORK = ("linear", "attend", "conv", "reduce")


@dataclass(slots=True)
class Site:
    """name: path of the module that most of it comes from. bases: variables that are added to;
    values: what is added to them. body: the operations between, in order.
    """

    name: str
    bases: list[str]
    values: list[str]
    body: list[Op] = field(default_factory=list)


def sites_of(part: Part, streams: Mapping[str, Streams], words: Collection[str]) -> list[Site]:
    """Of a part, in order. streams: of all variables. words: those that words alone decide."""
    graph = _Graph(part, streams, words)
    pairs = [pair for op in part.ops if (pair := graph.added(op)) is not None]
    groups: list[Site] = []
    for base, value in pairs:
        site = Site("", [base], [value], graph.between([base], [value]))
        shared = [one for one in groups if _outs(one.body) & _outs(site.body)]
        for one in shared:
            groups.remove(one)
            site.bases = list(dict.fromkeys([*one.bases, *site.bases]))
            site.values = list(dict.fromkeys([*one.values, *site.values]))
        site.body = graph.between(site.bases, site.values)
        groups.append(site)
    found = [site for site in groups if graph.is_closed(site)]
    taken: dict[str, int] = {}
    for site in found:
        path = _path(site.body)
        taken[path] = again = taken.get(path, 0) + 1
        site.name = path if again == 1 else f"{path}#{again}"
    return found


class _Graph:
    """Of the variables of one part."""

    def __init__(self, part: Part, streams: Mapping[str, Streams], words: Collection[str]) -> None:
        self.part, self.streams, self.words = part, streams, words
        self.by_name = {op.out: op for op in part.ops}
        self.readers: dict[str, list[Op]] = {}
        for op in part.ops:
            for name in op.reads:
                self.readers.setdefault(name, []).append(op)

    def added(self, op: Op) -> tuple[str, str] | None:
        """The sum as (base, value), if it adds to rows something made of them."""
        reads = list(dict.fromkeys(op.reads))
        if op.kind == "gated_add":
            base, value, _ = op.reads
            return (base, value) if self._depends(value, base) else None
        if op.kind != "add" or len(reads) != 2 or not all(map(self._is_rows, reads)):
            return None
        for base, delta in (reads, reads[::-1]):
            if self.streams[base] == self.streams[delta] and self._depends(delta, base):
                return base, self._ungated(delta)
        return None

    def between(self, bases: Sequence[str], values: Sequence[str]) -> list[Op]:
        """What the values take of the bases, in order."""
        behind = set(bases)
        for op in self.part.ops:
            if behind.intersection(op.reads) and op.kind not in LOOKUPS:
                behind.add(op.out)
        wanted = ancestors(values, self.by_name, bases)
        return [op for op in self.part.ops if op.out in wanted and op.out in behind - set(bases)]

    def is_closed(self, site: Site) -> bool:
        inside = _outs(site.body)
        if not any(op.kind in WORK for op in site.body) or inside & set(self.words):
            return False
        owners = [stream for base in site.bases for stream in self.streams[base]]
        if len(set(owners)) != len(owners) or "image" not in owners:
            return False
        kept_inside = inside - set(site.values)
        for name in kept_inside:
            readers = self.readers.get(name, ())
            if name in self.part.kept or any(op.out not in inside for op in readers):
                return False
        return all(self._is_free(name, site, inside) for op in site.body for name in op.reads)

    def _is_free(self, name: str, site: Site, inside: Collection[str]) -> bool:
        """Whether a body may read it, on any of the rows."""
        if name in inside or name in site.bases or name.startswith("c."):
            return True
        op = self.by_name.get(name)
        if op is not None and op.kind in LOOKUPS:
            return all(self._is_table(one) for one in op.reads)
        return "image" not in self.streams.get(name, ())

    def _is_table(self, name: str) -> bool:
        return not self.streams.get(name, ())

    def _is_rows(self, name: str) -> bool:
        op = self.by_name.get(name)
        made = op is not None and op.kind in (*LOOKUPS, "lay")
        return bool(self.streams.get(name)) and not made

    def _ungated(self, delta: str) -> str:
        """Without a last product with a table of the sample."""
        op = self.by_name.get(delta)
        if op is None or op.kind != "mul" or len(self.readers.get(delta, ())) != 1:
            return delta
        rows = [name for name in op.reads if self._is_rows(name)]
        return rows[0] if len(rows) == 1 and len(set(op.reads)) == 2 else delta

    def _depends(self, value: str, base: str) -> bool:
        return base in ancestors([value], self.by_name)


def _outs(ops: Iterable[Op]) -> set[str]:
    return {op.out for op in ops}


def _path(body: Sequence[Op]) -> str:
    """The longest path that all of its layers share."""
    paths = [op.path.split(".") for op in body if op.kind in WORK]
    shared = []
    for names in zip(*paths, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared)
