"""What was acknowledged survives: SIGKILL at random moments, a full disk, files that are not ours."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import event

from memory.errors import StorageFailure
from memory.store import FactStore
from tests.memory.conftest import MakeStore

# Adds facts one by one and in batches, snapshots now and then, and says on stdout what has been acknowledged.
WORKER = """
import sys
from memory.lexicon import Lexicon
from memory.store import FactStore
from memory.writing import Draft
from tests.memory.fakes import HashEmbedder

path, run = sys.argv[1:]
store = FactStore(f"sqlite:///{path}", HashEmbedder(), lexicon=Lexicon({}, {}))
print("ready", flush=True)
number = 0
while True:
    number += 1
    names = [f"{run}-{number}"]
    if number % 5 == 0:
        names = [f"{run}-{number}-{part}" for part in range(20)]
        store.add_many([Draft(store.lexicon.word(name, "colour", "red")) for name in names])
    else:
        store.add(names[0], "colour", "red")
    print(" ".join(names), flush=True)
    if number % 7 == 0:
        store.save_index()
"""


def _kill_once(path: Path, run: int, rng: random.Random) -> set[str]:
    """Starts the worker, kills it at a random moment, gives the facts that it had acknowledged."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path), str(run)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    first = "" if run else worker.stdout.readline()  # a busy machine may acknowledge nothing in half a second
    time.sleep(rng.random() * 0.5)
    worker.send_signal(signal.SIGKILL)
    rest = first + worker.stdout.read()
    worker.wait()
    whole = rest[: rest.rfind("\n") + 1]  # the last line may be cut
    return set(whole.split())


def _check_kills(make_store: MakeStore, tmp_path: Path, times: int) -> None:
    rng = random.Random(1)
    path = tmp_path / "facts.db"
    acknowledged: set[str] = set()
    for run in range(times):
        acknowledged |= _kill_once(path, run, rng)
        store = make_store()
        subjects = [fact.subject for fact in store.list(limit=None)]
        assert acknowledged <= set(subjects), "an acknowledged fact was lost"
        assert len(subjects) == len(set(subjects)), "a fact is there twice"
        assert store.sync.mismatch() == set(), "the index differs from the table"
        store.close()
    assert acknowledged
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_sigkill_loses_nothing_acknowledged(make_store: MakeStore, tmp_path: Path) -> None:
    _check_kills(make_store, tmp_path, 3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sigkill_two_hundred_times(make_store: MakeStore, tmp_path: Path) -> None:
    _check_kills(make_store, tmp_path, 200)


def test_a_full_disk_is_said_and_loses_nothing(store: FactStore, make_store: MakeStore) -> None:
    store.add("A", "r", "one")

    @event.listens_for(store.engine, "connect")
    def limit(connection: sqlite3.Connection, _record: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 4}")

    store.engine.dispose()
    added = 0

    def fill() -> None:
        nonlocal added
        for number in range(1000):
            store.add(f"Thing {number}", "colour", "x" * 400)
            added += 1

    with pytest.raises(StorageFailure, match=r"disk is full.*Nothing was changed. Free some disk space"):
        fill()
    assert store.count() == added + 1
    assert store.sync.mismatch() == set()
    store.close()
    again = make_store()
    assert again.count() == added + 1
    assert again.add("B", "r", "two").fact.id


def test_a_file_that_is_no_database_is_left_alone(make_store: MakeStore, tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    path.write_bytes(b"this is a text, not a database " * 200)
    before = path.read_bytes()
    with pytest.raises(StorageFailure, match="not one of ours"):
        make_store()
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused(make_store: MakeStore, tmp_path: Path) -> None:
    make_store().close()
    with sqlite3.connect(tmp_path / "facts.db") as connection:
        connection.execute("UPDATE memory_meta SET value='99' WHERE key='schema_version'")
    connection.close()
    with pytest.raises(StorageFailure, match="schema 99"):
        make_store()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, make_store: MakeStore) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageFailure, match="data folder"):
        make_store("file/facts.db")


def test_settings_are_the_durable_ones(store: FactStore) -> None:
    with store.engine.connect() as connection:
        values = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
        assert values == ["wal", 2]
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_a_writer_waits_for_another_program(store: FactStore, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "facts.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    import threading

    threading.Timer(0.3, lambda: other.execute("COMMIT")).start()
    assert store.add("A", "r", "one").fact.id == 1
    other.close()


def test_a_backup_is_a_whole_store(store: FactStore, make_store: MakeStore, tmp_path: Path) -> None:
    store.add("A", "r", "one")
    store.backup(tmp_path / "copy.db")
    store.add("B", "r", "two")
    copy = make_store("copy.db")
    assert [fact.object for fact in copy.list()] == ["one"]
    assert copy.search("A", k=1)[0].fact.object == "one"


def test_an_error_inside_a_transaction_takes_all_of_it_back(store: FactStore) -> None:
    class Stop(Exception):
        pass

    def write_half() -> None:
        with store.database.write() as connection:
            connection.exec_driver_sql("INSERT INTO memory_meta VALUES ('x', 'y')")
            raise Stop

    with pytest.raises(Stop):
        write_half()
    with store.database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM memory_meta WHERE key='x'").scalar() == 0
