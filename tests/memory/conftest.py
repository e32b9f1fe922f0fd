"""Fixtures of the edit memory: stores in temporary folders, the real encoder where it matters."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from memory.embedder import Embedder, load_embedder
from memory.gate import Gate
from memory.lexicon import Lexicon
from memory.scope import ScopeHead
from memory.store import FactStore
from tests.memory.fakes import HashEmbedder

MakeStore = Callable[..., FactStore]
# the tests of the store run on this server instead of SQLite, each in a schema of its own (CONTRIBUTING.md)
SERVER = os.environ.get("PALIMPSEST_TEST_DATABASE", "")


def _database(path: Path) -> str:
    if not SERVER:
        return f"sqlite:///{path}"
    _on_server(f"CREATE SCHEMA IF NOT EXISTS {_schema(path)}")
    url = sqlalchemy.make_url(SERVER).update_query_dict({"options": f"-csearch_path={_schema(path)}"})
    return url.render_as_string(hide_password=False)


def _schema(path: Path) -> str:
    return f"test_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"


def _on_server(statement: str) -> None:
    engine = sqlalchemy.create_engine(SERVER)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    """``make_store()``: a store on tmp_path/facts.db; call it again to open the same file once more."""
    opened: list[FactStore] = []
    paths: set[Path] = set()

    def make(name: str = "facts.db", embedder: Embedder | None = None, **options: Any) -> FactStore:
        options.setdefault("lexicon", Lexicon({}, {"USA": "United States", "Holland": "Netherlands"}))
        paths.add(tmp_path / name)
        if SERVER:
            options.setdefault("index_folder", tmp_path / f"{Path(name).stem}-index")
        store = FactStore(_database(tmp_path / name), embedder or HashEmbedder(), **options)
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()
    for path in paths if SERVER else ():
        _on_server(f"DROP SCHEMA {_schema(path)} CASCADE")


@pytest.fixture
def store(make_store: MakeStore) -> FactStore:
    return make_store()


@pytest.fixture(scope="session")
def minilm() -> Embedder:
    """The real encoder, loaded once a session."""
    return load_embedder()


@pytest.fixture(scope="session")
def head(minilm: Embedder) -> ScopeHead:
    return ScopeHead.shipped(minilm)


@pytest.fixture
def gate(make_store: MakeStore, minilm: Embedder, head: ScopeHead) -> Gate:
    """A gate over an empty store with the real encoder and the world's words."""
    return Gate(make_store(embedder=minilm, lexicon=Lexicon.bundled()), head)
