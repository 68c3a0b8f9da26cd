"""The part of a T5 `config.json` that shapes the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from musiva.core.errors import BadCheckpoint

__all__ = ["T5Config"]

FEED_FORWARDS = {"relu": (False, "relu"), "gated-gelu": (True, "gelu_new")}


@dataclass(frozen=True, slots=True)
class T5Config:
    """Sizes and constants of a T5 encoder; names as in `config.json` where they are plain."""

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    feed_forward: str = "relu"
    relative_buckets: int = 32
    relative_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0

    @classmethod
    def from_dict(cls, config: Mapping[str, object]) -> T5Config:
        """Read a parsed `config.json`; absent optional keys mean what they mean to transformers.

        Keys that only concern a decoder, generation or caching are of no effect on an encoder.
        Raises `BadCheckpoint` naming key, value and what is supported.
        """
        _expect(config, "model_type", "t5", ("t5",))
        _expect(config, "is_decoder", False, (False,))
        _expect(config, "quantization_config", None, (None,))
        feed_forward = config.get("feed_forward_proj", "relu")
        if not isinstance(feed_forward, str) or feed_forward not in FEED_FORWARDS:
            raise _unsupported("feed_forward_proj", feed_forward, " or ".join(FEED_FORWARDS))
        gated, activation = FEED_FORWARDS[feed_forward]
        _expect(config, "is_gated_act", gated, (gated,))
        _expect(config, "dense_act_fn", activation, (activation,))

        buckets = _count(config, "relative_attention_num_buckets", 32)
        if buckets < 4 or buckets % 2:
            raise _unsupported(
                "relative_attention_num_buckets", buckets, "an even number from 4 up"
            )
        distance = _count(config, "relative_attention_max_distance", 128)
        if distance <= buckets // 4:
            raise _unsupported(
                "relative_attention_max_distance", distance, f"more than {buckets // 4}"
            )
        return cls(
            vocab_size=_count(config, "vocab_size"),
            d_model=_count(config, "d_model"),
            d_kv=_count(config, "d_kv"),
            d_ff=_count(config, "d_ff"),
            num_layers=_count(config, "num_layers"),
            num_heads=_count(config, "num_heads"),
            feed_forward=feed_forward,
            relative_buckets=buckets,
            relative_max_distance=distance,
            dropout_rate=_number(config, "dropout_rate", 0.1, below=1.0),
            layer_norm_epsilon=_number(config, "layer_norm_epsilon", 1e-6),
            initializer_factor=_number(config, "initializer_factor", 1.0),
        )

    def to_dict(self) -> dict[str, object]:
        """The `config.json` from which transformers and `from_dict` build this encoder."""
        gated, activation = FEED_FORWARDS[self.feed_forward]
        return {
            "architectures": ["T5EncoderModel"],
            "model_type": "t5",
            "vocab_size": self.vocab_size,
            "d_model": self.d_model,
            "d_kv": self.d_kv,
            "d_ff": self.d_ff,
            "num_layers": self.num_layers,
            "num_decoder_layers": self.num_layers,
            "num_heads": self.num_heads,
            "feed_forward_proj": self.feed_forward,
            "is_gated_act": gated,
            "dense_act_fn": activation,
            "relative_attention_num_buckets": self.relative_buckets,
            "relative_attention_max_distance": self.relative_max_distance,
            "dropout_rate": self.dropout_rate,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "initializer_factor": self.initializer_factor,
            "is_encoder_decoder": False,
            "tie_word_embeddings": True,
            "pad_token_id": 0,
            "eos_token_id": 1,
        }


def _unsupported(key: str, value: object, supported: str) -> BadCheckpoint:
    return BadCheckpoint(f"text encoder config: {key} is {value!r}; supported: {supported}")


def _expect(
    config: Mapping[str, object], key: str, default: object, allowed: tuple[object, ...]
) -> None:
    value = config.get(key, default)
    if value not in allowed:
        raise _unsupported(key, value, " or ".join(repr(item) for item in allowed))


def _count(config: Mapping[str, object], key: str, default: int | None = None) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _unsupported(key, value, "a whole number from 1 up")
    return value


def _number(
    config: Mapping[str, object], key: str, default: float, below: float = float("inf")
) -> float:
    value = config.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < below:
        raise _unsupported(key, value, f"a number from 0 to below {below}")
    return float(value)
