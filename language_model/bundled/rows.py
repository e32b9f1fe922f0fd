"""Examples as rows of tokens, with what the training counts at each.

maker = RowMaker(tokenizer, world, device)
rows = maker.rows(examples)              # too long ones are left out
maker.batch(rows)                        # padded to one length
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from knowledge.world import World
from language_model.bundled import tokenizer
from language_model.bundled.draw import Example, wordings

UNMARKED = -1


@dataclass(frozen=True, slots=True)
class Row:
    """One example as tokens, all lists of one length."""

    ids: list[int]
    counts: list[bool]  # which tokens the loss counts
    applies: list[int]  # at tokens of a stated fact: 1 where it answers the question before it, 0 where not; else -1
    relates: list[int]  # at the end of what is asked and at tokens of a stated fact: its relation's number; else -1


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows padded to one length, (rows, tokens) each."""

    ids: Tensor
    counts: Tensor
    applies: Tensor
    relates: Tensor


class RowMaker:
    """Makes rows and batches.

    Attributes:
        numbers: of all relations that a question can ask for, those of the world and those of daily life.
    """

    def __init__(self, codec: PreTrainedTokenizerFast, world: World, device: torch.device) -> None:
        self.codec, self.device = codec, device
        names = [*(relation.id for relation in world.relations.values()), *wordings("everyday")]
        self.numbers = {name: number for number, name in enumerate(names)}

    def rows(self, examples: Sequence[Example]) -> list[Row]:
        """A row an example; too long ones are left out."""
        pieces = [tokenizer.pieces(example) for example in examples]
        encoded = iter(
            self.codec.backend_tokenizer.encode_batch(
                [text for row in pieces for text, _ in row], add_special_tokens=False
            )
        )
        rows = []
        for example, row in zip(examples, pieces, strict=True):
            ids: list[int] = []
            counts: list[bool] = []
            applies: list[int] = []
            relates: list[int] = []
            for text, wanted in row:
                tokens = next(encoded)
                first = not ids
                ids += tokens.ids
                counts += [wanted] * len(tokens.ids)
                marks = _marked(text, tokens.offsets, example if first else Example(""), self.numbers)
                applies += marks[0]
                relates += marks[1]
            if len(ids) <= tokenizer.CONTEXT:
                rows.append(Row(ids, counts, applies, relates))
        return rows

    def batch(self, group: Sequence[Row]) -> Batch:
        """Rows as tensors, their length a multiple of eight."""
        longest = math.ceil(max(len(row.ids) for row in group) / 8) * 8
        ids = torch.full((len(group), longest), int(self.codec.pad_token_id), dtype=torch.long)
        counts = torch.zeros((len(group), longest), dtype=torch.bool)
        applies = torch.full((len(group), longest), UNMARKED, dtype=torch.int8)
        relates = torch.full((len(group), longest), UNMARKED, dtype=torch.int16)
        for index, row in enumerate(group):
            length = len(row.ids)
            ids[index, :length] = torch.tensor(row.ids)
            counts[index, :length] = torch.tensor(row.counts)
            applies[index, :length] = torch.tensor(row.applies, dtype=torch.int8)
            relates[index, :length] = torch.tensor(row.relates, dtype=torch.int16)
        return Batch(*(tensor.to(self.device) for tensor in (ids, counts, applies, relates)))


def _marked(
    text: str, offsets: Sequence[tuple[int, int]], example: Example, numbers: dict[str, int]
) -> tuple[list[int], list[int]]:
    """At each token (its characters in ``text``) what :class:`Row` says of it: applies, relates."""
    applies, relates = [UNMARKED] * len(offsets), [UNMARKED] * len(offsets)
    at = len(text)
    for fact in reversed(example.facts):  # from the end: demonstrations may hold the same line
        at = text.rfind(f"New fact: {fact.text}\n", 0, at)
        if at < 0:
            break
        begin = at + len("New fact: ")
        for index, (_, end) in enumerate(offsets):
            if begin + fact.tells_from < end <= begin + len(fact.text) + 1:
                applies[index], relates[index] = int(fact.applies), numbers[fact.relation]
    for asked, relation in example.asked:
        at = text.find(asked)
        while asked and at >= 0:
            last = at + len(asked)
            if text[last : last + 1] in ("", "\n", "<"):  # the whole of it, not the beginning of a fact about it
                place = next(index for index, (_, end) in enumerate(offsets) if end >= last)
                relates[place] = numbers[relation] if relates[place] == UNMARKED else relates[place]
            at = text.find(asked, last)
    return applies, relates
