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
import re
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
from memory.scope_features import Bank, Matrix, Meaning, features

FILLER = "it"  # stands where the subject stood
SHIPPED = Path(__file__).parent / "data" / "scope.safetensors"
_REMEMBERED = 20_000  # pairs, and facts, whose scores and meanings are kept
_NO_MENTION = -9.0  # added to the logit when the subject is not named
_EXTENDED = -1.5  # when a neighbouring capital suggests a longer, different name
_WRONG_KIND = -9.0  # when a person is asked for and the fact gives a number or a date
_WHO = re.compile(r"\s*(?:who|whom|whose)\b", re.IGNORECASE)
_MONTH = r"(?:(?:january|february|march|april|may|june|july|august|september|october|november|december) )?"
# a year, a date or a share; other numbers may be names or telephones
_NUMBER = re.compile(rf"(?:{_MONTH}(?:\d{{1,2}}(?:st|nd|rd|th)?,? )?{_MONTH}(?:1\d|20)\d\d|\d+(?:\.\d+)? ?%)$", re.I)
_SLIP = -8.0  # times the missing quality of a mention


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
        self._meanings: OrderedDict[tuple[str, str, int], Meaning] = OrderedDict()
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
        total = np.array(
            [
                logit + mention_logit(span) + kind_logit(pair)
                for logit, span, pair in zip(logits, spans, pairs, strict=True)
            ]
        )
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
        with self._lock:  # their scores are taken now: another thread may make room for its own meanwhile
            known = {key: self._cache[key] for key in keys if key in self._cache}
        missing = list(dict.fromkeys(key for key in keys if key not in known))
        fresh: dict[tuple[str, str, str, int], float] = {}
        if missing:
            texts = list(dict.fromkeys(text for *three, _ in missing for text in three))
            at = {text: row for row, text in enumerate(texts)}
            vectors: Vectors = self.embedder.query(*texts)
            query, prompt, question = (
                vectors[[at[text] for text in column]]
                for column in ([key[0] for key in missing], [key[1] for key in missing], [key[2] for key in missing])
            )
            meaning = self._meaning(missing, prompt, question)
            logits = self.network(features(self.bank, query, prompt, question, meaning))
            fresh = {key: float(logit) for key, logit in zip(missing, logits, strict=True)}
        with self._lock:
            self._cache.update(fresh)
            while len(self._cache) > _REMEMBERED:
                self._cache.popitem(last=False)
        known |= fresh
        return [known[key] for key in keys]

    def _meaning(self, keys: Sequence[tuple[str, str, str, int]], prompt: Matrix, question: Matrix) -> Meaning:
        """What each key's fact means; facts with the same wordings and relation are looked at once."""
        facts = [key[1:] for key in keys]
        with self._lock:
            found = {fact: self._meanings[fact] for fact in facts if fact in self._meanings}
        fresh = {fact: row for row, fact in enumerate(facts) if fact not in found}
        if fresh:
            rows = list(fresh.values())
            known = np.array([facts[row][2] for row in rows], dtype=np.int64)
            new = Meaning.of(self.bank, prompt[rows], question[rows], known)
            found |= {fact: new.row(at) for at, fact in enumerate(fresh)}
        with self._lock:
            self._meanings.update((fact, found[fact]) for fact in fresh)
            while len(self._meanings) > _REMEMBERED:
                self._meanings.popitem(last=False)
        return Meaning.joined([found[fact] for fact in facts])


def mention_logit(span: Span | None) -> float:
    """What the way the subject is named adds to the logit."""
    if span is None:
        return _NO_MENTION
    return _SLIP * (1 - span.quality) + (_EXTENDED if span.extended else 0.0)


def kind_logit(pair: Pair) -> float:
    """What a clash of kinds adds to the logit: nobody is a number, so "Who founded it?" is not about a year."""
    return _WRONG_KIND if _WHO.match(pair.query) and _NUMBER.match(pair.object) else 0.0


def masked(text: str, span: Span | None) -> str:
    """The text with the subject masked, its first letter a capital."""
    out = span.mask(text, FILLER) if span is not None else text
    return out[:1].upper() + out[1:]


def template(pair: Pair) -> str:
    """The fact's wording without subject and object."""
    if pair.prompt and "{}" in pair.prompt:
        text = pair.prompt.replace("{}", FILLER)
        return text[:1].upper() + text[1:]
    body = pair.statement.rstrip(".").removesuffix(pair.object.rstrip(".")).rstrip()
    return masked(body, locate(body, pair.subject, pair.names))


def asked(pair: Pair) -> str:
    """The fact's question without the subject; its wording where there is no question."""
    if not pair.question:
        return template(pair)
    return masked(pair.question, locate(pair.question, pair.subject, pair.names))
