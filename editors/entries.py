"""What the ledger keeps: its tables, and an entry as callers see it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Boolean, DateTime, Float, Integer, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from editors.guard import Locality
from knowledge.edit import Edit


class Base(DeclarativeBase):
    pass


class Row(Base):
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


class Check(Base):
    """What the guard saw of an entry; a table of its own, since ledgers of earlier versions have none."""

    __tablename__ = "weight_edit_check"

    entry_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    before: Mapped[float | None] = mapped_column(Float)
    after: Mapped[float | None] = mapped_column(Float)
    sample: Mapped[int] = mapped_column(Integer, default=0)
    warnings: Mapped[str] = mapped_column(Text)


class Origin(Base):
    """Why an entry changes the layers that it does; a table of its own for the same reason."""

    __tablename__ = "weight_edit_origin"

    entry_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    layers: Mapped[str] = mapped_column(Text)


@dataclass(frozen=True)
class Entry:
    """One applied edit or batch.

    Attributes:
        modules: names of the changed modules.
        norms: |delta| / |W| by module; empty for added parameters.
        on_top_of: ids of the entries that were active when this one was computed.
        usable: False where it was made for another model than the one that is loaded.
        locality: the locality sample before and after; None where it was not taken.
        warnings: what was past the guard's limits when the entry was made.
        layer_source: why these layers: as set, published, from causal tracing, or by which rule; empty where unknown.
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
    locality: Locality | None = None
    warnings: tuple[str, ...] = ()
    layer_source: str = ""

    @property
    def imported_from(self) -> str | None:
        """Where an imported entry came from."""
        return self.settings.get("imported_from")

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
            "layer_source": self.layer_source,
            "relative_norm": self.relative_norm,
            "norms": self.norms,
            "active": self.active,
            "undone": self.undone,
            "created_at": self.created_at.isoformat(),
            "seconds": self.seconds,
            "model": self.model,
            "usable": self.usable,
            "locality": None if self.locality is None else vars(self.locality),
            "warnings": list(self.warnings),
            "on_top_of": list(self.on_top_of),
        }


def entry_of(row: Row, check: Check | None, fingerprint: str, origin: Origin | None = None) -> Entry:
    """A row as an entry, for the model of that fingerprint."""
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
        usable=row.fingerprint == fingerprint,
        locality=_locality(check),
        warnings=tuple(json.loads(check.warnings)) if check is not None else (),
        layer_source=origin.layers if origin is not None else "",
    )


def _locality(check: Check | None) -> Locality | None:
    if check is None or check.before is None or check.after is None:
        return None
    return Locality(check.before, check.after, check.sample)
