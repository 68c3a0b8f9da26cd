"""The ways in which ranks share a pack.

| form | a rank has | what is sent |
|---|---|---|
| `ulysses` | some tokens of every sample | keys, queries and values, around every attention |
| `dynamic` | some frames of every sample | rows for places, around attentions in columns alone |
| `branches` | some branches of guidance, whole | predictions |
"""

from __future__ import annotations

import zlib
from typing import Literal, get_args

__all__ = ["FORMS", "Form", "rank_of"]

Form = Literal["ulysses", "dynamic", "branches"]
FORMS: tuple[Form, ...] = get_args(Form)


def rank_of(sample: str, branch: int, size: int) -> int:
    """That a branch of a sample is on, for good: what is kept of it stays there. The first branches
    of samples are spread over the ranks.
    """
    return (zlib.crc32(sample.encode()) + branch) % size
