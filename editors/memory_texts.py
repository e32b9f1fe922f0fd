"""Ordinary text as a memory of what must stay: activations that added neurons have to leave alone."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from editors.passes import Suffix
from editors.statistics import MomentStore
from language_model.model import LanguageModel


def sample_rows(lm: LanguageModel, moments: MomentStore, tokens: int, seed: int) -> list[list[int]]:
    """Token rows of the store's corpus, about so many tokens, drawn with a seed."""
    rows = list(moments.rows(lm))
    random.Random(seed).shuffle(rows)
    chosen: list[list[int]] = []
    count = 0
    for row in rows:
        if count >= tokens:
            break
        chosen.append(row)
        count += len(row)
    return chosen


def activation_memory(lm: LanguageModel, moments: MomentStore, layer: int, tokens: int, seed: int) -> Tensor:
    """(about ``tokens``, in) what the feed-forward of ``layer`` reads in ordinary text, with the active overlay."""
    rows = sorted(sample_rows(lm, moments, tokens, seed), key=len)
    found = []
    for start in range(0, len(rows), 64):
        suffix = Suffix(lm, rows[start : start + 64], layer)
        found.append(suffix.read[suffix.mask].float())
    return torch.cat(found)[:tokens]
