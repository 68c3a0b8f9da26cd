"""What generated code asks of a pack: whose row is which, and what depends on sizes alone.

R rows of some streams behind one another, M modulation rows, L tokens of one sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from musiva.core.pack import Pack, Rows
from musiva.core.run import QKV, Run
from musiva.ops.modulated_norm import gated_add, modulated_norm

__all__ = ["Dims", "Frame", "Lengths", "to_graph", "to_tokens"]

# Of each dimension its axes: names of token axes, extents of others.
Dims = tuple[tuple[str | int, ...], ...]
# Extents of token axes of one sample, and whole numbers that depend on its sizes.
Lengths = Mapping[str, int]
Streams = tuple[str, ...]
Operand = Tensor | tuple[Tensor, ...]


@dataclass(slots=True)
class Frame:
    """axes: the token axes of each stream, outermost first. lengths: of each sample branch. layers:
    by the names that generated code has for them. merged: those that a merged layer is made of, by
    its name; together: that layer itself. extras: further streams, each with how many tokens a
    sample has of it, as an expression of its sizes `n`. copies: streams that are there twice.
    place: the value of a place for a branch, in the layout of the graph. floats: of each sample
    branch, numbers that depend on sizes and are not whole.
    """

    pack: Pack
    axes: Mapping[str, Sequence[str]]
    lengths: Sequence[Lengths]
    layers: Mapping[str, nn.Linear]
    convolutions: Mapping[str, nn.Conv2d]
    place: Callable[[str, int], Tensor]
    merged: Mapping[str, Sequence[str]] = field(default_factory=dict)
    together: Callable[[str], nn.Linear] | None = None
    extras: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)
    floats: Sequence[Mapping[str, float]] = ()
    _rows: dict[Streams, Tensor] = field(default_factory=dict)
    _sizes: Hashable = None

    def __post_init__(self) -> None:
        """Streams that inputs do not bring."""
        self._sizes = tuple(tuple(sorted(own.items())) for own in self.lengths)
        if not self.extras and not self.copies:
            return
        counts = {
            name: [_evaluated(text, own) for own in self.lengths]
            for name, text in self.extras.items()
        }
        more = {
            name: Rows.build([(1, 1, count) for count in own], device=self.pack.image.device)
            for name, own in counts.items()
        }
        streams = {**self.pack.streams, **more}
        self.pack = Pack(streams | {name: streams[own] for name, own in self.copies.items()})
        self.axes = {**self.axes, **{name: (name,) for name in self.extras}}
        self.axes |= {name: self.axes[own] for name, own in self.copies.items()}
        self.lengths = [
            {**own, **{name: several[i] for name, several in counts.items()}}
            for i, own in enumerate(self.lengths)
        ]

    def of(self, pack: Pack) -> Frame:
        """The same of another pack of these samples, of which some rows were taken."""
        if pack is self.pack:
            return self
        return pack.derived(id(self.layers), lambda: replace(self, pack=pack, _rows={}))

    def gather(self, table: Tensor, streams: Streams) -> Tensor:
        """[M, ...] -> [R, ...]: what is one for a sample, for each of its rows."""
        if streams not in self._rows:
            parts = [self.pack.streams[name].segment_T for name in streams]
            self._rows[streams] = torch.cat(parts)
        return table[self._rows[streams]]

    def count(self, streams: Streams) -> int:
        """How many rows; without streams, how many modulation rows."""
        if not streams:
            return self.pack.num_mod_rows
        return sum(self.pack.streams[name].num_rows for name in streams)

    def part(self, x: Tensor, streams: Streams, first: int, end: int) -> Tensor:
        """The rows of streams `first` to `end` of those that x has."""
        start = self.count(streams[:first]) if first else 0
        return x[start : start + self.count(streams[first:end])]

    def linear(self, run: Run, name: str, x: Tensor, activation: str | None = None) -> Tensor:
        return run.linear(name, self.layers[name], x, self.pack, activation)

    def linears(self, run: Run, name: str, x: Tensor) -> Sequence[Tensor]:
        """The results of the layers of a merged one; with gradients each is called by itself."""
        layers = {one: self.layers[one] for one in self.merged[name]}
        if torch.is_grad_enabled():
            return [run.linear(one, layer, x, self.pack) for one, layer in layers.items()]
        assert self.together is not None, "who has merged layers can make them"
        y = run.linear(name, self.together(name), x, self.pack)
        return y.split([layer.out_features for layer in layers.values()], -1)

    def modulated_norm(
        self, x: Tensor, scale: Tensor, shift: Tensor, streams: Streams, eps: float
    ) -> Tensor:
        """norm(x) * (1 + scale) + shift: [R, ...] and tables [M, ...] -> [R, D]."""
        x, scale, shift = (one.flatten(1) for one in (x, scale, shift))
        parts = [
            modulated_norm(x_TD, shift, scale, self.pack.streams[name], eps)
            for name, x_TD in zip(streams, self._parts(x, streams), strict=True)
        ]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def gated_add(self, x: Tensor, value: Tensor, gate: Tensor, streams: Streams) -> Tensor:
        """x + gate * value: [R, ...] and a table [M, ...] -> [R, D]."""
        x, value, gate = (one.flatten(1) for one in (x, value, gate))
        both = zip(self._parts(x, streams), self._parts(value, streams), strict=True)
        parts = [
            gated_add(*pair, gate, self.pack.streams[name])
            for name, pair in zip(streams, both, strict=True)
        ]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _parts(self, x: Tensor, streams: Streams) -> list[Tensor]:
        """By stream."""
        if len(streams) == 1:
            return [x]
        return [self.part(x, streams, i, i + 1) for i in range(len(streams))]

    @property
    def device(self) -> torch.device:
        return self.pack.image.device

    def conv(self, run: Run, name: str, x: Tensor, stream: str) -> Tensor:
        """[R, C] -> [R, C']: a window over the grid of each sample."""
        return run.conv(name, self.convolutions[name], x, self.pack.streams[stream])

    def attend(
        self,
        run: Run,
        site: str,
        q: Operand,
        k: Operand,
        v: Operand,
        queries: Streams,
        keys: Streams,
        over: str,
        scale: float | str | None,
    ) -> Tensor:
        """[R, H, K] each -> [R, H, K] of the queries' rows. Operands are of all streams, one behind
        another, or a tuple with one for each. scale: or the name of the number that it is.
        """
        own = [self._of_streams(x, streams) for x, streams in ((q, queries), (k, keys), (v, keys))]
        heads, width = own[0][0].shape[1:]
        if own[1][0].shape[1] != heads:
            own[1:] = [
                [x.repeat_interleave(heads // x.shape[1], 1) for x in several]
                for several in own[1:]
            ]
        if isinstance(scale, str):
            table = torch.tensor([own[scale] for own in self.floats], device=self.device)
            own[0] = [
                x * (table[self.pack.streams[name].segment_T] * width**0.5)[:, None, None].to(x)
                for x, name in zip(own[0], queries, strict=True)
            ]
        elif scale is not None and not math.isclose(scale, width**-0.5):
            own[0] = [x * (scale * width**0.5) for x in own[0]]
        found: dict[str, list[Tensor | None]] = {
            name: [None, *both] for name, *both in zip(keys, own[1], own[2], strict=True)
        }
        for name, x in zip(queries, own[0], strict=True):
            found.setdefault(name, [None, None, None])[0] = x
        qkv: dict[str, QKV] = {name: tuple(three) for name, three in found.items()}  # pyright: ignore
        out = run.attend(site, qkv, self.pack, over)
        parts = [out[name] for name in queries]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _of_streams(self, x: Operand, streams: Streams) -> list[Tensor]:
        return list(x) if isinstance(x, tuple) else self._parts(x, streams)

    def reduce(self, run: Run, site: str, left: Tensor, right: Tensor, stream: str) -> Tensor:
        """[R, G, I], [R, G, J] -> [M, G, I, J]: sums of products over all tokens of a sample."""
        sums = run.reduce(site, left, right, self.pack.streams[stream])
        pad = self.pack.num_mod_rows - sums.shape[0]
        return torch.cat([sums, sums.new_zeros(pad, *sums.shape[1:])])

    def pool(self, run: Run, site: str, x: Tensor, stream: str, mean: bool) -> Tensor:
        """[R, C] -> [M, C]: the sum over all tokens of a sample, or their mean."""
        sums = self.reduce(run, site, x[:, None], x.new_ones(x.shape[0], 1, 1), stream)[:, 0, :, 0]
        if not mean:
            return sums
        counts = [math.prod(s.grid) for s in self.pack.streams[stream].segments]
        counts += [1] * (sums.shape[0] - len(counts))
        return sums / torch.tensor(counts, device=sums.device)[:, None]

    def apply(self, table: Tensor, x: Tensor, streams: Streams, left: bool) -> Tensor:
        """Matrices of samples [M, ..., I, J] times rows [R, ..., J, 1] -> [R, ..., I, 1]; or, where
        they are right, rows [R, ..., 1, I] times matrices -> [R, ..., 1, J].
        """
        size = table.shape[-2] if left else table.shape[-1]
        lead = torch.broadcast_shapes(table.shape[1:-2], x.shape[1:-2])
        out = x.new_zeros(x.shape[0], *lead, *((size, 1) if left else (1, size)))
        start = 0
        for name in streams:
            rows = self.pack.streams[name]
            for i, s in enumerate(rows.segments):
                at = slice(start + s.start, start + s.start + s.length)
                if left:
                    together = table[i] @ x[at].squeeze(-1).movedim(0, -1)
                    out[at] = together.movedim(-1, 0).unsqueeze(-1)
                else:
                    together = x[at].squeeze(-2).movedim(0, -2) @ table[i]
                    out[at] = together.movedim(-2, 0).unsqueeze(-2)
            start += rows.num_rows
        return out

    def lay(self, several: Sequence[Tensor], streams: Streams, dims: Dims) -> Tensor:
        """One tensor for each branch in the layout of the graph, on rows."""
        if not streams:
            table = torch.stack([x.reshape(_features(dims)) for x in several])
            pad = self.pack.num_mod_rows - len(several)
            return torch.cat([table, table.new_zeros(pad, *table.shape[1:])])
        laid = []
        for i, name in enumerate(streams):
            rows = self.pack.streams[name]
            own = []
            for x, lengths, tokens in zip(several, self.lengths, rows.tokens, strict=True):
                x_L = to_tokens(
                    self._only(x, i, streams, dims, lengths), dims, self.axes[name], lengths
                )
                own.append(x_L if tokens is None else x_L[tokens.to(x_L.device)])
            laid.append(self.pack.gather(own, name))
        return torch.cat(laid) if len(laid) > 1 else laid[0]

    def places(self, run: Run, name: str, streams: Streams, dims: Dims) -> Tensor:
        """A place on rows: worked out once for a layout."""

        def made() -> Tensor:
            return self.lay([self.place(name, i) for i in range(len(self.lengths))], streams, dims)

        key = tuple(self.pack.streams[name].layout for name in streams), self._sizes
        return run.once(f"{name} {dims}", made, key)

    def content(self, streams: Streams) -> Hashable:
        """What rows of these streams hold, to key what follows from them; None if nobody knows."""
        contents = tuple(self.pack.streams[name].content for name in streams)
        return None if None in contents else (contents, self._sizes)

    def whole(self, run: Run, site: str, x: Tensor, streams: Streams, dims: Dims) -> list[Tensor]:
        """The inverse of `lay`; rows that were taken out come from the run."""
        if not streams:
            # What no sample brings anything to is there once.
            each = range(len(self.lengths)) if x.shape[0] > 1 else [0] * len(self.lengths)
            return [x[i].reshape(_features(dims)) for i in each]
        parts = [
            run.whole(f"{site}.{name}", self.part(x, streams, i, i + 1), self.pack.streams[name])
            for i, name in enumerate(streams)
        ]
        found = []
        for branch, lengths in enumerate(self.lengths):
            several = [
                to_graph(part[branch], _dims_of(dims, self.axes[name]), self.axes[name], lengths)
                for part, name in zip(parts, streams, strict=True)
            ]
            joint = next((i for i, dim in enumerate(dims) if _is_joint(dim, self.axes, streams)), 0)
            found.append(torch.cat(several, joint) if len(several) > 1 else several[0])
        return found

    def _only(
        self, x: Tensor, index: int, streams: Streams, dims: Dims, lengths: Lengths
    ) -> Tensor:
        """The part of one stream of a value that has several behind one another."""
        if len(streams) == 1:
            return x
        dim = next(i for i, dim in enumerate(dims) if _is_joint(dim, self.axes, streams))
        counts = [math.prod(lengths[axis] for axis in self.axes[name]) for name in streams]
        return x.narrow(dim, sum(counts[:index]), counts[index])


def to_tokens(x: Tensor, dims: Dims, axes: Sequence[str], lengths: Lengths) -> Tensor:
    """From the layout of the graph to [L, ...], tokens in the order of `axes`; what is the same
    along one of them is repeated. Axes of other streams are left out.
    """
    dims = _dims_of(dims, axes)
    shape = [lengths[axis] if isinstance(axis, str) else axis for dim in dims for axis in dim]
    flat = [axis for dim in dims for axis in dim]
    there = [axis for axis in axes if axis in flat]
    order = [flat.index(axis) for axis in there]
    order += [i for i, axis in enumerate(flat) if not isinstance(axis, str)]
    x = x.reshape(shape).permute(order)
    for i, axis in enumerate(axes):
        if axis not in flat:
            x = x.unsqueeze(i)
    x = x.expand(*(lengths[axis] for axis in axes), *x.shape[len(axes) :])
    return x.reshape(-1, *_features(dims))


def to_graph(x_L: Tensor, dims: Dims, axes: Sequence[str], lengths: Lengths) -> Tensor:
    """The inverse of `to_tokens`."""
    flat = [axis for dim in dims for axis in dim]
    inner = [axis for axis in flat if not isinstance(axis, str)]
    x = x_L.reshape(*(lengths[axis] for axis in axes), *inner)
    # Along what is not there, all are the same.
    for i in reversed(range(len(axes))):
        x = x if axes[i] in flat else x.select(i, 0)
    there = [axis for axis in axes if axis in flat]
    places = iter(range(len(there), len(there) + len(inner)))
    order = [there.index(axis) if isinstance(axis, str) else next(places) for axis in flat]
    x = x.permute(order)
    sizes = iter(x.shape)
    return x.reshape([math.prod(next(sizes) for _ in dim) for dim in dims])


def _evaluated(text: str, lengths: Lengths) -> int:
    """An expression of a graph's sizes, which we have written."""
    return eval(text, {"__builtins__": {}}, {"n": lengths})


def _features(dims: Dims) -> tuple[int, ...]:
    return tuple(math.prod(axis for axis in dim if isinstance(axis, int)) for dim in dims)


def _dims_of(dims: Dims, axes: Sequence[str]) -> Dims:
    return tuple(
        tuple(axis for axis in dim if not isinstance(axis, str) or axis in axes) for dim in dims
    )


def _is_joint(
    dim: Sequence[str | int], axes: Mapping[str, Sequence[str]], streams: Streams
) -> bool:
    """Whether a dimension has tokens of several streams."""
    owners = {name for name in streams for axis in axes[name] if axis in dim}
    return len(owners) > 1
