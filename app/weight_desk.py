"""Weight edits as the service offers them: from a sentence or stored facts to an entry of the ledger, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.engine import Engine
from app.fact_desk import FactDesk
from app.served import Served
from app.views import EntryView, MethodView, TakenView
from knowledge.edit import Edit
from knowledge.errors import InvalidInput, PalimpsestError
from knowledge.text import mentions, names
from language_model.prompts import user

if TYPE_CHECKING:
    from editors.ledger import Entry
    from language_model.model import LanguageModel

GUARDS = ("off", "warn", "refuse")


class WeightDesk:
    """All of it needs the model, except the list of methods."""

    def __init__(self, engine: Engine, facts: FactDesk) -> None:
        self._engine = engine
        self._facts = facts

    def methods(self) -> list[MethodView]:
        """The editors that there are; loads no torch."""
        from editors.registry import available

        return [
            MethodView(info.name, info.title, info.paper, info.summary, info.batch, info.sequence)
            for info in available().values()
        ]

    def unavailable(self) -> dict[str, str]:
        """Editors that the loaded model cannot be edited with yet, and why; empty as long as no model is loaded."""
        if self._engine.state[0] != "ready":
            return {}
        return missing_networks(self._engine.lm, self._engine.moments.cache_dir)

    def entries(self, *, include_undone: bool = True) -> list[EntryView]:
        """The ledger, newest first."""
        return [entry_view(entry) for entry in reversed(self._engine.ledger.entries(include_undone=include_undone))]

    def apply(
        self,
        method: str,
        *,
        text: str | None = None,
        fact_ids: Sequence[int] = (),
        settings: Mapping[str, Any] | None = None,
        guard: str | None = None,
        progress: Callable[[float, str], None] | None = None,
    ) -> EntryView:
        """Writes one sentence, or stored facts as one batch, into the weights.

        Args:
            settings: of the method, by name; its own for this model by default.
            guard: past its limits "off", "warn" or "refuse"; as the settings say by default.

        Raises:
            PalimpsestError: the sentence is not understood, a fact does not exist, or the editor or the guard refuses.
        """
        from editors.registry import get_editor

        # first, so that an unknown method is told at once and not after the encoder has been loaded
        chosen = {"seed": self._engine.settings.seed, **(settings or {})}
        editor = get_editor(method, moments=self._engine.moments, **chosen)
        if guard is not None and guard not in GUARDS:
            raise InvalidInput(f"The guard is one of {', '.join(GUARDS)}, not {guard!r}.")
        fact_ids = list(dict.fromkeys(fact_ids))
        edits = self.edits(text, fact_ids)
        ledger = self._engine.ledger
        usual = guard in (None, self._engine.settings.guard)
        with nullcontext() if usual else ledger.guarded_by(self._engine.guard(str(guard))):
            entry = ledger.apply(editor, edits, progress=progress)
        Served(self._engine.store.engine).mark(fact_ids, entry_id=entry.id, namespace=self._engine.settings.namespace)
        return entry_view(entry)

    def taken(self, entry_id: int, most: int = 3) -> list[TakenView]:
        """Asks the model, with all that is on, for the first facts of an entry."""
        ledger = self._engine.ledger
        edits = ledger.get(entry_id).edits[:most]
        if not edits:
            return []
        # as the editors write them: a question that does not name its subject is not one of the forms
        asked = [edit.question if mentions(edit.question or "", edit.subject) else None for edit in edits]
        prompts = [[user(question)] if question else edit.text for question, edit in zip(asked, edits, strict=True)]
        longest = max(ledger.lm.count_tokens(edit.target_new) for edit in edits)
        try:
            said = ledger.lm.generate(
                prompts, max_new_tokens=max(24, longest + 8), overlays=[ledger.overlay()] * len(prompts)
            )
        except PalimpsestError:  # the edit is written all the same
            return []
        return [
            TakenView(
                question or f"{edit.text} ...",
                edit.target_new,
                text.strip().rstrip("."),
                any(names(text, name) for name in (edit.target_new, *edit.aliases)),
            )
            for question, edit, text in zip(asked, edits, said, strict=True)
        ]

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


def missing_networks(lm: LanguageModel, folder: Path | None) -> dict[str, str]:
    """The methods whose trained network is not there for this model, with the command that trains it."""
    from editors.hypernetworks import TRAINED, file_name

    found = {}
    for kind in ("mend", "ke"):
        name = file_name(kind, lm.fingerprint)
        if not any((place / name).is_file() for place in (TRAINED, folder) if place is not None):
            found[kind] = (
                f"needs a network trained for this model: python -m app train {kind} --model {lm.name} (minutes)"
            )
    return found


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
        on_top_of=entry.on_top_of,
        imported_from=entry.imported_from,
        locality_before=entry.locality.before if entry.locality else None,
        locality_after=entry.locality.after if entry.locality else None,
        locality_n=entry.locality.n if entry.locality else 0,
        warnings=entry.warnings,
        layer_source=entry.layer_source,
    )
