"""The gate: is this question in the scope of a stored fact?

>>> gate = Gate(store)
>>> gate.judge("Where is the Eiffel Tower?")
GateVerdict(in_scope=True, score=0.98, threshold=0.71, ...)

Similarity tells what a text is about, not whether a fact answers it, so a plain cosine is only used to find
candidates: those near in the index, and all facts about the subjects that the question names. Each candidate is then
judged by a small trained head (:mod:`memory.scope`) on the question and the fact with their common subject masked.
Abstaining is a normal answer. No candidate is ever taken for granted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from knowledge.text import squeeze
from memory.calibration import Calibration
from memory.mentions import locate, subject_keys
from memory.schema import DEFAULT_NAMESPACE, FUNCTIONAL, StoredFact
from memory.scope import Pair, ScopeHead, masked
from memory.store import FactStore
from memory.view import Hit, visible

Names = dict[str, tuple[str, ...]]  # subject key to all names of the subject

_LONGEST_QUERY = 2_000  # characters that are looked at
_MOST_CANDIDATES = 200  # about the named subjects, the newest first


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What the gate found.

    Attributes:
        score: probability that the best candidate answers the question.
        hits: the candidates judged, best first, with their probabilities.
        reason: the verdict in words.
    """

    in_scope: bool
    score: float
    threshold: float
    hits: tuple[Hit, ...] = ()
    reason: str = ""
    calibration: Calibration | None = field(default=None, repr=False)

    @property
    def accepted(self) -> tuple[Hit, ...]:
        """The facts that the question is in scope of."""
        return tuple(hit for hit in self.hits if hit.score >= self.threshold)

    @classmethod
    def skipped(cls, reason: str) -> GateVerdict:
        """The gate was not asked."""
        return cls(False, 0.0, 1.0, (), reason)

    def to_json(self) -> dict[str, object]:
        return {"in_scope": self.in_scope, "score": round(self.score, 4), "threshold": round(self.threshold, 4)}


class Gate:
    """Judges questions against the facts of a store.

    Args:
        head: the scope classifier; the shipped one for the store's encoder by default.
        threshold: probability from which a fact is in scope; the calibrated one by default.
    """

    def __init__(self, store: FactStore, head: ScopeHead | None = None, *, threshold: float | None = None) -> None:
        self.store = store
        self.head = head if head is not None else ScopeHead.shipped(store.embedder)
        self._threshold = threshold

    @property
    def threshold(self) -> float:
        return self._threshold if self._threshold is not None else self.head.calibration.threshold

    @property
    def calibration(self) -> Calibration:
        """The threshold with its measured rates."""
        return self.head.calibration

    def judge(self, query: str, *, k: int = 8, namespace: str = DEFAULT_NAMESPACE) -> GateVerdict:
        """Judges one question; ``k`` is how many neighbours the index gives."""
        query = squeeze(query[:_LONGEST_QUERY])
        if not query:
            return self._verdict((), "The question is empty.")
        names: Names = {}
        candidates = self.candidates(query, k, namespace, names)
        if not candidates:
            return self._verdict((), "No stored fact comes near the question.")
        return self._verdict(self.rank(query, candidates, namespace, names), "")

    def rank(
        self,
        query: str,
        facts: Sequence[StoredFact],
        namespace: str = DEFAULT_NAMESPACE,
        names: Names | None = None,
    ) -> tuple[Hit, ...]:
        """Facts with their probability of answering the question, best first; ``names`` are those known already."""
        names = self._names(facts, namespace, {} if names is None else names)
        pairs = [
            Pair(
                query,
                fact.subject,
                fact.object,
                fact.statement,
                prompt=fact.prompt,
                question=fact.question,
                relation=fact.relation,
                names=names[fact.subject_key],
            )
            for fact in facts
        ]
        known = _Known(self.store.lexicon.entities, {fact.subject_key for fact in facts})
        scores = self.head.score(pairs, known)
        return tuple(sorted((Hit(fact, score) for fact, score in zip(facts, scores, strict=True)), key=_best_first))

    def candidates(self, query: str, k: int, namespace: str, names: Names | None = None) -> list[StoredFact]:
        """Facts worth judging: about a subject that the question names, or near it in the index.

        Args:
            names: gets the subjects' names that had to be looked up.
        """
        spaces = visible(namespace)
        named = self.store.about(subject_keys(query, self.store.lexicon), spaces, _MOST_CANDIDATES)
        # the question as it is and with its subjects masked in one pass of the encoder; ranking finds them there
        masks = self._masks(query, named, self._names(named, namespace, {} if names is None else names))
        near = self.store.nearest(self.store.embedder.query(query, *masks)[0], k, spaces)
        found = {fact.id: fact for fact in (*(hit.fact for hit in near), *named)}
        return own_before_shared(list(found.values()), namespace)

    def _names(self, facts: Sequence[StoredFact], namespace: str, known: Names) -> Names:
        """``known`` with the names of these facts' subjects, looked up where they are missing."""
        missing = [fact for fact in facts if fact.subject_key not in known]
        if missing:
            known.update(self.store.alias_table(missing, namespace))
        return known

    def _masks(self, query: str, facts: Sequence[StoredFact], names: Names) -> list[str]:
        """The question with the subject of each fact masked, as the head will look at it."""
        known = _Known(self.store.lexicon.entities, {fact.subject_key for fact in facts})
        subjects = {fact.subject_key: fact.subject for fact in facts}
        spans = [locate(query, subject, names[key], known) for key, subject in subjects.items()]
        return list(dict.fromkeys(masked(query, span) for span in spans if span is not None))

    def _verdict(self, hits: tuple[Hit, ...], reason: str) -> GateVerdict:
        best = hits[0].score if hits else 0.0
        inside = bool(hits) and best >= self.threshold
        if not reason:
            relation = "reaches" if inside else "stays under"
            figures = f"{best:.2f} against {self.threshold:.2f}"
            reason = f"The best fact, {hits[0].text!r}, {relation} the threshold: {figures}."
        return GateVerdict(inside, best, self.threshold, hits, reason, self.head.calibration)


class _Known(Collection[str]):
    """Keys of entities: the world's and those of the facts at hand, without joining the sets."""

    def __init__(self, world: frozenset[str], here: set[str]) -> None:
        self._parts = (world, here)

    def __contains__(self, key: object) -> bool:
        return any(key in part for part in self._parts)

    def __iter__(self) -> Iterator[str]:
        return chain(*self._parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))


def _best_first(hit: Hit) -> tuple[float, int]:
    return -hit.score, -hit.fact.id


def own_before_shared(facts: list[StoredFact], namespace: str) -> list[StoredFact]:
    """A namespace's own functional fact hides the shared one about the same thing."""
    own = {(fact.subject_key, fact.relation_key) for fact in facts if fact.namespace == namespace}
    return [
        fact
        for fact in facts
        if fact.namespace == namespace
        or fact.cardinality != FUNCTIONAL
        or (fact.subject_key, fact.relation_key) not in own
    ]
