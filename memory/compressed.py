"""The index for very many facts: inverted lists of 8-bit vectors, and exact re-ranking of what they bring up.

A flat index looks at every vector: 15 ms at 100,000 facts, 120 ms at a million. From :data:`SWITCH` facts on they
are put into lists around centroids (FAISS ``IVF,SQ8``), of which only the nearest are looked at; the first candidates
are then scored again with the full vectors, which the database holds anyway. So scores are exact cosines, and what can
be lost is only a neighbour in a list that was not looked at (recall@10 is measured by
``python -m benchmarks.memory``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import faiss
import numpy as np

from memory.embedder import Vectors
from memory.index import Ids, VectorIndex, read
from memory.products import product

SWITCH = 200_000  # facts from which the compressed index is used
_PROBES = 64  # lists looked at; a sixth of them where there are more
_CANDIDATES = 16  # times k, scored exactly
_LEAST_CANDIDATES = 100
_SAMPLE = 40  # vectors a centroid is trained on (FAISS's own lower bound is 39)

Fetch = Callable[[Sequence[int]], dict[int, Vectors]]  # ids to their full vectors; unknown ids are left out


class CompressedIndex(VectorIndex):
    """Unit vectors by id, compressed; needs :meth:`train` before the first ``add``.

    Args:
        fetch: the full vectors of a few ids, for exact scores.
    """

    factory = "IVF,SQ8"

    def __init__(self, dim: int, fetch: Fetch) -> None:
        super().__init__(dim)
        self._fetch = fetch
        self._index: Any = None

    @staticmethod
    def sample_size(count: int) -> int:
        """How many vectors are worth training on for an index of so many."""
        return min(count, lists(count) * _SAMPLE)

    def train(self, sample: Vectors, count: int) -> None:
        """Finds the centroids.

        Args:
            sample: vectors drawn at random, shape (n, dim).
            count: how many vectors the index will hold.
        """
        number = min(lists(count), max(1, len(sample) // _SAMPLE))
        coarse = faiss.IndexFlatIP(self.dim)
        index = faiss.IndexIVFScalarQuantizer(
            coarse, self.dim, number, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        index.cp.niter = 8
        index.cp.spherical = True
        index.train(np.ascontiguousarray(sample, dtype=np.float32))
        with self._lock:
            self._index, self._coarse = index, coarse  # FAISS keeps a bare pointer; Python must not free it

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        if self._index is None:
            raise RuntimeError("a compressed index has to be trained before vectors are added")
        super().add(ids, vectors)

    def remove(self, ids: Collection[int]) -> None:
        with self._lock:
            present = [fact_id for fact_id in ids if fact_id in self._ids]
            if present:
                self._index.remove_ids(faiss.IDSelectorBatch(np.asarray(present, dtype=np.int64)))
                self._ids.difference_update(present)

    def search(self, vector: Vectors, k: int, allowed: Ids | None = None) -> list[tuple[int, float]]:
        query = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, self.dim)
        with self._lock:
            count = len(self._ids) if allowed is None else min(len(allowed), len(self._ids))
            if count == 0 or k <= 0:
                return []
            parameters = faiss.SearchParametersIVF()
            parameters.nprobe = min(self._index.nlist, max(_PROBES, self._index.nlist // 6))
            if allowed is not None:
                selector = faiss.IDSelectorBatch(allowed)
                parameters.sel = selector
                if len(allowed) < 20_000:  # few enough to be scattered over many lists
                    parameters.nprobe = self._index.nlist
            wanted = min(count, max(_LEAST_CANDIDATES, k * _CANDIDATES))
            _, ids = self._index.search(query, wanted, params=parameters)
        full = self._fetch([int(fact_id) for fact_id in ids[0] if fact_id >= 0])
        if not full:
            return []
        scores = product(np.stack(list(full.values())), query[0])
        order = np.argsort(-scores, kind="stable")[:k]
        found = list(full)
        return [(found[at], float(scores[at])) for at in order]

    def vectors(self, ids: Sequence[int]) -> Vectors:
        full = self._fetch([int(fact_id) for fact_id in ids])
        rows = [full[int(fact_id)] for fact_id in ids]
        return np.stack(rows) if rows else np.zeros((0, self.dim), dtype=np.float32)

    @classmethod
    def restored(cls, data: bytes, dim: int, fetch: Fetch) -> CompressedIndex:
        """The inverse of :meth:`to_bytes`; the caller has checked that the bytes are whole."""
        index = cls(dim, fetch)
        loaded = read(data, dim)
        index._index = loaded
        lists_ = loaded.invlists
        ids: set[int] = set()
        for number in range(loaded.nlist):
            size = lists_.list_size(number)
            if size:
                ids.update(faiss.rev_swig_ptr(lists_.get_ids(number), size).tolist())
        index._ids = ids
        return index


def lists(count: int) -> int:
    """How many lists an index of so many vectors has: four times the square root."""
    return max(1, int(4 * count**0.5))
