"""The tables of the edit memory, and the record a fact is read into.

Portable SQL only: what SQLite needs beyond it stands in :mod:`memory.database`, and the partial unique index is
declared for SQLite and PostgreSQL alike. Times are UTC. Events are only ever appended; the index, the history and
undo are all derived from them.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)

# Status of a fact
CURRENT = "current"  # in force
SUPERSEDED = "superseded"  # replaced by a newer fact about the same thing; kept as history
PAST = "past"  # entered with an end that lies before now; kept as history
RETIRED = "retired"  # taken out by somebody; kept as history

FUNCTIONAL = "functional"  # one object at a time: a new one supersedes the old
MULTI = "multi"  # several objects hold at once

SHARED = "shared"  # the namespace that everybody reads beside their own
DEFAULT_NAMESPACE = "default"


class UTCDateTime(TypeDecorator[datetime]):
    """Aware UTC datetimes on every database (SQLite would drop the zone)."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else as_utc(value).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


def now() -> datetime:
    return datetime.now(UTC)


def as_utc(value: datetime) -> datetime:
    """The same instant in UTC; a time without a zone is taken to be UTC."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def text_hash(text: str) -> str:
    """SHA-256 of a statement: tells whether a stored vector is of this very text."""
    return hashlib.sha256(text.encode()).hexdigest()


metadata = MetaData()

fact = Table(
    "fact",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("uuid", String(32), nullable=False, unique=True),
    Column("namespace", String(200), nullable=False),
    Column("subject", Text, nullable=False),
    Column("relation", Text),  # id of a relation of the world, or the user's own word; None for a bare sentence
    Column("object", Text, nullable=False),
    Column("subject_key", Text, nullable=False),  # NFKC + casefold: conflicts are decided on keys, never on similarity
    Column("relation_key", Text, nullable=False),
    Column("object_key", Text, nullable=False),
    Column("cardinality", String(16), nullable=False),
    Column("statement", Text, nullable=False),  # the fact as one sentence; this is what is embedded
    Column("prompt", Text),  # "The capital of {} is"
    Column("question", Text),
    Column("target_true", Text),  # what the model said before, where known
    Column("object_aliases", JSON, nullable=False),  # other names of the object that count as right
    Column("valid_from", UTCDateTime, nullable=False),
    Column("valid_to", UTCDateTime),
    Column("recorded_at", UTCDateTime, nullable=False),
    Column("retired_at", UTCDateTime),
    Column("status", String(16), nullable=False),
    Column("supersedes_id", Integer),
    Column("reason", Text),
    Column("source", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Index("ix_fact_subject", "subject_key", "namespace"),
    Index("ix_fact_status", "namespace", "status", "id"),
    Index(
        "uq_fact_current",
        "namespace",
        "subject_key",
        "relation_key",
        unique=True,
        sqlite_where=text("status = 'current' AND cardinality = 'functional'"),
        postgresql_where=text("status = 'current' AND cardinality = 'functional'"),
    ),
    sqlite_autoincrement=True,  # an id is never given twice, also after a purge: events and the index rely on it
)

# Beside the facts and not in them, so that listing facts does not drag 1.5 KB a row through the page cache.
embedding = Table(
    "embedding",
    metadata,
    Column("fact_id", Integer, ForeignKey("fact.id", ondelete="CASCADE"), primary_key=True),
    Column("embedder_id", Text, nullable=False),
    Column("text_sha256", String(64), nullable=False),
    Column("vector", LargeBinary, nullable=False),  # float32, little endian, length 1
)

alias = Table(
    "alias",
    metadata,
    Column("namespace", String(200), primary_key=True),
    Column("alias_key", Text, primary_key=True),
    Column("subject_key", Text, primary_key=True),
    Column("alias", Text, nullable=False),
    Index("ix_alias_subject", "subject_key"),
)

_TURNS_OVER = text("inverts IS NOT NULL")
event = Table(
    "event",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("action", Integer, nullable=False, index=True),  # seq of the action's first event; one action = one undo
    Column("inverts", Integer),  # the action that an undo or redo turns over
    Column("namespace", String(200), nullable=False),
    Column("fact_id", Integer, nullable=False, index=True),
    Column("op", String(16), nullable=False),  # add, supersede, edit, retire, restore, undo, redo, purge
    Column("before_json", JSON(none_as_null=True)),
    Column("after_json", JSON(none_as_null=True)),
    Column("actor", Text, nullable=False),
    Column("at", UTCDateTime, nullable=False),
    # undo and redo ask for the few events that turn another over
    Index("ix_event_inverts", "inverts", sqlite_where=_TURNS_OVER, postgresql_where=_TURNS_OVER),
    sqlite_autoincrement=True,
)

correction = Table(  # MemPrompt: what the user meant, in words, keyed by the question that was misunderstood
    "correction",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("namespace", String(200), nullable=False, index=True),
    Column("question", Text, nullable=False),
    Column("correction", Text, nullable=False),
    Column("embedder_id", Text, nullable=False),
    Column("vector", LargeBinary, nullable=False),
    Column("actor", Text, nullable=False),
    Column("recorded_at", UTCDateTime, nullable=False),
    sqlite_autoincrement=True,
)

correction_end = Table(  # a correction taken back; its row stays, so that it can be had again
    "correction_end",
    metadata,
    Column("correction_id", Integer, ForeignKey("correction.id", ondelete="CASCADE"), primary_key=True),
    Column("actor", Text, nullable=False),
    Column("at", UTCDateTime, nullable=False),
)

document = Table(  # ids and metadata of facts that came as LangChain documents
    "document",
    metadata,
    Column("namespace", String(200), primary_key=True),
    Column("id", String(300), primary_key=True),
    Column("fact_id", Integer, ForeignKey("fact.id", ondelete="CASCADE"), nullable=False, unique=True),
    Column("metadata", JSON, nullable=False),
)

meta = Table(
    "memory_meta", metadata, Column("key", String(64), primary_key=True), Column("value", Text, nullable=False)
)
SCHEMA_VERSION = "1"


@dataclass(frozen=True, slots=True)
class StoredFact:
    """A fact as it stands in the store."""

    id: int
    uuid: str
    namespace: str
    subject: str
    relation: str | None
    object: str
    statement: str
    prompt: str | None
    question: str | None
    target_true: str | None
    status: str
    cardinality: str
    valid_from: datetime
    valid_to: datetime | None
    recorded_at: datetime
    retired_at: datetime | None
    supersedes_id: int | None
    reason: str | None
    source: str
    actor: str
    subject_key: str
    relation_key: str
    object_key: str
    object_aliases: tuple[str, ...] = ()

    @property
    def current(self) -> bool:
        return self.status == CURRENT

    def in_force(self, at: datetime) -> bool:
        """True when the fact holds at that time (and was not taken out)."""
        return self.status != RETIRED and self.valid_from <= at and (self.valid_to is None or at < self.valid_to)

    def to_json(self) -> dict[str, Any]:
        """Plain data, times as ISO 8601."""
        return {name: _plain(value) for name, value in asdict(self).items()}


_TIMES = ("valid_from", "valid_to", "recorded_at", "retired_at")
FIELDS = tuple(StoredFact.__slots__)


def fact_from_row(row: dict[str, Any]) -> StoredFact:
    values = {name: row[name] for name in FIELDS}
    values["object_aliases"] = tuple(values["object_aliases"] or ())
    return StoredFact(**values)


def row_to_json(row: dict[str, Any]) -> dict[str, Any]:
    """A fact's columns as they go into an event."""
    return {name: _plain(row[name]) for name in FIELDS}


def row_from_json(data: dict[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`row_to_json`."""
    row = dict(data)
    for name in _TIMES:
        if row.get(name) is not None:
            row[name] = datetime.fromisoformat(row[name])
    return row


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value
