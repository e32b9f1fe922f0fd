"""Rows of a batch of edits laid out for training, and the loss of their targets.

    table = RowTable(lm, problems, layer)
    hidden = table.suffix.with_change(change, every_row)
    loss = table.target_losses(hidden, every_row)          # one a row

Everything below ``layer`` is computed once, when the table is made.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from editors.passes import Suffix
from editors.problems import Problem
from editors.reads import Reads
from editors.rewrites import Row
from language_model.model import LanguageModel


class RowTable:
    """Rewrite rows of all edits, flat.

    Attributes:
        rows: the rows, edit after edit.
        owner: (rows,) number of the edit that each belongs to.
        weight: (rows,) share of the row in its edit's loss; sums to 1 for each edit.
        last_prompt: (rows,) position of the prompt's last token.
        reads: where their targets are decided.
        suffix: the model from ``layer`` upwards.
    """

    def __init__(self, lm: LanguageModel, problems: Sequence[Problem], layer: int) -> None:
        self.rows: list[Row] = [row for problem in problems for row in problem.rows]
        device = lm.device
        owners = [number for number, problem in enumerate(problems) for _ in problem.rows]
        self.owner = torch.tensor(owners, device=device)
        self.weight = torch.tensor([weight for problem in problems for weight in problem.weights], device=device)
        self.last_prompt = torch.tensor([row.start - 1 for row in self.rows], device=device)
        self.every = torch.arange(len(self.rows), device=device)
        self.reads = Reads.of(self.rows, device)
        self.suffix = Suffix(lm, [row.ids for row in self.rows], layer)

    def from_answer(self) -> Tensor:
        """(rows, time) bool: the prompt's last token and everything after it, where an answer is decided."""
        times = torch.arange(self.suffix.mask.shape[1], device=self.every.device)
        return times[None] >= self.last_prompt[:, None]

    def target_losses(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """Mean negative log-probability of the target tokens, one a row.

        Args:
            hidden: (chosen, time, hidden), from the suffix.
            rows: (chosen,) numbers of the rows.
        """
        reads = self.reads.among(rows)
        return reads.losses(self.suffix.head(hidden[reads.row, reads.at]))
