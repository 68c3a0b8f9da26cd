"""Sequence parallel: each rank has a part of the tokens of every sample, and rows change ranks
where tokens mix.

"ulysses" (Jacobs et al., 2023, arXiv 2309.14509): before an attention queries, keys and values go
to ranks that have all tokens and some heads, behind it results come back: 4 M (N - 1) / N^2 bytes
leave a rank, of M bytes of activation on N ranks.

"dynamic" (Zhao et al., 2024, arXiv 2403.10266), for models that attend in frames and in columns:
ranks have whole frames, so that attention in a frame is their own. Around a branch that attends in
columns rows change to ranks that have whole columns, and back: 2 M (N - 1) / N^2, and nothing where
a policy holds the branch. Which branches do so is learnt from the first forward, in which they go
the other way.

"patch", where parts see all of each other: keys and values go to all ranks, which keep them, before
an attention to the rows of a rank; 2 M (N - 1) / N. Every rank has the pages of all tokens then, as
parts need them that do not (`musiva.engine.patches`).

Exact: heads and tokens may be any number, and no padding is sent. All ranks run the same plan.

T rows, H heads, K channels of a head, D width, R rows that are no padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from musiva.comm.group import Group
from musiva.core.pack import Pack, Rows
from musiva.core.run import QKV, Over, Run, Streams
from musiva.parallel.forms import Form
from musiva.parallel.shards import Axis, bounds, cuts, places_in, real_rows, shards

__all__ = ["SequenceRun"]

X = TypeVar("X", Tensor, Streams)
V = TypeVar("V")
# What a layout is known by to hang these on it.
PARTS, MOVES = "parallel.parts", "parallel.moves"


@dataclass(frozen=True, slots=True)
class Parts:
    """The rows of one stream on every rank, how they were divided, and what was divided."""

    axis: Axis
    ranks: Sequence[Rows]
    whole: Rows


class SequenceRun:
    """A run over a rank's part of packs; what needs no other rank is the inner run's.

    streams: those that are divided; a text that is only attended to is better whole on every rank.
    align: see `shards`; a model with coarser levels needs parts that these do not cut.
    """

    def __init__(
        self,
        inner: Run,
        group: Group,
        *,
        form: Form = "ulysses",
        streams: Collection[str] = ("image",),
        align: int = 1,
    ) -> None:
        self.group = group
        self._inner = inner
        self._axis: Axis = "frames" if form == "dynamic" else "sequence"
        self._gathers = form == "patch"
        self._streams = frozenset(streams)
        self._align = align
        # Branches that are open, and those that attend in columns.
        self._open: list[str] = []
        self._columns: set[str] = set()

    @property
    def columns(self) -> frozenset[str]:
        """Sites of the branches around which rows change ranks, as far as it has seen them."""
        return frozenset(self._columns)

    def part(self, pack: Pack) -> Pack:
        """This rank's part of a pack. Raises InvalidInput where one would have nothing."""
        return self._part(pack, self._axis_of(pack))

    def cuts(self, pack: Pack) -> list[list[int]]:
        """Of each branch of a pack where the image rows of each rank's part begin, and the end."""
        size, axis = self.group.size, self._axis_of(pack)
        return [
            cuts(one.grid, one.length, size, axis=axis, align=self._align)
            for one in pack.image.segments
        ]

    def joined(self, x: Tensor, pack: Pack) -> Tensor:
        """Image rows of a part -> those of the pack that was divided, on every rank; padding is
        zero.
        """
        return self._gathered(x, pack.image)

    def branch(self, site: str, fn: Callable[[X, Pack], X], x: X, pack: Pack) -> X:
        if site in self._columns:
            fn = self._switched(fn)
        self._open.append(site)
        try:
            return self._inner.branch(site, fn, x, pack)
        finally:
            self._open.pop()

    def _switched(self, fn: Callable[[X, Pack], X]) -> Callable[[X, Pack], X]:
        """fn on rows that are divided by places, where they are divided by frames."""

        def inside(x: X, pack: Pack) -> X:
            parts = _parts_of(pack.image)
            if parts is None or parts.axis != "frames":
                return fn(x, pack)
            other = self._part(_whole(pack), "places")
            there = fn(self._moved(x, pack.image, other.image), other)
            return self._moved(there, other.image, pack.image)

        return inside

    def attend(
        self, site: str, qkv: Mapping[str, QKV], pack: Pack, over: Over = "sample"
    ) -> Streams:
        own = _own_groups(qkv, pack, over)
        if own is not None:
            return self._inner.attend(site, qkv, own, over)
        parts = _parts_of(pack.image)
        if over == "column" and parts is not None and parts.axis == "frames" and self._open:
            self._columns.add(self._open[-1])
        if self._gathers:
            return self._given_all(site, qkv, pack, over)
        return self._exchanged(site, qkv, pack, over)

    def conv(
        self, site: str, layer: nn.Conv2d, x: Tensor, rows: Rows, to: Rows | None = None
    ) -> Tensor:
        if _parts_of(rows) is None:
            return self._inner.conv(site, layer, x, rows, to)
        whole = _parts(rows).whole
        return self._inner.conv(site, layer, self._gathered(x, rows), whole, to or rows)

    def reduce(self, site: str, left: Tensor, right: Tensor, rows: Rows) -> Tensor:
        if _parts_of(rows) is None:
            return self._inner.reduce(site, left, right, rows)
        # Of a segment with an owner pages of all rows are kept, on every rank; of others each sums
        # its own. A segment's way never depends on those beside it.
        whole = _parts(rows).whole
        owned = [segment.owner is not None for segment in whole.segments]
        found: list[Tensor] = []
        if not all(owned):
            own = self._inner.reduce(site, left, right, _as_complete(rows, "sequence"))
            found.append(self.group.sum(own))
        if any(owned):
            left, right = self._gathered(left, rows), self._gathered(right, rows)
            found.append(self._inner.reduce(site, left, right, whole))
        if len(found) == 1:
            return found[0]
        chosen = torch.tensor(owned, device=left.device)
        return torch.where(chosen[:, None, None, None], found[1], found[0])

    def whole(self, site: str, x: Tensor, rows: Rows) -> Sequence[Tensor]:
        if _parts_of(rows) is None:
            return self._inner.whole(site, x, rows)
        return self._inner.whole(site, self._gathered(x, rows), _parts(rows).whole)

    def linear(
        self, site: str, layer: nn.Linear, x: Tensor, pack: Pack, activation: str | None = None
    ) -> Tensor:
        return self._inner.linear(site, layer, x, pack, activation)

    def once(self, site: str, fn: Callable[[], V], key: Hashable) -> V:
        return self._inner.once(site, fn, key)

    def _axis_of(self, pack: Pack) -> Axis:
        """Along which a pack is divided."""
        return self._axis if pack.image.complete else "sequence"

    def _part(self, pack: Pack, axis: Axis) -> Pack:
        def made() -> Pack:
            every = shards(
                pack, self.group.size, axis=axis, streams=self._streams, align=self._align
            )
            own = every[self.group.rank]
            for name in self._streams:
                for k in range(self._align.bit_length() if name == "image" else 1):
                    ranks = [one.streams[name].level(k) for one in every]
                    kind: Axis = axis if name == "image" else "sequence"
                    parts = Parts(kind, ranks, pack.streams[name].level(k))
                    own.streams[name].level(k).derived(PARTS, lambda parts=parts: parts)
            return own

        return pack.derived((PARTS, axis, self.group.rank, self.group.size), made)

    def _exchanged(self, site: str, qkv: Mapping[str, QKV], pack: Pack, over: Over) -> Streams:
        """All tokens of some heads, attended to, and back."""
        rank, size = self.group.rank, self.group.size
        whole = _whole(pack)
        tensors = {
            (n, i): x for n, three in qkv.items() for i, x in enumerate(three) if x is not None
        }
        heads = bounds(next(iter(tensors.values())).shape[1], size)
        mine = heads[rank + 1] - heads[rank]
        divided = {key: x for key, x in tensors.items() if _parts_of(pack.streams[key[0]])}
        sent = {
            key: [x[real_rows(pack.streams[key[0]]), a:b] for a, b in pairwise(heads)]
            for key, x in divided.items()
        }
        counts = {
            key: [len(real_rows(rows)) for rows in _parts(pack.streams[key[0]]).ranks]
            for key in divided
        }
        shapes = {key: [(n, mine, x.shape[2]) for n in counts[key]] for key, x in divided.items()}
        received = self._together(sent, shapes)
        all_rows: dict[str, list[Tensor | None]] = {name: [None, None, None] for name in qkv}
        for key, x in tensors.items():
            name, i = key
            if key in divided:
                all_rows[name][i] = _laid(received[key], _parts(pack.streams[name]))
            else:
                all_rows[name][i] = x[:, heads[rank] : heads[rank + 1]]
        found: Streams = {
            name: three[0] for name, three in all_rows.items() if three[0] is not None
        }
        if mine:
            three = {name: cast("QKV", tuple(own)) for name, own in all_rows.items()}
            found = self._inner.attend(site, three, whole, over)
        return self._back(found, pack, heads)

    def _given_all(self, site: str, qkv: Mapping[str, QKV], pack: Pack, over: Over) -> Streams:
        """All rows as keys, on every rank, and its own as queries."""
        whole = _whole(pack)
        if over != "sample":
            ((name, three),) = qkv.items()
            x_T3HK = torch.stack([x for x in three if x is not None], 1)
            q, k, v = self._gathered(x_T3HK, pack.streams[name]).unbind(1)
            found = self._inner.attend(site, {name: (q, k, v)}, whole, over)
            return {name: _own(found[name], pack.streams[name])}
        streams: dict[str, Rows] = {}
        mixed: dict[str, QKV] = {}
        for name, (q, k, v) in qkv.items():
            rows = pack.streams[name]
            if q is not None:
                streams[name], mixed[name] = _as_complete(rows, "sequence"), (q, None, None)
            if k is None or v is None:
                continue
            kv_T2HK, keys = self._gathered(torch.stack((k, v), 1), rows), whole.streams[name]
            if name == "image":
                # Of absent rows too, and kept where someone owns them.
                several, keys = self._inner.whole(site, kv_T2HK, keys), keys.full
                kv_T2HK = Pack({name: keys}).gather(several, name)
            every_k, every_v = kv_T2HK.unbind(1)
            streams[f"{name}.all"], mixed[f"{name}.all"] = keys, (None, every_k, every_v)
        return self._inner.attend(site, mixed, Pack(streams), over)

    def _back(self, found: Streams, pack: Pack, heads: Sequence[int]) -> Streams:
        """Some heads of all rows to all heads of some rows; a stream that is whole on every rank
        gets its other heads.
        """
        widths = [b - a for a, b in pairwise(heads)]
        sent, shapes = {}, {}
        for name, x in found.items():
            rows = pack.streams[name]
            if _parts_of(rows):
                parts = _parts(rows)
                sent[name] = [x[places_in(one, parts.whole)] for one in parts.ranks]
                count = len(real_rows(rows))
            else:
                sent[name], count = [x] * self.group.size, x.shape[0]
            shapes[name] = [(count, width, x.shape[2]) for width in widths]
        out: Streams = {}
        for name, several in self._together(sent, shapes).items():
            x, rows = torch.cat(several, 1), pack.streams[name]
            if not _parts_of(rows):
                out[name] = x
                continue
            out[name] = x.new_zeros(rows.num_rows, *x.shape[1:])
            out[name][real_rows(rows)] = x
        return out

    def _together(
        self,
        sent: Mapping[V, Sequence[Tensor]],
        shapes: Mapping[V, Sequence[tuple[int, ...]]],
    ) -> dict[V, list[Tensor]]:
        """Several tensors in one exchange."""
        size = self.group.size
        if not sent:
            return {}
        parts = [torch.cat([own[i].flatten() for own in sent.values()]) for i in range(size)]
        lengths = [[math.prod(own[i]) for own in shapes.values()] for i in range(size)]
        received = self.group.exchange(parts, [(sum(several),) for several in lengths])
        apart = [part.split(several) for part, several in zip(received, lengths, strict=True)]
        return {
            key: [apart[i][j].view(own[i]) for i in range(size)]
            for j, (key, own) in enumerate(shapes.items())
        }

    def _moved(self, x: X, here: Rows, there: Rows) -> X:
        """Image rows from one way to divide them to another; other streams stay."""
        if isinstance(x, Mapping):
            return cast("X", {**x, "image": self._moved_rows(x["image"], here, there)})
        return cast("X", self._moved_rows(x, here, there))

    def _moved_rows(self, x: Tensor, here: Rows, there: Rows) -> Tensor:
        sources, targets = _moves(here, there)
        parts = [x[source] for source in sources]
        shapes = [(len(target), *x.shape[1:]) for target in targets]
        out = x.new_zeros(there.num_rows, *x.shape[1:])
        received = self.group.exchange(parts, shapes)
        for target, part in zip(targets, received, strict=True):
            out[target] = part
        return out

    def _gathered(self, x: Tensor, rows: Rows) -> Tensor:
        """The rows of what was divided, on every rank."""
        if _parts_of(rows) is None:
            return x
        own, parts = x[real_rows(rows)], _parts(rows)
        shapes = [(len(real_rows(one)), *x.shape[1:]) for one in parts.ranks]
        return _laid(self.group.exchange([own] * self.group.size, shapes), parts)


def _parts_of(rows: Rows) -> Parts | None:
    """None of what is whole on every rank."""
    return rows.derived(PARTS, lambda: None)


def _parts(rows: Rows) -> Parts:
    found = _parts_of(rows)
    assert found is not None
    return found


def _whole(pack: Pack) -> Pack:
    """What was divided."""

    def made() -> Pack:
        parts = {name: _parts_of(rows) for name, rows in pack.streams.items()}
        return Pack(
            {name: p.whole if (p := parts[name]) else rows for name, rows in pack.streams.items()}
        )

    return pack.derived(PARTS, made)


def _own(x: Tensor, rows: Rows) -> Tensor:
    """The rows of this rank out of all."""
    out = x.new_zeros(rows.num_rows, *x.shape[1:])
    out[real_rows(rows)] = x[places_in(rows, _parts(rows).whole)]
    return out


def _laid(several: Sequence[Tensor], parts: Parts) -> Tensor:
    """Rows of every rank where they belong in what was divided."""
    out = several[0].new_zeros(parts.whole.num_rows, *several[0].shape[1:])
    for x, rows in zip(several, parts.ranks, strict=True):
        out[places_in(rows, parts.whole)] = x
    return out


def _own_groups(qkv: Mapping[str, QKV], pack: Pack, over: Over) -> Pack | None:
    """The pack as one that is complete, where all keys of this rank's queries are here."""
    if _parts_of(pack.image) is None:
        return pack
    keys = [name for name, (_, k, _) in qkv.items() if k is not None]
    if all(_parts_of(pack.streams[name]) is None for name in keys):
        # Words are whole on every rank; to them it does not matter which tokens ask.
        axis: Axis = "sequence"
    else:
        parts = _parts_of(pack.image)
        in_frames = over == "frame" or isinstance(over, tuple)
        own = {"frames": in_frames, "places": over == "column", "sequence": False}
        if parts is None or list(qkv) != ["image"] or not own[parts.axis]:
            return None
        axis = parts.axis

    def made() -> Pack:
        return Pack({n: _as_complete(rows, axis) for n, rows in pack.streams.items()})

    return pack.derived((PARTS, axis), made)


def _as_complete(rows: Rows, axis: Axis) -> Rows:
    """The same rows as a complete layout of smaller samples."""
    if rows.complete:
        return rows

    def made() -> Rows:
        segments = []
        for segment in rows.segments:
            frames, height, width = segment.grid
            grids = {
                "sequence": (1, 1, segment.length),
                "frames": (segment.length // (height * width), height, width),
                "places": (frames, 1, segment.length // frames),
            }
            # What is kept of an owner is of whole samples.
            segments.append(replace(segment, grid=grids[axis], owner=None))
        return Rows(segments, device=rows.device, num_rows=rows.num_rows)

    return rows.derived((PARTS, axis), made)


def _moves(here: Rows, there: Rows) -> tuple[list[Tensor], list[Tensor]]:
    """The rows that this rank sends to each, and where what each sends belongs."""

    def made() -> tuple[list[Tensor], list[Tensor]]:
        whole = _parts(there).whole
        own, new = places_in(here, whole), places_in(there, whole)
        sources = [
            real_rows(here)[torch.isin(own, places_in(one, whole))] for one in _parts(there).ranks
        ]
        targets = [
            real_rows(there)[torch.isin(new, places_in(one, whole))] for one in _parts(here).ranks
        ]
        return sources, targets

    return here.derived((MOVES, _parts(there).axis), made)
