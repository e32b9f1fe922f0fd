"""How often memory has answered from each fact, and which facts are in the weights too.

    served = Served(store.engine)
    served.note(answer, namespace="default")           # an answer in the shape of ``ask --json``
    served.often(namespace="default", at_least=3)      # ids, most served first
    served.mark([1, 2], entry_id=7, namespace="default")

A table of its own in the program's database: a count is no part of a fact, and writing it must not touch the journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    column,
    delete,
    inspect,
    select,
    table,
    update,
)
from sqlalchemy.exc import IntegrityError

_metadata = MetaData()
_served = Table(
    "fact_served",
    _metadata,
    Column("namespace", String(200), primary_key=True),
    Column("fact_id", Integer, primary_key=True, autoincrement=False),
    Column("times", Integer, nullable=False),
    Column("last_at", DateTime(timezone=True)),
    Column("entry_id", Integer),  # the weight edit that says it too
)

# The ledger's table, as far as it says what counts.
_entries = table("weight_edit", column("id", Integer), column("active", Boolean), column("undone", Boolean))


def _used_by(step: Mapping[str, Any]) -> int | None:
    """The fact that a step of a chain took its answer from."""
    retrieved = step.get("retrieved")
    number = retrieved.get("fact_id") if isinstance(retrieved, Mapping) else step.get("fact_id")
    return int(number) if number is not None and step.get("source", "memory") == "memory" else None


class Served:
    """Counts and marks, by namespace and fact."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        _metadata.create_all(engine)

    def note(self, answer: Mapping[str, Any], *, namespace: str) -> None:
        """Counts the facts that an answer came from: those of its steps, or the first hit of a plain one."""
        if answer.get("source") != "memory" or not answer.get("hits"):
            return
        used = [number for step in answer.get("steps") or () if (number := _used_by(step)) is not None]
        for fact_id in dict.fromkeys(used or [answer["hits"][0]["fact_id"]]):
            self._count(int(fact_id), namespace)

    def _count(self, fact_id: int, namespace: str) -> None:
        here = (_served.c.namespace == namespace) & (_served.c.fact_id == fact_id)
        now = datetime.now(UTC)
        with self._engine.begin() as connection:
            changed = connection.execute(
                update(_served).where(here).values(times=_served.c.times + 1, last_at=now)
            ).rowcount
        if changed:
            return
        try:
            with self._engine.begin() as connection:
                row = {"namespace": namespace, "fact_id": fact_id, "times": 1, "last_at": now}
                connection.execute(_served.insert().values(**row))
        except IntegrityError:  # another thread was first
            self._count(fact_id, namespace)

    def times(self, *, namespace: str) -> dict[int, int]:
        """Fact to count."""
        query = select(_served.c.fact_id, _served.c.times).where(_served.c.namespace == namespace)
        with self._engine.connect() as connection:
            return {int(row.fact_id): int(row.times) for row in connection.execute(query)}

    def often(self, *, namespace: str, at_least: int = 3, most: int = 100) -> list[int]:
        """Facts served so often, the most served first."""
        counts = self.times(namespace=namespace)
        chosen = sorted((-times, fact_id) for fact_id, times in counts.items() if times >= at_least)
        return [fact_id for _, fact_id in chosen[:most]]

    def mark(self, fact_ids: Sequence[int], *, entry_id: int, namespace: str) -> None:
        """Says that the weight edit ``entry_id`` holds these facts too."""
        with self._engine.begin() as connection:
            for fact_id in fact_ids:
                here = (_served.c.namespace == namespace) & (_served.c.fact_id == fact_id)
                if not connection.execute(update(_served).where(here).values(entry_id=entry_id)).rowcount:
                    row = {"namespace": namespace, "fact_id": fact_id, "times": 0, "entry_id": entry_id}
                    connection.execute(_served.insert().values(**row))

    def moved(self, old: int, new: int) -> None:
        """Facts that the weight edit ``old`` held are held by ``new``, which took its place."""
        with self._engine.begin() as connection:
            connection.execute(update(_served).where(_served.c.entry_id == old).values(entry_id=new))

    def held(self, *, namespace: str) -> dict[int, int]:
        """Fact to the weight edit that holds it too and counts now. Reads the ledger's table, so no model is needed."""
        if not inspect(self._engine).has_table(_entries.name):
            return {}
        marked = select(_served.c.fact_id, _served.c.entry_id).where(_served.c.namespace == namespace)
        query = marked.join(_entries, _entries.c.id == _served.c.entry_id).where(_entries.c.active, ~_entries.c.undone)
        with self._engine.connect() as connection:
            return {int(row.fact_id): int(row.entry_id) for row in connection.execute(query)}

    def forget(self, *, namespace: str) -> None:
        """Counts from nought again; marks go too."""
        with self._engine.begin() as connection:
            connection.execute(delete(_served).where(_served.c.namespace == namespace))
