"""Keeps the vector index level with the table, also when another program writes to it.

Every search first looks at the last event; newer events are replayed. Start-up is the same replay, from a snapshot
(:mod:`memory.snapshots`) or from nothing. What is searchable: facts that are current, and superseded ones whose
validity has not ended yet.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from sqlalchemy import ColumnElement, Connection, func, or_, select

from memory import compressed, schema
from memory.compressed import CompressedIndex
from memory.database import Database
from memory.embedder import Embedder, Vectors
from memory.errors import IndexFileError
from memory.index import Ids, VectorIndex
from memory.snapshots import Snapshots

log = logging.getLogger(__name__)

_PATIENCE = 5.0  # seconds that closing waits for an index that is being built
_BATCH = 5_000  # rows per statement while rebuilding or re-embedding


class IndexSync:
    """The index of a database, with the event up to which it is level.

    Its type follows from how many facts there are: exact, and compressed from ``switch`` facts on. The other index is
    built by a thread in the background, while the old one goes on answering, and then takes its place.

    Args:
        switch: searchable facts from which the compressed index is used; back to exact below half as many.

    >>> sync = IndexSync(database, embedder, folder)
    >>> sync.search(vector, 8, ("default", "shared"))
    """

    def __init__(
        self, database: Database, embedder: Embedder, folder: Path | None, *, switch: int = compressed.SWITCH
    ) -> None:
        self.database = database
        self.embedder = embedder
        self.switch = switch
        self.snapshots = Snapshots(folder, embedder.id, embedder.dim, self.full_vectors) if folder else None
        self.index: VectorIndex = VectorIndex(embedder.dim)
        self._builder: threading.Thread | None = None
        self._failed_at: int | None = None  # number of facts at which the last switch failed
        self._closing = False
        self.seq = 0
        self.saved = 0  # the event that the snapshot on disk is level with
        self._members: dict[str, set[int]] = defaultdict(set)  # namespace -> searchable ids
        self._namespace: dict[int, str] = {}
        self._allowed: dict[tuple[str, ...], Ids] = {}  # emptied whenever the index changes
        self._lock = threading.RLock()
        self._saving = threading.Lock()
        self._open()

    # ------------------------------------------------------------------------------------------------ start

    def _open(self) -> None:
        self._reembed()
        restored = self.snapshots.load() if self.snapshots else None
        if restored is not None:
            self.index, self.seq = restored
            self.saved = self.seq
            with self.database.read() as connection:
                if self._last(connection) < self.seq:  # the table was put back to an older state
                    log.warning("The index snapshot is newer than the facts; rebuilding it from the stored vectors.")
                    restored = None
                else:
                    self._replay(connection)
                    members, held = self._membership(connection), self.index.ids()
                    self.index.remove(held - members)  # their validity ended meanwhile, which is no event
                    if members - held:
                        log.warning("The index snapshot does not match the facts; rebuilding the index.")
                        restored = None
        if restored is None:
            self.saved = 0
            self.rebuild()
        self._fit_size()

    def rebuild(self) -> None:
        """Reads all stored vectors again into an exact index; nothing is embedded."""
        index = VectorIndex(self.embedder.dim)
        with self._lock, self.database.read() as connection:
            seq = self._last(connection)
            members = self._membership(connection)
            self._read_into(index, connection, members)
            self.index, self.seq = index, seq
            self._allowed.clear()

    def _read_into(self, index: VectorIndex, connection: Connection, members: set[int]) -> None:
        after = 0
        while rows := self._vectors(connection, schema.embedding.c.fact_id > after, limit=_BATCH):
            after = rows[-1][0]
            live = [(fact_id, blob) for fact_id, blob in rows if fact_id in members]
            index.add([fact_id for fact_id, _ in live], _stack([blob for _, blob in live], index.dim))
            if self._closing:
                return

    # ------------------------------------------------------------------------------------------------ type by size

    @property
    def building(self) -> bool:
        """Whether an index of the other type is being built in the background."""
        return self._builder is not None and self._builder.is_alive()

    def wait(self, seconds: float | None = None) -> None:
        """Waits until no index is being built in the background."""
        if self._builder is not None:
            self._builder.join(seconds)

    def close(self) -> None:
        """Gives up what is being built; a training that cannot be interrupted ends with the process."""
        self._closing = True
        self.wait(_PATIENCE)

    def full_vectors(self, ids: Sequence[int]) -> dict[int, Vectors]:
        """Stored vectors of a few facts, by id."""
        with self.database.read() as connection:
            column = schema.embedding.c
            rows = connection.execute(select(column.fact_id, column.vector).where(column.fact_id.in_(ids))).all()
        return {row.fact_id: np.frombuffer(row.vector, dtype="<f4") for row in rows}

    def _fit_size(self) -> None:
        """Starts building the other type of index where the number of facts asks for it."""
        with self._lock:
            count = len(self.index)
            small = isinstance(self.index, CompressedIndex) and count < self.switch // 2
            large = not isinstance(self.index, CompressedIndex) and count >= self.switch
            again = self._failed_at is None or abs(count - self._failed_at) > count // 20
            if (small or large) and again and not self.building and not self._closing:
                self._builder = threading.Thread(target=self._switch, args=(large,), name="index-switch", daemon=True)
                self._builder.start()

    def _switch(self, large: bool) -> None:
        try:
            with self.database.read() as connection:
                seq = self._last(connection)
                query = select(schema.fact.c.id).where(_searchable())
                members = set(connection.execute(query).scalars())
                index = self._trained(connection, members) if large else VectorIndex(self.embedder.dim)
                self._read_into(index, connection, members)
            with self._lock, self.database.read() as connection:
                if self._closing:
                    return
                self.index, self.seq = index, seq
                self._replay(connection)  # what was written meanwhile
                if self._membership(connection) != self.index.ids():
                    log.warning("The index built in the background does not match the facts; rebuilding it.")
                    self.rebuild()
                self._allowed.clear()
                self._failed_at = None
            log.info("The index of %d facts is now %s.", len(index), index.factory)
        except Exception:
            if not self._closing:
                self._failed_at = len(self.index)
                log.exception("The index could not be switched; the old one goes on answering.")
            return
        try:
            self.save()  # or the next start would begin with the old type and build this one again
        except IndexFileError as error:
            log.warning("%s", error)

    def _trained(self, connection: Connection, members: set[int]) -> CompressedIndex:
        index = CompressedIndex(self.embedder.dim, self.full_vectors)
        rng = np.random.default_rng(0)
        ids = np.fromiter(members, dtype=np.int64, count=len(members))
        chosen = rng.choice(ids, CompressedIndex.sample_size(len(ids)), replace=False)
        parts = []
        for part in _batches(sorted(chosen.tolist()), _BATCH):
            rows = self._vectors(connection, schema.embedding.c.fact_id.in_(part), limit=_BATCH)
            parts.append(_stack([blob for _, blob in rows], index.dim))
        index.train(np.concatenate(parts))
        return index

    def _membership(self, connection: Connection) -> set[int]:
        """Fills the namespaces from the table and returns all searchable ids."""
        self._members.clear()
        self._namespace.clear()
        query = select(schema.fact.c.id, schema.fact.c.namespace).where(_searchable())
        for fact_id, namespace in connection.execute(query):
            self._members[namespace].add(fact_id)
            self._namespace[fact_id] = namespace
        return set(self._namespace)

    def _reembed(self) -> None:
        """Vectors of another encoder are replaced, in batches."""
        stale = schema.embedding.c.embedder_id != self.embedder.id
        with self.database.read() as connection:
            count = connection.execute(select(func.count()).select_from(schema.embedding).where(stale)).scalar_one()
        if not count:
            return
        log.warning("Embedding %d facts again: their vectors are not of %s.", count, self.embedder.id)
        while True:
            with self.database.write() as connection:
                join = schema.fact.join(schema.embedding, schema.embedding.c.fact_id == schema.fact.c.id)
                query = select(schema.fact.c.id, schema.fact.c.statement).select_from(join).where(stale).limit(512)
                rows = connection.execute(query).all()
                if not rows:
                    break
                store_vectors(connection, self.embedder, [(row.id, row.statement) for row in rows])
        if self.snapshots:
            self.snapshots.clear()

    # ------------------------------------------------------------------------------------------------ level

    def refresh(self) -> None:
        """Replays what was written since, by whomever."""
        with self._lock, self.database.read() as connection:
            if self._last(connection) != self.seq:
                self._replay(connection)
        self._fit_size()

    def _replay(self, connection: Connection) -> None:
        last = self._last(connection)
        touched = connection.execute(
            select(schema.event.c.fact_id).where(schema.event.c.seq > self.seq, schema.event.c.seq <= last).distinct()
        ).scalars()
        for ids in _batches(sorted(touched), _BATCH):
            self._level(connection, ids)
        self.seq = last

    def _level(self, connection: Connection, ids: Sequence[int]) -> None:
        rows = connection.execute(
            select(schema.fact.c.id, schema.fact.c.namespace, schema.embedding.c.vector)
            .join(schema.embedding, schema.embedding.c.fact_id == schema.fact.c.id)
            .where(_searchable(), schema.fact.c.id.in_(ids))
        ).all()
        live = {row.id for row in rows}
        self.index.remove([fact_id for fact_id in ids if fact_id not in live])
        self.index.add([row.id for row in rows], _stack([row.vector for row in rows], self.index.dim))
        for fact_id in ids:
            before = self._namespace.pop(fact_id, None)
            if before is not None:
                self._members[before].discard(fact_id)
        for row in rows:
            self._namespace[row.id] = row.namespace
            self._members[row.namespace].add(row.id)
        self._allowed.clear()

    # ------------------------------------------------------------------------------------------------ search

    def search(self, vector: Vectors, k: int, namespaces: Sequence[str]) -> list[tuple[int, float]]:
        """The k nearest searchable (fact id, cosine) of these namespaces, best first."""
        self.refresh()
        with self._lock:
            index, allowed = self.index, self._filter(tuple(namespaces))
        return index.search(vector, k, allowed)

    def _filter(self, namespaces: tuple[str, ...]) -> Ids | None:
        counts = sum(len(self._members.get(name, ())) for name in dict.fromkeys(namespaces))
        if counts == len(self.index):
            return None  # nothing to keep out
        if namespaces not in self._allowed:
            ids = [fact_id for name in dict.fromkeys(namespaces) for fact_id in self._members.get(name, ())]
            self._allowed[namespaces] = np.asarray(ids, dtype=np.int64)
        return self._allowed[namespaces]

    def save(self) -> None:
        """Writes a snapshot of the index as it stands."""
        if self.snapshots is None:
            return
        with self._saving:
            with self._lock:
                data, count = self.index.to_bytes()
                seq, factory = self.seq, self.index.factory
            self.snapshots.save(data, count, factory, seq)  # questions go on meanwhile
            self.saved = seq

    def mismatch(self) -> set[int]:
        """Ids that are in the index or in the table but not in both; empty when all is well."""
        self.refresh()
        with self._lock, self.database.read() as connection:
            table = set(connection.execute(select(schema.fact.c.id).where(_searchable())).scalars())
            return table ^ self.index.ids()

    @staticmethod
    def _last(connection: Connection) -> int:
        return int(connection.execute(select(func.max(schema.event.c.seq))).scalar() or 0)

    @staticmethod
    def _vectors(connection: Connection, *conditions: ColumnElement[bool], limit: int) -> list[tuple[int, bytes]]:
        query = select(schema.embedding.c.fact_id, schema.embedding.c.vector).where(*conditions)
        rows = connection.execute(query.order_by(schema.embedding.c.fact_id).limit(limit)).all()
        return [(row.fact_id, row.vector) for row in rows]


def store_vectors(
    connection: Connection, embedder: Embedder, texts: Sequence[tuple[int, str]], vectors: Vectors | None = None
) -> None:
    """Writes the vectors of (fact id, statement) pairs, in the caller's transaction."""
    if not texts:
        return
    if vectors is None:
        vectors = embedder.encode([text for _, text in texts])
    ids = [fact_id for fact_id, _ in texts]
    for part in _batches(ids, _BATCH):
        connection.execute(schema.embedding.delete().where(schema.embedding.c.fact_id.in_(part)))
    rows = [
        {
            "fact_id": fact_id,
            "embedder_id": embedder.id,
            "text_sha256": schema.text_hash(text),
            "vector": np.asarray(vector, dtype="<f4").tobytes(),
        }
        for (fact_id, text), vector in zip(texts, vectors, strict=True)
    ]
    connection.execute(schema.embedding.insert(), rows)


def _searchable() -> ColumnElement[bool]:
    columns = schema.fact.c
    open_ended = or_(columns.valid_to.is_(None), columns.valid_to > schema.now())
    return columns.status.in_((schema.CURRENT, schema.SUPERSEDED)) & open_ended


def _stack(blobs: Sequence[bytes], dim: int) -> Vectors:
    return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(blobs), dim)


def _batches(ids: Sequence[int], size: int) -> Iterable[Sequence[int]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))
