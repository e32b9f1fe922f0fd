"""Rows of tokens as padded tensors, with the position ids that padding would otherwise shift."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Token rows padded to one length.

    Attributes:
        input_ids, attention_mask, position_ids: (rows, positions) int64.
        offsets: (rows,) index of each row's first real token: 0 with right padding.
        lengths: (rows,) number of real tokens.
        prompt_lengths: (rows,) how many of them are the prompt; the rest is a target that follows it.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    offsets: Tensor
    lengths: Tensor
    prompt_lengths: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.input_ids.shape[0], self.input_ids.shape[1]

    @property
    def last_prompt(self) -> Tensor:
        """(rows,) index of the last token of each prompt."""
        return self.offsets + self.prompt_lengths - 1

    @property
    def last(self) -> Tensor:
        """(rows,) index of the last real token of each row."""
        return self.offsets + self.lengths - 1


def pad(
    rows: Sequence[Sequence[int]],
    *,
    pad_id: int,
    device: torch.device | str,
    side: Literal["left", "right"] = "right",
    prompt_lengths: Sequence[int] | None = None,
) -> Batch:
    """Pads rows: on the left to continue them, on the right to look at them by index."""
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    offsets = width - lengths if side == "left" else torch.zeros_like(lengths)
    for number, row in enumerate(rows):
        first = int(offsets[number])
        ids[number, first : first + len(row)] = torch.tensor(list(row), dtype=torch.long)
        mask[number, first : first + len(row)] = 1
    prompts = lengths if prompt_lengths is None else torch.tensor(list(prompt_lengths))
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    tensors = (ids, mask, positions, offsets, lengths, prompts)
    return Batch(*(tensor.to(device) for tensor in tensors))


def chunks(lengths: Sequence[int], *, tokens: int, rows: int) -> Iterator[list[int]]:
    """Indices grouped so that rows of like length pad little, and no group exceeds the limits (one row always may)."""
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if group and (len(group) >= rows or (len(group) + 1) * lengths[index] > tokens):
            yield group
            group = []
        group.append(index)
    if group:
        yield group
