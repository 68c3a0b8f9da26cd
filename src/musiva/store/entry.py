"""The features of one owner at one site, in pages of a slab.

P pages of a slab and R rows, which hold a token each; N pages of an entry, L tokens of its owner, A
tokens that are written; F is the shape of a feature, of any rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from musiva.store.space import Extent, Range, byte_ranges

__all__ = ["NEVER", "Entry", "Kind", "Need"]

# The version of a token that was not written yet.
NEVER = -1


@dataclass(frozen=True, slots=True)
class Need:
    """What one entry has to hold: `num_tokens` features of this shape and dtype. () is one number a
    token. Raises ValueError for a size below 1.
    """

    num_tokens: int
    feature: tuple[int, ...]
    dtype: torch.dtype

    def __post_init__(self) -> None:
        if min(self.num_tokens, *self.feature, 1) < 1:
            raise ValueError(f"every size of {self} has to be at least 1")


@dataclass(frozen=True)
class Kind:
    """What the pages of one slab hold: `page_tokens` features of this shape, kept in this dtype."""

    page_tokens: int
    feature: tuple[int, ...]
    dtype: torch.dtype

    @cached_property
    def feature_bytes(self) -> int:
        """Of one token."""
        return math.prod(self.feature) * self.dtype.itemsize

    @cached_property
    def page_bytes(self) -> int:
        return self.page_tokens * self.feature_bytes

    def extent(self, need: Need) -> Extent:
        return Extent(-(-need.num_tokens // self.page_tokens), self.page_bytes)


@dataclass(slots=True, eq=False)
class Entry:
    """kind: of its slab. pages: their numbers, rising, in token order. page_table_N: the same as
    int64 on the slab's device. versions_L: which evaluation wrote each token, int64 on the host.
    unwritten: how many tokens wait for their first write.

    The tokens of consecutive pages are `view_LF` of the slab, those of scattered ones are its rows
    `rows_L`.
    """

    need: Need
    kind: Kind
    pages: tuple[int, ...]
    slab: Tensor
    page_table_N: Tensor = field(init=False)
    view_LF: Tensor | None = field(init=False, default=None)
    rows_L: Tensor | None = field(init=False, default=None)
    versions_L: Tensor = field(init=False)
    unwritten: int = field(init=False)

    def __post_init__(self) -> None:
        length, page_tokens = self.need.num_tokens, self.kind.page_tokens
        self.page_table_N = torch.tensor(self.pages, device=self.slab.device)
        self.versions_L = torch.full((length,), NEVER)
        self.unwritten = length
        if self.consecutive:
            self.view_LF = self._flat_RF[self.pages[0] * page_tokens :][:length]
        else:
            inside = torch.arange(page_tokens, device=self.slab.device)
            rows_NR = self.page_table_N[:, None] * page_tokens + inside
            self.rows_L = rows_NR.flatten()[:length]

    @property
    def consecutive(self) -> bool:
        return self.pages[-1] - self.pages[0] == len(self.pages) - 1

    @property
    def num_bytes(self) -> int:
        """Of its pages, the unused end of the last one included."""
        return len(self.pages) * self.kind.page_bytes

    @property
    def ranges(self) -> Iterator[Range]:
        """Of bytes of the arena."""
        return byte_ranges(self.pages, self.kind.page_bytes)

    def write(
        self, values: Tensor | tuple[Tensor, ...], tokens_A: Tensor | None, version: int
    ) -> int:
        """Bytes written; see `Store.write`."""
        count = self._check_write(tokens_A, version)
        given, wanted = _kind_of(values), (count, *self.need.feature)
        if given != (wanted, self.need.dtype, self.slab.device):
            expected = wanted, self.need.dtype, self.slab.device
            raise ValueError(f"values have to be {expected}, not {given}")
        self._fill(values, tokens_A)
        self._enter(tokens_A, version)
        return count * self.kind.feature_bytes

    def mark(self, tokens_A: Tensor | None, version: int) -> int:
        """Bytes written; see `Store.mark`."""
        count = self._check_write(tokens_A, version)
        self._enter(tokens_A, version)
        return count * self.kind.feature_bytes

    def read(self, dtype: torch.dtype | None) -> Tensor:
        """[L, *feature]; see `Store.read`."""
        self._require_written()
        values_LF = self.view_LF
        if values_LF is None:
            assert self.rows_L is not None
            values_LF = self._flat_RF.index_select(0, self.rows_L)
        return values_LF.to(dtype or self.need.dtype)

    def ages(self, now: int) -> Tensor:
        """[N, 2]; see `Store.ages`."""
        self._require_written()
        count, page_tokens = len(self.pages), self.kind.page_tokens
        # The last page is filled up with its last token, which changes neither end.
        tokens = torch.arange(count * page_tokens).clamp(max=self.need.num_tokens - 1)
        ages_NR = (now - self.versions_L[tokens]).view(count, page_tokens)
        return torch.stack((ages_NR.amax(1), ages_NR.amin(1)), 1)

    def check(self, where: str, page_tokens: int) -> None:
        """Raise AssertionError, which begins with `where`, unless all that it says of itself fits
        together.
        """
        for truth, fault in self._facts(page_tokens):
            assert truth, f"{where}: {fault}"

    def _facts(self, page_tokens: int) -> Iterator[tuple[bool, str]]:
        """What has to be true, and what is wrong where it is not; each rests on those before it."""
        need, kind, pages, slab = self.need, self.kind, self.pages, self.slab
        yield kind.page_tokens == page_tokens, "pages of another size"
        yield kind.feature == need.feature, "pages of another feature"
        yield slab.shape[1:] == (page_tokens, *need.feature), "a slab of another shape"
        yield slab.dtype == kind.dtype, "a slab of another dtype"
        yield len(pages) == kind.extent(need).num_pages, f"{len(pages)} pages for {need}"
        yield list(pages) == sorted(set(pages)), f"pages do not rise: {pages}"
        yield 0 <= pages[0] <= pages[-1] < slab.shape[0], f"pages outside of the slab: {pages}"
        yield self.page_table_N.tolist() == list(pages), "a page table of other pages"
        yield (self.view_LF is None) != (self.rows_L is None), "neither a view nor rows, or both"
        if self.rows_L is not None:
            rows = [page * page_tokens + i for page in pages for i in range(page_tokens)]
            yield self.rows_L.tolist() == rows[: need.num_tokens], "rows of other tokens"
        if self.view_LF is not None:
            start = slab.data_ptr() + pages[0] * kind.page_bytes
            yield self.consecutive, "a view of scattered pages"
            yield self.view_LF.data_ptr() == start, "a view of other pages"
            yield self.view_LF.shape == (need.num_tokens, *need.feature), "a view of other tokens"
        yield self.versions_L.shape == (need.num_tokens,), "not one version a token"
        yield bool((self.versions_L >= NEVER).all()), "versions below any evaluation"
        waiting = self.versions_L.tolist().count(NEVER)
        yield self.unwritten == waiting, f"{waiting} tokens wait, not {self.unwritten}"

    @property
    def _flat_RF(self) -> Tensor:
        return self.slab.flatten(0, 1)

    def _check_write(self, tokens_A: Tensor | None, version: int) -> int:
        """How many tokens are written. Raises ValueError."""
        if version < 0:
            raise ValueError(f"a version is at least 0, not {version}")
        if tokens_A is None:
            return self.need.num_tokens
        _check_tokens(tokens_A, self.need.num_tokens)
        return tokens_A.shape[0]

    def _enter(self, tokens_A: Tensor | None, version: int) -> None:
        if tokens_A is None:
            self.versions_L.fill_(version)
            self.unwritten = 0
            return
        self.versions_L.index_fill_(0, tokens_A, version)
        if self.unwritten:
            self.unwritten = int((self.versions_L == NEVER).sum())

    def _fill(self, values: Tensor | tuple[Tensor, ...], tokens_A: Tensor | None) -> None:
        # Pages take part in no gradient. Detached, since no_grad() takes longer than the rest.
        if self.view_LF is not None and tokens_A is None:
            if isinstance(values, Tensor):
                self.view_LF.copy_(values.detach())
            else:
                for target, part in zip(self.view_LF.unbind(1), values, strict=True):
                    target.copy_(part.detach())
            return
        values_AF = values if isinstance(values, Tensor) else torch.stack(values, 1)
        target = self._flat_RF if self.view_LF is None else self.view_LF
        rows_A = self.rows_L
        if tokens_A is not None:
            tokens_A = tokens_A.to(self.slab.device)
            rows_A = tokens_A if rows_A is None else rows_A.index_select(0, tokens_A)
        target[rows_A] = values_AF.detach().to(self.kind.dtype)

    def _require_written(self) -> None:
        if self.unwritten:
            raise RuntimeError(
                f"{self.unwritten} of {self.need.num_tokens} tokens were never written"
            )


def _kind_of(values: Tensor | tuple[Tensor, ...]) -> object:
    """Shape, dtype and device of a tensor, or of the stack of several along axis 1."""
    if isinstance(values, Tensor):
        return tuple(values.shape), values.dtype, values.device
    kinds = {(tuple(part.shape), part.dtype, part.device) for part in values}
    if len(kinds) != 1:
        return kinds
    ((shape, dtype, device),) = kinds
    return (*shape[:1], len(values), *shape[1:]), dtype, device


def _check_tokens(tokens_A: Tensor, length: int) -> None:
    """Raises ValueError; on a GPU an index out of range would end the process."""
    if tokens_A.dtype != torch.int64 or tokens_A.ndim != 1 or tokens_A.device.type != "cpu":
        raise ValueError("tokens have to be one row of int64 on the host")
    if tokens_A.numel() == 0:
        return
    rising = bool((tokens_A[1:] > tokens_A[:-1]).all())
    if not rising or int(tokens_A[0]) < 0 or int(tokens_A[-1]) >= length:
        raise ValueError(f"tokens have to rise, from 0 to {length - 1} at most")
