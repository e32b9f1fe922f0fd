"""Whether a short answer took over the fact that stood before the question, and what to answer where it did not.

A model with a fact in its context may still say what it said without it, refuse, or misspell a name that it copies.
The gate has judged that the fact applies, so such an answer is not let through: the fact answers itself, through the
pointer that SERAC uses (:mod:`memory.counterfactual`). Any other answer stands, since a fact may also be used through
what the model knows ("Which country is it in?", with a city in the fact).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from knowledge.errors import PalimpsestError
from knowledge.text import answer_matches, mentions, normalise_answer
from language_model.prompts import UNKNOWN
from memory.counterfactual import Case, Counterfactual
from memory.errors import IndexFileError
from memory.gate import Gate
from memory.questions import asked_kinds
from memory.relation_words import words
from memory.view import Hit

SHORT = 80  # letters of an answer up to which it is a name; what is longer is a sentence and stands
_ALIKE = 0.7  # likeness from which a name is a misspelling of another: "Emman Macron", "55-0192"
_YES_OR_NO = ("yes", "no")


@dataclass(frozen=True, slots=True)
class Instead:
    """An answer out of the fact, and what was wrong with the model's."""

    answer: str
    why: str


class TakingOver:
    """Looks at answers that were given with facts in scope."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self._pointer: Counterfactual | None = None
        self._missing = False  # there is none for this encoder

    def instead(self, query: str, said: str, hits: Sequence[Hit], alone: Callable[[], str]) -> Instead | None:
        """The answer to give instead; None where the model's may stand.

        Args:
            said: the model's short answer.
            hits: the facts that stood before the question, the best one first.
            alone: gives the model's answer without them; asked only where it matters.
        """
        given = normalise_answer(said)
        if not given or given in _YES_OR_NO or given.startswith(tuple(f"{word}," for word in _YES_OR_NO)):
            return None
        if any(self._speaks_of(hit, given) for hit in hits) or self._asks_for_more(query, hits[0]):
            return None
        pointer = self.pointer
        if pointer is None:
            return None
        wanted = pointer.answer(Case.of(query, hits[0].fact, self.gate.store))
        known = given in self.gate.store.lexicon.entities  # Tunisia is no misspelt Tunis
        if not known and SequenceMatcher(None, given, normalise_answer(wanted)).ratio() >= _ALIKE:
            return Instead(wanted, f"the model misspelt it as {said.strip()!r}")
        if given == normalise_answer(UNKNOWN):
            return Instead(wanted, "the model did not use the fact and knew no answer")
        try:
            before = alone()
        except PalimpsestError:  # a remote model that does not answer twice; what it said is not lost for that
            return None
        if given == normalise_answer(before):
            return Instead(wanted, f"the model did not use the fact and said {said.strip()!r}, as without it")
        return None

    @property
    def pointer(self) -> Counterfactual | None:
        """SERAC's pointer; None where there is none for the encoder in use."""
        if self._pointer is None and not self._missing:
            try:
                self._pointer = Counterfactual.shipped(self.gate.store.embedder)
            except IndexFileError:
                self._missing = True
        return self._pointer

    def _speaks_of(self, hit: Hit, given: str) -> bool:
        """Whether an answer names the fact's object, or is its subject."""
        case = Case.of(given, hit.fact, self.gate.store)
        objects = (case.object, *case.object_names)
        return any(mentions(given, name) for name in objects) or answer_matches(given, case.subject, case.subject_names)

    def _asks_for_more(self, query: str, hit: Hit) -> bool:
        """Whether the question names another kind of thing than the fact gives: the country of its city."""
        kinds, _ = asked_kinds(query, words(query))
        relation = self.gate.store.lexicon.relations.get(hit.fact.relation or "")
        return bool(kinds) and relation is not None and relation.object_type not in kinds
