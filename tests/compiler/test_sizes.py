"""Numbers as expressions in sizes."""

from __future__ import annotations

import pytest

from musiva.compiler import SIZES as CAPTURED_AT
from musiva.compiler import Sizes
from musiva.compiler.sizes import fit, fit_float, whole

SIZES = (
    {"rows": 5, "columns": 7, "frames": 3, "words": 11},
    {"rows": 7, "columns": 11, "frames": 5, "words": 13},
    {"rows": 11, "columns": 3, "frames": 2, "words": 17},
)
OTHER = {"rows": 6, "columns": 8, "frames": 4, "words": 9}


@pytest.mark.parametrize(
    "function",
    [
        lambda s: 12,
        lambda s: s["rows"],
        lambda s: 2 * s["columns"],
        lambda s: 4 * s["rows"] * s["columns"] - 1,
        lambda s: s["frames"] * s["rows"] * s["columns"],
        lambda s: s["words"] + s["rows"] * s["columns"],
        lambda s: s["words"] + s["frames"] * s["rows"] * s["columns"] + 1,
    ],
)
def test_a_number_is_found_again(function) -> None:
    found = fit([function(s) for s in SIZES], SIZES)
    assert found is not None
    assert found.value(OTHER) == function(OTHER)
    assert eval(found.python("s"), {"s": OTHER}) == function(OTHER)
    assert eval(found.exactly("s"), {"s": OTHER, "whole": whole}) == function(OTHER)


@pytest.mark.parametrize(
    "function", [lambda s: s["rows"] / 8, lambda s: s["columns"] / 3, lambda s: 64 / s["frames"]]
)
def test_a_ratio_is_found_again_to_the_last_bit(function) -> None:
    found = fit_float([function(s) for s in SIZES], SIZES)
    assert found is not None
    assert found.value(OTHER) == function(OTHER)
    assert eval(found.exactly("s"), {"s": OTHER}) == function(OTHER)


def test_no_ratio_is_made_up() -> None:
    assert fit_float([0.6, 0.9, 1.4], SIZES) is None
    assert fit_float([5 / 8, 7 / 8, 11 / 8 + 1e-15], SIZES) is None
    assert fit_float([0.0, 0.0, 1.0], SIZES) is None


def test_nothing_is_made_up() -> None:
    assert fit([46, 91, 51], SIZES) is None
    found = fit([2, 3, 5], SIZES)
    assert found is None or [found.value(s) for s in SIZES] == [2, 3, 5]


@pytest.mark.parametrize(
    "function",
    [
        lambda s: -(-s["rows"] // 2) * -(-s["columns"] // 2),
        lambda s: 32 * -(-s["rows"] * s["columns"] // 32),
        lambda s: 8 * -(-s["rows"] // 4) - 2 * s["rows"],
        lambda s: 8 * (-(-s["rows"] * s["columns"] // 8) + -(-s["words"] // 8)),
    ],
)
def test_what_is_rounded_up_to_patches_and_multiples(function) -> None:
    found = fit([function(s) for s in SIZES], SIZES)
    assert found is not None
    for other in (OTHER, {**OTHER, "rows": 10, "columns": 10}):
        assert found.value(other) == function(other)
        assert eval(found.python("s"), {"s": other}) == function(other)
        assert eval(found.exactly("s"), {"s": other, "whole": whole}) == function(other)


def test_places_behind_a_padded_text() -> None:
    sizes = [{"rows": 5, "words": 11}, {"rows": 7, "words": 37}, {"rows": 11, "words": 17}]
    found = fit([33, 65, 33], sizes)
    assert found is not None
    assert [found.value({"rows": 3, "words": n}) for n in (32, 33, 64)] == [33, 65, 65]


def test_a_sum_that_is_rounded_up_comes_before_what_fits_by_chance() -> None:
    """Of Z-Image: at the sizes of a capture, 32 for each 16 tokens begun would fit too."""

    def length(s: Sizes) -> int:
        return 32 * (-(-s["rows"] * s["columns"] // 32) + -(-s["words"] // 32))

    seen = [{name: one[name] for name in ("rows", "columns", "words")} for one in CAPTURED_AT]
    found = fit([length(s) for s in seen], seen)
    assert found is not None
    for rows, columns, words in ((10, 7, 23), (7, 13, 33), (64, 64, 300)):
        other = {"rows": rows, "columns": columns, "words": words}
        assert found.value(other) == length(other)


def test_a_number_that_is_not_whole_is_an_error() -> None:
    found = fit([2, 3, 5], [{"rows": rows} for rows in (4, 6, 10)])
    assert found is not None
    text = found.exactly("s")
    assert eval(text, {"s": {"rows": 8}, "whole": whole}) == found.value({"rows": 8}) == 4
    with pytest.raises(ValueError, match="is 7/2"):
        found.value({"rows": 7})
    with pytest.raises(ValueError, match="7 is no multiple of 2"):
        eval(text, {"s": {"rows": 7}, "whole": whole})
