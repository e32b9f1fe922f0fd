"""Whether facts hold: each in its own wording and every form, told by passes over prompt and answer together.

    rows, owner = own_wordings(lm, edits, plain)      # token rows, and the edit that each belongs to
    losses, wrong = ask(lm, rows, overlay)            # of each row: mean loss, whether a token would not be said

Nothing is generated: an answer is right where each of its tokens would be the next one said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from editors.passes import block, head, hidden_of, hooked
from editors.problems import build_problems
from editors.reads import Reads
from editors.rewrites import Row
from knowledge.edit import Edit
from language_model.batch import chunks as by_length
from language_model.model import LanguageModel
from language_model.overlay import Overlay

TOKENS = 2048  # in one pass, padding included
LOGITS = 2**25  # in one pass, as a number of elements: 128 MiB in float32, several times over with gradients


class _Enough(Exception):
    """Raised from a hook behind the last block."""


def own_wordings(lm: LanguageModel, edits: Sequence[Edit], plain: Overlay) -> tuple[list[Row], list[int]]:
    """Each edit's own wording in every form, and the number of the edit that a row belongs to.

    Where the model without the edits would end its turn after the new answer, that end belongs to it: "Osaka" is not to
    become "Osaka University".
    """
    problems = build_problems(lm, edits, ("",), essence=())
    rows = [row for problem in problems for row in problem.rows]
    owner = [number for number, problem in enumerate(problems) for _ in problem.rows]
    chats = [number for number, row in enumerate(rows) if row.form == "chat"]
    for chunk in chunks(lm, [rows[number].ids for number in chats]):
        part = [chats[index] for index in chunk]
        with torch.no_grad():
            states, mask = hidden_states(lm, [rows[number].ids for number in part], plain)
            last = states[torch.arange(len(part), device=mask.device), mask.sum(1) - 1]
            following = head(lm, last).argmax(-1).tolist()
        for number, token in zip(part, following, strict=True):
            row = rows[number]
            if token in lm.codec.turn_end_ids and row.ids[-1] != token and len(row.ids) < lm.context:
                rows[number] = replace(row, ids=(*row.ids, token))
    return rows, owner


def ask(lm: LanguageModel, rows: Sequence[Row], overlay: Overlay) -> tuple[Tensor, Tensor]:
    """Of each row the mean loss of its target's tokens, and whether a token of it would not be said."""
    losses, wrong = torch.zeros(len(rows)), torch.zeros(len(rows), dtype=torch.bool)
    for chunk in chunks(lm, [row.ids for row in rows]):
        with torch.no_grad():
            losses[chunk], wrong[chunk] = (part.cpu() for part in row_losses(lm, [rows[i] for i in chunk], overlay))
    return losses, wrong


def row_losses(lm: LanguageModel, rows: Sequence[Row], overlay: Overlay) -> tuple[Tensor, Tensor]:
    """:func:`ask` in one pass; gradients flow to the overlay."""
    states, _ = hidden_states(lm, [row.ids for row in rows], overlay, [row.start for row in rows])
    reads = Reads.of(rows, states.device)
    logits = head(lm, states[reads.row, reads.at])
    return reads.losses(logits), reads.missed(logits)


def hidden_states(
    lm: LanguageModel, rows: Sequence[Sequence[int]], overlay: Overlay, starts: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """The hidden states under the final norm (rows, time, hidden), and which of them are no padding.

    Args:
        starts: where the targets begin, which adapters ask for; behind the rows by default.
    """
    cuts = starts or [len(row) for row in rows]
    batch = lm.batch(
        [row[:cut] for row, cut in zip(rows, cuts, strict=True)],
        [list(row[cut:]) for row, cut in zip(rows, cuts, strict=True)],
    )
    taken: list[Tensor] = []

    def behind(_module: nn.Module, _inputs: Any, _kwargs: Any, output: Any) -> None:
        taken.append(hidden_of(output))
        raise _Enough

    with hooked((block(lm, lm.num_layers - 1), "after", behind)), suppress(_Enough):
        lm.forward(batch, overlays=[overlay] * len(rows))
    return taken[0], batch.attention_mask.bool()


def chunks(lm: LanguageModel, rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Numbers of rows of like length, as many as fit one pass."""
    return by_length([len(row) for row in rows], tokens=min(TOKENS, LOGITS // lm.vocab_size), rows=len(rows))
