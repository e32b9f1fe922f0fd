"""The gate's threshold and what was measured at it: found on wordings that nothing was trained on.

``calibrate(world, embedder)`` fills a throw-away store with counterfactual facts of the world, asks about them in the
world's held-out phrasings, and about things they do not answer (the same subject's other relations, the same
relation of other subjects, unrelated facts), and takes the lowest threshold that keeps the false positives under the
wanted rate. It does so for several draws of facts and takes one threshold for all: questions worded alike get the same
score, so that in one draw of 400 facts two phrasings of one relation can move the threshold by a fifth.
``python -m app train gate`` runs it and writes ``calibration.json``.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowledge.edit import Fact
from knowledge.relations import Relation, fill
from knowledge.world import World
from memory.embedder import Embedder

if TYPE_CHECKING:
    from memory.gate import Gate
    from memory.scope import ScopeHead

FALSE_POSITIVE_RATE = 0.01  # over all kinds of negatives together
HARDEST = "same subject, other relation"  # the kind that costs retrieval its locality
HARDEST_RATE = 0.03  # and its own limit
_FILE = "calibration.json"
_CHUNK = 200  # questions encoded in one go


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold with what was measured at it."""

    threshold: float
    encoder: str = ""
    true_positive_rate: float | None = None
    false_positive_rate: float | None = None
    positives: int = 0
    negatives: int = 0
    by_kind: dict[str, dict[str, float]] = field(default_factory=dict)  # kind -> {"rate", "n"}
    measured_on: str = "not measured"
    by_draw: list[dict[str, float]] = field(default_factory=list)  # rates of each draw at this one threshold

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Calibration:
        return cls(**{name: data[name] for name in cls.__slots__ if name in data})


@dataclass(frozen=True, slots=True)
class Question:
    """A question with what the gate should say of it."""

    text: str
    kind: str  # "in scope", or a kind of negative
    fact_id: int | None = None  # the fact that answers it


def load_calibration(encoder: str, folder: Path) -> Calibration:
    """The stored calibration for this encoder; an unmeasured threshold of 0.5 where there is none."""
    path = folder / _FILE
    if path.is_file():
        table = json.loads(path.read_text(encoding="utf-8"))
        if encoder in table:
            return Calibration.from_json(table[encoder])
    return Calibration(0.5, encoder)


def save_calibration(calibration: Calibration, folder: Path) -> None:
    path = folder / _FILE
    table = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    table[calibration.encoder] = calibration.to_json()
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def calibrate(
    world: World,
    embedder: Embedder,
    *,
    head: ScopeHead | None = None,
    facts: int = 400,
    draws: int = 8,
    rate: float = FALSE_POSITIVE_RATE,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Calibration:
    """Measures the gate on the world's held-out phrasings and chooses its threshold.

    Args:
        head: the scope head; the shipped one by default.
        facts: how many counterfactual facts are in memory, in each draw.
        draws: how many times facts are drawn; the seeds follow one another.
        rate: the false-positive rate to keep under.
        progress: told (what, done, all).
    """
    every: list[tuple[list[Question], list[float]]] = []
    for number in range(draws):

        def tell(what: str, done: int, total: int, before: int = number) -> None:
            if progress is not None:
                progress(what, before * total + done, draws * total)

        every.append(draw(world, embedder, head, facts=facts, seed=seed + number, progress=tell))
    questions = [question for part, _ in every for question in part]
    found = choose(questions, [score for _, part in every for score in part], rate)
    where = f"the bundled world's held-out phrasings, {draws} draws of {facts} facts"
    by_draw = [_brief(rates(part, scores, found.threshold)) for part, scores in every]
    return replace(found, encoder=embedder.id, measured_on=where, by_draw=by_draw)


def draw(
    world: World,
    embedder: Embedder,
    head: ScopeHead | None = None,
    *,
    facts: int,
    seed: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[list[Question], list[float]]:
    """Questions about one draw of facts in the world's held-out phrasings, with the gate's scores."""
    from memory.gate import Gate
    from memory.lexicon import Lexicon
    from memory.store import FactStore
    from memory.writing import Draft

    rng = random.Random(seed)
    chosen = choose_facts(world, facts, rng)
    with FactStore("sqlite://", embedder, lexicon=Lexicon.of(world)) as store:
        drafts = [Draft(store.lexicon.word(fact.subject, fact.relation, new)) for fact, new in chosen]
        ids = [written.fact_id for written in store.add_many(drafts)]
        questions = ask_about(world, dict(zip((fact for fact, _ in chosen), ids, strict=True)), rng)
        return questions, measure(Gate(store, head, threshold=0.0), questions, progress)


def _brief(found: Calibration) -> dict[str, float]:
    return {
        "true_positive_rate": found.true_positive_rate or 0.0,
        "false_positive_rate": found.false_positive_rate or 0.0,
        HARDEST: found.by_kind.get(HARDEST, {}).get("rate", 0.0),
        "positives": found.positives,
        "negatives": found.negatives,
    }


def measure(
    gate: Gate, questions: Sequence[Question], progress: Callable[[str, int, int], None] | None = None
) -> list[float]:
    """The gate's score of each question; for a positive 0 when another fact than its own comes first."""
    scores = []
    for number, question in enumerate(questions):
        if number % _CHUNK == 0:  # together, which is several times faster than one by one
            gate.store.embedder.query(*(each.text for each in questions[number : number + _CHUNK]))
        verdict = gate.judge(question.text)
        right = question.fact_id is None or (verdict.hits and verdict.hits[0].fact.id == question.fact_id)
        scores.append(verdict.score if right else 0.0)
        if progress is not None and number % 50 == 0:
            progress("measuring the gate", number, len(questions))
    return scores


def choose(questions: Sequence[Question], scores: Sequence[float], rate: float) -> Calibration:
    """The lowest threshold with at most that rate of false positives, and at most 3 % of the hardest kind."""
    judged = list(zip(questions, scores, strict=True))
    every = _at_most(rate, [score for question, score in judged if question.fact_id is None])
    hardest = _at_most(HARDEST_RATE, [score for question, score in judged if question.kind == HARDEST])
    return rates(questions, scores, max(every, hardest))


def _at_most(rate: float, negatives: Sequence[float]) -> float:
    """The lowest threshold that at most this share of the scores reaches; the lowest of all without any."""
    if not negatives:
        return 0.05
    return min(0.999, max(0.05, sorted(negatives, reverse=True)[int(rate * len(negatives))] + 1e-4))


def rates(questions: Sequence[Question], scores: Sequence[float], threshold: float) -> Calibration:
    """True- and false-positive rates at a threshold, by kind too."""
    by_kind: dict[str, list[bool]] = {}
    for question, score in zip(questions, scores, strict=True):
        by_kind.setdefault(question.kind, []).append(score >= threshold)
    table = {kind: {"rate": sum(flags) / len(flags), "n": float(len(flags))} for kind, flags in by_kind.items()}
    positive = [s >= threshold for q, s in zip(questions, scores, strict=True) if q.fact_id is not None]
    negative = [s >= threshold for q, s in zip(questions, scores, strict=True) if q.fact_id is None]
    return Calibration(
        threshold=round(threshold, 4),
        true_positive_rate=sum(positive) / max(1, len(positive)),
        false_positive_rate=sum(negative) / max(1, len(negative)),
        positives=len(positive),
        negatives=len(negative),
        by_kind=table,
    )


def choose_facts(world: World, number: int, rng: random.Random) -> list[tuple[Fact, str]]:
    """Facts of the world, each with another object of its relation."""
    relations = [name for name, rows in world.by_relation.items() if len(rows) >= 10]
    chosen: dict[Fact, str] = {}
    while len(chosen) < number:
        relation = rng.choice(relations)
        fact = rng.choice(world.by_relation[relation])
        others = [name for name in world.objects_of_relation[relation] if name != fact.object]
        if fact not in chosen and others:
            chosen[fact] = rng.choice(others)
    return list(chosen.items())


def ask_about(world: World, stored: dict[Fact, int], rng: random.Random) -> list[Question]:
    """Questions in held-out wordings: one that each stored fact answers, and three beside it that none does.

    Args:
        stored: facts of the world whose objects were changed, with the ids of the changed ones.
    """
    taken = {(fact.subject, fact.relation) for fact in stored}
    questions: list[Question] = []

    def held_out(relation: Relation, subject: str) -> str:
        wordings = (*relation.question_unseen, *relation.cloze_unseen) or relation.question
        return fill(rng.choice(wordings), subject)

    def add(kind: str, choices: Iterable[Fact]) -> None:
        free = [fact for fact in choices if (fact.subject, fact.relation) not in taken]
        if free:
            fact = rng.choice(free)
            questions.append(Question(held_out(world.relations[fact.relation], fact.subject), kind))

    for fact, fact_id in stored.items():
        questions.append(Question(held_out(world.relations[fact.relation], fact.subject), "in scope", fact_id))
        add("same subject, other relation", world.facts_of(fact.subject))
        add("same relation, other subject", world.by_relation[fact.relation])
        add("unrelated", rng.sample(world.facts, 5))
    return questions
