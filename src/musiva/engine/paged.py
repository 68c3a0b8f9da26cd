"""The paged run: of some samples only some image rows are there, and pages stand for the others.

A *site* that mixes tokens looks at features of its rows: keys and values, the input of a
convolution, the factors of a sum. Whatever rows are computed write theirs into the store, with the
evaluation as version; absent rows take part with what they last wrote.

What an owner needs (its sites, their features and sizes) is the model's to say, and follows from
its grid. The first complete forward of a grid tells: it holds its features until it ends, and
reserves and writes then. All later ones reserve first, and write as they go.

T rows, S segments with at most M pages each, L tokens of a segment, A of them that are there, F the
shape of a feature, G groups of J tokens, Q of which are asked for, H heads, K channels of a head.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from musiva.core.errors import OverBudget
from musiva.core.pack import ROW_ALIGN, Grid, Pack, Rows, Segment
from musiva.core.run import QKV, Over, Streams
from musiva.engine.runner import SHARED_BYTES, PlainRun
from musiva.ops.attention import attend
from musiva.ops.attention.reference import group_index
from musiva.ops.linear import Linears
from musiva.ops.paged_attention import paged_attend
from musiva.store import Need, Store

__all__ = ["PagedRun"]

# The stream that stands for the image's keys and values of all tokens, beside queries of some.
PAGES = "image.pages"


@dataclass(frozen=True, slots=True)
class Held:
    """The features by site of an owner whose grid is new, until the forward ends."""

    grid: Grid
    version: int
    features: dict[str, Tensor] = field(default_factory=dict)


class PagedRun(PlainRun):
    """Runs packs of which only some image rows were taken; for inference, and for one model.

    An image segment's `owner` says whose pages stand for its absent rows. A segment that is all
    there goes the plain way, and has the plain run's bytes, whoever else is in the pack.
    """

    def __init__(
        self, store: Store, linears: Linears | None = None, *, shared_bytes: int = SHARED_BYTES
    ) -> None:
        super().__init__(linears, shared_bytes=shared_bytes)
        self.store = store
        # What an owner of a grid needs, and what that is worth.
        self._needs: dict[Grid, tuple[Mapping[str, Need], float]] = {}
        # Of the owners whose pages this forward writes, and those it holds features of.
        self._versions: dict[Hashable, int] = {}
        self._held: dict[Hashable, Held] = {}

    def can_take(self, owner: Hashable, grid: Grid) -> bool:
        """Whether some rows of it are enough: its pages are there, and all written, or a sample of
        its grid needs none here. Counted by the store as a hit or a miss.
        """
        return self._needs_nothing(grid) or not self.store.missing(owner)

    def _needs_nothing(self, grid: Grid) -> bool:
        """As on a rank that has no heads."""
        needs = self._needs.get(grid)
        return needs is not None and not needs[0]

    def knows(self, grid: Grid) -> bool:
        """Whether a complete forward of that grid has told what its owners keep."""
        return grid in self._needs

    def needs(self, grid: Grid) -> Mapping[str, Need]:
        """What an owner of a grid that can be taken keeps, by site."""
        return self._needs[grid][0]

    @contextmanager
    def begin(
        self,
        pack: Pack,
        versions: Mapping[Hashable, int],
    ) -> Iterator[None]:
        """One forward of the pack, inside the block: `with run.begin(...): forward(...)`. When it
        ends, all rows that it computed are in the pages of their owners.

        versions: the evaluation of each owner whose rows are kept; others that are all there are
        run and not kept. All pages are worth the same per byte, so no owner drives out another.
        Where the store has no room, the forward is the same and nothing is kept.

        Raises, before anything has changed, RuntimeError for rows that were taken of a segment
        whose absent rows have no pages, ValueError for one without owner or version. If the block
        raises, the pages of the owners in `versions` are freed, since some of them may be written.
        """
        segments = [s for s in pack.image.full.segments if s.owner in versions]
        self._require_pages(pack.image, versions)
        with self.store.pin([s.owner for s in segments]):
            try:
                for s in segments:
                    self._admit(s, versions[s.owner])
                with self._freed_if_it_fails(segments):
                    yield
                    for owner, held in self._held.items():
                        self._keep_held(owner, held)
            finally:
                self._versions, self._held = {}, {}

    def attend(
        self, site: str, qkv: Mapping[str, QKV], pack: Pack, over: Over = "sample"
    ) -> Streams:
        q_THK, k_THK, v_THK = qkv.get("image", (None, None, None))
        if k_THK is None or v_THK is None:
            return super().attend(site, qkv, pack, over)
        rows = pack.image
        if self._versions or self._held or not rows.complete:
            self._keep(site, (k_THK, v_THK), rows)
        if rows.complete:
            return super().attend(site, qkv, pack, over)
        absent = [tokens is not None for tokens in rows.tokens]
        out = attend(qkv, pack.only([not some for some in absent]), over)
        if len(qkv) > 1:
            parts = self._attend_joint(site, qkv, pack, absent)
        elif over == "sample":
            assert q_THK is not None
            parts = {"image": self._attend_pages(site, q_THK, rows)}
        else:
            assert q_THK is not None
            parts = {"image": self._attend_groups(site, q_THK, rows, over)}
        for name, out_THK in out.items():
            for some, s in zip(absent, pack.streams[name].segments, strict=True):
                if some:
                    at = slice(s.start, s.start + s.pitch)
                    out_THK[at] = parts[name][at]
        return out

    def whole(self, site: str, x: Tensor, rows: Rows) -> Sequence[Tensor]:
        self._keep(site, x, rows)
        return [
            x[s.start : s.start + s.length] if tokens is None else self.store.read(s.owner, site)
            for s, tokens in zip(rows.segments, rows.tokens, strict=True)
        ]

    @contextmanager
    def _freed_if_it_fails(self, segments: Sequence[Segment]) -> Iterator[None]:
        try:
            yield
        except BaseException:
            for s in segments:
                self.store.free(s.owner)
            raise

    def _require_pages(self, rows: Rows, versions: Mapping[Hashable, int]) -> None:
        """See `begin`."""
        for s, tokens in zip(rows.segments, rows.tokens, strict=True):
            if tokens is None:
                continue
            if s.owner is None or s.owner not in versions:
                raise ValueError(f"rows were taken of {s}: it needs an owner and a version")
            if s.owner not in self.store and not self._needs_nothing(s.grid):
                raise RuntimeError(
                    f"rows of {s.owner!r} were taken, but it has no pages for the others: "
                    "a forward of all of its rows comes first"
                )

    def _admit(self, s: Segment, version: int) -> None:
        """See to it that the rows of a segment will be kept, if there is room for them."""
        needs = self._needs.get(s.grid)
        if self._needs_nothing(s.grid):
            return
        if needs is None and s.owner not in self.store:
            self._held[s.owner] = Held(s.grid, version)
        elif needs is None or self._reserve(s.owner, *needs):
            self._versions[s.owner] = version

    def _reserve(self, owner: Hashable, needs: Mapping[str, Need], value: float) -> bool:
        try:
            return self.store.reserve(owner, needs, value)
        except OverBudget:
            return False

    def _keep_held(self, owner: Hashable, held: Held) -> None:
        if not held.features:
            # No site of the model mixes tokens here.
            self._needs[held.grid] = {}, 0.0
            return
        needs = {
            site: Need(x_LF.shape[0], tuple(x_LF.shape[1:]), x_LF.dtype)
            for site, x_LF in held.features.items()
        }
        # As what gates keep: the milliseconds that pages save grow with their bytes.
        page_tokens = self.store.config.page_tokens
        value = float(sum(_page_bytes(need, page_tokens) for need in needs.values()))
        self._needs[held.grid] = needs, value
        if self._reserve(owner, needs, value):
            for site, x_LF in held.features.items():
                self.store.write(owner, site, x_LF, version=held.version)

    def _keep(self, site: str, features: Tensor | tuple[Tensor, Tensor], rows: Rows) -> None:
        """Write the features of a site's rows into the pages of their owners, or hold them: one
        tensor [T, ...], or two that lie there side by side.
        """
        for s, tokens_A in zip(rows.segments, rows.tokens, strict=True):
            if tokens_A is not None and s.owner not in self._versions:
                raise RuntimeError(f"rows were taken of {s}: no forward was begun for its owner")
            at = slice(s.start, s.start + s.length)
            own = (
                features[at] if isinstance(features, Tensor) else (features[0][at], features[1][at])
            )
            if s.owner in self._versions:
                version = self._versions[s.owner]
                self.store.write(s.owner, site, own, tokens_A, version=version)
            elif s.owner in self._held:
                held = own.clone() if isinstance(own, Tensor) else torch.stack(own, 1)
                self._held[s.owner].features[site] = held

    def _attend_pages(self, site: str, q_THK: Tensor, rows: Rows) -> Tensor:
        """Each row whose segment has absent rows attends to all tokens of its sample."""
        tables, lengths, slab = [], [], None
        for s, full, tokens in zip(rows.segments, rows.full.segments, rows.tokens, strict=True):
            if tokens is None:
                tables.append(torch.zeros(0, dtype=torch.int64, device=q_THK.device))
                lengths.append(0)
            else:
                # Features of a site are all of one kind, so their pages lie in one slab.
                slab = self.store.slab(s.owner, site)
                tables.append(self.store.page_table(s.owner, site))
                lengths.append(full.length)
        assert slab is not None
        table_SM = pad_sequence(tables, batch_first=True)
        return paged_attend(q_THK, slab, table_SM, torch.tensor(lengths, device=q_THK.device), rows)

    def _attend_joint(
        self, site: str, qkv: Mapping[str, QKV], pack: Pack, absent: Sequence[bool]
    ) -> Streams:
        """The branches with absent image rows: the queries that are there, and the keys of all
        streams, in the order of qkv.
        """
        keys = pack.image.full.only(absent)
        streams, mixed = {}, {}
        for name, of_stream in qkv.items():
            if name != "image":
                streams[name], mixed[name] = pack.streams[name].only(absent), of_stream
                continue
            q_THK, k_THK, _ = of_stream
            assert k_THK is not None
            kv_T2HK = k_THK.new_zeros(keys.num_rows, 2, *k_THK.shape[1:])
            for s in keys.segments:
                if s.length:
                    kv_T2HK[s.start : s.start + s.length] = self.store.read(s.owner, site)
            if q_THK is not None:
                streams["image"] = pack.image.unplaced().only(absent)
                mixed["image"] = (q_THK, None, None)
            streams[PAGES], mixed[PAGES] = keys, (None, *kv_T2HK.unbind(1))
        return attend(mixed, Pack(streams))

    def _attend_groups(self, site: str, q_THK: Tensor, rows: Rows, over: Over) -> Tensor:
        """Frames, columns or windows of the full layout, of which those are computed that have a
        row.
        """
        out_THK = torch.zeros_like(q_THK)
        groups = rows.full.groups(over)
        for i, (s, tokens_A) in enumerate(zip(rows.segments, rows.tokens, strict=True)):
            if tokens_A is None or not s.length:
                continue
            at, tokens_A = slice(s.start, s.start + s.length), tokens_A.to(q_THK.device)
            kv_L2HK = self.store.read(s.owner, site)
            full = rows.full.segments[i]
            q_LHK = q_THK.new_zeros(full.length, *q_THK.shape[1:])
            q_LHK[tokens_A] = q_THK[at]
            there_L = torch.zeros(full.length, dtype=torch.bool, device=q_THK.device)
            there_L[tokens_A] = True
            out_LHK = torch.zeros_like(q_LHK)
            for g in groups:
                if g.segment != i:
                    continue
                index_GJ = group_index(g).to(q_THK.device) - full.start
                index_GJ = index_GJ[there_L[index_GJ].any(1)]
                if index_GJ.shape[0]:
                    index_GQ = _queried(index_GJ, there_L)
                    kv_GJ2HK = kv_L2HK[index_GJ]
                    out_LHK[index_GQ] = _attend_inside(q_LHK[index_GQ], *kv_GJ2HK.unbind(2))
            out_THK[at] = out_LHK[tokens_A]
        return out_THK


def _queried(index_GJ: Tensor, there_L: Tensor) -> Tensor:
    """[G, Q]: of each group the rows that are there, and others of it up to the most that a group
    has of them, aligned.
    """
    there_GJ = there_L[index_GJ]
    most = -(-int(there_GJ.sum(1).max()) // ROW_ALIGN) * ROW_ALIGN
    first_GJ = there_GJ.int().argsort(dim=1, descending=True, stable=True)
    return index_GJ.gather(1, first_GJ[:, :most])


def _attend_inside(q_GQHK: Tensor, k_GJHK: Tensor, v_GJHK: Tensor) -> Tensor:
    """Attention inside each group: as the frames of one sample where all of it is asked for, else
    as a sample of a pack of its own.
    """
    (count, queries), keys = q_GQHK.shape[:2], k_GJHK.shape[1]
    if queries == keys:
        pack = Pack.build([(count, 1, keys)], device=q_GQHK.device)
        q, k, v = (pack.gather([x.flatten(0, 1)]) for x in (q_GQHK, k_GJHK, v_GJHK))
        out_THK = attend({"image": (q, k, v)}, pack, "frame")["image"]
        return out_THK[: count * keys].unflatten(0, (count, keys))
    rows = [Rows.build([(1, 1, n)] * count, device=q_GQHK.device) for n in (queries, keys)]
    pack = Pack({"image": rows[0], PAGES: rows[1]})
    q_THK = pack.gather(list(q_GQHK))
    k_THK, v_THK = (pack.gather(list(x), PAGES) for x in (k_GJHK, v_GJHK))
    qkv = {"image": (q_THK, None, None), PAGES: (None, k_THK, v_THK)}
    return torch.stack(pack.split(attend(qkv, pack)["image"]))


def _page_bytes(need: Need, page_tokens: int) -> int:
    """Of the pages of an entry, as it comes."""
    rows = -(-need.num_tokens // page_tokens) * page_tokens
    return rows * math.prod(need.feature) * need.dtype.itemsize
