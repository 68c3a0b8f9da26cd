"""The ways in which ranks share a pack.

| form | a rank has | what is sent |
|---|---|---|
| `ulysses` | some tokens of every sample | keys, queries and values, around every attention |
| `dynamic` | some frames of every sample | rows for places, around attentions in columns alone |
| `branches` | some branches of guidance, whole | predictions |
| `branches+ulysses` | some tokens of some branches | as of `ulysses`, to half of the ranks |
| `patch` | some tokens of every sample | what others attend to, once, behind the forward |

Each is a pair: the ranks are a number of *teams*, which have whole branches, and the ranks of a
team share the rows of these in one way.

With the last one tokens see what others were an evaluation before. Where a sample must not, keys
and values go to all ranks before every attention.
"""

from __future__ import annotations

import zlib
from typing import Literal, get_args

from musiva.core.errors import InvalidInput
from musiva.models import Denoiser

__all__ = [
    "FORMS",
    "Form",
    "Sharing",
    "check_degree",
    "check_form",
    "rank_of",
    "rows_of",
    "teams_of",
]

Form = Literal["ulysses", "dynamic", "branches", "branches+ulysses", "patch"]
FORMS: tuple[Form, ...] = get_args(Form)
Sharing = Literal["ulysses", "dynamic", "patch"]
# Teams of ranks that share rows: guidance has two branches.
HALVES = 2


def teams_of(form: Form, size: int) -> int:
    """How many teams so many ranks are, each of ranks in a row."""
    if form == "branches":
        return size
    return min(HALVES, size) if form == "branches+ulysses" else 1


def rows_of(form: Form) -> Sharing | None:
    """How the ranks of a team share rows; None where a team is one rank."""
    if form == "branches":
        return None
    return "ulysses" if form == "branches+ulysses" else form


def check_degree(form: Form, size: int) -> None:
    """Raises InvalidInput for a number of ranks that cannot share in this way, whatever they run:
    teams are of one size, and have more than one rank.
    """
    if form == "branches+ulysses" and size > 1 and (size == HALVES or size % HALVES):
        raise InvalidInput("degree", size, f"1, or an even number from 4 with form {form}")


def check_form(form: Form, size: int, model: Denoiser) -> None:
    """Raises InvalidInput where so many ranks of a model cannot share in this way: see
    `check_degree`; and of parts of its tokens with "patch", which have to be enough, and of which
    no two may have a row of a coarser grid together.
    """
    check_degree(form, size)
    if form != "patch" or size == 1:
        return
    if "tiles" not in model.reach:
        allowed = f"branches: some tokens are not enough, since {model.out_of_reach}"
        raise InvalidInput("form", form, allowed)
    if model.align > 1:
        allowed = "ulysses or branches: coarser grids of the model have rows of several parts"
        raise InvalidInput("form", form, allowed)


def rank_of(sample: str, branch: int, size: int) -> int:
    """That a branch of a sample is on, or the team, for good: what is kept of it stays there. The
    first branches of samples are spread over the ranks.
    """
    return (zlib.crc32(sample.encode()) + branch) % size
