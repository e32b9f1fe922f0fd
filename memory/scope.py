"""The scope head: the probability that a stored fact answers a question.

Question and fact are compared with their common subject masked ("Where is it?", "It is located in"), because what
similarity confuses is the relation: "Who is the mayor of Paris?" is near every fact about Paris. The features of a
pair are a handful of cosines, raw and in a learned relation space, and how surely the subject is named; a small
network makes a probability of them. Trained by :mod:`memory.scope_training`, shipped as safetensors with its
threshold and the rates that were measured with it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory.embedder import Embedder, Vectors
from memory.lexicon import Lexicon
from memory.mentions import Span, locate

FILLER = "it"  # stands where the subject stood
FEATURES = ("cos_full", "cos_question", "cos_prompt", "space_question", "space_prompt", "named", "exact", "extended", "object_named")
_FOLDER = Path(__file__).parent / "data"

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold with what was measured at it."""

    threshold: float
    true_positive_rate: float | None = None
    false_positive_rate: float | None = None
    positives: int = 0
    negatives: int = 0
    by_kind: dict[str, dict[str, float]] = field(default_factory=dict)  # kind -> rate, n
    encoder: str = ""
    measured_on: str = "not measured"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Calibration:
        return cls(**{name: data[name] for name in cls.__slots__ if name in data})


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and a fact."""

    query: str
    subject: str
    prompt: str | None
    question: str | None
    statement: str
    object: str


class ScopeHead:
    """Scores (question, fact) pairs.

    Args:
        tensors: the network's weights; empty for the untrained rule (mean of the cosines and a fixed slope).
    """

    def __init__(self, embedder: Embedder, tensors: dict[str, Matrix], calibration: Calibration) -> None:
        self.embedder = embedder
        self.tensors = tensors
        self.calibration = calibration

    @classmethod
    def shipped(cls, embedder: Embedder) -> ScopeHead:
        """The trained head for this encoder, or the untrained rule where there is none."""
        path = _FOLDER / "scope.safetensors"
        if path.is_file():
            head = cls.load(path, embedder)
            if head.calibration.encoder == embedder.id:
                return head
        return cls(embedder, {}, Calibration(threshold=0.5, encoder=embedder.id))

    @classmethod
    def load(cls, path: Path, embedder: Embedder) -> ScopeHead:
        from safetensors import safe_open

        with safe_open(str(path), framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            meta = json.loads((file.metadata() or {})["calibration"])
        return cls(embedder, tensors, Calibration.from_json(meta))

    def save(self, path: Path) -> None:
        from safetensors.numpy import save_file

        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(self.tensors, str(path), {"calibration": json.dumps(self.calibration.to_json())})

    def score(self, pairs: Sequence[Pair], names: Sequence[Sequence[str]], lexicon: Lexicon) -> list[float]:
        """Probability of each pair; ``names`` are the other names of each fact's subject."""
        if not pairs:
            return []
        features = self.features(pairs, names)
        return [float(value) for value in self.probability(features)]

    def features(self, pairs: Sequence[Pair], names: Sequence[Sequence[str]]) -> Matrix:
        """Features of the pairs, shape (n, len(FEATURES))."""
        spans = [locate(pair.query, pair.subject, other) for pair, other in zip(pairs, names, strict=True)]
        queries = [masked(pair.query, span) for pair, span in zip(pairs, spans, strict=True)]
        prompts = [template(pair) for pair in pairs]
        questions = [asked(pair, other) for pair, other in zip(pairs, names, strict=True)]
        texts = dict.fromkeys([*queries, *prompts, *questions, *(p.query for p in pairs), *(p.statement for p in pairs)])
        table = dict(zip(texts, self.embedder.query(*texts), strict=True))

        def cosines(left: Sequence[str], right: Sequence[str], project: bool) -> Vectors:
            first, second = np.stack([table[t] for t in left]), np.stack([table[t] for t in right])
            if project:
                first, second = self._space(first), self._space(second)
            out: Vectors = (first * second).sum(1)
            return out

        learned = "space" in self.tensors
        columns = [
            cosines([p.query for p in pairs], [p.statement for p in pairs], False),
            cosines(queries, questions, False),
            cosines(queries, prompts, False),
            cosines(queries, questions, learned),
            cosines(queries, prompts, learned),
            np.array([span.quality if span else 0.0 for span in spans]),
            np.array([float(span is not None and span.quality == 1.0) for span in spans]),
            np.array([float(span is not None and span.extended) for span in spans]),
            np.array([float(_exactly(pair.query, pair.object)) for pair in pairs]),
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    def _space(self, vectors: Vectors) -> Vectors:
        projected = vectors @ self.tensors["space"]
        out: Vectors = projected / np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-9)
        return out

    def probability(self, features: Matrix) -> Matrix:
        """The network: one hidden layer of tanh units, or the fixed rule."""
        if "hidden" not in self.tensors:
            likeness = np.maximum(features[:, 1], features[:, 2])
            logit = 14 * (likeness - 0.68) - 8 * (1 - features[:, 5]) - 2 * features[:, 7]
        else:
            scaled = (features - self.tensors["mean"]) / self.tensors["scale"]
            logit = np.tanh(scaled @ self.tensors["hidden"] + self.tensors["hidden_bias"]) @ self.tensors["out"]
            logit = logit[:, 0] + self.tensors["out_bias"][0]
        out: Matrix = 1 / (1 + np.exp(-np.clip(logit, -30, 30)))
        return out


def masked(text: str, span: Span | None) -> str:
    return span.mask(text, FILLER) if span is not None else text


def template(pair: Pair) -> str:
    """The fact's wording without subject and object."""
    if pair.prompt and "{}" in pair.prompt:
        return pair.prompt.replace("{}", FILLER)
    body = pair.statement.rstrip(".").removesuffix(pair.object)
    return masked(body, locate(body, pair.subject))


def asked(pair: Pair, names: Sequence[str]) -> str:
    """The fact's question without the subject; the wording itself where there is no question."""
    if not pair.question:
        return template(pair)
    return masked(pair.question, locate(pair.question, pair.subject, names))


def _exactly(text: str, name: str) -> bool:
    span = locate(text, name)
    return span is not None and span.quality == 1.0
