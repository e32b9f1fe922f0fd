"""The vector index, its snapshots, and how both follow the table."""

from __future__ import annotations

import json
import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from memory.errors import IndexFileError
from memory.index import VectorIndex
from memory.snapshots import Snapshots
from memory.store import FactStore
from memory.writing import Draft
from tests.memory.conftest import MakeStore
from tests.memory.fakes import HashEmbedder

RNG = np.random.default_rng(0)


def unit(count: int, dim: int = 64) -> np.ndarray:
    vectors = RNG.standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_search_is_exact_and_sorted() -> None:
    vectors, index = unit(300), VectorIndex(64)
    index.add(range(10, 310), vectors)
    query = unit(1)[0]
    found = index.search(query, 5)
    expected = np.argsort(-(vectors @ query))[:5] + 10
    assert [fact_id for fact_id, _ in found] == expected.tolist()
    assert found[0][1] == pytest.approx(float(vectors[found[0][0] - 10] @ query), abs=1e-5)


def test_an_id_added_twice_is_replaced() -> None:
    index, vectors = VectorIndex(64), unit(2)
    index.add([1], vectors[:1])
    index.add([1], vectors[1:])
    assert len(index) == 1
    assert index.search(vectors[1], 5) == [(1, pytest.approx(1.0, abs=1e-5))]


def test_removed_and_filtered_ids_never_come_back() -> None:
    index, vectors = VectorIndex(64), unit(50)
    index.add(range(50), vectors)
    index.remove([3, 4, 999])
    assert {3, 4}.isdisjoint(fact_id for fact_id, _ in index.search(vectors[3], 50))
    allowed = np.array([5, 6, 7], dtype=np.int64)
    assert {fact_id for fact_id, _ in index.search(vectors[9], 10, allowed)} == {5, 6, 7}
    assert index.search(vectors[9], 10, np.array([], dtype=np.int64)) == []
    assert VectorIndex(64).search(vectors[0], 3) == []


def test_a_snapshot_comes_back_as_it_was(tmp_path: Path) -> None:
    index, vectors = VectorIndex(64), unit(20)
    index.add(range(20), vectors)
    snapshots = Snapshots(tmp_path, "e", 64)
    assert snapshots.load() is None
    snapshots.save(*index.to_bytes(), index.factory, 7)
    snapshots.save(*index.to_bytes(), index.factory, 8)
    loaded = snapshots.load()
    assert loaded is not None
    assert loaded[1] == 8
    assert loaded[0].search(vectors[4], 1) == index.search(vectors[4], 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index-8.faiss", "manifest.json"]
    loaded[0].add([99], vectors[:1])  # a loaded index can be changed
    loaded[0].remove([4])


def _spoil(folder: Path, how: str) -> None:
    data = next(folder.glob("index-*.faiss"))
    manifest = folder / "manifest.json"
    if how == "truncated":
        data.write_bytes(data.read_bytes()[:-100])
    elif how == "garbage":
        data.write_bytes(b"\0" * 5000)
    elif how == "swapped":
        other = VectorIndex(64)
        other.add([1, 2], unit(2))
        data.write_bytes(other.to_bytes()[0])
    elif how == "missing":
        data.unlink()
    elif how == "manifest":
        manifest.write_text("{")
    elif how == "elsewhere":
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"file": "../facts.db"}))
    elif how == "newer":
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"seq": 10_000}))


@pytest.mark.parametrize("how", ["truncated", "garbage", "swapped", "missing", "manifest", "elsewhere", "newer"])
def test_a_spoilt_snapshot_is_noticed_and_rebuilt(
    make_store: MakeStore, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store()
    for number in range(5):
        store.add(f"Thing {number}", "colour", "red")
    store.save_index()
    store.close()
    _spoil(tmp_path / "facts-index", how)
    with caplog.at_level(logging.WARNING):
        encoder = HashEmbedder()
        again = make_store(embedder=encoder)
    assert "snapshot" in caplog.text
    assert again.sync.mismatch() == set()
    assert encoder.texts_embedded == 0  # rebuilt from the stored vectors
    assert again.search("colour of Thing 3", k=1)[0].fact.subject == "Thing 3"


def test_start_replays_what_came_after_the_snapshot(make_store: MakeStore) -> None:
    store = make_store()
    old = store.add("A", "r", "one").fact
    store.save_index()
    store.add("B", "r", "two")
    store.retire(old.id)
    store.close()
    again = make_store()
    assert again.sync.index.ids() == {2}
    assert again.sync.mismatch() == set()


def test_two_programs_on_one_file_see_each_others_facts(make_store: MakeStore) -> None:
    first, second = make_store(), make_store()
    fact = first.add("Atlantis", "capital", "Poseidonis").fact
    assert second.search("capital of Atlantis")[0].fact.id == fact.id
    second.retire(fact.id)
    assert first.search("capital of Atlantis") == []
    second.undo()
    assert [hit.fact.id for hit in first.search("capital of Atlantis")] == [fact.id]


def test_another_encoder_embeds_everything_again(make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    store = make_store()
    for number in range(3):
        store.add(f"Thing {number}", "colour", "red")
    store.save_index()
    store.close()
    other = HashEmbedder("another")
    again = make_store(embedder=other)
    assert other.texts_embedded == 3
    assert again.search("The colour of Thing 1 is red.", k=1)[0].score == pytest.approx(1, abs=1e-4)


def test_a_snapshot_that_cannot_be_written_says_that_the_facts_are_safe(store: FactStore, tmp_path: Path) -> None:
    store.add("A", "r", "one")
    (tmp_path / "facts-index").write_text("a file where the folder should be")
    with pytest.raises(IndexFileError, match="facts are safe"):
        store.save_index()
    store.add("B", "r", "two")
    assert store.count() == 2


def test_threads_may_add_and_search_at_once(store: FactStore) -> None:
    errors: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for number in range(12):
                store.add(f"Thing {worker} {number}", "colour", "red")
                assert store.search(f"colour of Thing {worker} {number}", k=3)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.count() == 48
    assert store.sync.mismatch() == set()


def test_facts_whose_validity_ended_meanwhile_leave_the_snapshot_good(
    make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store()
    kept = store.add("A", "r", "one").fact
    store.add("B", "r", "two", valid_to=datetime.now(UTC) + timedelta(seconds=0.4))
    store.save_index()
    store.close()
    time.sleep(0.5)
    with caplog.at_level(logging.WARNING):
        again = make_store()
    assert "snapshot" not in caplog.text
    assert again.sync.index.ids() == {kept.id}
    assert again.sync.mismatch() == set()


def test_many_short_runs_write_a_snapshot_in_the_end(make_store: MakeStore, tmp_path: Path) -> None:
    for run in range(3):
        store = make_store()
        store.add_many([Draft(store.lexicon.word(f"Thing {run}-{at}", "colour", "red")) for at in range(90)])
        store.close()
    assert (tmp_path / "facts-index" / "manifest.json").exists()
