"""More of the ledger of weight edits: what was computed on top of what, making it again, changes from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.engine import Engine
from app.served import Served
from app.views import EntryView
from app.weight_desk import entry_view
from knowledge.errors import InvalidInput, PalimpsestError

if TYPE_CHECKING:
    from editors.ledger import Entry


class LedgerDesk:
    """Over the engine's ledger; all of it needs the model."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def entry(self, entry_id: int) -> Entry:
        """The whole entry, with its norms, its locality sample and its warnings."""
        return self._engine.ledger.get(entry_id)

    def dependents(self, entry_id: int) -> list[EntryView]:
        """Later entries that were computed while this one was active: they are exact without it all the same, but
        were made for a model that had it."""
        return [entry_view(entry) for entry in self._engine.ledger.dependents(entry_id)]

    def recompute(
        self, entry_ids: Sequence[int], *, progress: Callable[[float, str], None] | None = None
    ) -> list[EntryView]:
        """Makes entries again, in their order, on what is active now; each takes the old one's place.

        What the model says already is made again all the same: another entry may say it that is next.

        Raises:
            PalimpsestError: an unknown, undone or imported entry (nothing is done then), or the editor refuses one;
                the message says which are done and which stay as they were.
        """
        from editors.registry import get_editor

        ledger, numbers = self._engine.ledger, sorted(dict.fromkeys(entry_ids))
        entries = [ledger.remakeable(number) for number in numbers]
        made: list[EntryView] = []
        served = Served(self._engine.store.engine)
        for place, entry in enumerate(entries):
            settings = settings_of(entry.method, entry.settings)
            editor = get_editor(entry.method, moments=self._engine.moments, refuse_known=False, **settings)
            try:
                made.append(entry_view(ledger.recompute(entry.id, editor, progress=progress)))
                served.moved(entry.id, made[-1].id)
            except PalimpsestError as error:
                done = ", ".join(f"#{old} (now #{new.id})" for old, new in zip(numbers, made, strict=False)) or "none"
                left = ", ".join(f"#{number}" for number in numbers[place:])
                raise InvalidInput(
                    f"Weight edit {entry.id} could not be made again: {error} Made again: {done}. As before: {left}."
                ) from error
        return made

    def bring_in(self, path: Path, *, name: str | None = None) -> EntryView:
        """A change from elsewhere as an entry: our own export, or a plain LoRA adapter of peft.

        Args:
            name: what the entry says it came from; the path by default.

        Raises:
            PalimpsestError: it cannot be read, or was made for a model of other shapes.
        """
        from editors.importing import read_change

        ledger = self._engine.ledger
        return entry_view(ledger.add(read_change(ledger.lm, path), source=name or str(path)))


def settings_of(method: str, kept: dict[str, Any]) -> dict[str, Any]:
    """An entry's settings, as JSON kept them, as the editor takes them."""
    from editors.registry import get_editor

    usual = get_editor(method).Settings()

    def made(value: Any, like: Any) -> Any:
        if isinstance(value, dict) and is_dataclass(like) and not isinstance(like, type):
            return replace(like, **{name: made(part, getattr(like, name)) for name, part in value.items()})
        return tuple(value) if isinstance(value, list) else value

    found = {name: made(value, getattr(usual, name)) for name, value in kept.items() if hasattr(usual, name)}
    # Ledgers of earlier versions kept a part (values, rehearsal) as words, which nothing can be made of.
    return {name: value for name, value in found.items() if is_dataclass(value) == is_dataclass(getattr(usual, name))}
