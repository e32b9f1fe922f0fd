"""What a masked question and a masked fact have to do with each other, as numbers.

    meaning = Meaning.of(bank, prompt, question, known)           # of facts, once
    features(bank, query, prompt, question, meaning)              # of (question, fact) pairs, (n, len(FEATURES))

Both are compared with a bank of known wordings of relations: do the two say the same relation, and does no other
relation explain the question better?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memory.products import product

FEATURES = (
    "cos_prompt", "cos_question", "cos_best", "log_agreement", "log_posterior", "own", "rival", "margin_fact",
    "margin_own", "fact_confidence", "query_confidence", "fact_in_bank", "relation_known", "log_line", "log_density",
    "log_both", "log_agreement_both", "margin_usual", "margin_density", "density_rival",
)  # fmt: skip
_UNUSUAL = 1.5  # nats against what is asked of other kinds of subjects: "Who directed it?" of a painting
_SHARPNESS = 18.0  # of the kernels of a density
_EMPTY = -30.0  # log density of a group without wordings

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Bank:
    """Known wordings, masked and embedded, by group (relations that mean the same are one group)."""

    vectors: Matrix  # (n, dim)
    group: NDArray[np.int64]  # (n,)
    classifier: Matrix  # (dim, groups): a linear softmax from vector to group
    compatible: NDArray[np.bool_]  # (groups, groups): may one subject have both relations?
    near: NDArray[np.bool_]  # (groups, groups): too close to be told apart, itself included
    kin: NDArray[np.bool_]  # (groups, groups): of the very same kind of subject, itself included

    def __post_init__(self) -> None:
        order = np.argsort(self.group, kind="stable")  # wordings of a group side by side, for :meth:`compare`
        object.__setattr__(self, "vectors", np.ascontiguousarray(self.vectors[order]))
        object.__setattr__(self, "group", self.group[order])

    @property
    def present(self) -> NDArray[np.bool_]:
        """Groups that have wordings in this bank."""
        here = np.zeros(len(self.near), dtype=bool)
        here[np.unique(self.group)] = True
        return here

    def logits(self, vectors: Matrix) -> Matrix:
        """What the linear classifier says of each group, shape (n, groups)."""
        return product(vectors, self.classifier)

    def compare(self, vectors: Matrix) -> tuple[Matrix, Matrix]:
        """Each vector against the wordings of each group, two matrices of shape (n, groups).

        Returns:
            The cosine to the nearest wording (-1 for a group without any), and the logarithm of the density of the
            group's wordings around the vector: a sum of kernels exp(18 (cosine - 1)) over the root of their number.
        """
        here, starts = np.unique(self.group, return_index=True)
        root = np.sqrt(np.diff([*starts, len(self.group)]))
        distinct, place = _distinct(vectors)
        nearest = np.full((len(distinct), len(self.near)), -1, dtype=np.float32)
        density = np.full((len(distinct), len(self.near)), _EMPTY, dtype=np.float32)
        for at in range(0, len(distinct), 1024):  # a block at a time: the bank has thousands of wordings
            cosines = product(distinct[at : at + 1024], self.vectors.T)
            nearest[at : at + 1024, here] = np.maximum.reduceat(cosines, starts, axis=1)
            kernels = np.exp(_SHARPNESS * (cosines - 1))
            density[at : at + 1024, here] = np.log(np.add.reduceat(kernels, starts, axis=1) / root + 1e-9)
        return nearest[place], density[place]


def _distinct(vectors: Matrix) -> tuple[Matrix, NDArray[np.int64]]:
    """Rows without repetition, and where each row went; by their bytes, ten times quicker than sorting them."""
    at: dict[bytes, int] = {}
    place = np.array([at.setdefault(row.tobytes(), len(at)) for row in vectors], dtype=np.int64)
    first = np.unique(place, return_index=True)[1]
    return np.ascontiguousarray(vectors[first]), place


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the bank makes of facts, whatever is asked: found once a fact, used for every question."""

    guess: Matrix  # (n, groups): probability of each group
    told: Matrix  # (n,): 1 where the relation is a known one, and so the guess no guess
    in_bank: Matrix  # (n,): cosine to the nearest wording of the bank

    @classmethod
    def of(cls, bank: Bank, prompt: Matrix, question: Matrix, known: NDArray[np.int64]) -> Meaning:
        """
        Args:
            prompt, question: the fact's masked wording and own question, (n, dim) each.
            known: the fact's group where its relation is a known one, else -1.
        """
        fact = prompt + question
        fact = fact / np.linalg.norm(fact, axis=1, keepdims=True)
        guess = softmax(bank.logits(fact), np.broadcast_to(bank.present, (len(fact), len(bank.near))))
        told = (known >= 0) & bank.present[np.maximum(known, 0)]
        guess = np.where(told[:, None], np.eye(len(bank.near), dtype=np.float32)[np.maximum(known, 0)], guess)
        return cls(guess, told.astype(np.float32), bank.compare(fact)[0].max(1))

    @classmethod
    def joined(cls, parts: Sequence[Meaning]) -> Meaning:
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))

    def row(self, row: int) -> Meaning:
        """Of one fact."""
        return Meaning(*(getattr(self, name)[row : row + 1] for name in self.__slots__))


def features(bank: Bank, query: Matrix, prompt: Matrix, question: Matrix, meaning: Meaning) -> Matrix:
    """Features of (question, fact) pairs of masked vectors.

    Args:
        query, prompt, question: the masked question, and the fact's masked wording and own question, (n, dim) each.
        meaning: of the same facts, row by row.

    Returns:
        shape (n, len(FEATURES)).
    """
    rows = np.arange(len(query))
    guess = meaning.guess
    group, sure = guess.argmax(1), guess.max(1)
    unsure = (sure < 0.5)[:, None]
    allowed = (bank.compatible[group] | unsure) & bank.present  # what else the question might ask of such a subject
    usual = np.where(bank.kin[group] | unsure, 0, -_UNUSUAL).astype(np.float32)
    near = bank.near[group]
    other = allowed & ~near

    logits = bank.logits(query)
    nearest, density = bank.compare(query)
    plain = softmax(logits, allowed)
    by_line, by_density = softmax(logits + usual, allowed), softmax(density + usual, allowed)
    both = by_line * by_density
    both /= both.sum(1, keepdims=True) + 1e-12
    own = np.where(allowed[rows, group], nearest[rows, group], -1)
    rival = np.where(other, nearest, -1).max(1)
    usual_rival = np.where(other & bank.kin[group], nearest, -1).max(1)
    dense_rival = np.where(other, density + usual, _EMPTY).max(1)
    cos_prompt, cos_question = (query * prompt).sum(1), (query * question).sum(1)
    best = np.maximum(cos_prompt, cos_question)

    def log(share: Matrix) -> Matrix:
        out: Matrix = np.log(share + 1e-4)
        return out

    columns = [
        cos_prompt,
        cos_question,
        best,
        log((plain * guess).sum(1)),
        log(plain[rows, group]),
        own,
        rival,
        best - rival,
        own - rival,
        sure,
        plain.max(1),
        meaning.in_bank,
        meaning.told,
        log((by_line * near).sum(1)),
        log((by_density * near).sum(1)),
        log((both * near).sum(1)),
        log((both * guess).sum(1)),
        own - usual_rival,
        density[rows, group] - dense_rival,
        dense_rival,
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def softmax(logits: Matrix, allowed: NDArray[np.bool_]) -> Matrix:
    """Probabilities among the allowed groups, shape (n, groups)."""
    out: Matrix = np.where(allowed, logits, -1e9)
    out = np.exp(out - out.max(1, keepdims=True))
    return out / out.sum(1, keepdims=True)
