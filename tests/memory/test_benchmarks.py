"""The benchmarks of the edit memory: what can go wrong in them apart from being slow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import encoding
from benchmarks.memory import against, measure, statements
from benchmarks.multihop import score
from benchmarks.table import percentile
from memory.embedder import Embedder, Vectors
from memory.gate import Gate
from tests.memory.fakes import HashEmbedder

TEXTS = [f"The capital of Land {number % 40} is Town {number % 40}." for number in range(50)]


def test_a_row_without_questions_is_a_row(gate: Gate) -> None:
    assert score("nothing", gate, [], 0) == ["nothing", 0, "-", "-", "-", "-", "-", "-"]


def test_percentiles_and_targets() -> None:
    assert [percentile([3.0, 1.0, 2.0, 4.0], share) for share in (0.5, 0.95)] == [3.0, 4.0]
    assert (against("1.0", True), against("1.0", False)) == ("1.0", "1.0 ✗")


def test_statements_are_the_same_at_every_call() -> None:
    first, again = ([draft.wording.statement for draft, _ in statements(30)] for _ in range(2))
    assert first == again
    assert len(set(first)) == 30


def test_vectors_come_in_the_order_of_the_texts_and_are_kept(tmp_path: Path) -> None:
    embedder = HashEmbedder()
    stored, note = encoding.encode(TEXTS, embedder, tmp_path, quiet=True)
    np.testing.assert_allclose(stored[:], embedder.encode(TEXTS), atol=1e-5)
    assert len(stored) == 50
    assert "texts/s" in note
    assert [len(np.load(path, allow_pickle=False)) for path in tmp_path.glob("*.npy")] == [40]  # each text once


def test_a_broken_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_CHUNK", 8)
    embedder = HashEmbedder()
    seen: list[int] = []
    whole = embedder.encode

    def breaks(texts: list[str], *rest: int) -> Vectors:
        seen.append(len(texts))
        if len(seen) == 6:  # two are the comparison, then three chunks
            raise KeyboardInterrupt
        return whole(texts, *rest)

    monkeypatch.setattr(embedder, "encode", breaks)
    with pytest.raises(KeyboardInterrupt):
        encoding.encode(TEXTS, embedder, tmp_path, quiet=True)
    seen[:] = [0] * 6
    stored, _ = encoding.encode(TEXTS, embedder, tmp_path, quiet=True)
    assert sum(seen[6:]) < 40
    np.testing.assert_allclose(stored[:], embedder.encode(TEXTS), atol=1e-5)


def test_the_store_is_measured(minilm: Embedder, tmp_path: Path) -> None:
    row, _ = measure(60, minilm, tmp_path, tmp_path / "cache")
    assert row[0] == "60"
    assert row[1] == "IDMap2,Flat"
    assert row[8] == "1.000"
