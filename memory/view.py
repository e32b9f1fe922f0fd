"""Reading the facts: the half of :class:`memory.store.FactStore` that changes nothing.

Lists and counts are pages of SQL; searches ask the index first and then the table, so that what comes back is always
the fact as it is now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from knowledge.edit import Edit
from knowledge.text import normalise_key, squeeze
from memory import reading, schema, undo
from memory.database import Database
from memory.embedder import Embedder
from memory.errors import FactNotFound
from memory.lexicon import Lexicon
from memory.reading import Filter, HistoryEntry
from memory.schema import CURRENT, DEFAULT_NAMESPACE, SHARED, StoredFact
from memory.sync import IndexSync
from memory.undo import Action


@dataclass(frozen=True, slots=True)
class Hit:
    """A fact that a search brought up, with how well it fits (cosine, or probability of being in scope)."""

    fact: StoredFact
    score: float

    @property
    def text(self) -> str:
        return self.fact.statement

    def to_json(self) -> dict[str, Any]:
        return {"fact_id": self.fact.id, "text": self.text, "score": round(self.score, 4)}


class FactView:
    """Queries of a database of facts and its index."""

    database: Database
    embedder: Embedder
    lexicon: Lexicon
    sync: IndexSync

    def get(self, fact_id: int, *, namespace: str | None = None) -> StoredFact:
        """The fact of that id.

        Raises:
            FactNotFound: there is none (in this namespace).
        """
        with self.database.read() as connection:
            return reading.get(connection, fact_id, namespace)

    def get_many(self, fact_ids: Sequence[int]) -> list[StoredFact]:
        with self.database.read() as connection:
            return undo.facts_by_id(connection, list(fact_ids))

    def list(
        self,
        *,
        namespace: str | None = DEFAULT_NAMESPACE,
        status: str | None = CURRENT,
        subject: str | None = None,
        relation: str | None = None,
        contains: str | None = None,
        as_of: datetime | None = None,
        limit: int | None = 100,
        offset: int = 0,
        newest_first: bool = True,
    ) -> Sequence[StoredFact]:
        """Facts of a namespace (all of them for None), newest first.

        Args:
            status: "current", "superseded", "past", "retired"; None for all.
            contains: text that stands in the statement, whatever the case.
            as_of: facts that were in force at that time, whatever became of them since (``status`` is then ignored).
        """
        where = self._filter(namespace, status, subject, relation, contains, as_of)
        with self.database.read() as connection:
            return reading.listing(connection, where, limit, offset, newest_first)

    def count(
        self,
        *,
        namespace: str | None = DEFAULT_NAMESPACE,
        status: str | None = CURRENT,
        subject: str | None = None,
        relation: str | None = None,
        contains: str | None = None,
        as_of: datetime | None = None,
    ) -> int:
        """How many facts :meth:`list` would give in all."""
        with self.database.read() as connection:
            return reading.count(connection, self._filter(namespace, status, subject, relation, contains, as_of))

    def search(
        self, query: str, k: int = 10, *, namespace: str = DEFAULT_NAMESPACE, shared: bool = True
    ) -> Sequence[Hit]:
        """The facts nearest in meaning (cosine), best first, of this namespace and the shared one."""
        if not query.strip():
            return []
        spaces = visible(namespace) if shared else (namespace,)
        return self.nearest(self.embedder.query(squeeze(query))[0], k, spaces)

    def nearest(self, vector: Any, k: int, namespaces: Sequence[str]) -> Sequence[Hit]:
        """The facts whose statements are nearest to a vector, those in force only."""
        wanted = k
        while True:
            found = self.sync.search(vector, wanted, namespaces)
            at = schema.now()
            facts = {fact.id: fact for fact in self.get_many([fact_id for fact_id, _ in found])}
            # the index also holds facts that begin later or ended a moment ago, and others may write meanwhile
            live = {key for key, fact in facts.items() if fact.in_force(at) and fact.namespace in namespaces}
            hits = [Hit(facts[fact_id], score) for fact_id, score in found if fact_id in live]
            if len(hits) >= k or len(found) < wanted or wanted >= 64 * k:
                return hits[:k]
            wanted *= 2  # some places went to facts that do not hold now

    def about(self, subject_keys: Sequence[str], namespaces: Sequence[str], limit: int = 200) -> Sequence[StoredFact]:
        """The facts in force whose subject has one of these keys or aliases."""
        at = schema.now()
        with self.database.read() as connection:
            facts = reading.about(connection, subject_keys, namespaces, limit)
        return [fact for fact in facts if fact.in_force(at)]

    def history(self, fact_id: int, *, namespace: str | None = None) -> Sequence[HistoryEntry]:
        """Everything that happened to a fact, oldest first.

        Raises:
            FactNotFound: no event concerns this id.
        """
        with self.database.read() as connection:
            entries = reading.history(connection, fact_id, namespace)
        if not entries:
            raise FactNotFound(fact_id)
        return entries

    def timeline(self, subject: str, relation: str, *, namespace: str = DEFAULT_NAMESPACE) -> Sequence[StoredFact]:
        """All facts ever held about (subject, relation), by validity."""
        facts = self.list(namespace=namespace, status=None, subject=subject, relation=relation, limit=None)
        return sorted(facts, key=lambda fact: (fact.valid_from, fact.id))

    def actions(self, *, namespace: str | None = DEFAULT_NAMESPACE, limit: int = 50) -> Sequence[Action]:
        """What was done, newest first; each can be undone by its id."""
        with self.database.read() as connection:
            return undo.actions(connection, namespace, limit)

    def aliases(self, subject: str, *, namespace: str = DEFAULT_NAMESPACE) -> Sequence[str]:
        """Other names of a subject, the user's and the world's."""
        key = self.lexicon.entity_key(subject)
        with self.database.read() as connection:
            own = reading.aliases(connection, key, visible(namespace))
        return [*dict.fromkeys([*own, *self.lexicon.aliases_of(subject)])]

    def alias_table(
        self, facts: Sequence[StoredFact], namespace: str = DEFAULT_NAMESPACE
    ) -> dict[str, tuple[str, ...]]:
        """Other names of these facts' subjects, by subject key; ``namespace`` is that of who asks."""
        keys = {fact.subject_key for fact in facts}
        spaces = {fact.namespace for fact in facts} | set(visible(namespace))
        with self.database.read() as connection:
            own = reading.alias_table(connection, sorted(keys), sorted(spaces))
        subjects = {fact.subject_key: fact.subject for fact in facts}
        return {key: (*own.get(key, ()), *self.lexicon.names_of(key), subjects[key]) for key in keys}

    def namespaces(self) -> dict[str, int]:
        """Every namespace with its number of current facts."""
        with self.database.read() as connection:
            return reading.namespaces(connection)

    def to_edit(self, fact: StoredFact) -> Edit:
        """The fact as an edit request, for the weight editors."""
        prompt = fact.prompt if fact.prompt and fact.prompt.count("{}") == 1 else "{} is"
        aliases = dict.fromkeys([*fact.object_aliases, *self.lexicon.aliases_of(fact.object)])
        return Edit(
            prompt=prompt,
            subject=fact.subject,
            target_new=fact.object,
            target_true=fact.target_true,
            relation=fact.relation,
            question=fact.question,
            aliases=tuple(aliases),
            id=fact.uuid,
        )

    def _filter(
        self,
        namespace: str | None,
        status: str | None,
        subject: str | None,
        relation: str | None,
        contains: str | None,
        as_of: datetime | None,
    ) -> Filter:
        known = self.lexicon.relation(relation)
        return Filter(
            namespace=namespace,
            status=status,
            subject_key=self.lexicon.entity_key(subject) if subject else None,
            relation_key=known.id if known else normalise_key(relation) if relation else None,
            contains=contains,
            as_of=schema.as_utc(as_of) if as_of else None,
        )


def visible(namespace: str) -> tuple[str, ...]:
    """What a namespace reads: itself and the shared one."""
    return (namespace,) if namespace == SHARED else (namespace, SHARED)
