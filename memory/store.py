"""The fact store: what the user wants the model to say, kept durably, with history.

>>> store = FactStore("sqlite:///palimpsest.db", load_embedder())
>>> store.add("Eiffel Tower", "located in", "Rome").fact.statement
'The Eiffel Tower is located in Rome.'
>>> store.undo()

SQL is the truth; the vector index (:mod:`memory.sync`) follows it. A conflict is decided on (subject, relation),
never on similarity: a new object for a functional relation supersedes the old fact, whose validity ends there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Engine

from knowledge.errors import InvalidInput
from knowledge.text import normalise_key, squeeze
from memory import compressed, reading, schema, undo, writing
from memory.database import Database
from memory.embedder import Embedder
from memory.errors import IndexFileError, StoreError
from memory.lexicon import Lexicon
from memory.schema import DEFAULT_NAMESPACE, StoredFact
from memory.sync import IndexSync
from memory.undo import Action
from memory.view import FactView, Hit
from memory.writing import Draft, Written

log = logging.getLogger(__name__)

NEAR_DUPLICATE = 0.92  # cosine of two statements from which the user is asked whether they are the same
_SNAPSHOT_EVERY = 2_000  # events between two snapshots while running


@dataclass(frozen=True, slots=True)
class AddResult:
    """What became of an added fact."""

    fact: StoredFact
    superseded: StoredFact | None = None  # the fact it replaced
    duplicate: bool = False  # it was there already, to the letter; nothing was written
    similar: tuple[Hit, ...] = ()  # others that may mean the same
    action: int | None = None  # what undo(action) takes back


class NearDuplicate(StoreError):
    """A very similar fact is there; the caller decides: keep both, replace, cancel."""

    def __init__(self, statement: str, similar: Sequence[Hit]) -> None:
        self.similar = tuple(similar)
        names = "; ".join(f"#{hit.fact.id} {hit.text!r} ({hit.score:.2f})" for hit in similar)
        super().__init__(f"{statement!r} may be there already: {names}. Keep both, replace the old one, or cancel.")


class FactStore(FactView):
    """Facts in SQL, vectors in FAISS, both always level. Safe to use from several threads and several programs.

    Args:
        url: database URL, e.g. "sqlite:///data/palimpsest.db" or "postgresql+psycopg://...".
        embedder: the sentence encoder.
        index_folder: where snapshots of the index go; beside the SQLite file by default.
        lexicon: relations and aliases; the bundled world's by default.
        index_switch: facts from which the index is a compressed one.
    """

    def __init__(
        self,
        url: str,
        embedder: Embedder,
        *,
        index_folder: Path | None = None,
        lexicon: Lexicon | None = None,
        index_switch: int = compressed.SWITCH,
    ) -> None:
        self.database = Database(url)
        self.embedder = embedder
        self.lexicon = lexicon if lexicon is not None else Lexicon.bundled()
        path = self.database.path
        folder = index_folder or (path.parent / f"{path.stem}-index" if path is not None else None)
        self.sync = IndexSync(self.database, embedder, folder, switch=index_switch)
        self._saver: threading.Thread | None = None

    @property
    def engine(self) -> Engine:
        """For other tables in the same database (the ledger of weight edits)."""
        return self.database.engine

    # ------------------------------------------------------------------------------------------------ writing

    def add(
        self,
        subject: str,
        relation: str | None,
        object: str,
        *,
        prompt: str | None = None,
        question: str | None = None,
        aliases: Sequence[str] = (),
        object_aliases: Sequence[str] = (),
        source: str = "user",
        actor: str = "user",
        namespace: str = DEFAULT_NAMESPACE,
        target_true: str | None = None,
        statement: str | None = None,
        cardinality: str | None = None,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        reason: str | None = None,
        if_similar: Literal["keep", "ask", "replace"] = "keep",
    ) -> AddResult:
        """Adds a fact; when this returns, it is on disk.

        Args:
            aliases: other names of the subject; ``object_aliases``: of the object.
            if_similar: what to do when a very similar statement about something else is there.

        Raises:
            InvalidInput: a part is empty, too long or malformed.
            NearDuplicate: ``if_similar="ask"`` and there is a similar one.
            StorageFailure: the database could not write; nothing was changed.
        """
        wording = self.lexicon.word(
            subject, relation, object, prompt=prompt, question=question, statement=statement, cardinality=cardinality
        )
        draft = Draft(
            wording=wording,
            namespace=_namespace(namespace),
            aliases=tuple(aliases),
            object_aliases=tuple(object_aliases),
            source=squeeze(source) or "user",
            target_true=target_true,
            valid_from=schema.as_utc(valid_from) if valid_from else None,
            valid_to=schema.as_utc(valid_to) if valid_to else None,
            reason=reason,
        )
        vector = self.embedder.query(wording.statement)
        similar = self._similar(draft)
        if similar and if_similar == "ask":
            raise NearDuplicate(wording.statement, similar)
        replaced = [hit.fact.id for hit in similar] if if_similar == "replace" else []
        with self._writing() as connection:
            written = writing.add(connection, self.embedder, [draft], vector, actor, replaced=replaced)[0]
        return self._result(written, similar)

    def add_many(self, drafts: Sequence[Draft], *, actor: str = "user", action: int | None = None) -> list[Written]:
        """Adds a batch in one transaction; one action for undo (continued when ``action`` is given)."""
        if not drafts:
            return []
        vectors = self.embedder.encode([draft.wording.statement for draft in drafts])
        with self._writing() as connection:
            return writing.add(connection, self.embedder, drafts, vectors, actor, action=action)

    def edit(self, fact_id: int, *, actor: str = "user", namespace: str | None = None, **changes: Any) -> StoredFact:
        """Changes fields of a fact in place, history kept: subject, relation, object, statement, prompt, question,
        cardinality, valid_from, valid_to, source, reason, target_true, object_aliases.

        Raises:
            FactNotFound: no such fact.
            InvalidInput: an unknown field, or a value that does not fit.
        """
        with self._writing() as connection:
            row = reading.row(connection, fact_id, namespace)
            after = writing.reworded(row, changes, self.lexicon)
            writing.change(connection, self.embedder, row, after, "edit", actor)
            return reading.get(connection, fact_id)

    def retire(
        self, fact_id: int, *, reason: str | None = None, actor: str = "user", namespace: str | None = None
    ) -> StoredFact:
        """Takes a fact out of force; it stays in the history and ``undo`` brings it back."""
        with self._writing() as connection:
            row = reading.row(connection, fact_id, namespace)
            if row["status"] == schema.RETIRED:
                raise StoreError(f"The fact {fact_id} is already retired.")
            at = schema.now()
            end = row["valid_to"] if row["valid_to"] and row["valid_to"] < at else max(at, row["valid_from"])
            after = row | {"status": schema.RETIRED, "retired_at": at, "valid_to": end, "reason": reason}
            writing.change(connection, self.embedder, row, after, "retire", actor)
            return reading.get(connection, fact_id)

    remove = retire

    def purge(
        self, fact_ids: Sequence[int], *, confirm: bool, actor: str = "user", namespace: str | None = None
    ) -> int:
        """Deletes facts for good, from the history too. This cannot be undone; ``confirm`` must be True.

        Returns:
            How many facts were deleted.
        """
        if not confirm:
            raise StoreError("A purge deletes facts and their history for good. Confirm it, or retire them instead.")
        with self._writing() as connection:
            rows = [reading.row(connection, fact_id, namespace) for fact_id in dict.fromkeys(fact_ids)]
            writing.purge(connection, rows, actor)
        if self.sync.snapshots is not None:
            self.save_index()  # the old snapshot holds the purged vectors
        return len(rows)

    def add_alias(self, alias: str, subject: str, *, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Another name of a subject, for conflicts and for finding it in questions."""
        if not normalise_key(alias) or not normalise_key(subject):
            raise InvalidInput("Both the alias and the name it stands for are needed.")
        with self._writing() as connection:
            writing.add_aliases(connection, _namespace(namespace), self.lexicon.entity_key(subject), [alias])

    def undo(self, action: int | None = None, *, actor: str = "user", namespace: str = DEFAULT_NAMESPACE) -> Action:
        """Takes back an action, the latest one by default; any other in any order.

        Raises:
            NothingToUndo: there is none.
        """
        return self._turn_over("undo", action, actor, namespace)

    def redo(self, action: int | None = None, *, actor: str = "user", namespace: str = DEFAULT_NAMESPACE) -> Action:
        """Makes an undone action again, the one undone last by default.

        Raises:
            NothingToUndo: there is none, or something new was done since the undo.
        """
        return self._turn_over("redo", action, actor, namespace)

    def _turn_over(self, op: str, action: int | None, actor: str, namespace: str) -> Action:
        with self._writing() as connection:
            if action is None:
                find = undo.last_to_undo if op == "undo" else undo.last_to_redo
                action = find(connection, namespace)
            _, ids = undo.turn_over(connection, self.embedder, action, op, actor, namespace)
            facts = undo.facts_by_id(connection, ids)
            kinds = [item.op for item in reading.events_of_action(connection, action)]
        kind = next((kind for kind in kinds if kind != "supersede"), kinds[0])
        return Action(action, kind, namespace, actor, schema.now(), tuple(ids), op == "undo", tuple(facts))

    # ------------------------------------------------------------------------------------------------ housekeeping

    def save_index(self) -> None:
        """Writes a snapshot of the index now."""
        self.sync.refresh()
        self.sync.save()

    def backup(self, target: Path) -> None:
        """A consistent copy of the SQLite file, while others read and write."""
        self.database.backup(target)

    def close(self) -> None:
        """Waits for a running snapshot, writes one if much has changed, and closes the database."""
        if self._saver is not None:
            self._saver.join()
        if self.sync.snapshots is not None and self.sync.seq - self.sync.saved > max(200, len(self.sync.index) // 20):
            self._save_quietly()
        self.sync.close()
        self.database.close()

    def __enter__(self) -> FactStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        with self.database.write() as connection:
            yield connection
        self.sync.refresh()
        changed = self.sync.seq - self.sync.saved
        due = self.sync.snapshots is not None and changed >= max(_SNAPSHOT_EVERY, len(self.sync.index) // 5)
        if due and (self._saver is None or not self._saver.is_alive()):
            self._saver = threading.Thread(target=self._save_quietly, name="index-snapshot", daemon=True)
            self._saver.start()

    def _save_quietly(self) -> None:
        try:
            self.save_index()
        except IndexFileError as error:
            log.warning("%s", error)

    def _similar(self, draft: Draft) -> tuple[Hit, ...]:
        """Very similar statements that the conflict rule does not see (another subject or relation key)."""
        word = draft.wording
        hits = self.nearest(self.embedder.query(word.statement)[0], 4, (draft.namespace,))
        same = (word.subject_key, word.relation_key)
        return tuple(
            hit
            for hit in hits
            if hit.score >= NEAR_DUPLICATE
            and (hit.fact.subject_key, hit.fact.relation_key) != same
            and writing.may_be_same(hit.fact, word)
        )

    def _result(self, written: Written, similar: tuple[Hit, ...]) -> AddResult:
        ids = [written.fact_id, *([written.superseded_id] if written.superseded_id else [])]
        facts = {fact.id: fact for fact in self.get_many(ids)}
        old = facts.get(written.superseded_id) if written.superseded_id else None
        return AddResult(facts[written.fact_id], old, written.duplicate, similar, written.action)


def _namespace(name: str) -> str:
    name = squeeze(name)
    if not name or len(name) > 200:
        raise InvalidInput("A namespace has a name of 1 to 200 characters.")
    return name
