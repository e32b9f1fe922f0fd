"""The append-only journal of one action, and what the facts are when some actions are taken back.

An action (an add, an edit, an import) writes one event for each fact it touched, with the fact before and after.
Undo never edits the past: it appends an action that ``inverts`` another. What a fact is then follows by *replaying*:
events are applied in order, those of undone actions left out. So any action can be undone and redone in any order,
and the result does not depend on the order in which that was done.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from memory import schema
from memory.schema import CURRENT, FUNCTIONAL, RETIRED, SUPERSEDED, row_from_json, row_to_json

Row = dict[str, Any]
UNDONE = "undone"  # reason of a fact whose creation was taken back


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the journal."""

    seq: int
    action: int
    inverts: int | None
    namespace: str
    fact_id: int
    op: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    actor: str
    at: datetime


class Journal:
    """Writes the events of one action inside a transaction.

    >>> journal = Journal(connection, "default", "user")
    >>> journal.record([("add", None, row)])
    """

    def __init__(
        self,
        connection: Connection,
        namespace: str,
        actor: str,
        *,
        inverts: int | None = None,
        action: int | None = None,
    ) -> None:
        self.connection = connection
        self.namespace = namespace
        self.actor = actor
        self.inverts = inverts
        self.action = action  # seq of the first event, once there is one
        self.at = schema.now()

    def record(self, changes: Iterable[tuple[str, Row | None, Row | None]]) -> None:
        """Appends (op, before, after) for each fact changed; rows carry their ``id``."""
        rows = [self._event(op, before, after) for op, before, after in changes]
        if not rows:
            return
        if self.action is None:
            first, rows = rows[0], rows[1:]
            seq = self.connection.execute(schema.event.insert().values(first)).inserted_primary_key
            assert seq is not None
            self.action = int(seq[0])
            own = schema.event.update().where(schema.event.c.seq == self.action).values(action=self.action)
            self.connection.execute(own)
        if rows:
            self.connection.execute(schema.event.insert(), [row | {"action": self.action} for row in rows])

    def _event(self, op: str, before: Row | None, after: Row | None) -> Row:
        known = after or before
        assert known is not None
        return {
            "action": self.action or 0,
            "inverts": self.inverts,
            "namespace": self.namespace,
            "fact_id": known["id"],
            "op": op,
            "before_json": row_to_json(before) if before else None,
            "after_json": row_to_json(after) if after else None,
            "actor": self.actor,
            "at": self.at,
        }


def events(connection: Connection, *conditions: Any, limit: int | None = None) -> list[Event]:
    """Events in order, filtered."""
    query = select(schema.event).where(*conditions).order_by(schema.event.c.seq)
    rows = connection.execute(query.limit(limit) if limit else query).mappings()
    return [_event_of(dict(row)) for row in rows]


def _event_of(row: Row) -> Event:
    before, after = row.pop("before_json"), row.pop("after_json")
    return Event(**row, before=before, after=after)


def undone_actions(connection: Connection, namespace: str | None = None) -> set[int]:
    """Actions that are taken back at present (undone, and not redone since)."""
    column = schema.event.c
    query = select(column.seq, column.inverts, column.op).where(column.inverts.is_not(None))
    if namespace is not None:
        query = query.where(column.namespace == namespace)
    undone: set[int] = set()
    for _, action, op in sorted(map(tuple, connection.execute(query))):  # sorted here: by seq, SQLite reads all events
        (undone.add if op == "undo" else undone.discard)(int(action))
    return undone


def replay(history: Iterable[Event], undone: set[int]) -> dict[int, Row]:
    """What facts are when undone actions are left out: their events, in order, by the rules of the store.

    A fact that comes into force ends the one in force about the same thing *now*, whichever that was when the event
    was written; recorded ``supersede`` events are therefore not applied but follow again.

    Args:
        history: all events of all facts that compete for the same (subject, relation).

    Returns:
        Rows by fact id; a fact whose creation is undone is missing.
    """
    rows: dict[int, Row] = {}
    for item in sorted(history, key=lambda event: event.seq):
        if item.inverts is not None or item.action in undone or item.after is None or item.op == "supersede":
            continue
        after = row_from_json(item.after)
        if item.before is None:
            row = rows[item.fact_id] = after
            end = row["valid_from"]
        elif item.fact_id in rows:
            before = row_from_json(item.before)
            row = rows[item.fact_id]
            row.update({name: value for name, value in after.items() if before.get(name) != value})
            end = max(row["valid_from"], item.at)
        else:
            continue
        for rival in rows.values():
            if rival is not row and _compete(row, rival):
                close(rival, end)
                row["supersedes_id"] = rival["id"]
    return rows


def _compete(first: Row, second: Row) -> bool:
    """Whether two facts cannot both be in force."""
    if first["status"] != CURRENT or second["status"] != CURRENT:
        return False
    if first["cardinality"] != FUNCTIONAL or second["cardinality"] != FUNCTIONAL:
        return False
    return all(first[name] == second[name] for name in ("namespace", "subject_key", "relation_key"))


def close(older: Row, end: datetime) -> None:
    """Ends the validity of a fact where a newer one begins (in place)."""
    older["status"] = SUPERSEDED
    older["valid_to"] = max(older["valid_from"], end)


def taken_back(row: Row, at: datetime) -> Row:
    """A fact whose creation is undone: out of force, kept as history."""
    return row | {"status": RETIRED, "retired_at": at, "valid_to": at, "reason": UNDONE}
