"""The ledger of weight edits: what was written over the model, by which method, and whether it counts now.

    ledger = WeightLedger(engine, lm, folder)
    entry = ledger.apply(get_editor("r-rome"), [edit])
    ledger.undo(entry.id); ledger.redo(entry.id); ledger.set_active(entry.id, False)
    ledger.dependents(entry.id)                    # later entries that were computed on top of it
    lm.generate(prompts, overlays=[ledger.overlay()] * len(prompts))

Entries are rows of a table, their factors safetensors files beside it. The edited model is the untouched base plus the
sum of the active entries, so any of them goes in any order, exactly.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from editors.base import Editor, Progress
from editors.compacting import compacted
from editors.entries import Base, Check, Entry, Origin, Row, entry_of
from editors.export import adds_parameters, export_overlay
from editors.guard import Guard
from knowledge.edit import Edit
from knowledge.errors import PalimpsestError
from language_model.model import LanguageModel
from language_model.overlay import Overlay

log = logging.getLogger(__name__)


_MANY = 16  # entries of one module that are summed into one matrix, where that is less to compute


def _plain(value: Any) -> Any:
    """Settings of a part (values, rehearsal) by name."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


class LedgerError(PalimpsestError):
    """An entry of the ledger cannot be used as asked."""


class WeightLedger:
    """The edits of one model, kept in a database and a folder.

    Args:
        engine: the program's database; the ledger makes its own table.
        lm: the model that the entries are for. Entries of other models are listed, but never used.
        folder: where factors are kept.
        guard: measures what an edit does beyond its facts, and warns or refuses past a limit; none by default.
    """

    def __init__(self, engine: Engine, lm: LanguageModel, folder: Path, *, guard: Guard | None = None) -> None:
        self.engine, self.lm, self.folder = engine, lm, Path(folder)
        self.guard = guard
        self._lock = threading.RLock()
        self._overlays: dict[int, Overlay] = {}
        self._sum: tuple[tuple[int, ...], Overlay] = ((), Overlay.empty())
        self.folder.mkdir(parents=True, exist_ok=True)
        Base.metadata.create_all(engine)

    @contextmanager
    def guarded_by(self, guard: Guard | None) -> Iterator[None]:
        """What is written within is watched over by another guard (None: by none); other threads wait."""
        with self._lock:
            usual, self.guard = self.guard, guard
            try:
                yield
            finally:
                self.guard = usual

    def apply(self, editor: Editor[Any], edits: Sequence[Edit], *, progress: Progress | None = None) -> Entry:
        """Computes edits on top of the active ones and switches them on.

        Raises:
            EditRefused: the editor cannot make them; the ledger stays as it was.
        """
        with self._lock:
            before = [entry for entry in self.entries() if entry.active and entry.usable]
            earlier = [edit for entry in before for edit in entry.edits]
            started = time.perf_counter()
            overlay = editor.edit(self.lm, edits, base=self.overlay(), earlier=earlier, progress=progress)
            seconds = time.perf_counter() - started
            row = self._keep(
                overlay, editor.name, edits, editor.overrides, before, seconds, editor.layer_source(self.lm)
            )
            log.info("weight edit %d by %s: %d edits in %.1f s", row.id, editor.name, len(edits), seconds)
            return self.get(row.id)

    def add(self, overlay: Overlay, *, source: str, method: str = "imported", edits: Sequence[Edit] = ()) -> Entry:
        """Keeps a change that was made elsewhere as an entry, and switches it on.

        Raises:
            OverlayMismatch: it does not fit the model.
            LedgerError: an entry that is not undone is this very change; twice it would count twice.
        """
        with self._lock:
            self.lm.hooks.prepare([overlay])
            self._must_be_new(overlay)
            before = [entry for entry in self.entries() if entry.active and entry.usable]
            row = self._keep(overlay, method, edits, {"imported_from": source}, before, 0.0)
            return self.get(row.id)

    def _keep(
        self,
        overlay: Overlay,
        method: str,
        edits: Sequence[Edit],
        settings: dict[str, Any],
        before: Sequence[Entry],
        seconds: float,
        layers: str = "",
    ) -> Row:
        """Writes a computed change as a file, a row, and a row of what the guard saw; all or nothing."""
        norms = overlay.norms(self.lm)
        avoid = [*edits, *(edit for entry in before for edit in entry.edits)]
        guard = self.guard
        sample = guard.sample if guard else None
        taken = sample.measure(self.lm, self.overlay(), overlay, avoid, near=edits) if sample else None
        warnings = guard.check(norms, taken, guard.limits(self.lm, norms)) if guard else ()
        for warning in warnings:
            log.warning("%s: %s", method, warning)
        name = f"{uuid4().hex}.safetensors"
        overlay.save(self.folder / name)
        row = Row(
            method=method,
            model=self.lm.name,
            fingerprint=self.lm.fingerprint,
            edits=json.dumps([edit.to_dict() for edit in edits], ensure_ascii=False),
            settings=json.dumps(settings, default=_plain),
            norms=json.dumps(norms),
            on_top_of=json.dumps([entry.id for entry in before]),
            modules=json.dumps(overlay.modules),
            file=name,
            active=True,
            undone=False,
            seconds=seconds,
            created_at=datetime.now(UTC),
        )
        try:
            with Session(self.engine, expire_on_commit=False) as session, session.begin():
                session.add(row)
                session.flush()
                check = Check(entry_id=row.id, sample=taken.n if taken else 0, warnings=json.dumps(warnings))
                check.before, check.after = (taken.before, taken.after) if taken else (None, None)
                session.merge(check)
                session.merge(Origin(entry_id=row.id, layers=layers))
        except BaseException:
            (self.folder / name).unlink(missing_ok=True)
            raise
        self._overlays[row.id] = overlay
        return row

    def recompute(self, entry_id: int, editor: Editor[Any], *, progress: Progress | None = None) -> Entry:
        """Makes an entry's edits again on what is active now, in place of the entry, which is undone.

        Args:
            editor: as a rule the entry's own method with the entry's settings.

        Raises:
            LedgerError: as :meth:`remakeable`.
            EditRefused: the edits cannot be made now; the entry stays as it was.
        """
        with self._lock:
            old = self.remakeable(entry_id)
            self.undo(entry_id)
            try:
                return self.apply(editor, old.edits, progress=progress)
            except BaseException:
                self.redo(entry_id)
                raise

    def remakeable(self, entry_id: int) -> Entry:
        """An entry that can be made again.

        Raises:
            LedgerError: there is none of that number, it was imported, so that its facts are not known, or undone.
        """
        entry = self.get(entry_id)
        if not entry.edits:
            raise LedgerError(f"Weight edit {entry_id} was imported: what it says is not known, so it stays.")
        if entry.undone:
            raise LedgerError(f"Weight edit {entry_id} was undone. Redo it first.")
        return entry

    def entries(self, include_undone: bool = False) -> list[Entry]:
        """All entries in the order of their making; undone ones on request."""
        query = select(Row).order_by(Row.id)
        if not include_undone:
            query = query.where(Row.undone.is_(False))
        with Session(self.engine) as session:
            checks = {check.entry_id: check for check in session.scalars(select(Check))}
            origins = {origin.entry_id: origin for origin in session.scalars(select(Origin))}
            return [self._entry(row, checks.get(row.id), origins.get(row.id)) for row in session.scalars(query)]

    def get(self, entry_id: int) -> Entry:
        """One entry, undone or not.

        Raises:
            LedgerError: there is none of that number.
        """
        with Session(self.engine) as session:
            found = self._find(session, entry_id)
            return self._entry(found, session.get(Check, entry_id), session.get(Origin, entry_id))

    def set_active(self, entry_id: int, active: bool) -> Entry:
        """Switches an entry on or off.

        Raises:
            LedgerError: unknown, undone, or made for another model.
        """
        return self._change(entry_id, active=active)

    def undo(self, entry_id: int) -> Entry:
        """Takes an entry out of the list and out of the model; :meth:`redo` brings it back."""
        return self._change(entry_id, undone=True)

    def redo(self, entry_id: int) -> Entry:
        """Brings back what was undone, as active or inactive as it was."""
        return self._change(entry_id, undone=False)

    def dependents(self, entry_id: int) -> list[Entry]:
        """Later entries, not undone, that were computed while this one was active."""
        return [entry for entry in self.entries() if entry_id in entry.on_top_of]

    def overlay(self) -> Overlay:
        """The sum of the active entries of this model; the same object until something changes.

        Raises:
            LedgerError: the factors of an active entry are missing or damaged.
        """
        with self._lock:
            chosen = [entry for entry in self.entries() if entry.active and entry.usable]
            ids = tuple(entry.id for entry in chosen)
            if ids != self._sum[0]:
                total = Overlay.empty()
                for number in ids:
                    total = total + self._load(number)
                self._sum = ids, compacted(total, least=_MANY)
            return self._sum[1]

    def overlay_of(self, entry_id: int) -> Overlay:
        """One entry's own change, whether or not it is active."""
        entry = self.get(entry_id)
        self._must_fit(entry)
        return self._load(entry.id)

    def export(
        self,
        path: str | Path,
        *,
        entry_ids: Sequence[int] | None = None,
        format: Literal["peft", "merged", "safetensors"] = "peft",
    ) -> Path:
        """Writes entries (the active ones by default) as something that other programs load.

        Raises:
            LedgerError: nothing to export, an unknown format, an entry of another model, or added parameters in a
                format that only knows weights.
        """
        ids = (
            [entry.id for entry in self.entries() if entry.active and entry.usable] if entry_ids is None else entry_ids
        )
        if not ids:
            raise LedgerError("There is nothing to export: no weight edit is active. Apply one, or name entries.")
        total, added = Overlay.empty(), []
        for number in ids:
            part = self.overlay_of(number)
            added += [f"#{number} ({self.get(number).method})"] if adds_parameters(part) else []
            total = total + part
        if added and format in ("peft", "merged"):
            raise LedgerError(
                f"Cannot be written as {format}: {', '.join(added)}. Such an entry adds parameters that act on a "
                f"layer's output and changes no weight. Name the other entries, or export as safetensors."
            )
        return export_overlay(self.lm, total, Path(path), format)

    def _change(self, entry_id: int, **values: bool) -> Entry:
        with self._lock, Session(self.engine, expire_on_commit=False) as session, session.begin():
            row = self._find(session, entry_id)
            if values.get("active") or values.get("undone") is False:
                self._must_fit(self._entry(row))
            if "active" in values and row.undone:
                raise LedgerError(f"Weight edit {entry_id} was undone. Redo it first.")
            if "undone" in values and values["undone"] == row.undone:
                state = "undone already" if row.undone else "not undone"
                raise LedgerError(f"Weight edit {entry_id} is {state}; nothing was changed.")
            for name, value in values.items():
                setattr(row, name, value)
            session.flush()
            return self._entry(row, session.get(Check, entry_id), session.get(Origin, entry_id))

    def _find(self, session: Session, entry_id: int) -> Row:
        row = session.get(Row, entry_id)
        if row is None:
            known = [str(number) for number in session.scalars(select(Row.id).order_by(Row.id))]
            raise LedgerError(f"There is no weight edit {entry_id}. Known: {', '.join(known) or 'none yet'}.")
        return row

    def _must_be_new(self, overlay: Overlay) -> None:
        for entry in self.entries():
            if not entry.usable or set(entry.modules) != set(overlay.modules):
                continue
            try:
                same = self._load(entry.id).same_as(overlay)
            except LedgerError:  # damaged, which is told where it is used
                continue
            if same:
                state = "on: undo it first to import it anew" if entry.active else "off: switch it on instead"
                raise LedgerError(
                    "This change is in the ledger already; laid over the model twice it would count twice. "
                    f"It is weight edit {entry.id} ({entry.method}), {state}."
                )

    def _must_fit(self, entry: Entry) -> None:
        if not entry.usable:
            raise LedgerError(
                f"Weight edit {entry.id} was made for the model {entry.model!r} "
                f"(fingerprint {entry.fingerprint[:12]}), "
                f"but {self.lm.name!r} (fingerprint {self.lm.fingerprint[:12]}) is loaded. "
                "Load that model to use it, or apply the edit again on this one."
            )

    def _load(self, entry_id: int) -> Overlay:
        if entry_id not in self._overlays:
            with Session(self.engine) as session:
                path = self.folder / self._find(session, entry_id).file
            try:
                self._overlays[entry_id] = Overlay.load(path)
            except PalimpsestError as error:
                raise LedgerError(
                    f"The factors of weight edit {entry_id} cannot be read: {error} "
                    f"Undo this entry to go on without it."
                ) from error
        return self._overlays[entry_id]

    def _entry(self, row: Row, check: Check | None = None, origin: Origin | None = None) -> Entry:
        return entry_of(row, check, self.lm.fingerprint, origin)
