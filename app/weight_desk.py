"""Weight edits as the service offers them: from a sentence or stored facts to an entry of the ledger, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.engine import Engine
from app.fact_desk import FactDesk
from app.views import EntryView, MethodView
from knowledge.edit import Edit
from knowledge.errors import InvalidInput

if TYPE_CHECKING:
    from editors.ledger import Entry


class WeightDesk:
    """All of it needs the model, except the list of methods."""

    def __init__(self, engine: Engine, facts: FactDesk) -> None:
        self._engine = engine
        self._facts = facts

    def methods(self) -> list[MethodView]:
        """The editors that there are; loads no torch."""
        from editors.registry import available

        return [MethodView(info.name, info.title, info.paper, info.summary) for info in available().values()]

    def entries(self, *, include_undone: bool = True) -> list[EntryView]:
        """The ledger, newest first."""
        return [entry_view(entry) for entry in reversed(self._engine.ledger.entries(include_undone=include_undone))]

    def apply(
        self,
        method: str,
        *,
        text: str | None = None,
        fact_ids: Sequence[int] = (),
        progress: Callable[[float, str], None] | None = None,
    ) -> EntryView:
        """Writes one sentence, or stored facts as one batch, into the weights.

        Raises:
            PalimpsestError: the sentence is not understood, a fact does not exist, or the editor refuses.
        """
        from editors.registry import get_editor

        edits = self.edits(text, fact_ids)
        editor = get_editor(method, moments=self._engine.moments, seed=self._engine.settings.seed)
        return entry_view(self._engine.ledger.apply(editor, edits, progress=progress))

    def edits(self, text: str | None, fact_ids: Sequence[int]) -> list[Edit]:
        """The edit requests for a sentence or for stored facts."""
        if text and fact_ids:
            raise InvalidInput("Give a sentence or numbers of facts, not both.")
        if text:
            return [self._facts.edit_of(text)]
        if not fact_ids:
            raise InvalidInput(
                'Give a sentence ("The Eiffel Tower is located in Rome.") or the number of a stored fact.'
            )
        store = self._engine.store
        return [store.to_edit(store.get(number, namespace=self._engine.settings.namespace)) for number in fact_ids]

    def set_active(self, entry_id: int, active: bool) -> EntryView:
        return entry_view(self._engine.ledger.set_active(entry_id, active))

    def undo(self, entry_id: int) -> EntryView:
        return entry_view(self._engine.ledger.undo(entry_id))

    def redo(self, entry_id: int) -> EntryView:
        return entry_view(self._engine.ledger.redo(entry_id))

    def export(self, path: Path, *, entry_ids: Sequence[int] | None = None, format: str = "peft") -> Path:
        """Writes the active entries (or those named) for other programs; gives the folder or file written."""
        options: dict[str, Any] = {"entry_ids": entry_ids, "format": format}
        return Path(self._engine.ledger.export(path, **options))


def entry_view(entry: Entry) -> EntryView:
    return EntryView(
        id=entry.id,
        method=entry.method,
        facts=tuple(edit.statement for edit in entry.edits),
        layers=entry.layers,
        relative_norm=entry.relative_norm,
        active=entry.active and not entry.undone,
        undone=entry.undone,
        created_at=entry.created_at.isoformat(),
        seconds=round(entry.seconds, 3),
        fits=entry.usable,
    )
