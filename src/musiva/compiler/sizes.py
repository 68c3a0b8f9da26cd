"""Numbers in a graph as expressions in sizes.

An export at one size bakes numbers in. Seen at several sizes without common factors, the number
that is (rows * columns + words) at all of them is that, and not 46.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

__all__ = ["Expression", "fit"]

Lengths = Mapping[str, int]
# Smaller than any size that a graph is exported at.
OFFSETS = range(-4, 5)


@dataclass(frozen=True, slots=True)
class Expression:
    """A sum of products: (factor, names) each; no names for a constant."""

    terms: tuple[tuple[Fraction, tuple[str, ...]], ...]

    def value(self, lengths: Lengths) -> int:
        """Raises ValueError where it is no whole number."""
        total = Fraction(0)
        for factor, names in self.terms:
            for name in names:
                factor *= lengths[name]
            total += factor
        if total.denominator != 1:
            raise ValueError(f"{self} is {total} at {dict(lengths)}")
        return int(total)

    def __str__(self) -> str:
        return " + ".join(self._term(*term) for term in self.terms) or "0"

    def python(self, of: str) -> str:
        """The same in Python, where `of[name]` is the size of that name."""
        shown = []
        for factor, names in self.terms:
            product = " * ".join([str(factor.numerator), *(f"{of}[{name!r}]" for name in names)])
            shown.append(
                product if factor.denominator == 1 else f"{product} // {factor.denominator}"
            )
        return " + ".join(shown) or "0"

    def _term(self, factor: Fraction, names: Sequence[str]) -> str:
        return "*".join(([] if factor == 1 and names else [str(factor)]) + list(names))


def fit(numbers: Sequence[int], lengths: Sequence[Lengths]) -> Expression | None:
    """The simplest expression that has these values at these sizes; None if none is found: a
    constant, a product of sizes with a factor and an offset, or a sum of two products.
    """
    if len(set(numbers)) == 1:
        return Expression(((Fraction(numbers[0]), ()),))
    products = list(_products(lengths))
    for names, values in products:
        for offset in sorted(OFFSETS, key=abs):
            factor = Fraction(numbers[0] - offset, values[0])
            if factor and all(
                factor * v + offset == n for v, n in zip(values, numbers, strict=True)
            ):
                constant = ((Fraction(offset), ()),) if offset else ()
                return Expression(((factor, names), *constant))
    for (one, a), (two, b) in combinations(products, 2):
        for offset in sorted(OFFSETS, key=abs):
            if all(x + y + offset == n for x, y, n in zip(a, b, numbers, strict=True)):
                constant = ((Fraction(offset), ()),) if offset else ()
                return Expression(((Fraction(1), one), (Fraction(1), two), *constant))
    return None


def _products(lengths: Sequence[Lengths]) -> Iterator[tuple[tuple[str, ...], list[int]]]:
    """Of one name, of two, of three."""
    names = sorted(lengths[0])
    for count in (1, 2, 3):
        for chosen in combinations(names, count):
            values = []
            for at in lengths:
                product = 1
                for name in chosen:
                    product *= at[name]
                values.append(product)
            if len(set(values)) > 1:
                yield chosen, values
