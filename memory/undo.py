"""Taking actions back and making them again, in any order (see :mod:`memory.journal` for why that is well defined)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from memory import schema
from memory.embedder import Embedder
from memory.errors import NothingToUndo
from memory.journal import UNDONE, Event, Journal, Row, events, replay, taken_back, undone_actions
from memory.schema import FUNCTIONAL, StoredFact, fact_from_row
from memory.sync import store_vectors


@dataclass(frozen=True, slots=True)
class Action:
    """What was done, as a user sees it: one line of the history that can be undone."""

    id: int
    op: str
    namespace: str
    actor: str
    at: datetime
    fact_ids: tuple[int, ...]
    undone: bool
    facts: tuple[StoredFact, ...] = ()  # as they are now, where the caller asked for them


def actions(connection: Connection, namespace: str | None, limit: int) -> list[Action]:
    """The latest actions, newest first; undos and redos show as ``undone`` of what they concern."""
    column = schema.event.c
    conditions: list[ColumnElement[bool]] = [column.inverts.is_(None)]
    if namespace is not None:
        conditions.append(column.namespace == namespace)
    ids = select(column.action).where(*conditions).distinct().order_by(column.action.desc()).limit(limit)
    wanted = list(connection.execute(ids).scalars())
    undone = undone_actions(connection, namespace)
    query = (
        select(column.action, column.op, column.namespace, column.actor, column.at, column.fact_id)
        .where(column.action.in_(wanted))
        .order_by(column.seq)
    )
    found: dict[int, list[tuple[str, str, str, datetime, int]]] = {}
    for action, *rest in connection.execute(query):
        found.setdefault(action, []).append(tuple(rest))
    out = []
    for action in wanted:
        rows = found[action]
        op, space, actor, at, _ = rows[-1] if rows[0][0] == "supersede" else rows[0]
        out.append(Action(action, op, space, actor, at, tuple(row[4] for row in rows), action in undone))
    return out


def last_to_undo(connection: Connection, namespace: str) -> int:
    """The latest action that is in effect.

    Raises:
        NothingToUndo: there is none.
    """
    column = schema.event.c
    undone = undone_actions(connection, namespace)
    query = (
        select(column.action)
        .where(column.inverts.is_(None), column.namespace == namespace, column.op != "purge")
        .distinct()
        .order_by(column.action.desc())
    )
    for action in connection.execute(query).scalars():
        if action not in undone:
            return int(action)
    raise NothingToUndo("There is nothing to undo: no fact has been added or changed here.")


def last_to_redo(connection: Connection, namespace: str) -> int:
    """The action undone last, unless something new has been done since (then there is no way forward any more).

    Raises:
        NothingToUndo: there is none.
    """
    undone: list[int] = []
    column = schema.event.c
    query = select(column.action, column.inverts, column.op).where(column.namespace == namespace).order_by(column.seq)
    seen = None
    for action, inverts, op in connection.execute(query):
        if action == seen:
            continue
        seen = action
        if inverts is None:
            undone.clear()
        elif op == "undo":
            undone.append(int(inverts))
        elif inverts in undone:
            undone.remove(int(inverts))
    if not undone:
        raise NothingToUndo("There is nothing to redo: nothing was undone since the last change.")
    return undone[-1]


def turn_over(
    connection: Connection, embedder: Embedder, action: int, op: str, actor: str, namespace: str | None = None
) -> tuple[int, list[int]]:
    """Undoes (``op="undo"``) or redoes (``"redo"``) one action.

    Returns:
        The id of the new action and of the facts that the old one concerned.

    Raises:
        NothingToUndo: no such action, or it is already so.
    """
    concerned = [item for item in events(connection, schema.event.c.action == action) if item.inverts is None]
    if not concerned or (namespace is not None and concerned[0].namespace != namespace):
        raise NothingToUndo(f"There is no action {action} that could be undone. The history lists the actions.")
    space = concerned[0].namespace
    undone = undone_actions(connection, space)
    if (action in undone) == (op == "undo"):
        raise NothingToUndo(f"Action {action} is {'already undone' if op == 'undo' else 'not undone'}.")
    if any(item.op == "purge" for item in concerned):
        raise NothingToUndo("A purge cannot be undone: the facts are no longer there.")
    undone = undone | {action} if op == "undo" else undone - {action}
    journal = Journal(connection, space, actor, inverts=action)
    ids = sorted({item.fact_id for item in concerned})
    changes = _changes(connection, _group(connection, ids, concerned), undone, journal.at)
    touched = {after["id"] for _, after in changes}
    for fact_id in ids:  # an action that changes nothing any more still leaves its line in the journal
        if fact_id not in touched:
            row = _row(connection, fact_id)
            if row is not None:
                journal.record([(op, row, row)])
    _apply(connection, embedder, changes)
    journal.record([(op, before, after) for before, after in changes])
    if journal.action is None:
        raise NothingToUndo(f"The facts of action {action} have been purged; there is nothing left to {op}.")
    return journal.action, ids


def _group(connection: Connection, ids: list[int], concerned: list[Event]) -> list[int]:
    """The facts themselves and all that compete with them, now or then, for the same functional relation."""
    keys = set()
    for data in (part for item in concerned for part in (item.before, item.after) if part):
        if data["cardinality"] == FUNCTIONAL:
            keys.add((data["namespace"], data["subject_key"], data["relation_key"]))
    column = schema.fact.c
    members = set(ids)
    for part in _parts(sorted(keys), 200):
        same = or_(
            *(
                and_(column.namespace == space, column.subject_key == subject, column.relation_key == relation)
                for space, subject, relation in part
            )
        )
        members.update(connection.execute(select(column.id).where(same)).scalars())
    return sorted(members)


def _parts(items: list[tuple[str, str, str]], size: int) -> list[list[tuple[str, str, str]]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _row(connection: Connection, fact_id: int) -> Row | None:
    row = connection.execute(select(schema.fact).where(schema.fact.c.id == fact_id)).mappings().first()
    return dict(row) if row is not None else None


def _changes(connection: Connection, ids: list[int], undone: set[int], at: datetime) -> list[tuple[Row, Row]]:
    """(before, after) of every fact that is different once the undone actions are left out."""
    now: dict[int, Row] = {}
    history: list[Event] = []
    for start in range(0, len(ids), 500):
        part = ids[start : start + 500]
        for found in connection.execute(select(schema.fact).where(schema.fact.c.id.in_(part))).mappings():
            now[found["id"]] = dict(found)
        history += events(connection, schema.event.c.fact_id.in_(part))
    rows = replay(history, undone)
    changes: list[tuple[Row, Row]] = []
    for fact_id, before in now.items():  # a purged fact is not among them
        row = rows.get(fact_id)
        if row is None:
            gone = before["status"] == schema.RETIRED and before["reason"] == UNDONE
            row = before if gone else taken_back(before, at)
        if _differs(before, row):
            changes.append((before, row))
    return changes


def _differs(before: Row, after: Row) -> bool:
    return any(before[name] != after[name] for name in schema.FIELDS if name != "object_aliases") or tuple(
        before["object_aliases"] or ()
    ) != tuple(after["object_aliases"] or ())


def _apply(connection: Connection, embedder: Embedder, changes: list[tuple[Row, Row]]) -> None:
    # All out of force first, so that the unique index never sees two current facts about one thing on the way.
    for start in range(0, len(changes), 500):
        ids = [after["id"] for _, after in changes[start : start + 500]]
        connection.execute(schema.fact.update().where(schema.fact.c.id.in_(ids)).values(status=schema.SUPERSEDED))
    for _, after in changes:
        values = {name: after[name] for name in schema.FIELDS if name != "id"}
        values["object_aliases"] = list(values["object_aliases"] or ())
        connection.execute(schema.fact.update().where(schema.fact.c.id == after["id"]).values(values))
    reworded = [after for before, after in changes if before["statement"] != after["statement"]]
    store_vectors(connection, embedder, [(row["id"], row["statement"]) for row in reworded])


def facts_by_id(connection: Connection, ids: list[int]) -> list[StoredFact]:
    """The facts of these ids that exist, in the order given."""
    rows: dict[int, StoredFact] = {}
    for start in range(0, len(ids), 500):
        query = select(schema.fact).where(schema.fact.c.id.in_(ids[start : start + 500]))
        rows.update({row["id"]: fact_from_row(dict(row)) for row in connection.execute(query).mappings()})
    return [rows[fact_id] for fact_id in ids if fact_id in rows]
