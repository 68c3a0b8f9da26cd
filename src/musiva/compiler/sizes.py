"""Numbers in a graph as expressions in sizes.

An export at one size bakes numbers in. Seen at several sizes without common factors, the number
that is (rows * columns + words) at all of them is that, and not 46.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

__all__ = ["Expression", "Ratio", "fit", "fit_float", "whole"]

Lengths = Mapping[str, int]
# Smaller than any size that a graph is exported at.
OFFSETS = range(-4, 5)
# Places of what follows a text of multiples of this begin and end so many behind it.
PADDED, BEHIND = 32, (1, 2)
# What sizes are rounded up to multiples of.
DIVISORS = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Expression:
    """A sum of products: (factor, names) each; no names for a constant. A name "rows//2" is half of
    the rows, rounded up, "rows;columns//32" the same of a product.
    """

    terms: tuple[tuple[Fraction, tuple[str, ...]], ...]

    def value(self, lengths: Lengths) -> int:
        """Raises ValueError where it is no whole number."""
        total = Fraction(0)
        for factor, names in self.terms:
            for name in names:
                factor *= _length(name, lengths)
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
            number = [] if factor.numerator == 1 and names else [str(factor.numerator)]
            product = " * ".join([*number, *(_python(name, of) for name in names)])
            shown.append(
                product if factor.denominator == 1 else f"{product} // {factor.denominator}"
            )
        return " + ".join(shown) or "0"

    def exactly(self, of: str) -> str:
        """The same, where a number that is not whole is an error, as with `value`."""
        parts = math.lcm(*(factor.denominator for factor, _ in self.terms))
        if parts == 1:
            return self.python(of)
        scaled = Expression(tuple((factor * parts, names) for factor, names in self.terms))
        return f"whole({scaled.python(of)}, {parts})"

    def _term(self, factor: Fraction, names: Sequence[str]) -> str:
        return "*".join(([] if factor == 1 and names else [str(factor)]) + list(names))


@dataclass(frozen=True, slots=True)
class Ratio:
    """A size over a whole number, or that over a size, as the nearest float."""

    name: str
    number: int
    above: bool

    def value(self, lengths: Lengths) -> float:
        size = lengths[self.name]
        return size / self.number if self.above else self.number / size

    def exactly(self, of: str) -> str:
        """The same in Python, where `of[name]` is the size of that name."""
        size = f"{of}[{self.name!r}]"
        return f"{size} / {self.number}" if self.above else f"{self.number} / {size}"


def whole(number: int, parts: int) -> int:
    """One of so many equal parts of a number. Raises ValueError where that is no whole number."""
    if number % parts:
        raise ValueError(f"{number} is no multiple of {parts}")
    return number // parts


def fit(numbers: Sequence[int], lengths: Sequence[Lengths]) -> Expression | None:
    """The simplest expression that has these values at these sizes; None if none is found: a
    constant, a product of sizes with a factor and an offset, a sum of two products, or what
    comes of rounding up to whole patches or multiples.
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
    return (
        _rounded(numbers, lengths, False)
        or _rounded(numbers, lengths, True)
        or _behind_rounded(numbers, lengths)
    )


def fit_float(numbers: Sequence[float], lengths: Sequence[Lengths]) -> Ratio | None:
    """The ratio that has these values at these sizes, to the last bit; None if none is found."""
    for name in sorted(lengths[0]):
        sizes = [at[name] for at in lengths]
        if len(set(sizes)) == 1 or not all(numbers):
            continue
        for above in (True, False):
            number = round(sizes[0] / numbers[0] if above else numbers[0] * sizes[0])
            ratio = Ratio(name, number, above)
            if number and all(ratio.value(at) == n for at, n in zip(lengths, numbers, strict=True)):
                return ratio
    return None


def _rounded(numbers: Sequence[int], lengths: Sequence[Lengths], twice: bool) -> Expression | None:
    """Products of halves, quarters, ... of sizes, or of their product, each rounded up; what is
    missing to that; sums of two. twice: see `_factor`.
    """
    products = list(_products(lengths))
    for names, exact in products:
        for divisor in DIVISORS:
            whole = (f"{';'.join(names)}//{divisor}",)
            for chosen in dict.fromkeys((whole, tuple(f"{name}//{divisor}" for name in names))):
                factor = _factor(_values(chosen, lengths), numbers, divisor, twice)
                if factor:
                    return Expression(((factor, chosen),))
            pairs = zip(_values(whole, lengths), exact, strict=True)
            missing = [up - Fraction(value, divisor) for up, value in pairs]
            factor = _factor(missing, numbers, divisor, twice)
            if factor:
                return Expression(((factor, whole), (-factor / divisor, names)))
    for (one, _), (two, _) in combinations(products, 2):
        for divisor in DIVISORS:
            wholes = [(f"{';'.join(names)}//{divisor}",) for names in (one, two)]
            sums = [x + y for x, y in zip(*(_values(w, lengths) for w in wholes), strict=True)]
            factor = _factor(sums, numbers, divisor, twice)
            if factor:
                return Expression(tuple((factor, whole) for whole in wholes))
    return None


def _behind_rounded(numbers: Sequence[int], lengths: Sequence[Lengths]) -> Expression | None:
    """A little more than a size that was rounded up to a multiple. With more sizes, divisors and
    offsets much would fit by chance.
    """
    for name in sorted(lengths[0]):
        whole = (f"{name}//{PADDED}",)
        for offset in BEHIND:
            values = [PADDED * value + offset for value in _values(whole, lengths)]
            if values == list(numbers) and len(set(numbers)) > 1:
                return Expression(((Fraction(PADDED), whole), (Fraction(offset), ())))
    return None


def _values(names: Sequence[str], lengths: Sequence[Lengths]) -> list[int]:
    return [math.prod(_length(name, at) for name in names) for at in lengths]


def _factor(
    values: Sequence[Fraction | int], numbers: Sequence[int], divisor: int, twice: bool
) -> Fraction | None:
    """What all values times it are the numbers, if it is a count of parts, or of what is in them
    along one axis, or else, `twice`, along two: with other factors much would fit by chance.
    """
    if not values[0]:
        return None
    factor = Fraction(numbers[0]) / values[0]
    fits = all(factor * v == n for v, n in zip(values, numbers, strict=True))
    allowed = (2 * divisor, divisor**2) if twice else (1, divisor)
    return factor if fits and factor in allowed else None


def _length(name: str, lengths: Lengths) -> int:
    product, _, divisor = name.partition("//")
    whole = math.prod(lengths[one] for one in product.split(";"))
    return -(-whole // int(divisor)) if divisor else whole


def _python(name: str, of: str) -> str:
    product, _, divisor = name.partition("//")
    whole = " * ".join(f"{of}[{one!r}]" for one in product.split(";"))
    return f"-(-({whole}) // {divisor})" if divisor else whole


def _products(lengths: Sequence[Lengths]) -> Iterator[tuple[tuple[str, ...], list[int]]]:
    """Of one name, of two, of three."""
    names = sorted(lengths[0])
    for count in (1, 2, 3):
        for chosen in combinations(names, count):
            values = []
            for at in lengths:
                values.append(math.prod(at[name] for name in chosen))
            if len(set(values)) > 1:
                yield chosen, values
