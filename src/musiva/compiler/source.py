"""The program as Python text: a function for what comes before the blocks, one for each block, one
for what comes after, with a comment where a module begins.

Functions take what was handed on, by name, the constants `c`, the frame `at` and the run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from musiva.compiler.program import Op, Program, Streams
from musiva.compiler.release import released
from musiva.compiler.segments import LOOKUPS, Part, rows_of
from musiva.compiler.sites import Site, sites_of

__all__ = ["Function", "compiled", "source"]

Function = Callable[..., dict[str, object]]
# Work that is worth being remembered.
WORTH = ("linear", "attend", "dense", "conv", "reduce")
HEAD = '''"""{title}, on rows."""

import torch
'''


def source(program: Program, parts: Sequence[Part], title: str) -> str:
    """Each function returns what it hands on, the last one the outputs by their variables."""
    words = _of_words(program)
    text = [HEAD.format(title=title)]
    before: Part | None = None
    for part in parts:
        text.append(_Function(program, part, before, words).text())
        before = part
    rows = {variable for variable, own, _ in program.inputs.values() if own}
    rows |= {op.out for op in program.ops if op.streams}
    return released("\n\n".join(text), rows)


def compiled(
    text: str, name: str, given: Mapping[str, Callable[..., object]] | None = None
) -> dict[str, Function]:
    """The functions of a text that `source` wrote, by name, in order. given: further ones that it
    calls.
    """
    scope: dict[str, object] = dict(given or {})
    exec(compile(text, f"<captured {name}>", "exec"), scope)  # our own text, of a graph
    return {
        key: value  # pyright: ignore[reportReturnType]
        for key, value in scope.items()
        if callable(value)
    }


def _of_words(program: Program) -> set[str]:
    """Variables that follow from the rows of a text alone, so that they are the same for all steps
    of a prompt, and for all its requests.
    """
    found = {
        variable
        for variable, streams, _ in program.inputs.values()
        if streams and "image" not in streams
    }
    free: set[str] = set()
    for op in program.ops:
        own = {name for name in op.reads if not name.startswith("c.")}
        if "image" in op.streams or not own <= found | free:
            continue
        (found if own & found else free).add(op.out)
    return found


class _Function:
    """The text of one part."""

    def __init__(self, program: Program, part: Part, before: Part | None, words: set[str]) -> None:
        self.program, self.part, self.before = program, part, before
        self.words = [op for op in part.ops if op.out in words]
        self.streams: dict[str, Streams] = {v: own for v, own, _ in program.inputs.values()}
        self.streams |= rows_of(program)
        self.own = {op.out for op in part.ops}
        self.sites = sites_of(part, self.streams, words) if part.site else []

    def text(self) -> str:
        lines = [f"def {self.part.name}(s, c, at, run):"]
        lines += [f"    {line}" for line in self._received()]
        early: set[str] = set()
        if any(op.kind in WORTH for op in self.words):
            first = self._read_by_words()
            early = {op.out for op in [*first, *self.words]}
            lines += [*_written(first, "    "), *self._once()]
        lines += self._body([op for op in self.part.ops if op.out not in early])
        lines += [f"    {line}" for line in self._handed_on()]
        return "\n".join(lines) + "\n"

    def _body(self, ops: Sequence[Op]) -> list[str]:
        """Operations in order; those of a site together, where the last of them is, and behind
        them what reads their values.
        """
        site_of = {op.out: site for site in self.sites for op in site.body}
        lines: list[str] = []
        plain: list[Op] = []
        missing: set[str] = set()
        later: list[Op] = []
        for op in ops:
            site = site_of.get(op.out)
            if site is None:
                late = missing.intersection(op.reads)
                missing |= {op.out} if late else set()
                (later if late else plain).append(op)
                continue
            missing |= {op.out}
            if op is site.body[-1]:
                lines += [*_written(plain, "    "), *self._branch(site)]
                missing -= {one.out for one in site.body}
                plain = []
                for one in list(later):
                    if not (missing - {one.out}).intersection(one.reads):
                        plain.append(one)
                        later.remove(one)
                        missing -= {one.out}
        assert not later, "sites that need each other"
        return [*lines, *_written(plain, "    ")]

    def _branch(self, site: Site) -> list[str]:
        name = "branch_" + re.sub(r"\W", "_", site.name.removeprefix(self.part.site))
        by_name = {op.out: op for op in self.part.ops}
        read = dict.fromkeys(n for op in site.body for n in op.reads if n in by_name)
        again = [by_name[n] for n in read if by_name[n].kind in LOOKUPS]
        inner = [op for op in again if op not in site.body] + site.body
        one = len(site.bases) == 1 and len(self.streams[site.bases[0]]) == 1
        lines = [f"    def {name}(given, pack, at=at):", "        at = at.of(pack)"]
        for base in site.bases:
            alone = "given" if one else None
            lines.append(f"        {base} = {self._from(base, 'given', alone)}")
        lines += _written(inner, "        ")
        given = [self._apart(base, "at") for base in site.bases]
        made = [self._apart(value, "at") for value in site.values]
        if one:
            lines.append(f"        return {made[0][0][1]}")
            handed = given[0][0][1]
        else:
            lines.append(f"        return {_mapping(made)}")
            handed = _mapping(given)
        call = f"run.branch({site.name!r}, {name}, {handed}, at.pack)"
        if one:
            (value,) = site.values
            lines += ["", f"    {value} = {call}.reshape({self._shape(value)})"]
        else:
            lines += ["", f"    {name}_out = {call}"]
            lines += [
                f"    {value} = {self._from(value, f'{name}_out', None)}" for value in site.values
            ]
        return lines

    def _from(self, name: str, mapping: str, alone: str | None) -> str:
        """A variable of what its streams are handed on as."""
        streams = self.streams[name]
        parts = [alone] if alone else [f"{mapping}[{stream!r}]" for stream in streams]
        text = parts[0] if len(parts) == 1 else f"torch.cat([{', '.join(map(str, parts))}])"
        return f"{text}.reshape({self._shape(name)})"

    def _apart(self, name: str, at: str) -> list[tuple[str, str]]:
        """Its streams, each as [T, D]."""
        streams = self.streams[name]
        if len(streams) == 1:
            return [(streams[0], f"{name}.flatten(1)")]
        return [
            (stream, f"{at}.part({name}, {streams!r}, {i}, {i + 1}).flatten(1)")
            for i, stream in enumerate(streams)
        ]

    def _received(self) -> list[str]:
        if self.before is None:
            inputs = {variable: name for name, (variable, _, _) in self.program.inputs.items()}
            return [f"{name} = s[{inputs[name]!r}]" for name in self.part.reads]
        lines = []
        for name in self.part.reads:
            key = self.before.keys[name]
            if name == self.before.main or key in self.streams[name]:
                lines.append(f"{name} = {self._from(name, 's', None)}")
            else:
                lines.append(f"{name} = s[{key!r}]")
        return lines

    def _shape(self, name: str) -> str:
        return repr((-1, *self.program.features[name]))

    def _read_by_words(self) -> list[Op]:
        """What is worked out of nothing that a sample brings, in order."""
        outs = {op.out for op in self.words}
        wanted = {name for op in self.words for name in op.reads} - outs
        found: list[Op] = []
        for op in reversed(self.part.ops):
            if op.out in wanted:
                found.append(op)
                wanted |= set(op.reads)
        return found[::-1]

    def _once(self) -> list[str]:
        """What follows from words is worked out once for each prompt."""
        outs = {op.out for op in self.words}
        read = {name for op in self.part.ops if op.out not in outs for name in op.reads}
        wanted = sorted(outs & (read | set(self.part.kept)))
        streams = sorted(
            {
                stream
                for _, streams, _ in self.program.inputs.values()
                for stream in streams
                if stream != "image"
            }
        )
        names = f"{', '.join(wanted)}{',' if len(wanted) == 1 else ''}"
        site = f"{self.part.site or self.part.name}.words"
        return [
            "    def words():",
            *_written(self.words, "        "),
            f"        return {names}",
            "",
            f"    {names} = run.once({site!r}, words, at.content({tuple(streams)!r}))",
        ]

    def _handed_on(self) -> list[str]:
        if not self.part.keys:
            shown = [f"{name!r}: {name}" for name in self.part.kept]
            return ["return {" + ", ".join(shown) + "}"]
        lines = ["return {"]
        for name in self.part.kept:
            lines += [f"    {key!r}: {text}," for key, text in self._keys(name)]
        return [*lines, "}"]

    def _keys(self, name: str) -> list[tuple[str, str]]:
        """What a variable is handed on as; what was handed through is the very same tensor."""
        key, streams = self.part.keys[name], self.streams[name]
        is_split = name == self.part.main or key in streams
        if name not in self.own and self.before is not None:
            there = self.before.keys[name]
            was_split = name == self.before.main or there in streams
            if is_split and was_split:
                return [(stream, f"s[{stream!r}]") for stream in streams]
            if not is_split:
                received = self._from(name, "s", None) if was_split else f"s[{there!r}]"
                return [(key, received)]
        return self._apart(name, "at") if is_split else [(key, name)]


def _mapping(parts: Sequence[Sequence[tuple[str, str]]]) -> str:
    return "{" + ", ".join(f"{key!r}: {text}" for one in parts for key, text in one) + "}"


def _written(ops: Sequence[Op], indent: str) -> list[str]:
    lines: list[str] = []
    last = ""
    for op in ops:
        if op.path and op.path != last:
            lines.append(f"{indent}# {op.path}")
            last = op.path
        lines.append(f"{indent}{op.out} = {op.text}")
    return lines
