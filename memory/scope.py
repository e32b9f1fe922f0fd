"""The scope head: the probability that a stored fact answers a question.

Similarity tells what a text is about. What it confuses is the relation: "Who is the mayor of Paris?" is near every
fact about Paris. So question and fact are compared with their common subject masked ("Where is it?", "It is located
in"), against a bank of known wordings of some 140 relations: do the two say the same relation, and does no *other*
relation explain the question better? A small network makes a probability of a dozen such features; how surely the
subject is named (:mod:`memory.mentions`) is weighed in afterwards.

Trained by :mod:`memory.scope_training` on wordings only, half the time on relations that were kept out of the bank,
so that it also judges relations nobody has listed. Shipped as safetensors; threshold and rates are in
``calibration.json`` (:mod:`memory.calibration`).
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory.calibration import Calibration, load_calibration
from memory.embedder import Embedder, Vectors
from memory.errors import IndexFileError
from memory.mentions import Span, locate
from memory.products import product

FILLER = "it"  # stands where the subject stood
FEATURES = (
    "cos_prompt", "cos_question", "cos_best", "log_agreement", "log_posterior", "own", "rival", "margin_fact",
    "margin_own", "fact_confidence", "query_confidence", "fact_in_bank", "relation_known", "log_line", "log_density",
    "log_both", "log_agreement_both", "margin_usual", "margin_density", "density_rival",
)  # fmt: skip
SHIPPED = Path(__file__).parent / "data" / "scope.safetensors"
_UNUSUAL = 1.5  # nats against what is asked of other kinds of subjects: "Who directed it?" of a painting
_SHARPNESS = 18.0  # of the kernels of a density
_EMPTY = -30.0  # log density of a group without wordings
_NO_MENTION = -9.0  # added to the logit when the subject is not named
_EXTENDED = -1.5  # when a neighbouring capital suggests a longer, different name
_SLIP = -8.0  # times the missing quality of a mention

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and a fact; ``names`` are other names of the fact's subject."""

    query: str
    subject: str
    object: str
    statement: str
    prompt: str | None = None
    question: str | None = None
    relation: str | None = None  # id of a relation of the world, where known
    names: tuple[str, ...] = ()


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
class Network:
    """One hidden layer of tanh units on standardised features; gives a logit."""

    mean: Matrix
    scale: Matrix
    hidden: Matrix  # (features, units)
    hidden_bias: Matrix
    out: Matrix  # (units,)
    out_bias: Matrix  # (1,)

    def __call__(self, features: Matrix) -> Matrix:
        units = np.tanh(product((features - self.mean) / self.scale, self.hidden) + self.hidden_bias)
        logits: Matrix = units @ self.out + self.out_bias
        return logits


def features(bank: Bank, query: Matrix, prompt: Matrix, question: Matrix, known: NDArray[np.int64]) -> Matrix:
    """Features of (question, fact) pairs of masked vectors.

    Args:
        query, prompt, question: the masked question, and the fact's masked wording and own question, (n, dim) each.
        known: the fact's group where its relation is a known one, else -1.

    Returns:
        shape (n, len(FEATURES)).
    """
    rows = np.arange(len(query))
    fact = prompt + question
    fact = fact / np.linalg.norm(fact, axis=1, keepdims=True)
    anything = np.ones((len(query), len(bank.near)), dtype=bool)
    guess = softmax(bank.logits(fact), anything & bank.present)
    told = (known >= 0) & bank.present[np.maximum(known, 0)]
    guess = np.where(told[:, None], np.eye(len(bank.near), dtype=np.float32)[np.maximum(known, 0)], guess)
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
        bank.compare(fact)[0].max(1),
        told.astype(np.float32),
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


class ScopeHead:
    """Scores (question, fact) pairs.

    Args:
        groups: relation id to group number, for relations of the world.
    """

    def __init__(
        self, embedder: Embedder, bank: Bank, network: Network, groups: dict[str, int], calibration: Calibration
    ) -> None:
        self.embedder = embedder
        self.bank = bank
        self.network = network
        self.groups = groups
        self.calibration = calibration
        self._cache: OrderedDict[tuple[str, str, str, int], float] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def shipped(cls, embedder: Embedder) -> ScopeHead:
        """The trained head for this encoder.

        Raises:
            IndexFileError: there is none for this encoder.
        """
        return cls.load(SHIPPED, embedder)

    @classmethod
    def load(cls, path: Path, embedder: Embedder) -> ScopeHead:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
                meta = json.loads((file.metadata() or {})["scope"])
        except (OSError, SafetensorError, KeyError) as error:
            raise IndexFileError(
                f"The scope head {path} cannot be read ({error}). Run 'python -m app train gate' to make it."
            ) from error
        if meta["encoder"] != embedder.id:
            raise IndexFileError(
                f"The scope head was trained for the encoder {meta['encoder']}, not for {embedder.id}. Use that "
                "encoder, or run 'python -m app train gate' for this one."
            )
        real = {name: value.astype(np.float32) for name, value in tensors.items() if value.dtype == np.float16}
        bank = Bank(
            real["bank"],
            tensors["group"].astype(np.int64),
            real["classifier"],
            tensors["compatible"].astype(bool),
            tensors["near"].astype(bool),
            tensors["kin"].astype(bool),
        )
        network = Network(*(tensors[name] for name in Network.__slots__))
        return cls(embedder, bank, network, meta["groups"], load_calibration(embedder.id, path.parent))

    def save(self, path: Path) -> None:
        from safetensors.numpy import save_file

        tensors: dict[str, NDArray[Any]] = {
            "bank": self.bank.vectors.astype(np.float16),
            "group": self.bank.group.astype(np.int32),
            "classifier": self.bank.classifier.astype(np.float16),
            "compatible": self.bank.compatible.astype(np.uint8),
            "near": self.bank.near.astype(np.uint8),
            "kin": self.bank.kin.astype(np.uint8),
            **{name: np.ascontiguousarray(getattr(self.network, name), np.float32) for name in Network.__slots__},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, str(path), {"scope": json.dumps({"encoder": self.embedder.id, "groups": self.groups})})
        path.chmod(0o644)  # the library writes 0600, which another user of the installed program could not read

    # ------------------------------------------------------------------------------------------------ scoring

    def score(self, pairs: Sequence[Pair], known: Collection[str] = ()) -> list[float]:
        """Probability of each pair; ``known`` are keys of entities, so that no other name passes for the subject."""
        spans = [locate(pair.query, pair.subject, pair.names, known) for pair in pairs]
        logits = self._relation_logits(
            [
                (masked(pair.query, span), template(pair), asked(pair), self.groups.get(pair.relation or "", -1))
                for pair, span in zip(pairs, spans, strict=True)
            ]
        )
        total = np.array([logit + mention_logit(span) for logit, span in zip(logits, spans, strict=True)])
        return [float(p) for p in 1 / (1 + np.exp(-np.clip(total, -30, 30)))]

    def match(self, asked_for: Sequence[str], facts: Sequence[Pair]) -> list[float]:
        """Probability that each masked wording ("Who wrote it?") asks for what the fact beside it says."""
        keys = [
            (text, template(fact), asked(fact), self.groups.get(fact.relation or "", -1))
            for text, fact in zip(asked_for, facts, strict=True)
        ]
        logits = np.array(self._relation_logits(keys))
        return [float(p) for p in 1 / (1 + np.exp(-np.clip(logits, -30, 30)))]

    def _relation_logits(self, keys: Sequence[tuple[str, str, str, int]]) -> list[float]:
        with self._lock:
            missing = list(dict.fromkeys(key for key in keys if key not in self._cache))
        fresh: dict[tuple[str, str, str, int], float] = {}
        if missing:
            texts = list(dict.fromkeys(text for *three, _ in missing for text in three))
            at = {text: row for row, text in enumerate(texts)}
            vectors: Vectors = self.embedder.query(*texts)
            query, prompt, question = (
                vectors[[at[text] for text in column]]
                for column in ([key[0] for key in missing], [key[1] for key in missing], [key[2] for key in missing])
            )
            known = np.array([key[3] for key in missing], dtype=np.int64)
            logits = self.network(features(self.bank, query, prompt, question, known))
            fresh = {key: float(logit) for key, logit in zip(missing, logits, strict=True)}
        with self._lock:
            self._cache.update(fresh)
            out = [self._cache[key] if key in self._cache else fresh[key] for key in keys]
            while len(self._cache) > 20_000:
                self._cache.popitem(last=False)
        return out


def mention_logit(span: Span | None) -> float:
    """What the way the subject is named adds to the logit."""
    if span is None:
        return _NO_MENTION
    return _SLIP * (1 - span.quality) + (_EXTENDED if span.extended else 0.0)


def masked(text: str, span: Span | None) -> str:
    """The text with the subject masked, its first letter a capital."""
    out = span.mask(text, FILLER) if span is not None else text
    return out[:1].upper() + out[1:]


def template(pair: Pair) -> str:
    """The fact's wording without subject and object."""
    if pair.prompt and "{}" in pair.prompt:
        text = pair.prompt.replace("{}", FILLER)
        return text[:1].upper() + text[1:]
    body = pair.statement.rstrip(".").removesuffix(pair.object).rstrip()
    return masked(body, locate(body, pair.subject, pair.names))


def asked(pair: Pair) -> str:
    """The fact's question without the subject; its wording where there is no question."""
    if not pair.question:
        return template(pair)
    return masked(pair.question, locate(pair.question, pair.subject, pair.names))
