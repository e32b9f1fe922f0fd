"""Consolidation as the service offers it: which facts are due, writing them, marking those that are in the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from app.engine import Engine
from app.served import Served
from app.views import ConsolidationView, DueFact
from knowledge.errors import InvalidInput

if TYPE_CHECKING:
    from evaluation.consolidation import Consolidation, Limits
    from memory.schema import StoredFact

METHODS = ("memit", "alphaedit", "emmet")
"""Editors that write a batch as one change of weights."""


class ConsolidationDesk:
    """In the namespace of the settings."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @cached_property
    def served(self) -> Served:
        return Served(self._engine.store.engine)

    @property
    def _space(self) -> str:
        return self._engine.settings.namespace

    def note(self, answer: dict[str, Any]) -> None:
        """Counts an answer, in the shape of ``ask --json``; to be called for each that is given."""
        self.served.note(answer, namespace=self._space)

    def in_weights(self) -> dict[int, int]:
        """Facts that an active weight edit of this model holds too, with its number."""
        usable = {entry.id for entry in self._engine.ledger.entries() if entry.usable}
        held = self.served.held(namespace=self._space)
        return {fact_id: entry_id for fact_id, entry_id in held.items() if entry_id in usable}

    def due(self, *, at_least: int = 3, most: int = 100) -> list[StoredFact]:
        """Current facts that memory served often enough and that no active weight edit holds."""
        done = self.in_weights()
        chosen = [
            number
            for number in self.served.often(namespace=self._space, at_least=at_least, most=most + len(done))
            if number not in done
        ]
        return [fact for fact in self._facts(chosen) if fact.current][:most]

    def due_facts(self, *, at_least: int = 3, most: int = 100) -> list[DueFact]:
        """The same with how often each was served, for showing. Needs the model, since the ledger does."""
        times = self.served.times(namespace=self._space)
        return [
            DueFact(fact.id, times.get(fact.id, 0), fact.statement) for fact in self.due(at_least=at_least, most=most)
        ]

    def write(
        self,
        *,
        at_least: int = 3,
        method: str = "memit",
        progress: Callable[[float, str], None] | None = None,
    ) -> ConsolidationView:
        """Writes what is due and tells what became of it, as a plain record.

        Raises:
            PalimpsestError: as :meth:`run`.
        """
        return consolidation_view(self.run(at_least=at_least, method=method, progress=progress))

    def run(
        self,
        *,
        fact_ids: Sequence[int] = (),
        at_least: int = 3,
        most: int = 100,
        method: str = "memit",
        limits: Limits | None = None,
        progress: Callable[[float, str], None] | None = None,
    ) -> Consolidation:
        """Writes the named facts, or those that are due, as one batch; kept only if it proves good.

        Raises:
            PalimpsestError: nothing is due, an unknown fact or method, or the editor refuses.
        """
        from editors.registry import get_editor
        from evaluation.consolidation import consolidate

        if method not in METHODS:
            raise InvalidInput(f"{method!r} does not write a batch as one change. Choose one of: {', '.join(METHODS)}.")
        facts = self._facts(fact_ids) if fact_ids else self.due(at_least=at_least, most=most)
        past = [str(fact.id) for fact in facts if not fact.current]
        if past:
            raise InvalidInput(f"Only facts in force can be consolidated; these are not: {', '.join(past)}.")
        engine = self._engine
        pairs = [(fact, engine.store.to_edit(fact)) for fact in facts]
        editor = get_editor(method, moments=engine.moments, seed=engine.settings.seed)
        edits = [edit for _, edit in pairs]
        found = consolidate(engine.ledger, editor, edits, engine.world, limits=limits, progress=progress)
        if found.kept and found.entry is not None:
            written = {edit.id for edit in found.written}
            kept = [fact.id for fact, edit in pairs if edit.id in written]
            self.served.mark(kept, entry_id=found.entry, namespace=self._space)
        return found

    def _facts(self, ids: Sequence[int]) -> list[StoredFact]:
        return [self._engine.store.get(number, namespace=self._space) for number in ids]


def consolidation_view(found: Consolidation) -> ConsolidationView:
    """The outcome as the outside sees it."""
    seen = found.locality
    return ConsolidationView(
        kept=found.kept,
        entry=found.entry,
        written=tuple(edit.statement for edit in found.written),
        known=tuple(edit.statement for edit in found.known),
        clashing=tuple(edit.statement for edit in found.clashing),
        failed=tuple(edit.statement for edit in found.failed),
        efficacy=found.efficacy,
        generality=found.generality,
        locality_before=seen.before if seen else None,
        locality_after=seen.after if seen else None,
        locality_n=seen.n if seen else 0,
        reasons=found.reasons,
    )
