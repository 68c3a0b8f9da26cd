"""A class of a few lines whose source a test can change, with a bit of everything: attention in
blocks, constants made of weights, what follows from sizes in torch and what does so in Python.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from musiva.compiler.arguments import values
from musiva.models.captured import Signature

__all__ = ["SIGNATURE", "SOURCE", "small"]

SIGNATURE = Signature(arguments={"hidden_states": values("rows", 4)})
NAME = "a_class_of_a_test"
SOURCE = """
import math

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gain = nn.Parameter(torch.rand(width))
        self.register_buffer("offset", torch.rand(width))
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        y = self.norm(x).unsqueeze(1)
        y = scaled_dot_product_attention(y, y, y).squeeze(1)
        return x + self.linear(y) * (self.gain.exp() * self.offset)


class Small(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.config = {"width": width}
        self.scale = 2.0
        self.first = nn.Linear(4, width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(2)])
        self.last = nn.Linear(width, 4)

    def forward(self, hidden_states, return_dict=True):
        count = hidden_states.shape[1]
        x = self.first(hidden_states) * self.scale
        x = x + torch.arange(count, dtype=torch.float32)[:, None] / 10
        x = x + torch.tensor([math.sin(i) for i in range(count)])[:, None]
        x = x + torch.tensor([0.1 * i for i in range(x.shape[-1])])
        for block in self.blocks:
            x = block(x)
        return (self.last(x) * 3.0,)
"""


def small(folder: Path, source: str = SOURCE, *, width: int = 8, seed: int = 0) -> nn.Module:
    """Of a file in the folder, with random weights."""
    path = folder / f"{NAME}.py"
    path.write_text(source, encoding="utf-8")
    found = ModuleType(NAME)
    found.__file__ = str(path)
    sys.modules[NAME] = found
    exec(compile(source, str(path), "exec"), vars(found))
    torch.manual_seed(seed)
    return found.Small(width).eval().requires_grad_(False)
