"""The ledger of weight edits: what was written over the model, by which method, and whether it counts now.

    ledger = WeightLedger(engine, lm, folder)
    entry = ledger.apply(get_editor("r-rome"), [edit])
    ledger.undo(entry.id); ledger.redo(entry.id); ledger.set_active(entry.id, False)
    lm.generate(prompts, overlays=[ledger.overlay()] * len(prompts))

Entries are rows of a table, their factors safetensors files beside it. The edited model is the untouched base plus the
sum of the active entries, so any of them goes in any order, exactly.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy import Boolean, DateTime, Engine, Float, Integer, String, Text, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from editors.base import Editor, Progress
from editors.export import export_overlay
from knowledge.edit import Edit
from knowledge.errors import PalimpsestError
from language_model.model import LanguageModel
from language_model.overlay import Overlay

log = logging.getLogger(__name__)


class LedgerError(PalimpsestError):
    """An entry of the ledger cannot be used as asked."""


class _Base(DeclarativeBase):
    pass


class _Row(_Base):
    """One weight edit. ``file`` is relative to the ledger's folder."""

    __tablename__ = "weight_edit"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    method: Mapped[str] = mapped_column(String(40))
    model: Mapped[str] = mapped_column(String(400))
    fingerprint: Mapped[str] = mapped_column(String(80), index=True)
    edits: Mapped[str] = mapped_column(Text)
    settings: Mapped[str] = mapped_column(Text)
    norms: Mapped[str] = mapped_column(Text)
    on_top_of: Mapped[str] = mapped_column(Text)
    modules: Mapped[str] = mapped_column(Text)
    file: Mapped[str] = mapped_column(String(200))
    active: Mapped[bool] = mapped_column(Boolean, default=True)
    undone: Mapped[bool] = mapped_column(Boolean, default=False)
    seconds: Mapped[float] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


@dataclass(frozen=True)
class Entry:
    """One applied edit or batch.

    Attributes:
        modules: names of the changed modules.
        norms: |delta| / |W| by module; empty for added parameters.
        on_top_of: ids of the entries that were active when this one was computed.
        usable: False where it was made for another model than the one that is loaded.
    """

    id: int
    method: str
    edits: tuple[Edit, ...]
    modules: tuple[str, ...]
    norms: dict[str, float]
    active: bool
    undone: bool
    created_at: datetime
    seconds: float
    fingerprint: str
    model: str
    on_top_of: tuple[int, ...]
    settings: dict[str, Any]
    usable: bool

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the changed layers, rising."""
        numbers = {int(part) for name in self.modules for part in name.split(".") if part.isdigit()}
        return tuple(sorted(numbers))

    @property
    def relative_norm(self) -> float:
        """The largest |delta| / |W| of any module; 0 for added parameters."""
        return max(self.norms.values(), default=0.0)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "method": self.method,
            "edits": [edit.to_dict() for edit in self.edits],
            "statements": [edit.statement for edit in self.edits],
            "layers": list(self.layers),
            "relative_norm": self.relative_norm,
            "norms": self.norms,
            "active": self.active,
            "undone": self.undone,
            "created_at": self.created_at.isoformat(),
            "seconds": self.seconds,
            "model": self.model,
            "usable": self.usable,
        }


class WeightLedger:
    """The edits of one model, kept in a database and a folder.

    Args:
        engine: the program's database; the ledger makes its own table.
        lm: the model that the entries are for. Entries of other models are listed, but never used.
        folder: where factors are kept.
    """

    def __init__(self, engine: Engine, lm: LanguageModel, folder: Path) -> None:
        self.engine, self.lm, self.folder = engine, lm, Path(folder)
        self._lock = threading.RLock()
        self._overlays: dict[int, Overlay] = {}
        self._sum: tuple[tuple[int, ...], Overlay] = ((), Overlay.empty())
        self.folder.mkdir(parents=True, exist_ok=True)
        _Base.metadata.create_all(engine)

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
            name = f"{uuid4().hex}.safetensors"
            overlay.save(self.folder / name)
            row = _Row(
                method=editor.name,
                model=self.lm.name,
                fingerprint=self.lm.fingerprint,
                edits=json.dumps([edit.to_dict() for edit in edits], ensure_ascii=False),
                settings=json.dumps(editor.overrides, default=str),
                norms=json.dumps(overlay.norms(self.lm)),
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
            except BaseException:
                (self.folder / name).unlink(missing_ok=True)
                raise
            self._overlays[row.id] = overlay
            log.info("weight edit %d by %s: %d edits in %.1f s", row.id, editor.name, len(edits), seconds)
            return self._entry(row)

    def entries(self, include_undone: bool = False) -> list[Entry]:
        """All entries in the order of their making; undone ones on request."""
        query = select(_Row).order_by(_Row.id)
        if not include_undone:
            query = query.where(_Row.undone.is_(False))
        with Session(self.engine) as session:
            return [self._entry(row) for row in session.scalars(query)]

    def get(self, entry_id: int) -> Entry:
        """One entry, undone or not.

        Raises:
            LedgerError: there is none of that number.
        """
        with Session(self.engine) as session:
            return self._entry(self._find(session, entry_id))

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
                self._sum = ids, total
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
        total = Overlay.empty()
        for number in ids:
            total = total + self.overlay_of(number)
        return export_overlay(self.lm, total, Path(path), format)

    def _change(self, entry_id: int, **values: bool) -> Entry:
        with self._lock, Session(self.engine, expire_on_commit=False) as session, session.begin():
            row = self._find(session, entry_id)
            if values.get("active") or values.get("undone") is False:
                self._must_fit(self._entry(row))
            if "active" in values and row.undone:
                raise LedgerError(f"Weight edit {entry_id} was undone. Redo it first.")
            for name, value in values.items():
                setattr(row, name, value)
            session.flush()
            return self._entry(row)

    def _find(self, session: Session, entry_id: int) -> _Row:
        row = session.get(_Row, entry_id)
        if row is None:
            known = [str(number) for number in session.scalars(select(_Row.id).order_by(_Row.id))]
            raise LedgerError(f"There is no weight edit {entry_id}. Known: {', '.join(known) or 'none yet'}.")
        return row

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

    def _entry(self, row: _Row) -> Entry:
        created = row.created_at if row.created_at.tzinfo else row.created_at.replace(tzinfo=UTC)
        return Entry(
            id=row.id,
            method=row.method,
            edits=tuple(Edit.from_dict(item) for item in json.loads(row.edits)),
            modules=tuple(json.loads(row.modules)),
            norms=json.loads(row.norms),
            active=row.active,
            undone=row.undone,
            created_at=created,
            seconds=row.seconds,
            fingerprint=row.fingerprint,
            model=row.model,
            on_top_of=tuple(json.loads(row.on_top_of)),
            settings=json.loads(row.settings),
            usable=row.fingerprint == self.lm.fingerprint,
        )
