"""Keys: what the edited layer is given at the subject's last token (2202.05262, section 3.1, step 1).

taken = subject_activations(lm, rows, layers=[3])[3]
taken.keys, taken.values            # one row each: (rows, in), (rows, out)
mean_by_group(taken.keys, groups)   # one key per edit
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editors.passes import capture
from editors.rewrites import Row
from language_model.model import LanguageModel


@dataclass(frozen=True)
class Activations:
    """A layer's down-projection at one token of each row.

    Attributes:
        keys: (rows, in), float64.
        values: (rows, out), float64, as the model with its active edits computes them.
        hidden: (rows, hidden), float64, the output of the layer's whole block.
    """

    keys: Tensor
    values: Tensor
    hidden: Tensor


def subject_activations(
    lm: LanguageModel, rows: Sequence[Row], layers: Sequence[int], *, tokens: int = 8192
) -> dict[int, Activations]:
    """Keys and values at each row's subject, for several layers in one pass.

    Only the part up to the subject is run: attention is causal, so what follows cannot change it.
    """
    order = sorted(range(len(rows)), key=lambda index: rows[index].subject)
    found: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {layer: [] for layer in layers}
    for chunk in _chunks(order, [rows[index].subject + 1 for index in order], tokens):
        parts = [rows[index].ids[: rows[index].subject + 1] for index in chunk]
        last = torch.tensor([len(part) - 1 for part in parts], device=lm.device)
        here = torch.arange(len(parts), device=lm.device)
        for layer, taken in capture(lm, parts, layers).items():
            three = (taken.keys, taken.values, taken.hidden)
            found[layer].append(tuple(part[here, last].double().cpu() for part in three))  # type: ignore[arg-type]
    back = torch.tensor(order).argsort()
    return {
        layer: Activations(*(torch.cat(column)[back] for column in zip(*pieces, strict=True)))
        for layer, pieces in found.items()
    }


def mean_by_group(rows: Tensor, groups: Sequence[int], weights: Tensor | None = None) -> Tensor:
    """Weighted means of rows (n, d) with the same group number: (groups, d). Groups are numbered from 0 without
    gaps.
    """
    index = torch.tensor(groups)
    weight = torch.ones(len(groups), dtype=rows.dtype) if weights is None else weights.to(rows.dtype)
    total = torch.zeros(int(index.max()) + 1, rows.shape[1], dtype=rows.dtype)
    total.index_add_(0, index, rows * weight[:, None])
    count = torch.zeros(total.shape[0], dtype=rows.dtype).index_add_(0, index, weight)
    return total / count[:, None]


def _chunks(order: Sequence[int], lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Consecutive runs whose padded size stays within ``tokens`` (lengths rise)."""
    chunks: list[list[int]] = []
    for item, length in zip(order, lengths, strict=True):
        if not chunks or (len(chunks[-1]) + 1) * length > tokens:
            chunks.append([])
        chunks[-1].append(item)
    return chunks
