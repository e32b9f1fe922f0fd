"""Fixtures of the edit memory: stores in temporary folders, the real encoder where it matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memory.embedder import Embedder, load_embedder
from memory.gate import Gate
from memory.lexicon import Lexicon
from memory.scope import ScopeHead
from memory.store import FactStore
from tests.memory.fakes import HashEmbedder

MakeStore = Callable[..., FactStore]


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    """``make_store()``: a store on tmp_path/facts.db; call it again to open the same file once more."""
    opened: list[FactStore] = []

    def make(name: str = "facts.db", embedder: Embedder | None = None, **options: Any) -> FactStore:
        options.setdefault("lexicon", Lexicon({}, {"USA": "United States", "Holland": "Netherlands"}))
        store = FactStore(f"sqlite:///{tmp_path / name}", embedder or HashEmbedder(), **options)
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


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
