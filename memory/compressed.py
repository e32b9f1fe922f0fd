"""The index for very many facts: four-bit product codes of all vectors, and exact re-ranking of what they bring up.

A flat index of full vectors takes 8 ms a query at 100,000 facts and 80 at a million, most of it waiting for memory.
From :data:`SWITCH` facts on each vector is held as a code of four bits for every two dimensions, a sixteenth of its
size (FAISS ``PQ..x4fs``; "Quicker ADC", 1812.09162). All codes are looked at, since a question lies far from the
statement that answers it and lists around centroids lost one in twenty-five of the nearest. The first candidates are
then scored again with the full vectors, which the database holds anyway. So scores are exact cosines, and what can be
lost is only a neighbour that a hundred others hide (recall@10 is measured by ``python -m benchmarks.memory``). Codes
of half the size were scanned in a third of the time, but wanted six times as many full vectors, and reading one that
lies on the disk takes as long as scanning 7,000 codes.
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
_CANDIDATES = 10  # times k, scored exactly
_LEAST_CANDIDATES = 100
_SAMPLE = 20_000  # vectors that the codes are learned from; more made no difference

Fetch = Callable[[Sequence[int]], dict[int, Vectors]]  # ids to their full vectors; unknown ids are left out


class CompressedIndex(VectorIndex):
    """Unit vectors by id, compressed; needs :meth:`train` before the first ``add``.

    Args:
        fetch: the full vectors of a few ids, for exact scores.
    """

    factory = "PQ4fs,Refine"

    def __init__(self, dim: int, fetch: Fetch) -> None:
        super().__init__(dim)
        self._fetch = fetch
        self._index: Any = None
        self._selected: tuple[Ids, Any] | None = None

    @staticmethod
    def sample_size(count: int) -> int:
        """How many vectors are worth training on for an index of so many."""
        return min(count, _SAMPLE)

    def train(self, sample: Vectors) -> None:
        """Learns the codes.

        Args:
            sample: vectors drawn at random, shape (n, dim).
        """
        parts = next(count for count in range(max(1, self.dim // 2), 0, -1) if self.dim % count == 0)
        # one list with all of them: unlike the plain index of this kind it takes ids, and filters while it searches
        index: Any = faiss.index_factory(self.dim, f"IVF1,PQ{parts}x4fs", faiss.METRIC_INNER_PRODUCT)
        index.train(np.ascontiguousarray(sample, dtype=np.float32))
        with self._lock:
            self._index = index

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
            if allowed is not None:
                parameters.sel = self._selector(allowed)
            wanted = min(count, max(_LEAST_CANDIDATES, k * _CANDIDATES))
            _, ids = self._index.search(query, wanted, params=parameters)
        full = self._fetch([int(fact_id) for fact_id in ids[0] if fact_id >= 0])
        if not full:
            return []
        scores = product(np.stack(list(full.values())), query[0])
        order = np.argsort(-scores, kind="stable")[:k]
        found = list(full)
        return [(found[at], float(scores[at])) for at in order]

    def _selector(self, allowed: Ids) -> Any:
        """A bit for every id, which one may be found; kept for the next query, which mostly has the same filter."""
        if self._selected is None or self._selected[0] is not allowed:
            flags = np.zeros(int(allowed.max()) + 1, dtype=np.bool_)
            flags[allowed] = True
            bitmap: Any = faiss.IDSelectorBitmap  # its Python form takes an array, which the stubs do not know
            self._selected = (allowed, bitmap(np.packbits(flags, bitorder="little")))
        return self._selected[1]

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
        size = loaded.invlists.list_size(0)
        index._ids = set(faiss.rev_swig_ptr(loaded.invlists.get_ids(0), size).tolist()) if size else set()
        return index
