"""Wrong rules and wrong rewrites, drawn at random, to see whether tests notice them.

A mutant counts if it changes an output of its model. It is killed if what the tests do shows that
something is wrong: a case of its rule, or a mixed pack beside the class.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import cast
from unittest.mock import patch

import torch

from musiva.compiler import SIZES, Captured, capture
from musiva.compiler.call import Call, Outcome
from musiva.compiler.capture import analyse
from musiva.compiler.captured import assembled
from musiva.compiler.export import Aligned, is_item
from musiva.compiler.flow import op_of
from musiva.compiler.program import Op, Program
from musiva.compiler.rules import RULES
from musiva.core.errors import CannotCapture
from musiva.engine.runner import PlainRun
from musiva.models.captured.check import call_of, found_of, largest_error, relative_error
from musiva.perf.captures import NEW, TOLERANCE, Trial
from musiva.perf.rule_cases import cases_of, violations

__all__ = ["MODELS", "Mutant", "mutants"]

# Between them: cross-attention, joint streams, frames and columns, sums over tokens.
MODELS = (
    "PixArtTransformer2DModel",
    "SD3Transformer2DModel",
    "FluxTransformer2DModel",
    "LatteTransformer3DModel",
    "SanaTransformer2DModel",
)
# What a mutant has to change of an output, over the largest number of it (or 1).
CHANGE = 1e-3
SHOWN, TESTED = NEW[1:], NEW[:2]
FIRST_SEED, RULE_SEEDS = 7, 3
# Of all mutants, those of rules.
OF_RULES = 0.3
Edit = Callable[[str, random.Random], str]
Rule = Callable[[Call], Outcome]


@dataclass(frozen=True, slots=True)
class Mutant:
    """kind: what was done, to the operation, the layer or the operator `where`."""

    model: str
    kind: str
    where: str
    killed: bool


def mutants(trials: Mapping[str, Trial], count: int, seed: int = 0) -> Iterator[Mutant]:
    """So many that change an output. trials: of the models, by name."""
    draw = random.Random(seed)
    right = {name: _outputs(one, one.denoiser.captured) for name, one in trials.items()}
    graphs = {name: _graphs(one) for name, one in trials.items()}
    found = 0
    while found < count:
        name = draw.choice(sorted(trials))
        trial = trials[name]
        of_rule = draw.random() < OF_RULES
        making = _wrong_rule(trial, graphs[name], draw) if of_rule else _wrong_rewrite(trial, draw)
        with making as made:
            if made is None:
                continue
            kind, where, captured = made
            try:
                changed = _outputs(trial, captured)
            except Exception:  # what does not run is noticed by whoever runs it
                continue
            pairs = zip(changed, right[name], strict=True)
            # What is not finite is not small either.
            if all(relative_error(new, old) < CHANGE for new, old in pairs):
                continue
            found += 1
            yield Mutant(name, kind, where, _is_noticed(trial, captured, kind, where))


@torch.no_grad()
def _outputs(trial: Trial, captured: Captured) -> list[torch.Tensor]:
    several = [trial.signature.sized(one) for one in SHOWN]
    calls = [call_of(trial.signature, one, FIRST_SEED + i) for i, one in enumerate(several)]
    return [x for output in found_of(captured, several, calls, PlainRun()) for x in output]


@torch.no_grad()
def _is_noticed(trial: Trial, captured: Captured, kind: str, where: str) -> bool:
    if kind in WRONG_RULES:
        for seed in range(RULE_SEEDS):
            if any(violations(case) for case in cases_of(where, seed)):
                return True
    several = [trial.signature.sized(one) for one in TESTED]
    try:
        error = largest_error(captured, trial.signature, several, PlainRun())
    except Exception:  # as above
        return True
    return not error <= TOLERANCE


@contextmanager
def _wrong_rewrite(trial: Trial, draw: random.Random) -> Iterator[tuple[str, str, Captured] | None]:
    """One operation of the program is written otherwise."""
    captured = trial.denoiser.captured
    program = _copy(captured.program)
    kind = draw.choice([*REWRITES, LOST_BIAS])
    if kind == LOST_BIAS:
        where = _lose_bias(program, draw)
        yield kind, where, assembled(captured, program)
        return
    fits = [op for op in program.ops if REWRITES[kind](op.text, random.Random(0)) != op.text]
    if not fits:
        yield None
        return
    op = draw.choice(fits)
    op.text = REWRITES[kind](op.text, draw)
    yield kind, op.out, assembled(captured, program)


@contextmanager
def _wrong_rule(
    trial: Trial, aligned: Aligned, draw: random.Random
) -> Iterator[tuple[str, str, Captured] | None]:
    """The rule of one operator says something else, for all of the model."""
    captured = trial.denoiser.captured
    used = {op_of(node) for node in aligned.graphs[0].body if not is_item(node)}
    where = draw.choice(sorted(used & set(RULES)))
    kind = draw.choice(sorted(WRONG_RULES))
    rules = cast("dict[str, Rule]", RULES)
    with patch.dict(rules, {where: WRONG_RULES[kind](rules[where])}):
        try:
            made = capture(captured.module, captured.arguments, aligned=aligned)
        except (CannotCapture, AssertionError, LookupError, TypeError, ValueError):
            # It was noticed before there was an output.
            yield None
            return
        yield kind, where, made


def _graphs(trial: Trial) -> Aligned:
    """Of the class at the sizes of a capture."""
    sizes = [trial.signature.sized(one) for one in SIZES]
    return analyse(trial.denoiser.module, trial.signature.arguments, sizes).aligned


def _copy(program: Program) -> Program:
    ops = [Op(**{one.name: getattr(op, one.name) for one in fields(Op)}) for op in program.ops]
    return replace(program, ops=ops, layers=dict(program.layers))


def _lose_bias(program: Program, draw: random.Random) -> str:
    """Of a layer, or of all that a merged one is made of."""
    apart = {one for several in program.merged.values() for one in several}
    alone = {site: (site,) for site in program.layers if site not in apart}
    every: Mapping[str, Sequence[str]] = {**alone, **program.merged}
    biased = [name for name, sites in every.items() if program.layers[sites[0]][1]]
    where = draw.choice(sorted(biased))
    for site in every[where]:
        program.layers[site] = program.layers[site][0], None
    return where


def _swapped_axes(text: str, draw: random.Random) -> str:
    found = re.search(r"\.permute\(\(0, (.*?)\)\)", text)
    order = found[1].split(", ") if found else []
    if found is None or len(order) < 2:
        return text
    i, j = draw.sample(range(len(order)), 2)
    order[i], order[j] = order[j], order[i]
    return text[: found.start(1)] + ", ".join(order) + text[found.end(1) :]


def _swapped_places(text: str, draw: random.Random) -> str:
    if not text.startswith("at.places("):
        return text
    return text.replace("'rows'", "'?'").replace("'columns'", "'rows'").replace("'?'", "'columns'")


def _off_by_one(text: str, draw: random.Random) -> str:
    """Of a selection, or one of several outputs."""
    found = re.match(r"\w+\[(\d)\]", text) or re.search(r"select\.int\(.*, (\d+)\)$", text)
    if found is None:
        return text
    number = int(found[1])
    return text[: found.start(1)] + str(number - 1 if number else 1) + text[found.end(1) :]


def _wrong_group(text: str, draw: random.Random) -> str:
    if not text.startswith("at.attend("):
        return text
    other = draw.choice(["'frame'", "(1, 1)"])
    return re.sub(r"'(sample|frame|column)'", other, text)


def _other_streams(text: str, draw: random.Random) -> str:
    """Streams that stand the other way round."""
    head, cut, tail = text.rpartition("('text', 'image')")
    if cut:
        return f"{head}('image', 'text'){tail}"
    head, cut, tail = text.rpartition("('image', 'text')")
    return f"{head}('text', 'image'){tail}" if cut else text


def _wrong_broadcast(text: str, draw: random.Random) -> str:
    """Everyone gets what the first sample has."""
    found = re.match(r"at\.(?:modulated_norm|gated_add)\(\w+, \w+, (\w+), ", text)
    found = found or re.match(r"at\.modulated_norm\(\w+, (\w+), ", text)
    found = found or re.match(r"at\.gather\((\w+), ", text)
    if found is None:
        return text
    table = f"{found[1]}[:1].expand_as({found[1]})"
    return text[: found.start(1)] + table + text[found.end(1) :]


def _lost_activation(text: str, draw: random.Random) -> str:
    return re.sub(r", '(gelu_tanh|gelu|silu|relu)'\)", ")", text)


def _wrong_sign(text: str, draw: random.Random) -> str:
    return re.sub(r"^(\w+) \+ (\w+)$", r"\1 - \2", text)


LOST_BIAS = "lost bias"
REWRITES: Mapping[str, Edit] = {
    "swapped axes": _swapped_axes,
    "swapped places": _swapped_places,
    "off by one": _off_by_one,
    "wrong group": _wrong_group,
    "other streams": _other_streams,
    "wrong broadcast": _wrong_broadcast,
    "lost activation": _lost_activation,
    "wrong sign": _wrong_sign,
}


def _no_tokens(right: Rule) -> Rule:
    """Tokens are said to be all alike."""
    return lambda call: replace(right(call), along=frozenset())


def _other_dimension(right: Rule) -> Rule:
    """It works along the dimension before."""

    def rule(call: Call) -> Outcome:
        outcome = right(call)
        dims = outcome.over.get("dims")
        if not isinstance(dims, Mapping):
            return outcome
        moved = {
            name: max(given - 1, 0) if isinstance(given, int) else given
            for name, given in dims.items()
        }
        return replace(outcome, over={**outcome.over, "dims": moved})

    return rule


def _no_mixing(right: Rule) -> Rule:
    """What mixes tokens is said not to, and is left out: its first operand is kept."""

    def rule(call: Call) -> Outcome:
        outcome = right(call)
        kept = replace(outcome, way="keep", over={}, mixes=None)
        return outcome if outcome.mixes is None else kept

    return rule


WRONG_RULES: Mapping[str, Callable[[Rule], Rule]] = {
    "no tokens": _no_tokens,
    "other dimension": _other_dimension,
    "no mixing": _no_mixing,
}
