"""Keys: what the edited layer is given at the subject's last token (2202.05262, section 3.1, step 1).

    taken = subject_activations(lm, rows, layers=[3])[3]
    taken.keys, taken.values            # one row each: (rows, in), (rows, out)
    mean_by_group(taken.keys, groups)   # one key per edit

The same texts are put before every edit's prompt (:mod:`editors.prefixes`). What rows begin with alike is run once, and
the rest of each row reads its keys and values: of a row of 18 tokens often four are left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from editors.passes import Taken, capture
from editors.rewrites import Row
from language_model.model import LanguageModel

_SHORTEST = 6  # tokens of a beginning that is worth a pass of its own
_FEWEST = 4  # rows that share it
_UNLIKE = (RuntimeError, ValueError, IndexError, TypeError, AttributeError)  # of a family that has no such cache


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
    parts = [row.ids[: row.subject + 1] for row in rows]
    found: dict[int, list[tuple[Tensor, ...]]] = {layer: [] for layer in layers}
    order: list[int] = []
    for start, group in _beginnings(parts):
        before = _Beginning(lm, parts[group[0]][:start], layers) if start else None
        if before is not None and not before.agrees(parts[group[0]]):
            before = None
        cut = start if before is not None else 0
        group.sort(key=lambda index: len(parts[index]))
        # the beginning's keys and values lie in memory for every row and layer, unlike what a plain pass computes
        limit = tokens if before is None else tokens // 4
        for chunk in _chunks(group, [len(parts[index]) for index in group], limit):
            rest = [parts[index][cut:] for index in chunk]
            taken = capture(lm, rest, layers) if before is None else before.capture(rest)
            last = torch.tensor([len(part) - 1 for part in rest], device=lm.device)
            here = torch.arange(len(rest), device=lm.device)
            for layer, one in taken.items():
                three = (one.keys, one.values, one.hidden)
                found[layer].append(tuple(part[here, last].double().cpu() for part in three))
            order += chunk
    back = torch.tensor(order).argsort()
    return {
        layer: Activations(*(torch.cat(column)[back] for column in zip(*pieces, strict=True)))
        for layer, pieces in found.items()
    }


class _Beginning:
    """Tokens that many rows begin with, run once up to the last of ``layers``."""

    def __init__(self, lm: LanguageModel, ids: Sequence[int], layers: Sequence[int]) -> None:
        self.lm, self.ids, self.layers = lm, ids, layers
        self._cache = DynamicCache(config=lm.model.config)
        try:
            capture(lm, [ids], layers, cache=self._cache)
            self._whole = self._cache.get_seq_length() == len(ids)
        except _UNLIKE:
            self._whole = False

    def capture(self, rest: Sequence[Sequence[int]]) -> dict[int, Taken]:
        """What :func:`editors.passes.capture` gives for whole rows, at the tokens ``rest`` behind the beginning."""
        cache = deepcopy(self._cache)
        cache.batch_repeat_interleave(len(rest))
        return capture(self.lm, rest, self.layers, cache=cache)

    def agrees(self, row: Sequence[int]) -> bool:
        """Whether a row's last token comes out as without the beginning's help."""
        if not self._whole:
            return False
        try:
            mine = self.capture([row[len(self.ids) :]])
        except _UNLIKE:
            return False
        theirs = capture(self.lm, [row], self.layers)
        for layer in self.layers:
            one, other = mine[layer].hidden[0, -1].float(), theirs[layer].hidden[0, -1].float()
            if (one - other).norm() > (1e-4 if mine[layer].hidden.dtype == torch.float32 else 0.05) * other.norm():
                return False
        return True


def _beginnings(parts: Sequence[Sequence[int]]) -> Iterator[tuple[int, list[int]]]:
    """Rows that begin alike, each with how many tokens they share (0 for those that share none); never whole rows."""
    alike: dict[tuple[int, ...], list[int]] = {}
    alone: list[int] = []
    for index, part in enumerate(parts):
        if len(part) > _SHORTEST:
            alike.setdefault(tuple(part[:_SHORTEST]), []).append(index)
        else:
            alone.append(index)
    for group in alike.values():
        if len(group) < _FEWEST:
            alone += group
            continue
        first, shared = parts[group[0]], min(len(parts[index]) for index in group) - 1
        for index in group:
            same = next((at for at in range(shared) if parts[index][at] != first[at]), shared)
            shared = min(shared, same)
        yield shared, group
    if alone:
        yield 0, alone


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
