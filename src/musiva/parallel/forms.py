"""The ways in which ranks share a pack.

| form | a rank has | what is sent |
|---|---|---|
| `ulysses` | some tokens of every sample | keys, queries and values, around every attention |
| `dynamic` | some frames of every sample | rows for places, around attentions in columns alone |
| `branches` | some branches of guidance, whole | predictions |
| `patch` | some tokens of every sample | what others attend to, once, behind the forward |

With the last one tokens see what others were an evaluation before. Where a sample must not, keys
and values go to all ranks before every attention.
"""

from __future__ import annotations

import zlib
from typing import Literal, get_args

from musiva.core.errors import InvalidInput
from musiva.models import Denoiser

__all__ = ["FORMS", "Form", "check_form", "rank_of"]

Form = Literal["ulysses", "dynamic", "branches", "patch"]
FORMS: tuple[Form, ...] = get_args(Form)


def check_form(form: Form, size: int, model: Denoiser) -> None:
    """Raises InvalidInput where so many ranks of a model cannot share in this way: parts of its
    tokens have to be enough, and no row of a coarser grid may be of two of them.
    """
    if form != "patch" or size == 1:
        return
    if "tiles" not in model.reach:
        allowed = f"branches: some tokens are not enough, since {model.out_of_reach}"
        raise InvalidInput("form", form, allowed)
    if model.align > 1:
        allowed = "ulysses or branches: coarser grids of the model have rows of several parts"
        raise InvalidInput("form", form, allowed)


def rank_of(sample: str, branch: int, size: int) -> int:
    """That a branch of a sample is on, for good: what is kept of it stays there. The first branches
    of samples are spread over the ranks.
    """
    return (zlib.crc32(sample.encode()) + branch) % size
