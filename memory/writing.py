"""Changes of the fact table: facts, journal and vectors together, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, and_, select

from knowledge.errors import InvalidInput
from knowledge.text import normalise_key, squeeze
from memory import schema
from memory.embedder import Embedder, Vectors
from memory.journal import Journal, Row, close
from memory.lexicon import Lexicon, Wording
from memory.schema import CURRENT, FUNCTIONAL, MULTI, PAST, RETIRED, StoredFact
from memory.sync import store_vectors


@dataclass(frozen=True, slots=True)
class Draft:
    """A fact about to be written."""

    wording: Wording
    namespace: str = schema.DEFAULT_NAMESPACE
    aliases: tuple[str, ...] = ()
    object_aliases: tuple[str, ...] = ()
    source: str = "user"
    target_true: str | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.valid_from and self.valid_to and self.valid_to <= self.valid_from:
            raise InvalidInput("The fact ends before it begins: valid_to must be later than valid_from.")


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a draft."""

    fact_id: int
    superseded_id: int | None
    duplicate: bool
    action: int | None


def add(
    connection: Connection,
    embedder: Embedder,
    drafts: Sequence[Draft],
    vectors: Vectors,
    actor: str,
    *,
    replaced: Sequence[int] = (),
    action: int | None = None,
) -> list[Written]:
    """Writes drafts in order, as one action; a later draft of a batch supersedes an earlier one.

    Args:
        vectors: of the drafts' statements, shape (len(drafts), dim).
        replaced: ids of facts that the user said the new one replaces.
    """
    journal = Journal(connection, drafts[0].namespace, actor, action=action)
    for fact_id in replaced:
        found = connection.execute(select(schema.fact).where(schema.fact.c.id == fact_id)).mappings().first()
        if found is not None and found["status"] != RETIRED:
            end = {"status": RETIRED, "retired_at": journal.at, "valid_to": journal.at, "reason": "replaced"}
            _update(connection, dict(found) | end)
            journal.record([("retire", dict(found), dict(found) | end)])
    book = _Present(connection, drafts)
    new: list[Row] = []
    results: list[tuple[Row, Row | None, bool]] = []
    changed: dict[int, tuple[Row, Row]] = {}  # id -> (before, after) of facts in the table
    own: list[tuple[int, Row]] = []
    for number, draft in enumerate(drafts):
        draft = replace_subject(draft, book.subject_key(draft))
        row = _row(draft, journal.at, actor)
        same, rival = book.same(row), book.rival(row)
        if same is not None:
            results.append((same, None, True))
            continue
        if rival is not None and row["status"] == CURRENT:
            before = dict(rival)
            close(rival, row["valid_from"])
            if rival["id"] is not None:
                first = changed.get(rival["id"], (before, rival))[0]
                changed[rival["id"]] = (first, rival)
            row["_rival"] = rival
        book.note(row)
        new.append(row)
        own.append((number, row))
        results.append((row, rival if row["status"] == CURRENT else None, False))
    for _, after in changed.values():
        _update(connection, after)
    journal.record([("supersede", before, after) for before, after in changed.values()])
    _insert(connection, new)
    journal.record([("add", None, row) for row in new])
    rows = [number for number, _ in own]
    store_vectors(connection, embedder, [(row["id"], row["statement"]) for row in new], vectors[rows])
    for draft in drafts:
        if draft.aliases:
            add_aliases(connection, draft.namespace, draft.wording.subject_key, draft.aliases)
    return [
        Written(row["id"], old["id"] if old is not None else None, duplicate, None if duplicate else journal.action)
        for row, old, duplicate in results
    ]


class _Present:
    """The facts in force that the drafts of a batch may meet, and those of the batch itself."""

    def __init__(self, connection: Connection, drafts: Sequence[Draft]) -> None:
        self._alias: dict[tuple[str, str], str] = {}
        self._rows: dict[tuple[str, str, str], list[Row]] = {}
        keys = sorted({draft.wording.subject_key for draft in drafts})
        spaces = sorted({draft.namespace for draft in drafts})
        column, alias = schema.fact.c, schema.alias.c
        for start in range(0, len(keys), 400):
            part = keys[start : start + 400]
            named = select(schema.alias).where(alias.alias_key.in_(part), alias.namespace.in_([*spaces, schema.SHARED]))
            for found in connection.execute(named):
                if found.alias_key != found.subject_key:
                    self._alias[found.namespace, found.alias_key] = found.subject_key
            wanted = {*part, *(self._alias.values())}
            # the status is looked at here: with it, SQLite took the index over (namespace, status) and read all facts
            query = select(schema.fact).where(column.subject_key.in_(wanted), column.namespace.in_(spaces))
            for row in connection.execute(query).mappings():
                if row["status"] == CURRENT:
                    self.note(dict(row))

    def subject_key(self, draft: Draft) -> str:
        """The draft's subject, an alias that the user defined led back to its name."""
        key = draft.wording.subject_key
        return self._alias.get((draft.namespace, key)) or self._alias.get((schema.SHARED, key)) or key

    def note(self, row: Row) -> None:
        members = self._rows.setdefault(_key(row), [])
        if all(member is not row and (member["id"] is None or member["id"] != row["id"]) for member in members):
            members.append(row)

    def same(self, row: Row) -> Row | None:
        for other in self._rows.get(_key(row), ()):
            if other["status"] == CURRENT == row["status"] and other["object_key"] == row["object_key"]:
                return other
        return None

    def rival(self, row: Row) -> Row | None:
        if row["cardinality"] != FUNCTIONAL:
            return None
        for other in self._rows.get(_key(row), ()):
            if other["status"] == CURRENT and other["cardinality"] == FUNCTIONAL:
                return other
        return None


def _key(row: Row) -> tuple[str, str, str]:
    return row["namespace"], row["subject_key"], row["relation_key"]


def replace_subject(draft: Draft, key: str) -> Draft:
    if key == draft.wording.subject_key:
        return draft
    return replace(draft, wording=replace(draft.wording, subject_key=key))


def _row(draft: Draft, at: datetime, actor: str) -> Row:
    word = draft.wording
    past = draft.valid_to is not None and draft.valid_to <= at
    begin = draft.valid_from or (min(at, draft.valid_to) if draft.valid_to else at)
    return {
        "id": None,
        "uuid": uuid4().hex,
        "namespace": draft.namespace,
        "subject": word.subject,
        "relation": word.relation,
        "object": word.object,
        "subject_key": word.subject_key,
        "relation_key": word.relation_key,
        "object_key": word.object_key,
        "cardinality": word.cardinality,
        "statement": word.statement,
        "prompt": word.prompt,
        "question": word.question,
        "target_true": draft.target_true,
        "object_aliases": [squeeze(name) for name in draft.object_aliases],
        "valid_from": begin,
        "valid_to": draft.valid_to,
        "recorded_at": at,
        "retired_at": None,
        "status": PAST if past else CURRENT,
        "supersedes_id": None,
        "reason": draft.reason,
        "source": draft.source,
        "actor": actor,
    }


def _insert(connection: Connection, rows: list[Row]) -> None:
    """Inserts rows and fills in their ids; a row that supersedes one of the same batch is told its id afterwards."""
    if not rows:
        return
    for row in rows:
        rival = row.get("_rival")
        row["supersedes_id"] = rival["id"] if rival is not None else None
    columns = [{name: value for name, value in row.items() if name not in ("id", "_rival")} for row in rows]
    statement = schema.fact.insert().returning(schema.fact.c.id, schema.fact.c.uuid)
    ids = {uuid: int(fact_id) for fact_id, uuid in connection.execute(statement, columns)}
    for row in rows:
        row["id"] = ids[row["uuid"]]
    for row in rows:
        rival = row.pop("_rival", None)
        if rival is not None and row["supersedes_id"] is None:
            row["supersedes_id"] = rival["id"]
            own = schema.fact.update().where(schema.fact.c.id == row["id"])
            connection.execute(own.values(supersedes_id=rival["id"]))


def reworded(row: Row, changes: dict[str, Any], lexicon: Lexicon) -> Row:
    """A fact's columns with fields changed; wording and keys follow.

    Raises:
        InvalidInput: an unknown field, or a value that does not fit.
    """
    words = ("subject", "relation", "object", "prompt", "question", "statement", "cardinality")
    others = ("target_true", "object_aliases", "valid_from", "valid_to", "source", "reason")
    unknown = sorted(set(changes) - {*words, *others})
    if unknown:
        names = ", ".join((*words, *others))
        raise InvalidInput(f"A fact has no field {unknown[0]!r} that could be edited. Available: {names}.")
    new = {name: changes[name] for name in words if name in changes}
    if not new:
        word = None
    else:
        about = {"subject", "relation", "object"} & set(new)
        keep: dict[str, Any] = {}
        if "relation" not in new:  # the user's own words stay, unless the relation itself changed
            keep["prompt"] = row["prompt"]
        if "cardinality" not in new and "relation" not in new:
            keep["cardinality"] = row["cardinality"]
        if not about:
            keep |= {"question": row["question"], "statement": row["statement"]}
            if "prompt" in new:
                keep.pop("statement")
        elif not {"relation", "subject"} & about:
            keep["question"] = row["question"]
        base = {"subject": row["subject"], "relation": row["relation"], "object": row["object"]}
        fields = {**base, **keep, **new}
        word = lexicon.word(fields.pop("subject"), fields.pop("relation"), fields.pop("object"), **fields)
    after = dict(row)
    if word is not None:
        after |= {name: getattr(word, name) for name in Wording.__slots__}
    after |= {name: changes[name] for name in others if name in changes}
    after["object_aliases"] = [squeeze(name) for name in after["object_aliases"] or ()]
    for name in ("valid_from", "valid_to"):
        after[name] = schema.as_utc(after[name]) if after[name] else after[name]
    if after["valid_from"] is None:
        raise InvalidInput("A fact needs a time from which it is valid.")
    if after["valid_to"] is not None and after["valid_to"] <= after["valid_from"]:
        raise InvalidInput("The fact ends before it begins: valid_to must be later than valid_from.")
    return after


def change(connection: Connection, embedder: Embedder, before: Row, after: Row, op: str, actor: str) -> None:
    """Writes one changed fact; what then stands in its way is superseded."""
    journal = Journal(connection, before["namespace"], actor)
    column = schema.fact.c
    if after["status"] == CURRENT and after["cardinality"] == FUNCTIONAL:
        same = ("namespace", "subject_key", "relation_key", "cardinality")
        rivals = select(schema.fact).where(
            and_(*(column[name] == after[name] for name in same)),
            column.status == CURRENT,
            column.id != after["id"],
        )
        for found in list(connection.execute(rivals).mappings()):
            rival = dict(found)
            close(rival, max(after["valid_from"], journal.at))
            _update(connection, rival)
            journal.record([("supersede", dict(found), rival)])
            after = after | {"supersedes_id": rival["id"]}
    _update(connection, after)
    journal.record([(op, before, after)])
    if before["statement"] != after["statement"]:
        store_vectors(connection, embedder, [(after["id"], after["statement"])])


def purge(connection: Connection, rows: Sequence[Row], actor: str) -> None:
    """Deletes facts, their vectors, and what the journal says of their contents; one bare line stays."""
    for row in rows:
        fact_id = row["id"]
        connection.execute(schema.embedding.delete().where(schema.embedding.c.fact_id == fact_id))
        connection.execute(schema.fact.delete().where(schema.fact.c.id == fact_id))
        own = schema.event.update().where(schema.event.c.fact_id == fact_id)
        connection.execute(own.values(before_json=None, after_json=None))
        connection.execute(
            schema.fact.update().where(schema.fact.c.supersedes_id == fact_id).values(supersedes_id=None)
        )
        seq = connection.execute(
            schema.event.insert().values(
                action=0, namespace=row["namespace"], fact_id=fact_id, op="purge", actor=actor, at=schema.now()
            )
        ).inserted_primary_key
        assert seq is not None
        connection.execute(schema.event.update().where(schema.event.c.seq == seq[0]).values(action=seq[0]))


def add_aliases(connection: Connection, namespace: str, subject_key: str, names: Sequence[str]) -> None:
    column = schema.alias.c
    for name in names:
        key = normalise_key(name)
        if not key or key == subject_key:
            continue
        same = and_(column.namespace == namespace, column.alias_key == key, column.subject_key == subject_key)
        if connection.execute(select(column.alias).where(same)).first() is None:
            row = {"namespace": namespace, "alias_key": key, "subject_key": subject_key, "alias": squeeze(name)}
            connection.execute(schema.alias.insert().values(row))


def may_be_same(fact: StoredFact, word: Wording) -> bool:
    """Whether two similar statements may mean one fact: they share the subject, or the relation and the object."""
    if fact.subject_key == word.subject_key:
        return fact.relation_key != word.relation_key and MULTI not in (fact.cardinality, word.cardinality)
    return fact.relation_key == word.relation_key and fact.object_key == word.object_key


def _update(connection: Connection, row: Row) -> None:
    values = {name: row[name] for name in schema.FIELDS if name != "id"}
    connection.execute(schema.fact.update().where(schema.fact.c.id == row["id"]).values(values))
