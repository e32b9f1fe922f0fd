"""How much fits into a model's context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knowledge.errors import InvalidInput
from language_model.errors import PromptTooLong

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_SIZE_NAMES = ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len")
_ASSUMED = 2048  # families without a limit (ALiBi) name none


def context_size(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that prompt and answer may have together: the smallest limit that configuration and tokenizer name."""
    sizes = [int(size) for name in _SIZE_NAMES if isinstance(size := getattr(config, name, None), int) and size > 0]
    limit = int(getattr(tokenizer, "model_max_length", 0) or 0)
    if 0 < limit < 10**9:  # "no limit" is written as 1e30
        sizes.append(limit)
    return min(sizes, default=_ASSUMED)


def room_for(prompt_tokens: int, wanted: int, context: int) -> int:
    """How many new tokens may follow a prompt: as many as wanted, fewer where the context ends.

    Raises:
        PromptTooLong: not even one fits.
        InvalidInput: fewer than one is wanted.
    """
    if wanted < 1:
        raise InvalidInput(f"max_new_tokens is {wanted}; an answer needs at least 1.")
    if prompt_tokens >= context:
        raise PromptTooLong(prompt_tokens, context)
    return min(wanted, context - prompt_tokens)
