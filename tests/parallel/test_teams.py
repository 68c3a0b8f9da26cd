"""Which branches and rows are whose."""

from __future__ import annotations

from itertools import pairwise

import pytest

from musiva.core.errors import InvalidInput
from musiva.core.pack import Pack
from musiva.core.types import COMPUTE, Action, DenoiseItem, Path, Prompt
from musiva.parallel import FORMS, Axis, Form, Teams, check_degree, rows_of, shards, teams_of
from musiva.parallel.shards import cuts


def item(sample: str, branches: int = 2, action: Action = COMPUTE) -> DenoiseItem:
    return DenoiseItem(
        sample=sample,
        evaluation=0,
        actions=(action,),
        path=Path(steps=4),
        seed=0,
        size=(8, 8),
        prompts=(Prompt("a fox"), Prompt(""))[:branches],
        guidance=3.0,
        fresh=False,
    )


@pytest.mark.parametrize(
    ("form", "teams", "rows"),
    [
        ("ulysses", (1, 1, 1), "ulysses"),
        ("dynamic", (1, 1, 1), "dynamic"),
        ("branches", (1, 4, 6), None),
        ("branches+ulysses", (1, 2, 2), "ulysses"),
        ("patch", (1, 1, 1), "patch"),
    ],
)
def test_every_form_is_a_pair(form: Form, teams: tuple[int, ...], rows: str | None) -> None:
    assert form in FORMS
    assert tuple(teams_of(form, size) for size in (1, 4, 6)) == teams
    assert rows_of(form) == rows


def test_halves_have_several_ranks_each() -> None:
    for size in (1, 4, 6, 8, 64):
        check_degree("branches+ulysses", size)
    for size in (2, 3, 5):
        with pytest.raises(InvalidInput, match=f"^degree: got {size}; allowed: 1, or an even"):
            check_degree("branches+ulysses", size)
        check_degree("branches", size)


def test_a_branch_is_of_one_team_for_good() -> None:
    """Also where the other one is borrowed."""
    teams, names = Teams(2), [f"sample {i}" for i in range(20)]
    borrowed = [item(name, action=Action(borrow=True)) for name in names]
    both = [[one.computed for one in teams.own([item(n) for n in names], i)] for i in (0, 1)]
    first = [[one.computed for one in teams.own(borrowed, i)] for i in (0, 1)]
    for (ours, theirs), (alone, none) in zip(
        zip(*both, strict=True), zip(*first, strict=True), strict=True
    ):
        assert sorted(ours + theirs) == [0, 1]
        assert len(ours) == len(theirs) == 1
        assert (alone, none) == (((0,), ()) if ours == (0,) else ((), (0,)))
    assert {ours for ours, _ in zip(*both, strict=True)} == {(0,), (1,)}


def test_one_team_has_all_and_whole_samples_stay_together() -> None:
    items = [item("a"), item("b", 1), item("c")]
    assert Teams(1).own(items, 0) == items
    found = [[one.computed for one in Teams(2, whole=True).own(items, i)] for i in (0, 1)]
    assert found == [[(0, 1), (0,), ()], [(), (), (0, 1)]]


@pytest.mark.parametrize(
    ("grid", "axis", "align", "expected"),
    [
        ((1, 5, 7), "sequence", 1, ([0, 17, 35], [0, 11, 23, 35])),
        ((5, 3, 2), "frames", 1, ([0, 12, 30], [0, 6, 18, 30])),
        # Nine rows are five strips.
        ((1, 9, 4), "sequence", 2, ([0, 16, 36], [0, 8, 24, 36])),
    ],
)
def test_cuts_are_where_parts_begin(
    grid: tuple[int, int, int], axis: Axis, align: int, expected: tuple[list[int], ...]
) -> None:
    pack = Pack.build([grid])
    for size, ends in enumerate(expected, 2):
        assert cuts(grid, ends[-1], size, axis=axis, align=align) == ends
        parts = shards(pack, size, axis=axis, streams=("image",), align=align)
        for part, (first, end) in zip(parts, pairwise(ends), strict=True):
            (own,) = part.image.tokens
            assert own is not None
            assert own.tolist() == list(range(first, end))
