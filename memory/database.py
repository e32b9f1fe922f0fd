"""Opening the database: durable settings, one writer at a time, errors in words.

``Database(url)`` gives ``read()`` and ``write()`` transactions. A write begins with BEGIN IMMEDIATE on SQLite, so two
programs on one file wait for each other instead of failing half way; ``synchronous=FULL`` with the write-ahead log
means that a commit that returned survives a power cut.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DatabaseError, IntegrityError
from sqlalchemy.pool import StaticPool

from memory import schema
from memory.errors import Conflict, StorageFailure, StoreError

_BUSY_MS = 30_000  # how long a writer waits for another program's transaction
_WRITER_LOCK = 0x50414C49  # any number, the same in all programs


class Database:
    """An engine with this program's transaction rules.

    Raises:
        StorageFailure: the file cannot be opened, is not a database, or comes from a newer version of the program.
    """

    def __init__(self, url: str | URL) -> None:
        self.url = make_url(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.path = self._sqlite_path()
        self.in_memory = self.sqlite and self.path is None
        self._lock = threading.RLock()
        self.engine = self._create()
        with self.write() as connection:
            schema.metadata.create_all(connection)
            for index in schema.event.indexes:  # a later version's index also for an earlier one's tables
                index.create(connection, checkfirst=True)
            self._check_version(connection)

    def _sqlite_path(self) -> Path | None:
        name = self.url.database
        return Path(name) if self.sqlite and name and name != ":memory:" else None

    def _create(self) -> Engine:
        if not self.sqlite:
            try:
                return create_engine(self.url, pool_pre_ping=True)
            except ImportError as error:
                raise StoreError(
                    f"The driver of the database {self.url.get_backend_name()} cannot be loaded ({error}). Install it "
                    f"(for PostgreSQL: pip install 'psycopg[binary]'), or use SQLite."
                ) from error
        if self.path is not None:
            with explained(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {"connect_args": {"check_same_thread": False, "timeout": _BUSY_MS / 1000}}
        if self.in_memory:
            options["poolclass"] = StaticPool
        engine = create_engine(self.url, **options)
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
        return engine

    def _check_version(self, connection: Connection) -> None:
        query = select(schema.meta.c.value).where(schema.meta.c.key == "schema_version")
        version = connection.execute(query).scalar()
        if version is None:
            row = {"key": "schema_version", "value": schema.SCHEMA_VERSION}
            connection.execute(schema.meta.insert().values(row))
        elif version != schema.SCHEMA_VERSION:
            raise StorageFailure(
                f"The facts in {self.path or self.url} were written by another version of the program (schema "
                f"{version}, this one reads {schema.SCHEMA_VERSION}). Export them there and import them here."
            )

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A read transaction: one consistent view of the tables."""
        lock = self._lock if self.in_memory else nullcontext()
        with explained(self.path), lock, self.engine.connect() as plain:
            connection = plain.execution_options(palimpsest_read=True)
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A write transaction: all or nothing, and on disk when this returns."""
        with explained(self.path), self._lock, self.engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                # one writer at a time, as SQLite has it: events are replayed by number, so they must commit in order
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITER_LOCK})")
            yield connection

    def backup(self, target: Path) -> None:
        """A consistent copy of the SQLite file, taken while others read and write."""
        if not self.sqlite:
            raise StoreError("Backup here is for SQLite; use pg_dump for PostgreSQL.")
        import sqlite3

        with explained(target), self.engine.connect() as connection, sqlite3.connect(target) as copy:
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.backup(copy)
        copy.close()

    def close(self) -> None:
        self.engine.dispose()


def _on_connect(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.isolation_level = None  # we begin transactions ourselves; sqlite3 would begin late
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA secure_delete=ON")  # what is purged is overwritten
    cursor.close()


def _on_begin(connection: Connection) -> None:
    reading = connection.get_execution_options().get("palimpsest_read", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


@contextmanager
def explained(where: Path | None) -> Iterator[None]:
    """Turns the database driver's errors into words: cause, options, cure."""
    place = str(where) if where else "the database"
    try:
        yield
    except IntegrityError as error:
        raise Conflict(
            f"The database refused the change because another fact about the same thing is in force: {error.orig}."
        ) from error
    except DatabaseError as error:
        cause = str(error.orig)
        low = cause.lower()
        if "disk is full" in low or "disk i/o" in low or "no space" in low:
            cure = "Nothing was changed. Free some disk space and try again."
        elif "locked" in low or "busy" in low:
            cure = "Another program has been writing for a long time. Nothing was changed; try again or close it."
        elif "readonly" in low or "read-only" in low:
            cure = "Nothing was changed. Give this user the right to write there, or choose another data folder."
        elif "unable to open" in low:
            cure = "Check that the folder exists and may be written to, or choose another data folder."
        elif "not a database" in low or "malformed" in low:
            cure = "The file is damaged or not one of ours; it was left alone. Restore a backup or choose another one."
        else:
            raise
        raise StorageFailure(f"{place}: {cause}. {cure}") from error
    except OSError as error:
        cause = error.strerror or str(error)
        raise StorageFailure(f"{place}: {cause}. Choose a data folder that can be written to.") from error
