"""Small random text encoders of transformers, each with a tokenizer fitted to a few texts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

__all__ = ["gemma_2", "qwen_2_5_vl", "qwen_3"]

# The second has all bytes in it.
GEMMA_VOCABULARY, QWEN_VOCABULARY = 200, 400
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
HEAD_DIM = 8
QWEN_SPECIAL = ("<|im_start|>", "<|im_end|>")
QWEN_CHAT = (
    "{% for one in messages %}<|im_start|>{{ one.role }}\n{{ one.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def gemma_2(texts: Sequence[str], width: int) -> tuple[Any, Any]:
    """Tokenizer and encoder, with rows of this width."""
    transformers = import_module("transformers")
    plain = transformers.GemmaTokenizer(add_bos_token=True)
    tokenizer = plain.train_new_from_iterator(texts, GEMMA_VOCABULARY, show_progress=False)
    config = transformers.Gemma2Config(
        **_sizes(tokenizer, width), **HEADS, head_dim=HEAD_DIM, query_pre_attn_scalar=HEAD_DIM
    )
    return tokenizer, transformers.Gemma2Model(config).eval()


def qwen_2_5_vl(texts: Sequence[str], width: int) -> tuple[Any, Any]:
    """The same."""
    transformers = import_module("transformers")
    tokenizer = _qwen_tokenizer(texts)
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    text = {**_sizes(tokenizer, width), **HEADS, "rope_parameters": rope}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**text, "bos_token_id": 0, "eos_token_id": 0},
        vision_config={**vision, "out_hidden_size": width},
    )
    return tokenizer, transformers.Qwen2_5_VLForConditionalGeneration(config).eval()


def qwen_3(texts: Sequence[str], width: int) -> tuple[Any, Any]:
    """The same, with a template for chats."""
    transformers = import_module("transformers")
    tokenizer = _qwen_tokenizer(texts)
    tokenizer.chat_template = QWEN_CHAT
    config = transformers.Qwen3Config(**_sizes(tokenizer, width), **HEADS, head_dim=HEAD_DIM)
    return tokenizer, transformers.Qwen3Model(config).eval()


def _qwen_tokenizer(texts: Sequence[str]) -> Any:
    plain = import_module("transformers").Qwen2Tokenizer()
    return plain.train_new_from_iterator(
        texts, QWEN_VOCABULARY, new_special_tokens=list(QWEN_SPECIAL), show_progress=False
    )


def _sizes(tokenizer: Any, width: int) -> dict[str, int]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 3,
    }
