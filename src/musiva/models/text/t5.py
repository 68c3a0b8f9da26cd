"""The encoder of T5 on ragged rows, with the parameter names of transformers' `T5EncoderModel`.

Architecture: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer" (2020): RMS norm before every layer, no biases, unscaled attention with one table of
relative position biases (layer 0's) for all layers; `gated-gelu` is the T5 1.1 feed-forward
(Shazeer, "GLU Variants Improve Transformer", 2020).

Shape suffixes: T rows of the pack, D d_model, E num_heads * d_kv, F d_ff, L tokens of one prompt,
B prompts of one length, P their rows (L rounded up to 16), H heads, K d_kv.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musiva.core.errors import BadCheckpoint
from musiva.models.text.config import T5Config
from musiva.models.text.layout import Group, Layout

__all__ = ["LinearFn", "T5Encoder", "plain_linear", "t5_tensors"]

LinearFn = Callable[[str, nn.Linear, Tensor], Tensor]
"""`linear(site, layer, x_TD)` returns `layer(x_TD)`; `site` is the dotted path of the layer."""


def plain_linear(site: str, layer: nn.Linear, x_TD: Tensor) -> Tensor:
    """The default `LinearFn`: the stock kernel; differentiable."""
    return F.linear(x_TD, layer.weight, layer.bias)


def relative_buckets(rows: int, keys: int, config: T5Config, device: torch.device) -> Tensor:
    """Bucket of each (query, key) pair, int64 `[rows, keys]`, values below `relative_buckets`.

    Half of the buckets are for keys after the query; of each half, the nearer half counts single
    steps and the rest widens logarithmically up to `relative_max_distance` (Mesh TensorFlow's T5).
    """
    half = config.relative_buckets // 2
    exact = half // 2
    offset = torch.arange(keys, device=device)[None, :] - torch.arange(rows, device=device)[:, None]
    distance = offset.abs()
    # float32 as in the original: bucket edges fall on exact powers, where rounding decides.
    octaves = torch.log(distance.clamp(min=exact).float() / exact)
    far = exact + (
        octaves / math.log(config.relative_max_distance / exact) * (half - exact)
    ).long().clamp(max=half - 1 - exact)
    return torch.where(distance < exact, distance, far) + half * (offset > 0)


class RmsNorm(nn.Module):
    """Scale to unit root mean square, without mean or bias; the statistic is always float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x_TD: Tensor) -> Tensor:
        square_T1 = x_TD.float().pow(2).mean(-1, keepdim=True)
        return self.weight * (x_TD * torch.rsqrt(square_T1 + self.eps)).to(self.weight.dtype)


class SelfAttention(nn.Module):
    def __init__(self, config: T5Config, site: str, owns_bias: bool) -> None:
        super().__init__()
        self.site = site
        self.num_heads = config.num_heads
        self.dropout_rate = config.dropout_rate
        inner = config.num_heads * config.d_kv
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)
        if owns_bias:
            self.relative_attention_bias = nn.Embedding(config.relative_buckets, config.num_heads)

    def forward(
        self, x_TD: Tensor, layout: Layout, biases: Sequence[Tensor], linear: LinearFn
    ) -> Tensor:
        q_TE = linear(f"{self.site}.q", self.q, x_TD)
        k_TE = linear(f"{self.site}.k", self.k, x_TD)
        v_TE = linear(f"{self.site}.v", self.v, x_TD)
        mixed = [
            self.attend(group, q_TE, k_TE, v_TE, bias_HPL)
            for group, bias_HPL in zip(layout.groups, biases, strict=True)
        ]
        return linear(f"{self.site}.o", self.o, torch.cat(mixed))

    def attend(
        self, group: Group, q_TE: Tensor, k_TE: Tensor, v_TE: Tensor, bias_HPL: Tensor
    ) -> Tensor:
        """Attention inside each prompt of one length; padding rows ask but are never asked."""

        def heads(x_TE: Tensor) -> Tensor:
            rows = x_TE[group.start : group.stop]
            return rows.view(group.count, group.padded, self.num_heads, -1).transpose(1, 2)

        out_BHPK = F.scaled_dot_product_attention(
            heads(q_TE),
            heads(k_TE)[:, :, : group.length],
            heads(v_TE)[:, :, : group.length],
            attn_mask=bias_HPL.to(q_TE.dtype).expand(group.count, -1, -1, -1),
            dropout_p=self.dropout_rate if self.training else 0.0,
            scale=1.0,
        )
        return out_BHPK.transpose(1, 2).reshape(group.count * group.padded, -1)


class FeedForward(nn.Module):
    def __init__(self, config: T5Config, site: str) -> None:
        super().__init__()
        self.site = site
        self.gated = config.feed_forward == "gated-gelu"
        if self.gated:
            self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias=False)
            self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        else:
            self.wi = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x_TD: Tensor, linear: LinearFn) -> Tensor:
        if self.gated:
            gate_TF = F.gelu(linear(f"{self.site}.wi_0", self.wi_0, x_TD), approximate="tanh")
            h_TF = gate_TF * linear(f"{self.site}.wi_1", self.wi_1, x_TD)
        else:
            h_TF = F.relu(linear(f"{self.site}.wi", self.wi, x_TD))
        return linear(f"{self.site}.wo", self.wo, self.dropout(h_TF))


class AttentionLayer(nn.Module):
    def __init__(self, config: T5Config, site: str, owns_bias: bool) -> None:
        super().__init__()
        self.SelfAttention = SelfAttention(config, f"{site}.SelfAttention", owns_bias)
        self.layer_norm = RmsNorm(config.d_model, config.layer_norm_epsilon)


class FeedForwardLayer(nn.Module):
    def __init__(self, config: T5Config, site: str) -> None:
        super().__init__()
        self.DenseReluDense = FeedForward(config, f"{site}.DenseReluDense")
        self.layer_norm = RmsNorm(config.d_model, config.layer_norm_epsilon)


class Block(nn.Module):
    def __init__(self, config: T5Config, site: str, owns_bias: bool) -> None:
        super().__init__()
        attention = AttentionLayer(config, f"{site}.layer.0", owns_bias)
        self.layer = nn.ModuleList([attention, FeedForwardLayer(config, f"{site}.layer.1")])
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(
        self, x_TD: Tensor, layout: Layout, biases: Sequence[Tensor], linear: LinearFn
    ) -> Tensor:
        attention = cast(AttentionLayer, self.layer[0])
        feed_forward = cast(FeedForwardLayer, self.layer[1])
        normed_TD = attention.layer_norm(x_TD)
        x_TD = x_TD + self.dropout(attention.SelfAttention(normed_TD, layout, biases, linear))
        normed_TD = feed_forward.layer_norm(x_TD)
        return x_TD + self.dropout(feed_forward.DenseReluDense(normed_TD, linear))


class Stack(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            Block(config, f"encoder.block.{index}", owns_bias=index == 0)
            for index in range(config.num_layers)
        )
        self.final_layer_norm = RmsNorm(config.d_model, config.layer_norm_epsilon)

    @property
    def bias_table(self) -> nn.Embedding:
        """The relative position biases `[buckets, H]`; block 0 owns them, all blocks use them."""
        attention = cast(AttentionLayer, cast(Block, self.block[0]).layer[0])
        return attention.SelfAttention.relative_attention_bias


class T5Encoder(nn.Module):
    """Turns token ids into text features; the outputs of transformers' `T5EncoderModel`.

    Runs in float32 and, after `.to(torch.bfloat16)`, in bfloat16 throughout except the norm's
    statistic (as transformers does; it keeps `wo` in float32 for float16 only, a type in which T5
    overflows and which is not offered here). Dropout follows `config.dropout_rate` in training
    mode; call `eval()` to use the model.
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Stack(config)
        self.dropout = nn.Dropout(config.dropout_rate)

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> T5Encoder:
        """Build from the parsed `config.json` of a text encoder; weights are whatever torch gives.

        Raises `BadCheckpoint` naming the key, its value and what is supported.
        """
        return cls(T5Config.from_dict(config))

    def forward(self, ids: Sequence[Tensor], *, linear: LinearFn = plain_linear) -> list[Tensor]:
        """Encode prompts as one ragged batch.

        `ids`: one integer tensor `[L]` a prompt, L >= 1, each below `vocab_size`, on any device.
        Returns one `[L, D]` a prompt, in the same order, on the device of the weights. What a
        prompt gives does not depend on the others nor on their order: on a CPU to the byte where no
        gradient is recorded, else up to rounding. All linear layers run through `linear`.
        """
        if not ids:
            return []
        if any(prompt.dim() != 1 or prompt.numel() == 0 for prompt in ids):
            shapes = [tuple(prompt.shape) for prompt in ids]
            raise ValueError(f"ids: got shapes {shapes}; each prompt is [L] with L >= 1")
        layout = Layout.of([len(prompt) for prompt in ids])
        x_TD = self.dropout(self.shared(self._pack_ids(ids, layout)))
        biases = [self._position_bias(group) for group in layout.groups]
        for block in self.encoder.block:
            x_TD = block(x_TD, layout, biases, linear)
        x_TD = self.dropout(self.encoder.final_layer_norm(x_TD))

        rows: list[Tensor] = []
        for group in layout.groups:
            x_BPD = x_TD[group.start : group.stop].view(group.count, group.padded, -1)
            rows.extend(x_BPD[:, : group.length].unbind())
        outputs = dict(zip(layout.order, rows, strict=True))
        return [outputs[index] for index in range(len(ids))]

    def _pack_ids(self, ids: Sequence[Tensor], layout: Layout) -> Tensor:
        """The ids `[T]` in layout order; padding rows hold id 0 and are never read back."""
        device = self.shared.weight.device
        packed_T = torch.zeros(layout.groups[-1].stop, dtype=torch.long, device=device)
        prompts = iter(layout.order)
        for group in layout.groups:
            block_BP = packed_T[group.start : group.stop].view(group.count, group.padded)
            members = [ids[next(prompts)] for _ in range(group.count)]
            block_BP[:, : group.length] = torch.stack(members).to(device)
        return packed_T

    def _position_bias(self, group: Group) -> Tensor:
        """The bias `[H, P, L]` of one prompt length, shared by all layers."""
        buckets_PL = relative_buckets(
            group.padded, group.length, self.config, self.shared.weight.device
        )
        return self.encoder.bias_table(buckets_PL).permute(2, 0, 1)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights with T5's variances (its attention is unscaled: `q` is small)."""
        config, factor = self.config, self.config.initializer_factor
        inner = config.num_heads * config.d_kv
        deviations = {
            "shared": 1.0,
            "q": (config.d_model * config.d_kv) ** -0.5,
            "o": inner**-0.5,
            "wo": config.d_ff**-0.5,
        }
        for name, module in self.named_modules():
            if isinstance(module, RmsNorm):
                module.weight.fill_(factor)
            elif isinstance(module, nn.Linear | nn.Embedding):
                deviation = deviations.get(name.rpartition(".")[2], config.d_model**-0.5)
                module.weight.normal_(0.0, factor * deviation, generator=generator)


def t5_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors under the names that `T5Encoder` has.

    The embedding may lie there as `shared.weight`, as `encoder.embed_tokens.weight`, or as both if
    they are equal; the decoder and the language head of a whole T5 are left out, as transformers
    leaves them out. Raises `BadCheckpoint` when the two embeddings differ.
    """
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith(("decoder.", "lm_head."))
    }
    tied = kept.pop("encoder.embed_tokens.weight", None)
    if tied is not None and not torch.equal(kept.setdefault("shared.weight", tied), tied):
        raise BadCheckpoint(
            "text encoder: shared.weight and encoder.embed_tokens.weight differ; "
            "supported: one embedding under both names"
        )
    return kept
