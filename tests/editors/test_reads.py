"""The loss of targets against its definition in float64."""

from __future__ import annotations

import torch

from editors.reads import Reads
from editors.rewrites import Row, forms_of, tokenise
from language_model.model import LanguageModel
from tests.editors.helpers import capital_edit


def rows_of(lm: LanguageModel) -> list[Row]:
    edits = [capital_edit("France", "Oslo"), capital_edit("Peru", "Cairo in Egypt"), capital_edit("Italy", "Rome")]
    return [tokenise(lm, form, form.target_ids(lm, edit.target_new)) for edit in edits for form in forms_of(lm, edit)]


def by_definition(row: Row, logits: torch.Tensor) -> tuple[float, bool]:
    """Mean loss of a row's target from logits (time, vocabulary), and whether a token of it is not the likeliest."""
    shares = [logits[row.start - 1 + step].double().exp() for step in range(len(row.target))]
    lost = [-(share[token] / share.sum()).log() for share, token in zip(shares, row.target, strict=True)]
    missed = any(int(share.argmax()) != token for share, token in zip(shares, row.target, strict=True))
    return float(sum(lost)) / len(lost), missed


def test_losses_and_misses_are_those_of_the_definition(tiny_chat_lm: LanguageModel) -> None:
    rows = rows_of(tiny_chat_lm)
    logits = torch.randn(len(rows), 40, tiny_chat_lm.vocab_size, generator=torch.Generator().manual_seed(0))
    logits[1, rows[1].start - 1 + torch.arange(len(rows[1].target)), torch.tensor(rows[1].target)] = 9.0
    reads = Reads.of(rows, logits.device)
    asked = logits[reads.row, reads.at]
    losses, missed = zip(*(by_definition(row, table) for row, table in zip(rows, logits, strict=True)), strict=True)
    assert torch.allclose(reads.losses(asked), torch.tensor(losses), atol=1e-5)
    assert reads.missed(asked).tolist() == list(missed)
    assert not missed[1]


def test_chosen_rows_are_numbered_in_their_order(tiny_chat_lm: LanguageModel) -> None:
    rows = rows_of(tiny_chat_lm)
    logits = torch.randn(len(rows), 40, tiny_chat_lm.vocab_size, generator=torch.Generator().manual_seed(1))
    reads, chosen = Reads.of(rows, logits.device), torch.tensor([4, 0, 3])
    some = reads.among(chosen)
    losses = some.losses(logits[chosen][some.row, some.at])
    assert torch.equal(losses, reads.losses(logits[reads.row, reads.at])[chosen])
