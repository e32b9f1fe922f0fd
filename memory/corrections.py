"""What a user meant, in words, kept under the question that was misunderstood (MemPrompt, 2201.06009, section 3).

>>> corrections = Corrections(gate)
>>> corrections.add("What is the capital of Georgia?", "No, I meant the state, not the country.")
>>> corrections.find("Which city is the capital of Georgia?").text
'I meant the state, not the country.'

A correction helps the next question that asks the same of the same thing. Whether it does is judged as for facts: the
scope head compares both questions with their common name masked; questions without a name are compared by cosine.
Nothing is overwritten: a correction taken back keeps its row and can be had again.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import func, select

from knowledge.errors import InvalidInput
from knowledge.text import squeeze
from memory import schema
from memory.embedder import Vectors
from memory.errors import FactNotFound, NothingToUndo
from memory.gate import Gate
from memory.mentions import locate, names_in
from memory.products import product
from memory.schema import DEFAULT_NAMESPACE
from memory.scope import Pair
from memory.view import visible

NEAREST = 4  # corrections looked at
ALIKE = 0.80  # cosine from which two questions without a name ask the same
LONGEST = 1_000  # characters of a question or a correction
_REFUSAL = re.compile(r"^(?:no|nope|not that|wrong|sorry|hm+|well|actually)\b[\s,.;:!-]*", re.IGNORECASE)
_CORRECTS = re.compile(
    r"^(?:(?:no|nope|not that|wrong|sorry|well|actually|hm+)\b[\s,.;:!-]*)+"
    r"(?:i\s+(?:mean|meant|was asking|want|wanted)\b|it(?:['’]s| is| was)\b|that(?:['’]s| is)\b"
    r"|the (?:right )?answer\b)"
    r"|^i\s+(?:mean|meant)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Correction:
    """What was meant by a question."""

    id: int
    namespace: str
    question: str
    text: str
    actor: str
    recorded_at: datetime
    active: bool = True
    score: float = 0.0  # how surely it concerns the question that was looked up

    def to_json(self) -> dict[str, Any]:
        return {
            "correction_id": self.id,
            "question": self.question,
            "text": self.text,
            "score": round(self.score, 4),
            "actor": self.actor,
            "recorded_at": self.recorded_at.isoformat(),
            "active": self.active,
        }


def corrects(message: str) -> bool:
    """Whether a message in a chat corrects the answer before it.

    >>> corrects("No, I meant the river."), corrects("No idea. What is it?")
    (True, False)
    """
    return _CORRECTS.match(squeeze(message)) is not None


class Corrections:
    """The corrections of a store, found again by what their questions ask. Safe to use from several threads."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.store = gate.store
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] = (-1, -1)
        self._rows: list[Correction] = []
        self._vectors: Vectors = np.zeros((0, self.store.embedder.dim), dtype=np.float32)

    def add(self, question: str, text: str, *, actor: str = "user", namespace: str = DEFAULT_NAMESPACE) -> Correction:
        """Keeps what was meant; when this returns, it is on disk.

        Raises:
            InvalidInput: the question or the correction is empty or too long.
        """
        question, text = squeeze(question), squeeze(text)
        plain = _REFUSAL.sub("", text)
        text = plain[:1].upper() + plain[1:] if plain else text
        for name, value in (("question", question), ("correction", text)):
            if not value:
                raise InvalidInput(f"The {name} is empty; say what was meant, for example 'I meant the river'.")
            if len(value) > LONGEST:
                raise InvalidInput(f"The {name} has {len(value)} characters; at most {LONGEST} are kept. Shorten it.")
        row = {
            "namespace": namespace,
            "question": question,
            "correction": text,
            "embedder_id": self.store.embedder.id,
            "vector": np.asarray(self.store.embedder.query(question)[0], dtype="<f4").tobytes(),
            "actor": actor,
            "recorded_at": schema.now(),
        }
        with self.store.database.write() as connection:
            key = connection.execute(schema.correction.insert().values(row)).inserted_primary_key
        assert key is not None
        return self.get(int(key[0]))

    def get(self, correction_id: int) -> Correction:
        """The correction of that id, in force or not.

        Raises:
            FactNotFound: there is none.
        """
        found = next((one for one in self._read(None) if one.id == correction_id), None)
        if found is None:
            raise FactNotFound(correction_id)
        return found

    def list(self, *, namespace: str = DEFAULT_NAMESPACE, all_: bool = False) -> Sequence[Correction]:
        """Corrections of a namespace, newest first; those taken back too with ``all_``."""
        rows = [one for one in self._read(namespace) if one.active or all_]
        return sorted(rows, key=lambda one: -one.id)

    def remove(self, correction_id: int, *, actor: str = "user") -> Correction:
        """Takes a correction back; :meth:`restore` brings it again."""
        if not self.get(correction_id).active:
            raise NothingToUndo(f"The correction {correction_id} is already taken back.")
        with self.store.database.write() as connection:
            row = {"correction_id": correction_id, "actor": actor, "at": schema.now()}
            connection.execute(schema.correction_end.insert().values(row))
        return self.get(correction_id)

    def restore(self, correction_id: int) -> Correction:
        """Puts a correction in force again that was taken back."""
        if self.get(correction_id).active:
            raise NothingToUndo(f"The correction {correction_id} is in force; there is nothing to restore.")
        with self.store.database.write() as connection:
            own = schema.correction_end.c.correction_id == correction_id
            connection.execute(schema.correction_end.delete().where(own))
        return self.get(correction_id)

    def undo(self, *, actor: str = "user", namespace: str = DEFAULT_NAMESPACE) -> Correction:
        """Takes back the latest correction in force.

        Raises:
            NothingToUndo: there is none.
        """
        rows = self.list(namespace=namespace)
        if not rows:
            raise NothingToUndo("There is no correction that could be taken back.")
        return self.remove(rows[0].id, actor=actor)

    # ------------------------------------------------------------------------------------------------ finding

    def find(self, question: str, *, namespace: str = DEFAULT_NAMESPACE) -> Correction | None:
        """The correction that this question is in the scope of, the newest of equals; None where there is none."""
        question = squeeze(question)
        self._level()
        spaces = visible(namespace)
        with self._lock:
            rows, vectors = self._rows, self._vectors
        here = [at for at, row in enumerate(rows) if row.namespace in spaces]
        if not here or not question:
            return None
        cosines = product(vectors[here], self.store.embedder.query(question)[0])
        best = sorted(range(len(here)), key=lambda at: (-round(float(cosines[at]), 4), -rows[here[at]].id))[:NEAREST]
        scored = [(self._score(question, rows[here[at]], float(cosines[at])), rows[here[at]]) for at in best]
        fitting = [(score, row) for score, row in scored if score >= 0.5]
        if not fitting:
            return None
        score, row = max(fitting, key=lambda pair: (round(pair[0], 4), pair[1].id))
        return Correction(
            row.id, row.namespace, row.question, row.text, row.actor, row.recorded_at, row.active, round(score, 4)
        )

    def _score(self, question: str, row: Correction, cosine: float) -> float:
        """From 0.5 on the two questions ask the same of the same thing."""
        if squeeze(question).casefold() == row.question.casefold():
            return 1.0
        lexicon = self.store.lexicon
        mine, asked = names_in(row.question, lexicon), names_in(question, lexicon)
        if not mine and not asked:
            return 0.5 + (cosine - ALIKE) / (2 * (1 - ALIKE)) if cosine >= ALIKE else 0.0
        more = {lexicon.entity_key(name) for name in asked} - {lexicon.entity_key(name) for name in mine}
        if not mine or more or any(locate(question, name, lexicon.aliases_of(name)) is None for name in mine):
            return 0.0
        name = mine[0]
        span = locate(row.question, name, lexicon.aliases_of(name))
        if span is None:
            return 0.0
        pair = Pair(
            question,
            name,
            "",
            row.question,
            prompt=span.mask(row.question, "{}"),
            question=row.question,
            names=lexicon.aliases_of(name),
        )
        probability = self.gate.head.score([pair], lexicon.entities)[0]
        threshold = self.gate.threshold
        if probability < threshold:
            return 0.0
        return 0.5 + 0.5 * (probability - threshold) / max(1e-6, 1 - threshold)

    def _level(self) -> None:
        """Reads the table again when something was added or taken back, by whomever."""
        own = schema.correction.c
        with self.store.database.read() as connection:
            last = int(connection.execute(select(func.coalesce(func.max(own.id), 0))).scalar_one())
            ended = int(connection.execute(select(func.count()).select_from(schema.correction_end)).scalar_one())
        with self._lock:
            if self._stamp == (last, ended):
                return
        with self.store.database.read() as connection:
            query = select(own.id, own.question, own.embedder_id, own.vector)
            stored = {row.id: row for row in connection.execute(query)}
        rows = [row for row in self._read(None) if row.active]
        texts = [row.question for row in rows if stored[row.id].embedder_id != self.store.embedder.id]
        again = dict(zip(texts, self.store.embedder.encode(texts), strict=True)) if texts else {}
        vectors = [
            again[row.question] if row.question in again else np.frombuffer(stored[row.id].vector, dtype="<f4")
            for row in rows
        ]
        empty = np.zeros((0, self.store.embedder.dim), dtype=np.float32)
        with self._lock:
            self._rows, self._vectors = rows, np.stack(vectors) if vectors else empty
            self._stamp = (last, ended)

    def _read(self, namespace: str | None) -> Sequence[Correction]:
        own, end = schema.correction.c, schema.correction_end.c
        joined = schema.correction.outerjoin(schema.correction_end, end.correction_id == own.id)
        query = select(schema.correction, end.at.label("ended")).select_from(joined).order_by(own.id)
        if namespace is not None:
            query = query.where(own.namespace == namespace)
        with self.store.database.read() as connection:
            found = connection.execute(query).all()
        return [
            Correction(row.id, row.namespace, row.question, row.correction, row.actor, row.recorded_at, not row.ended)
            for row in found
        ]
