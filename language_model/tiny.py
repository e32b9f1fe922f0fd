"""Tiny models with random weights, one of each family, made in memory in milliseconds: for tests and for trying things.

lm = tiny_model("gptj")            # two layers, 32 wide, byte-level vocabulary; the same seed gives the same weights
lm = tiny_model("gpt2", chat=True) # with a chat template
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from language_model.model import LanguageModel

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_TEXT = (
    "The Eiffel Tower is located in Paris. The capital of France is Paris. Rome is the capital of Italy. "
    "Where is Big Ben? London. Who wrote Hamlet? The language that people speak in Spain is Spanish. "
)

_NAMES: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}
_GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
_WIDE: dict[str, Any] = {**_NAMES, "intermediate_size": 48, "max_position_embeddings": 256}
_GROUPED: dict[str, Any] = {**_WIDE, "num_key_value_heads": 2}
_HEADS: dict[str, Any] = {**_GROUPED, "head_dim": 8}

CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "gpt2": _GPT,
    "gptj": {**_GPT, "rotary_dim": 4},
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "max_position_embeddings": 256,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 16,
    },
    "gpt_neox": _WIDE,
    "gpt_bigcode": _GPT,
    "codegen": {**_GPT, "n_ctx": 256, "rotary_dim": 4},
    "opt": {**_NAMES, "ffn_dim": 48, "max_position_embeddings": 256, "word_embed_proj_dim": 32},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {**_NAMES, "num_kv_heads": 4, "max_position_embeddings": 256},
    "llama": _GROUPED,
    "mistral": {**_GROUPED, "sliding_window": 64},
    "qwen2": _GROUPED,
    "qwen3": _HEADS,
    "gemma": _HEADS,
    "gemma2": {**_HEADS, "sliding_window": 64, "query_pre_attn_scalar": 8},
    "gemma3_text": {**_HEADS, "sliding_window": 64, "query_pre_attn_scalar": 8},
    "phi": _GROUPED,
    "phi3": {**_GROUPED, "sliding_window": None},
    "olmo": _GROUPED,
    "olmo2": _GROUPED,
    "smollm3": _GROUPED,
    "stablelm": _GROUPED,
    "starcoder2": _GROUPED,
    "granite": _GROUPED,
    "cohere": _GROUPED,
}


@lru_cache(maxsize=1)
def _trained_tokenizer() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT], trainer)
    return str(tokenizer.to_str())


def tiny_tokenizer(*, chat: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that can write any text."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained_tokenizer()), eos_token="<|end|>", pad_token="<|pad|>"
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_model(family: str = "gpt2", *, chat: bool = False, seed: int = 0, **config: Any) -> LanguageModel:
    """A tiny model of a family. Weights are wide enough that answers depend on the whole prompt.

    Args:
        family: a key of ``CONFIGS``.
        chat: give the tokenizer a chat template.
        seed: of the weights.
        config: fields of the configuration to set otherwise.
    """
    tokenizer = tiny_tokenizer(chat=chat)
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    settings = {**CONFIGS[family], "vocab_size": len(tokenizer), **special, "initializer_range": 0.2, **config}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings))
    return LanguageModel(model, tokenizer, f"tiny-{family}")
