"""Texts put before a prompt so that an edit does not depend on the prompt standing alone (2202.05262, section 3.1).

    prefixes = sample_prefixes(lm, count=20, lengths=(5, 10), seed=0)      # ("", "The first of", ...)

They are sampled from the model itself, so that they look like what it has seen; the bare prompt (an empty prefix)
comes first. Sampling uses a generator of its own: the same seed gives the same texts, and nobody's random state moves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from language_model.model import LanguageModel

_OPENERS = ("The", "In", "It", "Because", "I", "You", "A", "There", "He", "When")  # MEMIT's kind: plain first words
_UNWANTED = re.compile(r"[{}<>|\[\]]|\s+")


def sample_prefixes(
    lm: LanguageModel, *, count: int = 20, lengths: Sequence[int] = (5, 10), seed: int = 0, temperature: float = 1.0
) -> tuple[str, ...]:
    """``count`` prefixes and, first, the empty one.

    Args:
        lengths: tokens to sample, in equal shares.
        seed: of the sampling.
    """
    if count <= 0:
        return ("",)
    generator = torch.Generator().manual_seed(seed)
    texts: list[str] = []
    shares = [count // len(lengths) + (index < count % len(lengths)) for index in range(len(lengths))]
    with lm.overlaid(None), torch.no_grad():
        for length, share in zip(lengths, shares, strict=True):
            openers = [_OPENERS[index % len(_OPENERS)] for index in range(len(texts), len(texts) + share)]
            texts += _continue(lm, openers, length, generator, temperature)
    unique = dict.fromkeys(text for text in texts if text)
    return ("", *unique)


def _continue(
    lm: LanguageModel, openers: Sequence[str], length: int, generator: torch.Generator, temperature: float
) -> list[str]:
    """Samples ``length`` tokens after each opener; openers of different token counts are grouped, so nothing is
    padded.
    """
    encoded = [lm.codec.encode(opener) for opener in openers]
    banned = sorted({index for index in lm.tokenizer.all_special_ids if index is not None} | lm.end_ids)
    results: list[str] = [""] * len(openers)
    for size in sorted({len(ids) for ids in encoded}):
        chosen = [index for index, ids in enumerate(encoded) if len(ids) == size]
        ids = torch.tensor([encoded[index] for index in chosen], device=lm.device)
        for _ in range(length):
            logits = lm.run_model(input_ids=ids, use_cache=False).logits[:, -1].float().cpu() / temperature
            logits[:, banned] = float("-inf")
            drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            ids = torch.cat([ids, drawn.to(ids.device)], 1)
        for index, row in zip(chosen, ids.tolist(), strict=True):
            text = lm.tokenizer.decode(row, skip_special_tokens=True)
            results[index] = _UNWANTED.sub(" ", text.replace("�", "")).strip()
    return results
