"""Encoding very many statements once: batches of like length, vectors kept on disk.

    stored, note = encode(texts, embedder, Path("cache"))       # a memory-mapped .npy; a broken run goes on
    stored[0:1000]                                              # vectors of the first thousand texts

The note says how fast the encoder is on a sample, as it is and in float32, and how far the vectors of the two differ.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from memory.embedder import Embedder, MiniLM, Vectors

_BATCH = 256  # texts of like length in one pass of the encoder
_CHUNK = 8_192  # texts between two notes of how far it is


class Stored:
    """Vectors on disk, by the number of their text."""

    def __init__(self, rows: NDArray[np.float32], order: NDArray[np.int64]) -> None:
        self.rows = rows  # (distinct texts, dim)
        self.order = order  # text to row

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, part: slice) -> Vectors:
        """Vectors of some texts, shape (n, dim)."""
        return np.asarray(self.rows[self.order[part]])


class Encoded(Embedder):
    """An encoder that has the vectors of some texts already, to be asked for in their order; others it encodes."""

    def __init__(self, embedder: Embedder, texts: Sequence[str], stored: Stored) -> None:
        super().__init__()
        self.inner, self.texts, self.stored = embedder, texts, stored
        self.id, self.dim = embedder.id, embedder.dim
        self._next = 0

    def encode(self, texts: Sequence[str], batch_size: int = 64) -> Vectors:
        part = slice(self._next, self._next + len(texts))
        if list(texts) != list(self.texts[part]):
            return self.inner.encode(texts, batch_size)
        self._next = part.stop
        return self.stored[part]

    def _embed(self, texts: Sequence[str]) -> Vectors:
        return self.inner._embed(texts)


def compare(texts: Sequence[str], embedder: Embedder) -> str:
    """Times the encoder on some texts, as it is and, where it has a choice, in float32."""
    own, vectors = _timed(texts, embedder)
    note = f"encoder {own:,.0f} texts/s"
    if isinstance(embedder, MiniLM):
        exact, reference = _timed(texts, MiniLM(embedder.folder, embedder.origin, "float32"))
        least = (vectors * reference).sum(1).min()
        note += f" in {embedder.arithmetic}, {exact:,.0f} in float32, least cosine between the two {least:.5f}"
    return note


def _timed(texts: Sequence[str], embedder: Embedder) -> tuple[float, Vectors]:
    """Texts a second, and their vectors."""
    embedder.encode(texts[:_BATCH], _BATCH)  # loads the encoder
    start = time.perf_counter()
    vectors = embedder.encode(texts, _BATCH)
    return len(texts) / (time.perf_counter() - start), vectors


def encode(texts: Sequence[str], embedder: Embedder, folder: Path, *, quiet: bool = False) -> tuple[Stored, str]:
    """Vectors of the texts in their order, and how they were made.

    The file is named after the encoder and the texts, so another run over the same texts finds it finished, or goes on
    where it was stopped. A text that stands several times is encoded once.
    """
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    name = hashlib.sha256("\0".join((embedder.id, *distinct)).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    path, state = folder / f"vectors-{name}.npy", folder / f"vectors-{name}.json"
    noted: dict[str, Any] = json.loads(state.read_text()) if state.is_file() and path.is_file() else {}
    if not noted:
        sample = random.Random(0).sample(distinct, min(2_000, len(distinct)))
        noted = {"done": 0, "note": compare(sample, embedder)}
        open_memmap(path, mode="w+", dtype=np.float32, shape=(len(distinct), embedder.dim)).flush()
    rows = open_memmap(path, mode="r+")
    start, before = time.perf_counter(), int(noted["done"])
    for at in range(before, len(distinct), _CHUNK):
        part = distinct[at : at + _CHUNK]
        rows[at : at + len(part)] = embedder.encode(part, _BATCH)
        rows.flush()
        noted["done"] = at + len(part)
        temporary = state.with_suffix(".tmp")
        temporary.write_text(json.dumps(noted))
        temporary.replace(state)
        if not quiet:
            speed = (noted["done"] - before) / (time.perf_counter() - start)
            print(f"encoded {noted['done']:,} of {len(distinct):,}, {speed:,.0f} a second", file=sys.stderr)
    place = {text: row for row, text in enumerate(distinct)}
    order = np.fromiter((place[text] for text in texts), dtype=np.int64, count=len(texts))
    return Stored(open_memmap(path, mode="r"), order), str(noted["note"])
