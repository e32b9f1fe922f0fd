"""Where the tokens of targets are decided, and the loss there.

    reads = Reads.of(rows, device)
    losses = reads.losses(head(lm, states[reads.row, reads.at]))      # one a row

Only there are logits made: a row has many more tokens than its target, and a vocabulary tens of thousands of entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from editors.rewrites import Row


@dataclass(frozen=True)
class Reads:
    """One read for every token of a target, row after row.

    Attributes:
        row: (reads,) number of the row.
        at: (reads,) position whose logits decide the token.
        wanted: (reads,) the token.
        rows: number of rows; each has a read at least.
    """

    row: Tensor
    at: Tensor
    wanted: Tensor
    rows: int

    @classmethod
    def of(cls, rows: Sequence[Row], device: torch.device) -> Reads:
        flat = [(n, at, token) for n, row in enumerate(rows) for at, token in zip(row.reads, row.target, strict=True)]
        row, at, wanted = (torch.tensor(column, device=device) for column in zip(*flat, strict=True))
        return cls(row, at, wanted, len(rows))

    def among(self, chosen: Tensor) -> Reads:
        """Those of the rows ``chosen``, which are numbered anew in that order."""
        place = torch.full((self.rows,), -1, device=chosen.device)
        place[chosen] = torch.arange(len(chosen), device=chosen.device)
        kept = (place[self.row] >= 0).nonzero()[:, 0]
        return Reads(place[self.row[kept]], self.at[kept], self.wanted[kept], len(chosen))

    def losses(self, logits: Tensor) -> Tensor:
        """(rows,) mean negative log-probability of each row's target, from logits (reads, vocabulary)."""
        surprise = cross_entropy(logits, self.wanted, reduction="none")
        return self._sums(surprise) / self._sums(torch.ones_like(surprise))

    def missed(self, logits: Tensor) -> Tensor:
        """(rows,) bool: a token of the target would not be the next one said."""
        return self._sums((logits.argmax(-1) != self.wanted).float()) > 0

    def _sums(self, each: Tensor) -> Tensor:
        return torch.zeros(self.rows, device=each.device).index_add(0, self.row, each)


def target_losses(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """(rows,) the same loss from the logits of all tokens, (rows, time, vocabulary)."""
    reads = Reads.of(rows, logits.device)
    return reads.losses(logits[reads.row, reads.at].float())
