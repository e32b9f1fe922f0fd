"""Trains the relation tagger: ``python -m app train chains`` (a minute or two on 2 cores).

Questions are made of known wordings: a chain of relations, the wording of each nested into the next, the entity
masked. So it is known of every word which relation it belongs to; words of greetings and of frames ("Do you know
...?") belong to none. Nothing is learned from questions that anything is measured on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from knowledge.errors import InvalidInput
from knowledge.world import World
from memory.embedder import DEFAULT_ENCODER, Embedder
from memory.scope import FILLER
from memory.tagger import RelationTagger
from memory.vocabulary import Sense, Vocabulary

Progress = Callable[[str, int, int], None]
_LENGTHS = (1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4)
_UNITS = 256
_EPOCHS = 6
_BATCH = 4096


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a question, the numbers of the relations that it speaks of, and whether that is what is asked for.

    Without relations it is not counted (the entity); whether the words of a frame are asked for is not (None).
    """

    text: str
    relations: tuple[int, ...] = ()
    asked: bool | None = None


@dataclass
class Questions:
    """Draws questions with the relation of each word.

    Args:
        roundabout: further wordings by relation, then ``noun``, ``question`` and ``cloze``.
        composites: phrases for two relations at once, with ``path`` and ``noun``.
        frames: ``question`` frames around a noun phrase and ``around`` pairs, words that say no relation.
    """

    vocabulary: Vocabulary
    world: World
    roundabout: Mapping[str, Mapping[str, Sequence[str]]]
    composites: Mapping[str, Mapping[str, Any]]
    frames: Mapping[str, Any]
    rng: random.Random
    groups: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.groups = sorted({sense.group for sense in self.vocabulary.senses})
        self._number = {name: at for at, name in enumerate(self.groups)}
        self._senses = {sense.id: sense for sense in self.vocabulary.senses}
        self._pairs = {tuple(table["path"]): table for table in self.composites.values()}

    def __iter__(self) -> Iterator[list[Piece]]:
        while True:
            yield self.question(self.chain())

    def chain(self) -> list[Sense]:
        """Relations from the entity outwards: of a real chain of the world, or any."""
        length = self.rng.choice(_LENGTHS)
        if self.rng.random() < 0.6:
            if length == 1:
                return [self._senses[self.rng.choice(self.world.facts).relation]]
            facts = self.world.sample_chains(length, 1, self.rng)[0]
            return [self._senses[fact.relation] for fact in facts]
        return self.rng.choices(self.vocabulary.senses, k=length)

    def question(self, chain: Sequence[Sense]) -> list[Piece]:
        """A question that asks for the end of a chain, in pieces."""
        pieces: list[Piece] = [Piece(FILLER)]
        at = 0
        while at < len(chain) - 1:
            pair = self._pairs.get((chain[at].id, chain[at + 1].id)) if at + 2 < len(chain) else None
            if pair is not None and self.rng.random() < 0.5:
                both = (self._number[chain[at].group], self._number[chain[at + 1].group])
                pieces, at = _wrapped(self.rng.choice(pair["noun"]), both, False, pieces), at + 2
            else:
                pieces, at = _wrapped(self._wording(chain[at], "noun"), self._of(chain[at]), False, pieces), at + 1
        none = (len(self.groups),)
        draw = self.rng.random()
        if draw < 0.2:
            noun = _wrapped(self._wording(chain[-1], "noun"), self._of(chain[-1]), True, pieces)
            frame = self.rng.choice(self.frames["question"]).replace("{N}", "{}").replace("{n}", "{}")
            pieces = _wrapped(frame, none, None, noun)
        else:
            kind = "cloze" if draw < 0.35 else "question"
            pieces = _wrapped(self._wording(chain[-1], kind), self._of(chain[-1]), True, pieces)
        if self.rng.random() < 0.15:
            before, after = self.rng.choice(self.frames["around"])
            pieces = [Piece(before, none), *pieces, Piece(after, none)]
        return pieces

    def _of(self, sense: Sense) -> tuple[int, ...]:
        return (self._number[sense.group],)

    def _wording(self, sense: Sense, kind: str) -> str:
        more = self.roundabout.get(sense.id, {}).get(kind, ())
        items: Sequence[str] = getattr(sense, kind)
        return self.rng.choice(more if more and self.rng.random() < 0.5 else items)


def _wrapped(template: str, relations: tuple[int, ...], asked: bool | None, pieces: list[Piece]) -> list[Piece]:
    before, _, after = template.partition("{}")
    if before.lower().endswith("the ") and pieces[0].text.lower().startswith("the "):
        before = before[:-4]
    return [Piece(before, relations, asked), *pieces, Piece(after, relations, asked)]


def train(
    questions: Questions, embedder: Embedder, *, count: int = 20_000, seed: int = 0, progress: Progress | None = None
) -> RelationTagger:
    """A tagger from so many drawn questions.

    Raises:
        InvalidInput: the encoder gives no states of single tokens.
    """
    tell = progress or (lambda what, done, total: None)
    states, targets, asked = _tokens(questions, embedder, count, tell)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RelationTagger(embedder, questions.groups, *_fitted(states, targets, asked, tell))


def _fitted(states: torch.Tensor, targets: torch.Tensor, asked: torch.Tensor, tell: Progress) -> list[Any]:
    """The weights of a small network, as :class:`RelationTagger` takes them."""
    network = nn.Sequential(nn.Linear(states.shape[1], _UNITS), nn.ReLU(), nn.Linear(_UNITS, targets.shape[1] + 1))
    steps = _EPOCHS * -(-len(states) // _BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    done = 0
    for _ in range(_EPOCHS):
        for rows in torch.randperm(len(states)).split(_BATCH):
            x = nn.functional.dropout(states[rows].float(), 0.1)
            found = network(x)
            loss = nn.functional.cross_entropy(found[:, :-1], targets[rows].float(), label_smoothing=0.02)
            told = asked[rows] >= 0
            if told.any():
                loss = loss + nn.functional.binary_cross_entropy_with_logits(found[told, -1], asked[rows][told])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            tell("training the tagger", done, steps)
    return [parameter.detach().numpy().T for parameter in network.parameters()]


def _tokens(
    questions: Questions, embedder: Embedder, count: int, tell: Progress
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States of tokens (n, dim), in 16 bits; shares of relations (n, groups + 1); asked for (n,), -1 where untold."""
    stream, width = iter(questions), len(questions.groups) + 1
    drawn = sorted((next(stream) for _ in range(count)), key=lambda pieces: sum(len(piece.text) for piece in pieces))
    states, targets, asked = [], [], []
    for start in range(0, count, 128):
        part = drawn[start : start + 128]
        texts = ["".join(piece.text for piece in pieces) for pieces in part]
        found = embedder.tokens(texts)
        if found is None:
            raise InvalidInput(
                f"The encoder {embedder.id} gives no states of single tokens, which the tagger reads. Train it with "
                f"{DEFAULT_ENCODER}; with other encoders questions are read by the stems of their words."
            )
        for pieces, text, tokens in zip(part, texts, found, strict=True):
            owner = [piece for piece in pieces for _ in piece.text]
            for row, (first, last) in enumerate(tokens.offsets):
                piece = owner[first]
                if piece.relations and any(letter.isalnum() for letter in text[first:last]):
                    target = np.zeros(width, dtype=np.float16)
                    target[list(piece.relations)] = 1 / len(piece.relations)
                    states.append(tokens.states[row].astype(np.float16))
                    targets.append(target)
                    asked.append(-1.0 if piece.asked is None else float(piece.asked))
        tell("reading words in their context", start + len(part), count)
    return torch.from_numpy(np.stack(states)), torch.from_numpy(np.stack(targets)), torch.tensor(asked)
