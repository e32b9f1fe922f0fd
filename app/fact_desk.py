"""Facts as the service offers them: sentences in, records out. Opens the database; loads no language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from app.engine import Engine
from app.errors import NothingFound, VerySimilar
from app.fact_files import write_rows
from app.fact_import import import_file
from app.fact_reader import FactReader, fact_view
from app.served import Served
from app.views import AddOutcome, EventView, FactPage, FactView, ImportReport, ParsePreview
from knowledge.edit import Edit
from knowledge.errors import InvalidInput, PalimpsestError

if TYPE_CHECKING:
    from memory.schema import StoredFact
    from memory.undo import Action


class FactDesk:
    """What can be done with facts, in the namespace of the settings."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = FactReader(engine)

    @property
    def _space(self) -> str:
        return self._engine.settings.namespace

    # ------------------------------------------------------------------------------------------------ understanding

    def relations(self) -> list[tuple[str, str]]:
        """(id, label) of every relation of the world, by label."""
        return self._reader.relations()

    def preview(self, text: str) -> ParsePreview:
        """How a sentence is understood; a sentence that is not says why in ``problem``."""
        return self._reader.preview(text)

    def preview_triple(self, subject: str, relation: str, object: str, *, text: str = "") -> ParsePreview:
        """The same for a fact given in three parts."""
        return self._reader.preview_triple(subject, relation, object, text=text)

    def edit_of(self, text: str) -> Edit:
        """A sentence as an edit request for the weight editors; nothing is stored."""
        return self._reader.edit_of(text)

    def present_answer(self, preview: ParsePreview) -> str:
        """What the model, with its weight edits, answers to the fact's question now, memory left aside."""
        if not preview.ok:
            return ""
        answer: str = self._engine.router.answer(preview.question, mode="weights", namespace=self._space).answer
        return answer

    # ------------------------------------------------------------------------------------------------ writing

    def add(
        self,
        text: str | None = None,
        *,
        subject: str | None = None,
        relation: str | None = None,
        object: str | None = None,
        keep_both: bool = False,
        source: str = "user",
        similar: Literal["keep", "ask", "replace"] = "keep",
        valid_from: str | None = None,
        valid_to: str | None = None,
    ) -> AddOutcome:
        """Stores a fact given as one sentence or in three parts.

        Args:
            keep_both: leave a contradicting fact in force beside the new one.
            similar: what to do where a very similar fact about something else is there; "ask" raises.
            valid_from, valid_to: since and until when it holds, ISO 8601; from now on by default.

        Raises:
            VerySimilar: ``similar`` is "ask" and there is a similar fact.
            PalimpsestError: the sentence is not understood, or a part is missing.
        """
        if text and (subject or relation or object):
            raise InvalidInput("Give either a sentence or subject, relation and object, not both.")
        parts = (
            self._reader.parts(text)
            if text
            else {"subject": subject or "", "relation": relation, "object": object or ""}
        )
        parts.pop("confidence", None)
        if keep_both:
            parts["cardinality"] = "multi"
        parts["target_true"] = self._told_before(parts)
        parts |= {"valid_from": moment(valid_from), "valid_to": moment(valid_to), "if_similar": similar}
        from memory.store import NearDuplicate

        try:
            result = self._engine.store.add(**parts, source=source, namespace=self._space)
        except NearDuplicate as found:
            raise VerySimilar(str(found), [fact_view(hit.fact) for hit in found.similar]) from found
        old = fact_view(result.superseded) if result.superseded else None
        return AddOutcome(fact_view(result.fact), old, result.duplicate)

    def _told_before(self, parts: dict[str, Any]) -> str | None:
        """What the unedited model says, where it is loaded; never in the way of storing the fact."""
        if self._engine.state[0] != "ready":
            return None
        try:
            question = self._reader.word(parts).question
            answer: str = self._engine.router.answer(question, mode="base").answer if question else ""
        except PalimpsestError:
            return None
        return answer or None

    def edit(self, fact_id: int, *, object: str) -> AddOutcome:
        """Overwrites a fact's object; the old fact stays in the history as superseded.

        Raises:
            NothingFound: there is no such fact.
        """
        fact = self._get(fact_id)
        if not fact.current:
            raise InvalidInput(f"Fact {fact_id} is {fact.status}; only a fact in force can be overwritten.")
        parts: dict[str, Any] = {"prompt": fact.prompt, "question": fact.question, "cardinality": fact.cardinality}
        result = self._engine.store.add(fact.subject, fact.relation, object, namespace=self._space, **parts)
        old = fact_view(result.superseded) if result.superseded else None
        return AddOutcome(fact_view(result.fact), old, result.duplicate)

    def remove(self, fact_id: int, *, reason: str | None = None) -> FactView:
        """Takes a fact out of force; the history keeps it."""
        self._get(fact_id)
        return fact_view(self._engine.store.retire(fact_id, reason=reason, namespace=self._space))

    def restore(self, fact_id: int) -> FactView:
        """Brings a removed fact back, by undoing its removal."""
        self._get(fact_id)
        for entry in reversed(self._engine.store.history(fact_id, namespace=self._space)):
            if entry.op == "retire" and not entry.undone:
                self._engine.store.undo(entry.action, namespace=self._space)
                return self.get(fact_id)
        raise NothingFound(f"Fact {fact_id} was not removed, so it cannot be restored.")

    def purge(self, fact_id: int) -> FactView:
        """Deletes a fact and its history for good; nothing brings it back."""
        gone = self.get(fact_id)
        self._engine.store.purge([fact_id], confirm=True, namespace=self._space)
        return gone

    def add_alias(self, alias: str, subject: str) -> tuple[str, ...]:
        """Another name of a subject; gives all that it has."""
        self._engine.store.add_alias(alias, subject, namespace=self._space)
        return tuple(self._engine.store.aliases(subject, namespace=self._space))

    def undo(self, action: int | None = None) -> EventView:
        """Takes a change back: the last one, or any by its number in the history."""
        return self._turn(self._engine.store.undo, action)

    def redo(self, action: int | None = None) -> EventView:
        """Makes the last undone change again, or any by its number."""
        return self._turn(self._engine.store.redo, action)

    def _turn(self, turn: Any, number: int | None) -> EventView:
        from memory.errors import NothingToUndo

        try:
            action: Action = turn(number, namespace=self._space)
        except NothingToUndo as error:
            raise NothingFound(str(error)) from error
        named = "; ".join(f"{fact.statement} ({fact.status})" for fact in action.facts[:3])
        more = f" and {len(action.facts) - 3} more" if len(action.facts) > 3 else ""
        first = action.facts[0].id if action.facts else None
        return EventView(
            action.op, f"{named or 'fact removed'}{more}", action.at.isoformat(), action.actor, first, action.id
        )

    # ------------------------------------------------------------------------------------------------ reading

    def count(self) -> int:
        return self._engine.store.count(namespace=self._space)

    def page(
        self,
        query: str = "",
        *,
        include_past: bool = False,
        page: int = 1,
        size: int | None = None,
        as_of: str | None = None,
    ) -> FactPage:
        """One page, newest first; ``query`` is text that the statement contains.

        Args:
            as_of: only what was in force at that time, ISO 8601, whatever became of it since.
        """
        size = size or self._engine.settings.page_size
        where: dict[str, Any] = {
            "namespace": self._space,
            "status": None if include_past else "current",
            "contains": query or None,
            "as_of": moment(as_of, end=True),
        }
        total = self._engine.store.count(**where)
        pages = max(1, -(-total // size))
        page = min(max(page, 1), pages)
        rows = self._engine.store.list(**where, limit=size, offset=(page - 1) * size)
        return FactPage(tuple(self._marked(rows)), total, page, pages)

    def search(self, query: str, *, limit: int = 10) -> list[tuple[FactView, float]]:
        """The facts nearest in meaning, with their cosine."""
        hits = self._engine.store.search(query, limit, namespace=self._space)
        facts = self._marked([hit.fact for hit in hits])
        return [(fact, round(hit.score, 4)) for fact, hit in zip(facts, hits, strict=True)]

    def get(self, fact_id: int) -> FactView:
        return self._marked([self._get(fact_id)])[0]

    def _marked(self, facts: Sequence[StoredFact]) -> list[FactView]:
        """Facts as the outside sees them, with the weight edit that holds each too."""
        held = self._served.held(namespace=self._space)
        return [fact_view(fact, held.get(fact.id)) for fact in facts]

    @cached_property
    def _served(self) -> Served:
        return Served(self._engine.store.engine)

    def _get(self, fact_id: int) -> StoredFact:
        from memory.errors import FactNotFound

        try:
            return self._engine.store.get(fact_id, namespace=self._space)
        except FactNotFound as error:
            raise NothingFound(str(error)) from error

    def history(self, fact_id: int | None = None, *, limit: int = 50) -> list[EventView]:
        """What happened to one fact, oldest first, or the latest changes of all, newest first."""
        store = self._engine.store
        if fact_id is None:
            actions = store.actions(namespace=self._space, limit=limit)
            facts = {
                fact.id: fact for fact in store.get_many([number for action in actions for number in action.fact_ids])
            }
            return [_action_view(action, facts) for action in actions]
        self._get(fact_id)
        events = store.history(fact_id, namespace=self._space)
        return [
            EventView(entry.op + (" (undone)" if entry.undone else ""), _changes(entry), entry.at.isoformat(),
                      entry.actor, fact_id, entry.seq)
            for entry in events
        ]  # fmt: skip

    # ------------------------------------------------------------------------------------------------ files

    def import_file(self, path: Path, *, progress: Callable[[float, str], None] | None = None) -> ImportReport:
        """Stores the rows of a file of facts; a bad row is reported and never stops the good ones."""
        return import_file(self._engine, self._reader, path, progress)

    def export_file(self, path: Path, *, include_past: bool = False) -> int:
        """Writes facts as CSV, JSON or JSONL, by the file's ending; gives how many."""
        status = None if include_past else "current"
        facts = self._engine.store.list(namespace=self._space, status=status, limit=None, newest_first=False)
        write_rows(path, [fact.to_json() for fact in facts])
        return len(facts)


def moment(text: str | None, *, end: bool = False) -> datetime | None:
    """A date or a time as people write it in ISO 8601; without a zone it is local.

    Args:
        end: a bare date means its end, for "as of", instead of its beginning.

    Raises:
        InvalidInput: it is neither.
    """
    text = (text or "").strip()
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(f"{text!r} is no date. Write 2026-01-31, or 2026-01-31T15:00 for a time of day.") from error
    if end and len(text) == 10:
        found += timedelta(days=1) - timedelta(microseconds=1)
    return found.astimezone()


def _action_view(action: Action, facts: dict[int, StoredFact]) -> EventView:
    named = [facts[number].statement for number in action.fact_ids if number in facts]
    text = "; ".join(dict.fromkeys(named[:3])) + (f" and {len(named) - 3} more" if len(named) > 3 else "")
    first = action.fact_ids[0] if action.fact_ids else None
    view = EventView(action.op, text, action.at.isoformat(), action.actor, first, action.id)
    return replace(view, op=f"{view.op} (undone)") if action.undone else view


def _changes(entry: Any) -> str:
    shown: list[str] = []
    for name, (old, new) in entry.changes.items():
        if name == "statement" or (name in ("object", "subject") and "statement" not in entry.changes):
            shown.insert(0, str(new) if old is None else f"{old} → {new}")
        elif name in ("status", "valid_to", "reason") and new is not None and old is not None:
            shown.append(f"{name} {old} → {new}")
    return "; ".join(shown)
