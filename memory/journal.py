"""The append-only journal of one action, and what the facts are when some actions are taken back.

An action (an add, an edit, an import) writes one event for each fact it touched, with the fact before and after.
Undo never edits the past: it appends an action that ``inverts`` another. What a fact is then follows by *folding*:
its events are applied in order, those of undone actions left out. So any action can be undone and redone in any
order, and the result does not depend on the order in which that was done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
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
    query = select(column.inverts, column.op).where(column.inverts.is_not(None)).order_by(column.seq)
    if namespace is not None:
        query = query.where(column.namespace == namespace)
    undone: set[int] = set()
    for action, op in connection.execute(query):
        (undone.add if op == "undo" else undone.discard)(int(action))
    return undone


def fold(history: Sequence[Event], undone: set[int]) -> tuple[Row | None, int]:
    """One fact from its events, those of undone actions left out.

    Returns:
        The row, None when its creation is undone, and the seq at which it last became current.
    """
    row: Row | None = None
    activated = 0
    for item in history:
        if item.inverts is not None or item.action in undone or item.after is None:
            continue
        after = row_from_json(item.after)
        if item.before is None:
            row, activated = after, item.seq
        elif row is not None:
            before = row_from_json(item.before)
            row = row | {name: value for name, value in after.items() if before.get(name) != value}
            if before["status"] != CURRENT and after["status"] == CURRENT:
                activated = item.seq
    return row, activated


def settle(rows: Sequence[tuple[Row, int]]) -> list[Row]:
    """At most one current fact for each functional (subject, relation): the one that became current last."""
    groups: dict[tuple[str, str, str], list[tuple[int, Row]]] = {}
    for row, activated in rows:
        if row["status"] == CURRENT and row["cardinality"] == FUNCTIONAL:
            key = (row["namespace"], row["subject_key"], row["relation_key"])
            groups.setdefault(key, []).append((activated, row))
    for members in groups.values():
        members.sort(key=lambda member: (member[0], member[1]["id"]))
        for (_, older), (_, newer) in pairwise(members):
            close(older, newer)
            newer["supersedes_id"] = older["id"]
    return [row for row, _ in rows]


def close(older: Row, newer: Row) -> None:
    """Ends the validity of a fact where a newer one begins (in place)."""
    older["status"] = SUPERSEDED
    older["valid_to"] = max(older["valid_from"], newer["valid_from"])


def taken_back(row: Row, at: datetime) -> Row:
    """A fact whose creation is undone: out of force, kept as history."""
    return row | {"status": RETIRED, "retired_at": at, "valid_to": at, "reason": UNDONE}
