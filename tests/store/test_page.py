"""Pages as bytes, and their names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from musiva.core.types import Action, Prompt
from musiva.store.page import HEAD_BYTES, Damaged, Page, key_of, packed, saves_of, unpacked

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)


def tensors(seed: int = 0) -> Mapping[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((3, 5), (), (0, 4), (7,), (2, 1, 3), (1,))
    return {
        f"{dtype}": torch.randint(0, 2, shape, generator=generator).to(dtype)
        for dtype, shape in zip(DTYPES, shapes, strict=True)
    } | {"drawn": torch.randn(4, 6, generator=generator)[:, ::2]}


def test_pages_come_back_as_they_were() -> None:
    page = Page(tensors(), 0.25, "before")
    whole = packed(page)
    back = unpacked(whole)
    assert back.saves == saves_of(bytes(whole[:HEAD_BYTES])) == 0.25
    assert back.after == "before"
    assert list(back.tensors) == list(page.tensors)
    for name, x in page.tensors.items():
        assert (back.tensors[name].dtype, back.tensors[name].shape) == (x.dtype, x.shape)
        assert torch.equal(back.tensors[name], x), name
    assert packed(back) == whole


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_whatever_is_damaged_is_no_page(data: st.DataObject) -> None:
    whole = packed(Page(tensors(1), 1.0))
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Damaged):
        unpacked(changed)
    with pytest.raises(Damaged):
        unpacked(whole[:at])


def test_equal_parts_have_equal_names_in_every_process() -> None:
    parts = "('a', 1, 0.1, None, (True,), Action(tiles=(True, False)), Prompt('a fox'))"
    code = (
        "from musiva.core.types import Action, Prompt\n"
        "from musiva.store import key_of\n"
        f"print(key_of(*{parts}))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = key_of("a", 1, 0.1, None, (True,), Action(tiles=(True, False)), Prompt("a fox"))
    assert told.stdout.strip() == own
    others = [
        key_of("a", 1, 0.1, None, (True,), Action(tiles=(True, True)), Prompt("a fox")),
        key_of("a", 1, 0.1 + 2**-54, None, (True,), Action(tiles=(True, False)), Prompt("a fox")),
        key_of("a1", 0.1, None, (True,), Action(tiles=(True, False)), Prompt("a fox")),
        key_of(("a", 1), 0.1, None, (True,), Action(tiles=(True, False)), Prompt("a fox")),
    ]
    assert len({own, *others}) == 5
