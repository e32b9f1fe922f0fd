"""The compressed index: near exact, never a removed fact, and switched to and from while questions are answered."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from memory.compressed import CompressedIndex
from memory.index import VectorIndex
from memory.lexicon import Lexicon
from memory.snapshots import Snapshots
from memory.store import FactStore
from memory.writing import Draft
from tests.memory.conftest import MakeStore
from tests.memory.fakes import HashEmbedder

RNG = np.random.default_rng(1)


def clustered(count: int, dim: int = 128) -> np.ndarray:
    """Unit vectors in loose groups, as sentences are."""
    centres = RNG.standard_normal((40, dim))
    vectors = centres[RNG.integers(0, 40, count)] + 0.5 * RNG.standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def beside(vectors: np.ndarray, count: int) -> np.ndarray:
    """Unit vectors at a cosine of about .7 to one of these, as questions lie to the statements that answer them."""
    chosen = vectors[RNG.integers(0, len(vectors), count)]
    moved = chosen + RNG.standard_normal(chosen.shape) / chosen.shape[1] ** 0.5
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


def built(vectors: np.ndarray) -> CompressedIndex:
    index = CompressedIndex(vectors.shape[1], lambda ids: {at: vectors[at] for at in ids})
    index.train(vectors)
    index.add(range(len(vectors)), vectors)
    return index


def test_finds_nearly_what_the_exact_index_finds_with_exact_scores() -> None:
    vectors = clustered(4000)
    index, exact = built(vectors), VectorIndex(128)
    exact.add(range(4000), vectors)
    found = 0
    for query in beside(vectors, 50):
        mine, theirs = index.search(query, 10), dict(exact.search(query, 10))
        found += len({fact_id for fact_id, _ in mine} & set(theirs))
        assert [score for _, score in mine] == sorted((score for _, score in mine), reverse=True)
        for fact_id, score in mine:
            assert score == pytest.approx(float(vectors[fact_id] @ query), abs=1e-5)
    assert found / 500 >= 0.99


def test_removed_replaced_and_filtered() -> None:
    vectors = clustered(1000)
    index = built(vectors)
    index.remove([3, 4, 99_999])
    assert len(index) == 998
    assert {3, 4}.isdisjoint(fact_id for fact_id, _ in index.search(vectors[3], 50))
    index.add([5], vectors[5:6])
    assert len(index) == 998
    assert [fact_id for fact_id, _ in index.search(vectors[5], 1)] == [5]
    allowed = np.array([7, 8, 9], dtype=np.int64)
    assert {fact_id for fact_id, _ in index.search(vectors[500], 10, allowed)} == {7, 8, 9}
    assert index.search(vectors[0], 5, np.array([], dtype=np.int64)) == []


def test_a_snapshot_of_it_comes_back(tmp_path: Path) -> None:
    vectors = clustered(1000)
    index = built(vectors)
    snapshots = Snapshots(tmp_path, "e", 128, lambda ids: {at: vectors[at] for at in ids})
    snapshots.save(*index.to_bytes(), index.factory, 5)
    loaded = snapshots.load()
    assert loaded is not None
    assert isinstance(loaded[0], CompressedIndex)
    assert loaded[0].ids() == index.ids()
    assert loaded[0].search(vectors[42], 5) == index.search(vectors[42], 5)
    loaded[0].remove([42])  # a loaded index can be changed
    assert 42 not in loaded[0]
    assert Snapshots(tmp_path, "e", 128).load() is None  # nobody to ask for the full vectors: not used, rebuilt


def drafts(store: FactStore, numbers: range) -> list[Draft]:
    return [Draft(store.lexicon.word(f"Thing {number}", "colour", f"shade {number % 7}")) for number in numbers]


def test_the_store_switches_in_the_background_and_goes_on_answering(make_store: MakeStore) -> None:
    store = make_store(index_switch=600)
    store.add_many(drafts(store, range(590)))
    assert isinstance(store.sync.index, VectorIndex)
    assert not isinstance(store.sync.index, CompressedIndex)
    stop, failed = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            hits = store.search("The colour of Thing 17 is shade 3.", k=1)
            if not hits or hits[0].fact.subject != "Thing 17":
                failed.append(hits)

    asking = threading.Thread(target=ask)
    asking.start()
    store.add_many(drafts(store, range(590, 700)))
    deadline = time.monotonic() + 30  # whichever thread reads the new facts in starts the building
    while not isinstance(store.sync.index, CompressedIndex) and time.monotonic() < deadline:
        store.add(f"Late {len(failed)} {store.count()}", "colour", "red")  # written while the index is being built
    stop.set()
    asking.join()
    assert not failed
    assert isinstance(store.sync.index, CompressedIndex)
    assert store.sync.mismatch() == set()
    store.add("New thing", "colour", "mauve")
    assert store.search("The colour of New thing is mauve.", k=1)[0].fact.subject == "New thing"
    store.save_index()
    store.close()
    again = make_store(index_switch=600)
    assert isinstance(again.sync.index, CompressedIndex)
    assert again.sync.mismatch() == set()


def test_it_goes_back_to_exact_when_few_are_left() -> None:
    with FactStore("sqlite://", HashEmbedder(), lexicon=Lexicon({}, {}), index_switch=400) as store:
        store.add_many(drafts(store, range(450)))
        store.sync.wait()
        assert isinstance(store.sync.index, CompressedIndex)
        store.purge([fact.id for fact in store.list(limit=300)], confirm=True)
        store.sync.refresh()
        store.sync.wait()
        assert not isinstance(store.sync.index, CompressedIndex)
        assert store.sync.mismatch() == set()
        assert store.search("The colour of Thing 3 is shade 3.", k=1)[0].fact.subject == "Thing 3"
