"""Published pages: tensors that are named by what they were made from, and never change.

As bytes they say how long they are and carry a checksum, so that what was cut short or damaged on
a disk or on the way is never taken for a page.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

import torch
from torch import Tensor

__all__ = [
    "HEAD_BYTES",
    "Damaged",
    "Page",
    "after_of",
    "is_name",
    "key_of",
    "packed",
    "saves_of",
    "unpacked",
]

# What it is, of which version, and whether all of it is there.
HEAD = struct.Struct("!8sIIdQ")
MAGIC = b"musiva.1"
ALIGN = 64
# Where the checksum is.
SUM = slice(8, 12)
HEAD_BYTES = HEAD.size


class Damaged(ValueError):
    """Bytes that are no page, or not all of one."""


@dataclass(frozen=True)
class Page:
    """saves: seconds that whoever finds it need not compute. after: the name of the page before it
    of the same picture, on whose being wanted this one will be.
    """

    tensors: Mapping[str, Tensor]
    saves: float
    after: str | None = None

    @cached_property
    def num_bytes(self) -> int:
        return sum(x.nbytes for x in self.tensors.values())


def key_of(*parts: object) -> str:
    """The name of what was made from these: numbers, strings, None, and tuples and frozen records
    of them. Equal parts have equal names in every process.
    """
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def packed(page: Page) -> bytearray:
    """Tensors of any device and dtype."""
    own = {name: x.detach().cpu().contiguous() for name, x in page.tensors.items()}
    kinds = [[n, str(x.dtype).removeprefix("torch."), list(x.shape)] for n, x in own.items()]
    told = json.dumps([page.after, kinds]).encode()
    out = bytearray(_aligned(HEAD.size + len(told)))
    out[HEAD.size : HEAD.size + len(told)] = told
    for x in own.values():
        if x.numel():
            out += x.view(-1).view(torch.uint8).numpy().tobytes()
        out += bytes(_aligned(len(out)) - len(out))
    HEAD.pack_into(out, 0, MAGIC, 0, len(told), page.saves, len(out))
    HEAD.pack_into(out, 0, MAGIC, _checksum(out), len(told), page.saves, len(out))
    return out


def saves_of(head: bytes) -> float:
    """Of a page whose first bytes these are. Raises Damaged."""
    return _read(head)[2]


def after_of(file: BinaryIO) -> tuple[float, str | None]:
    """What a page saves, and the name of the one before it, of a file that was just opened. Raises
    Damaged.
    """
    _, length, saves, _ = _read(file.read(HEAD.size))
    try:
        return saves, json.loads(file.read(length))[0]
    except ValueError as error:
        raise Damaged(str(error)) from error


def unpacked(buffer: bytearray) -> Page:
    """The page, whose tensors lie in the buffer. Raises Damaged."""
    crc, length, saves, total = _read(buffer[: HEAD.size])
    if total != len(buffer):
        raise Damaged(f"{len(buffer)} bytes of {total}")
    if _checksum(buffer) != crc:
        raise Damaged("its checksum is another one")
    tensors, at = {}, _aligned(HEAD.size + length)
    after, kinds = json.loads(bytes(buffer[HEAD.size : HEAD.size + length]))
    for name, kind, shape in kinds:
        dtype, count = getattr(torch, kind), math.prod(shape)
        flat = torch.empty(0, dtype=dtype)
        if count:
            flat = torch.frombuffer(buffer, dtype=dtype, count=count, offset=at)
        tensors[name] = flat.view(shape)
        at = _aligned(at + count * dtype.itemsize)
    return Page(tensors, saves, after)


def is_name(text: str) -> bool:
    """Whether it can be that of a page: others tell names, and they become names of files."""
    return 0 < len(text) <= 64 and text.isprintable() and "/" not in text and text[0] != "."


def _checksum(buffer: bytearray) -> int:
    """Of all but itself."""
    view = memoryview(buffer)
    return zlib.crc32(view[SUM.stop :], zlib.crc32(view[: SUM.start]))


def _read(head: bytes | bytearray) -> tuple[int, int, float, int]:
    if len(head) < HEAD.size:
        raise Damaged(f"only {len(head)} bytes")
    magic, crc, length, saves, total = HEAD.unpack(head[: HEAD.size])
    if magic != MAGIC:
        raise Damaged("it is something else")
    return crc, length, saves, total


def _aligned(count: int) -> int:
    return -(-count // ALIGN) * ALIGN
