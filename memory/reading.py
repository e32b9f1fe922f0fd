"""Queries of the fact table; each takes the connection of a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, or_, select

from memory import journal, schema
from memory.errors import FactNotFound
from memory.journal import Event, Row
from memory.schema import CURRENT, PAST, RETIRED, SUPERSEDED, StoredFact, fact_from_row


@dataclass(frozen=True, slots=True)
class Filter:
    """Which facts to list or count."""

    namespace: str | None = None
    status: str | None = CURRENT
    subject_key: str | None = None
    relation_key: str | None = None
    contains: str | None = None
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One thing that happened to a fact."""

    seq: int
    action: int
    op: str
    actor: str
    at: datetime
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    undone: bool

    @property
    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Field to (old, new), of the fields that changed."""
        before, after = self.before or {}, self.after or {}
        return {
            name: (before.get(name), after.get(name))
            for name in schema.FIELDS
            if before.get(name) != after.get(name) and (before or name in ("statement", "status"))
        }

    def to_json(self) -> dict[str, Any]:
        changes = {name: list(pair) for name, pair in self.changes.items()}
        return {
            "seq": self.seq,
            "action": self.action,
            "op": self.op,
            "actor": self.actor,
            "at": self.at.isoformat(),
            "undone": self.undone,
            "changes": changes,
        }


def row(connection: Connection, fact_id: int, namespace: str | None = None) -> Row:
    """A fact's columns.

    Raises:
        FactNotFound: there is none (in this namespace).
    """
    query = select(schema.fact).where(schema.fact.c.id == fact_id)
    if namespace is not None:
        query = query.where(schema.fact.c.namespace == namespace)
    found = connection.execute(query).mappings().first()
    if found is None:
        raise FactNotFound(fact_id)
    return dict(found)


def get(connection: Connection, fact_id: int, namespace: str | None = None) -> StoredFact:
    return fact_from_row(row(connection, fact_id, namespace))


def listing(
    connection: Connection, where: Filter, limit: int | None, offset: int = 0, newest_first: bool = True
) -> list[StoredFact]:
    order = schema.fact.c.id.desc() if newest_first else schema.fact.c.id
    query = _filtered(select(schema.fact), where).order_by(order).limit(limit).offset(offset)
    return [fact_from_row(dict(found)) for found in connection.execute(query).mappings()]


def count(connection: Connection, where: Filter) -> int:
    return int(connection.execute(_filtered(select(func.count()).select_from(schema.fact), where)).scalar_one())


def _filtered(query: Select[Any], where: Filter) -> Select[Any]:
    column = schema.fact.c
    if where.namespace is not None:
        query = query.where(column.namespace == where.namespace)
    if where.as_of is not None:
        # In force then: begun, not ended; a fact that was taken out later was in force until it was.
        query = query.where(
            column.valid_from <= where.as_of,
            or_(column.valid_to.is_(None), column.valid_to > where.as_of),
            or_(column.status.in_((CURRENT, SUPERSEDED, PAST)), column.retired_at > where.as_of),
        )
    elif where.status is not None:
        query = query.where(column.status == where.status)
    if where.subject_key is not None:
        query = query.where(column.subject_key == where.subject_key)
    if where.relation_key is not None:
        query = query.where(column.relation_key == where.relation_key)
    if where.contains:
        pattern = where.contains.lower().replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
        query = query.where(func.lower(column.statement).like(f"%{pattern}%", escape="\\"))
    return query


def about(
    connection: Connection, keys: Sequence[str], namespaces: Sequence[str], limit: int, per_part: int = 400
) -> list[StoredFact]:
    """Facts that may be in force whose subject has one of the keys, or an alias that has."""
    column, alias = schema.fact.c, schema.alias.c
    facts: dict[int, StoredFact] = {}
    for start in range(0, len(keys), per_part):
        part = list(keys[start : start + per_part])
        named = select(alias.subject_key).where(alias.alias_key.in_(part), alias.namespace.in_(namespaces))
        wanted = {*part, *connection.execute(named).scalars()}
        query = (
            select(schema.fact)
            .where(
                column.subject_key.in_(wanted),
                column.namespace.in_(namespaces),
                column.status.in_((CURRENT, SUPERSEDED)),
                or_(column.valid_to.is_(None), column.valid_to > schema.now()),
            )
            .order_by(column.id.desc())
            .limit(limit)
        )
        for found in connection.execute(query).mappings():
            facts[found["id"]] = fact_from_row(dict(found))
    return list(facts.values())[:limit]


def aliases(connection: Connection, subject_key: str, namespaces: Sequence[str]) -> list[str]:
    column = schema.alias.c
    query = select(column.alias).where(column.subject_key == subject_key, column.namespace.in_(namespaces))
    return list(connection.execute(query.order_by(column.alias)).scalars())


def alias_table(connection: Connection, keys: Sequence[str], namespaces: Sequence[str]) -> dict[str, list[str]]:
    """Subject key to the aliases that users gave it."""
    column = schema.alias.c
    query = select(column.subject_key, column.alias).where(
        column.subject_key.in_(keys), column.namespace.in_(namespaces)
    )
    table: dict[str, list[str]] = {}
    for key, name in connection.execute(query):
        table.setdefault(key, []).append(name)
    return table


def events_of_action(connection: Connection, action: int) -> list[Event]:
    return journal.events(connection, schema.event.c.action == action)


def history(connection: Connection, fact_id: int, namespace: str | None = None) -> list[HistoryEntry]:
    conditions = [schema.event.c.fact_id == fact_id]
    if namespace is not None:
        conditions.append(schema.event.c.namespace == namespace)
    undone = journal.undone_actions(connection)
    return [
        HistoryEntry(
            seq=item.seq,
            action=item.action,
            op=item.op,
            actor=item.actor,
            at=item.at,
            before=item.before,
            after=item.after,
            undone=item.action in undone,
        )
        for item in journal.events(connection, *conditions)
    ]


def namespaces(connection: Connection) -> dict[str, int]:
    column = schema.fact.c
    query = select(column.namespace, func.count()).where(column.status != RETIRED).group_by(column.namespace)
    return {name: int(number) for name, number in connection.execute(query.order_by(column.namespace))}
