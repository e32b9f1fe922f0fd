"""The vector index: FAISS behind a lock, row ids of the fact table as its ids.

It is derived from the stored vectors and can always be rebuilt; :mod:`memory.sync` keeps it level with the table.

>>> index = VectorIndex(dim=384)
>>> index.add([7], vectors)
>>> index.search(query, k=3)
[(7, 0.93)]
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from memory.embedder import Vectors
from memory.products import product

faiss.omp_set_num_threads(1)  # for single queries two threads were 3 to 200 times slower on a busy 2-core machine

Ids = NDArray[np.int64]


class VectorIndex:
    """Unit vectors by id; scores are cosines. Exact; :class:`memory.compressed.CompressedIndex` is its large sibling.

    Safe to use from several threads.
    """

    factory = "IDMap2,Flat"

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
        self._ids: set[int] = set()
        self._masked: tuple[Ids, NDArray[np.bool_]] | None = None  # emptied with every change
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, fact_id: int) -> bool:
        return fact_id in self._ids

    def ids(self) -> set[int]:
        with self._lock:
            return set(self._ids)

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Adds or replaces; FAISS itself would take the same id twice without a word."""
        if len(ids) == 0:
            return
        with self._lock:
            self.remove([fact_id for fact_id in ids if fact_id in self._ids])
            rows = np.ascontiguousarray(vectors, dtype=np.float32).reshape(len(ids), self.dim)
            self._index.add_with_ids(rows, np.asarray(ids, dtype=np.int64))
            self._ids.update(ids)
            self._masked = None

    def remove(self, ids: Collection[int]) -> None:
        """Removes what is there of the ids, in one batch (each removal rebuilds FAISS's reverse map)."""
        with self._lock:
            present = [fact_id for fact_id in ids if fact_id in self._ids]
            if present:
                self._index.remove_ids(np.asarray(present, dtype=np.int64))  # type: ignore[arg-type]
                self._ids.difference_update(present)
                self._masked = None

    def search(self, vector: Vectors, k: int, allowed: Ids | None = None) -> list[tuple[int, float]]:
        """The k nearest (id, cosine), best first, equal ones by id; ``allowed`` filters before the choice."""
        with self._lock:
            count = len(self._ids) if allowed is None else min(len(allowed), len(self._ids))
            if count == 0 or k <= 0:
                return []
            flat: Any = faiss.downcast_index(self._index.index)
            rows = faiss.rev_swig_ptr(flat.get_xb(), len(self._ids) * self.dim).reshape(-1, self.dim)
            labels = faiss.rev_swig_ptr(self._index.id_map.data(), len(self._ids))
            # one product over FAISS's own rows: for a single query FAISS scans on one core, in more than twice the time
            scores = product(rows, np.asarray(vector, dtype=np.float32).reshape(self.dim))
            if allowed is not None:
                scores[~self._mask(labels, allowed)] = -np.inf
            best = np.argpartition(scores, -min(k, count))[-min(k, count) :]
            best = best[np.lexsort((labels[best], -scores[best]))]
            return [(int(labels[at]), float(scores[at])) for at in best if scores[at] > -np.inf]

    def _mask(self, labels: Ids, allowed: Ids) -> NDArray[np.bool_]:
        """Which rows are allowed; kept for the next query, which mostly has the same filter."""
        if self._masked is None or self._masked[0] is not allowed:
            self._masked = (allowed, np.isin(labels, allowed))
        return self._masked[1]

    def vectors(self, ids: Sequence[int]) -> Vectors:
        """The stored vectors of some ids, shape (n, dim)."""
        with self._lock:
            rows = [self._index.reconstruct(int(fact_id)) for fact_id in ids]
        return np.stack(rows) if rows else np.zeros((0, self.dim), dtype=np.float32)

    def to_bytes(self) -> tuple[bytes, int]:
        """The index in FAISS's own format, and how many vectors it holds."""
        with self._lock:
            return faiss.serialize_index(self._index).tobytes(), len(self._ids)

    @classmethod
    def from_bytes(cls, data: bytes, dim: int) -> VectorIndex:
        """The inverse of :meth:`to_bytes`; the caller has checked that the bytes are whole."""
        index = cls(dim)
        index._index = read(data, dim)
        index._ids = set(faiss.vector_to_array(index._index.id_map).tolist())
        return index


def read(data: bytes, dim: int) -> Any:
    """A FAISS index out of its bytes.

    Raises:
        ValueError: it has another number of dimensions.
    """
    loaded: Any = faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))
    if loaded.d != dim:
        raise ValueError(f"the index has {loaded.d} dimensions instead of {dim}")
    return loaded
