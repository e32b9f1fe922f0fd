"""Adam over rows that do not touch each other: each row is a problem of its own, and may stop before the others."""

from __future__ import annotations

import torch
from torch import Tensor


class RowAdam:
    """Adam (beta 0.9 and 0.999) for a matrix whose rows are optimised side by side.

    >>> adam = RowAdam(x, lr=0.5)
    >>> x[active] -= adam.step(active, gradient)        # gradient: (active, width)

    A row's steps are those that it would take alone: rows that have stopped are left out, and nothing is shared.
    """

    def __init__(self, rows: Tensor, lr: float) -> None:
        self.lr = lr
        self.mean, self.square = torch.zeros_like(rows), torch.zeros_like(rows)
        self.count = torch.zeros(rows.shape[0], dtype=rows.dtype, device=rows.device)

    def step(self, active: Tensor, gradient: Tensor) -> Tensor:
        """What to subtract from the rows ``active`` (n,), given their gradient (n, width)."""
        self.mean[active] = 0.9 * self.mean[active] + 0.1 * gradient
        self.square[active] = 0.999 * self.square[active] + 0.001 * gradient.square()
        self.count[active] += 1
        taken = self.count[active, None]
        direction = self.mean[active] / (1 - 0.9**taken)
        return self.lr * direction / ((self.square[active] / (1 - 0.999**taken)).sqrt() + 1e-8)
